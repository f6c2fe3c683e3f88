"""PyTorch's arguments as primitives take them, and the errors of those that do not fit.

Users name axes from either end, or None for all; give sizes one by one or as a sequence, with -1
for one to be worked out. Primitives get axes counted from the end and whole shapes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from tinygrad_rnn.backend import CPU, device_of, is_array, namespace
from tinygrad_rnn.ops import elementwise, reduction
from tinygrad_rnn.ops.primitive import Tracer, describe
from tinygrad_rnn.ops.shape import from_end

Dims: TypeAlias = int | Sequence[int] | None


def sizes_of(args: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    if len(args) == 1 and isinstance(args[0], Sequence):
        args = tuple(args[0])
    return tuple(operator.index(size) for size in args)


def sizes_to_make(args: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes of a new tensor: none may be negative, and there is nothing to work out a -1 from."""
    sizes = sizes_of(args)
    if any(size < 0 for size in sizes):
        raise RuntimeError(f"a tensor cannot have a negative size: {sizes}")
    return sizes


def axes_of(x: Any, dim: Dims) -> tuple[int, ...]:
    """The axes to reduce, counted from the end: all for None."""
    if dim is None:
        return tuple(range(-x.ndim, 0))
    if not isinstance(dim, Sequence):
        dim = (dim,)
    axes = tuple(sorted({from_end(axis, x.ndim) for axis in dim}))
    if len(axes) != len(dim):
        raise RuntimeError(f"dim {tuple(dim)} names an axis twice")
    return axes if x.ndim else ()


def is_operand(value: Any) -> bool:
    """Whether a value can be compared with a tensor: any other is simply not equal to one."""
    return isinstance(value, Tracer | int | float | np.generic) or is_array(value)


def axis_to_cut(x: Any, dim: int, name: str) -> tuple[int, int]:
    """The axis to cut, counted from the end, and its size."""
    if not x.ndim:
        raise RuntimeError(f"{name}: a tensor without axes cannot be cut")
    axis = from_end(dim, x.ndim)
    return axis, x.shape[axis]


def axes_with_values(x: Any, dim: Dims, name: str) -> tuple[int, ...]:
    """As axes_of; an error if there is nothing along them to choose from."""
    axes = axes_of(x, dim)
    if not reduction.count(x.shape, axes):
        raise RuntimeError(f"{name}: no values to choose from in {describe(x)}")
    return axes


def new_shape(x: Any, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that x is to take, with -1 worked out."""
    return sizes_holding(math.prod(x.shape), sizes, describe(x))


def sizes_holding(total: int, sizes: tuple[int, ...], what: str) -> tuple[int, ...]:
    """The sizes with -1 worked out; an error if they do not hold `total` values."""
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and known > 0 and total % known == 0:
        return tuple(total // known if size == -1 else size for size in sizes)
    if -1 in sizes or known != total:
        raise RuntimeError(f"reshape: {what} holds {total} values, which do not fit {sizes}")
    return sizes


def on_gpu(x: Any) -> bool:
    """Whether the values of a Tracer or an array are, or will be, on a GPU."""
    where = x.device if isinstance(x, Tracer) else device_of(x)  # type: ignore[attr-defined]
    return bool(where != CPU)


def checked_index(index: Any, size: int, name: str) -> Any:
    """An index operand, checked: integers in [0, size), unless it has no values yet.

    A GPU is not waited for. There what is wrong reads as NaN (`ops/indexing.py`), for which those
    below 0, which would count from the end, become `size`.
    """
    if index.dtype.kind not in "iu":
        raise RuntimeError(f"{name}: indices must be integers, not {index.dtype}")
    values = getattr(index, "array", index)
    if on_gpu(index):
        if is_array(values):
            values = values.astype(np.int64, copy=False)  # in which `size` fits
            return namespace(values).where(values < 0, size, values)
        values = elementwise.cast(values, dtype=np.dtype(np.int64), source=values.dtype)
        return elementwise.where(values < 0, size, values)
    if is_array(values) and values.size and not (values.min() >= 0 and values.max() < size):
        low, high = int(values.min()), int(values.max())
        raise RuntimeError(
            f"{name}: indices from {low} to {high} do not fit an axis of {size} values"
        )
    return index
