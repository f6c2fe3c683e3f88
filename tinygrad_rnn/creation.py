"""Making tensors: from data, filled, counted, and at random.

Arguments and defaults are PyTorch's: floats are float32 and integers int64 unless a dtype is given;
`device` defaults to `get_default_device()`. Where random values come from is in `random.py`.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_rnn import backend, random
from tinygrad_rnn.backend import DTypeLike
from tinygrad_rnn.modes import current
from tinygrad_rnn.ops.operators import Operators
from tinygrad_rnn.ops.operators.arguments import sizes_to_make
from tinygrad_rnn.ops.primitive import describe
from tinygrad_rnn.random import Draw, Generator
from tinygrad_rnn.tensor import Tensor

Device = str | backend.device | None


def _made(array: Any, dtype: DTypeLike, device: Device, requires_grad: builtins.bool) -> Tensor:
    """A leaf of an array or of numbers: on the default device, unless a GPU has the array."""
    if not backend.is_array(array):
        given, array = array, np.asarray(array)
        if array.dtype == np.float64 and dtype is None and not isinstance(given, np.generic):
            dtype = backend.get_default_dtype()  # Python numbers have no precision of their own
    if device is None and backend.device_of(array) != backend.CPU:
        device = backend.device_of(array)
    return Tensor(array, dtype=dtype, device=_device(device), requires_grad=requires_grad)


def _filled(
    sizes: tuple[int, ...],
    value: Any,
    dtype: DTypeLike,
    device: Device,
    requires_grad: builtins.bool,
) -> Tensor:
    """A leaf of one value, made where it is to live."""
    array = backend.filled(sizes, value, dtype, _device(device))
    return Tensor(array, requires_grad=requires_grad)


def _exported(data: Any) -> Any:
    """The array in a Tensor, or in an object of another library, sharing memory; else the data."""
    if isinstance(data, Tensor):
        return data.array
    if backend.is_array(data):
        return data
    if hasattr(data, "__dlpack__"):
        return backend.from_dlpack(data)
    if hasattr(data, "__cuda_array_interface__"):
        return backend.library("cuda").asarray(data)
    return data


def _device(device: Device) -> backend.device:
    return backend.get_default_device() if device is None else backend.device(device)


def _float(dtype: DTypeLike) -> DTypeLike:
    return backend.get_default_dtype() if dtype is None else dtype


def tensor(
    data: Any, dtype: DTypeLike = None, device: Device = None, requires_grad: builtins.bool = False
) -> Tensor:
    """A new leaf tensor with a copy of the data (numbers, nested lists, an array or a tensor).

    Python floats become float32, Python integers int64; arrays keep their dtype.

    >>> tensor([[1.0, 2.0], [3.0, 4.0]])
    tensor([[1., 2.],
            [3., 4.]])
    """
    array = _exported(data)
    if backend.is_array(array):
        array = array.copy()
        device = data.device if device is None and isinstance(data, Tensor) else device
    return _made(array, dtype, device, requires_grad)


def as_tensor(data: Any, dtype: DTypeLike = None, device: Device = None) -> Tensor:
    """A tensor of the data, sharing memory where dtype and device allow.

    data: numbers and lists of them, a Tensor, an array, or an object of another library that
        exports its memory (DLPack, `__cuda_array_interface__`, `__array__`, a buffer).
    """
    if isinstance(data, Tensor):
        return data.to(device, dtype=dtype)
    return _made(_exported(data), dtype, device, False)


def asarray(
    obj: Any,
    *,
    dtype: DTypeLike = None,
    device: Device = None,
    copy: builtins.bool | None = None,
    requires_grad: builtins.bool = False,
) -> Tensor:
    """A leaf of the same data as `as_tensor` takes.

    copy: True to have memory of its own; False for an error (ValueError) if the memory cannot be
        shared; None to share it where dtype and device allow.
    """
    array = _exported(obj)
    if isinstance(obj, Tensor) and device is None:
        device = obj.device
    made = (tensor if copy else as_tensor)(array, dtype, device)
    if copy is False and made.array is not array:
        raise ValueError(
            "asarray: copy=False, but a tensor of this dtype on this device cannot share the memory"
        )
    return made.requires_grad_(requires_grad)


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor that shares the memory of another library's array, on the device where that is.

    ext_tensor: an object with `__dlpack__`, as arrays of PyTorch, NumPy, CuPy and JAX.

    >>> from_dlpack(np.arange(3.0))
    tensor([0., 1., 2.], dtype=float64)
    """
    return Tensor(backend.from_dlpack(ext_tensor))


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor that shares the NumPy array's memory."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"from_numpy: expected a numpy.ndarray, got {type(array).__name__}")
    return Tensor(array)


def FloatTensor(*data: Any) -> Tensor:
    """The data as float32; or, for sizes one by one, a tensor of float32 still to be written."""
    return Tensor(*data, dtype=np.float32)


def LongTensor(*data: Any) -> Tensor:
    """The data as int64; or, for sizes one by one, a tensor of int64 still to be written."""
    return Tensor(*data, dtype=np.int64)


def Variable(data: Tensor, requires_grad: builtins.bool = False) -> Tensor:
    """A leaf that shares the tensor's values: what tensors were wrapped in before PyTorch 0.4."""
    return Tensor(data, requires_grad=requires_grad)


def is_tensor(value: Any) -> builtins.bool:
    """Whether the value is a Tensor, or stands for one in the step of a scan."""
    return isinstance(value, Operators)


def zeros(
    *sizes: Any,
    size: Sequence[int] = (),
    dtype: DTypeLike = None,
    device: Device = None,
    requires_grad: builtins.bool = False,
) -> Tensor:
    """A tensor of zeros. The size is given as numbers, as one sequence, or as size=…."""
    return _filled(sizes_to_make(sizes or (size,)), 0, _float(dtype), device, requires_grad)


def ones(
    *sizes: Any,
    size: Sequence[int] = (),
    dtype: DTypeLike = None,
    device: Device = None,
    requires_grad: builtins.bool = False,
) -> Tensor:
    """A tensor of ones."""
    return _filled(sizes_to_make(sizes or (size,)), 1, _float(dtype), device, requires_grad)


def empty(
    *sizes: Any,
    size: Sequence[int] = (),
    dtype: DTypeLike = None,
    device: Device = None,
    requires_grad: builtins.bool = False,
) -> Tensor:
    """A tensor whose values are still to be written. They are zeros, so that nothing is random."""
    return zeros(*(sizes or size), dtype=dtype, device=device, requires_grad=requires_grad)


def full(
    size: Sequence[int],
    fill_value: float,
    *,
    dtype: DTypeLike = None,
    device: Device = None,
    requires_grad: builtins.bool = False,
) -> Tensor:
    """A tensor of one value; its dtype follows the value's kind unless given."""
    if dtype is None:
        is_float = isinstance(fill_value, float)
        dtype = backend.get_default_dtype() if is_float else np.asarray(fill_value).dtype
    return _filled(sizes_to_make((size,)), fill_value, dtype, device, requires_grad)


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: DTypeLike = None,
    device: Device = None,
    requires_grad: builtins.bool = False,
) -> Tensor:
    """The identity matrix (n, m)."""
    sizes_to_make((n, n if m is None else m))
    return _made(np.eye(n, m, dtype=_float(dtype)), None, device, requires_grad)


def arange(
    start: float = 0,
    end: float | None = None,
    step: float = 1,
    *,
    dtype: DTypeLike = None,
    device: Device = None,
    requires_grad: builtins.bool = False,
) -> Tensor:
    """start, start + step, …, up to but without end; integers give int64."""
    if end is None:
        start, end = 0, start
    if step == 0 or (end - start) / step < 0:
        raise RuntimeError(f"arange: from {start} to {end} there is no way by steps of {step}")
    if dtype is None and builtins.any(isinstance(x, float) for x in (start, end, step)):
        dtype = backend.get_default_dtype()
    return _made(np.arange(start, end, step), dtype, device, requires_grad)


def linspace(
    start: float,
    end: float,
    steps: int,
    *,
    dtype: DTypeLike = None,
    device: Device = None,
    requires_grad: builtins.bool = False,
) -> Tensor:
    """`steps` values from start to end, both included, at equal distances."""
    sizes_to_make((steps,))
    return _made(np.linspace(start, end, steps), _float(dtype), device, requires_grad)


def _like(
    x: Tensor, value: float, dtype: DTypeLike, device: Device, requires_grad: builtins.bool
) -> Tensor:
    dtype = x.dtype if dtype is None else dtype
    return _filled(x.shape, value, dtype, x.device if device is None else device, requires_grad)


def zeros_like(
    input: Tensor,
    *,
    dtype: DTypeLike = None,
    device: Device = None,
    requires_grad: builtins.bool = False,
) -> Tensor:
    """Zeros with another tensor's shape, dtype and device."""
    return _like(input, 0, dtype, device, requires_grad)


def ones_like(
    input: Tensor,
    *,
    dtype: DTypeLike = None,
    device: Device = None,
    requires_grad: builtins.bool = False,
) -> Tensor:
    """Ones with another tensor's shape, dtype and device."""
    return _like(input, 1, dtype, device, requires_grad)


def full_like(
    input: Tensor,
    fill_value: float,
    *,
    dtype: DTypeLike = None,
    device: Device = None,
    requires_grad: builtins.bool = False,
) -> Tensor:
    """One value with another tensor's shape, dtype and device."""
    return _like(input, fill_value, dtype, device, requires_grad)


def empty_like(
    input: Tensor,
    *,
    dtype: DTypeLike = None,
    device: Device = None,
    requires_grad: builtins.bool = False,
) -> Tensor:
    """Zeros (see `empty`) with another tensor's shape, dtype and device."""
    return _like(input, 0, dtype, device, requires_grad)


# --- at random -----------------------------------------------------------------------------------


def drawn(draw: Draw, requires_grad: builtins.bool = False) -> Tensor:
    """A tensor of what `draw` draws.

    While the step of a `scan` is being written down nothing is drawn: the scan will, for each step.
    """
    if current.trace is not None:
        return current.trace.draw(draw)[0]  # type: ignore[no-any-return]
    return _made(draw.now(), None, draw.device, requires_grad)


def rand(
    *sizes: Any,
    size: Sequence[int] = (),
    generator: Generator | None = None,
    dtype: DTypeLike = None,
    device: Device = None,
    requires_grad: builtins.bool = False,
) -> Tensor:
    """Uniform in [0, 1)."""
    source, shape = generator or random.generator(), sizes_to_make(sizes or (size,))
    draw = random.uniform_draw(source, shape, _float(dtype), _device(device))
    return drawn(draw, requires_grad)


def randn(
    *sizes: Any,
    size: Sequence[int] = (),
    generator: Generator | None = None,
    dtype: DTypeLike = None,
    device: Device = None,
    requires_grad: builtins.bool = False,
) -> Tensor:
    """Normal with mean 0 and standard deviation 1."""
    source, shape = generator or random.generator(), sizes_to_make(sizes or (size,))
    draw = random.normal_draw(source, shape, _float(dtype), _device(device))
    return drawn(draw, requires_grad)


def rand_like(
    input: Tensor, *, generator: Generator | None = None, dtype: DTypeLike = None
) -> Tensor:
    """Uniform in [0, 1) with another tensor's shape and device, and its dtype unless given."""
    dtype = input.dtype if dtype is None else dtype
    return rand(input.shape, generator=generator, dtype=dtype, device=input.device)


def randn_like(
    input: Tensor, *, generator: Generator | None = None, dtype: DTypeLike = None
) -> Tensor:
    """Standard normal with another tensor's shape and device, and its dtype unless given."""
    dtype = input.dtype if dtype is None else dtype
    return randn(input.shape, generator=generator, dtype=dtype, device=input.device)


def randint(
    low: int = 0,
    high: Any = None,
    size: Sequence[int] | None = None,
    *,
    generator: Generator | None = None,
    dtype: DTypeLike = None,
    device: Device = None,
) -> Tensor:
    """Integers in [low, high): randint(high, size) or randint(low, high, size)."""
    if size is None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low
    if not isinstance(size, Sequence):
        raise TypeError(f"randint: the size must be a sequence of numbers, got {size!r}")
    if low >= high:
        raise RuntimeError(f"randint: there is no integer in [{low}, {high})")
    numbers = (generator or random.generator()).integers(sizes_to_make((size,)), low, high)
    return _made(numbers, dtype, device, False)


def randperm(n: int, *, generator: Generator | None = None, device: Device = None) -> Tensor:
    """The integers 0 … n-1 in random order."""
    sizes_to_make((n,))
    return _made((generator or random.generator()).permutation(n), None, device, False)


def normal(
    mean: Tensor | float,
    std: Tensor | float = 1.0,
    size: Sequence[int] | None = None,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Normal with the given means and standard deviations, broadcast; `size` for two numbers.

    What is drawn is a constant: no gradient flows to `mean` or `std`.
    """
    mean, std = (x.detach() if isinstance(x, Tensor) else x for x in (mean, std))
    if (std.amin().item() if isinstance(std, Tensor) else std) < 0:
        raise RuntimeError("normal: a standard deviation must not be negative")
    if size is None:
        if not isinstance(mean, Tensor) and not isinstance(std, Tensor):
            raise TypeError("normal: two numbers need a size")
        size = np.broadcast_shapes(*(x.shape for x in (mean, std) if isinstance(x, Tensor)))
    like = [x.device for x in (mean, std) if isinstance(x, Tensor)]
    return randn(size, generator=generator, device=like[0] if like else None) * std + mean


def bernoulli(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """1 with the chance that `input` gives at each place, else 0.

    On a GPU it waits for the chances, to look at them; in a step of `scan` they are not looked at.
    """
    if current.trace is not None:
        return (rand_like(input, generator=generator, dtype=np.float32) < input).to(input.dtype)
    chances = input.detach().array
    if not ((chances >= 0) & (chances <= 1)).all().item():
        raise RuntimeError("bernoulli: the chances must lie in [0, 1]")
    source = generator or random.generator()
    hits = source.uniform(input.shape, device=input.device) < chances
    return _made(hits, input.dtype, input.device, False)


def multinomial(
    input: Tensor,
    num_samples: int,
    replacement: builtins.bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """`num_samples` indices per row, each with a chance in proportion to its weight in `input`.

    input: (N,) or (rows, N) of weights >= 0, which need not sum to 1.
    Raises RuntimeError for negative, non-finite or all-zero weights, or too few to draw from.
    """
    weights = backend.to_numpy(input.detach().array)
    if weights.ndim not in (1, 2):
        raise RuntimeError(f"multinomial: expected 1 or 2 axes, got {describe(input)}")
    rows = weights if weights.ndim == 2 else weights[None]
    if not np.isfinite(rows).all() or (rows < 0).any() or (rows.sum(-1) <= 0).any():
        raise RuntimeError(
            "multinomial: weights must be finite and >= 0, with a positive sum a row"
        )
    if num_samples <= 0:
        raise RuntimeError(f"multinomial: cannot draw {num_samples} samples")
    fewest = int((rows > 0).sum(-1).min()) if rows.size else math.inf
    if not replacement and num_samples > fewest:
        raise RuntimeError(
            f"multinomial: cannot draw {num_samples} samples without replacement from {fewest} "
            "positive weights"
        )
    numbers = (generator or random.generator()).multinomial(rows, num_samples, replacement)
    return _made(numbers if weights.ndim == 2 else numbers[0], None, input.device, False)


def get_rng_state() -> Tensor:
    """Where the default generator is."""
    return Tensor(random.generator().get_state())


def set_rng_state(state: Tensor) -> None:
    """Take the default generator to where `get_rng_state` was called."""
    random.generator().set_state(state)
