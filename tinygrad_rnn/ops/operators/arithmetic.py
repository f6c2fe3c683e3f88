"""Operators and methods that work value by value: arithmetic, comparisons, exponentials."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tinygrad_rnn.ops import elementwise
from tinygrad_rnn.ops.operators.arguments import is_operand
from tinygrad_rnn.ops.operators.conversions import Conversions
from tinygrad_rnn.ops.primitive import Tracer

if TYPE_CHECKING:
    from typing_extensions import Self


class Arithmetic(Conversions):
    """What is done to each value by itself."""

    __slots__ = ()

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
        return elementwise.equal(self, other) if is_operand(other) else NotImplemented

    def __ne__(self, other: Any) -> Self:  # type: ignore[override]
        return elementwise.not_equal(self, other) if is_operand(other) else NotImplemented

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
