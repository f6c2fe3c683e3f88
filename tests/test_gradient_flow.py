"""gradient_flow: numbers against derivations by hand, differences and closed forms; and words."""

import dataclasses
import importlib.util
import itertools
import math

import numpy as np
import pytest
from recurrent_cells import CASES

import tinygrad_rnn as torch
from tinygrad_rnn import nn, random
from tinygrad_rnn.by_hand import through_time
from tinygrad_rnn.by_hand.cell import Weights
from tinygrad_rnn.by_hand.gru import GRU
from tinygrad_rnn.by_hand.lstm import LSTM
from tinygrad_rnn.by_hand.rnn import RNN
from tinygrad_rnn.diagnose import DiagnosisError, gradient_flow, observing
from tinygrad_rnn.diagnose.flow import decimal
from tinygrad_rnn.diagnose.jacobians import Product, Spectrum, floating, jacobian, spectrum
from tinygrad_rnn.diagnose.verdicts import judge
from tinygrad_rnn.nn.utils.rnn import pack_padded_sequence
from tinygrad_rnn.scan import scan, trees, unroll

pytestmark = pytest.mark.usefixtures("device")

LAYERS = [(RNN("tanh"), nn.RNN), (RNN("relu"), nn.RNN), (LSTM(), nn.LSTM), (GRU(), nn.GRU)]
layers = pytest.mark.parametrize(("derived", "kind"), LAYERS, ids=["tanh", "relu", "LSTM", "GRU"])
T, B, D, H = 6, 3, 2, 4


def numbers(*size, seed=0):
    return torch.tensor(np.random.default_rng([seed, *size]).standard_normal(size))


def of_last(output):
    """A loss of the last step alone."""
    return output[0][-1].square().sum()


def of_all(output):
    return output[0].square().sum()


def only(flow):
    (one,) = flow
    return one


# Gradients.


def total_derivatives(derived, weights, x, start, dy, dlast, reverse):
    """dL/ds of all states in the order in which they ran, by the derivation: (T + 1) tuples."""
    _, _, saved = through_time.forward(derived, weights, x, start, reverse)
    steps = list(reversed(range(len(x)))) if reverse else list(range(len(x)))
    carried, found = dlast, []
    for t in reversed(steps):
        arriving = (dy[t] + carried[0], *carried[1:])
        found.append(arriving)
        if derived.states == ("h", "c"):  # h_t = o ⊙ tanh(c_t) follows c_t
            through_h = arriving[0] * saved[t].o * (1 - saved[t].tanh_c ** 2)
            found[-1] = (arriving[0], arriving[1] + through_h)
        _, _, carried = derived.step_vjp(weights, saved[t], arriving)
    return [carried, *reversed(found)]


@layers
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_all_states_are_those_of_the_derivation(derived, kind, reverse):
    options = {"nonlinearity": derived.nonlinearity} if kind is nn.RNN else {}
    model = kind(D, H, bidirectional=True, **options).double()
    x = numbers(T, B, D)
    h0 = tuple(numbers(2, B, H, seed=k + 1) for k in range(len(derived.states)))
    weight, last = numbers(T, B, 2 * H, seed=5), numbers(2, B, H, seed=6)

    def loss(output):
        ys, state = output
        h_n = state[0] if kind is nn.LSTM else state
        return (ys * weight).sum() + (h_n * last).sum()

    flow = gradient_flow(model, (x, h0 if kind is nn.LSTM else h0[0]), loss)
    suffix = "_l0_reverse" if reverse else "_l0"
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = Weights(*(getattr(model, name + suffix).detach().numpy() for name in names))
    row = int(reverse)
    zero = np.zeros((B, H))
    dlast = (last.numpy()[row], *[zero] * (len(h0) - 1))
    dy = weight.numpy()[..., row * H : (row + 1) * H]
    start = tuple(s.numpy()[row] for s in h0)
    expected = total_derivatives(derived, weights, x.numpy(), start, dy, dlast, reverse)
    one = flow[f"{kind.__name__} layer 0 {'reverse' if reverse else 'forward'}"]
    assert list(one.gradients) == list(derived.states)
    for k, state in enumerate(derived.states):
        norms = np.array([np.linalg.norm(total[k], axis=1) for total in expected])
        np.testing.assert_allclose(one.gradients[state], norms, rtol=1e-10)
        rms = np.sqrt(np.square(norms).mean(axis=1))
        np.testing.assert_allclose(one.norms(state), rms, rtol=1e-10)


def test_gradients_are_differences_of_the_loss():
    """Of a cell whose output is computed from its state: y_t counts into dL/dh_t."""
    W, xs, h0 = numbers(H, H).numpy(), numbers(T, B, H, seed=1).numpy(), numbers(B, H, seed=2)

    def advance(x, h):
        return np.tanh(h @ W + x)

    def loss_from(t, h):
        """The loss of the outputs y_t … y_T and of the last state, given the state after step t."""
        total = (h**3).sum() if t else 0.0
        for x in xs[t:]:
            h = advance(x, h)
            total += (h**3).sum()
        return total + (h**2).sum()

    weight = torch.tensor(W)

    def cell(x, h):
        h = (h @ weight + x).tanh()
        return h**3, h

    flow = gradient_flow(
        lambda x: scan(cell, x, h0),
        torch.tensor(xs),
        lambda out: out[0].sum() + (out[1] ** 2).sum(),
    )
    h, norms = h0.numpy(), []
    for t in range(T + 1):
        slopes = np.zeros((B, H))
        for place in itertools.product(range(B), range(H)):
            step = np.zeros((B, H))
            step[place] = 1e-6
            slopes[place] = (loss_from(t, h + step) - loss_from(t, h - step)) / 2e-6
        norms.append(np.linalg.norm(slopes, axis=1))
        h = advance(xs[t], h) if t < T else h
    np.testing.assert_allclose(only(flow).gradients["h"], norms, rtol=1e-6)


def test_norms_however_small():
    torch.manual_seed(0)
    one = only(
        gradient_flow(nn.RNN(1, 1).double(), numbers(3, 2, 1), lambda o: o[0].sum() * 1e-200)
    )
    large = only(gradient_flow(nn.RNN(1, 1).double(), numbers(3, 2, 1), lambda o: o[0].sum()))
    assert (one.norms("h") > 1e-201).all()
    assert (large.norms("h") > 1e-3).all()


# Jacobians.


def differences(cell, step, row):
    """ds'/ds of one batch row by central differences, from the cell itself."""
    before = [x.detach() for x in trees.leaves(step.before)]
    places = [k for k, x in enumerate(before) if x.is_floating_point()]

    def row_of(values):
        parts = [np.asarray(values[k].detach()) for k in places]
        return np.concatenate([(v[row] if v.ndim > 1 else v).reshape(-1) for v in parts])

    columns = []
    for k in places:
        shape = before[k].shape
        for unit in range(row_of(before).size if shape == () else int(np.prod(shape[-1:]))):
            ends = []
            for sign in (1, -1):
                values = list(before)
                array = before[k].numpy().copy()
                array[(row, unit) if len(shape) > 1 else (unit,) if shape else ()] += sign * 1e-6
                values[k] = torch.tensor(array)
                _, after = cell(step.x, trees.rebuild(step.before, values))
                ends.append(row_of(trees.leaves(after)))
            columns.append((ends[0] - ends[1]) / 2e-6)
    return np.array(columns).T


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("row", [0, 1])
def test_jacobians_of_every_cell(case, row):
    xs, h0, weights = case.leaves()
    cell = case.cell(*weights)
    with observing(None) as recurrences:
        scan(cell, xs, h0)
    for step in recurrences[0].steps[:3]:
        expected = differences(cell, step, row)
        np.testing.assert_allclose(jacobian(step, row), expected, atol=1e-7)


def test_jacobians_of_a_tanh_network():
    """diag(1 - h²) W_hh."""
    model, x = nn.RNN(D, H).double(), numbers(T, B, D)
    with observing(model) as recurrences:
        hs, _ = model(x, numbers(1, B, H))
    W = model.weight_hh_l0.detach().numpy()
    one = only(gradient_flow(model, (x, numbers(1, B, H)), of_all, rows=B))
    product = {row: np.eye(H) for row in range(B)}
    for step in reversed(recurrences[0].steps):
        t = step.t - 1
        for row in range(B):
            J = (1 - hs.detach().numpy()[t, row, :, None] ** 2) * W
            np.testing.assert_allclose(jacobian(step, row), J, atol=1e-14)
            values = np.linalg.svd(J, compute_uv=False)
            product[row] = product[row] @ J
            whole = np.linalg.svd(product[row], compute_uv=False)
            for logs, s in ((one.steps, values), (one.products, whole)):
                np.testing.assert_allclose(np.exp(logs.largest[t, row]), s[0], rtol=1e-9)
                # The SVD of a matrix knows its smallest value to some eps of its largest.
                rounding = 32 * np.finfo(float).eps * s[0]
                np.testing.assert_allclose(
                    np.exp(logs.smallest[t, row]), s[-1], rtol=1e-6, atol=rounding
                )
                mean = np.exp(np.log(s).mean())
                np.testing.assert_allclose(np.exp(logs.geometric_mean[t, row]), mean, rtol=1e-6)
    assert one.blocks == {}


def test_jacobians_of_the_reverse_direction():
    """The same sequence backwards, in the order in which the steps ran."""
    W, xs = numbers(H, H), numbers(T, B, H, seed=1)

    def cell(x, h):
        h = (h @ W + x).tanh()
        return h, h

    h0 = numbers(B, H, seed=2)
    flipped = torch.tensor(xs.numpy()[::-1].copy())
    forward = only(gradient_flow(lambda x: scan(cell, x, h0), xs, of_all))
    backward = only(gradient_flow(lambda x: scan(cell, x, h0, reverse=True), flipped, of_all))
    np.testing.assert_allclose(backward.gradients["h"], forward.gradients["h"])
    np.testing.assert_allclose(backward.products.largest, forward.products.largest)
    assert forward.step_times.tolist() == [1, 2, 3, 4, 5, 6]
    assert forward.state_times.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert backward.step_times.tolist() == [6, 5, 4, 3, 2, 1]
    assert backward.state_times.tolist() == [7, 6, 5, 4, 3, 2, 1]


def test_blocks_of_an_lstm():
    """dc_t/dc_{t-1} by way of the cell state alone is diag(f), if h does not lead back to it."""
    model = nn.LSTM(D, H).double()
    with torch.no_grad():
        model.weight_hh_l0.zero_()
    x = numbers(T, B, D)
    with observing(model) as recurrences:
        model(x)
    one = only(gradient_flow(model, x, of_all))
    assert list(one.blocks) == ["h", "c"]
    for k, step in enumerate(recurrences[0].steps):
        f = step.gates["f"].value.detach().numpy()[0]
        block = one.blocks["c"]
        np.testing.assert_allclose(np.exp(block.largest[k, 0]), f.max(), rtol=1e-12)
        np.testing.assert_allclose(np.exp(block.smallest[k, 0]), f.min(), rtol=1e-12)
        np.testing.assert_allclose(block.geometric_mean[k, 0], np.log(f).mean(), rtol=1e-12)
        assert one.blocks["h"].largest[k, 0] == -math.inf  # h' depends on h through W_hh only
    assert (one.steps.smallest == -math.inf).all()


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0, 2.0, 10.0])
def test_an_orthogonal_linear_network(scale):
    """All singular values of the product of T steps are scale^T: 10^±1000 here."""
    Q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))
    W = torch.tensor(scale * Q)
    h0 = torch.zeros(1, 5, dtype=torch.float64)

    def model(xs):
        return scan(lambda x, h: (h @ W + x, h @ W + x), xs, h0)

    xs = torch.zeros(1000, 1, 5, dtype=torch.float64)
    one = only(gradient_flow(model, xs, lambda out: out[1].sum()))
    left = np.arange(1000, 0, -1)[:, None]
    for values in one.products:
        np.testing.assert_allclose(values, left * np.log(scale), rtol=1e-12, atol=1e-10)
    for values in one.steps:
        np.testing.assert_allclose(values, np.log(scale), rtol=1e-12, atol=1e-12)


def test_products():
    rng = np.random.default_rng(1)
    matrices, product, whole = rng.standard_normal((5, 4, 4)), Product(4), np.eye(4)
    for matrix in matrices:
        found = product.times(matrix, spectrum(matrix))
        whole = whole @ matrix
        np.testing.assert_allclose(found, spectrum(whole), rtol=1e-9)


def test_products_with_a_singular_matrix_and_with_nan():
    regular, singular = np.diag([2.0, 3.0]), np.diag([2.0, 0.0])
    product = Product(2)
    for matrix in (regular, singular, regular):
        found = product.times(matrix, spectrum(matrix))
    assert found == (math.log(8), -math.inf, -math.inf)
    assert product.times(0 * regular, spectrum(0 * regular)) == (-math.inf,) * 3
    product = Product(2)
    for matrix in (np.full((2, 2), np.nan), regular):
        found = product.times(matrix, spectrum(matrix))
    assert np.isnan(found).all()


def test_rows():
    model, x = nn.GRU(D, H).double(), numbers(T, B, D)
    one = only(gradient_flow(model, x, of_all, rows=2))
    assert one.steps.largest.shape == one.products.smallest.shape == (T, 2)
    assert only(gradient_flow(model, x, of_all, rows=99)).steps.largest.shape == (T, B)
    alone = only(gradient_flow(model, x[:, 1:2], of_all))
    for found, expected in zip(one.products, alone.products, strict=True):
        np.testing.assert_allclose(found[:, 1:], expected, rtol=1e-9)


def test_a_norm_over_the_batch_and_a_matrix_as_state():
    """Rows that depend on each other, and a product with the state on the right."""

    def coupled(x, h):
        h = (h - h.mean(0)) * x
        return h, h

    with observing(None) as recurrences:
        scan(coupled, numbers(2, B, H), numbers(B, H))
    step = recurrences[0].steps[1]
    expected = np.diag((1 - 1 / B) * step.x.numpy()[1])
    np.testing.assert_allclose(jacobian(step, 1), expected, atol=1e-14)

    def fast_weights(x, M):
        M = 0.9 * M + (x @ M).unsqueeze(-1) * x
        return x @ M, M

    with observing(None) as recurrences:
        scan(fast_weights, numbers(2, H), numbers(H, H))
    step = recurrences[0].steps[0]
    assert jacobian(step, 2).shape == (H, H)
    x, k = step.x.numpy(), 2
    # M'_kj = 0.9 M_kj + (Σ_i x_i M_ik) x_j, so of row k the entry M_kk enters all of the new row.
    expected = 0.9 * np.eye(H)
    expected[:, k] += x[k] * x
    np.testing.assert_allclose(jacobian(step, k), expected, atol=1e-14)


# Gates.


def test_shares_of_saturated_gates():
    model, x = nn.LSTM(D, H).double(), numbers(T, B, D)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(6)
    with observing(model) as recurrences:
        model(x)
    one = only(gradient_flow(model, x, of_all))
    assert list(one.saturation) == ["i", "f", "g", "o", "tanh(c)"]
    for name, gate in one.saturation.items():
        values = np.array([step.gates[name].value.detach() for step in recurrences[0].steps])
        low = -0.95 if gate.kind == "tanh" else 0.05
        np.testing.assert_allclose(gate.low, (values < low).mean(axis=(1, 2)))
        np.testing.assert_allclose(gate.high, (values > 0.95).mean(axis=(1, 2)))
    assert sum(gate.low.sum() + gate.high.sum() for gate in one.saturation.values()) > 0


# Verdicts.


def kinds(flow):
    return [verdict.kind for verdict in flow.verdicts[only(flow).name]]


def rnn(scale, **options):
    """With orthogonal recurrent weights, times a scale."""
    torch.manual_seed(1)
    model = nn.RNN(D, 8, **options)
    nn.init.orthogonal_(model.weight_hh_l0)
    with torch.no_grad():
        model.weight_hh_l0.mul_(scale)
    return model


def lstm(forget_bias):
    torch.manual_seed(1)
    model = nn.LSTM(D, 8)
    with torch.no_grad():
        model.bias_ih_l0[8:16] = forget_bias
    return model


QUIET = 0.01 * np.random.default_rng(0).standard_normal((60, 4, D)).astype(np.float32)


@pytest.mark.parametrize("loss", [of_last, of_all])
@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: rnn(0.7), ["vanishing"]),
        (lambda: rnn(1.0, bias=False), ["healthy"]),
        (lambda: rnn(1.3, nonlinearity="relu", bias=False), ["exploding"]),
        (lambda: lstm(0.0), ["vanishing"]),
        (lambda: lstm(4.0), ["healthy"]),
        (lambda: lstm(-20.0), ["dead gate", "vanishing"]),
    ],
)
def test_verdicts(made, loss, expected):
    assert kinds(gradient_flow(made(), torch.tensor(QUIET), loss)) == expected


def test_what_verdicts_say():
    def finding(model):
        flow = gradient_flow(model, torch.tensor(QUIET), of_last)
        return flow.verdicts[only(flow).name][0].finding

    def linear(scale):
        W = torch.tensor(scale * np.eye(3, dtype=np.float32))
        return lambda x: scan(lambda x, h: (h @ W, h @ W), x, torch.ones(1, 3))

    # 0.8^20 = 0.0115, 0.8^21 = 0.0092, 0.8^60 = 1.5e-6; 1.1^60 = 304
    assert finding(linear(0.8)) == (
        "vanishing at rate 0.8 per step: of a gradient at the end less than 1% is left 21 steps "
        "earlier, and at most 1.5e-06 at the start"
    )
    assert finding(linear(1.1)) == (
        "exploding at rate 1.1 per step: over the last 60 steps a gradient grows up to 300 times"
    )
    assert finding(linear(1.0)).startswith("healthy: at the start, a gradient at the end is at mos")
    assert "dead gate f: 100% of its values are below 0.05" in finding(lstm(-20.0))


def test_a_saturated_tanh():
    model = rnn(0.5)
    flow = gradient_flow(model, torch.tensor(QUIET * 1e5), of_last)
    assert "saturated" in kinds(flow)


def test_why_the_product_decides():
    """A loss of all steps hides that gradients vanish; a loss of the last step shows their rate."""
    torch.manual_seed(0)
    model, x = nn.LSTM(8, 32), torch.randn(100, 8, 8)

    def rate(loss):
        one = only(gradient_flow(model, x, loss))
        slope = np.polyfit(one.state_times[10:90], np.log(one.norms("h"))[10:90], 1)[0]
        return math.exp(-slope), math.exp(one.products.largest[0, 0] / 100)

    falls, product = rate(of_last)
    assert abs(falls - product) < 0.05
    assert product < 0.7
    falls, again = rate(of_all)
    assert again == product
    assert falls > 0.98


def test_nothing_reaches_a_recurrence():
    model = nn.GRU(D, H)
    flow = gradient_flow(model, torch.randn(T, B, D), lambda out: out[0].detach().sum())
    assert kinds(flow)[0] == "cut off"
    assert only(flow).norms("h").tolist() == [0] * (T + 1)

    def frozen(x):
        with torch.no_grad():
            return model(x)

    flow = gradient_flow(frozen, torch.randn(T, B, D), of_all)
    assert kinds(flow) == ["cut off"]
    str(flow)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite(value):
    x = torch.randn(T, B, D)
    x[3, 1] = value
    model = nn.RNN(D, H, nonlinearity="relu")
    flow = gradient_flow(model, x, of_all)
    (verdict,) = flow.verdicts["RNN layer 0 forward"]
    assert verdict.kind == "non-finite"
    assert verdict.finding.endswith("first in the state after t = 4")
    assert "explain_nan" in verdict.advice
    str(flow)


def test_gradients_and_jacobians_that_are_not_finite():
    def cell(x, h):
        h = (h * x).sqrt() + 1
        return h, h

    xs = torch.ones(5, 2)
    xs[2] = 0  # the slope of sqrt is infinite there
    flow = gradient_flow(lambda x: scan(cell, x, torch.ones(2)), xs, of_last)
    (verdict,) = flow.verdicts[only(flow).name]
    assert verdict.finding.endswith("first in the gradient of the state after t = 2")
    sound = only(gradient_flow(lambda x: scan(cell, x, torch.ones(2)), xs + 1, of_last))
    steps = Spectrum(*(np.where(np.arange(5)[:, None] == 2, np.nan, x) for x in sound.steps))
    (verdict,) = judge(dataclasses.replace(sound, steps=steps))
    assert verdict.finding.endswith("first in the Jacobian of t = 3")


@pytest.mark.parametrize(
    ("log", "text"),
    [
        (0.0, "1"),
        (math.log(0.25), "0.25"),
        (math.log(304), "300"),
        (50.0, "5.2e+21"),
        (-2000.0, "2.6e-869"),
        (-math.inf, "0"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_decimal(log, text):
    assert decimal(log) == text


# Any recurrence, and what may be wrong.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("shape", [(1, 2, D), (5, D), (1, D), (4, 1, D)])
def test_lengths_and_layouts(kind, dtype, shape):
    model = kind(D, 1).to(dtype)
    x = torch.randn(*shape).to(dtype)
    one = only(gradient_flow(model, x, of_last))
    steps, batch = shape[0], shape[1] if len(shape) == 3 else 1
    for state, size in one.sizes.items():
        assert size == 1
        assert one.gradients[state].shape == (steps + 1, batch)
        assert one.gradients[state].dtype == np.float64
        assert (one.gradients[state][-1] > 0).all()
    assert one.steps.largest.shape == (steps, 1)


def test_several_layers_and_directions():
    model = nn.LSTM(D, 3, num_layers=2, bidirectional=True, proj_size=2)
    flow = gradient_flow(model, torch.randn(T, B, D), of_all)
    assert [one.name for one in flow] == [
        f"LSTM layer {layer} {way}" for layer in (0, 1) for way in ("forward", "reverse")
    ]
    assert len(flow) == 4
    assert [one.reverse for one in flow] == [False, True, False, True]
    assert flow["LSTM layer 1 reverse"].sizes == {"h": 2, "c": 3}
    with pytest.raises(KeyError, match="no recurrence 'lstm'; there are LSTM layer 0 forward, "):
        flow["lstm"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cells_of_ones_own(case):
    xs, h0, weights = case.leaves()

    def loss(output):
        return sum(y.sum() for y in trees.leaves(output) if y.is_floating_point())

    flow = gradient_flow(lambda x: scan(case.cell(*weights), x, h0), (xs,), loss)
    assert len(only(flow).gradients) == len(floating(h0))
    assert all(len(line) <= 100 for line in str(flow).splitlines())


def test_a_packed_sequence_is_one_input():
    packed = pack_padded_sequence(numbers(T, B, D), [T, 4, 2])
    flow = only(gradient_flow(nn.GRU(D, H).double(), packed, lambda out: out[0].data.sum()))
    assert flow.length == T
    reached = flow.gradients["h"][:-1] > 0  # of rows that go on after t
    assert reached.T.astype(int).tolist() == [[1] * 6, [1] * 4 + [0] * 2, [1] * 2 + [0] * 4]


def test_a_cell_that_branches():
    def cell(x, h):
        if x.sum() > 0:
            h = (h * 0.5 + x).sigmoid()
        return h, h

    xs = torch.tensor([1.0, -1.0, 2.0, -3.0])
    flow = gradient_flow(lambda x: unroll(cell, x, torch.zeros(())), xs, lambda out: out[1].sum())
    gate = only(flow).saturation["h"]
    assert np.isnan(gate.low).tolist() == [False, True, False, True]
    assert np.exp(only(flow).steps.largest[[1, 3], 0]).tolist() == [1, 1]
    str(flow)


def test_the_model_is_as_it_was():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(D, D), nn.Dropout(0.5))
    gru = nn.GRU(D, H, num_layers=2, dropout=0.3)
    x = torch.randn(T, B, D, requires_grad=True)
    gru.weight_hh_l0.grad = marked = torch.ones(3 * H, H)
    state = random.generator().get_state()
    expected = gru(model(x))[0].sum().item()
    after = random.generator().get_state()
    random.generator().set_state(state)
    flow = gradient_flow(lambda x: gru(model(x)), x, lambda out: out[0].sum())
    assert flow.loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(random.generator().get_state(), after)
    assert gru.training
    assert gru.weight_hh_l0.grad is marked
    assert marked.tolist() == np.ones((3 * H, H)).tolist()
    assert gru.weight_hh_l1.grad is None
    assert x.grad is None


def test_it_can_be_asked_under_no_grad():
    with torch.no_grad():
        flow = gradient_flow(nn.GRU(D, H), torch.randn(T, B, D), of_all)
    assert (only(flow).norms("h") > 0).all()


@pytest.mark.parametrize(
    ("kind", "loss", "options", "error", "message"),
    [
        (nn.Linear, lambda out: out.sum(), {}, DiagnosisError, "no recurrence ran"),
        (nn.GRU, lambda out: 3.0, {}, DiagnosisError, "loss gave float"),
        (nn.GRU, lambda out: out[0], {}, DiagnosisError, r"shape \(6, 3, 4\)"),
        (nn.GRU, of_all, {"rows": 0}, DiagnosisError, "rows is how many"),
    ],
)
def test_wrong_arguments(kind, loss, options, error, message):
    model = kind(D, H)
    with pytest.raises(error, match=message):
        gradient_flow(model, torch.randn(T, B, D), loss, **options)


def test_a_state_of_integers_alone():
    def counting(x, n):
        return x, n + 1

    with pytest.raises(ValueError, match="no recurrence"):
        gradient_flow(lambda x: scan(counting, x, torch.tensor(0)), torch.ones(3), of_all)


# How it is shown.


def test_the_table():
    flow = gradient_flow(lstm(-20.0), torch.tensor(QUIET), of_last)
    lines = str(flow).splitlines()
    assert lines[0].startswith("gradient flow, loss ")
    assert "LSTM layer 0 forward: T = 60, B = 4, h of 8, c of 8" in lines
    rows = [line.split() for line in lines if line.split()[:1] and line.split()[0].isdigit()]
    assert [row[0] for row in rows] == ["0", "8", "15", "22", "30", "38", "45", "52", "60"]
    last = rows[-1]
    one = only(flow)
    assert last[1] == f"{one.norms('h')[-1]:.1e}"
    assert last[-1] == decimal(one.products.largest[-1, 0])
    bars = [row[2] for row in rows if len(row) > 2 and set(row[2]) == {"#"}]
    assert len(bars[-1]) == max(map(len, bars)) == 12
    (gate,) = (line for line in lines if line.startswith("f  "))
    assert " ".join(gate.split()) == "f sigmoid 100% < 0.05 0% > 0.95 100% at t = 1"
    assert sum(line == "What usually helps" for line in lines) == 1
    assert all(len(line) <= 100 for line in lines)


def test_a_table_of_one_step_and_of_zeros():
    flow = gradient_flow(nn.GRU(D, H), torch.randn(1, B, D), lambda out: 0 * out[0].sum())
    assert "cut off" in str(flow)


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
@pytest.mark.parametrize("bad", [0.0, math.nan])
def test_the_figure(bad, tmp_path):
    model = nn.GRU(D, H, num_layers=2, bidirectional=True)
    x = torch.randn(T, B, D)
    x[3] = bad
    flow = gradient_flow(model, x, of_all)
    figure = flow.draw()
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert len(panels) == 4 * 4
    if not bad:
        (line,) = panels[4].get_lines()  # of the reverse direction
        assert line.get_xdata().tolist() == [7, 6, 5, 4, 3, 2, 1]
        np.testing.assert_allclose(line.get_ydata(), flow["GRU layer 0 reverse"].norms("h"))
    figure.savefig(tmp_path / "flow.png")
    linear = gradient_flow(
        lambda x: scan(lambda x, h: (h, 0 * h), x, torch.ones(2)), torch.ones(1, 2), of_last
    )
    linear.draw().savefig(tmp_path / "zeros.png")
