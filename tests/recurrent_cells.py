"""Nineteen cells to run recurrences with: one table that every test of `scan` goes through.

A cell is written as its paper's equations, W x of a paper as `x @ W.T`. It is a function of its
weights that returns the step `cell(x, h) -> (y, h)`; what stands above the inner `def` is computed
once per sequence. The last cells come from no paper: each does something that a scan may get wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import tinygrad_rnn as torch
from tinygrad_rnn import nn, ops
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.nn.recurrent import equations

# All different, so that no mix-up of axes goes unnoticed, and no way to cut 7 steps in equal parts.
SIZES = {"T": 7, "B": 2, "D": 3, "H": 5, "P": 4, "S": 6, "V": 9}  # and W = D + H


@dataclass(frozen=True)
class Case:
    """A cell, and what it takes: trees of texts such as "B,4H", one for the shape of each tensor.

    x, h, weights: of one step's input, of the state, and of the arguments of `cell`. Values are
    normal, above 0.5 where the text begins with "+", and integers in [0, V) where with "#".
    """

    name: str
    cell: Callable[..., Any]
    x: Any
    h: Any
    weights: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    def leaves(self, dtype: str = "float64", **sizes: int) -> tuple[Any, Any, tuple[Any, ...]]:
        """(xs, h0, weights): random tensors, the floating ones requiring gradients."""
        rng, sizes = np.random.default_rng(len(self.name)), SIZES | sizes
        sizes["W"] = sizes["D"] + sizes["H"]

        def drawn(text: Any, *lead: int) -> Any:
            if isinstance(text, tuple):
                parts = [drawn(part, *lead) for part in text]
                return type(text)(*parts) if hasattr(text, "_fields") else tuple(parts)
            axes = [axis for axis in text.strip("#+").split(",") if axis]
            shape = (*lead, *(int(axis[:-1] or 1) * sizes[axis[-1]] for axis in axes))
            if text.startswith("#"):
                return torch.tensor(rng.integers(sizes["V"], size=shape))
            values = 0.7 * rng.standard_normal(shape)
            values = np.abs(values) + 0.5 if text.startswith("+") else values
            return torch.tensor(values.astype(dtype), requires_grad=True)

        return drawn(self.x, sizes["T"]), drawn(self.h), drawn(self.weights)


def gru_reset_before(W_r, U_r, W_z, U_z, W, U):
    """Cho et al. 2014, arXiv 1406.1078v3, equations 5 to 8: r acts before the matrix product."""

    def step(x, h):
        r = (x @ W_r.T + h @ U_r.T).sigmoid()
        z = (x @ W_z.T + h @ U_z.T).sigmoid()
        h = z * h + (1 - z) * (x @ W.T + (r * h) @ U.T).tanh()
        return h, h

    return step


def peephole_lstm(W, U, b, p_i, p_f, p_o):
    """Gers and Schmidhuber, "Recurrent nets that time and count", 2000: the gates see c too."""

    def step(x, state):
        h, c = state
        i, f, g, o = (x @ W.T + h @ U.T + b).chunk(4, -1)
        c = (f + p_f * c).sigmoid() * c + (i + p_i * c).sigmoid() * g.tanh()
        h = (o + p_o * c).sigmoid() * c.tanh()  # the output gate sees the new c
        return h, (h, c)

    return step


def layer_norm_lstm(W_x, W_h, b, a_1, b_1, a_2, b_2, a_3, b_3):
    """Ba, Kiros and Hinton, "Layer normalization", 2016, equations 20 to 22."""

    def step(x, state):
        h, c = state
        rows = W_h.shape[:1]
        z = F.layer_norm(h @ W_h.T, rows, a_1, b_1) + F.layer_norm(x @ W_x.T, rows, a_2, b_2) + b
        f, i, o, g = z.chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * F.layer_norm(c, a_3.shape, a_3, b_3).tanh()
        return h, (h, c)

    return step


def minimal_gated_unit(W_f, b_f, W_h, b_h):
    """Zhou et al., "Minimal gated unit for recurrent neural networks", 2016, on [h, x]."""

    def step(x, h):
        f = (torch.cat([h, x], -1) @ W_f.T + b_f).sigmoid()
        candidate = (torch.cat([f * h, x], -1) @ W_h.T + b_h).tanh()
        h = (1 - f) * h + f * candidate
        return h, h

    return step


def min_gru(W_z, b_z, W_h, b_h):
    """Feng et al., "Were RNNs all we needed?", 2024, section 3.1: the gate sees x alone."""

    def step(x, h):
        z = F.linear(x, W_z, b_z).sigmoid()
        h = (1 - z) * h + z * F.linear(x, W_h, b_h)
        return h, h

    return step


def slstm(W, R, b):
    """Beck et al., "xLSTM", 2024, equations 8 to 17: exponential gates, stabilised by m."""

    def step(x, state):
        h, c, n, m = state
        z, i, f, o = (x @ W.T + h @ R.T + b).chunk(4, -1)
        m_new = torch.maximum(f + m, i)
        i, f = (i - m_new).exp(), (f + m - m_new).exp()
        c = f * c + i * z.tanh()
        n = f * n + i
        h = o.sigmoid() * c / n
        return h, (h, c, n, m_new)

    return step


def attention(memory, U_a, W_a, v, W, U, C):
    """Bahdanau et al., arXiv 1409.0473, A.1.2: e = vᵀ tanh(W h + U m), here in a plain RNN."""
    keys = memory @ U_a.T  # (B, S, H)

    def step(x, h):
        weights = ((keys + (h @ W_a.T).unsqueeze(1)).tanh() @ v).softmax(-1)  # (B, S)
        context = (weights.unsqueeze(1) @ memory).squeeze(1)
        h = (x @ W.T + h @ U.T + context @ C.T).tanh()
        return (h, weights), h

    return step


def clockwork_rnn(W, U, period):
    """Koutník et al., "A clockwork RNN", 2014: the state has an integer in it, the time."""

    def step(x, state):
        h, t = state
        due = (t + torch.arange(h.shape[-1])) % (period + 1) == 0
        h = torch.where(due, (x @ W.T + h @ U.T).tanh(), h)
        return (h, t), (h, t + 1)

    return step


def token_rnn(E, gain, U):
    """The inputs are integers, looked up in two tables (Elman 1990 for the rest)."""

    def step(x, h):
        embedded = F.embedding(x, E) * ops.take(gain, x).unsqueeze(-1)
        h = (embedded + h @ U.T).tanh()
        return h, h

    return step


class Inputs(NamedTuple):
    """A drive, a gate, and whether the step counts: three kinds of input in one tuple."""

    x: Any
    gate: Any
    keep: Any


class Pair(NamedTuple):
    """Two states."""

    h: Any
    c: Any


def masked_pair(W):
    """Two states that steps may leave alone, and outputs that are neither, in a nested tuple."""

    def step(inputs, state):
        keep = (inputs.keep > 2).unsqueeze(-1)
        c = state.c * inputs.gate.sigmoid() + inputs.x
        h = (state.h @ W + c).tanh()
        after = Pair(torch.where(keep, h, state.h), torch.where(keep, c, state.c))
        return (h * inputs.x, (c[:, 1:3], state.h.sum(-1))), after

    return step


def twice(W, b):
    """One weight at two places of a step, once transposed, and one bias added twice."""

    def step(x, h):
        h = ((h @ W + b).tanh() @ W.T + x + b).tanh()
        return h, h

    return step


def pass_through(W):
    """Outputs and states that the step computes nothing for: x itself, h itself, and a weight."""

    def step(x, state):
        kept, last, replaced, h = state
        h = h * replaced + last * kept
        return (x, kept, W, h), (kept, x, W, h)

    return step


def scalar(a):
    """Tensors without axes."""
    return lambda x, h: (h * h, a * h + x)


class Decoder(nn.Module):
    """A cell of `nn` with a readout, as a cell."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTMCell(SIZES["D"], SIZES["H"])
        self.readout = nn.Linear(SIZES["H"], SIZES["P"])

    def forward(self, x, state):
        h, c = self.lstm(x, state)
        return self.readout(h), (h, c)


def module(*weights):
    """A Decoder whose parameters are the given tensors themselves, not copies of them."""
    decoder = Decoder()
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    decoder.lstm._parameters.update(zip(kinds, weights[:4], strict=True))
    decoder.readout._parameters.update(weight=weights[4], bias=weights[5])
    return decoder


def rnn_relu(*weights):
    return equations.rnn(*weights, nonlinearity="relu")


LSTM_WEIGHTS = ("4H,D", "4H,H", "4H", "4H")
NORMS = ("4H", "4H", "4H", "4H", "H", "H")

CASES = [
    Case("RNN tanh", equations.rnn, "B,D", "B,H", ("H,D", "H,H", "H", "H")),
    Case("RNN relu", rnn_relu, "B,D", "B,H", ("H,D", "H,H", "H", "H")),
    Case("LSTM", equations.lstm, "B,D", ("B,H", "B,H"), LSTM_WEIGHTS),
    Case(
        "LSTM projected",
        equations.lstm,
        "B,D",
        ("B,P", "B,H"),
        ("4H,D", "4H,P", "4H", "4H", "P,H"),
    ),
    Case("GRU", equations.gru, "B,D", "B,H", ("3H,D", "3H,H", "3H", "3H")),
    Case("GRU reset before", gru_reset_before, "B,D", "B,H", ("H,D", "H,H") * 3),
    Case("LSTM peephole", peephole_lstm, "B,D", ("B,H", "B,H"), ("4H,D", "4H,H", "4H", *"HHH")),
    Case("LSTM layer norm", layer_norm_lstm, "B,D", ("B,H",) * 2, ("4H,D", "4H,H", "4H", *NORMS)),
    Case("MGU", minimal_gated_unit, "B,D", "B,H", ("H,W", "H", "H,W", "H")),
    Case("minGRU", min_gru, "B,D", "B,H", ("H,D", "H", "H,D", "H")),
    Case("sLSTM", slstm, "B,D", ("B,H", "B,H", "+B,H", "B,H"), ("4H,D", "4H,H", "4H")),
    Case("attention", attention, "B,D", "B,H", ("B,S,P", "H,P", "H,H", "H", "H,D", "H,H", "H,P")),
    Case("clockwork RNN", clockwork_rnn, "B,D", ("B,H", "#"), ("H,D", "H,H", "#H")),
    Case("tokens", token_rnn, "#B", "B,H", ("V,H", "V", "H,H")),
    Case("masked pair", masked_pair, Inputs("B,H", "B,H", "#B"), Pair("B,H", "B,H"), ("H,H",)),
    Case("weight twice", twice, "B,H", "B,H", ("H,H", "H")),
    Case("pass through", pass_through, "B,H", ("B,H", "B,H", "H", "B,H"), ("H",)),
    Case("scalar", scalar, "", "", ("",)),
    Case("module", module, "B,D", ("B,H", "B,H"), (*LSTM_WEIGHTS, "P,H", "P")),
]
