"""In what order does a GPU do a list of equations, with the fewest launches?

What lies between two products of matrices and has one shape becomes one kernel. Each value has a
level: kernels of a level come first, one for each shape, then its products and other calls, in
order. An elementwise equation joins the latest kernel that its users allow, so what is computed
for a kernel is computed in it. Read source.py (what a kernel is) before this file.
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
from tinygrad_rnn.scan.cuda.rewriting import add_product
from tinygrad_rnn.scan.cuda.source import can_be_written


class Kernel(NamedTuple):
    """Elementwise equations with results of one shape, computed by one kernel.

    loads: the values that it reads. stores: what it writes.
    """

    shape: tuple[int, ...]
    equations: list[Equation]
    loads: list[Var]
    stores: list[Store]


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

_VIEWS = {split, transpose, flip, broadcast_to, unstack}


def is_kernel(equation: Equation) -> bool:
    """Whether an equation can be part of a kernel."""
    return can_be_written(equation)


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
    """Whether an equation is one product of matrices."""
    if equation.primitive is add_product:
        return True
    return (
        equation.primitive is matmul
        and len(equation.inputs[1].shape) == 2
        and equation.outputs[0].dtype.kind == "f"
        and all(x.dtype == equation.outputs[0].dtype for x in equation.inputs)
        and all(math.prod(x.shape) for x in equation.inputs)
    )


def _only_moves_ones(a: Sequence[int], b: Sequence[int]) -> bool:
    """Whether shapes differ in axes of size 1 alone, so that any memory will do for both."""
    return [n for n in a if n != 1] == [n for n in b if n != 1]


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
        level = -1 if maker is None else self.levels[maker]
        if is_kernel(user):
            return level + (maker is None or not fuse(maker, user))
        if is_join(user):
            return level + (maker is None or not is_kernel(maker))  # then a kernel copies it
        return level

    def _latest(self, equation: Equation) -> int:
        """The level of the first kernel that reads a result, if nothing else wants it sooner."""
        (y,) = equation.outputs
        users = self.users.get(y, [])
        readers = [self.levels[user] for user in users if fuse(equation, user)]
        if y in self.kept or not readers or any(is_view(user) for user in users):
            return self.levels[equation]
        latest = min(
            self.levels[user] - (is_kernel(user) and not fuse(equation, user)) for user in users
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

    def _kernels(self, equations: Iterable[Equation]) -> list[Kernel]:
        """One kernel for each shape that results have."""
        groups: dict[tuple[int, ...], list[Equation]] = {}
        copies: dict[tuple[int, ...], list[Store]] = {}
        for equation in equations:
            if is_kernel(equation):
                groups.setdefault(equation.outputs[0].shape, []).append(equation)
            elif is_join(equation):
                start = 0
                for x in equation.variables:
                    groups.setdefault(x.shape, [])
                    copies.setdefault(x.shape, []).append(Store(x, equation.outputs[0], start))
                    start += x.shape[-1]
        return [
            self._kernel(shape, group, copies.get(shape, [])) for shape, group in groups.items()
        ]

    def _kernel(
        self, shape: tuple[int, ...], equations: list[Equation], copies: list[Store]
    ) -> Kernel:
        made = {x for equation in equations for x in equation.outputs}
        mine = set(equations)
        read = [x for equation in equations for x in equation.variables if x not in made]
        read += [copy.value for copy in copies if copy.value not in made]
        stores = []
        for equation in equations:
            (y,) = equation.outputs
            others = [x for x in self.users.get(y, []) if x not in mine and not self._copied(y, x)]
            if others or y in self.kept:
                stores.append(Store(y, y))
        return Kernel(shape, equations, list(dict.fromkeys(read)), [*stores, *copies])

    def _copied(self, x: Var, user: Equation) -> bool:
        """Whether a user gets a value from the kernel itself: a join at the same level."""
        return is_join(user) and self.levels[user] == self.levels[self.makers[x]]


def fuse(maker: Equation, user: Any) -> bool:
    """Whether a result can stay in a register on its way from one equation to another."""
    together = is_kernel(maker) and is_kernel(user)
    return together and maker.outputs[0].shape == user.outputs[0].shape


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
