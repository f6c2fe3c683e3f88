"""How much arithmetic is an operation?

Counted from the shapes: a product of matrices has two FLOPs for each multiply-add, an elementwise
operation one for each value it computes, tanh and division like addition. Moving values (views,
copies, conversions, indexing) and putting them in order cost none. A `recur` counts the equations
of its step, T times. Nothing is measured; how long it takes is what `profile` says.
Read `ops/` first: this is one more column of its tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tinygrad_rnn.ops import elementwise as e
from tinygrad_rnn.ops import indexing, reduction, shape
from tinygrad_rnn.ops.broadcasting import broadcast_to, sum_to
from tinygrad_rnn.ops.elementwise import Elementwise
from tinygrad_rnn.ops.linear import contract, einsum, matmul
from tinygrad_rnn.ops.primitive import Primitive, shape_of
from tinygrad_rnn.scan.recurrence import Recurrence

#: count(inputs, outputs, params) -> FLOPs.
Count: TypeAlias = Callable[[Sequence[Any], Sequence[Any], dict[str, Any]], int]


def flops(
    primitive: Primitive, inputs: Sequence[Any], outputs: Sequence[Any], params: dict[str, Any]
) -> int:
    """The FLOPs of one application of a primitive.

    inputs, outputs: arrays, Tensors, Vars or numbers: only their shapes are looked at.
    """
    if isinstance(primitive, Recurrence):
        return _recurrence(primitive, params["length"])
    count = COUNTS.get(primitive)
    if count is None:
        count = _per_result(1) if isinstance(primitive, Elementwise) else _none
    return count(inputs, outputs, params)


def _recurrence(recur: Recurrence, length: int) -> int:
    """Those of a step, at every step."""
    return length * sum(
        flops(equation.primitive, equation.inputs, equation.outputs, equation.params)
        for equation in recur.program.equations
    )


def _size(x: Any) -> int:
    return math.prod(shape_of(x))


def _none(inputs: Sequence[Any], outputs: Sequence[Any], params: dict[str, Any]) -> int:
    return 0


def _per_result(number: int) -> Count:
    return lambda inputs, outputs, params: number * sum(map(_size, outputs))


def _per_operand(number: int, place: int = 0) -> Count:
    """So many for each value of one operand."""
    return lambda inputs, outputs, params: number * _size(inputs[place])


def _matmul(inputs: Sequence[Any], outputs: Sequence[Any], params: dict[str, Any]) -> int:
    """(…, I) @ (…, I, J): a multiply-add for each of I, for each value of the result."""
    return 2 * _size(outputs[0]) * int(shape_of(inputs[0])[-1])


def _contract(inputs: Sequence[Any], outputs: Sequence[Any], params: dict[str, Any]) -> int:
    """(…, I), (…, J) -> (I, J): a multiply-add for each row, for each value of the result."""
    return 2 * _size(outputs[0]) * math.prod(shape_of(inputs[0])[:-1])


def _einsum(inputs: Sequence[Any], outputs: Sequence[Any], params: dict[str, Any]) -> int:
    """As one loop over all labels: a product of the operands each time, and a sum if any is lost.

    For more than two operands NumPy may find an order that takes fewer.
    """
    labels: dict[str, int] = {}
    for label, x in zip(params["inputs"], inputs, strict=True):
        for name, size in zip(label, shape_of(x), strict=True):
            labels[name] = max(size, labels.get(name, 0))
    is_sum = set(labels) != set(params["output"])
    return math.prod(labels.values()) * (len(inputs) - 1 + is_sum)


_MOVES = (
    *(e.cast, e.copy, e.detach, e.discretize, e.transfer),
    *(broadcast_to, shape.reshape, shape.transpose, shape.flip, shape.split, shape.concatenate),
    *(shape.stack, shape.unstack, shape.pad, shape.unpad),
    *(indexing.getitem, indexing.place, indexing.put, indexing.take, indexing.gather),
    *(indexing.nonzero, reduction.argsort, reduction.unique),
)
_REDUCTIONS = (
    *(sum_to, reduction.sum, reduction.mean, reduction.max, reduction.min, reduction.cumsum),
    *(reduction.any, reduction.all, reduction.argmax, reduction.argmin, indexing.add_rows),
)
#: All primitives but the elementwise ones, which cost one for each value of the result.
COUNTS: dict[Primitive, Count] = {
    **dict.fromkeys(_MOVES, _none),
    **dict.fromkeys(_REDUCTIONS, _per_operand(1)),
    matmul: _matmul,
    contract: _contract,
    einsum: _einsum,
    indexing.scatter_add: _per_operand(1, place=2),
    reduction.softmax: _per_operand(5),  # largest, difference, exponential, sum, quotient
    reduction.log_softmax: _per_operand(5),
    reduction.logsumexp: _per_operand(4),
}
