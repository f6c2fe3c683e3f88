"""Reductions along axes: sum, mean, max, logsumexp, softmax, cumsum, and the order of values.

`axes` is always a tuple counted from the end, never None: a reduction then means the same when a
time axis is put in front. The rules give g back its lost axes with `restore`, then broadcast it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_rnn.ops.broadcasting import broadcast_to
from tinygrad_rnn.ops.elementwise import cast, exp, isinf, where
from tinygrad_rnn.ops.primitive import Primitive, shape_of
from tinygrad_rnn.ops.shape import flip, reshape


def kept_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with size 1 along the reduced axes."""
    n = len(shape)
    return tuple(1 if k - n in axes else size for k, size in enumerate(shape))


def restore(g: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """g with the axes that a reduction of `shape` removed, as axes of size 1."""
    kept = kept_shape(shape, axes)
    return g if g.shape == kept else reshape(g, shape=kept)


def count(shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    """How many values go into one result."""
    return math.prod(shape[axis] for axis in axes)


def _sum_rule(g: Any, _y: Any, x_shape: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    shape = shape_of(x_shape)
    return broadcast_to(restore(g, shape, axes), shape=shape)


sum = Primitive(
    "sum",
    lambda xp, x, *, axes, keepdims: xp.sum(x, axis=axes, keepdims=keepdims),
    _sum_rule,
)


def _mean_rule(g: Any, _y: Any, x_shape: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    shape = shape_of(x_shape)
    share = restore(g, shape, axes) * (1 / (count(shape, axes) or 1))
    return broadcast_to(share, shape=shape)


def _mean(xp: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The sum times 1/n; nan for no values at all, without NumPy's warning."""
    n = count(x.shape, axes)
    return xp.sum(x, axis=axes, keepdims=keepdims) * (1 / n if n else math.nan)


mean = Primitive("mean", _mean, _mean_rule)


def _extremum_rule(g: Any, y: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    """g goes to the places where x attains y, in equal shares."""
    attained = x == restore(y, x.shape, axes)
    attained = cast(attained, dtype=x.dtype, source=attained.dtype)
    return restore(g, x.shape, axes) * (attained / sum(attained, axes=axes, keepdims=True))


max = Primitive(
    "max", lambda xp, x, *, axes, keepdims: xp.max(x, axis=axes, keepdims=keepdims), _extremum_rule
)
min = Primitive(
    "min", lambda xp, x, *, axes, keepdims: xp.min(x, axis=axes, keepdims=keepdims), _extremum_rule
)


def _logsumexp(xp: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    if not count(x.shape, axes):  # log of an empty sum
        return xp.sum(x, axis=axes, keepdims=keepdims) - math.inf
    top = xp.max(x, axis=axes, keepdims=True)
    top = xp.where(xp.isfinite(top), top, 0)  # a row of -inf gives -inf, not nan
    total = xp.sum(xp.exp(x - top), axis=axes, keepdims=True)
    empty = total == 0
    y = xp.where(empty, -math.inf, xp.log(total + empty)) + top
    return (
        y if keepdims else y.reshape([n for k, n in enumerate(x.shape) if k - x.ndim not in axes])
    )


def _logsumexp_rule(g: Any, y: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    """g times the softmax exp(x - y); a row of -inf has none and gets 0."""
    top = restore(y, x.shape, axes)
    return restore(g, x.shape, axes) * exp(x - where(isinf(top), 0, top))


#: y = log Σ exp x, without overflow.
logsumexp = Primitive("logsumexp", _logsumexp, _logsumexp_rule)


def _without_largest(xp: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """x - max x, whose exponentials do not overflow; a row of -inf becomes nan, as in PyTorch."""
    with np.errstate(invalid="ignore"):
        return x - xp.max(x, axis=axes, keepdims=True)


def _log_softmax(xp: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    if not x.size:
        return x.copy()
    y = _without_largest(xp, x, axes)
    y -= xp.log(xp.sum(xp.exp(y), axis=axes, keepdims=True))
    return y


def _softmax(xp: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    if not x.size:
        return x.copy()
    y = xp.exp(_without_largest(xp, x, axes))
    y /= xp.sum(y, axis=axes, keepdims=True)
    return y


#: y = x - log Σ exp x
log_softmax = Primitive(
    "log_softmax",
    _log_softmax,
    lambda g, y, _x, *, axes: g - exp(y) * sum(g, axes=axes, keepdims=True),
)
#: y = exp x / Σ exp x
softmax = Primitive(
    "softmax",
    _softmax,
    lambda g, y, _x, *, axes: y * (g - sum(g * y, axes=axes, keepdims=True)),
)

#: y[k] = x[0] + … + x[k] along an axis. Its adjoint sums from the other end.
cumsum: Primitive = Primitive(
    "cumsum",
    lambda xp, x, *, axis: xp.cumsum(x, axis=axis),
    lambda g, _y, _x, *, axis: flip(cumsum(flip(g, axes=(axis,)), axis=axis), axes=(axis,)),
)

# Positions are not differentiable; the values at them are, through `indexing.gather`.
argmax = Primitive("argmax", lambda xp, x, *, axis: xp.argmax(x, axis=axis))
argmin = Primitive("argmin", lambda xp, x, *, axis: xp.argmin(x, axis=axis))


def _argsort(xp: Any, x: Any, *, axis: int, descending: bool) -> Any:
    """Stable in both directions: equal values keep their order."""
    if not descending:
        return xp.argsort(x, axis=axis, kind="stable")
    reverse = xp.argsort(xp.flip(x, axis), axis=axis, kind="stable")
    return x.shape[axis] - 1 - xp.flip(reverse, axis)


argsort = Primitive("argsort", _argsort)


def _unique(xp: Any, x: Any) -> list[Any]:
    values, places, counts = xp.unique(x, return_inverse=True, return_counts=True, equal_nan=False)
    return [values, places.reshape(x.shape), counts]


#: [the distinct values in order, for each value of x which of them it is, how often each occurs].
unique = Primitive("unique", _unique)
any = Primitive("any", lambda xp, x, *, axes, keepdims: xp.any(x, axis=axes, keepdims=keepdims))
all = Primitive("all", lambda xp, x, *, axes, keepdims: xp.all(x, axis=axes, keepdims=keepdims))
