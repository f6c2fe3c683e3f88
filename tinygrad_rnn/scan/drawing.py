"""How does a step that draws random numbers get the same ones as under `unroll`?

The trace notes how a step draws and leaves it to the scan, which draws for all steps beforehand, in
the order in which `unroll` would: the same generators give the same bits. With checkpoints the
numbers are not kept but drawn again in backward, from the state that the generators had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn import backend
from tinygrad_rnn.modes import current
from tinygrad_rnn.program import Draw
from tinygrad_rnn.tensor import Tensor


class Drawing:
    """The random numbers of `length` steps: calling it gives an array (T, …) for each draw.

    The first call draws; later ones draw the same again, and leave the generators as they find
    them.
    """

    def __init__(self, draws: Sequence[Draw], length: int, reverse: bool, device: Any) -> None:
        self.draws, self.length, self.reverse, self.device = draws, length, reverse, device
        self.forms = [((length, *x.shape), x.dtype) for draw in draws for x in draw.drawn]
        self.sources = list({id(x): x for draw in draws for x in draw.sources}.values())
        self._states: list[Any] | None = None

    def __call__(self) -> list[Any]:
        """The arrays."""
        states = [source.get_state() for source in self.sources]
        if self._states is None:
            self._states = states
            return self._sample()
        try:
            for source, state in zip(self.sources, self._states, strict=True):
                source.set_state(state)
            return self._sample()
        finally:
            for source, state in zip(self.sources, states, strict=True):
                source.set_state(state)

    def _sample(self) -> list[Any]:
        stacks = [np.empty(shape, dtype) for shape, dtype in self.forms]
        steps = range(self.length)
        for t in reversed(steps) if self.reverse else steps:
            arrays = (array for draw in self.draws for array in draw.sample())
            for stack, array in zip(stacks, arrays, strict=True):
                stack[t] = array
        return [backend.to_device(stack, self.device) for stack in stacks]

    def kept(self) -> list[Any]:
        """The arrays as Tensors; inside the step of another scan, as values that it will draw."""
        if not self.forms:
            return []
        if current.trace is not None:
            sample: Callable[[], Sequence[Any]] = self._sample
            return list(current.trace.draw(sample, self.forms, self.sources, self.device))
        return [Tensor(array) for array in self()]
