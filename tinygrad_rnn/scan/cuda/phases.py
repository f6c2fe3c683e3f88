"""In what order does one block compute a row, along which values are summed?

Each of its threads has some of the columns. A sum is known only when all columns have been gone
through, so a row is computed in phases: loops over the columns, one for each width, and then what
is one number for the whole row. What one loop computes and a later one reads goes through memory. A
column is always the same thread's, so that needs no waiting, but reading a part of the row, or a
concatenation, does. Read source.py before this file; rows.py writes the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tinygrad_rnn.ops import reduction
from tinygrad_rnn.ops.broadcasting import sum_to
from tinygrad_rnn.ops.shape import concatenate, split
from tinygrad_rnn.program import Equation, Var


class Store(NamedTuple):
    """A value that a kernel writes, and where: to its own place, or into a concatenation.

    target: the value itself, or the concatenation, in which it begins at `start`.
    """

    value: Var
    target: Var
    start: int = 0

    def part_of(self, array: Any) -> Any:
        """Where the value goes, in the array of the target."""
        if self.target is self.value:
            return array
        return array[..., self.start : self.start + self.value.shape[-1]]


class Phase(NamedTuple):
    """A part of the computation of a row.

    waits: whether all threads must have done the earlier phases.
    loops: by width, the equations of each column, reductions among them, and what is only copied.
    numbers: the same for what is one number for the row; reductions are in the loops.
    """

    waits: bool
    loops: dict[int, tuple[list[Equation], list[Store]]]
    numbers: tuple[list[Equation], list[Store]]


_REDUCTIONS = (reduction.sum, reduction.mean, reduction.max, reduction.min)


def is_reduction(equation: Equation) -> bool:
    """Whether an equation makes one number of each row, which stays as an axis of size 1."""
    primitive, params = equation.primitive, equation.params
    if primitive not in (*_REDUCTIONS, sum_to):
        return False
    x, (y,) = equation.inputs[0], equation.outputs
    if x.dtype.kind != "f" or x.dtype != y.dtype or not x.shape or not math.prod(x.shape):
        return False
    if primitive is sum_to:
        return tuple(params["shape"]) == (*x.shape[:-1], 1) and x.shape[-1] > 1
    return params["axes"] == (-1,) and bool(params["keepdims"])


def is_number(equation: Equation) -> bool:
    """Whether an equation computes one number for the row from others; not a reduction."""
    return equation.outputs[0].shape[-1] == 1 and not is_reduction(equation)


def phases_of(
    equations: Sequence[Equation], copies: Sequence[Store], makers: Mapping[Var, Equation]
) -> tuple[list[Phase], list[Var]]:
    """The phases of a row, and the columns that a phase leaves for a later one.

    copies: what is also, or only, written into concatenations.
    makers: the equations by which values are made, views and concatenations among them.
    """
    return _Row(equations, copies, makers).phases()


class _Row:
    """made: the equations by which this kernel makes values. phase: of each equation."""

    def __init__(
        self,
        equations: Sequence[Equation],
        copies: Sequence[Store],
        makers: Mapping[Var, Equation],
    ) -> None:
        self.equations, self.copies, self.makers = equations, copies, makers
        self.made = {x: equation for equation in equations for x in equation.outputs}
        self.phase: dict[Equation, int] = {}
        for equation in equations:
            after = [self._after(x, equation) for x in equation.variables]
            self.phase[equation] = max(after, default=0)

    def _after(self, x: Var, user: Equation) -> int:
        """The first phase in which `user` finds x."""
        maker = self.made.get(x)
        if maker is None:
            return self._after_row_of(x)
        is_column = x.shape[-1] != 1
        return self.phase[maker] + (not is_column and not is_number(user))

    def _after_row_of(self, x: Var) -> int:
        """The first phase in which a part of a row, or a concatenation, can be read."""
        written = self._written(x)
        return 0 if written is None else written + 1

    def _written(self, x: Var) -> int | None:
        """The phase that writes the last of x; None if it was there before."""
        if x in self.made:
            return self.phase[self.made[x]]
        maker = self.makers.get(x)
        if maker is None or maker.primitive not in (split, concatenate):
            return None
        phases = [
            self._copied(y) if maker.primitive is concatenate else self._written(y)
            for y in maker.variables
        ]
        return max((phase for phase in phases if phase is not None), default=None)

    def _copied(self, x: Var) -> int | None:
        """The phase that copies x into a concatenation; None if this kernel copies none."""
        if not any(store.value is x for store in self.copies):
            return None
        return self.phase[self.made[x]] if x in self.made else self._after_row_of(x)

    def phases(self) -> tuple[list[Phase], list[Var]]:
        """The phases, and what is passed on."""
        copies = [(self._copied(store.value) or 0, store) for store in self.copies]
        last = max([*self.phase.values(), *(phase for phase, _ in copies)], default=0)
        read = [(self.phase[e], x) for e in self.equations for x in e.variables]
        read += [(phase, store.value) for phase, store in copies]
        waiting = {
            phase for phase, x in read if x not in self.made and self._written(x) is not None
        }
        passed_on = [
            x
            for phase, x in read
            if x in self.made and x.shape[-1] != 1 and self.phase[self.made[x]] < phase
        ]
        phases = [Phase(k in waiting, {}, ([], [])) for k in range(last + 1)]
        for equation in self.equations:
            phase = phases[self.phase[equation]]
            if is_number(equation):
                phase.numbers[0].append(equation)
            else:
                x = equation.inputs[0] if is_reduction(equation) else equation.outputs[0]
                phase.loops.setdefault(x.shape[-1], ([], []))[0].append(equation)
        for number, store in copies:
            if store.value.shape[-1] == 1:
                phases[number].numbers[1].append(store)
            else:
                width = store.value.shape[-1]
                phases[number].loops.setdefault(width, ([], []))[1].append(store)
        return phases, list(dict.fromkeys(passed_on))
