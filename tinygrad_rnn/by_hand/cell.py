"""What do the hand-derived cells share? A step forward, the same step back, and their weights.

Read this file first, then `rnn.py`, `lstm.py` and `gru.py` (one step each), `through_time.py` (the
loop) and `stacked.py` (layers and directions). Everything in these files is plain NumPy: no Tensor
and no graph, so that it can be compared with them. `docs/derivations.md` derives the lines on paper
in the same symbols.

`dv` is always the gradient of the loss with respect to `v`. Rows are sequences: `x` is (B, D), so a
product written W x in a paper is `x @ W.T` here. B batch rows, D inputs, H hidden units, P
projected units, G gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
State: TypeAlias = tuple[Array, ...]  # (h,) or (h, c)


@dataclass(frozen=True)
class Weights:
    """The weights of one layer in one direction, or their gradients, with PyTorch's shapes.

    A layer without bias has b_ih = b_hh = 0. A layer without projection has no W_hr, and P is H.
    """

    W_ih: Array  # (G H, D)
    W_hh: Array  # (G H, P)
    b_ih: Array  # (G H,)
    b_hh: Array  # (G H,)
    W_hr: Array | None = None  # (P, H)

    def zeros(self) -> Weights:
        """Zeros of the same shapes: the gradient before any step has added its part."""
        return Weights(
            np.zeros_like(self.W_ih),
            np.zeros_like(self.W_hh),
            np.zeros_like(self.b_ih),
            np.zeros_like(self.b_hh),
            None if self.W_hr is None else np.zeros_like(self.W_hr),
        )

    def __add__(self, other: Weights) -> Weights:
        return Weights(
            self.W_ih + other.W_ih,
            self.W_hh + other.W_hh,
            self.b_ih + other.b_ih,
            self.b_hh + other.b_hh,
            None if self.W_hr is None or other.W_hr is None else self.W_hr + other.W_hr,
        )


class Cell(Protocol):
    """One step of a recurrence, forward and back. Its first state, h, is also its output."""

    @property
    def gates(self) -> tuple[str, ...]:
        """The names of the row blocks of `W_ih`, in PyTorch's order."""

    @property
    def states(self) -> tuple[str, ...]:
        """The names of the states: `("h",)` or `("h", "c")`."""

    def step(self, w: Weights, x: Array, state: State) -> tuple[State, Any]:
        """`(state_t, saved)` from x_t (B, D) and state_{t-1}; `saved` is for `step_vjp`."""

    def step_vjp(self, w: Weights, saved: Any, dstate: State) -> tuple[Weights, Array, State]:
        """`(dw, dx_t, dstate_{t-1})` from the whole gradient dstate_t that reaches state_t."""


def sigmoid(a: Array) -> Array:
    """σ(a) = 1 / (1 + exp(-a)) = (1 + tanh(a/2)) / 2, which cannot overflow and takes complex a.

    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return 0.5 * (1 + np.tanh(0.5 * a))
