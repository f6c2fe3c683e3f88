"""Which array library an array belongs to, and on which device it lives.

The engine never names NumPy or CuPy when it computes: it asks `namespace` for the library of its
operands and calls that. CuPy is imported the first time a CUDA device is asked for, never before;
if it cannot compute, `gpu_setup.py` says why. Streams are CuPy's affair: whatever stream is current
there is computed on, and none is made or chosen here.
This file knows arrays only; Tensors, graphs and gradients begin in `ops/` and `tensor.py`.
"""

from __future__ import annotations

import functools
import importlib
import math
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from tinygrad_rnn import gpu_setup

#: A NumPy array or a CuPy array.
Array: TypeAlias = Any
#: Whatever names a dtype: `np.float32`, `"float32"`, `np.dtype("float32")`, Python's `float`.
DTypeLike: TypeAlias = Any

# Allocating and freeing one large array teaches glibc to keep freed memory (up to twice its size)
# for the next graph, instead of giving it back after every backward and faulting every page in
# again: a tenth of a training step. No page of it is touched, and other C libraries do not mind.
np.empty(31 << 20, np.uint8)

_libraries: dict[type, ModuleType | None] = {np.ndarray: np}


def namespace(*operands: Any) -> Any:
    """The array library (`numpy` or `cupy`) that the operands belong to; NumPy if none is an array.

    It is told by the array's type, so nothing is imported.
    """
    found: Any = np
    for operand in operands:
        if type(operand) is not np.ndarray:
            library = _library(type(operand))
            if library is not None and library is not np:
                found = library
    return found


def _library(kind: type) -> ModuleType | None:
    """The package whose arrays are of type `kind`, or None for scalars and other constants."""
    if kind not in _libraries:
        cupy: Any = sys.modules.get("cupy")  # an array of CuPy's exists only once it is imported
        if issubclass(kind, np.ndarray):
            _libraries[kind] = np
        else:
            of_cupy = issubclass(kind, getattr(cupy, "ndarray", ()))
            _libraries[kind] = cupy if of_cupy else None
    return _libraries[kind]


def is_array(value: Any) -> bool:
    """Whether `value` is an array of some library (a NumPy scalar is not)."""
    return type(value) is np.ndarray or _library(type(value)) is not None


class device:
    """Where an array lives: `device("cpu")`, `device("cuda")`, `device("cuda:1")` or `device(1)`.

    "cuda" without a number is the GPU that computes: the first, unless `cuda.set_device` chose
    another. That there is such a GPU is not checked before it is used.

    >>> device("cuda:1").type, device("cuda:1").index
    ('cuda', 1)
    >>> device("cpu") == "cpu"
    True
    """

    __slots__ = ("index", "type")

    def __init__(self, name: str | int | device, index: int | None = None) -> None:
        number: int | None
        if isinstance(name, device):
            kind, number = name.type, name.index
        elif isinstance(name, int):
            kind, number = "cuda", name
        else:
            kind, _, suffix = name.partition(":")
            if kind not in ("cpu", "cuda") or (suffix and not suffix.isdecimal()):
                raise RuntimeError(
                    f"device: {name!r} is not a device; expected 'cpu', 'cuda' or 'cuda:N'"
                )
            number = int(suffix) if suffix else None
            if kind == "cuda" and number is None and index is None:
                number = current_gpu()
        self.type: str = kind
        self.index: int | None = number if index is None else index

    def __repr__(self) -> str:
        return f"device(type={self.type!r})" if self.index is None else f"device({str(self)!r})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, str):
            other = device(other)
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))


CPU = device("cpu")
_default_device: device | str | None = None  # "cuda" stays a name: what it means may change


def get_default_device() -> device:
    """Where new tensors are made: as set, else as TINYGRAD_RNN_DEVICE says, else on the CPU."""
    if isinstance(_default_device, device):
        return _default_device
    if _default_device is not None:
        return device(_default_device)
    name = os.environ.get("TINYGRAD_RNN_DEVICE")
    if not name:
        return CPU
    try:
        return device(name)
    except RuntimeError as error:
        raise RuntimeError(f"TINYGRAD_RNN_DEVICE: {error}") from error


def set_default_device(name: str | int | device | None) -> None:
    """Make new tensors on this device from now on; None goes back to the environment's choice.

    "cuda" is the GPU that computes when the tensor is made.
    """
    global _default_device
    if name is None:
        _default_device = None
        return
    wanted = device(name)
    library(wanted)
    _default_device = name if name == "cuda" else wanted


def library(where: str | int | device) -> Any:
    """The array library that computes on a device.

    Raises RuntimeError if the device is a CUDA one and CuPy, a driver or that GPU is missing: what
    was found, and what to do.
    """
    wanted = device(where)
    if wanted.index is None:  # the CPU, which has no number
        return np
    if wanted.index < gpu_count():
        return importlib.import_module("cupy")
    setup = gpu_setup.look()
    gpus = "is one GPU, cuda:0" if setup.gpus == 1 else f"are {setup.gpus} GPUs, from cuda:0 on"
    problem = gpu_setup.advice(setup) or f"does not exist: there {gpus}"
    by_environment = _default_device is None and get_default_device() == wanted
    source = " (which TINYGRAD_RNN_DEVICE asks for)" if by_environment else ""
    raise RuntimeError(f"device '{wanted}'{source} {problem}") from setup.error


def gpu_count() -> int:
    """How many GPUs can compute; 0 without CuPy."""
    try:
        return int(importlib.import_module("cupy").cuda.runtime.getDeviceCount())
    except Exception:  # CuPy can fail in many ways, and not only to be imported
        return 0


def computing_on(where: device) -> AbstractContextManager[Any]:
    """A context in which the array library computes on this device."""
    if where.index is None:
        return nullcontext()
    return library(where).cuda.Device(where.index)  # type: ignore[no-any-return]


def current_gpu() -> int:
    """The number of the GPU that computes, which "cuda" means; 0 before CuPy was asked for."""
    cupy: Any = sys.modules.get("cupy")
    try:
        return int(cupy.cuda.runtime.getDevice())
    except Exception:  # CuPy is not there, or has no GPU
        return 0


@functools.cache
def _gpu(index: int) -> device:
    """The device of a number: one object each, so that most comparisons end at once."""
    return device("cuda", index)


def device_of(array: Array) -> device:
    """The device an array lives on."""
    if isinstance(array, np.ndarray | np.generic):
        return CPU
    return _gpu(array.data.device_id)


def to_device(array: Array, where: str | int | device) -> Array:
    """The array on another device; itself if it is there already."""
    wanted = device(where)
    if device_of(array) == wanted:
        return array
    if wanted.type == "cpu":
        return array.get()
    with computing_on(wanted):
        return library(wanted).asarray(array)


def filled(shape: tuple[int, ...], value: Any, dtype: DTypeLike, where: device) -> Array:
    """An array of one value, made on the device where it is to live."""
    xp = library(where)
    if xp is np:
        is_zero = type(value) is int and value == 0  # not -0.0
        return np.zeros(shape, dtype) if is_zero else np.full(shape, value, dtype)
    with computing_on(where):
        return xp.full(shape, value, dtype)


def to_numpy(array: Array) -> np.ndarray[Any, Any]:
    """The array as a NumPy array on the host; shares memory if it is one already."""
    return array if type(array) is np.ndarray else array.get()


def from_dlpack(source: Any) -> Array:
    """The array that an object of another library exports by DLPack: the same memory.

    Raises TypeError for an object that exports none, and RuntimeError for one on a device that
    cannot be used here.
    """
    if not hasattr(source, "__dlpack_device__"):
        raise TypeError(f"from_dlpack: {type(source).__name__} does not export its values (DLPack)")
    kind, _ = source.__dlpack_device__()
    if kind not in _DLPACK_DEVICES:
        raise RuntimeError(f"from_dlpack: no Tensor lives on a device of DLPack's kind {int(kind)}")
    try:
        return library(_DLPACK_DEVICES[kind]).from_dlpack(source)
    except RuntimeError as error:  # a dtype that the library lacks, as bfloat16
        name = f"{type(source).__name__} of {getattr(source, 'dtype', 'unknown dtype')}"
        raise TypeError(f"from_dlpack: a {name} cannot be shared: {error}") from error


#: Devices by their numbers in DLPack's header, `DLDeviceType`.
_DLPACK_DEVICES = {1: "cpu", 2: "cuda"}

_math_erf = np.frompyfunc(math.erf, 1, 1)


def erf(array: Array) -> Array:
    """The error function, which NumPy lacks: Python's own on the host, CuPy's on a GPU."""
    dtype = np.result_type(array.dtype, np.float16)
    if namespace(array) is np:
        return np.asarray(_math_erf(array), dtype)
    result = importlib.import_module("cupyx.scipy.special").erf(array)
    return result.astype(dtype, copy=False)  # that of a float16 is a float64 in CuPy


_default_dtype: np.dtype[Any] = np.dtype(np.float32)


def get_default_dtype() -> np.dtype[Any]:
    """The floating dtype of new tensors made from Python numbers: float32 unless changed."""
    return _default_dtype


def set_default_dtype(dtype: DTypeLike) -> None:
    """Change the floating dtype of new tensors made from Python numbers."""
    global _default_dtype
    wanted = np.dtype(dtype)
    if wanted.kind != "f":
        raise TypeError(f"set_default_dtype: {wanted} is not a floating-point dtype")
    _default_dtype = wanted
