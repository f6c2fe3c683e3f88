"""The gradients derived by hand, against slopes measured by complex step; then the graph against both."""

import itertools

import numpy as np
import pytest

from tinygrad_rnn.by_hand import stacked
from tinygrad_rnn.by_hand.cross_entropy import cross_entropy, cross_entropy_vjp
from tinygrad_rnn.by_hand.gru import GRU
from tinygrad_rnn.by_hand.lstm import LSTM
from tinygrad_rnn.by_hand.numerical import central_difference, complex_step
from tinygrad_rnn.by_hand.rnn import RNN

CELLS = {
    "RNN tanh": RNN("tanh"),
    "RNN relu": RNN("relu"),
    "LSTM": LSTM(),
    "GRU": GRU(),
    "GRU reset before": GRU(reset_after=False),
}
T, B, D, H, P = 5, 3, 2, 4, 3


def random_parameters(rng, cell, layers, directions, bias, proj=0):
    """PyTorch's names and shapes, drawn wide enough that gates and tanh leave their linear range."""
    rows, out = len(cell.gates) * H, proj or H
    parameters = {}
    for layer, suffix in itertools.product(range(layers), ["", "_reverse"][:directions]):
        name, columns = f"_l{layer}{suffix}", D if layer == 0 else directions * out
        parameters["weight_ih" + name] = rng.normal(0, 0.7, (rows, columns))
        parameters["weight_hh" + name] = rng.normal(0, 0.7, (rows, out))
        if bias:
            parameters["bias_ih" + name] = rng.normal(0, 0.7, rows)
            parameters["bias_hh" + name] = rng.normal(0, 0.7, rows)
        if proj:
            parameters["weight_hr" + name] = rng.normal(0, 0.7, (proj, H))
    return parameters


def random_state(rng, cell, layers, directions, proj=0):
    widths = {"h": proj or H, "c": H}
    return tuple(rng.normal(size=(layers * directions, B, widths[name])) for name in cell.states)


CASES = [
    (name, layers, directions, bias, proj)
    for name, layers, directions, bias in itertools.product(CELLS, (1, 3), (1, 2), (True, False))
    for proj in ((0, P) if name == "LSTM" else (0,))
]


@pytest.mark.parametrize(("name", "layers", "directions", "bias", "proj"), CASES)
def test_gradient_equals_complex_step(name, layers, directions, bias, proj):
    cell, rng = CELLS[name], np.random.default_rng(0)
    values = random_parameters(rng, cell, layers, directions, bias, proj)
    names = list(values)
    values["x"] = rng.normal(size=(T, B, D))
    values |= zip(
        cell.states, random_state(rng, cell, layers, directions, proj), strict=True
    )

    def run(values):
        parameters = {name: values[name] for name in names}
        return stacked.forward(cell, parameters, values["x"], tuple(values[s] for s in cell.states))

    output, state_n, saved = run(values)
    assert output.shape == (T, B, directions * (proj or H))
    doutput = rng.normal(size=output.shape)
    dstate_n = tuple(rng.normal(size=s.shape) for s in state_n)

    def loss(values):
        output, state_n, _ = run(values)
        pairs = zip((output, *state_n), (doutput, *dstate_n), strict=True)
        return sum((a * da).sum() for a, da in pairs)

    parameters = {name: values[name] for name in names}
    gradients, dx, dstate_0 = stacked.backward(cell, parameters, saved, doutput, dstate_n)
    assert list(gradients) == names
    gradients |= {"x": dx} | dict(zip(cell.states, dstate_0, strict=True))
    for name, a in values.items():
        # A hundred elements at most: in random directions of all signs, each with its own weight.
        for v in rng.normal(size=(4, *a.shape)):
            measured = complex_step(lambda a, name=name: loss(values | {name: a}), a, v)
            assert measured == pytest.approx((gradients[name] * v).sum(), rel=1e-10, abs=1e-11)
