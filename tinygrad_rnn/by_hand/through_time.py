"""How does a step become a sequence, and a gradient go back through time? One layer, one direction.

Any cell of `cell.py` will do: this file does not know which. `docs/derivations.md`, section 3,
derives the two facts below: a weight used at every step sums its gradients, and h_t, read by the
output and by the next step, adds its two. Read a cell (`rnn.py`) before this file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_rnn.by_hand.cell import Array, Cell, State, Weights


def forward(
    cell: Cell, w: Weights, x: Array, state: State, reverse: bool = False
) -> tuple[Array, State, list[Any]]:
    """`(y, state_n, saved)`: the cell from the first step to the last, or with `reverse` back.

    x: (T, B, D); each state (B, H); y: (T, B, H or P) with y_t = h_t; `saved` has one entry per
    step, at its t.
    """
    steps = range(len(x))
    y: list[Any] = [None] * len(x)
    saved: list[Any] = [None] * len(x)
    for t in reversed(steps) if reverse else steps:
        state, saved[t] = cell.step(w, x[t], state)
        y[t] = state[0]
    return np.stack(y), state, saved


def backward(
    cell: Cell, w: Weights, saved: list[Any], dy: Array, dstate: State, reverse: bool = False
) -> tuple[Weights, Array, State]:
    """`(dw, dx, dstate_0)` from the gradients of all outputs and of the final state.

    Backpropagation through time (Werbos 1990): the loop of `forward`, walked the other way. A
    gradient of 1 at the end of ten steps of h_t = h_{t-1} / 2 reaches the start as 1/2 to the tenth
    power:

    >>> from tinygrad_rnn.by_hand.rnn import RNN
    >>> w = Weights(np.zeros((1, 1)), np.array([[0.5]]), np.zeros(1), np.zeros(1))
    >>> x, h_0 = np.zeros((10, 1, 1)), np.ones((1, 1))
    >>> y, (h_n,), saved = forward(RNN("relu"), w, x, (h_0,))
    >>> dw, dx, (dh_0,) = backward(RNN("relu"), w, saved, 0 * y, (np.ones((1, 1)),))
    >>> h_n.item() == dh_0.item() == 0.5**10
    True
    >>> dw.W_hh.item() == 10 * 0.5**9  # every step adds its part of d(w^10)/dw
    True
    """
    steps = range(len(saved))
    dx: list[Any] = [None] * len(saved)
    dw = w.zeros()
    for t in steps if reverse else reversed(steps):
        dh = dy[t] + dstate[0]  # h_t is the output and the carry
        part, dx[t], dstate = cell.step_vjp(w, saved[t], (dh, *dstate[1:]))
        dw = dw + part  # the same weights are read at every step
    return dw, np.stack(dx), dstate
