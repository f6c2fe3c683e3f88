"""What is NumPy told to do for each operation?

An `Instruction` is a NumPy function, the places of its operands, and the place of its result. Most
operations are one ufunc; the others are a few, or the operation's own `evaluate` with a copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn.ops import elementwise as e
from tinygrad_rnn.ops import reduction
from tinygrad_rnn.ops.linear import contract, matmul
from tinygrad_rnn.ops.primitive import Primitive
from tinygrad_rnn.ops.shape import concatenate, stack
from tinygrad_rnn.scan.memory import Place
from tinygrad_rnn.scan.replay.blas import adding


class Instruction(NamedTuple):
    """function(*operands, out): operands are Places and numbers, `out` is a Place."""

    function: Callable[..., Any]
    operands: tuple[Any, ...]
    out: Place


def _maximum(x: Any, y: Any, out: Any) -> None:
    np.maximum(x, y, out=out)  # NumPy wants it named here


def _minimum(x: Any, y: Any, out: Any) -> None:
    np.minimum(x, y, out=out)


#: Operations that are one NumPy call, value by value; each may write over any operand of the
#: result's shape.
UFUNCS: dict[Primitive, Callable[..., Any]] = {
    e.add: np.add,
    e.subtract: np.subtract,
    e.multiply: np.multiply,
    e.divide: np.true_divide,
    e.negative: np.negative,
    e.power: np.power,
    e.square: np.square,
    e.sqrt: np.sqrt,
    e.absolute: np.absolute,
    e.maximum: _maximum,
    e.minimum: _minimum,
    e.exp: np.exp,
    e.expm1: np.expm1,
    e.log: np.log,
    e.log1p: np.log1p,
    e.sin: np.sin,
    e.cos: np.cos,
    e.tanh: np.tanh,
    e.sign: np.sign,
    e.floor: np.floor,
    e.ceil: np.ceil,
    e.round: np.rint,
    e.floor_divide: np.floor_divide,
    e.remainder: np.remainder,
    e.equal: np.equal,
    e.not_equal: np.not_equal,
    e.less: np.less,
    e.less_equal: np.less_equal,
    e.greater: np.greater,
    e.greater_equal: np.greater_equal,
    e.bitwise_and: np.bitwise_and,
    e.bitwise_or: np.bitwise_or,
    e.bitwise_xor: np.bitwise_xor,
    e.bitwise_not: np.invert,
    e.logical_and: np.logical_and,
    e.logical_or: np.logical_or,
    e.logical_not: np.logical_not,
    e.isnan: np.isnan,
    e.isinf: np.isinf,
    e.isfinite: np.isfinite,
}


def _relu(x: Any, out: Any) -> None:
    np.maximum(x, 0, out=out)


def _where(condition: Any, x: Any, y: Any, out: Any) -> None:
    np.copyto(out, y)
    np.copyto(out, x, where=condition)


def copy(x: Any, out: Any) -> None:
    """out = x, in out's dtype."""
    np.copyto(out, x, casting="unsafe")


def add_product(a: Any, b: Any, out: Any) -> None:
    """out += a @ b. A frame puts the call that blas.adding gives in place of this one."""
    function, arguments = adding(a, b, out, {})
    function(*arguments)


def _contract(a: Any, b: Any, out: Any) -> None:
    np.matmul(a.T, b, out)


def _reduce(function: np.ufunc) -> Callable[..., Callable[..., Any]]:
    def reducing(*, axes: tuple[int, ...], keepdims: bool) -> Callable[..., Any]:
        def reduce(x: Any, out: Any) -> None:
            function.reduce(x, axis=axes, out=out, keepdims=keepdims)

        return reduce

    return reducing


def _mean(*, axes: tuple[int, ...], keepdims: bool) -> Callable[..., Any]:
    def mean(x: Any, out: Any) -> None:
        np.add.reduce(x, axis=axes, out=out, keepdims=keepdims)
        n = reduction.count(x.shape, axes)
        out *= 1 / n if n else math.nan

    return mean


def _softmax(*, axes: tuple[int, ...]) -> Callable[..., Any]:
    def softmax(x: Any, out: Any) -> None:
        np.subtract(x, x.max(axis=axes, keepdims=True), out)
        np.exp(out, out)
        np.divide(out, out.sum(axis=axes, keepdims=True), out)

    return softmax


def _logsumexp(*, axes: tuple[int, ...], keepdims: bool) -> Callable[..., Any]:
    def logsumexp(x: Any, out: Any) -> None:
        limits = np.finfo(out.dtype)  # a finite top: infinities give infinities, and no NaN
        top = np.maximum.reduce(x, axis=axes, dtype=out.dtype, keepdims=True, initial=limits.min)
        np.minimum(top, limits.max, out=top)
        scaled = np.subtract(x, top)
        np.exp(scaled, scaled)
        np.add.reduce(scaled, axis=axes, out=out, keepdims=keepdims)
        np.log(out, out)
        np.add(out, top.reshape(out.shape), out)

    return logsumexp


def _joined(function: Callable[..., Any]) -> Callable[..., Callable[..., Any]]:
    def joining(*, axis: int) -> Callable[..., Any]:
        def join(*parts_and_out: Any) -> None:
            *parts, out = parts_and_out
            function(parts, axis=axis, out=out)

        return join

    return joining


#: Operations with a NumPy call of their own: from their parameters to the function.
FUNCTIONS: dict[Primitive, Callable[..., Callable[..., Any]]] = {
    e.where: lambda: _where,
    e.cast: lambda **_params: copy,
    e.discretize: lambda **_params: copy,
    e.copy: lambda: copy,
    e.relu: lambda: _relu,
    reduction.sum: _reduce(np.add),
    reduction.max: _reduce(np.maximum),
    reduction.min: _reduce(np.minimum),
    reduction.mean: _mean,
    reduction.softmax: _softmax,
    reduction.logsumexp: _logsumexp,
    concatenate: _joined(np.concatenate),
    stack: _joined(np.stack),
}


def function_of(primitive: Primitive, params: dict[str, Any], ndims: list[int]) -> Any:
    """The function(*operands, out) of an operation, whatever it is."""
    if primitive in UFUNCS:
        return UFUNCS[primitive]
    if primitive is matmul and (ndims[1] > 2 or ndims[0] <= 3):
        return np.matmul
    if primitive is contract and ndims == [2, 2]:
        return _contract
    if primitive in FUNCTIONS:
        return FUNCTIONS[primitive](**params)

    def evaluate(*operands_and_out: Any) -> None:
        *operands, out = operands_and_out
        np.copyto(out, primitive.evaluate(np, *operands, **params))

    evaluate.__name__ = primitive.name  # what a profile calls it
    return evaluate


def number_like(number: Any, dtype: Any) -> Any:
    """A number as NumPy takes it fastest: an array without axes, if that keeps the meaning."""
    if isinstance(number, float | int) and not isinstance(number, bool) and dtype.kind == "f":
        return np.asarray(number, dtype)
    return number
