"""Methods that make one value of many: sums, extrema, orders, norms, softmax."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from tinygrad_rnn.backend import DTypeLike, namespace
from tinygrad_rnn.ops import elementwise, reduction
from tinygrad_rnn.ops.operators.arguments import Dims, axes_of, axes_with_values
from tinygrad_rnn.ops.operators.functions import cat
from tinygrad_rnn.ops.operators.positions import Positions
from tinygrad_rnn.ops.primitive import Tracer, describe
from tinygrad_rnn.ops.shape import from_end

if TYPE_CHECKING:
    from typing_extensions import Self


class ValuesIndices(NamedTuple):
    """The result of max, min, sort and topk along an axis: the values and where they are."""

    values: Any
    indices: Any


class Reductions(Positions):
    """What the values are together."""

    __slots__ = ()

    def sum(self, dim: Dims = None, keepdim: bool = False, dtype: DTypeLike = None) -> Self:
        """The sum over the axes `dim` (all of them by default)."""
        x = self if dtype is None else self.to(dtype)
        return reduction.sum(x, axes=axes_of(x, dim), keepdims=keepdim)

    def mean(self, dim: Dims = None, keepdim: bool = False, dtype: DTypeLike = None) -> Self:
        """The mean over the axes `dim` (all of them by default)."""
        x = self if dtype is None else self.to(dtype)
        if x.dtype.kind != "f":
            raise RuntimeError(
                f"mean: expected floating-point values, got {describe(x)}; use .float().mean()"
            )
        return reduction.mean(x, axes=axes_of(x, dim), keepdims=keepdim)

    def amax(self, dim: Dims = None, keepdim: bool = False) -> Self:
        """The largest value over the axes `dim`; ties share the gradient."""
        return reduction.max(self, axes=axes_with_values(self, dim, "amax"), keepdims=keepdim)

    def amin(self, dim: Dims = None, keepdim: bool = False) -> Self:
        """The smallest value over the axes `dim`; ties share the gradient."""
        return reduction.min(self, axes=axes_with_values(self, dim, "amin"), keepdims=keepdim)

    def max(self, dim: Any = None, keepdim: bool = False) -> Any:
        """The largest value; with an axis, (values, indices) along it; with a tensor, maximum."""
        if isinstance(dim, Tracer):
            return self.maximum(dim)
        if dim is None:
            return self.amax(keepdim=keepdim)
        return self._at(self.argmax(dim, keepdim=True), dim, keepdim)

    def min(self, dim: Any = None, keepdim: bool = False) -> Any:
        """The smallest value; with an axis, (values, indices) along it; with a tensor, minimum."""
        if isinstance(dim, Tracer):
            return self.minimum(dim)
        if dim is None:
            return self.amin(keepdim=keepdim)
        return self._at(self.argmin(dim, keepdim=True), dim, keepdim)

    def _at(self, indices: Self, dim: int, keepdim: bool) -> ValuesIndices:
        values = self.gather(dim, indices)
        if not keepdim:
            values, indices = values.squeeze(dim), indices.squeeze(dim)
        return ValuesIndices(values, indices)

    def prod(self, dim: int | None = None, keepdim: bool = False) -> Self:
        """The product over an axis (over all values by default).

        Multiplied in pairs, then pairs of pairs: differentiable to any order, zeros included.
        """
        x = self.long() if self.dtype.kind in "bi" else self
        x = x.reshape(-1) if dim is None or not self.ndim else x.movedim(dim, -1)
        while x.shape[-1] > 1:
            half = x.shape[-1] // 2
            pairs, rest = x[..., :half] * x[..., half : 2 * half], x[..., 2 * half :]
            x = cat([pairs, rest], -1) if rest.shape[-1] else pairs
        if x.shape[-1] == 0:
            x = elementwise.add(x.sum(-1, keepdim=True), 1)
        x = x.squeeze(-1)
        if not keepdim:
            return x
        return x.reshape((1,) * self.ndim) if dim is None else x.unsqueeze(from_end(dim, self.ndim))

    def var(
        self,
        dim: Dims = None,
        unbiased: bool = True,
        keepdim: bool = False,
        *,
        correction: int | None = None,
    ) -> Self:
        """The mean squared distance from the mean, over n - correction (1 unless not unbiased)."""
        axes = axes_of(self, dim)
        n = reduction.count(self.shape, axes)
        free = n - (int(unbiased) if correction is None else correction)
        centred = self - self.mean(axes, keepdim=True)
        total = centred.square().sum(axes, keepdim)
        return total * (1 / free if free > 0 else math.nan if n <= 1 else math.inf)

    def std(
        self,
        dim: Dims = None,
        unbiased: bool = True,
        keepdim: bool = False,
        *,
        correction: int | None = None,
    ) -> Self:
        """The square root of var."""
        return _root(self.var(dim, unbiased, keepdim, correction=correction), 2)

    def norm(self, p: float | str = 2, dim: Dims = None, keepdim: bool = False) -> Self:
        """(Σ |x|ᵖ)^(1/p) over the axes, whose derivative at 0 is taken as 0.

        p: a number or "fro", which is 2; inf gives the largest magnitude, -inf the smallest, and
            0 how many values are not zero.
        """
        if p in (2, "fro"):
            return _root(self.square().sum(dim, keepdim), 2)
        power = float(p)
        if math.isinf(power):
            return self.abs().amax(dim, keepdim) if power > 0 else self.abs().amin(dim, keepdim)
        if power == 0:
            return self.sign().abs().sum(dim, keepdim)
        if power == 1:
            return self.abs().sum(dim, keepdim)
        return _root((self.abs() ** power).sum(dim, keepdim), power)

    def logsumexp(self, dim: Dims, keepdim: bool = False) -> Self:
        """ln Σ eˣ over the axes, without overflow."""
        return reduction.logsumexp(self, axes=axes_of(self, dim), keepdims=keepdim)

    def softmax(self, dim: int) -> Self:
        """eˣ / Σ eˣ along an axis."""
        return reduction.softmax(self, axes=axes_of(self, dim))

    def log_softmax(self, dim: int) -> Self:
        """x - ln Σ eˣ along an axis."""
        return reduction.log_softmax(self, axes=axes_of(self, dim))

    def cumsum(self, dim: int) -> Self:
        """y[k] = x[0] + … + x[k] along an axis."""
        x = self if self.ndim else self.reshape(1)
        return reduction.cumsum(x, axis=from_end(dim, self.ndim)).reshape(self.shape)

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Self:
        """The index of the largest value along an axis (of the flattened tensor by default)."""
        return self._position(reduction.argmax, dim, keepdim)

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Self:
        """The index of the smallest value along an axis (of the flattened tensor by default)."""
        return self._position(reduction.argmin, dim, keepdim)

    def _position(self, find: Any, dim: int | None, keepdim: bool) -> Self:
        if dim is None:
            index = find(self.reshape(-1), axis=-1)
            return index.reshape((1,) * self.ndim) if keepdim else index
        axis = from_end(dim, self.ndim)
        if self.ndim and not self.shape[axis]:
            raise IndexError(f"{find.name}: axis {dim} of {describe(self)} has no values")
        index = find(self if self.ndim else self.reshape(1), axis=axis)
        return index.unsqueeze(axis) if keepdim and self.ndim else index

    def argsort(self, dim: int = -1, descending: bool = False, *, stable: bool = True) -> Self:
        """The indices that sort along an axis; equal values keep their order, always."""
        x = self if self.ndim else self.reshape(1)
        order = reduction.argsort(x, axis=from_end(dim, self.ndim), descending=descending)
        return order if self.ndim else order.reshape(())

    def sort(
        self, dim: int = -1, descending: bool = False, *, stable: bool = True
    ) -> ValuesIndices:
        """(values, indices) in order along an axis; equal values keep their order, always."""
        indices = self.argsort(dim, descending)
        return ValuesIndices(self.gather(dim, indices), indices)

    def topk(
        self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
    ) -> ValuesIndices:
        """(values, indices) of the k largest (or smallest) along an axis, always in order."""
        size = self.size(dim)
        if not 0 <= k <= size:
            raise RuntimeError(f"topk: k = {k} is not between 0 and the axis's {size}")
        indices = self.argsort(dim, descending=largest).narrow(dim, 0, k)
        return ValuesIndices(self.gather(dim, indices), indices)

    def unique(
        self, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False
    ) -> Any:
        """The distinct values, always in order; which of them each value is; how often each occurs.

        A tuple of those asked for; the values alone if nothing else is.
        """
        values, inverse, counts = reduction.unique(self)
        found = [values, *[inverse] * return_inverse, *[counts] * return_counts]
        return tuple(found) if len(found) > 1 else values

    def any(self, dim: Dims = None, keepdim: bool = False) -> Self:
        """Whether any value is non-zero."""
        return reduction.any(self, axes=axes_of(self, dim), keepdims=keepdim)

    def all(self, dim: Dims = None, keepdim: bool = False) -> Self:
        """Whether every value is non-zero."""
        return reduction.all(self, axes=axes_of(self, dim), keepdims=keepdim)

    def equal(self, other: Any) -> bool:
        """Whether shape and values are those of other: one answer, not one per value."""
        return self.shape == other.shape and bool((self == other).all())

    def allclose(
        self, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
    ) -> bool:
        """Whether |x - other| <= atol + rtol · |other| everywhere: one answer."""
        a, b = self.array, other.array  # type: ignore[attr-defined]
        return namespace(a).isclose(a, b, rtol, atol, equal_nan).all().item()  # type: ignore[no-any-return]


def _root(total: Any, power: float) -> Any:
    """total^(1/power), with the derivative at 0 taken as 0 where the true one is infinite."""
    zero = total == 0
    return (total.masked_fill(zero, 1) ** (1 / power)).masked_fill(zero, 0)
