"""Methods that move values without changing them: reshape, permute, expand, split."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tinygrad_rnn.ops import elementwise, linear, shape
from tinygrad_rnn.ops.broadcasting import broadcast_to, sum_to
from tinygrad_rnn.ops.operators.arguments import (
    Dims,
    axes_of,
    axis_to_cut,
    new_shape,
    sizes_holding,
    sizes_of,
)
from tinygrad_rnn.ops.operators.arithmetic import Arithmetic
from tinygrad_rnn.ops.primitive import describe
from tinygrad_rnn.ops.shape import from_end

if TYPE_CHECKING:
    from typing_extensions import Self


class Shapes(Arithmetic):
    """How the values are arranged."""

    __slots__ = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        """The number of axes."""
        raise NotImplementedError

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one axis."""
        return self.shape if dim is None else self.shape[from_end(dim, self.ndim)]

    def dim(self) -> int:
        """The number of axes."""
        return self.ndim

    def numel(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    def reshape(self, *shape_: Any) -> Self:
        """The same values in another shape; one size may be -1."""
        return shape.reshape(self, shape=new_shape(self, sizes_of(shape_)))

    def view(self, *shape_: Any) -> Self:
        """As reshape; where a view is not possible the values are copied, not refused."""
        return self.reshape(*shape_)

    def view_as(self, other: Any) -> Self:
        """reshape to the shape of other."""
        return self.reshape(other.shape)

    reshape_as = view_as

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Self:
        """The axes from start_dim to end_dim as one."""
        if not self.ndim:
            return self.reshape(1)
        first = from_end(start_dim, self.ndim) + self.ndim
        last = from_end(end_dim, self.ndim) + self.ndim
        if first > last:
            raise RuntimeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
        middle = math.prod(self.shape[first : last + 1])
        return self.reshape(*self.shape[:first], middle, *self.shape[last + 1 :])

    def unflatten(self, dim: int, sizes: Sequence[int]) -> Self:
        """One axis as several, of the given sizes."""
        place = from_end(dim, self.ndim) + self.ndim
        inner = sizes_holding(self.shape[place], tuple(sizes), describe(self))
        return self.reshape(*self.shape[:place], *inner, *self.shape[place + 1 :])

    def squeeze(self, dim: Dims = None) -> Self:
        """Without the axes of size 1 (all of them, or those named)."""
        named = range(-self.ndim, 0) if dim is None else axes_of(self, dim)
        gone = {axis for axis in named if self.ndim and self.shape[axis] == 1}
        return self.reshape(tuple(n for k, n in enumerate(self.shape) if k - self.ndim not in gone))

    def unsqueeze(self, dim: int) -> Self:
        """With a new axis of size 1 at `dim`."""
        place = from_end(dim, self.ndim + 1) + self.ndim + 1
        return self.reshape((*self.shape[:place], 1, *self.shape[place:]))

    def transpose(self, dim0: int, dim1: int) -> Self:
        """With two axes exchanged."""
        if not self.ndim:
            return self
        a, b = from_end(dim0, self.ndim), from_end(dim1, self.ndim)
        axes = list(range(-self.ndim, 0))
        axes[a], axes[b] = b, a
        return shape.transpose(self, axes=tuple(axes[builtins.min(a, b) :]))

    swapaxes = transpose

    def t(self) -> Self:
        """The transpose of a matrix; a vector stays itself."""
        if self.ndim > 2:
            raise RuntimeError(f"t: expected at most 2 axes, got {describe(self)}; use .mT")
        return self if self.ndim < 2 else linear.swap(self)

    @property
    def T(self) -> Self:
        """The transpose: all axes in reverse order."""
        return linear.swap(self) if self.ndim == 2 else self.permute(*range(self.ndim - 1, -1, -1))

    @property
    def mT(self) -> Self:
        """With the last two axes exchanged."""
        if self.ndim < 2:
            raise RuntimeError(f"mT: expected at least 2 axes, got {describe(self)}")
        return linear.swap(self)

    def permute(self, *order: Any, dims: Any = ()) -> Self:
        """With the axes in another order, given one by one, as a sequence, or as dims=…."""
        axes = shape.permutation(self.ndim, *sizes_of(order or (dims,)))
        return shape.transpose(self, axes=axes) if axes else self

    def movedim(self, source: Any, destination: Any) -> Self:
        """With an axis (or several) moved to other places, the rest keeping their order."""
        sources = [from_end(axis, self.ndim) for axis in sizes_of((source,))]
        places = [from_end(axis, self.ndim) for axis in sizes_of((destination,))]
        if len({*sources}) != len(sources) or len({*places}) != len(places):
            raise RuntimeError(f"movedim: {source} to {destination} names an axis twice")
        if len(sources) != len(places):
            raise RuntimeError(f"movedim: {source} to {destination} are not as many axes")
        axes = [axis for axis in range(-self.ndim, 0) if axis not in sources]
        for place, axis in sorted(zip(places, sources, strict=True)):
            axes.insert(place + self.ndim, axis)
        return shape.transpose(self, axes=tuple(axes)) if self.ndim else self

    moveaxis = movedim

    def expand(self, *sizes: Any) -> Self:
        """A read-only view repeated along new leading axes and axes of size 1; -1 keeps a size."""
        wanted = sizes_of(sizes)
        lead = len(wanted) - self.ndim
        if lead < 0 or -1 in wanted[:lead]:
            raise RuntimeError(f"expand: {describe(self)} cannot be expanded to {wanted}")
        full = tuple(self.shape[k - lead] if n == -1 else n for k, n in enumerate(wanted))
        if any(old not in (1, new) for old, new in zip(self.shape, full[lead:], strict=True)):
            raise RuntimeError(
                f"expand: {describe(self)} cannot be expanded to {wanted}: only axes of size 1 can"
            )
        return broadcast_to(self, shape=full)

    def expand_as(self, other: Any) -> Self:
        """expand to the shape of other."""
        return self.expand(other.shape)

    def broadcast_to(self, shape_: Sequence[int]) -> Self:
        """expand to a shape."""
        return self.expand(tuple(shape_))

    def sum_to_size(self, *sizes: Any) -> Self:
        """The sum over what broadcasting from that size would repeat: the adjoint of expand."""
        wanted = sizes_of(sizes)
        own = self.shape[self.ndim - len(wanted) :]
        if len(own) != len(wanted) or any(
            n not in (1, size) for n, size in zip(wanted, own, strict=True)
        ):
            raise RuntimeError(f"sum_to_size: {describe(self)} was not broadcast from {wanted}")
        return sum_to(self, shape=wanted)

    def repeat(self, *sizes: Any) -> Self:
        """Copies laid side by side, `sizes` times along each axis (new axes in front)."""
        times = sizes_of(sizes)
        if len(times) < self.ndim:
            raise RuntimeError(f"repeat: {describe(self)} needs at least {self.ndim} repeat counts")
        old = (1,) * (len(times) - self.ndim) + self.shape
        apart = tuple(size for n in old for size in (1, n))
        spread = tuple(size for k, n in zip(times, old, strict=True) for size in (k, n))
        joined = tuple(k * n for k, n in zip(times, old, strict=True))
        return self.reshape(apart).expand(spread).reshape(joined)

    def tile(self, *sizes: Any) -> Self:
        """As repeat, with missing counts taken as 1."""
        times = sizes_of(sizes)
        return self.repeat((1,) * (self.ndim - len(times)) + times)

    def repeat_interleave(self, repeats: int, dim: int | None = None) -> Self:
        """Each value `repeats` times in a row along an axis (of the flattened one by default)."""
        if dim is None:
            return self.flatten().repeat_interleave(repeats, 0)
        place = from_end(dim, self.ndim) + self.ndim
        spread = (*self.shape[: place + 1], repeats, *self.shape[place + 1 :])
        return self.unsqueeze(place + 1).expand(spread).flatten(place, place + 1)

    def flip(self, *axes: Any, dims: Any = ()) -> Self:
        """With the order along axes reversed: given one by one, as a sequence, or as dims=…."""
        reversed_ = sizes_of(axes or (dims,))
        return shape.flip(self, axes=tuple(from_end(axis, self.ndim) for axis in reversed_))

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Self, ...]:
        """Consecutive parts of one size (the last may be smaller), or of the sizes listed."""
        axis, total = axis_to_cut(self, dim, "split")
        if not isinstance(split_size, Sequence):
            if split_size <= 0:
                raise RuntimeError(f"split: the size must be positive, got {split_size}")
            whole, rest = divmod(total, split_size)
            sizes = (split_size,) * whole + ((rest,) if rest or not whole else ())
        else:
            sizes = tuple(split_size)
            if builtins.sum(sizes) != total or builtins.any(size < 0 for size in sizes):
                raise RuntimeError(f"split: sizes {sizes} do not add up to the axis's {total}")
        return tuple(shape.split(self, sizes=sizes, axis=axis))

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Self, ...]:
        """At most `chunks` consecutive parts of one size (the last may be smaller)."""
        if chunks <= 0:
            raise RuntimeError(f"chunk: the number of chunks must be positive, got {chunks}")
        axis, total = axis_to_cut(self, dim, "chunk")
        size, rest = divmod(total, chunks)
        if rest or not total:
            return self.split(size + 1 if total else (0,) * chunks, dim)
        return tuple(shape.split(self, sizes=(size,) * chunks, axis=axis))

    def unbind(self, dim: int = 0) -> tuple[Self, ...]:
        """The parts at each index of an axis, as a tuple: the way to loop over time."""
        if not self.ndim:
            raise IndexError("unbind: a tensor without axes has no parts")
        return tuple(shape.unstack(self, axis=from_end(dim, self.ndim)))

    def __iter__(self) -> Any:
        if not self.ndim:
            raise TypeError("iter: a tensor without axes cannot be iterated over")
        return iter(self.unbind(0))

    def clone(self) -> Self:
        """The same values in memory of their own; gradients flow through."""
        return elementwise.copy(self)

    def contiguous(self) -> Self:
        """Itself: operations here take any memory layout."""
        return self

    def is_contiguous(self) -> bool:
        """Whether `view` works without `contiguous`: always."""
        return True
