"""Linear maps: matmul, its weight adjoint contract, and einsum.

`contract` sums over all leading axes, so the gradient of a weight over a whole sequence is one
GEMM over the stacked operands: the sum over time in backpropagation through time is inside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_rnn import precision
from tinygrad_rnn.backend import namespace
from tinygrad_rnn.ops.broadcasting import broadcast_to, sum_to
from tinygrad_rnn.ops.primitive import Primitive, Tracer, shape_of
from tinygrad_rnn.ops.shape import reshape, transpose


def swap(x: Any) -> Any:
    """x with its last two axes exchanged; a view."""
    return transpose(x, axes=(-1, -2))


class Products:
    """Σ aᵀ b over pairs of arrays, not yet computed.

    A weight that every step of an unrolled recurrence uses gets one small product from each. They
    are collected and computed as one GEMM over the stacked rows, which is what `contract` of the
    whole sequence would be; every `ROWS` rows, so that few arrays wait.
    """

    ROWS = 1024
    __slots__ = ("_pairs", "_rows", "_sum")

    def __init__(self, a: Any, b: Any) -> None:
        self._pairs = [(a, b)]
        self._rows = a.size // max(a.shape[-1], 1)
        self._sum: Any = None

    def add(self, other: Any) -> Products:
        """Include another cotangent of the same weight: Products, or an array."""
        if type(other) is not Products:
            self._sum = other if self._sum is None else self._sum + other
            return self
        self._pairs += other._pairs
        self._rows += other._rows
        if self._rows >= self.ROWS:
            self._sum, self._pairs, self._rows = self.total(), [], 0
        return self

    def total(self) -> Any:
        """The sum, computed."""
        if not self._pairs:
            return self._sum
        if len(self._pairs) == 1:
            total = contract(*self._pairs[0])
        else:
            xp = namespace(self._pairs[0][0])
            a, b = (xp.concatenate([_rows(x) for x in xs]) for xs in zip(*self._pairs, strict=True))
            total = a.T @ b
        return total if self._sum is None else self._sum + total

    def arrays(self) -> list[Any]:
        """The operands that wait."""
        return [array for pair in self._pairs for array in pair]


class Matmul(Primitive):
    """y = a @ b for b of two or more axes."""

    def pull(
        self,
        gs: Sequence[Any],
        outputs: Sequence[Any],
        inputs: Sequence[Any],
        params: dict[str, Any],
        needed: Sequence[Any],
    ) -> Sequence[Any]:
        """The rules' cotangents; of a weight, where arrays are computed, as Products."""
        (g,), (a, b) = gs, inputs
        if needed[1] is None or isinstance(g, Tracer) or len(shape_of(b)) > 2:
            return super().pull(gs, outputs, inputs, params, needed)
        ga, _ = super().pull(gs, outputs, inputs, params, (needed[0], None))
        return ga, Products(a, g)  # the second rule's contract(a, g), not yet computed

    def explain(self, error: Exception, arrays: Sequence[Any]) -> Exception:
        """Say which inner sizes differ, and that a weight may want its transpose."""
        a, b = (shape_of(array) for array in arrays)
        if len(a) and len(b) >= 2 and a[-1] != b[-2]:
            hint = ""
            if a[-1] == b[-1]:
                hint = f"; the second operand is stored {b[-2:]}: did you forget .T?"
            return RuntimeError(f"matmul: {a} @ {b}: inner sizes differ ({a[-1]}, {b[-2]}){hint}")
        return super().explain(error, arrays)


def _matmul(xp: Any, a: Any, b: Any) -> Any:
    if xp is not np:
        precision.tell(xp)
    if b.ndim == 2 and a.ndim > 2:  # one GEMM over all leading axes, where matmul runs many
        return (_rows(a) @ b).reshape(*a.shape[:-1], b.shape[1])
    return xp.matmul(a, b)


def _rows(x: Any) -> Any:
    """x as one matrix: all leading axes together, then the last one."""
    if x.ndim == 2:
        return x
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _matmul_left(g: Any, _y: Any, a_shape: Any, b: Any) -> Any:
    """dL/da = g bᵀ, summed over the leading axes that a was broadcast along."""
    ga = matmul(g, swap(b))
    return ga if len(b.shape) == 2 else sum_to(ga, shape=shape_of(a_shape))


def _matmul_right(g: Any, _y: Any, a: Any, b_shape: Any) -> Any:
    """dL/db = aᵀ g, summed over the leading axes that b does not have."""
    shape = shape_of(b_shape)
    return contract(a, g) if len(shape) == 2 else sum_to(matmul(swap(a), g), shape=shape)


#: y = a @ b            (..., I) @ (I, J) -> (..., J), or matrices with leading axes that broadcast
matmul = Matmul("matmul", _matmul, _matmul_left, _matmul_right)


def _contract(xp: Any, a: Any, b: Any) -> Any:
    if xp is not np:
        precision.tell(xp)
    return _rows(a).T @ _rows(b)


#: y = Σ aᵀ b           (..., I), (..., J) -> (I, J), summed over all leading axes
contract = Primitive(
    "contract",
    _contract,
    lambda g, _y, _a, b: matmul(b, swap(g)),  # dL/da = b gᵀ
    lambda g, _y, a, _b: matmul(a, g),  # dL/db = a g
)


def _einsum_joint(g: Any, _y: Any, *xs: Any, inputs: tuple[str, ...], output: str) -> list[Any]:
    """The cotangent of operand k: einsum of g and the other operands, onto k's labels.

    A label that only operand k has was summed on its own: its cotangent is the same everywhere.
    An axis of size 1 that met a longer one gets the sum over what it was broadcast to.
    """
    pulled = []
    for k, labels in enumerate(inputs):
        others = [x for j, x in enumerate(xs) if j != k]
        other_labels = [s for j, s in enumerate(inputs) if j != k]
        known = set(output).union(*other_labels)
        shared = "".join(label for label in labels if label in known)
        gx = einsum(g, *others, inputs=(output, *other_labels), output=shared)
        shape = shape_of(xs[k])
        size = dict(zip(labels, shape, strict=True))
        summed = tuple(1 if size[s] == 1 else n for s, n in zip(shared, gx.shape, strict=True))
        if gx.shape != summed:
            gx = sum_to(gx, shape=summed)
        if gx.shape != shape:
            size = dict.fromkeys(labels, 1) | dict(zip(shared, summed, strict=True))
            gx = broadcast_to(reshape(gx, shape=tuple(size.values())), shape=shape)
        pulled.append(gx)
    return pulled


#: y = the sum of products that the labels say; no label occurs twice in one operand.
einsum = Primitive(
    "einsum",
    lambda xp, *xs, inputs, output: xp.einsum(
        f"{','.join(inputs)}->{output}", *xs, optimize=len(xs) > 1
    ),
    joint_rule=_einsum_joint,
)
