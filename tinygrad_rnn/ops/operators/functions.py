"""Functions of several tensors: matmul, cat, stack, where, einsum.

They are what methods of one tensor cannot be, and the only functions of the package that are not
also methods, `matmul` and `where` aside.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.backend import get_default_dtype, to_device
from tinygrad_rnn.ops import elementwise, linear, shape
from tinygrad_rnn.ops.primitive import describe
from tinygrad_rnn.ops.shape import from_end


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
            line = to_device(np.arange(moved.shape[0]), x.device)
            x = moved[(line,) * len(places)]
            labels = label + "".join(labels[k] for k in rest)
    return x, labels
