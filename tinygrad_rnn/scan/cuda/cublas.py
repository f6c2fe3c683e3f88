"""How is a product of matrices launched so that a CUDA graph can hold it?

By cuBLAS itself, called through ctypes: the array library's own products refuse to be captured. The
handle has its own workspace, so that a graph allocates nothing. cuBLAS thinks in columns: a matrix
stored by rows is its transpose there, so C = A B is asked for as Cᵀ = Bᵀ Aᵀ.

Float32 is computed in full precision unless `set_float32_matmul_precision` allows TF32.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib
import threading
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn.precision import get_float32_matmul_precision

WORKSPACE = 32 << 20  # bytes; what NVIDIA recommends for the H100, and more than older GPUs need
_PLAIN, _TRANSPOSED = 0, 1  # CUBLAS_OP_N, CUBLAS_OP_T
_TYPES = {"float32": 0, "float64": 1, "float16": 2}  # cudaDataType
_COMPUTE_32F, _COMPUTE_32F_FAST_TF32, _COMPUTE_64F = 68, 77, 70  # cublasComputeType_t
_DEFAULT_ALGORITHM = -1


class Matrix(NamedTuple):
    """A matrix in memory, or several of one form, one behind the other.

    by_columns: whether it lies by columns. distance: between its rows (or columns), in elements.
    batch: how many there are. apart: how far from each other; 0 where all are the same.
    """

    rows: int
    columns: int
    by_columns: bool
    distance: int
    batch: int = 1
    apart: int = 0


def matrix_of(array: Any) -> Matrix | None:
    """How cuBLAS sees an array: of one axis, a row; of two, a matrix; of three, several.

    None if it cannot.
    """
    if array.ndim == 1:
        return matrix_of(array[None])
    if array.ndim > 3:
        return None
    size = array.itemsize
    (rows, columns), (down, right) = array.shape[-2:], array.strides[-2:]
    if (right == size or columns == 1) and (rows == 1 or _fits(down, columns, size)):
        found = Matrix(rows, columns, False, max(down // size, columns) if rows > 1 else columns)
    elif (down == size or rows == 1) and (columns == 1 or _fits(right, rows, size)):
        found = Matrix(rows, columns, True, right // size if columns > 1 else rows)
    else:
        return None
    if array.ndim == 2:
        return found
    batch = array.shape[0]
    return found._replace(batch=batch, apart=array.strides[0] // size if batch > 1 else 0)


def _fits(stride: int, length: int, size: int) -> bool:
    """Whether lines of a length can lie a stride apart."""
    return stride % size == 0 and stride >= length * size


class Blas:
    """cuBLAS on one stream, with memory of its own."""

    def __init__(self, library: Any, xp: Any) -> None:
        self._library = library
        self._handle = ctypes.c_void_p()
        _check("cublasCreate", library.cublasCreate_v2(ctypes.byref(self._handle)))
        self._workspace = xp.empty(WORKSPACE, np.uint8)

    def use(self, stream: int) -> None:
        """Launch on this stream from now on; the handle of a CUDA stream."""
        library, handle = self._library, self._handle
        _check("cublasSetStream", library.cublasSetStream_v2(handle, ctypes.c_void_p(stream)))
        memory = ctypes.c_void_p(self._workspace.data.ptr)  # setting the stream takes it away
        size = ctypes.c_size_t(WORKSPACE)
        _check("cublasSetWorkspace", library.cublasSetWorkspace_v2(handle, memory, size))

    def product(
        self, a: Matrix, b: Matrix, out: Matrix, dtype: Any, adding: bool
    ) -> Callable[[int, int, int], None]:
        """The function of three addresses that does out = a @ b, or out += a @ b if `adding`."""
        name = str(dtype)
        real = ctypes.c_double if name == "float64" else ctypes.c_float
        compute = _COMPUTE_64F if name == "float64" else _COMPUTE_32F
        if name == "float32" and get_float32_matmul_precision() != "highest":
            compute = _COMPUTE_32F_FAST_TF32
        one, beta = real(1), real(1 if adding else 0)
        kind = ctypes.c_int(_TYPES[name])
        left = _TRANSPOSED if b.by_columns else _PLAIN
        right = _TRANSPOSED if a.by_columns else _PLAIN
        head = (
            *(ctypes.c_int(x) for x in (left, right, out.columns, out.rows, a.columns)),
            ctypes.byref(one),
        )
        a_form: tuple[Any, ...] = (kind, ctypes.c_int(a.distance))
        b_form: tuple[Any, ...] = (kind, ctypes.c_int(b.distance))
        out_form: tuple[Any, ...] = (kind, ctypes.c_int(out.distance))
        tail: tuple[Any, ...] = (ctypes.c_int(compute), ctypes.c_int(_DEFAULT_ALGORITHM))
        function, handle = self._library.cublasGemmEx, self._handle
        if out.batch > 1:
            function = self._library.cublasGemmStridedBatchedEx
            a_form, b_form, out_form = (
                (*form, ctypes.c_longlong(x.apart))
                for form, x in ((a_form, a), (b_form, b), (out_form, out))
            )
            tail = ctypes.c_int(out.batch), *tail

        def launch(a_at: int, b_at: int, out_at: int) -> None:
            status = function(
                handle,
                *head,
                ctypes.c_void_p(b_at),
                *b_form,
                ctypes.c_void_p(a_at),
                *a_form,
                ctypes.byref(beta),
                ctypes.c_void_p(out_at),
                *out_form,
                *tail,
            )
            _check("cublasGemm", status)

        return launch


_local = threading.local()


def blas(xp: Any) -> Blas | None:
    """This thread's cuBLAS for the current device and stream; None where it cannot be loaded."""
    library = load()
    if library is None:
        return None
    known: dict[Hashable, Blas] = _local.__dict__.setdefault("known", {})
    stream = xp.cuda.get_current_stream().ptr
    key = id(library), xp.cuda.Device().id, stream
    if key not in known:
        known[key] = Blas(library, xp)
    known[key].use(stream)
    return known[key]


@functools.cache
def load() -> Any:
    """The cuBLAS library, as the array library finds it, or else as the system does; or None."""
    try:
        finder = importlib.import_module("cuda.pathfinder")
        return ctypes.CDLL(finder.load_nvidia_dynamic_lib("cublas").abs_path)
    except Exception:  # not installed, or not found: in many ways
        name = ctypes.util.find_library("cublas")
    try:
        return None if name is None else ctypes.CDLL(name)
    except OSError:
        return None


def _check(what: str, status: int) -> None:
    if status:
        raise RuntimeError(f"{what} failed with status {status} of cublasStatus_t")
