"""What does one step of an RNN, an LSTM, a GRU compute?

The equations, once, for the cells (cells.py) and the layers (layers.py) alike. Each function takes
the weights of one layer in one direction, stored as in PyTorch, and returns the step: a function
`cell(x, h) -> (y, h)` as `scan.unroll` wants it. What stands above the inner `def` is computed once
per sequence, what stands in it at every step. No derivative is written here: the graph has them.

Rows are sequences, so W x of a paper is `x @ W.T`. What depends on x alone is computed by itself
before h is added. B batch rows, D inputs, H hidden units, P projected units; x may also be (D,).
"""

from __future__ import annotations

from typing import Any

from tinygrad_rnn import ops
from tinygrad_rnn.scan import Cell
from tinygrad_rnn.tensor import Tensor

#: What an RNN may put around its affine map.
NONLINEARITIES = {"tanh": ops.tanh, "relu": ops.relu}


def rnn(
    W_ih: Tensor,
    W_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    *,
    nonlinearity: str = "tanh",
) -> Cell:
    """h' = φ(W_ih x + b_ih + W_hh h + b_hh), with φ = tanh or relu; the output is h'.

    Elman, "Finding structure in time", 1990, with tanh or relu for the logistic function.

    W_ih: (H, D); W_hh: (H, H); b_ih, b_hh: (H,). x: (B, D), h: (B, H).
    """
    W_x, W_h, b = W_ih.T, W_hh.T, _sum(b_ih, b_hh)
    activation = NONLINEARITIES[nonlinearity]

    def step(x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = activation(_affine(x, W_x, b) + h @ W_h)  # (B, H)
        return h, h

    return step


def lstm(
    W_ih: Tensor,
    W_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
    W_hr: Tensor | None = None,
) -> Cell:
    """c' = f ⊙ c + i ⊙ g and h' = o ⊙ tanh(c'), or W_hr (o ⊙ tanh(c')); the output is h'.

    i, f, o = σ(W_ih x + b_ih + W_hh h + b_hh) and g = tanh(the same), each with its own block of
    rows, in the order i, f, g, o. Hochreiter and Schmidhuber, "Long short-term memory", 1997, with
    the forget gate f of Gers, Schmidhuber and Cummins, "Learning to forget", 2000, and without
    peepholes. The projection W_hr is that of Sak, Senior and Beaufays, 2014 (arXiv 1402.1128).

    W_ih: (4H, D); W_hh: (4H, P), P = H without W_hr; b_ih, b_hh: (4H,); W_hr: (P, H).
    x: (B, D); the state is the tuple (h, c) of (B, P) and (B, H).
    """
    W_x, W_h, b = W_ih.T, W_hh.T, _sum(b_ih, b_hh)
    W_r = None if W_hr is None else W_hr.T

    def step(x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = state
        i, f, g, o = _blocks(_affine(x, W_x, b) + h @ W_h, 4)  # (B, H) each
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        if W_r is not None:
            h = h @ W_r  # (B, P)
        return h, (h, c)

    return step


def gru(W_ih: Tensor, W_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None) -> Cell:
    """h' = (1 - z) ⊙ n + z ⊙ h; the output is h'.

    r, z = σ(W_ih x + b_ih + W_hh h + b_hh), each with its own block of rows, and
    n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn)); the order of the blocks is r, z, n. Cho et al.,
    "Learning phrase representations using RNN encoder-decoder", 2014, in its first version (arXiv
    1406.1078v1), where the reset gate r acts after the matrix product, as in cuDNN and PyTorch. (In
    version 3 it acts before: n = tanh(W_in x + b_in + W_hn (r ⊙ h) + b_hn).)

    W_ih: (3H, D); W_hh: (3H, H); b_ih, b_hh: (3H,), not summed because r scales b_hn alone.
    x: (B, D), h: (B, H).
    """
    W_x, W_h = W_ih.T, W_hh.T

    def step(x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        r_x, z_x, n_x = _blocks(_affine(x, W_x, b_ih), 3)  # (B, H) each
        r_h, z_h, n_h = _blocks(_affine(h, W_h, b_hh), 3)
        r = (r_x + r_h).sigmoid()
        z = (z_x + z_h).sigmoid()
        n = (n_x + r * n_h).tanh()
        h = n + z * (h - n)  # (1 - z) n + z h, one operation shorter
        return h, h

    return step


def _affine(x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    """X W + b, or x W without bias."""
    return x @ W if b is None else x @ W + b


def _sum(b_ih: Tensor | None, b_hh: Tensor | None) -> Tensor | None:
    """The one bias of the equations. That weights have two is an inheritance from cuDNN."""
    return None if b_ih is None or b_hh is None else b_ih + b_hh


def _blocks(z: Tensor, count: int) -> Any:
    """`count` blocks of one size along the last axis."""
    return ops.split(z, sizes=(z.shape[-1] // count,) * count, axis=-1)
