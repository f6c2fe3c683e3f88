"""Methods that read or write at positions: indexing, gather and scatter, masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_rnn.backend import device_of, is_array, namespace, to_device
from tinygrad_rnn.ops import elementwise, indexing
from tinygrad_rnn.ops.devices import require_one_device
from tinygrad_rnn.ops.operators.arguments import axis_to_cut, checked_index, sizes_of
from tinygrad_rnn.ops.operators.functions import cat, where
from tinygrad_rnn.ops.operators.shapes import Shapes
from tinygrad_rnn.ops.primitive import Tracer, describe
from tinygrad_rnn.ops.shape import from_end

if TYPE_CHECKING:
    from typing_extensions import Self


class Positions(Shapes):
    """Which of the values."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Self:
        return indexing.getitem(self, index=self._plain_index(index))

    def _plain_index(self, index: Any) -> Any:
        """An index with arrays of this device in place of Tensors and of lists."""
        if isinstance(index, indexing.BASIC):
            return index
        if isinstance(index, tuple):
            return tuple(self._plain_index(part) for part in index)
        if isinstance(index, list):
            return to_device(np.asarray(index, dtype=None if index else np.int64), self.device)
        if isinstance(index, Tracer):
            index = index.array  # type: ignore[attr-defined]
        if is_array(index):
            if device_of(index) is not self.device:
                require_one_device("indexing", (self, index), ("the tensor", "the index"))
            if index.dtype.kind not in "iub":
                raise IndexError(f"indexing: indices are integers or a mask, not {index.dtype}")
        elif not hasattr(index, "__index__"):  # a GPU's library would take a float for a number
            raise IndexError(
                "indexing: an index is an integer, a slice, None, ..., a list, or a tensor of "
                f"integers or truth values, not {index!r}"
            )
        return index

    def _put(self, index: Any, value: Any) -> Self:
        if isinstance(value, Shapes) and value.dtype != self.dtype:
            value = value.to(self.dtype)
        return indexing.put(self, value, index=index)

    def index_select(self, dim: int, index: Any) -> Self:
        """The parts at the listed indices of an axis."""
        if index.ndim > 1:
            raise IndexError(f"index_select: expected a vector of indices, got {describe(index)}")
        rows = self if from_end(dim, self.ndim) == -self.ndim else self.movedim(dim, 0)
        taken = indexing.take(rows, checked_index(index, rows.shape[0], "index_select"))
        return taken if rows is self else taken.movedim(0, dim)

    def gather(self, dim: int, index: Any) -> Self:
        """y[…, k, …] = x[…, index[…, k, …], …] along an axis; index has as many axes as x."""
        axis = from_end(dim, self.ndim)
        if index.ndim != self.ndim:
            raise RuntimeError(
                f"gather: {describe(self)} and index {describe(index)} differ in axes"
            )
        if not self.ndim:
            return self.reshape(1).gather(0, index.reshape(1)).reshape(())
        longer = [k for k in range(-self.ndim, 0) if index.shape[k] > self.shape[k]]
        if longer and longer != [axis]:
            raise RuntimeError(
                f"gather: index {describe(index)} is larger than {describe(self)} along an axis "
                f"other than dim {dim}"
            )
        return indexing.gather(self, checked_index(index, self.shape[axis], "gather"), axis=axis)

    def _places_along(self, dim: int, index: Any, name: str) -> tuple[Any, ...]:
        """The places that scatter writes, as one index array for each axis."""
        axis = from_end(dim, self.ndim)
        others = [k for k in range(-self.ndim, 0) if k != axis]
        if index.ndim != self.ndim or any(index.shape[k] > self.shape[k] for k in others):
            raise RuntimeError(
                f"{name}: index {describe(index)} does not fit {describe(self)}: it needs the same "
                f"axes, and no larger ones but dim {dim}"
            )
        places = self._plain_index(checked_index(index, self.shape[axis], name))
        return indexing.places_along(namespace(places), places, axis)

    def scatter_add(self, dim: int, index: Any, src: Any) -> Self:
        """y = x with src[…, k, …] added at index[…, k, …] of an axis; index has src's axes."""
        axis = from_end(dim, self.ndim)
        same = index.ndim == src.ndim == self.ndim
        if not same or any(n > size for n, size in zip(index.shape, src.shape, strict=True)):
            raise RuntimeError(
                f"scatter_add: into {describe(self)}, index {describe(index)} and src "
                f"{describe(src)} do not fit: all need the same axes, and src the size of the index"
            )
        if src.dtype != self.dtype:
            raise RuntimeError(f"scatter_add: src is {src.dtype}, the tensor is {self.dtype}")
        part = src if src.shape == index.shape else src[tuple(map(slice, index.shape))]
        index = checked_index(index, self.shape[axis], "scatter_add")
        return indexing.scatter_add(self, index, part, axis=axis)

    def masked_fill(self, mask: Any, value: Any) -> Self:
        """y = value where mask, else x."""
        if mask.dtype != np.bool_:
            raise RuntimeError(f"masked_fill: the mask must be bool, not {mask.dtype}")
        if not isinstance(value, Tracer):  # a Python number of self's kind leaves its dtype alone
            value = {"f": float, "b": bool}.get(self.dtype.kind, int)(value)
        return elementwise.where(mask, value, self)

    def nonzero(self, as_tuple: bool = False) -> Any:
        """Where the values are not zero: a row of indices for each, (count, ndim); or a tuple of
        one vector for each axis."""
        rows = indexing.nonzero(self)
        return rows.unbind(1) if as_tuple else rows

    def masked_select(self, mask: Any) -> Self:
        """The values where mask is true, as a vector."""
        return self[mask]

    def where(self, condition: Any, other: Any) -> Self:
        """y = x where condition, else other."""
        return where(condition, self, other)

    def tril(self, diagonal: int = 0) -> Self:
        """With zeros above the diagonal of the last two axes."""
        return self.masked_fill(~_lower_triangle(self, diagonal), 0)

    def triu(self, diagonal: int = 0) -> Self:
        """With zeros below the diagonal of the last two axes."""
        return self.masked_fill(_lower_triangle(self, diagonal - 1), 0)

    def narrow(self, dim: int, start: int, length: int) -> Self:
        """The part of an axis from start, of the given length; a negative start counts back."""
        axis, size = axis_to_cut(self, dim, "narrow")
        first = start + size if start < 0 else start
        if not 0 <= first <= first + length <= size:
            raise RuntimeError(
                f"narrow: start {start} and length {length} do not fit the axis's {size} values"
            )
        after = (slice(None),) * (-1 - axis)
        part = (..., slice(first, first + length), *after)
        return self[part]

    def select(self, dim: int, index: int) -> Self:
        """The part at one index of an axis, without that axis."""
        after = (slice(None),) * (-1 - from_end(dim, self.ndim))
        part = (..., index, *after)
        return self[part]

    def roll(self, shifts: Any, dims: Any = None) -> Self:
        """Shifted along an axis (or several), what leaves one end entering at the other.

        Without dims, the flattened tensor is shifted and brought back into shape.
        """
        if dims is None:
            return self.reshape(-1).roll(shifts, 0).reshape(self.shape)
        x = self
        for shift, dim in zip(sizes_of((shifts,)), sizes_of((dims,)), strict=True):
            n = x.size(dim)
            k = shift % n if n else 0
            x = cat([x.narrow(dim, n - k, k), x.narrow(dim, 0, n - k)], dim) if k else x
        return x


def _lower_triangle(x: Any, diagonal: int) -> Any:
    """True below and on a diagonal of matrices shaped as x's."""
    if x.ndim < 2:
        raise RuntimeError(f"tril, triu: expected at least 2 axes, got {describe(x)}")
    return to_device(np.tri(x.shape[-2], x.shape[-1], diagonal, dtype=bool), x.device)
