"""How does one step of a GRU run forward, and its gradient back, in both of its variants?

The two versions of one paper differ in where the reset gate acts: after the recurrent product
(arXiv 1406.1078v1, cuDNN, PyTorch) or before it (v3). Weights of one are not weights of the other.
`docs/derivations.md`, sections 7 and 8, derives the lines of `step_vjp`. Read `rnn.py` before this
file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from tinygrad_rnn.by_hand.cell import Array, State, Weights, sigmoid


class Saved(NamedTuple):
    """What the backward step reads of the forward step; all (B, H) but x (B, D)."""

    x: Array
    h_prev: Array
    r: Array
    z: Array
    n: Array
    u: Array  # reset after the product: W_hn h + b_hn; reset before it: r ⊙ h


@dataclass(frozen=True)
class GRU:
    """h_t = (1 - z) ⊙ n + z ⊙ h_{t-1} (Cho et al. 2014, arXiv 1406.1078, equations 5 to 8).

    The gates are (r, z) = σ(W_i x_t + b_i + W_h h_{t-1} + b_h), rows in the order r, z, n. The
    candidate is n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn)) with `reset_after` (v1; PyTorch's)
    and n = tanh(W_in x + b_in + W_hn (r ⊙ h) + b_hn) without (v3). Some texts exchange z and 1 - z.

    With all weights 0 both gates are 1/2 and n is 0: the state halves, and so does its gradient.

    >>> zero = np.zeros((3, 1))
    >>> w = Weights(zero, zero, zero[:, 0], zero[:, 0])
    >>> one = np.array([[1.0]])
    >>> for reset_after in (True, False):
    ...     (h,), saved = GRU(reset_after).step(w, one, (one,))
    ...     dw, dx, (dh_prev,) = GRU(reset_after).step_vjp(w, saved, (one,))
    ...     print(h.item(), dh_prev.item(), dw.b_ih.tolist(), dw.b_hh.tolist())
    0.5 0.5 [0.0, 0.25, 0.5] [0.0, 0.25, 0.25]
    0.5 0.5 [0.0, 0.25, 0.5] [0.0, 0.25, 0.5]
    """

    reset_after: bool = True

    gates: ClassVar = ("r", "z", "n")
    states: ClassVar = ("h",)

    def step(self, w: Weights, x: Array, state: State) -> tuple[State, Saved]:
        """h_t from x_t (B, D) and h_{t-1} (B, H)."""
        (h_prev,) = state
        W_hrz, W_hn, b_hrz, b_hn = _split_candidate(w)
        a_i = x @ w.W_ih.T + w.b_ih  # (B, 3H)
        a_ir, a_iz, a_in = np.split(a_i, 3, axis=-1)  # (B, H) each
        a_hr, a_hz = np.split(h_prev @ W_hrz.T + b_hrz, 2, axis=-1)
        r, z = sigmoid(a_ir + a_hr), sigmoid(a_iz + a_hz)
        if self.reset_after:
            u = h_prev @ W_hn.T + b_hn
            n = np.tanh(a_in + r * u)
        else:
            u = r * h_prev
            n = np.tanh(a_in + u @ W_hn.T + b_hn)
        h = (1 - z) * n + z * h_prev
        return (h,), Saved(x, h_prev, r, z, n, u)

    def step_vjp(self, w: Weights, saved: Saved, dstate: State) -> tuple[Weights, Array, State]:
        """The gradients of the weights, of x_t and of h_{t-1}, from that of h_t."""
        x, h_prev, r, z, n, u = saved
        (dh,) = dstate
        W_hrz, W_hn, _, _ = _split_candidate(w)
        dn = dh * (1 - z)
        dz = dh * (h_prev - n)
        da_n = dn * (1 - n * n)
        if self.reset_after:
            dr = da_n * u
            du = da_n * r
            dW_hn, db_hn, dh_candidate = du.T @ h_prev, du.sum(0), du @ W_hn
        else:
            du = da_n @ W_hn
            dr = du * h_prev
            dW_hn, db_hn, dh_candidate = da_n.T @ u, da_n.sum(0), du * r
        da_r, da_z = dr * r * (1 - r), dz * z * (1 - z)
        da_rz = np.concatenate([da_r, da_z], axis=-1)  # (B, 2H)
        da_i = np.concatenate([da_r, da_z, da_n], axis=-1)  # (B, 3H)
        dw = Weights(
            W_ih=da_i.T @ x,  # (3H, D)
            W_hh=np.concatenate([da_rz.T @ h_prev, dW_hn]),  # (3H, H)
            b_ih=da_i.sum(0),  # (3H,)
            b_hh=np.concatenate([da_rz.sum(0), db_hn]),
        )
        dx = da_i @ w.W_ih  # (B, D)
        # h_{t-1} is read three times: carried over by z, by the candidate, and by the two gates.
        dh_prev = dh * z + dh_candidate + da_rz @ W_hrz  # (B, H)
        return dw, dx, (dh_prev,)


def _split_candidate(w: Weights) -> tuple[Array, Array, Array, Array]:
    """`W_hh` and `b_hh` as the rows of the gates r and z, and the rows of the candidate n."""
    rows = 2 * (w.W_hh.shape[0] // 3)
    return w.W_hh[:rows], w.W_hh[rows:], w.b_hh[:rows], w.b_hh[rows:]
