"""sum_to and broadcast_to: what broadcasting does, and its adjoint.

Broadcasting copies a value to many places, so its cotangent is the sum over those places. The pair
stands here, below every other table, because elementwise rules and reductions both end in it.
"""

from __future__ import annotations

from typing import Any

from tinygrad_rnn.ops.primitive import Primitive, shape_of
from tinygrad_rnn.ops.summing import sum_of_leading


def _sum_to(xp: Any, x: Any, *, shape: tuple[int, ...]) -> Any:
    lead = x.ndim - len(shape)
    if x.shape[lead:] == shape:  # a bias
        return sum_of_leading(xp, x, lead) if lead else x
    stretched = [
        axis for axis in range(lead, x.ndim) if shape[axis - lead] == 1 and x.shape[axis] != 1
    ]
    return x.sum(axis=(*range(lead), *stretched)).reshape(shape)


#: y = x summed over the axes along which `shape` was broadcast to x's.
sum_to = Primitive(
    "sum_to",
    _sum_to,
    lambda g, _y, x_shape, *, shape: broadcast_to(g, shape=shape_of(x_shape)),
)

#: y = x, repeated along new leading axes and axes of size 1. A read-only view.
broadcast_to: Primitive = Primitive(
    "broadcast_to",
    lambda xp, x, *, shape: xp.broadcast_to(x, shape),
    lambda g, _y, x_shape, *, shape: sum_to(g, shape=shape_of(x_shape)),
)
