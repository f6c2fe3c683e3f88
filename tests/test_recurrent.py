"""Recurrent cells and layers: the equations, time and layers, dropout, gradients, and messages.

What is here needs no PyTorch; tests/parity/test_recurrent.py compares every option with it.
"""

import copy
import math

import numpy as np
import pytest

import tinygrad_rnn as torch
from tinygrad_rnn import nn
from tinygrad_rnn.autograd import gradcheck, gradgradcheck
from tinygrad_rnn.nn.recurrent import equations
from tinygrad_rnn.scan import unroll

pytestmark = pytest.mark.usefixtures("device")

LAYERS = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu"}),
    ("LSTM", {}),
    ("LSTM", {"proj_size": 2}),
    ("GRU", {}),
]


def drawn(*shape, dtype="float64", requires_grad=False):
    values = np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)
    return torch.tensor(values, requires_grad=requires_grad)


def initial_state(layer, batch=(), requires_grad=False):
    """A random state for a float64 layer."""
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    sizes = [layer.proj_size or layer.hidden_size, layer.hidden_size]
    states = [drawn(rows, *batch, size, requires_grad=requires_grad) for size in sizes]
    return tuple(states) if isinstance(layer, nn.LSTM) else states[0]


def as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


# The equations, in scalars.


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


X, H0, C0 = 0.7, -0.4, 1.3


def column(*values):
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("nonlinearity", "function"), [("tanh", math.tanh), ("relu", lambda a: max(a, 0))]
)
@pytest.mark.parametrize("b", [0.25, -0.75])
def test_the_rnn_in_scalars(nonlinearity, function, b):
    step = equations.rnn(
        column(0.5), column(-1.5), vector(b), vector(0.125), nonlinearity=nonlinearity
    )
    y, h = step(column(X), column(H0))
    assert h.item() == pytest.approx(function(0.5 * X + b - 1.5 * H0 + 0.125), rel=1e-14)
    assert y is h


def test_the_lstm_in_scalars():
    step = equations.lstm(
        column(0.1, 0.2, 0.3, 0.4),
        column(-0.5, 0.6, 0.7, -0.8),
        vector(0.01, 0.02, 0.03, 0.04),
        vector(0.5, -0.5, 0.25, -0.25),
    )
    y, (h, c) = step(column(X), (column(H0), column(C0)))
    i = sigmoid(0.1 * X + 0.01 - 0.5 * H0 + 0.5)
    f = sigmoid(0.2 * X + 0.02 + 0.6 * H0 - 0.5)
    g = math.tanh(0.3 * X + 0.03 + 0.7 * H0 + 0.25)
    o = sigmoid(0.4 * X + 0.04 - 0.8 * H0 - 0.25)
    assert c.item() == pytest.approx(f * C0 + i * g, rel=1e-14)
    assert h.item() == pytest.approx(o * math.tanh(f * C0 + i * g), rel=1e-14)
    assert y is h


def test_the_projection_of_an_lstm_in_scalars():
    weights = column(0.1, 0.2, 0.3, 0.4), column(-0.5, 0.6, 0.7, -0.8)
    _, (h, c) = equations.lstm(*weights)(column(X), (column(H0), column(C0)))
    y, (p, c_p) = equations.lstm(*weights, W_hr=column(3.0))(column(X), (column(H0), column(C0)))
    assert p.item() == pytest.approx(3 * h.item(), rel=1e-14)
    assert c_p.item() == c.item()
    assert y is p


def test_the_gru_in_scalars():
    step = equations.gru(
        column(0.1, 0.2, 0.3),
        column(-0.5, 0.6, 0.7),
        vector(0.01, 0.02, 0.03),
        vector(0.5, -0.5, 0.25),
    )
    y, h = step(column(X), column(H0))
    r = sigmoid(0.1 * X + 0.01 - 0.5 * H0 + 0.5)
    z = sigmoid(0.2 * X + 0.02 + 0.6 * H0 - 0.5)
    n = math.tanh(0.3 * X + 0.03 + r * (0.7 * H0 + 0.25))
    assert h.item() == pytest.approx((1 - z) * n + z * H0, rel=1e-14)
    assert y is h


# Layers are loops over cells.


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_a_layer_is_a_loop_over_its_cell(name):
    """With two directions: the second cell reads from the end, and its outputs stand in place."""
    layer = getattr(nn, name)(3, 4, bidirectional=True, dtype="float64")
    cells = [getattr(nn, name + "Cell")(3, 4, dtype="float64") for _ in range(2)]
    for cell, suffix in zip(cells, ("", "_reverse"), strict=True):
        cell.load_state_dict({k: getattr(layer, f"{k}_l0{suffix}") for k in cell.state_dict()})
    xs, state = drawn(5, 2, 3), initial_state(layer, (2,))

    ys = []
    for row, (cell, order) in enumerate(zip(cells, (range(5), range(4, -1, -1)), strict=True)):
        h = tuple(part[row] for part in as_tuple(state))
        outputs = {}
        for t in order:
            h = as_tuple(cell(xs[t], h if name == "LSTM" else h[0]))
            outputs[t] = h[0].detach().numpy()
        ys.append(np.stack([outputs[t] for t in range(5)]))
    output, _ = layer(xs, state)
    np.testing.assert_allclose(
        output.detach().numpy(), np.concatenate(ys, axis=-1), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize(("name", "options"), LAYERS)
def test_the_final_state_continues_the_sequence(name, options):
    """Two halves, one after the other, are the whole."""
    layer = getattr(nn, name)(3, 4, num_layers=2, **options, dtype="float64")
    xs, state = drawn(6, 2, 3), initial_state(layer, (2,))
    whole, final = layer(xs, state)
    first, between = layer(xs[:2], state)
    second, last = layer(xs[2:], between)
    np.testing.assert_array_equal(
        torch.cat([first, second]).detach().numpy(), whole.detach().numpy()
    )
    for a, b in zip(as_tuple(last), as_tuple(final), strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def test_the_cell_of_a_layer_can_be_unrolled_by_hand():
    layer = nn.GRU(3, 4, num_layers=2, dtype=torch.float64)
    xs, state = drawn(5, 2, 3), torch.zeros(2, 2, 4, dtype=torch.float64)
    below, _ = unroll(layer.cell(0), xs, state[0])
    ys, _ = unroll(layer.cell(1), below, state[1])
    np.testing.assert_allclose(ys.detach().numpy(), layer(xs)[0].detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("batch_first", [False, True])
def test_an_empty_batch(batch_first):
    layer = nn.LSTM(3, 4, num_layers=2, batch_first=batch_first)
    output, (h_n, c_n) = layer(torch.zeros((0, 5, 3) if batch_first else (5, 0, 3)))
    assert output.shape == ((0, 5, 4) if batch_first else (5, 0, 4))
    assert h_n.shape == c_n.shape == (2, 0, 4)


# Gradients.


@pytest.mark.parametrize(("name", "options"), LAYERS)
def test_first_and_second_order_gradients(name, options):
    """Every output by input, states and all parameters; two layers and two directions."""
    layer = getattr(nn, name)(
        2, 3, num_layers=2, bidirectional=True, **options, dtype="float64"
    ).eval()
    x, state = drawn(3, 2, 2, requires_grad=True), initial_state(layer, (2,), requires_grad=True)

    def outputs(x, state, *_):
        output, final = layer(x, state)
        return (output, *as_tuple(final))

    inputs = (x, state, *layer.parameters())
    assert gradcheck(outputs, inputs, fast_mode=True)
    assert gradgradcheck(outputs, inputs, fast_mode=True)


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_gradients_of_cells(name, batch):
    cell = getattr(nn, name)(2, 3, dtype="float64")
    states = [drawn(*batch, 3, requires_grad=True) for _ in range(1 + (name == "LSTMCell"))]

    def outputs(x, *states_and_parameters):
        state = states_and_parameters[: len(states)]
        return cell(x, state if name == "LSTMCell" else state[0])

    inputs = (drawn(*batch, 2, requires_grad=True), *states, *cell.parameters())
    assert gradcheck(outputs, inputs)
    assert gradgradcheck(outputs, inputs, fast_mode=True)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("name", "options"), LAYERS)
def test_gradients_reach_every_leaf(name, options, training):
    layer = getattr(nn, name)(3, 4, num_layers=2, bidirectional=True, **options, dtype="float64")
    layer.train(training)
    x, state = drawn(5, 3, requires_grad=True), initial_state(layer, requires_grad=True)
    output, final = layer(x, state)
    (output.sum() + sum(part.sum() for part in as_tuple(final))).backward()
    leaves = [x, *as_tuple(state), *layer.parameters()]
    assert all(leaf.grad is not None and leaf.grad.shape == leaf.shape for leaf in leaves)
    assert all(bool((leaf.grad != 0).any()) for leaf in leaves)


def test_a_second_forward_leaves_the_first_one_alone():
    """What the first backward needs must not be kept in memory that the second forward reuses."""
    layer = nn.LSTM(3, 4, dtype="float64")
    x, other = drawn(5, 2, 3), drawn(5, 2, 3) + 1
    layer(x)[0].sum().backward()
    expected = layer.weight_hh_l0.grad.numpy().copy()
    layer.zero_grad()
    output, _ = layer(x)
    layer(other)
    output.sum().backward()
    np.testing.assert_array_equal(layer.weight_hh_l0.grad.numpy(), expected)


def test_a_detached_state_cuts_the_sequence():
    layer = nn.GRU(3, 4)
    x = drawn(5, 2, 3, dtype="float32", requires_grad=True)
    _, state = layer(x)
    layer(torch.ones(5, 2, 3), state.detach())[0].sum().backward()
    assert x.grad is None


# Initial values and weights.


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
def test_initial_values_are_uniform_within_one_over_root_h(name):
    hidden = 100
    module = getattr(nn, name)(7, hidden)
    for param in module.parameters():
        values = param.detach().numpy() * math.sqrt(hidden)  # now uniform in (-1, 1)
        margin = 5 / math.sqrt(values.size)
        assert 1 - 5 / values.size**0.5 < np.abs(values).max() <= 1
        assert abs(values.mean()) < margin
        assert abs((values**2).mean() - 1 / 3) < margin


def test_initial_values_follow_the_seed():
    def draw():
        torch.manual_seed(3)
        return nn.LSTM(3, 4).weight_hh_l0.tolist()

    layer = nn.LSTM(3, 4)
    before = layer.weight_hh_l0.tolist()
    layer.reset_parameters()
    assert draw() == draw()
    assert layer.weight_hh_l0.tolist() != before


def test_weights_are_looked_up_by_name_at_every_call():
    """A replaced parameter is used, and so is a tensor computed from one (weight dropping)."""
    layer, x = nn.GRU(3, 4), drawn(5, 2, 3, dtype="float32")
    layer.weight_hh_l0 = nn.Parameter(torch.zeros(12, 4))
    replaced = layer(x)[0]

    raw = layer.weight_hh_l0
    del layer.weight_hh_l0
    layer.weight_hh_l0 = raw * 2.0
    output, _ = layer(x)
    np.testing.assert_array_equal(output.detach().numpy(), replaced.detach().numpy())
    output.sum().backward()
    assert bool((raw.grad != 0).any())


def test_a_copy_is_independent():
    layer, x = nn.LSTM(3, 4, num_layers=2), drawn(5, 2, 3, dtype="float32")
    twin = copy.deepcopy(layer)
    before = layer(x)[0].tolist()
    with torch.no_grad():
        for param in layer.parameters():
            param.zero_()
    assert twin(x)[0].tolist() == before
    assert layer(x)[0].tolist() != before


def test_a_layer_in_another_dtype():
    layer = nn.LSTM(3, 4)
    expected = layer(drawn(5, 2, 3, dtype="float32"))[0]
    output = layer.double()(drawn(5, 2, 3))[0]
    assert output.dtype == torch.float64
    np.testing.assert_allclose(output.detach().numpy(), expected.detach().numpy(), atol=1e-6)


# Dropout.


def identity_rnn(**options):
    """A relu RNN of two layers that hands a positive input through unchanged."""
    layer = nn.RNN(50, 50, num_layers=2, nonlinearity="relu", bias=False, **options)
    for name, param in layer.named_parameters():
        nn.init.eye_(param) if name.startswith("weight_ih") else nn.init.zeros_(param)
    return layer


def test_dropout_acts_once_between_the_two_layers():
    output, _ = identity_rnn(dropout=0.25)(torch.full((8, 10, 50), 3.0))
    values = output.detach().numpy()
    np.testing.assert_allclose(values[values != 0], 4.0)  # 3 / (1 - p)
    assert abs((values == 0).mean() - 0.25) < 0.03
    steps = values.reshape(8, -1) == 0
    assert (steps[0] != steps[1]).any()  # each step its own mask


def test_no_dropout_in_evaluation_and_none_at_zero():
    x = torch.full((3, 2, 50), 3.0)
    assert identity_rnn(dropout=0.25).eval()(x)[0].tolist() == x.tolist()
    assert identity_rnn(dropout=0.0)(x)[0].tolist() == x.tolist()


def test_everything_dropped():
    layer = identity_rnn(dropout=1.0)
    output, h_n = layer(torch.full((3, 2, 50), 3.0))
    assert not output.detach().numpy().any()
    assert h_n[0].detach().numpy().all()  # the lower layer itself is untouched


def test_dropout_follows_the_seed():
    layer, x = nn.LSTM(3, 4, num_layers=3, dropout=0.5), drawn(5, 2, 3, dtype="float32")

    def run(seed):
        torch.manual_seed(seed)
        return layer(x)[0].tolist()

    assert run(1) == run(1) != run(2)


# Messages.


@pytest.mark.parametrize(
    ("options", "x", "h_0", "match"),
    [
        ({}, (5, 3, 8), (1, 4, 6), r"h_0 of shape \(1, 3, 6\) .* got \(1, 4, 6\).*last, smaller"),
        ({"batch_first": True}, (3, 5, 8), (3, 1, 6), r"batch_first does not apply.*transpose"),
        ({}, (5, 3, 8), (1, 6), r"got \(1, 6\); a batch of sequences needs a state with a batch"),
        ({}, (5, 8), (1, 1, 6), r"h_0 of shape \(1, 6\).* one sequence one without"),
        ({"num_layers": 2}, (5, 3, 8), (1, 3, 6), r"h_0 of shape \(2, 3, 6\).*got \(1, 3, 6\)$"),
        ({}, (5, 3, 9), None, r"\(T, batch, 8\) or \(T, 8\), got \(5, 3, 9\).* input_size=8"),
        ({"batch_first": True}, (5, 3, 9), None, r"expected an input of shape \(batch, T, 8\)"),
        ({}, (0, 3, 8), None, r"no steps \(T = 0\): \(0, 3, 8\)"),
    ],
)
def test_messages_say_what_came_what_was_expected_and_why(options, x, h_0, match):
    layer = nn.GRU(8, 6, **options)
    with pytest.raises(RuntimeError, match=f"^GRU: .*{match}"):
        layer(torch.zeros(x), None if h_0 is None else torch.zeros(h_0))


def test_messages_about_dtypes():
    with pytest.raises(
        ValueError, match=r"the input is \(5, 3, 8\) float64, the weights are float32"
    ):
        nn.LSTM(8, 6)(drawn(5, 3, 8))
    with pytest.raises(RuntimeError, match=r"h_0 is \(1, 3, 6\) float64, the weights are float32"):
        nn.GRU(8, 6)(drawn(5, 3, 8, dtype="float32"), drawn(1, 3, 6))


@pytest.mark.parametrize(
    ("name", "x", "state", "match"),
    [
        ("LSTM", np.zeros((5, 3, 8), "float32"), None, "the input must be a Tensor, got ndarray"),
        ("LSTM", torch.zeros(5, 3, 8), torch.zeros(1, 3, 6), r"tuple \(h_0, c_0\), got Tensor"),
        ("LSTM", torch.zeros(5, 3, 8), (None, None), "h_0 must be a Tensor, got NoneType"),
        ("GRU", torch.zeros(5, 3, 8), (torch.zeros(1, 3, 6),), "must be one Tensor, got tuple"),
        ("LSTMCell", [1.0], None, "expected the input to be a Tensor, got list"),
        ("LSTMCell", torch.zeros(3, 8), torch.zeros(3, 6), r"tuple \(h, c\), got Tensor"),
        ("GRUCell", torch.zeros(3, 8), (torch.zeros(3, 6),), "hx to be a Tensor, got tuple"),
    ],
)
def test_arguments_of_the_wrong_kind(name, x, state, match):
    """PyTorch fails at these with an AttributeError or IndexError from inside; here: TypeError."""
    with pytest.raises(TypeError, match=f"^{name}: .*{match}"):
        getattr(nn, name)(8, 6)(x, state)


def test_a_list_of_states_will_do():
    states = [torch.ones(1, 3, 6), torch.ones(1, 3, 6)]
    lstm, x = nn.LSTM(8, 6), torch.ones(5, 3, 8)
    assert lstm(x, states)[0].tolist() == lstm(x, tuple(states))[0].tolist()


def test_projections_are_the_lstms():
    with pytest.raises(ValueError, match="only LSTM has projections"):
        nn.GRU(8, 6, proj_size=2)
    assert nn.GRU(8, 6, proj_size=0).proj_size == 0
