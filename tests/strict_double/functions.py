"""The functions and ufuncs of the test double: NumPy's computation behind CuPy's parameters.

A function that is only a line with its parameters is NumPy's of that name, opened and closed by
`array.borrowed`. Below are those in which CuPy differs.
"""

from __future__ import annotations

import types

import numpy as np
from numpy.lib.stride_tricks import as_strided

from strict_double import cuda
from strict_double.array import (
    Array,
    Arrays,
    Kind,
    Operand,
    array_of,
    arrays_in,
    borrowed,
    index_of,
    ndarray,
    operand,
    plain,
    root,
    silently,
    wrapped,
)

# --- as NumPy's ----------------------------------------------------------------------------------


# fmt: off
def all(a: Array, axis=None, out: Array = None, keepdims=False): ...
def any(a: Array, axis=None, out: Array = None, keepdims=False): ...
def arange(start, stop=None, step=1, dtype=None): ...
def argmax(a: Array, axis=None, dtype=None, out: Array = None, keepdims=False): ...
def argmin(a: Array, axis=None, dtype=None, out: Array = None, keepdims=False): ...
def argsort(a: Array, axis=-1, kind: Kind = None): ...
def argwhere(a: Array): ...
def ascontiguousarray(a: Array, dtype=None): ...
def concatenate(tup: Arrays, axis=0, out: Array = None, *, dtype=None, casting="same_kind"): ...
def cumsum(a: Array, axis=None, dtype=None, out: Array = None): ...
def empty(shape, dtype=float, order="C"): ...
def empty_like(prototype: Array, dtype=None, order="K", subok=None, shape=None): ...
def flip(a: Array, axis=None): ...
def full(shape, fill_value, dtype=None, order="C"): ...
def full_like(a: Array, fill_value, dtype=None, order="K", subok=None, shape=None): ...
def isclose(a: Array, b: Operand, rtol=1e-05, atol=1e-08, equal_nan=False): ...
def max(a: Array, axis=None, out: Array = None, keepdims=False): ...
def min(a: Array, axis=None, out: Array = None, keepdims=False): ...
def moveaxis(a: Array, source, destination): ...
def nonzero(a: Array): ...
def ones(shape, dtype=float, order="C"): ...
def ones_like(a: Array, dtype=None, order="K", subok=None, shape=None): ...
def partition(a: Array, kth, axis=-1): ...
def searchsorted(a: Array, v: Array, side="left"): ...
def stack(tup: Arrays, axis=0, out: Array = None, *, dtype=None, casting="same_kind"): ...
def sum(a: Array, axis=None, dtype=None, out: Array = None, keepdims=False): ...
def take(a: Array, indices: Array, axis=None, out: Array = None): ...
def take_along_axis(a: Array, indices: Array, axis): ...
def unique(ar: Array, return_index=False, return_inverse=False, return_counts=False, axis=None, *,
           equal_nan=True): ...
def zeros(shape, dtype=float, order="C"): ...
def zeros_like(a: Array, dtype=None, order="K", subok=None, shape=None): ...
# fmt: on

for _stub in [f for f in list(globals().values()) if getattr(f, "__module__", "") == __name__]:
    globals()[_stub.__name__] = borrowed(_stub)


# --- between the host and the device -------------------------------------------------------------


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    """A copy on the device: of NumPy's arrays, of lists of numbers, of its own arrays."""
    return _taken(obj, dtype=dtype, copy=copy or None, order=order, ndmin=ndmin)


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    """The array itself if it is one of the device, else a copy."""
    return _taken(a, dtype=dtype, copy=copy, order=order)


def _taken(value, **options):
    """Always its own memory, unless the value lies on the device already."""
    if type(value) is ndarray:
        if value.data.device_id != cuda.get_device_id():  # a copy from one device to the other
            return wrapped(np.array(value.host))
        return wrapped(np.array(value.host, **options), value)
    made = np.array(value, **{**options, "copy": True})
    if made.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {made.dtype}")
    return wrapped(made)


def from_dlpack(array, *, device=None, copy=None):
    """Another array on the memory of an array of the device; one of the host must be named so."""
    if array.__dlpack_device__()[0] == 1:
        if device is None:
            raise ValueError("CPU arrays cannot be directly imported to CuPy; name a device")
        return wrapped(np.from_dlpack(array).copy())
    given = array.__dlpack__(copy=copy).array
    return given._view(given.host)


# --- where CuPy differs --------------------------------------------------------------------------


def broadcast_to(array, shape):
    """A view, into which one can write, as NumPy's cannot."""
    host = np.broadcast_to(array_of(array), shape)
    return wrapped(as_strided(array.host, host.shape, host.strides), array)


def where(condition, x=None, y=None):
    """x or y as the condition says; alone, where it is true."""
    if x is None and y is None:
        return nonzero(condition)
    return wrapped(silently(np.where, array_of(condition), operand(x), operand(y)))


def clip(a, a_min, a_max, out=None):
    """a brought between two bounds, of which one may be None."""
    if a_min is None and a_max is None:
        raise ValueError("array_clip: must set either max or min")
    low, high = (None if bound is None else operand(bound) for bound in (a_min, a_max))
    opened = None if out is None else array_of(out)
    return wrapped(np.clip(array_of(a), low, high, out=opened), *arrays_in([out]))


def copyto(dst, src, casting="same_kind", where=None):
    """Write into `dst`."""
    mask = True if where is None else array_of(where)
    np.copyto(array_of(dst), operand(src), casting=casting, where=mask)


def pad(array, pad_width, mode="constant", **kwargs):
    """Margins around an array."""
    return wrapped(silently(np.pad, array_of(array), plain(pad_width), mode, **kwargs))


def einsum(*operands, **kwargs):
    """Sums of products, in CuPy's form "labels, arrays"."""
    if kwargs.keys() - {"dtype", "optimize"}:
        raise TypeError(f"Did not understand the following kwargs: {list(kwargs)}")
    labels, *arrays = operands
    return wrapped(silently(np.einsum, labels, *map(array_of, arrays), **kwargs), *arrays)


def may_share_memory(a, b, max_work=None):
    """Whether both may lie on the same memory."""
    return root(array_of(a)) is root(array_of(b))


def matmul(x1, x2, /, out=None):
    """x1 @ x2. CuPy computes into `out` only if it is C-contiguous; else it copies."""
    if out is not None and not array_of(out).flags.c_contiguous:
        raise TypeError("matmul: CuPy would copy into an `out` that is not C-contiguous")
    opened = None if out is None else array_of(out)
    result = silently(np.matmul, array_of(x1), array_of(x2), out=opened)
    return wrapped(result, *arrays_in([out]))


def _norm(x, ord=None, axis=None, keepdims=False):
    return wrapped(silently(np.linalg.norm, array_of(x), ord, axis, keepdims))


linalg = types.SimpleNamespace(norm=_norm)


# --- ufuncs --------------------------------------------------------------------------------------


# The dtypes for which CuPy has an atomic operation.
_AT = {
    "add": "int32 float16 float32 float64 complex64 complex128 uint32 uint64",
    "subtract": "int32 uint32",
    "maximum": "int32 float32 float64 uint32 uint64",
    "minimum": "int32 float32 float64 uint32 uint64",
}


class ufunc:
    """An elementwise function, with the methods that CuPy has for it, and its dtypes there."""

    def __init__(self, numpy):
        self._numpy = numpy
        self.name = self.__name__ = numpy.__name__
        self.nin, self.nout, self.nargs = numpy.nin, numpy.nout, numpy.nargs

    def __repr__(self):
        return f"<ufunc {self.name!r} of the double>"

    def __call__(self, *args, out=None, where=None, dtype=None, casting="same_kind"):
        if len(args) not in (self.nin, self.nargs):
            raise TypeError(f"Wrong number of arguments for {self.name!r}")
        options = {"casting": casting, "order": "C"}
        if dtype is not None:
            options["dtype"] = dtype
        if out is not None:
            options["out"] = array_of(out)
        if where is not None:
            options["where"] = array_of(where)
        result = silently(self._numpy, *map(operand, args), **options)
        return wrapped(result, *arrays_in([*args, out]))

    def reduce(self, array, axis=0, dtype=None, out=None, keepdims=False):
        self._only_for("reduce", "add", "multiply")
        options = {} if out is None else {"out": array_of(out)}
        result = self._numpy.reduce(array_of(array), axis, dtype, keepdims=keepdims, **options)
        return wrapped(result, *arrays_in([out]))

    def accumulate(self, array, axis=0, dtype=None, out=None):
        self._only_for("accumulate", "add", "multiply")
        options = {} if out is None else {"out": array_of(out)}
        return wrapped(self._numpy.accumulate(array_of(array), axis, dtype, **options))

    def reduceat(self, array, indices, axis=0, dtype=None, out=None):
        self._only_for("reduceat", "add")
        return wrapped(np.add.reduceat(array_of(array), array_of(indices), axis, dtype))

    def at(self, a, indices, b=None):
        self._only_for("at", *_AT)
        if a.dtype.name not in _AT[self.name].split():
            raise TypeError(f"cupy.{self.name}.at only supports {_AT[self.name]}")
        self._numpy.at(array_of(a), index_of(indices), operand(b))

    def _only_for(self, method, *names):
        """Raise NotImplementedError where CuPy's ufunc has no such method."""
        if self.name not in names:
            raise NotImplementedError(f"`{self.name}.{method}` is not supported yet")


for _name in [
    "absolute", "add", "bitwise_and", "bitwise_or", "bitwise_xor", "ceil", "cos",
    "divide", "equal", "exp", "expm1", "floor", "floor_divide",
    "greater", "greater_equal", "invert", "isfinite", "isinf", "isnan", "less",
    "less_equal", "log", "log1p", "logical_and",
    "logical_not", "logical_or", "maximum", "minimum", "multiply",
    "negative", "not_equal", "power", "remainder", "rint", "sign",
    "sin", "sqrt", "square", "subtract", "tanh", "true_divide",
    "trunc",
]:  # fmt: skip
    globals()[_name] = ufunc(getattr(np, _name))
