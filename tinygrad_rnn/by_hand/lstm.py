"""How does one step of an LSTM run forward, and its gradient back?

With and without the projection of `proj_size`. `docs/derivations.md`, section 5, derives every line
of `step_vjp`; section 6 says why the gradient of the cell state survives. Read `rnn.py` before this
file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from tinygrad_rnn.by_hand.cell import Array, State, Weights, sigmoid


class Saved(NamedTuple):
    """What the backward step reads: all (B, H), but x (B, D) and h_prev (B, P)."""

    x: Array
    h_prev: Array
    c_prev: Array
    i: Array
    f: Array
    g: Array
    o: Array
    tanh_c: Array
    m: Array


@dataclass(frozen=True)
class LSTM:
    """c_t = f ⊙ c_{t-1} + i ⊙ g, h_t = W_hr (o ⊙ tanh(c_t)); W_hr only with a projection.

    The gates are (i, f, g, o) = (σ, σ, tanh, σ)(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), in that
    order. Sources: Hochreiter & Schmidhuber 1997; the forget gate, Gers et al. 2000; the
    projection, Sak et al. 2014 (arXiv 1402.1128). No peepholes, as in PyTorch.

    With all weights 0 the gates are 1/2 and the candidate g is 0: the cell state halves, and so
    does its gradient on the way back.

    >>> zero = np.zeros((4, 1))
    >>> w = Weights(zero, zero, zero[:, 0], zero[:, 0])
    >>> one = np.array([[1.0]])
    >>> (h, c), saved = LSTM().step(w, one, (one, one))
    >>> dw, dx, (dh_prev, dc_prev) = LSTM().step_vjp(w, saved, (0 * one, one))
    >>> c.item(), dc_prev.item(), dw.b_ih.tolist()  # db = dc ⊙ (g i', c f', i g', 0)
    (0.5, 0.5, [0.0, 0.25, 0.5, 0.0])
    """

    gates: ClassVar = ("i", "f", "g", "o")
    states: ClassVar = ("h", "c")

    def step(self, w: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """(h_t, c_t) from x_t (B, D), h_{t-1} (B, P) and c_{t-1} (B, H)."""
        h_prev, c_prev = state
        a = x @ w.W_ih.T + w.b_ih + h_prev @ w.W_hh.T + w.b_hh  # (B, 4H)
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=-1)  # (B, H) each
        i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
        c = f * c_prev + i * g
        tanh_c = np.tanh(c)
        m = o * tanh_c  # what the memory shows
        h = m if w.W_hr is None else m @ w.W_hr.T  # (B, P)
        return (h, c), Saved(x, h_prev, c_prev, i, f, g, o, tanh_c, m)

    def step_vjp(self, w: Weights, saved: Saved, dstate: State) -> tuple[Weights, Array, State]:
        """The gradients of the weights, of x_t, h_{t-1} and c_{t-1}, from those of h_t and c_t."""
        x, h_prev, c_prev, i, f, g, o, tanh_c, m = saved
        dh, dc = dstate
        dm = dh if w.W_hr is None else dh @ w.W_hr  # (B, H)
        do = dm * tanh_c
        dc = dc + dm * o * (1 - tanh_c * tanh_c)  # c_t is read twice: by c_{t+1} and by m_t
        di = dc * g
        df = dc * c_prev
        dg = dc * i
        da_i, da_f = di * i * (1 - i), df * f * (1 - f)  # σ' = σ (1 - σ)
        da_g, da_o = dg * (1 - g * g), do * o * (1 - o)  # tanh' = 1 - tanh²
        da = np.concatenate([da_i, da_f, da_g, da_o], axis=-1)  # (B, 4H)
        dw = Weights(
            W_ih=da.T @ x,  # (4H, D)
            W_hh=da.T @ h_prev,  # (4H, P)
            b_ih=da.sum(0),  # (4H,)
            b_hh=da.sum(0),
            W_hr=None if w.W_hr is None else dh.T @ m,  # (P, H)
        )
        dx = da @ w.W_ih  # (B, D)
        dh_prev = da @ w.W_hh  # (B, P)
        dc_prev = dc * f  # the direct path: no weight matrix and no slope, only the forget gate
        return dw, dx, (dh_prev, dc_prev)
