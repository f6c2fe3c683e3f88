"""What does running a step T times mean?

The plain answer, step by step, with any array library: it defines `recur`, serves where no faster
executor exists, and is what the faster ones are tested against. See replay/ for NumPy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_rnn.program import Program


def interpret(
    program: Program, xp: Any, inputs: Sequence[Any], length: int, reverse: bool
) -> list[Any]:
    """The outputs of all steps: the last carry, stacks of shape (T, …), sums over the steps.

    inputs: arrays for the program's carry, sequences (T, …) and constants.
    """
    values = dict(zip(program.inputs, inputs, strict=True))
    carry = [values[x] for x in program.carry]
    stacks = [xp.empty((length, *x.shape), x.dtype) for x in program.stacked]
    sums = [xp.zeros(x.shape, x.dtype) for x in program.summed]
    constants = {x: values[x] for x in program.constants}
    for t in reversed(range(length)) if reverse else range(length):
        known = program.evaluate(
            constants
            | dict(zip(program.carry, carry, strict=True))
            | {x: values[x][t] for x in program.sequences}
        )
        for stack, x in zip(stacks, program.stacked, strict=True):
            stack[t] = known[x]
        for total, x in zip(sums, program.summed, strict=True):
            total += known[x]
        carry = [known[x] for x in program.next_carry]
    return [*(xp.array(x) for x in carry), *stacks, *sums]
