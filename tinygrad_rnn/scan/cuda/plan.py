"""How is a step laid out for a GPU: what is computed when, and where is each value between?

As partition.py says, but for what costs nothing: an elementwise equation before or after the loop
goes into a kernel of the loop that is there anyway, where it saves memory and its traffic. A Plan
holds for any number of steps; frame.py binds it to memory for one. Read rewriting.py and
schedule.py before this file.
"""

from __future__ import annotations

import os
from typing import Any

from tinygrad_rnn.backend import library
from tinygrad_rnn.ops.elementwise import copy
from tinygrad_rnn.program import Equation, Program, Var
from tinygrad_rnn.scan import memory
from tinygrad_rnn.scan.cuda.launches import tile_on_gpu
from tinygrad_rnn.scan.cuda.persistent import ROWS, Tile, loop_of
from tinygrad_rnn.scan.cuda.rewriting import add_product, rewritten
from tinygrad_rnn.scan.cuda.schedule import Call, Spaces, is_join, is_kernel, is_view, schedule
from tinygrad_rnn.scan.cuda.source import can_be_written
from tinygrad_rnn.scan.memory import Place, Storage, viewed
from tinygrad_rnn.scan.partition import Partition, partition

#: What cannot be done, by the name of the operation, and why; runs add what they find out.
refusals: dict[str, str] = {
    name: f"{name}: CuPy's own products of matrices cannot be captured"
    for name in ("matmul", "contract", "einsum")
}
LAUNCHES = "launches"  # in place of an operation's name: nothing can be captured
ONE_KERNEL = "one kernel"  # likewise: no kernel can run all steps


def way() -> str:
    """How loops are run, as the environment variable TINYGRAD_RNN_CUDA_LOOP says.

    "persistent" (by one kernel, if that is possible; else as a graph), "graph" (a CUDA graph, from
    the second run on), "launches" (the same launches, one by one), or "interpret" (equation by
    equation, in interpret.py).
    """
    return os.environ.get("TINYGRAD_RNN_CUDA_LOOP", "persistent")


class Plan:
    """A step for a GPU, laid out once for any number of steps.

    order: how often a step was pulled back to give this one.
    program, parts: the step, rewritten, and its equations by when they run.
    loop: the instructions of one step. stacked: the values of which all T are kept in memory.
    hosts: the equations whose results lie in the memory of their first operand.
    persistent: the loop, if one kernel can run it.
    """

    def __init__(self, program: Program, order: int = 0) -> None:
        self.order = order
        self.program = program = rewritten(program)
        self.parts = parts = gathered(partition(program), program)
        self.constants = [
            *program.constants,
            *(x for equation in parts.fixed for x in equation.outputs),
        ]
        self._inputs = {*program.carry, *program.sequences, *parts.fixed_values}
        self.hosts = {
            x: equation
            for equation in [*parts.before, *parts.loop]
            if is_view(equation) or equation.primitive is add_product
            for x in equation.outputs
        }
        self.next_carry, claims = self._claims()
        made_before = {x for equation in parts.before for x in equation.outputs}
        made_after = {x for equation in parts.after for x in equation.outputs}
        read = [*parts.stacks, *(x for e in parts.after for x in e.variables)]
        used = [*self.next_carry, *(x for e in parts.loop for x in e.variables)]
        read += [x for x in used if self.root(x) in made_before]
        self.stacked = {self.root(x) for x in read if x not in made_after} - self._inputs
        self.loop = schedule(parts.loop, {*self.stacked, *self.next_carry})
        self.places: dict[Var, Place] = claims
        for kind, values in (
            (memory.FIXED, self.constants),
            (memory.GIVEN, program.sequences),
            (memory.BEFORE, program.carry),
        ):
            for number, x in enumerate(values):
                self.places[x] = Storage(kind, x.shape, x.dtype, number).whole()
        self.persistent = loop_of(self)

    def refused(self) -> str | None:
        """Why the loop cannot be captured as a CUDA graph; None if nothing is known against it."""
        names = [x.equation.primitive.name for x in self.loop if isinstance(x, Call)]
        known = [refusals[name] for name in names if name in refusals]
        return refusals.get(LAUNCHES) or next(iter(known), None)

    def tile(self, xp: Any) -> Tile | None:
        """How one kernel shares out the loop on the current GPU; None if launches run it."""
        if self.persistent is None or way() != "persistent" or ONE_KERNEL in refusals:
            return None
        return tile_on_gpu(self.persistent, xp)

    def way(self) -> str:
        """How the loop is run on the current GPU, in words."""
        tile = self.tile(library("cuda"))
        if tile is not None:
            blocks = f"{tile.blocks} block{'s' * (tile.blocks > 1)} of threads"
            return f"one kernel runs all steps, {blocks} for {ROWS} sequences"
        refused = self.refused()
        if refused is not None:
            return f"launched one by one, because a CUDA graph is refused ({refused})"
        if way() == "launches":
            return "launched one by one, as TINYGRAD_RNN_CUDA_LOOP says"
        graph = "captured as a CUDA graph by the second run, one launch from then on"
        if self.persistent is not None and ONE_KERNEL in refusals:
            return f"{graph}, because a kernel for all steps is refused ({refusals[ONE_KERNEL]})"
        return graph

    def _claims(self) -> tuple[list[Var], dict[Var, Place]]:
        """The carry's next values, each computed where it belongs; a copy of what cannot be."""
        found: list[Var] = []
        claims: dict[Var, Place] = {}
        for number, x in enumerate(self.program.next_carry):
            root = x
            while root in self.hosts and self.hosts[root].primitive is add_product:
                root = self.hosts[root].inputs[0]
            if root in self.hosts or root in self._inputs or root in claims:
                x = root = self._copied(x)
            found.append(x)
            claims[root] = Storage(memory.AFTER, x.shape, x.dtype, number).whole()
        return found, claims

    def _copied(self, x: Var) -> Var:
        """A copy of a value, made by the loop."""
        y = Var(x.owner, x.shape, x.dtype, x.device, x.name)
        y.equation = Equation(copy, [x], [y], {})
        self.parts.loop.append(y.equation)
        return y

    def root(self, x: Var) -> Var:
        """The value in whose memory another lies."""
        while x in self.hosts:
            x = self.hosts[x].inputs[0]
        return x

    def place(self, x: Var) -> Place:
        """Where a value is within a step."""
        if x not in self.places:
            host = self.hosts.get(x)
            if host is None:
                kind = memory.STACK if x in self.stacked else memory.SCRATCH
                self.places[x] = Storage(kind, x.shape, x.dtype).whole()
            elif host.primitive is add_product:
                self.places[x] = self.place(host.inputs[0])
            else:
                self.places[x] = viewed(self.place(host.inputs[0]), host, x.index)
        return self.places[x]


def gathered(parts: Partition, program: Program) -> Partition:
    """The partition, with what kernels of the loop take along.

    Elementwise equations before the loop wait for those who use them, if all are in the loop, or
    all after it: what they compute need not be kept.
    """
    loop, after = _pulled(parts, program)
    before = list(parts.before)
    users: dict[Var, list[Equation | None]] = {}
    for equation in [*before, *loop, *after]:
        for x in equation.variables:
            users.setdefault(x, []).append(equation)
    for x in [*parts.stacks, *program.outputs]:
        users.setdefault(x, []).append(None)
    in_loop: set[Equation | None] = set(loop)
    late: set[Equation | None] = set(after)
    spaces = Spaces(loop)
    for equation in reversed(parts.before):
        if can_be_written(equation):
            found = users.get(equation.outputs[0], [])
            if all(user in in_loop and spaces.fuse(equation, user) for user in found):
                before.remove(equation)
                loop.insert(0, equation)
                in_loop.add(equation)
            elif all(user in late for user in found):
                before.remove(equation)
                after.insert(0, equation)
                late.add(equation)
    return parts._replace(before=before, loop=loop, after=after)


def _pulled(parts: Partition, program: Program) -> tuple[list[Equation], list[Equation]]:
    """The loop, and what still comes after it.

    What is computed from a kernel's results alone, in their shape, joins that kernel: the results
    need not be kept for it.
    """
    loop, after = list(parts.loop), []
    makers = {x: equation for equation in loop for x in equation.outputs}
    spaces = Spaces(loop)
    late: set[Var] = set()  # made after the loop
    for equation in parts.after:
        of_loop = [makers[x] for x in equation.variables if x in makers]
        joins = all(is_kernel(maker) for maker in of_loop)
        if can_be_written(equation):
            joins &= any(spaces.fuse(maker, equation) for maker in of_loop)
        elif is_join(equation):
            joins &= len(of_loop) == len(equation.variables)
        else:
            joins = False
        if joins and not any(x in late for x in equation.variables):
            loop.append(equation)
            makers.update((x, equation) for x in equation.outputs)
        else:
            after.append(equation)
            late.update(equation.outputs)
    return loop, after
