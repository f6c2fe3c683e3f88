"""How does a step that draws random numbers get the same ones as under `unroll`?

The trace notes how a step draws and leaves it to the scan, which draws for all steps beforehand, in
the order in which `unroll` would: the same generators give the same bits. With checkpoints the
numbers are not kept but drawn again in backward, from the state that the generators had.
Read `random.py`, up to Draw, before this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinygrad_rnn import backend
from tinygrad_rnn.backend import Array, namespace
from tinygrad_rnn.modes import current
from tinygrad_rnn.random import Draw
from tinygrad_rnn.tensor import Tensor


class Drawing(Draw):
    """The random numbers of `length` steps: calling it gives an array (T, …) for each draw.

    The first call draws; later ones draw the same again, and leave the generators as they find
    them. To the step of another scan around it, it is a draw of several arrays.
    """

    def __init__(
        self, draws: Sequence[Draw], length: int, reverse: bool, device: backend.device
    ) -> None:
        self.draws, self.length, self.reverse, self.device = draws, length, reverse, device
        self.forms = [((length, *shape), dtype) for draw in draws for shape, dtype in draw.forms]
        self.sources = list({id(x): x for draw in draws for x in draw.sources}.values())
        kinds = {draw.numbers for draw in draws}
        self.numbers = kinds.pop() if len(kinds) == 1 else None
        self._states: list[Any] | None = None

    def __call__(self) -> list[Array]:
        """The arrays."""
        states = [source.get_state() for source in self.sources]
        if self._states is None:
            self._states = states
            return self.now()
        try:
            for source, state in zip(self.sources, self._states, strict=True):
                source.set_state(state)
            return self.now()
        finally:
            for source, state in zip(self.sources, states, strict=True):
                source.set_state(state)

    def now(self) -> list[Array]:
        """The arrays, drawn."""
        return [array[0] for array in self.times(1)]

    def times(self, count: int) -> list[Array]:
        """The arrays drawn `count` times, one after the other: (count, T, …) each."""
        if self.numbers is not None:  # of one kind, so all of them at once
            return super().times(count)
        xp = backend.library(self.device)
        stacks = [xp.empty((count, *shape), dtype) for shape, dtype in self.forms]
        steps = range(self.length)
        for run in range(count):
            for t in reversed(steps) if self.reverse else steps:
                arrays = (array for draw in self.draws for array in draw.times(1))
                for stack, array in zip(stacks, arrays, strict=True):
                    stack[run, t] = array[0]
        return stacks

    def made_of(self, numbers: Array) -> list[Array]:
        """As `times`, of given numbers (count, size), which belong to the steps one by one."""
        count, size = len(numbers), sum(draw.size for draw in self.draws)
        numbers = numbers.reshape(count, self.length, size)
        if self.reverse:
            numbers = numbers[:, ::-1]
        numbers = numbers.reshape(count * self.length, size)
        found, start = [], 0
        for draw in self.draws:
            found += draw.made_of(numbers[:, start : start + draw.size])
            start += draw.size
        xp = namespace(numbers)
        return [
            xp.ascontiguousarray(array).reshape(count, *shape)
            for array, (shape, _) in zip(found, self.forms, strict=True)
        ]

    def kept(self) -> list[Any]:
        """The arrays as Tensors; inside the step of another scan, as values that it will draw."""
        if not self.forms:
            return []
        if current.trace is not None:
            return list(current.trace.draw(self))
        return [Tensor(array) for array in self()]
