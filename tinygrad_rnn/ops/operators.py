"""What Tensors and Vars can do: operators and methods with PyTorch's names, one primitive each.

This is the border between PyTorch's conventions (dim from either end, None for all axes, keepdim)
and the primitives' (axes counted from the end, always named). A method is also the function of the
same name in the package: `tinygrad_rnn.tanh` is `Operators.tanh`. Functions of several tensors
(cat, stack, where, einsum, …) stand at the end of the file.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinygrad_rnn.backend import DTypeLike, get_default_dtype, is_array, namespace
from tinygrad_rnn.ops import elementwise, indexing, linear, reduction, shape
from tinygrad_rnn.ops.broadcasting import broadcast_to, sum_to
from tinygrad_rnn.ops.conversions import Conversions
from tinygrad_rnn.ops.primitive import Tracer, describe
from tinygrad_rnn.ops.shape import from_end

if TYPE_CHECKING:
    from typing_extensions import Self

Dims = int | Sequence[int] | None


class ValuesIndices(NamedTuple):
    """The result of max, min, sort and topk along an axis: the values and where they are."""

    values: Any
    indices: Any


class Operators(Conversions):
    """Operators and methods over primitives; `Tensor` and `Var` are its two kinds."""

    __slots__ = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        raise NotImplementedError

    @property
    def ndim(self) -> int:
        """The number of axes."""
        raise NotImplementedError

    # --- arithmetic ------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Self:
        return elementwise.add(self, other)

    def __radd__(self, other: Any) -> Self:
        return elementwise.add(other, self)

    def __sub__(self, other: Any) -> Self:
        return elementwise.subtract(self, other)

    def __rsub__(self, other: Any) -> Self:
        return elementwise.subtract(other, self)

    def __mul__(self, other: Any) -> Self:
        return elementwise.multiply(self, other)

    def __rmul__(self, other: Any) -> Self:
        return elementwise.multiply(other, self)

    def __truediv__(self, other: Any) -> Self:
        return elementwise.divide(self, other)

    def __rtruediv__(self, other: Any) -> Self:
        return elementwise.divide(other, self)

    def __floordiv__(self, other: Any) -> Self:
        return elementwise.floor_divide(self, other)

    def __rfloordiv__(self, other: Any) -> Self:
        return elementwise.floor_divide(other, self)

    def __mod__(self, other: Any) -> Self:
        return elementwise.remainder(self, other)

    def __rmod__(self, other: Any) -> Self:
        return elementwise.remainder(other, self)

    def __pow__(self, exponent: Any) -> Self:
        if isinstance(exponent, int | float) and exponent == 2:
            return elementwise.square(self)
        return elementwise.power(self, exponent)

    def __rpow__(self, base: Any) -> Self:
        return elementwise.power(base, self)

    def __matmul__(self, other: Any) -> Self:
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> Self:
        return matmul(other, self)

    def __neg__(self) -> Self:
        return elementwise.negative(self)

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> Self:
        return elementwise.absolute(self)

    def __and__(self, other: Any) -> Self:
        return elementwise.bitwise_and(self, other)

    def __or__(self, other: Any) -> Self:
        return elementwise.bitwise_or(self, other)

    def __xor__(self, other: Any) -> Self:
        return elementwise.bitwise_xor(self, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    def __invert__(self) -> Self:
        return elementwise.bitwise_not(self)

    def __eq__(self, other: Any) -> Self:  # type: ignore[override]
        return elementwise.equal(self, other) if _is_operand(other) else NotImplemented

    def __ne__(self, other: Any) -> Self:  # type: ignore[override]
        return elementwise.not_equal(self, other) if _is_operand(other) else NotImplemented

    def __lt__(self, other: Any) -> Self:
        return elementwise.less(self, other)

    def __le__(self, other: Any) -> Self:
        return elementwise.less_equal(self, other)

    def __gt__(self, other: Any) -> Self:
        return elementwise.greater(self, other)

    def __ge__(self, other: Any) -> Self:
        return elementwise.greater_equal(self, other)

    __hash__ = object.__hash__

    def add(self, other: Any, *, alpha: float = 1) -> Self:
        """y = x + alpha · other."""
        return self + (other if alpha == 1 else other * alpha)

    def sub(self, other: Any, *, alpha: float = 1) -> Self:
        """y = x - alpha · other."""
        return self - (other if alpha == 1 else other * alpha)

    def mul(self, other: Any) -> Self:
        """y = x · other, elementwise."""
        return self * other

    def div(self, other: Any, *, rounding_mode: str | None = None) -> Self:
        """y = x / other, elementwise; rounded down for "floor", towards zero for "trunc"."""
        if rounding_mode is None:
            return self / other
        if rounding_mode not in ("floor", "trunc"):
            raise RuntimeError(
                f"div: rounding_mode is None, 'floor' or 'trunc', not {rounding_mode!r}"
            )
        down = self // other
        return down if rounding_mode == "floor" else down + (down < 0) * (down * other != self)

    def pow(self, exponent: Any) -> Self:
        """y = x to the power of exponent."""
        return self**exponent

    def neg(self) -> Self:
        """y = -x."""
        return -self

    def remainder(self, other: Any) -> Self:
        """y = x - other · ⌊x / other⌋: the sign of the divisor, as Python's %."""
        return self % other

    def abs(self) -> Self:
        """y = |x|; the derivative at 0 is taken as 0."""
        return elementwise.absolute(self)

    def sign(self) -> Self:
        """y = -1, 0 or 1."""
        return elementwise.sign(self)

    def sqrt(self) -> Self:
        """y = √x."""
        return elementwise.sqrt(self)

    def rsqrt(self) -> Self:
        """y = 1 / √x."""
        return 1.0 / elementwise.sqrt(self)

    def square(self) -> Self:
        """y = x²."""
        return elementwise.square(self)

    def reciprocal(self) -> Self:
        """y = 1 / x."""
        return 1.0 / self

    def equal(self, other: Any) -> bool:
        """Whether shape and values are those of other: one answer, not one per value."""
        return self.shape == other.shape and bool((self == other).all())

    def allclose(
        self, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
    ) -> bool:
        """Whether |x - other| <= atol + rtol · |other| everywhere: one answer."""
        a, b = self.array, other.array  # type: ignore[attr-defined]
        return bool(namespace(a).allclose(a, b, rtol, atol, equal_nan))

    def maximum(self, other: Any) -> Self:
        """y = the larger of x and other, elementwise; a tie shares the gradient."""
        return elementwise.maximum(self, other)

    def minimum(self, other: Any) -> Self:
        """y = the smaller of x and other, elementwise; a tie shares the gradient."""
        return elementwise.minimum(self, other)

    def clamp(self, min: Any = None, max: Any = None) -> Self:
        """y = x brought into [min, max]; a bound may be a number, a tensor, or None."""
        if min is None and max is None:
            raise RuntimeError("clamp: at least one of min and max must be given")
        if isinstance(min, Tracer) or isinstance(max, Tracer):
            low = self if min is None else elementwise.where(self < min, min, self)
            return low if max is None else elementwise.where(low > max, max, low)
        return elementwise.clip(self, low=min, high=max)

    clip = clamp

    def lerp(self, end: Any, weight: Any) -> Self:
        """y = x + weight · (end - x)."""
        return self + weight * (end - self)

    # --- exponentials and squashing functions ----------------------------------------------------

    def exp(self) -> Self:
        """y = eˣ."""
        return elementwise.exp(self)

    def expm1(self) -> Self:
        """y = eˣ - 1, exact for small x."""
        return elementwise.expm1(self)

    def log(self) -> Self:
        """y = ln x."""
        return elementwise.log(self)

    def log1p(self) -> Self:
        """y = ln(1 + x), exact for small x."""
        return elementwise.log1p(self)

    def log2(self) -> Self:
        """y = log₂ x."""
        return elementwise.log(self) * (1 / math.log(2))

    def log10(self) -> Self:
        """y = log₁₀ x."""
        return elementwise.log(self) * (1 / math.log(10))

    def sin(self) -> Self:
        """y = sin x, x in radians."""
        return elementwise.sin(self)

    def cos(self) -> Self:
        """y = cos x, x in radians."""
        return elementwise.cos(self)

    def tanh(self) -> Self:
        """y = tanh x."""
        return elementwise.tanh(self)

    def sigmoid(self) -> Self:
        """y = 1 / (1 + e⁻ˣ)."""
        return elementwise.sigmoid(self)

    def softplus(self) -> Self:
        """y = ln(1 + eˣ)."""
        return elementwise.softplus(self)

    def relu(self) -> Self:
        """y = max(x, 0); the derivative at 0 is taken as 0."""
        return elementwise.relu(self)

    def erf(self) -> Self:
        """y = 2/√π ∫₀ˣ e^(-t²) dt."""
        return elementwise.erf(self)

    def floor(self) -> Self:
        """y = ⌊x⌋."""
        return elementwise.floor(self)

    def ceil(self) -> Self:
        """y = ⌈x⌉."""
        return elementwise.ceil(self)

    def round(self) -> Self:
        """y = x rounded to the nearest integer, to the even one from the middle."""
        return elementwise.round(self)

    def isnan(self) -> Self:
        """Whether each value is NaN."""
        return elementwise.isnan(self)

    def isinf(self) -> Self:
        """Whether each value is infinite."""
        return elementwise.isinf(self)

    def isfinite(self) -> Self:
        """Whether each value is neither NaN nor infinite."""
        return elementwise.isfinite(self)

    def logical_and(self, other: Any) -> Self:
        """Whether both are non-zero."""
        return elementwise.logical_and(self, other)

    def logical_or(self, other: Any) -> Self:
        """Whether at least one is non-zero."""
        return elementwise.logical_or(self, other)

    def logical_not(self) -> Self:
        """Whether each value is zero."""
        return elementwise.logical_not(self)

    def eq(self, other: Any) -> Self:
        """Whether the values are equal, elementwise."""
        return elementwise.equal(self, other)

    def ne(self, other: Any) -> Self:
        """Whether the values differ, elementwise."""
        return elementwise.not_equal(self, other)

    def lt(self, other: Any) -> Self:
        """Whether x < other, elementwise."""
        return elementwise.less(self, other)

    def le(self, other: Any) -> Self:
        """Whether x <= other, elementwise."""
        return elementwise.less_equal(self, other)

    def gt(self, other: Any) -> Self:
        """Whether x > other, elementwise."""
        return elementwise.greater(self, other)

    def ge(self, other: Any) -> Self:
        """Whether x >= other, elementwise."""
        return elementwise.greater_equal(self, other)

    # --- linear algebra --------------------------------------------------------------------------

    def matmul(self, other: Any) -> Self:
        """y = x @ other, with NumPy's meaning for vectors and for leading axes."""
        return matmul(self, other)

    def mm(self, other: Any) -> Self:
        """y = x @ other for two matrices."""
        return _product("mm", self, other, 2)

    def bmm(self, other: Any) -> Self:
        """y[b] = x[b] @ other[b]:  (B, N, M), (B, M, P) -> (B, N, P)."""
        return _product("bmm", self, other, 3)

    def mv(self, vector: Any) -> Self:
        """y = x @ vector:  (N, M), (M,) -> (N,)."""
        if self.ndim != 2 or vector.ndim != 1:
            raise RuntimeError(
                f"mv: expected a matrix and a vector, got {describe(self)}, {describe(vector)}"
            )
        return matmul(self, vector)

    def dot(self, other: Any) -> Self:
        """The inner product of two vectors."""
        if self.ndim != 1 or other.ndim != 1:
            raise RuntimeError(
                f"dot: expected two vectors, got {describe(self)}, {describe(other)}"
            )
        return matmul(self, other)

    def outer(self, other: Any) -> Self:
        """y[i, j] = x[i] · other[j]."""
        if self.ndim != 1 or other.ndim != 1:
            raise RuntimeError(
                f"outer: expected two vectors, got {describe(self)}, {describe(other)}"
            )
        return self.unsqueeze(-1) * other

    # --- reductions ------------------------------------------------------------------------------

    def sum(self, dim: Dims = None, keepdim: bool = False, dtype: DTypeLike = None) -> Self:
        """The sum over the axes `dim` (all of them by default)."""
        x = self if dtype is None else self.to(dtype)
        return reduction.sum(x, axes=_axes(x, dim), keepdims=keepdim)

    def mean(self, dim: Dims = None, keepdim: bool = False, dtype: DTypeLike = None) -> Self:
        """The mean over the axes `dim` (all of them by default)."""
        x = self if dtype is None else self.to(dtype)
        if x.dtype.kind != "f":
            raise RuntimeError(
                f"mean: expected floating-point values, got {describe(x)}; use .float().mean()"
            )
        return reduction.mean(x, axes=_axes(x, dim), keepdims=keepdim)

    def amax(self, dim: Dims = None, keepdim: bool = False) -> Self:
        """The largest value over the axes `dim`; ties share the gradient."""
        return reduction.max(self, axes=_nonempty(self, dim, "amax"), keepdims=keepdim)

    def amin(self, dim: Dims = None, keepdim: bool = False) -> Self:
        """The smallest value over the axes `dim`; ties share the gradient."""
        return reduction.min(self, axes=_nonempty(self, dim, "amin"), keepdims=keepdim)

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
        axes = _axes(self, dim)
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
        return reduction.logsumexp(self, axes=_axes(self, dim), keepdims=keepdim)

    def softmax(self, dim: int) -> Self:
        """eˣ / Σ eˣ along an axis."""
        return reduction.softmax(self, axes=_axes(self, dim))

    def log_softmax(self, dim: int) -> Self:
        """x - ln Σ eˣ along an axis."""
        return reduction.log_softmax(self, axes=_axes(self, dim))

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
        index = find(self, axis=axis)
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

    def any(self, dim: Dims = None, keepdim: bool = False) -> Self:
        """Whether any value is non-zero."""
        return reduction.any(self, axes=_axes(self, dim), keepdims=keepdim)

    def all(self, dim: Dims = None, keepdim: bool = False) -> Self:
        """Whether every value is non-zero."""
        return reduction.all(self, axes=_axes(self, dim), keepdims=keepdim)

    # --- shape -----------------------------------------------------------------------------------

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
        return shape.reshape(self, shape=_reshaped(self, _sizes(shape_)))

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
        inner = _reshaped_sizes(self.shape[place], tuple(sizes), describe(self))
        return self.reshape(*self.shape[:place], *inner, *self.shape[place + 1 :])

    def squeeze(self, dim: Dims = None) -> Self:
        """Without the axes of size 1 (all of them, or those named)."""
        named = range(-self.ndim, 0) if dim is None else _axes(self, dim)
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
        axes = shape.permutation(self.ndim, *_sizes(order or (dims,)))
        return shape.transpose(self, axes=axes) if axes else self

    def movedim(self, source: Any, destination: Any) -> Self:
        """With an axis (or several) moved to other places, the rest keeping their order."""
        sources = [from_end(axis, self.ndim) for axis in _sizes((source,))]
        places = [from_end(axis, self.ndim) for axis in _sizes((destination,))]
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
        wanted = _sizes(sizes)
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
        wanted = _sizes(sizes)
        own = self.shape[self.ndim - len(wanted) :]
        if len(own) != len(wanted) or any(
            n not in (1, size) for n, size in zip(wanted, own, strict=True)
        ):
            raise RuntimeError(f"sum_to_size: {describe(self)} was not broadcast from {wanted}")
        return sum_to(self, shape=wanted)

    def repeat(self, *sizes: Any) -> Self:
        """Copies laid side by side, `sizes` times along each axis (new axes in front)."""
        times = _sizes(sizes)
        if len(times) < self.ndim:
            raise RuntimeError(f"repeat: {describe(self)} needs at least {self.ndim} repeat counts")
        old = (1,) * (len(times) - self.ndim) + self.shape
        apart = tuple(size for n in old for size in (1, n))
        spread = tuple(size for k, n in zip(times, old, strict=True) for size in (k, n))
        joined = tuple(k * n for k, n in zip(times, old, strict=True))
        return self.reshape(apart).expand(spread).reshape(joined)

    def tile(self, *sizes: Any) -> Self:
        """As repeat, with missing counts taken as 1."""
        times = _sizes(sizes)
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
        reversed_ = _sizes(axes or (dims,))
        return shape.flip(self, axes=tuple(from_end(axis, self.ndim) for axis in reversed_))

    def roll(self, shifts: Any, dims: Any = None) -> Self:
        """Shifted along an axis (or several), what leaves one end entering at the other.

        Without dims, the flattened tensor is shifted and brought back into shape.
        """
        if dims is None:
            return self.reshape(-1).roll(shifts, 0).reshape(self.shape)
        x = self
        for shift, dim in zip(_sizes((shifts,)), _sizes((dims,)), strict=True):
            n = x.size(dim)
            k = shift % n if n else 0
            x = cat([x.narrow(dim, n - k, k), x.narrow(dim, 0, n - k)], dim) if k else x
        return x

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Self, ...]:
        """Consecutive parts of one size (the last may be smaller), or of the sizes listed."""
        axis, total = _cut(self, dim, "split")
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
        _, total = _cut(self, dim, "chunk")
        return self.split(-(-total // chunks) if total else (0,) * chunks, dim)

    def unbind(self, dim: int = 0) -> tuple[Self, ...]:
        """The parts at each index of an axis, as a tuple: the way to loop over time."""
        if not self.ndim:
            raise IndexError("unbind: a tensor without axes has no parts")
        return tuple(shape.unstack(self, axis=from_end(dim, self.ndim)))

    def __iter__(self) -> Any:
        if not self.ndim:
            raise TypeError("iter: a tensor without axes cannot be iterated over")
        return iter(self.unbind(0))

    def narrow(self, dim: int, start: int, length: int) -> Self:
        """The part of an axis from start, of the given length; a negative start counts back."""
        axis, size = _cut(self, dim, "narrow")
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

    # --- reading and writing at positions ---------------------------------------------------------

    def __getitem__(self, index: Any) -> Self:
        return indexing.getitem(self, index=self._plain_index(index))

    def _plain_index(self, index: Any) -> Any:
        """An index with arrays in place of Tensors and of lists."""
        if isinstance(index, tuple):
            return tuple(self._plain_index(part) for part in index)
        if isinstance(index, Tracer):
            return index.array  # type: ignore[attr-defined]
        if isinstance(index, list):
            return np.asarray(index, dtype=None if index else np.int64)
        return index

    def _put(self, index: Any, value: Any) -> Self:
        if isinstance(value, Operators) and value.dtype != self.dtype:
            value = value.to(self.dtype)
        return indexing.put(self, value, index=index)

    def index_select(self, dim: int, index: Any) -> Self:
        """The parts at the listed indices of an axis."""
        if index.ndim > 1:
            raise IndexError(f"index_select: expected a vector of indices, got {describe(index)}")
        rows = self if from_end(dim, self.ndim) == -self.ndim else self.movedim(dim, 0)
        taken = indexing.take(rows, _within(index, rows.shape[0], "index_select"))
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
        return indexing.gather(self, _within(index, self.shape[axis], "gather"), axis=axis)

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
        index = _within(index, self.shape[axis], "scatter_add")
        return indexing.scatter_add(self, index, part, axis=axis)

    def masked_fill(self, mask: Any, value: Any) -> Self:
        """y = value where mask, else x."""
        if mask.dtype != np.bool_:
            raise RuntimeError(f"masked_fill: the mask must be bool, not {mask.dtype}")
        if not isinstance(value, Tracer):  # a Python number of self's kind leaves its dtype alone
            value = {"f": float, "b": bool}.get(self.dtype.kind, int)(value)
        return elementwise.where(mask, value, self)

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

    # --- memory ----------------------------------------------------------------------------------

    def clone(self) -> Self:
        """The same values in memory of their own; gradients flow through."""
        return elementwise.copy(self)

    def contiguous(self) -> Self:
        """Itself: operations here take any memory layout."""
        return self


# --- functions of several tensors ----------------------------------------------------------------


def matmul(a: Any, b: Any) -> Any:
    """y = a @ b, with NumPy's meaning: vectors gain an axis and lose it; leading axes broadcast."""
    a_axes, b_axes = a.ndim, b.ndim
    if b_axes >= 2 and a_axes and (a_axes >= 2 or b_axes == 2):
        return linear.matmul(a, b)
    if not a_axes or not b_axes:
        raise RuntimeError(f"matmul: {describe(a)} @ {describe(b)}: use * for a scalar")
    left = shape.reshape(a, shape=(1, *a.shape)) if a.ndim == 1 else a
    right = shape.reshape(b, shape=(*b.shape, 1)) if b.ndim == 1 else b
    y = linear.matmul(left, right)
    gone = [k for k, x in ((-2, a), (-1, b)) if x.ndim == 1]
    kept = tuple(n for k, n in enumerate(y.shape) if k - len(y.shape) not in gone)
    return shape.reshape(y, shape=kept)


def _product(name: str, a: Any, b: Any, ndim: int) -> Any:
    if a.ndim != ndim or b.ndim != ndim:
        raise RuntimeError(
            f"{name}: expected two tensors of {ndim} axes, got {describe(a)}, {describe(b)}"
        )
    if a.shape[:-2] != b.shape[:-2]:
        raise RuntimeError(f"{name}: {describe(a)} and {describe(b)} differ in their leading axis")
    return linear.matmul(a, b)


def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """The tensors joined along an axis. Vectors of no values, as `tensor([])`, are left out."""
    tensors = [x for x in tensors if x.shape != (0,)] or list(tensors[:1])
    if not tensors:
        raise ValueError("cat: expected at least one tensor")
    return shape.concatenate(*tensors, axis=from_end(dim, tensors[0].ndim))


def stack(tensors: Sequence[Any], dim: int = 0) -> Any:
    """The tensors side by side along a new axis."""
    tensors = list(tensors)
    if not tensors:
        raise RuntimeError("stack: expected at least one tensor")
    return shape.stack(*tensors, axis=from_end(dim, tensors[0].ndim + 1))


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where condition, else y, elementwise."""
    if condition.dtype != np.bool_:
        raise RuntimeError(f"where: the condition must be bool, not {condition.dtype}")
    chosen = elementwise.where(condition, x, y)
    if isinstance(x, float | int) and isinstance(y, float | int) and chosen.dtype.kind == "f":
        return chosen.to(get_default_dtype())
    return chosen


def einsum(equation: str, *operands: Any) -> Any:
    """The sum of products that the equation says, as numpy.einsum: "btd,hd->bth".

    A label repeated within one operand takes its diagonal; "..." stands for broadcast axes.
    """
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = tuple(operands[0])
    inputs, output = _einsum_labels(equation, operands)
    taken = [_diagonals(x, labels) for x, labels in zip(operands, inputs, strict=True)]
    return linear.einsum(
        *(x for x, _ in taken), inputs=tuple(labels for _, labels in taken), output=output
    )


def _einsum_labels(equation: str, operands: Sequence[Any]) -> tuple[list[str], str]:
    """The labels of each operand and of the result, with "..." spelled out."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(operands):
        raise RuntimeError(
            f"einsum: {equation!r} names {len(inputs)} operands, got {len(operands)}"
        )
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    widest = 0
    for k, (labels, x) in enumerate(zip(inputs, operands, strict=True)):
        extra = x.ndim - len(labels.replace("...", ""))
        if extra < 0 or (extra and "..." not in labels):
            raise RuntimeError(f"einsum: {labels!r} in {equation!r} does not fit {describe(x)}")
        inputs[k] = labels.replace("...", "".join(spare[-extra:]) if extra else "")
        widest = builtins.max(widest, extra)
    ellipsis = "".join(spare[-widest:]) if widest else ""
    if arrow:
        return inputs, right.replace("...", ellipsis)
    every = "".join(inputs)
    return inputs, ellipsis + "".join(
        sorted(c for c in set(every) if every.count(c) == 1 and c not in ellipsis)
    )


def _diagonals(x: Any, labels: str) -> tuple[Any, str]:
    """The operand with one axis per label: the diagonal over the axes of a repeated label."""
    for label in set(labels):
        places = [k for k, c in enumerate(labels) if c == label]
        if len(places) > 1:
            rest = [k for k in range(len(labels)) if k not in places]
            moved = x.permute(*places, *rest)
            line = np.arange(moved.shape[0])
            x = moved[(line,) * len(places)]
            labels = label + "".join(labels[k] for k in rest)
    return x, labels


# --- arguments -----------------------------------------------------------------------------------


def _sizes(args: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    if len(args) == 1 and isinstance(args[0], Sequence):
        args = tuple(args[0])
    return tuple(operator.index(size) for size in args)


def _axes(x: Any, dim: Dims) -> tuple[int, ...]:
    """The axes to reduce, counted from the end: all for None."""
    if dim is None:
        return tuple(range(-x.ndim, 0))
    if not isinstance(dim, Sequence):
        dim = (dim,)
    axes = tuple(sorted({from_end(axis, x.ndim) for axis in dim}))
    if len(axes) != len(dim):
        raise RuntimeError(f"dim {tuple(dim)} names an axis twice")
    return axes if x.ndim else ()


def _is_operand(value: Any) -> bool:
    """Whether a value can be compared with a tensor: any other is simply not equal to one."""
    return isinstance(value, Tracer | int | float | np.generic) or is_array(value)


def _cut(x: Any, dim: int, name: str) -> tuple[int, int]:
    """The axis to cut, counted from the end, and its size."""
    if not x.ndim:
        raise RuntimeError(f"{name}: a tensor without axes cannot be cut")
    axis = from_end(dim, x.ndim)
    return axis, x.shape[axis]


def _lower_triangle(x: Any, diagonal: int) -> Any:
    """True below and on a diagonal of matrices shaped as x's."""
    if x.ndim < 2:
        raise RuntimeError(f"tril, triu: expected at least 2 axes, got {describe(x)}")
    xp = namespace(getattr(x, "array", None))
    return xp.tri(x.shape[-2], x.shape[-1], diagonal, dtype=bool)


def _root(total: Any, power: float) -> Any:
    """total^(1/power), with the derivative at 0 taken as 0 where the true one is infinite."""
    zero = total == 0
    return (total.masked_fill(zero, 1) ** (1 / power)).masked_fill(zero, 0)


def _nonempty(x: Any, dim: Dims, name: str) -> tuple[int, ...]:
    axes = _axes(x, dim)
    if not reduction.count(x.shape, axes):
        raise RuntimeError(f"{name}: no values to choose from in {describe(x)}")
    return axes


def _reshaped(x: Any, sizes: tuple[int, ...]) -> tuple[int, ...]:
    return _reshaped_sizes(math.prod(x.shape), sizes, describe(x))


def _reshaped_sizes(total: int, sizes: tuple[int, ...], what: str) -> tuple[int, ...]:
    """The sizes with -1 worked out; an error if they do not hold `total` values."""
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and known > 0 and total % known == 0:
        return tuple(total // known if size == -1 else size for size in sizes)
    if -1 in sizes or known != total:
        raise RuntimeError(f"reshape: {what} holds {total} values, which do not fit {sizes}")
    return sizes


def _within(index: Any, size: int, name: str) -> Any:
    """An index operand, checked: integers in [0, size)."""
    values = index.array if hasattr(index, "array") else index
    if values.dtype.kind not in "iu":
        raise RuntimeError(f"{name}: indices must be integers, not {values.dtype}")
    if values.size and not (values.min() >= 0 and values.max() < size):
        low, high = int(values.min()), int(values.max())
        raise RuntimeError(
            f"{name}: indices from {low} to {high} do not fit an axis of {size} values"
        )
    return index
