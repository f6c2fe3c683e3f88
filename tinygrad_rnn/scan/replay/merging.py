"""Which instructions can be one?

The same ufunc on places that lie side by side is one call on the places together: all gates take
one tanh. An operand that they share is broadcast over them. Calls of the loop cost a microsecond
each, so this is worth a search. An instruction is moved up to an earlier one if nothing between
writes what it reads or touches what it writes. Read instructions.py before this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.scan.replay.instructions import UFUNCS, Instruction
from tinygrad_rnn.scan.replay.memory import Place

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
        for index, other in enumerate(rest):
            after, before = _follows(group, other), _follows([other], group[0])
            if not (after or before) or not _shares_like(group, other):
                continue
            if any(_conflict(other, earlier) for earlier in (*rest[:index], *group)):
                continue
            rest.pop(index)
            group.insert(len(group) if after else 0, other)
            found = True
            break


def _follows(group: Sequence[Instruction], other: Instruction) -> bool:
    """Whether each place of `other` lies behind the group's last, or is shared by all."""
    last = group[-1]
    if other.function is not last.function or other.out.views:
        return False
    pairs = zip(last.operands, other.operands, strict=True)
    return _adjacent(last.out, other.out) and all(_same(x, y) or _adjacent(x, y) for x, y in pairs)


def _shares_like(group: Sequence[Instruction], other: Instruction) -> bool:
    """Whether the operands shared so far are those shared with `other`, of fitting widths."""
    first = group[0]
    shared = [
        k for k, x in enumerate(other.operands) if type(x) is Place and _same(first.operands[k], x)
    ]
    if len(group) > 1:
        second = group[1]
        earlier = [
            k
            for k, x in enumerate(second.operands)
            if type(x) is Place and _same(first.operands[k], x)
        ]
        if shared != earlier:
            return False
    if not shared:
        return True
    width = _width(first.out)
    places = [x for x in (*other.operands, other.out) if type(x) is Place]
    return all(_width(x) == width and not x.views for x in places)


def _same(x: Any, y: Any) -> bool:
    if type(x) is not type(y):
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


def _width(place: Place) -> int:
    return place.stop - place.start


def _conflict(one: Instruction, other: Instruction) -> bool:
    """Whether two instructions must stay in their order: one writes what the other touches."""
    return any(
        type(x) is Place and x.overlaps(one.out) for x in (*other.operands, other.out)
    ) or any(type(x) is Place and x.overlaps(other.out) for x in one.operands)


def _together(group: Sequence[Instruction]) -> Instruction:
    """One instruction for a group of neighbours."""
    first, last = group[0], group[-1]
    shared = [_same(x, y) for x, y in zip(first.operands, last.operands, strict=True)]
    blocks = any(same and type(x) is Place for same, x in zip(shared, first.operands, strict=True))

    def joined(x: Any, y: Any, same: bool) -> Any:
        if type(x) is not Place:
            return x
        if same:
            return x.through(_one_block)
        whole = Place(x.storage, x.start, y.stop, ())
        return whole.through(_in_blocks(len(group))) if blocks else whole

    operands = tuple(map(joined, first.operands, last.operands, shared))
    return Instruction(first.function, operands, joined(first.out, last.out, False))


def _one_block(array: Any) -> Any:
    return array[..., None, :]


def _in_blocks(count: int) -> Callable[[Any], Any]:
    """(…, count · n) as (…, count, n): a view, since only an axis is cut."""

    def cut(array: Any) -> Any:
        return array.reshape(*array.shape[:-1], count, array.shape[-1] // count)

    return cut
