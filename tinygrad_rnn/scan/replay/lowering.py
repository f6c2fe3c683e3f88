"""How do equations become instructions on places in memory?

One after the other, each with a place for its result: one that was decided beforehand (`reserve`),
else that of an operand which nobody needs any more, else new scratch memory. Views become places
without an instruction. Read memory.py and instructions.py before this file.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeAlias

import numpy as np

from tinygrad_rnn.ops import elementwise as e
from tinygrad_rnn.ops.broadcasting import broadcast_to
from tinygrad_rnn.ops.elementwise import Elementwise
from tinygrad_rnn.ops.indexing import getitem
from tinygrad_rnn.ops.linear import matmul
from tinygrad_rnn.ops.shape import concatenate, flip, reshape, split, transpose, unstack
from tinygrad_rnn.program import Equation, Var
from tinygrad_rnn.scan.memory import (
    BEFORE,
    CONSTANT,
    FIXED,
    SCRATCH,
    STRIP,
    Place,
    Storage,
    viewed,
)
from tinygrad_rnn.scan.replay.halves import sigmoid_of_twice
from tinygrad_rnn.scan.replay.instructions import (
    UFUNCS,
    Instruction,
    add_product,
    copy,
    function_of,
    number_like,
)
from tinygrad_rnn.scan.replay.layout import allocate

_FOREVER = math.inf
#: Fixed values in the shape of a whole step's value: (number of the constant, shape) -> memory.
Spread: TypeAlias = dict[tuple[int, tuple[int, ...]], Storage]


class Lowering:
    """Instructions for a list of equations.

    temporary: the kind of memory for what nobody asked to keep: SCRATCH in the loop, STRIP around.
    lead: the axes of the values that a Storage's shape does not count: 0 in the loop, where each
        value is that of one step, 1 around it, where values are those of a strip of steps.
    places: where each value is; holds the inputs' at the start.
    spread: collects the fixed values that are wanted in the shape of a whole step's value.
    kept: values that are read later, so they are not written over. apart: results that are not
        written over a carry, because they are read later and a carry is gone by then.
    """

    def __init__(
        self,
        equations: Sequence[Equation],
        places: dict[Var, Place],
        kept: Iterable[Var],
        temporary: str,
        lead: int,
        spread: Spread,
        apart: AbstractSet[Var] = frozenset(),
    ) -> None:
        self.equations = equations
        self.places = places
        self.temporary = temporary
        self.lead = lead
        self.instructions: list[Instruction] = []
        self.reserved: dict[Var, Place] = {}
        self.spread = spread
        self.apart = apart
        self.last_use: dict[Var, float] = {}
        for index, equation in enumerate(equations):
            for x in equation.variables:
                self.last_use[x] = index
        for x in kept:
            self.last_use[x] = _FOREVER
        self.delayed = self._delayed()
        self.residents: dict[Storage, list[Var]] = {}
        for x, place in places.items():
            self.residents.setdefault(place.storage, []).append(x)

    def run(self) -> list[Instruction]:
        """Lower all equations."""
        made_here = {x for equation in self.equations for x in equation.outputs}
        for equation in self.equations:
            if equation.primitive is concatenate and equation.params["axis"] == -1:
                self._reserve_parts(equation, made_here)
        for index, equation in enumerate(self.equations):
            self._lower(index, equation)
        return self.instructions

    # Places.

    def reserve(self, x: Var, place: Place) -> None:
        """Decide where a value will be."""
        self.reserved[x] = place

    def _settle(self, x: Var, place: Place) -> Place:
        self.places[x] = place
        self.residents.setdefault(place.storage, []).append(x)
        return place

    def _new(self, x: Var) -> Place:
        """Where a result goes that overwrites nothing."""
        place = self.reserved.pop(x, None)
        if place is None:
            place = Storage(self.temporary, x.shape[self.lead :], x.dtype).whole()
        return self._settle(x, place)

    def _reserve_parts(self, equation: Equation, made_here: set[Var]) -> None:
        """Have the operands of a concatenation computed inside its result."""
        (joined,) = equation.outputs
        if len(joined.shape) <= self.lead:
            return
        place = self.reserved.get(joined)
        if place is None:
            place = Storage(self.temporary, joined.shape[self.lead :], joined.dtype).whole()
            self.reserved[joined] = place
        start = 0
        for x in equation.inputs:
            stop = start + x.shape[-1]
            free = x in made_here and x not in self.reserved and not place.views
            if free and x.equation.primitive not in _VIEWS and x.dtype == joined.dtype:
                self.reserved[x] = place.part(start, stop)
            start = stop

    def _may_overwrite(self, index: int, x: Any, result: Var, others: Sequence[Any]) -> bool:
        """Whether an elementwise result may be written over its operand x."""
        if type(x) is not Var or x.shape != result.shape or x.dtype != result.dtype:
            return False
        place = self.places[x]
        mine = (SCRATCH, STRIP, BEFORE) if self.lead == 0 else (STRIP,)
        if place.views or place.storage.kind not in mine:
            return False
        if result in self.apart and place.storage.kind == BEFORE:
            return False
        for resident in self.residents[place.storage]:
            there = self.places[resident]
            if there.overlaps(place) and self.last_use.get(resident, -1) > index:
                return False
        for other in others:
            if type(other) is Var and other is not x:
                there = self.places[other]
                if there.overlaps(place) and there != place:
                    return False
        return True

    def _delayed(self) -> dict[Var, Equation]:
        """Products of matrices that are only added to something: computed when they are added.

        What they read must stay until then.
        """
        found: dict[Var, Equation] = {}
        if self.lead:
            return found
        uses: dict[Var, list[int]] = {}
        for index, equation in enumerate(self.equations):
            for x in equation.variables:
                uses.setdefault(x, []).append(index)
        for equation in self.equations:
            product = equation.outputs[0]
            if equation.primitive is not matmul:
                continue
            users = uses.get(product, [])
            if any(len(x.shape) != 2 for x in (*equation.inputs, product)) or len(users) != 1:
                continue
            user = self.equations[users[0]]
            if user.primitive is e.add and self.last_use[product] != _FOREVER:
                found[product] = equation
                for x in equation.inputs:
                    self.last_use[x] = max(self.last_use[x], users[0])
        return found

    # Equations.

    def _lower(self, index: int, equation: Equation) -> None:
        if equation.outputs[0] in self.delayed:
            return
        if equation.primitive is e.add and self._add_product(index, equation):
            return
        self._compute(index, equation)

    def _add_product(self, index: int, equation: Equation) -> bool:
        """x + a @ b, as one call that adds the product to x, if x may be written over."""
        (result,) = equation.outputs
        for x, product in (equation.inputs, equation.inputs[::-1]):
            delayed = self.delayed.pop(product, None) if type(product) is Var else None
            if delayed is None:
                continue
            a, b = (self.places[y] for y in delayed.inputs)
            if (
                result not in self.reserved
                and x not in self.delayed
                and not any(self.places[x].overlaps(read) for read in (a, b))
                and self._may_overwrite(index, x, result, ())
            ):
                out = self._settle(result, self.places[x])
                self.instructions.append(Instruction(add_product, (a, b), out))
                return True
            self._compute(index, delayed)
        return False

    def _compute(self, index: int, equation: Equation) -> None:
        primitive = equation.primitive
        if primitive in _VIEWS and self._as_views(equation):
            return
        if equation.arity > 1:
            self._several(equation)
            return
        (result,) = equation.outputs
        if primitive in (e.sigmoid, sigmoid_of_twice):
            self._sigmoid(index, equation)
            return
        operands = [self._operand(x, equation) for x in equation.inputs]
        if primitive is concatenate and equation.params["axis"] == -1:
            self._concatenate(result, operands, [x.shape[-1] for x in equation.inputs])
            return
        out = None
        if result not in self.reserved and primitive in UFUNCS:
            for x in equation.inputs:
                if self._may_overwrite(index, x, result, equation.inputs):
                    out = self._settle(result, self.places[x])
                    break
        if out is None:
            out = self._new(result)
        function = function_of(primitive, equation.params, [_ndim(x) for x in equation.inputs])
        self.instructions.append(Instruction(function, tuple(operands), out))

    def _operand(self, x: Any, equation: Equation) -> Any:
        """The place of an operand; of one that would be broadcast at every step, a full copy.

        Broadcasting along the innermost axis, as of a bias, takes many times as long.
        """
        if type(x) is not Var:
            like = next((y.dtype for y in equation.variables if y.dtype.kind == "f"), None)
            return x if like is None else number_like(x, like)
        place = self.places[x]
        shape = equation.outputs[0].shape[self.lead :]
        small = place.storage.kind in (FIXED, CONSTANT) and x.shape not in ((), shape)
        if not small or not isinstance(equation.primitive, Elementwise):
            return place
        key = place.storage.number, shape
        if key not in self.spread:
            self.spread[key] = Storage(FIXED, shape, x.dtype)
        return self.spread[key].whole()

    def _sigmoid(self, index: int, equation: Equation) -> None:
        """tanh(x/2)/2 + 1/2, in place; without the first half where the weights have it."""
        (result,), (x,) = equation.outputs, equation.inputs
        half = number_like(0.5, result.dtype)
        operand = self.places[x]
        if result not in self.reserved and self._may_overwrite(index, x, result, ()):
            out = self._settle(result, operand)
        else:
            out = self._new(result)
        if equation.primitive is e.sigmoid:
            self.instructions.append(Instruction(np.multiply, (operand, half), out))
            operand = out
        self.instructions += [
            Instruction(np.tanh, (operand,), out),
            Instruction(np.multiply, (out, half), out),
            Instruction(np.add, (out, half), out),
        ]

    def _concatenate(self, result: Var, operands: Sequence[Place], widths: Sequence[int]) -> None:
        """Copy those operands that are not already inside the result."""
        out = self._new(result)
        start = 0
        for operand, width in zip(operands, widths, strict=True):
            part = out.part(start, start + width)
            if operand != part:
                self.instructions.append(Instruction(copy, (operand,), part))
            start += width

    def _as_views(self, equation: Equation) -> bool:
        """Make the results views of the operand, if memory allows."""
        primitive, params = equation.primitive, equation.params
        (x,) = equation.inputs
        if type(x) is not Var or any(y in self.reserved for y in equation.outputs):
            return False
        place = self.places[x]
        is_part = primitive is split and params["axis"] == -1 and not place.views
        if not is_part and not self._shares(equation, place):
            return False
        for number, y in enumerate(equation.outputs):
            self._settle(y, viewed(place, equation, number))
        return True

    def _shares(self, equation: Equation, place: Place) -> bool:
        """Whether the results lie in the memory of an operand at `place`: tried out."""
        (x,) = equation.inputs
        lead = () if place.storage.kind in (FIXED, CONSTANT) else x.shape[: self.lead]
        sample = place.of(allocate(lead, place.storage.shape, x.dtype))
        views = equation.primitive.evaluate(np, sample, **equation.params)
        several = views if type(views) is list else [views]
        return all(np.may_share_memory(view, sample) or not view.size for view in several)

    def _several(self, equation: Equation) -> None:
        """An operation with several results that are no views: computed, and copied."""
        outs = [self._new(y) for y in equation.outputs]
        made = threading.local()  # between the instructions below, of one run
        operands = tuple(self._operand(x, equation) for x in equation.inputs)

        def evaluate(*operands_and_out: Any) -> None:
            *arrays, out = operands_and_out
            made.results = equation.primitive.evaluate(np, *arrays, **equation.params)
            np.copyto(out, made.results[0])

        def fetch(number: int, out: Any) -> None:
            np.copyto(out, made.results[number])

        evaluate.__name__ = equation.primitive.name  # what a profile calls it
        self.instructions.append(Instruction(evaluate, operands, outs[0]))
        for number, out in enumerate(outs[1:], 1):
            self.instructions.append(Instruction(fetch, (number,), out))


_VIEWS = {split, reshape, transpose, flip, broadcast_to, unstack, getitem, e.detach}


def _ndim(x: Any) -> int:
    return len(x.shape) if type(x) is Var else 0
