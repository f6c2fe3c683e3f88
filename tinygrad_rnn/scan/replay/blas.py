"""Can a product of matrices be added to what is there already?

BLAS computes C = A B + C in one call, `np.matmul` only C = A B: an addition more at every step, and
memory for what is added. The BLAS that NumPy itself has loaded is called here by way of ctypes,
where it can be found under a name that says how its integers are passed. Elsewhere, and for dtypes
that BLAS does not know, it is a matmul and an addition.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

_ROW_MAJOR, _COLUMN_MAJOR = 101, 102
_PLAIN, _TRANSPOSED = 111, 112
_SCALARS = {"f": ("s", ctypes.c_float), "d": ("d", ctypes.c_double)}


@functools.cache
def gemm(dtype: np.dtype[Any]) -> Callable[..., None] | None:
    """cblas_sgemm or cblas_dgemm with 64-bit integers, or None."""
    if dtype.char not in _SCALARS:
        return None
    letter, _ = _SCALARS[dtype.char]
    try:
        library = ctypes.CDLL(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]
    except (AttributeError, OSError):
        return None
    for name in (f"scipy_cblas_{letter}gemm64_", f"cblas_{letter}gemm64_"):
        function = getattr(library, name, None)
        if function is not None:
            function.restype = None
            return function  # type: ignore[no-any-return]
    return None


def adding(
    a: Any, b: Any, out: Any, scratch: dict[Any, Any]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The call that does out += a @ b on these very arrays, which must outlive it.

    The arguments are worked out here, once, so that the call itself costs no more than a matmul.
    scratch: where it keeps memory for products, if it needs any.
    """
    function = gemm(out.dtype)
    order = _ROW_MAJOR if _leading(out, _ROW_MAJOR) else _COLUMN_MAJOR
    leading = _leading(out, order)
    if function is None or not leading or not (out.size and a.size):
        return _multiply_and_add, (_shared(scratch, out), a, b, out)
    arguments: list[Any] = [order]
    matrices: list[Any] = []
    for x in (a, b):
        plain = _leading(x, order)
        other = _leading(x, _ROW_MAJOR + _COLUMN_MAJOR - order)
        if not (plain or other):
            return _multiply_and_add, (_shared(scratch, out), a, b, out)
        arguments.append(_PLAIN if plain else _TRANSPOSED)
        matrices += [ctypes.c_void_p(x.ctypes.data), _value(ctypes.c_int64, plain or other)]
    one = _value(_SCALARS[out.dtype.char][1], 1)
    return function, (
        *(_value(ctypes.c_int, flag) for flag in arguments),
        *(_value(ctypes.c_int64, n) for n in (*out.shape, a.shape[1])),
        one,
        *matrices,
        one,
        ctypes.c_void_p(out.ctypes.data),
        _value(ctypes.c_int64, leading),
    )


@functools.cache
def _value(kind: Any, number: int) -> Any:
    """A number as BLAS takes it; one object for all calls, of which a long run has thousands."""
    return kind(number)


def _leading(x: Any, order: int) -> int:
    """The distance between rows (or columns), in values, if x lies so in memory; else 0."""
    inner, outer = (1, 0) if order == _ROW_MAJOR else (0, 1)
    size = x.itemsize
    if x.shape[inner] > 1 and x.strides[inner] != size:
        return 0
    if x.shape[outer] == 1:
        return max(int(x.shape[inner]), 1)
    distance = x.strides[outer]
    return distance // size if distance % size == 0 and distance >= x.shape[inner] * size else 0


def _multiply_and_add(product: Any, a: Any, b: Any, out: Any) -> None:
    np.matmul(a, b, product)
    np.add(out, product, out)


def _shared(scratch: dict[Any, Any], like: Any) -> Any:
    """An array like another, the same one for all that are alike."""
    key = like.shape, like.strides, like.dtype
    if key not in scratch:
        scratch[key] = np.empty_like(like)
    return scratch[key]
