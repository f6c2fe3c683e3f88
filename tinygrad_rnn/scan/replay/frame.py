"""What is one run of a plan: memory for T steps, and the calls that fill it?

A Frame is built once for a T. Every step's operands are cut out of its memory beforehand, so a run
is a walk through a list of calls, and the loop allocates nothing. What a run hands out are views of
that memory; the frame is used again only when nobody holds one any more, so a second forward pass
before the first backward gets a frame of its own.
Read plan.py before this file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn.program import Var, evaluate
from tinygrad_rnn.scan import memory
from tinygrad_rnn.scan.memory import Place, Storage
from tinygrad_rnn.scan.parts import Call, make, run_part
from tinygrad_rnn.scan.replay.blas import adding
from tinygrad_rnn.scan.replay.instructions import Instruction, add_product
from tinygrad_rnn.scan.replay.layout import allocate
from tinygrad_rnn.scan.replay.plan import Plan
from tinygrad_rnn.scan.replay.totals import Totals

#: An argument that a run fills in: the arguments, its index, its Place, the first and last step.
Hole = tuple[list[Any], int, Place, int, int]


class BoundStrip(NamedTuple):
    """The calls for a strip of steps, part by part. Their arguments may have holes."""

    before: list[Call]
    loop: list[Call]
    after: list[Call]
    holes: list[Hole]


_BYTES_OF_A_CALL = 500  # of Python objects, about


class Frame:
    """Memory and calls for runs of `length` steps in one direction."""

    def __init__(self, plan: Plan, length: int, reverse: bool) -> None:
        self.plan, self.length, self.reverse = plan, length, reverse
        self.busy = False
        self.size = plan.strip_size(length)
        self.arrays: dict[Storage, Any] = {}
        self._products: dict[Any, Any] = {}
        self.carry = [
            allocate((length + 1 if long else 2,), x.shape, x.dtype)
            for x, long in zip(plan.program.carry, plan.history, strict=True)
        ]
        self.strips: list[BoundStrip] = []
        starts = range(0, length, self.size)
        number = 0
        for start in reversed(starts) if reverse else starts:
            stop = min(start + self.size, length)
            self.strips.append(self._bind(start, stop, number))
            number += stop - start
        self.fixed = [
            (x, x.number) for x in self.arrays if x.kind == memory.FIXED and x.number >= 0
        ]
        self.fixed += [(x, n) for (n, _), x in plan.spread.items() if x in self.arrays]
        self.totals = Totals(plan.parts.totals, plan.parts.fixed_values, length)
        self.owners = [_owner(x) for x in (*self.arrays.values(), *self.carry)]
        self.nbytes = sum(x.nbytes for x in self.owners)
        calls = sum(len(part) for strip in self.strips for part in strip[:3])
        self.nbytes += _BYTES_OF_A_CALL * calls
        self._references = [sys.getrefcount(x) for x in self.owners]

    def fits(self, plan: Plan, length: int, reverse: bool) -> bool:
        """Whether this frame is for such a run."""
        return self.plan is plan and self.length == length and self.reverse == reverse

    def idle(self) -> bool:
        """Whether the memory is not being used: no run, and no view that a run handed out."""
        return not self.busy and [sys.getrefcount(x) for x in self.owners] == self._references

    # Building.

    def _array(self, storage: Storage) -> Any:
        """The memory of a storage, allocated when it is first asked for."""
        if storage not in self.arrays:
            lead = {
                memory.STACK: (self.length,),
                memory.STRIP: (self.size,),
            }.get(storage.kind, ())
            self.arrays[storage] = allocate(lead, storage.shape, storage.dtype)
        return self.arrays[storage]

    def _bind(self, start: int, stop: int, number: int) -> BoundStrip:
        """The calls for the steps start to stop; `number` steps were run before."""
        holes: list[Hole] = []
        strip = self.plan.strip(stop - start)

        def at_strip(instructions: Sequence[Instruction]) -> list[Call]:
            calls: list[Call] = []
            for function, operands, out in instructions:
                arguments = []
                for x in (*operands, out):
                    if type(x) is not Place:
                        arguments.append(x)
                    elif x.storage.kind in (memory.GIVEN, memory.CONSTANT):
                        holes.append((arguments, len(arguments), x, start, stop))
                        arguments.append(None)
                    else:
                        arguments.append(x.of(self._strip_array(x.storage, start, stop)))
                calls.append((function, arguments))
            return calls

        before = at_strip(strip.before)
        loop: list[Call] = []
        steps = range(start, stop)
        for count, t in enumerate(reversed(steps) if self.reverse else steps):
            loop += self._bind_step(t, t - start, number + count)
        return BoundStrip(before, loop, at_strip(strip.after), holes)

    def _bind_step(self, t: int, in_strip: int, number: int) -> Iterator[Call]:
        """The calls for step t, the `number`th that is run."""
        cut: dict[Storage, Any] = {}
        for function, operands, out in self.plan.loop:
            arguments = []
            for x in (*operands, out):
                if type(x) is Place:
                    array = cut.get(x.storage)
                    if array is None:
                        array = cut[x.storage] = self._step_array(x.storage, t, in_strip, number)
                    arguments.append(x.of(array))
                else:
                    arguments.append(x)
            if function is add_product:
                a, b, sum_ = arguments
                yield adding(a, b, sum_, self._products)
            else:
                yield function, tuple(arguments)

    def _strip_array(self, storage: Storage, start: int, stop: int) -> Any:
        """A storage's values for a strip of steps."""
        if storage.kind == memory.STACK:
            return self._array(storage)[start:stop]
        if storage.kind == memory.STRIP:
            return self._array(storage)[: stop - start]
        if storage.kind in (memory.BEFORE, memory.AFTER):
            return self._history(storage)[start:stop]
        return self._array(storage)

    def _step_array(self, storage: Storage, t: int, in_strip: int, number: int) -> Any:
        """A storage's value at step t, the `number`th that is run."""
        kind = storage.kind
        if kind == memory.STACK:
            return self._array(storage)[t, ...]
        if kind == memory.STRIP:
            return self._array(storage)[in_strip, ...]
        if kind in (memory.BEFORE, memory.AFTER):
            if self.plan.history[storage.number]:
                return self._history(storage)[t, ...]
            return self.carry[storage.number][(number + (kind == memory.AFTER)) % 2, ...]
        return self._array(storage)

    def _history(self, storage: Storage) -> Any:
        """A carry as all steps find it, or as they leave it."""
        whole = self.carry[storage.number]
        from_start = (storage.kind == memory.BEFORE) != self.reverse
        return whole[:-1] if from_start else whole[1:]

    # Running.

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """The outputs for these inputs: arrays for the program's carry, sequences and constants."""
        plan, program = self.plan, self.plan.program
        inputs = (*inputs, *plan.captured)
        count = len(program.carry)
        sequences = inputs[count : count + len(program.sequences)]
        known = dict(zip(program.sequences + program.constants, inputs[count:], strict=True))
        run = partial(run_part, plan.order)
        with np.errstate(all="ignore"):  # NaN and Inf are values
            known = run("fixed", evaluate, plan.parts.fixed, known)
            constants = [np.asarray(known[x]) for x in plan.constants()]
            for storage, number in self.fixed:
                np.copyto(self.arrays[storage], constants[number])
            for number in range(count):
                np.copyto(self._first(number), inputs[number])
            for before, loop, after, holes in self.strips:
                try:
                    for holed, position, place, start, stop in holes:
                        if place.storage.kind == memory.CONSTANT:
                            array = constants[place.storage.number]
                        else:
                            array = sequences[place.storage.number][start:stop]
                        holed[position] = place.of(array)
                    run("before", make, before)
                    run("loop", make, loop, plan.loop)
                    run("after", make, after)
                finally:  # hold on to no input, not even of a run that failed
                    for holed, position, *_ in holes:
                        holed[position] = None
            last = [self._last(number).copy() for number in range(count)]
            sums = run("totals", self.totals.sums, lambda x: self._all(x, known))
        return [*last, *(self._stacked(x, known) for x in program.stacked), *sums]

    def _stacked(self, x: Var, known: dict[Var, Any]) -> Any:
        """A stack to hand out: a view of this frame's memory, or a copy of what is not its own."""
        values = self._all(x, known)
        if x in self.plan.parts.fixed_values:
            return np.broadcast_to(values, (self.length, *x.shape)).copy()
        return values.copy() if x in known else values[...]

    def _first(self, number: int) -> Any:
        """Where the initial state of a carry goes."""
        long = self.plan.history[number]
        return self.carry[number][self.length if long and self.reverse else 0, ...]

    def _last(self, number: int) -> Any:
        """Where the last state of a carry is."""
        if self.plan.history[number]:
            return self.carry[number][0 if self.reverse else self.length, ...]
        return self.carry[number][self.length % 2, ...]

    def _all(self, x: Var, known: dict[Var, Any]) -> Any:
        """The values of all steps, (T, …), or the value of what is the same at all steps."""
        if x in known:
            return known[x]
        place = self.plan.places[x]
        if place.storage.kind in (memory.BEFORE, memory.AFTER):
            return place.of(self._history(place.storage))
        return place.of(self._array(place.storage))


def _owner(array: Any) -> Any:
    return array if array.base is None else array.base
