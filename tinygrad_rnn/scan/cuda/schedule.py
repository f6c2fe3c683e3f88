"""In what order does a GPU do a list of equations, with the fewest launches?

What lies between two products of matrices and has one shape becomes one kernel. Each value has a
level: kernels of a level come first, then its products and other calls, in order. An elementwise
equation joins the latest kernel that its users allow, so what is computed for a kernel is computed
in it. Where values are summed (or their largest found) along the last axis, as in a layer
normalization, whole rows are computed by one kernel, of whatever widths: see phases.py.
Read source.py (what a kernel is) before this file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from tinygrad_rnn.ops.broadcasting import broadcast_to
from tinygrad_rnn.ops.indexing import getitem, is_basic
from tinygrad_rnn.ops.linear import matmul
from tinygrad_rnn.ops.shape import concatenate, flip, reshape, split, transpose, unstack
from tinygrad_rnn.program import Equation, Var
from tinygrad_rnn.scan.cuda.phases import Phase, Store, is_reduction, phases_of
from tinygrad_rnn.scan.cuda.rewriting import add_product
from tinygrad_rnn.scan.cuda.source import can_be_written


class Kernel(NamedTuple):
    """Equations that one kernel computes: elementwise, of one shape; or rows.

    shape: of the results; of rows, only the axes in front of the last.
    loads: the values that it reads. stores: what it writes. phases: of rows; none if elementwise.
    """

    shape: tuple[int, ...]
    equations: list[Equation]
    loads: list[Var]
    stores: list[Store]
    phases: list[Phase]


class Gemm(NamedTuple):
    """out = a @ b, or out += a @ b where the equation is an add_product."""

    equation: Equation


class Call(NamedTuple):
    """Any other operation: computed by the array library, and copied to its place."""

    equation: Equation


class View(NamedTuple):
    """A result that lies in its operand's memory: nothing is launched."""

    equation: Equation


Instruction: TypeAlias = Kernel | Gemm | Call | View


def touched(instruction: Instruction) -> list[Var]:
    """The values that an instruction finds or leaves in memory."""
    if isinstance(instruction, Kernel):
        return [*instruction.loads, *(store.target for store in instruction.stores)]
    return [*instruction.equation.variables, *instruction.equation.outputs]


def last_touched(instructions: Sequence[Instruction], kept: Iterable[Var]) -> list[list[Var]]:
    """For each instruction, the values that no later one touches, but for those that are kept."""
    last = {x: number for number, found in enumerate(instructions) for x in touched(found)}
    ended: list[list[Var]] = [[] for _ in instructions]
    wanted = set(kept)
    for x, number in last.items():
        if x not in wanted:
            ended[number].append(x)
    return ended


_VIEWS = {split, transpose, flip, broadcast_to, unstack}


def is_kernel(equation: Equation) -> bool:
    """Whether an equation can be part of a kernel."""
    return can_be_written(equation) or is_reduction(equation)


def is_view(equation: Equation) -> bool:
    """Whether the results lie in the operand's memory."""
    primitive = equation.primitive
    if primitive is getitem:
        return is_basic(equation.params["index"])
    if primitive is reshape:
        return _only_moves_ones(equation.inputs[0].shape, equation.outputs[0].shape)
    return primitive in _VIEWS


def is_join(equation: Equation) -> bool:
    """Whether kernels can write the operands straight into the result."""
    return (
        equation.primitive is concatenate
        and equation.params["axis"] == -1
        and all(x.dtype == equation.outputs[0].dtype for x in equation.variables)
    )


def is_gemm(equation: Equation) -> bool:
    """Whether an equation is a product of matrices, or several of one form, for cuBLAS."""
    if equation.primitive is add_product:
        return True
    if equation.primitive is not matmul:
        return False
    left, right = (len(x.shape) for x in equation.inputs)
    return (
        (right == 2 or (right == 3 and left in (2, 3)))
        and equation.outputs[0].dtype.kind == "f"
        and all(x.dtype == equation.outputs[0].dtype for x in equation.inputs)
        and all(math.prod(x.shape) for x in equation.inputs)
    )


def _only_moves_ones(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether shapes differ in axes of size 1 alone, so that any memory will do for both."""
    return [n for n in a if n != 1] == [n for n in b if n != 1]


class Spaces:
    """Over what the kernels for some equations run: elements of one shape, or rows.

    leads: the shapes of the axes in front of the last one, of what is reduced along it.
    """

    def __init__(self, equations: Iterable[Equation]) -> None:
        self.leads = {e.inputs[0].shape[:-1] for e in equations if is_reduction(e)}

    def rows(self, x: Var) -> bool:
        """Whether a value is computed by rows."""
        return len(x.shape) > 0 and x.shape[:-1] in self.leads

    def of(self, x: Var) -> tuple[Any, ...]:
        """What two values have in common that one kernel can compute."""
        return ("rows", *x.shape[:-1]) if self.rows(x) else x.shape

    def fuse(self, maker: Equation, user: Any) -> bool:
        """Whether one kernel can compute two equations, of which one uses the other."""
        together = is_kernel(maker) and is_kernel(user)
        return together and self.of(maker.outputs[0]) == self.of(user.outputs[0])


def schedule(equations: Sequence[Equation], kept: Iterable[Var]) -> list[Instruction]:
    """The equations in order, as instructions.

    kept: values that are looked at afterwards, so they must be in memory.
    """
    return _Schedule(equations, kept).instructions()


class _Schedule:
    """levels: of each equation. makers: of each value that is made here."""

    def __init__(self, equations: Sequence[Equation], kept: Iterable[Var]) -> None:
        self.equations = equations
        self.kept = set(kept)
        self.spaces = Spaces(equations)
        self.makers = {x: equation for equation in equations for x in equation.outputs}
        self.users: dict[Var, list[Equation]] = {}
        for equation in equations:
            for x in equation.variables:
                self.users.setdefault(x, []).append(equation)
        self.levels: dict[Equation, int] = {}
        for equation in equations:
            self.levels[equation] = self._earliest(equation)
        for equation in reversed(equations):
            if is_kernel(equation):
                self.levels[equation] = self._latest(equation)

    # Levels. What is given is there before level 0, as if products of level -1 had made it.

    def _earliest(self, equation: Equation) -> int:
        return max((self._level_after(x, equation) for x in equation.variables), default=-1)

    def _level_after(self, x: Var, user: Equation) -> int:
        """The first level at which `user` finds x made."""
        maker = self.makers.get(x)
        if maker is None:
            return 0 if is_kernel(user) or is_join(user) else -1
        level = self.levels[maker]
        if is_kernel(user):
            return level + (not self.spaces.fuse(maker, user) and not self._in_row(x, user))
        if is_join(user):
            return level + (not is_kernel(maker))  # then a kernel copies it
        return level

    def _in_row(self, x: Var, user: Equation) -> bool:
        """Whether `user` can read a part, or a concatenation, of the row that its kernel writes."""
        maker = self.makers.get(x)
        if maker is None or not self.spaces.rows(user.outputs[0]):
            return False
        if is_join(maker):
            return self.spaces.of(x) == self.spaces.of(user.outputs[0])
        if maker.primitive is split and maker.params["axis"] == -1:
            (whole,) = maker.inputs
            above = self.makers.get(whole)
            return above is not None and (
                self.spaces.fuse(above, user) or self._in_row(whole, user)
            )
        return False

    def _latest(self, equation: Equation) -> int:
        """The level of the first kernel that reads a result, if nothing else wants it sooner."""
        (y,) = equation.outputs
        users = self.users.get(y, [])
        readers = [self.levels[user] for user in users if self.spaces.fuse(equation, user)]
        if not readers:
            return self.levels[equation]
        latest = min(
            self.levels[user] - (is_kernel(user) and not self.spaces.fuse(equation, user))
            for user in users
        )
        return latest if latest in readers else self.levels[equation]

    # Instructions.

    def instructions(self) -> list[Instruction]:
        """Level by level: kernels, then the rest in the order of the equations."""
        found: list[Instruction] = []
        for level in sorted({*self.levels.values()}):
            here = [x for x in self.equations if self.levels[x] == level]
            found += self._kernels(here)
            for equation in here:
                if is_kernel(equation) or is_join(equation):
                    continue
                if is_view(equation):
                    found.append(View(equation))
                else:
                    found.append(Gemm(equation) if is_gemm(equation) else Call(equation))
        return found

    def _kernels(self, equations: Sequence[Equation]) -> list[Kernel]:
        """One kernel for each shape that results have, or for all rows."""
        groups: dict[Any, list[Equation]] = {}
        copies: dict[Any, list[Store]] = {}
        for equation in equations:
            if is_kernel(equation):
                groups.setdefault(self.spaces.of(equation.outputs[0]), []).append(equation)
            elif is_join(equation):
                start = 0
                for x in equation.variables:
                    groups.setdefault(self.spaces.of(x), [])
                    store = Store(x, equation.outputs[0], start)
                    copies.setdefault(self.spaces.of(x), []).append(store)
                    start += x.shape[-1]
        return [
            self._rows(space[1:], group, copies.get(space, []))
            if space[:1] == ("rows",)
            else self._elements(space, group, copies.get(space, []))
            for space, group in groups.items()
        ]

    def _elements(
        self, shape: tuple[int, ...], equations: list[Equation], copies: list[Store]
    ) -> Kernel:
        stores = [Store(x, x) for x in self._wanted_elsewhere(equations)]
        loads = list(dict.fromkeys(_read(equations, copies)))
        return Kernel(shape, equations, loads, [*stores, *copies], [])

    def _rows(
        self, lead: tuple[int, ...], equations: list[Equation], copies: list[Store]
    ) -> Kernel:
        phases, passed_on = phases_of(equations, copies, self.makers)
        stored = dict.fromkeys([*self._wanted_elsewhere(equations), *passed_on])
        stores = [Store(x, x) for x in stored]
        loads = list(dict.fromkeys([*_read(equations, copies), *passed_on]))
        return Kernel(lead, equations, loads, [*stores, *copies], phases)

    def _wanted_elsewhere(self, equations: list[Equation]) -> list[Var]:
        """The results that others look at than the kernel that computes them."""
        mine = set(equations)
        found = []
        for equation in equations:
            (y,) = equation.outputs
            others = [x for x in self.users.get(y, []) if x not in mine and not self._copied(y, x)]
            if others or y in self.kept:
                found.append(y)
        return found

    def _copied(self, x: Var, user: Equation) -> bool:
        """Whether a user gets a value from the kernel itself: a join at the same level."""
        return is_join(user) and self.levels[user] == self.levels[self.makers[x]]


def _read(equations: Sequence[Equation], copies: Sequence[Store]) -> list[Var]:
    """What a kernel reads that it does not compute."""
    made = {x for equation in equations for x in equation.outputs}
    read = [x for equation in equations for x in equation.variables]
    return [x for x in [*read, *(copy.value for copy in copies)] if x not in made]


def launches_text(instructions: Iterable[Instruction]) -> str:
    """What is launched, counted, in words: "1 product of matrices, 1 kernel"."""
    found = list(instructions)
    kernels = sum(isinstance(x, Kernel) for x in found)
    products = sum(isinstance(x, Gemm) for x in found)
    calls = [x.equation.primitive.name for x in found if isinstance(x, Call)]
    texts = [
        f"{products} product{'s' * (products != 1)} of matrices" if products else "",
        f"{kernels} kernel{'s' * (kernels != 1)}" if kernels else "",
        f"{len(calls)} call{'s' * (len(calls) != 1)} of CuPy ({', '.join(calls)})" if calls else "",
    ]
    return ", ".join(text for text in texts if text) or "nothing"
