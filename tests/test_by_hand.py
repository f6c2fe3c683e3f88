"""The gradients derived by hand against measured slopes; the page that derives them; `verify`."""

import doctest
import itertools
import re
from pathlib import Path

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
    values |= zip(cell.states, random_state(rng, cell, layers, directions, proj), strict=True)

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
        for v in rng.normal(size=(4, *a.shape)):  # no element of v is 0: none goes unmeasured
            measured = complex_step(lambda a, name=name: loss(values | {name: a}), a, v)
            assert measured == pytest.approx(np.vdot(gradients[name], v), rel=1e-10, abs=1e-11)


def test_complex_step_equals_differences():
    """The instrument itself: the two ways of measuring a slope share nothing but the function."""
    cell, rng = LSTM(), np.random.default_rng(1)
    parameters, state = random_parameters(rng, cell, 2, 2, True), random_state(rng, cell, 2, 2)
    x, v = rng.normal(size=(2, T, B, D))
    f = lambda x: stacked.forward(cell, parameters, x, state)[0].sum()
    assert complex_step(f, x, v) == pytest.approx(central_difference(f, x, v), rel=1e-8)


def test_cross_entropy_equals_complex_step():
    rng = np.random.default_rng(0)
    logits, target = rng.normal(0, 3, (5, 7)), rng.integers(7, size=5)
    dlogits = cross_entropy_vjp(logits, target)
    for v in rng.normal(size=(4, 5, 7)):
        measured = complex_step(lambda a: cross_entropy(a, target), logits, v)
        assert measured == pytest.approx(np.vdot(dlogits, v), rel=1e-12)
    assert np.allclose(dlogits.sum(axis=-1), 0)
    surely_wrong = cross_entropy_vjp(np.array([[1000.0, -1000.0]]), np.array([1]))
    assert surely_wrong.tolist() == [[1.0, -1.0]]  # no overflow, no saturation


def test_no_weight_matrix_on_the_direct_path_of_the_cell_state():
    """dc_0 = f^T dc_T however large W_hh is, as long as h does not reach the gates."""
    H, T, f = 3, 50, 0.99
    b = np.repeat([0.0, np.log(f / (1 - f)), 0.0, 0.0], H)  # sigmoid(b_f) = f
    parameters = {
        "weight_ih_l0": np.zeros((4 * H, 1)),
        "weight_hh_l0": np.zeros((4 * H, H)),
        "bias_ih_l0": b,
        "bias_hh_l0": 0 * b,
    }
    zero, one = np.zeros((1, 1, H)), np.ones((1, 1, H))
    y, _, saved = stacked.forward(LSTM(), parameters, np.zeros((T, 1, 1)), (zero, one))
    _, _, (_, dc_0) = stacked.backward(LSTM(), parameters, saved, 0 * y, (zero, one))
    assert dc_0 == pytest.approx(f**T, rel=1e-12)


def test_parameters_without_a_first_layer():
    with pytest.raises(ValueError, match="no weight_ih_l0 among"):
        stacked.forward(RNN(), {"weight": np.zeros((1, 1))}, np.zeros((1, 1, 1)), ())


PAGE = Path(__file__).parents[1] / "docs" / "derivations.md"
BLOCKS = re.findall(r'^```python title="([^"]+)"\n(.*?)^```', PAGE.read_text("utf-8"), re.M | re.S)


def test_the_page_runs():
    assert doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8").failed == 0


@pytest.mark.parametrize(("file", "block"), BLOCKS)
def test_the_page_quotes_the_code(file, block):
    """Every line quoted stands in the file it is said to be from, and in that order."""
    source = PAGE.parents[1] / "tinygrad_rnn" / file
    lines = iter([line.strip() for line in source.read_text("utf-8").splitlines()])
    for quoted in block.splitlines():
        assert quoted.strip() in lines, f"{file} has no line {quoted!r} after the ones before it"
