"""What is a recurrence?

A loop that hands the state from step to step: four lines. Every operation of every step is recorded
by itself, so a cell may do anything here, Python's `if` included, and backpropagation through time
is the engine's ordinary backward. Read trees.py before this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from tinygrad_rnn.modes import current
from tinygrad_rnn.scan import trees
from tinygrad_rnn.scan.trees import Tree

#: One step of a recurrence: cell(x, h) -> (y, h).
Cell: TypeAlias = Callable[[Tree, Tree], tuple[Tree, Tree]]


def unroll(cell: Cell, xs: Tree, h0: Tree, *, reverse: bool = False) -> tuple[Tree, Tree]:
    """(y_t, h_t) = cell(x_t, h_{t-1}) for t = 1 … T; the outputs y stacked, and the last state.

    Args:
        cell: one step; `y` is what leaves the step and `h` what the next step gets, often the same.
        xs: (T, …): what the cell gets, step by step. A Tensor, or a tuple of Tensors.
        h0: the state before the first step. A Tensor, or a (named, nested) tuple of Tensors, whose
            form and shapes every step must keep.
        reverse: go from t = T to 1. The output of step t still stands at index t of `ys`.

    Returns:
        (ys, h): `ys` (T, …) of the form of one `y`; `h` of the form of `h0`.

    Raises:
        TypeError: the cell did not return a pair (y, h), or something is neither Tensor nor tuple.
        ValueError: T = 0 (no step has said what an output looks like), tensors of `xs` that
            differ in T, or a state whose form or shapes changed.

    >>> import tinygrad_rnn as torch
    >>> def running_sum(x, total):
    ...     total = total + x
    ...     return total, total
    >>> xs, zero = torch.tensor([1.0, 2.0, 3.0]), torch.tensor(0.0)
    >>> ys, total = unroll(running_sum, xs, zero)
    >>> ys.tolist(), total.item()
    ([1.0, 3.0, 6.0], 6.0)
    >>> ys, total = unroll(running_sum, xs, zero, reverse=True)
    >>> ys.tolist(), total.item()
    ([6.0, 5.0, 3.0], 6.0)
    """
    if current.observer is not None and current.trace is None:
        return current.observer(cell, xs, h0, reverse)  # type: ignore[no-any-return]
    steps = trees.unstack(xs, "unroll: xs")  # not xs[t]: the adjoint of T slices would cost O(T²)
    if not steps:
        raise ValueError("unroll: xs has no steps (T = 0), so the shape of an output is unknown")
    ys, h = [None] * len(steps), h0
    for t in reversed(range(len(steps))) if reverse else range(len(steps)):
        ys[t], h = checked_step("unroll", cell(steps[t], h), h)
    return trees.stack(ys, "unroll: y"), h


def checked_step(caller: str, returned: Any, h: Tree) -> tuple[Tree, Tree]:
    """What a cell returned, if it is an output and a state like the one before."""
    if type(returned) is not tuple or len(returned) != 2:
        raise TypeError(
            f"{caller}: the cell returned {_form(returned)}; expected a pair (y, h), the output of "
            "the step and the next state. If they are one tensor, return (h, h)"
        )
    before, after = _form(h), _form(returned[1])
    if before != after:
        raise ValueError(
            f"{caller}: the cell turned a state of {before} into one of {after}; a step must keep "
            "the form and the shapes of its state"
        )
    return returned


def _form(tree: Any) -> Any:
    """The shapes in a tree, nested as the tree is; the type's name for anything else."""
    if isinstance(tree, tuple):
        return [_form(branch) for branch in tree]
    return getattr(tree, "shape", type(tree).__name__)
