"""Which instructions can be one?

The same operation on places that lie side by side is one call on the places together: all gates
take one tanh. Calls of the loop cost half a microsecond each, so this is worth a search. An
instruction is moved up to an earlier one if nothing between writes what it reads or touches what it
writes. Read instructions.py before this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.scan.memory import Place
from tinygrad_rnn.scan.replay.instructions import UFUNCS, Instruction

REACH = 64  # how far down to look for an instruction that can be moved up
_VALUE_BY_VALUE = set(UFUNCS.values())


def merged(instructions: Sequence[Instruction]) -> list[Instruction]:
    """The same computation in fewer instructions."""
    rest = list(instructions)
    done: list[Instruction] = []
    while rest:
        group = [rest.pop(0)]
        if group[0].function in _VALUE_BY_VALUE and not group[0].out.views:
            _gather(group, rest)
        done.append(group[0] if len(group) == 1 else _together(group))
    return done


def _gather(group: list[Instruction], rest: list[Instruction]) -> None:
    """Take from `rest` what can be done with the group, which is sorted by place."""
    found = True
    while found:
        found = False
        for index, other in enumerate(rest[:REACH]):
            after, before = _follows(group, other), _follows([other], group[0])
            if not (after or before):
                continue
            if any(_conflict(other, earlier) for earlier in (*rest[:index], *group)):
                continue
            rest.pop(index)
            group.insert(len(group) if after else 0, other)
            found = True
            break


def _follows(group: Sequence[Instruction], other: Instruction) -> bool:
    """Whether `other` does the same to what lies behind the last one's places."""
    last = group[-1]
    if other.function is not last.function or other.out.views:
        return False
    pairs = zip(last.operands, other.operands, strict=True)
    return _adjacent(last.out, other.out) and all(_same(x, y) or _adjacent(x, y) for x, y in pairs)


def _same(x: Any, y: Any) -> bool:
    """Whether two operands are the same number."""
    if type(x) is Place or type(x) is not type(y):
        return False
    if isinstance(x, np.ndarray):
        return x.dtype == y.dtype and x.tobytes() == y.tobytes()
    return bool(x == y)


def _adjacent(x: Any, y: Any) -> bool:
    return (
        type(x) is Place
        and type(y) is Place
        and x.storage is y.storage
        and x.stop == y.start
        and not x.views
        and not y.views
        and len(x.storage.shape) > 0
    )


def _conflict(one: Instruction, other: Instruction) -> bool:
    """Whether two instructions must stay in their order: one writes what the other touches."""
    return any(
        type(x) is Place and x.overlaps(one.out) for x in (*other.operands, other.out)
    ) or any(type(x) is Place and x.overlaps(other.out) for x in one.operands)


def _together(group: Sequence[Instruction]) -> Instruction:
    """One instruction for a group of neighbours."""
    first, last = group[0], group[-1]

    def joined(x: Any, y: Any) -> Any:
        return Place(x.storage, x.start, y.stop, ()) if type(x) is Place else x

    operands = tuple(map(joined, first.operands, last.operands))
    return Instruction(first.function, operands, joined(first.out, last.out))
