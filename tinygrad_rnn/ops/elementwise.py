"""Elementwise operations: y[k] = f(x[k], …), operands broadcast against each other.

A rule is written g * (local derivative); what broadcasting added is summed away for all of them in
one place, `Elementwise.pull`. The third entry of a row is the scalar C text of the same function,
in which T is the type that is computed in.
Read `primitive.py` first: a rule's parameter names say what is kept for backward.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn import backend
from tinygrad_rnn.ops.broadcasting import sum_to
from tinygrad_rnn.ops.primitive import Primitive, Rule, describe, shape_of


class Elementwise(Primitive):
    """A primitive whose operands broadcast; its rules need not care."""

    def pull(
        self,
        gs: Sequence[Any],
        outputs: Sequence[Any],
        inputs: Sequence[Any],
        params: dict[str, Any],
        needed: Sequence[Any],
    ) -> Sequence[Any]:
        """The rules' cotangents, each summed to the shape of its operand."""
        g, y = gs[0], outputs[0]
        if len(inputs) == 1:
            return (self.rules[0](g, y, inputs[0], **params),)  # type: ignore[misc]
        pulled: list[Any] = []
        for place, x in enumerate(inputs):
            rule = self.rules[place]
            if needed[place] is None or rule is None:
                pulled.append(None)
                continue
            gx = rule(g, y, *inputs)
            if gx.shape != (x if type(x) is tuple else x.shape):
                gx = sum_to(gx, shape=shape_of(x))
            pulled.append(gx)
        return pulled

    def explain(self, error: Exception, arrays: Sequence[Any]) -> Exception:
        """Say which sizes do not broadcast."""
        shapes = [shape_of(array) for array in arrays]
        for sizes in _columns(shapes):
            if len({size for size in sizes if size != 1}) > 1:
                return RuntimeError(
                    f"{self.name}: {' and '.join(map(describe, arrays))} do not broadcast: sizes "
                    f"{' and '.join(map(str, sizes))} differ and neither is 1"
                )
        return super().explain(error, arrays)


def _columns(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """The sizes that meet when shapes are aligned at the right, last axis first."""
    longest = max(map(len, shapes))
    return [[s[-k] for s in shapes if len(s) >= k] for k in range(1, longest + 1)]


def elementwise(
    name: str, evaluate: Callable[..., Any], cuda: str | None, *rules: Rule | None
) -> Elementwise:
    """One row of the table."""
    return Elementwise(name, evaluate, *rules, cuda=cuda)


def silent(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    """The same without NumPy's warnings: NaN and Inf are values here, as in PyTorch.

    For operations with a pole or a steep rise. `detect_anomaly` says where a NaN or Inf arose.
    """

    def evaluated(xp: Any, *operands: Any) -> Any:
        with np.errstate(all="ignore"):
            return evaluate(xp, *operands)

    return evaluated


# --- arithmetic ---------------------------------------------------------------------------------

add = elementwise(
    "add",
    lambda xp, x, y: xp.add(x, y),
    "x + y",
    lambda g, _z, _x, _y: g,
    lambda g, _z, _x, _y: g,
)
subtract = elementwise(
    "subtract",
    lambda xp, x, y: xp.subtract(x, y),
    "x - y",
    lambda g, _z, _x, _y: g,
    lambda g, _z, _x, _y: -g,
)
multiply = elementwise(
    "multiply",
    lambda xp, x, y: xp.multiply(x, y),
    "x * y",
    lambda g, _z, _x, y: g * y,
    lambda g, _z, x, _y: g * x,
)
divide = elementwise(
    "divide",
    silent(lambda xp, x, y: xp.true_divide(x, y)),
    "x / y",
    lambda g, _z, _x, y: g / y,
    lambda g, z, _x, y: g * (-z / y),  # d(x/y)/dy = -x/y² = -z/y
)
negative = elementwise("negative", lambda xp, x: xp.negative(x), "-x", lambda g, _y, _x: -g)


def _log_of_base(x: Any) -> Any:
    """log x, and 0 where x = 0: then 0ʸ log 0 is 0 and not nan."""
    nonzero = x + (x == 0)
    return math.log(nonzero) if isinstance(x, int | float) else log(nonzero)


def _lowered(x: Any, y: Any) -> Any:
    """y - 1, the exponent of dxʸ/dx = y xʸ⁻¹; 0 where x = y = 0, which gives 0 and not 0 · 0⁻¹."""
    if isinstance(y, int | float):
        return y - 1 if y else 0.0
    return y - 1 + (x == 0) * (y == 0)


def _power(xp: Any, x: Any, y: Any) -> Any:
    if xp is not np and type(y) is int and y < 0 and x.dtype.kind in "iu":  # NumPy says so itself
        raise ValueError("integers to negative integer powers are not allowed")
    return xp.power(x, y)


power = elementwise(
    "power",
    silent(_power),
    "pow(x, y)",
    lambda g, _z, x, y: g * (y * x ** _lowered(x, y)),
    lambda g, z, x, _y: g * (z * _log_of_base(x)),
)
square = elementwise(
    "square", silent(lambda xp, x: xp.square(x)), "x * x", lambda g, _y, x: g * (2 * x)
)
sqrt = elementwise(
    "sqrt", silent(lambda xp, x: xp.sqrt(x)), "sqrt(x)", lambda g, y, _x: g * (0.5 / y)
)
absolute = elementwise(
    "absolute", lambda xp, x: xp.absolute(x), "fabs(x)", lambda g, _y, x: g * sign(x)
)
# A tie gives each operand half of the cotangent.
maximum = elementwise(
    "maximum",
    lambda xp, x, y: xp.maximum(x, y),
    "(x > y || x != x) ? x : y",
    lambda g, _z, x, y: (g * (x > y) + g * (x >= y)) * 0.5,
    lambda g, _z, x, y: (g * (y > x) + g * (y >= x)) * 0.5,
)
minimum = elementwise(
    "minimum",
    lambda xp, x, y: xp.minimum(x, y),
    "(x < y || x != x) ? x : y",
    lambda g, _z, x, y: (g * (x < y) + g * (x <= y)) * 0.5,
    lambda g, _z, x, y: (g * (y < x) + g * (y <= x)) * 0.5,
)
# `where`, not a product with the mask: an infinite g must not reach the branch not taken.
where: Elementwise = elementwise(
    "where",
    lambda xp, condition, x, y: xp.where(condition, x, y),
    "c ? x : y",
    None,
    lambda g, _z, condition, _x, _y: where(condition, g, 0),
    lambda g, _z, condition, _x, _y: where(condition, 0, g),
)
clip = elementwise(
    "clip",
    lambda xp, x, *, low, high: xp.clip(x, low, high),
    "x < low ? low : (x > high ? high : x)",
    lambda g, _y, x, *, low, high: g * _inside(x, low, high),
)


def _inside(x: Any, low: float | None, high: float | None) -> Any:
    """Whether low <= x <= high, with None for no bound."""
    if low is None:
        return x <= high
    return (x >= low) if high is None else (x >= low) & (x <= high)


# --- exponentials, trigonometry and squashing functions -----------------------------------------

exp = elementwise("exp", silent(lambda xp, x: xp.exp(x)), "exp(x)", lambda g, y, _x: g * y)
expm1 = elementwise(
    "expm1", silent(lambda xp, x: xp.expm1(x)), "expm1(x)", lambda g, y, _x: g * (y + 1)
)
log = elementwise("log", silent(lambda xp, x: xp.log(x)), "log(x)", lambda g, _y, x: g / x)
log1p = elementwise(
    "log1p", silent(lambda xp, x: xp.log1p(x)), "log1p(x)", lambda g, _y, x: g / (1 + x)
)
sin = elementwise("sin", lambda xp, x: xp.sin(x), "sin(x)", lambda g, _y, x: g * cos(x))
cos: Elementwise = elementwise(
    "cos", lambda xp, x: xp.cos(x), "cos(x)", lambda g, _y, x: g * -sin(x)
)
tanh = elementwise("tanh", lambda xp, x: xp.tanh(x), "tanh(x)", lambda g, y, _x: g * (1 - y * y))
erf = elementwise(
    "erf",
    lambda xp, x: backend.erf(x),
    "erf(x)",
    lambda g, _y, x: g * (2 / math.sqrt(math.pi) * exp(-(x * x))),
)


@functools.cache
def _half(dtype: Any) -> Any:
    """1/2 as an array: NumPy multiplies by it faster than by a Python number."""
    return np.asarray(0.5, dtype if dtype.kind == "f" else np.float64)


def _sigmoid(xp: Any, x: Any) -> Any:
    """tanh(x/2)/2 + 1/2: no overflow at either end, and tanh is the fastest of the exponentials."""
    half = _half(x.dtype) if xp is np else 0.5
    y = xp.asarray(xp.multiply(x, half))  # a scalar where x has no axes
    xp.tanh(y, out=y)
    y *= half
    y += half
    return y


sigmoid = elementwise(
    "sigmoid", _sigmoid, "(T)0.5 * tanh((T)0.5 * x) + (T)0.5", lambda g, y, _x: g * (y * (1 - y))
)
# log(1 + eˣ) = max(x, 0) + log(1 + e^-|x|), where nothing overflows.
softplus = elementwise(
    "softplus",
    lambda xp, x: xp.log1p(xp.exp(-xp.absolute(x))) + xp.maximum(x, 0),
    "fmax(x, (T)0) + log1p(exp(-fabs(x)))",
    lambda g, _y, x: g * sigmoid(x),
)
relu = elementwise(
    "relu",
    lambda xp, x: xp.maximum(x, 0),
    "(x > 0 || x != x) ? x : (T)0",
    lambda g, _y, x: g * (x > 0),
)

# --- piecewise constant: the derivative is 0 wherever it exists ---------------------------------

sign: Elementwise = elementwise(
    "sign", lambda xp, x: xp.sign(x), "x != x ? x : (T)((x > 0) - (x < 0))", lambda g, _y, _x: g * 0
)
floor = elementwise("floor", lambda xp, x: xp.floor(x), "floor(x)", lambda g, _y, _x: g * 0)
ceil = elementwise("ceil", lambda xp, x: xp.ceil(x), "ceil(x)", lambda g, _y, _x: g * 0)
# NumPy's rint, like PyTorch's round, goes to the even neighbour from the middle.
round = elementwise("round", lambda xp, x: xp.rint(x), "rint(x)", lambda g, _y, _x: g * 0)
floor_divide = elementwise(
    "floor_divide",
    silent(lambda xp, x, y: xp.floor_divide(x, y)),
    "y == 0 ? x / y : rint((x - fmod(x, y)) / y)"
    " - (fmod(x, y) != 0 && (fmod(x, y) < 0) != (y < 0))",
    lambda g, _z, _x, _y: g * 0,
    lambda g, _z, _x, _y: g * 0,
)
# x mod y with the sign of y: x - y ⌊x/y⌋.
remainder = elementwise(
    "remainder",
    silent(lambda xp, x, y: xp.remainder(x, y)),
    "(fmod(x, y) != 0 && (fmod(x, y) < 0) != (y < 0)) ? fmod(x, y) + y : fmod(x, y)",
    lambda g, _z, _x, _y: g,
    lambda g, _z, x, y: g * -floor(x / y),
)

# --- conversions and comparisons ----------------------------------------------------------------

#: y = x in another floating dtype. `source` is x's own, to which the cotangent goes back.
cast: Elementwise = Elementwise(
    "cast",
    lambda xp, x, *, dtype, source: x.astype(dtype),
    lambda g, _y, _x, *, dtype, source: cast(g, dtype=source, source=dtype),
    cuda="x",
    one_dtype=False,
)
#: y = x as integers (towards zero) or truth values: no derivative.
discretize = Elementwise(
    "discretize", lambda xp, x, *, dtype: x.astype(dtype), cuda="x", one_dtype=False
)
#: y = x on another device. `source` is x's own, to which the cotangent goes back.
transfer: Elementwise = Elementwise(
    "transfer",
    lambda xp, x, *, device, source: backend.to_device(x, device),
    lambda g, _y, _x, *, device, source: transfer(g, device=source, source=device),
)
#: y = x in fresh memory.
copy = elementwise("copy", lambda xp, x: x.copy(), "x", lambda g, _y, _x: g)
#: y = x, in the same memory; without a rule, so no gradient flows past it.
detach = elementwise("detach", lambda xp, x: x, "x")

equal = elementwise("equal", lambda xp, x, y: xp.equal(x, y), "x == y")
not_equal = elementwise("not_equal", lambda xp, x, y: xp.not_equal(x, y), "x != y")
less = elementwise("less", lambda xp, x, y: xp.less(x, y), "x < y")
less_equal = elementwise("less_equal", lambda xp, x, y: xp.less_equal(x, y), "x <= y")
greater = elementwise("greater", lambda xp, x, y: xp.greater(x, y), "x > y")
greater_equal = elementwise("greater_equal", lambda xp, x, y: xp.greater_equal(x, y), "x >= y")
bitwise_and = elementwise("bitwise_and", lambda xp, x, y: xp.bitwise_and(x, y), "x & y")
bitwise_or = elementwise("bitwise_or", lambda xp, x, y: xp.bitwise_or(x, y), "x | y")
bitwise_xor = elementwise("bitwise_xor", lambda xp, x, y: xp.bitwise_xor(x, y), "x ^ y")
bitwise_not = elementwise("bitwise_not", lambda xp, x: xp.invert(x), "x ^ (T)-1")
logical_and = elementwise("logical_and", lambda xp, x, y: xp.logical_and(x, y), "x && y")
logical_or = elementwise("logical_or", lambda xp, x, y: xp.logical_or(x, y), "x || y")
logical_not = elementwise("logical_not", lambda xp, x: xp.logical_not(x), "!x")
isnan = elementwise("isnan", lambda xp, x: xp.isnan(x), "x != x")
isinf = elementwise("isinf", lambda xp, x: xp.isinf(x), "isinf(x)")
isfinite = elementwise("isfinite", lambda xp, x: xp.isfinite(x), "isfinite(x)")
