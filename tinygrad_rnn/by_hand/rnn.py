"""How does one step of a plain RNN run forward, and its gradient back?

`docs/derivations.md`, section 2, derives every line of `step_vjp`. Read `cell.py` before this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from tinygrad_rnn.by_hand.cell import Array, State, Weights


class Saved(NamedTuple):
    """What the backward step reads."""

    x: Array  # (B, D)
    h_prev: Array  # (B, H)
    h: Array  # (B, H)


@dataclass(frozen=True)
class RNN:
    """h_t = φ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), φ = tanh or relu (Elman 1990).

    With W_ih = 2, W_hh = 1/2, x = 1 and h_{t-1} = -4 the pre-activation is 0, where tanh has slope
    1:

    >>> w = Weights(np.array([[2.0]]), np.array([[0.5]]), np.zeros(1), np.zeros(1))
    >>> (h,), saved = RNN().step(w, np.array([[1.0]]), (np.array([[-4.0]]),))
    >>> dw, dx, (dh_prev,) = RNN().step_vjp(w, saved, (np.array([[1.0]]),))
    >>> h.item(), dx.item(), dh_prev.item(), dw.W_ih.item(), dw.W_hh.item()
    (0.0, 2.0, 0.5, 1.0, -4.0)
    """

    nonlinearity: str = "tanh"

    gates: ClassVar = ("h",)
    states: ClassVar = ("h",)

    def step(self, w: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """h_t from x_t (B, D) and h_{t-1} (B, H)."""
        (h_prev,) = state
        a = x @ w.W_ih.T + w.b_ih + h_prev @ w.W_hh.T + w.b_hh  # (B, H)
        # relu branches on the real part, so that a complex step leaves the branch alone.
        h = np.tanh(a) if self.nonlinearity == "tanh" else np.where(a.real > 0, a, 0)
        return (h,), Saved(x, h_prev, h)

    def step_vjp(self, w: Weights, saved: Saved, dstate: State) -> tuple[Weights, Array, State]:
        """The gradients of the weights, of x_t and of h_{t-1}, from that of h_t."""
        x, h_prev, h = saved
        (dh,) = dstate
        slope = 1 - h * h if self.nonlinearity == "tanh" else h > 0  # φ'(a), read off h
        da = dh * slope  # (B, H)
        dw = Weights(
            W_ih=da.T @ x,  # (H, D)
            W_hh=da.T @ h_prev,  # (H, H)
            b_ih=da.sum(0),  # (H,)
            b_hh=da.sum(0),
        )
        dx = da @ w.W_ih  # (B, D)
        dh_prev = da @ w.W_hh  # (B, H): one factor φ'(a_t) W_hh of the Jacobian product
        return dw, dx, (dh_prev,)
