"""How does the loop over time become one operation with a rule?

`Recurrence` is a primitive: a step's Program, run T times. Its inputs and outputs come in three
kinds, each the adjoint of one on the other side: carry and carry, sequences and stacks, constants
and sums. So the rule is again a Recurrence, of the pulled-back step in the other direction, called
on whatever the rule is given: arrays compute, Tensors record (backward can be differentiated
again), Vars write an equation (a scan inside a scan). No second derivative is written anywhere.

What the rule reads of the forward pass are stacks among its outputs. If they are not there, because
nobody wanted to keep them (`checkpoint`), the rule runs the forward pass again.
Read pullback.py first, then this file; what runs the loop is in replay/ (NumPy), cuda/ and
interpret.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tinygrad_rnn.ops.primitive import Primitive, library_beside
from tinygrad_rnn.program import Program, Var
from tinygrad_rnn.scan import cuda
from tinygrad_rnn.scan.drawing import Drawing
from tinygrad_rnn.scan.factors import gather_factors
from tinygrad_rnn.scan.interpret import interpret
from tinygrad_rnn.scan.parts import run_part
from tinygrad_rnn.scan.pool import pool
from tinygrad_rnn.scan.pullback import Pullback, pull_back, reached
from tinygrad_rnn.scan.replay import Frame, Plan


class Recurrence(Primitive):
    """outputs = a step, run `length` times, from the last to the first if `reverse`.

    Called with the carry before the first step, the sequences (T, …) and the constants. Gives a
    list: the carry after the last step, the stacks (T, …), the sums. With `drawing`, this is a
    segment between checkpoints: the last of the sequences are drawn by it instead of given, and
    again when the rule needs them, and nothing but the outputs outlives the run.
    order: how often a step was pulled back to give this one, 0 for a step itself.
    """

    def __init__(self, program: Program, order: int = 0) -> None:
        super().__init__("recur", self._run, one_dtype=False)
        self.program = program
        self.order = order
        self.differentiable = True
        self._pullbacks: dict[Any, tuple[Pullback, Recurrence]] = {}
        self._keeping: dict[Any, Recurrence] = {}
        self._without: dict[Any, list[int]] = {}

    @cached_property
    def _plan(self) -> Plan:
        """How NumPy runs the step."""
        return Plan(self.program, self.order)

    @cached_property
    def _cuda_plan(self) -> cuda.Plan:
        """How a GPU runs it. A program has one device, so a step needs one plan or the other."""
        return cuda.Plan(self.program, self.order)

    def _run(
        self, xp: Any, *inputs: Any, length: int, reverse: bool, drawing: Drawing | None = None
    ) -> list[Any]:
        if drawing is not None:
            inputs = self._with_drawn(inputs, drawing)
        if xp is np:
            outputs = pool.run(Frame, self._plan, inputs, length, reverse)
        elif cuda.way() != "interpret":
            outputs = cuda.run(self._cuda_plan, xp, inputs, length, reverse)
        else:
            steps = (self.program, xp, inputs, length, reverse)
            return run_part(self.order, "loop", interpret, *steps)
        if drawing is None:
            return outputs
        return [xp.array(x) for x in outputs]  # the next segment may have the same memory

    def _with_drawn(self, inputs: Sequence[Any], drawing: Drawing) -> tuple[Any, ...]:
        """The inputs with the random numbers, which are the last of the sequences."""
        place = len(inputs) - len(self.program.constants)
        return (*inputs[:place], *drawing(), *inputs[place:])

    def keeps(self, pattern: int) -> tuple[bool, tuple[int, ...]]:
        """Everything: what the rule will read depends on which outputs get cotangents."""
        return True, ()

    def keeping(self, wanted: tuple[bool, ...], given: tuple[bool, ...] = ()) -> Recurrence:
        """The same with stacks for all that its rule reads.

        wanted: for which inputs cotangents will be asked for.
        given: which outputs will have one; all unless said.
        """
        key = wanted, given
        if key not in self._keeping:
            program = self.program
            pullback = pull_back(program, given or (True,) * len(program.outputs), wanted)
            missing = [x for x in pullback.reads if x not in self._at_hand()]
            self._keeping[key] = (
                Recurrence(program.with_stacked(program.stacked + missing), self.order)
                if missing
                else self
            )
        return self._keeping[key]

    def without_gradient(self, wanted: tuple[bool, ...]) -> list[int]:
        """The outputs that depend on no input for which a cotangent will be asked for."""
        if wanted not in self._without:
            found = reached(self.program, wanted)
            self._without[wanted] = [
                k for k, x in enumerate(self.program.outputs) if x not in found
            ]
        return self._without[wanted]

    def _at_hand(self) -> set[Var]:
        """The time-varying values that are inputs or outputs."""
        return {*self.program.sequences, *self.program.stacked}

    def pull(
        self,
        gs: Sequence[Any],
        outputs: Sequence[Any],
        inputs: Sequence[Any],
        params: dict[str, Any],
        needed: Sequence[Any],
    ) -> Sequence[Any]:
        """The cotangents of the inputs: the pulled-back step, run in the other direction."""
        if "drawing" in params:
            return self._pull_drawn(gs, outputs, inputs, params, needed)
        given = tuple(g is not None for g in gs)
        wanted = tuple(edge is not None for edge in needed)
        pullback, backward = self._pullback(given, wanted)
        if not self._at_hand().issuperset(pullback.reads):
            again = self.keeping(wanted, given)
            outputs = again(*inputs, **params)
            extra = [None] * (len(outputs) - len(gs))
            place = len(self.program.next_carry) + len(self.program.stacked)
            return again.pull([*gs[:place], *extra, *gs[place:]], outputs, inputs, params, needed)

        program = self.program
        value = dict(zip(program.inputs, inputs, strict=True))
        count = len(program.next_carry)
        stacks = outputs[count : count + len(program.stacked)]
        value.update(zip(program.stacked, stacks, strict=True))
        like = next(g for g in gs if g is not None)
        xp = library_beside(like)
        g_carry = [
            xp.zeros(program.carry[k].shape, program.carry[k].dtype) if gs[k] is None else gs[k]
            for k in pullback.carry
        ]
        stop = count + len(program.stacked)
        pulled = backward(
            *g_carry,
            *(g for g in gs[count:stop] if g is not None),
            *(value[x] for x in pullback.reads),
            *(g for g in gs[stop:] if g is not None),
            *(value[x] for x in pullback.constants),
            *(xp.asarray(x) for x in pullback.captured),
            length=params["length"],
            reverse=not params["reverse"],
        )
        cotangents: list[Any] = [None] * len(inputs)
        offsets = 0, len(program.carry), len(program.carry) + len(program.sequences)
        kinds = pullback.carry, pullback.sequences, pullback.summed
        places = [offset + k for offset, kind in zip(offsets, kinds, strict=True) for k in kind]
        for place, g in zip(places, pulled, strict=True):
            if wanted[place]:
                cotangents[place] = g
        return cotangents

    def _pull_drawn(
        self, gs: Any, outputs: Any, inputs: Any, params: dict[str, Any], needed: Sequence[Any]
    ) -> Sequence[Any]:
        """As pull, where the random numbers are to be drawn again."""
        place = len(inputs) - len(self.program.constants)
        drawn = self._with_drawn(inputs, params["drawing"])
        count = len(drawn) - len(inputs)
        needed = [*needed[:place], *[None] * count, *needed[place:]]
        plain = {"length": params["length"], "reverse": params["reverse"]}
        pulled = self.pull(gs, outputs, drawn, plain, needed)
        return [*pulled[:place], *pulled[place + count :]]

    def _pullback(
        self, given: tuple[bool, ...], wanted: tuple[bool, ...]
    ) -> tuple[Pullback, Recurrence]:
        """The pulled-back step and the Recurrence that runs it."""
        key = given, wanted
        if key not in self._pullbacks:
            pullback = pull_back(self.program, given, wanted)
            backward = Recurrence(gather_factors(pullback.program), self.order + 1)
            self._pullbacks[key] = pullback, backward
        return self._pullbacks[key]


_known: dict[Hashable, Recurrence] = {}
_lock = threading.Lock()
_LIMIT = 256  # steps of different forms to remember


def recurrence_of(key: Hashable, program: Callable[[], Program]) -> Recurrence:
    """The Recurrence known under a key, with all it has worked out; else that of `program()`.

    key: None for a program that has none, which is not remembered.
    """
    if key is None:
        return Recurrence(program())
    with _lock:
        found = _known.pop(key, None)
        if found is None:
            found = Recurrence(program())
        _known[key] = found  # the last used stands last
        if len(_known) > _LIMIT:
            del _known[next(iter(_known))]
    return found


def forget() -> None:
    """Forget what scans have worked out so far, and give back the memory kept for the next run."""
    with _lock:
        _known.clear()
    pool.clear()
