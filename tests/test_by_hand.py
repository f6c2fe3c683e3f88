"""The gradients derived by hand against measured slopes; the page that derives them; `verify`."""

import doctest
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import tinygrad_rnn as torch
from tinygrad_rnn import nn, ops, scan
from tinygrad_rnn.by_hand import check_all, gru, lstm, matrix, rnn, stacked, verify
from tinygrad_rnn.by_hand.cross_entropy import cross_entropy, cross_entropy_vjp
from tinygrad_rnn.by_hand.gru import GRU
from tinygrad_rnn.by_hand.lstm import LSTM
from tinygrad_rnn.by_hand.numerical import central_difference, complex_step
from tinygrad_rnn.by_hand.rnn import RNN
from tinygrad_rnn.by_hand.verification import (
    DERIVATION_IS_WRONG,
    EITHER_IS_WRONG,
    FUNCTIONS_DIFFER,
    GRAPH_IS_WRONG,
)

#: The derivations are plain NumPy; a layer that is held against them may be anywhere.
on_every_device = pytest.mark.usefixtures("device")

CELLS = {
    "RNN tanh": RNN("tanh"),
    "RNN relu": RNN("relu"),
    "LSTM": LSTM(),
    "GRU": GRU(),
    "GRU reset before": GRU(reset_after=False),
}
T, B, D, H, P = 5, 6, 2, 4, 3


def random_parameters(rng, cell, layers, directions, bias, proj=0):
    """PyTorch's names and shapes, drawn wide enough that gates and tanh are not linear."""
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


def silently(layer, x=None, *args, **kwargs):
    """`verify` on random values, without printing."""
    if x is None:
        x = np.random.default_rng(0).normal(size=(T, B, D))
    return verify(layer, x, *args, report=lambda table: None, **kwargs)


@on_every_device
@pytest.mark.parametrize(
    "made",
    [
        lambda: nn.RNN(D, H, 2, nonlinearity="relu", dtype=torch.float64),
        lambda: nn.LSTM(D, H, 2, bidirectional=True, proj_size=P),
        lambda: nn.GRU(D, H, bias=False),
    ],
    ids=["RNN", "LSTM", "GRU"],
)
def test_verify_passes_and_leaves_the_layer_alone(made):
    layer = made()
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    result = silently(layer)
    assert result.passed, result
    assert {row.name for row in result.gradients} == {*before, "x"} | (
        {"h_0", "c_0"} if isinstance(layer, nn.LSTM) else {"h_0"}
    )
    for row in result.gradients:
        assert row.by_hand < 1e-13
        assert row.complex_step < 1e-12
        assert 0 < row.differences < 1e-7  # rounding is there, if it was measured at all
    for name, parameter in layer.named_parameters():
        assert parameter.grad is None
        assert parameter.dtype == before[name].dtype
        assert (parameter == before[name]).all().item()


@on_every_device
def test_verify_in_every_layout_and_with_given_states():
    rng = np.random.default_rng(0)
    h, c = rng.normal(size=(2, 2, B, H))
    dropping = nn.LSTM(D, H, 2, dropout=0.5)
    assert dropping.training
    assert silently(dropping, torch.randn(T, B, D), (torch.tensor(h), c))
    assert silently(nn.GRU(D, H, 2, batch_first=True), torch.randn(B, T, D), h)
    assert silently(nn.GRU(D, H, 2, batch_first=True), torch.randn(T, D), h[:, 0])
    assert silently(nn.LSTM(D, H, 2), torch.randn(T, D), [h[:, 0], c[:, 0]])


@on_every_device
def test_verify_along_directions():
    """A layer too large for every element: in every gate block, and still sensitive."""
    layer, x = nn.LSTM(9, 20, 2), np.random.default_rng(0).normal(size=(4, 2, 9))
    result = silently(layer, x)
    assert result.passed
    assert "2 directions per gate" in str(result)
    assert not silently(layer, x, cell=Slip(lstm, "LSTM", "df = dc * c_prev", "df = 0 * dc"))


def test_verify_steps_around_a_kink():
    """a = 5e-6 is nearer to the kink of relu than the first step of the differences."""
    layer = nn.RNN(1, 1, bias=False, nonlinearity="relu")
    with torch.no_grad():
        layer.weight_ih_l0.fill_(1.0)
    assert silently(layer, np.full((1, 1, 1), 5e-6), np.zeros((1, 1, 1)))


def test_verify_prints_what_it_returns(capsys):
    result = verify(nn.RNN(2, 3), np.ones((2, 1, 2)))
    assert capsys.readouterr().out == f"{result}\n"
    lines = str(result).splitlines()
    assert lines[0] == "RNN(2, 3): float64, every element"
    assert lines[-1] == "ok: all agree."
    assert [line.split()[:2] for line in lines[5:7]] == [
        ["d", "weight_ih_l0"],
        ["d", "weight_hh_l0"],
    ]


def Slip(module, name, right, wrong):
    """The cell of a by-hand file in which `right` has been written as `wrong`."""
    source = Path(module.__file__).read_text("utf-8")
    assert source.count(right) == 1, f"{module.__name__} does not say {right!r} once"
    namespace = {"__name__": module.__name__}
    exec(source.replace(right, wrong), namespace)
    return namespace[name]()


@pytest.mark.parametrize(
    ("module", "layer", "right", "wrong", "gate"),
    [
        (rnn, nn.RNN, "1 - h * h", "1 - h", "gate h"),
        (rnn, nn.RNN, "dh_prev = da @ w.W_hh", "dh_prev = da @ w.W_hh.T", ""),
        (lstm, nn.LSTM, "di = dc * g", "di = dc * i", "gate i"),
        (lstm, nn.LSTM, "df = dc * c_prev", "df = dc * (f * c_prev + i * g)", "gate f"),
        (lstm, nn.LSTM, "1 - g * g", "g - g * g", "gate g"),
        (lstm, nn.LSTM, "do = dm * tanh_c", "do = dm * m", "gate o"),
        (lstm, nn.LSTM, "dc = dc + dm * o", "dc = dm * o", ""),
        (lstm, nn.LSTM, "dc_prev = dc * f", "dc_prev = dc", ""),
        (gru, nn.GRU, "dr = da_n * u", "dr = da_n * h_prev", "gate r"),
        (gru, nn.GRU, "dz = dh * (h_prev - n)", "dz = dh * (n - h_prev)", "gate z"),
        (gru, nn.GRU, "du = da_n * r", "du = da_n", "gate n"),
        (gru, nn.GRU, "dh * z + dh_candidate", "dh_candidate", ""),
    ],
)
def test_verify_finds_a_slip_of_the_hand(module, layer, right, wrong, gate):
    name = layer.__name__
    result = silently(layer(D, H, dtype=torch.float64), cell=Slip(module, name, right, wrong))
    assert not result
    assert result.verdict.endswith(DERIVATION_IS_WRONG)
    assert gate in result.verdict


@pytest.fixture
def plant(monkeypatch):
    """Put a wrong rule in place of a primitive's, also in steps that were differentiated before."""

    def planted(primitive, rule):
        monkeypatch.setattr(primitive, "rules", (rule,))
        scan.forget()

    yield planted
    monkeypatch.undo()
    scan.forget()


@pytest.mark.parametrize("gate", range(4))
def test_verify_finds_a_wrong_vjp_of_the_graph(plant, gate):
    """The cotangent of one gate comes back 1 % too large from the split of the pre-activation."""
    (right,) = ops.split.rules

    def wrong(gs, y, x, **params):
        gs = list(gs)
        gs[gate] = gs[gate] * 1.01
        return right(gs, y, x, **params)

    layer = nn.LSTM(D, H)
    assert silently(layer)
    plant(ops.split, wrong)
    result = silently(layer)
    assert not result
    assert result.verdict.endswith(GRAPH_IS_WRONG)
    assert f"(gate {'ifgo'[gate]})" in result.verdict


def test_verify_says_when_differences_cannot_decide(plant):
    plant(ops.tanh, lambda g, y, _x: g * (1 + 1e-8 - y * y))
    result = silently(nn.RNN(D, H))
    assert not result
    assert result.verdict.endswith(EITHER_IS_WRONG)


def test_verify_names_the_time_step(plant):
    """The adjoint of unstack loses the last step of the sequence."""
    (right,) = ops.unstack.rules

    def wrong(gs, shapes, x, **axis):
        if isinstance(gs, list | tuple) and len(gs) == T:
            gs = [*gs[:-1], 0 * gs[-1]]
        return right(gs, shapes, x, **axis)

    plant(ops.unstack, wrong)
    result = silently(nn.GRU(D, H, mode="unroll"))
    assert f"most in x (t={T - 1})" in result.verdict


def test_verify_says_when_the_functions_differ():
    result = silently(nn.GRU(D, H), cell=GRU(reset_after=False))
    assert not result
    assert result.verdict.endswith(FUNCTIONS_DIFFER)


def test_nan_is_no_agreement(plant):
    plant(ops.tanh, lambda g, y, _x: g * float("nan") * y)
    result = silently(nn.RNN(D, H))
    assert not result
    assert result.verdict.startswith("FAIL: the gradients differ")


def test_verify_refuses():
    x = np.ones((T, B, D))
    with pytest.raises(TypeError, match=r"no derivation for Linear, only for nn\.RNN"):
        verify(nn.Linear(2, 3), x)
    with pytest.raises(ValueError, match="expected x of shape"):
        verify(nn.RNN(D, H), x[0, 0])
    with pytest.raises(ValueError, match=r"expected the states \['h_0', 'c_0'\], got 1"):
        verify(nn.LSTM(D, H), x, np.ones((1, B, H)))
    with pytest.raises(ValueError, match="Linear has no parameter named weight_hh_l0"):
        verify(nn.Linear(2, 3), x, cell=RNN())


@on_every_device
def test_check_all(monkeypatch):
    """One kind of layer (the command runs all): the variant whose graph is not in nn."""
    lines = []
    monkeypatch.setattr(matrix, "STEPS", 3)
    monkeypatch.setattr(matrix, "LAYERS", {k: v for k, v in matrix.LAYERS.items() if "before" in k})
    assert check_all(report=lines.append)
    assert len(lines) == 2 + 8
    assert all(line.endswith("  ok") for line in lines[2:])


def test_check_all_fails(monkeypatch, plant):
    lines = []
    monkeypatch.setattr(matrix, "STEPS", 2)
    monkeypatch.setattr(matrix, "LAYERS", {"RNN": matrix.LAYERS["RNN tanh"]})
    plant(ops.tanh, lambda g, y, _x: g * (1 - y))
    assert not check_all(report=lines.append)
    assert sum(line.endswith("  FAIL") for line in lines) == 8
