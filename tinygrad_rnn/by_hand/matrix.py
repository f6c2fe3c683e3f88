"""Do all the layers pass? `check_all` is what `tinygrad-rnn check` runs: `verify` on every variant.

Every kind of layer, one layer and two, one direction and both, with and without bias, each on every
element of every array. Also the GRU whose reset gate acts before the product, which `nn` does not
have: its graph is defined here. Read `compare.py` before this file.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np

from tinygrad_rnn import nn
from tinygrad_rnn.by_hand.compare import verify
from tinygrad_rnn.by_hand.gru import GRU
from tinygrad_rnn.by_hand.verification import TOLERANCES
from tinygrad_rnn.scan import Cell
from tinygrad_rnn.tensor import Tensor

# Sizes that are all different, so that no exchange of two axes goes unnoticed.
STEPS, BATCH, INPUTS, HIDDEN, PROJECTED = 5, 6, 2, 4, 3


class ResetBeforeGRU(nn.GRU):
    """`nn.GRU` with n = tanh(W_in x + b_in + W_hn (r ⊙ h) + b_hn): arXiv 1406.1078v3."""

    def cell(self, layer: int = 0, reverse: bool = False) -> Cell:
        """The step of one layer in one direction; a bias that is not there is 0."""
        suffix = f"_l{layer}_reverse" if reverse else f"_l{layer}"
        W_ih, W_hh = getattr(self, "weight_ih" + suffix), getattr(self, "weight_hh" + suffix)
        W_hr, W_hz, W_hn = W_hh.chunk(3, 0)  # (H, H) each
        b_ih, b_hr, b_hz, b_hn = 0.0, 0.0, 0.0, 0.0
        if self.bias:
            b_ih = getattr(self, "bias_ih" + suffix)
            b_hr, b_hz, b_hn = getattr(self, "bias_hh" + suffix).chunk(3, 0)

        def step(x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            r_x, z_x, n_x = (x @ W_ih.T + b_ih).chunk(3, -1)  # (B, H) each
            r = (r_x + h @ W_hr.T + b_hr).sigmoid()
            z = (z_x + h @ W_hz.T + b_hz).sigmoid()
            n = (n_x + (r * h) @ W_hn.T + b_hn).tanh()
            h = (1 - z) * n + z * h
            return h, h

        return step


LAYERS: dict[str, tuple[Callable[..., nn.Module], GRU | None]] = {
    "RNN tanh": (nn.RNN, None),
    "RNN relu": (partial(nn.RNN, nonlinearity="relu"), None),
    "LSTM": (nn.LSTM, None),
    "LSTM projected": (partial(nn.LSTM, proj_size=PROJECTED), None),
    "GRU": (nn.GRU, None),
    "GRU reset before": (ResetBeforeGRU, GRU(reset_after=False)),
}


def check_all(report: Callable[[str], object] = print) -> bool:
    """Whether the graph's gradients equal those by hand, by complex step and by differences.

    report: is called with a line per configuration, with the largest difference of each kind; after
        a line that says FAIL, with the table of `verify`.

    Weights, inputs, states and loss are drawn from a fixed seed. Takes some tens of seconds.
    """
    kinds = ("by_hand", "complex_step", "differences")
    report(f"{'the graph against':51}{'by hand':>9}{'complex step':>14}{'differences':>13}")
    report(_line("(largest allowed)", [TOLERANCES[kind] for kind in kinds]))
    passed = True
    for name, num_layers, bidirectional, bias in itertools.product(
        LAYERS, (1, 2), (False, True), (True, False)
    ):
        make, cell = LAYERS[name]
        rng = np.random.default_rng(0)
        layer = make(INPUTS, HIDDEN, num_layers, bias=bias, bidirectional=bidirectional).double()
        for parameter in layer.parameters():
            parameter.data = Tensor(rng.normal(0, 0.7, parameter.shape))
        x = rng.normal(size=(STEPS, BATCH, INPUTS))
        result = verify(layer, x, cell=cell, report=lambda table: None)
        rows = (*result.outputs, *result.gradients)
        worst = [max(getattr(row, kind) for row in rows) for kind in kinds]
        options = [name, "1 layer" if num_layers == 1 else f"{num_layers} layers"]
        options += ["both directions"] * bidirectional + ["no bias"] * (not bias)
        report(_line(", ".join(options), worst) + ("  ok" if result.passed else "  FAIL"))
        if not result.passed:
            report(str(result))
        passed = passed and result.passed
    return passed


def _line(name: str, errors: list[float]) -> str:
    by_hand, complex_step, differences = errors
    return f"{name:52}{by_hand:8.1e}{complex_step:14.1e}{differences:13.1e}"
