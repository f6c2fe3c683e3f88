"""What does an operation mean when a time axis is put in front of its operands?

`scan` computes what does not depend on the state for many steps at once: on operands that hold the
values of all steps along a new first axis. `lift` gives the results of all steps, `total` their sum
over the steps. As axes count from the end, most operations simply stay as they are; for the others
the table here says what changes. An operation that is not in it cannot be lifted, which costs speed
and nothing else: it is then computed step by step.

"Stacked" operands have the time axis, the others are the same at all steps. `ndims` are the numbers
of axes that the operands have within a step. Read the tables of primitives first.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any

from tinygrad_rnn.ops import reduction
from tinygrad_rnn.ops.broadcasting import broadcast_to, sum_to
from tinygrad_rnn.ops.elementwise import Elementwise, add, cast, multiply, negative, subtract
from tinygrad_rnn.ops.indexing import add_rows, gather, getitem, place, scatter_add, take
from tinygrad_rnn.ops.linear import contract, einsum, matmul, swap
from tinygrad_rnn.ops.primitive import Primitive
from tinygrad_rnn.ops.shape import (
    concatenate,
    flip,
    pad,
    reshape,
    split,
    stack,
    transpose,
    unpad,
    unstack,
)

#: lift(primitive, operands, stacked, ndims, params) -> the results of all steps.
Lift = Callable[
    [Primitive, Sequence[Any], Sequence[bool], Sequence[int], dict[str, Any]],
    Any,
]


def can_lift(primitive: Primitive, stacked: Sequence[bool], params: dict[str, Any]) -> bool:
    """Whether an operation can be computed for all steps at once."""
    if isinstance(primitive, Elementwise) or primitive in _AS_IT_IS:
        return True
    if primitive in (getitem, place):
        return _index_can_move(params["index"])
    if primitive is take:
        return not stacked[0]
    return primitive in _LIFTS


def lift(
    primitive: Primitive,
    operands: Sequence[Any],
    stacked: Sequence[bool],
    ndims: Sequence[int],
    params: dict[str, Any],
) -> Any:
    """The operation at all steps at once, of which at least one operand is stacked."""
    if isinstance(primitive, Elementwise):
        rule: Lift = _lift_broadcasting
    elif primitive in _AS_IT_IS:
        rule = _lift_as_it_is
    else:
        rule = _LIFTS[primitive]
    return rule(primitive, operands, stacked, ndims, params)


def _aligned(x: Any, is_stacked: bool, ndim: int, wanted: int) -> Any:
    """x with the axes that broadcasting would put in front of a step's, behind the time axis."""
    if not is_stacked or ndim == wanted:
        return x
    return reshape(x, shape=(x.shape[0], *(1,) * (wanted - ndim), *x.shape[1:]))


def _lift_broadcasting(
    primitive: Primitive,
    operands: Sequence[Any],
    stacked: Sequence[bool],
    ndims: Sequence[int],
    params: dict[str, Any],
) -> Any:
    wanted = max(ndims)
    aligned = map(_aligned, operands, stacked, ndims, [wanted] * len(operands))
    return primitive(*aligned, **params)


def _lift_as_it_is(
    primitive: Primitive,
    operands: Sequence[Any],
    stacked: Sequence[bool],
    ndims: Sequence[int],
    params: dict[str, Any],
) -> Any:
    steps = next(x.shape[0] for x, is_stacked in zip(operands, stacked, strict=True) if is_stacked)
    return primitive(
        *(
            x if is_stacked else broadcast_to(x, shape=(steps, *x.shape))
            for x, is_stacked in zip(operands, stacked, strict=True)
        ),
        **params,
    )


# Axes count from the end, and no parameter tells the size of a leading one.
_AS_IT_IS = {
    transpose,
    flip,
    pad,
    unpad,
    split,
    concatenate,
    stack,
    unstack,
    gather,
    scatter_add,
    reduction.sum,
    reduction.mean,
    reduction.max,
    reduction.min,
    reduction.logsumexp,
    reduction.softmax,
    reduction.log_softmax,
    reduction.cumsum,
    reduction.any,
    reduction.all,
    reduction.argmax,
    reduction.argmin,
    reduction.argsort,
}


def _lift_reshape(_p: Any, operands: Any, _s: Any, _n: Any, params: dict[str, Any]) -> Any:
    (x,) = operands
    return reshape(x, shape=(x.shape[0], *params["shape"]))


def _lift_broadcast_to(_p: Any, operands: Any, _s: Any, ndims: Any, params: dict[str, Any]) -> Any:
    (x,), (ndim,), shape = operands, ndims, params["shape"]
    return broadcast_to(_aligned(x, True, ndim, len(shape)), shape=(x.shape[0], *shape))


def _lift_sum_to(_p: Any, operands: Any, _s: Any, ndims: Any, params: dict[str, Any]) -> Any:
    (x,), (ndim,), shape = operands, ndims, params["shape"]
    sizes = x.shape[1:]
    lead = ndim - len(shape)
    axes = tuple(
        k - ndim for k in range(ndim) if k < lead or (shape[k - lead] == 1 and sizes[k] != 1)
    )
    return reshape(reduction.sum(x, axes=axes, keepdims=False), shape=(x.shape[0], *shape))


def _lift_matmul(
    primitive: Primitive,
    operands: Sequence[Any],
    stacked: Sequence[bool],
    ndims: Sequence[int],
    params: dict[str, Any],
) -> Any:
    """A vector of each step is a row of its own; times one matrix, the vectors are its rows."""
    if ndims[0] > 1 or not stacked[0]:
        return _lift_broadcasting(primitive, operands, stacked, ndims, params)
    a, b = operands
    if not stacked[1]:
        return matmul(a, b)
    y = matmul(_aligned(a, True, 1, 2), b)
    return reshape(y, shape=(y.shape[0], y.shape[-1]))


def _lift_contract(_p: Any, operands: Any, stacked: Any, ndims: Any, _params: Any) -> Any:
    """Σ aᵀ b within each step: a matrix product for each."""
    a, b = (
        x if ndim == 2 else reshape(x, shape=_rows_shape(x.shape, is_stacked))
        for x, is_stacked, ndim in zip(operands, stacked, ndims, strict=True)
    )
    return matmul(swap(a), b)


def _rows_shape(shape: tuple[int, ...], is_stacked: bool) -> tuple[int, ...]:
    lead = shape[:1] if is_stacked else ()
    rows = 1
    for size in shape[len(lead) : -1]:
        rows *= size
    return (*lead, rows, shape[-1])


def _index_can_move(index: Any) -> bool:
    """Whether an index keeps its meaning behind a slice: at most one part of it is an array."""
    parts = index if isinstance(index, tuple) else (index,)
    arrays = [x for x in parts if not isinstance(x, int | slice | type(None) | type(...))]
    whole = not any(isinstance(x, int) for x in parts) if arrays else True
    return len(arrays) <= 1 and whole and not any(isinstance(x, bool) for x in parts)


def _moved(index: Any) -> tuple[Any, ...]:
    """An index behind the time axis."""
    return (slice(None), *(index if isinstance(index, tuple) else (index,)))


def _lift_getitem(_p: Any, operands: Any, _s: Any, _n: Any, params: dict[str, Any]) -> Any:
    return getitem(operands[0], index=_moved(params["index"]))


def _lift_place(_p: Any, operands: Any, _s: Any, _n: Any, params: dict[str, Any]) -> Any:
    (x,) = operands
    return place(x, shape=(x.shape[0], *params["shape"]), index=_moved(params["index"]))


def _lift_take(_p: Any, operands: Any, _s: Any, _n: Any, _params: Any) -> Any:
    return take(*operands)


def _lift_einsum(_p: Any, operands: Any, stacked: Any, _n: Any, params: dict[str, Any]) -> Any:
    time, inputs = _with_time(params["inputs"], stacked)
    return einsum(*operands, inputs=inputs, output=time + params["output"])


def _with_time(inputs: Sequence[str], stacked: Sequence[bool]) -> tuple[str, tuple[str, ...]]:
    """A label that the einsum does not use yet, and its inputs with that in front."""
    time = next(label for label in string.ascii_letters if label not in "".join(inputs))
    return time, tuple(
        time + labels if is_stacked else labels
        for labels, is_stacked in zip(inputs, stacked, strict=True)
    )


_LIFTS: dict[Primitive, Lift] = {
    matmul: _lift_matmul,
    contract: _lift_contract,
    reshape: _lift_reshape,
    broadcast_to: _lift_broadcast_to,
    sum_to: _lift_sum_to,
    getitem: _lift_getitem,
    place: _lift_place,
    take: _lift_take,
    einsum: _lift_einsum,
}


# --- sums over the steps --------------------------------------------------------------------------

#: Linear in each operand alone, so the sum over the steps can be taken of the operand.
_LINEAR = {transpose, flip, reshape, unpad, getitem, place, broadcast_to, negative, cast}


def sums_operand(primitive: Primitive, shapes: Sequence[Any], stacked: Sequence[bool]) -> list[int]:
    """The operands of which only the sum over the steps enters the result's sum; [] if none does.

    shapes: the operands' within a step, and last the result's.
    """
    *operands, result = shapes
    if primitive in _LINEAR:
        return [0]
    same = all(shape == result for shape in operands)
    if primitive in (add, subtract) and same and all(stacked):
        return [0, 1]
    if primitive is multiply and sum(stacked) == 1:
        place_ = list(stacked).index(True)
        return [place_] if operands[place_] == result else []
    return []


def can_total(primitive: Primitive, stacked: Sequence[bool]) -> bool:
    """Whether `total` exists: the operation itself sums over all leading axes."""
    if primitive is contract or primitive is add_rows:
        return all(stacked[:2])
    return primitive is sum_to or primitive is einsum


def total(
    primitive: Primitive, operands: Sequence[Any], stacked: Sequence[bool], params: dict[str, Any]
) -> Any:
    """The sum of the operation's results over all steps, computed at once."""
    if primitive is einsum:
        _, inputs = _with_time(params["inputs"], stacked)
        return einsum(*operands, inputs=inputs, output=params["output"])
    return primitive(*operands, **params)
