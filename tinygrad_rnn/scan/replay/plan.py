"""How is a whole step laid out: what is computed when, and where is each value between?

A Plan is worked out once for a program and holds for any number of steps. The equations of the loop
are lowered here; those before and after it are lowered for strips of so many steps as stay in the
cache, whose values lie one behind the other. frame.py then binds all of it to memory for one T.
Read lowering.py before this file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tinygrad_rnn.ops.shape import split
from tinygrad_rnn.program import Equation, Program, Trace, Var
from tinygrad_rnn.scan import memory
from tinygrad_rnn.scan.memory import Place, Storage
from tinygrad_rnn.scan.partition import lift_all, partition
from tinygrad_rnn.scan.replay.halves import halved
from tinygrad_rnn.scan.replay.instructions import Instruction, copy
from tinygrad_rnn.scan.replay.lowering import Lowering, Spread
from tinygrad_rnn.scan.replay.merging import merged

_WRITTEN = (memory.STRIP, memory.STACK)  # kinds that the parts hand values over in
STRIP_BYTES = 1 << 22  # what before and after may touch at a time, to stay in a core's cache


class Strip(NamedTuple):
    """What is done before and after the loop for a strip of steps."""

    before: list[Instruction]
    after: list[Instruction]


class Plan:
    """A step for NumPy, laid out once for any number of steps.

    program: with halves in the weights; its last constants are `captured`.
    order: how often a step was pulled back to give this one.
    """

    def __init__(self, program: Program, order: int = 0) -> None:
        """Decide where values are that more than one part looks at, then lower the loop."""
        program, self.captured = halved(program)
        self.program, self.order = program, order
        self._strips: dict[int, Strip] = {}
        self.parts = parts = partition(program)
        self.in_loop = {x for equation in parts.loop for x in equation.variables}
        self.in_loop.update(program.next_carry)
        self.read_after = {x for equation in parts.after for x in equation.variables}
        not_made = {*program.sequences, *parts.fixed_values}
        self.stacks = [x for x in parts.stacks if x not in not_made]
        self.read_later = {*self.read_after, *self.stacks}
        self.history = [
            before in self.read_later or after in self.read_later
            for before, after in zip(program.carry, program.next_carry, strict=True)
        ]
        self.places: dict[Var, Place] = {}
        self.spread: Spread = {}
        self._place_inputs()
        self.loop = self._lower_loop()
        for x in self.stacks:
            if x not in self.places:  # made after the loop
                self.places[x] = Storage(memory.STACK, x.shape, x.dtype).whole()
        self.step_bytes = sum(
            x.dtype.itemsize * math.prod(x.shape)
            for equation in (*parts.before, *parts.after)
            for x in equation.outputs
        )

    def _place_inputs(self) -> None:
        """Places for what the loop gets: fixed values, results from before it, sequences, carry."""
        for number, x in enumerate(self.constants()):
            if x in self.in_loop:
                self.places[x] = Storage(memory.FIXED, x.shape, x.dtype, number).whole()
        for equation in self.parts.before:
            self._lay_out(equation, self.in_loop | self.read_later)
        for x in self.program.sequences:
            if x in self.in_loop:
                self.places[x] = Storage(memory.STRIP, x.shape, x.dtype).whole()
        for number, x in enumerate(self.program.carry):
            self.places[x] = Storage(memory.BEFORE, x.shape, x.dtype, number).whole()

    def _lower_loop(self) -> list[Instruction]:
        """The instructions of one step."""
        program, parts = self.program, self.parts
        kept = {*program.next_carry, *self.read_later}
        kept.update(x for x, long in zip(program.carry, self.history, strict=True) if long)
        lowering = Lowering(
            parts.loop, self.places, kept, memory.SCRATCH, 0, self.spread, apart=self.read_later
        )
        made = [x for equation in parts.loop for x in equation.outputs]
        left = {
            number: Storage(memory.AFTER, x.shape, x.dtype, number).whole()
            for number, x in enumerate(program.carry)
        }
        computed = set(made)
        for number, x in enumerate(program.next_carry):
            if x in computed and x not in lowering.reserved:
                lowering.reserve(x, left[number])
        instructions = lowering.run()
        for number, x in enumerate(program.next_carry):
            if self.places[x] != left[number]:
                instructions.append(Instruction(copy, (self.places[x],), left[number]))
        self._keep_for([x for x in made if x in self.read_after], memory.STRIP, instructions)
        computed.update(x for equation in parts.before for x in equation.outputs)
        self._keep_for([x for x in self.stacks if x in computed], memory.STACK, instructions)
        return merged(instructions)

    def _keep_for(self, values: list[Var], kind: str, instructions: list[Instruction]) -> None:
        """Have values that the loop makes at hand after it: where they are, or else in a copy."""
        for x in values:
            place = self.places[x]
            storage = place.storage
            if not place.views and storage.kind == memory.AFTER and self.history[storage.number]:
                continue
            if not place.views and storage.kind in (memory.SCRATCH, *_WRITTEN):
                storage.kind = memory.STACK if storage.kind == memory.STACK else kind
                continue
            self.places[x] = Storage(kind, x.shape, x.dtype).whole()
            instructions.append(Instruction(copy, (place,), self.places[x]))

    def _lay_out(self, equation: Equation, wanted: set[Var]) -> None:
        """Give the results of an equation before the loop their places; parts stay side by side."""
        found = [x for x in equation.outputs if x in wanted]
        if equation.primitive is split and equation.params["axis"] == -1 and found:
            (whole,) = equation.inputs
            if whole not in self.places:
                self.places[whole] = Storage(memory.STRIP, whole.shape, whole.dtype).whole()
            start = 0
            for x in equation.outputs:
                self.places[x] = self.places[whole].part(start, start + x.shape[-1])
                start += x.shape[-1]
            return
        for x in found:
            if x not in self.places:
                self.places[x] = Storage(memory.STRIP, x.shape, x.dtype).whole()

    # Before and after.

    def strip(self, size: int) -> Strip:
        """The instructions around the loop for a strip of `size` steps."""
        if size not in self._strips:
            self._strips[size] = self._lower_strip(size)
        return self._strips[size]

    def _lower_strip(self, size: int) -> Strip:
        parts, program = self.parts, self.program
        trace = Trace()
        lifted: dict[Var, Var] = {}
        places: dict[Var, Place] = {}
        for number, x in enumerate(program.sequences):
            lifted[x] = trace.input(x, None, (size, *x.shape))
            places[lifted[x]] = Storage(memory.GIVEN, x.shape, x.dtype, number).whole()
        for number, x in enumerate(self.constants()):
            lifted[x] = trace.input(x)
            places[lifted[x]] = Storage(memory.CONSTANT, x.shape, x.dtype, number).whole()
        given = set(lifted)
        wanted = {x: place for x, place in self.places.items() if place.storage.kind in _WRITTEN}
        before = self._part(parts.before, wanted, lifted, places, trace)
        trace.equations.clear()
        for x in [*lifted, *program.carry, *(x for e in parts.loop for x in e.outputs)]:
            if x in self.places and x not in given:
                lifted[x] = trace.input(x, None, (size, *x.shape))
                places[lifted[x]] = self.places[x]
        made_after = {x for equation in parts.after for x in equation.outputs}
        stacked = {x: place for x, place in wanted.items() if x in made_after}
        after = self._part(parts.after, stacked, lifted, places, trace)
        return Strip(before, after)

    def _part(
        self,
        equations: Sequence[Equation],
        wanted: dict[Var, Place],
        lifted: dict[Var, Var],
        places: dict[Var, Place],
        trace: Trace,
    ) -> list[Instruction]:
        """Lower equations for a strip; `wanted` says where which results must be."""
        lift_all(equations, lifted, self.parts.fixed_values)
        here = [x for x in wanted if x in lifted]
        program = Program(trace.equations, [], [], [], [], [lifted[x] for x in here])
        lowering = Lowering(
            program.equations, places, program.stacked, memory.STRIP, 1, self.spread
        )
        made_here = {x for equation in program.equations for x in equation.outputs}
        for x in here:
            y = lifted[x]
            if y in made_here and y not in lowering.reserved and not self._is_part(x, wanted):
                lowering.reserve(y, wanted[x])
        instructions = lowering.run()
        instructions += [
            Instruction(copy, (places[lifted[x]],), wanted[x])
            for x in here
            if places[lifted[x]] != wanted[x]
        ]
        return merged(instructions)

    @staticmethod
    def _is_part(x: Var, wanted: dict[Var, Place]) -> bool:
        """Whether a value lies in what it is split from, so that nothing need be done for it."""
        equation = x.equation
        if equation is None or equation.primitive is not split:
            return False
        whole = wanted.get(equation.inputs[0])
        return whole is not None and whole.storage is wanted[x].storage

    def constants(self) -> list[Var]:
        """The values that are the same at all steps: inputs, and what is computed from them."""
        return [
            *self.program.constants,
            *(x for equation in self.parts.fixed for x in equation.outputs),
        ]

    def strip_size(self, length: int) -> int:
        """How many steps stay in the cache; strips of nearly one size."""
        most = max(STRIP_BYTES // max(self.step_bytes, 1), 1)
        return math.ceil(length / math.ceil(length / most)) if length else 1
