"""Observation changes nothing: values, gradients, random numbers; and what it keeps is true.

Cells come from recurrent_cells.py. What a step keeps is held against the derivations by hand, and
against the operations computed again.
"""

import threading
from functools import partial

import numpy as np
import pytest
from arrays import host
from recurrent_cells import CASES
from test_scan_equality import assert_agree, derivatives, run

import tinygrad_rnn as torch
from tinygrad_rnn import nn, random
from tinygrad_rnn.autograd import Function, grad
from tinygrad_rnn.by_hand import through_time
from tinygrad_rnn.by_hand.cell import Weights
from tinygrad_rnn.by_hand.gru import GRU
from tinygrad_rnn.by_hand.lstm import LSTM
from tinygrad_rnn.by_hand.rnn import RNN
from tinygrad_rnn.diagnose import observing
from tinygrad_rnn.modes import current
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.nn.utils.rnn import pack_padded_sequence
from tinygrad_rnn.scan import scan, trees, unroll

pytestmark = pytest.mark.usefixtures("device")

each_run = pytest.mark.parametrize("recurrence", [scan, unroll], ids=["scan", "unroll"])
both_ways = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
LAYERS = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}


def numbers(*size, seed=0, requires_grad=False):
    values = np.random.default_rng([seed, *size]).standard_normal(size)
    return torch.tensor(values, requires_grad=requires_grad)


def trees_equal(a, b):
    return all(x is y for x, y in zip(trees.leaves(a), trees.leaves(b), strict=True))


# It changes nothing.


@pytest.mark.double_every(3)
@pytest.mark.parametrize("case", CASES, ids=str)
@each_run
@both_ways
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values_and_two_gradients_of_every_cell(case, recurrence, reverse, dtype):
    leaves = case.leaves(dtype)
    expected = derivatives(run(recurrence, case, leaves, reverse=reverse), *leaves)
    with observing(None) as recurrences:
        outputs = run(recurrence, case, leaves, reverse=reverse)
    assert_agree(derivatives(outputs, *leaves), expected)
    assert len(recurrences) == 1


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("mode", ["scan", "unroll"])
@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"num_layers": 2, "bidirectional": True, "dropout": 0.4}, (7, 3, 4)),
        ({"num_layers": 2, "batch_first": True}, (3, 7, 4)),
        ({"bidirectional": True, "bias": False}, (1, 3, 4)),
        ({}, (7, 4)),
    ],
)
def test_layers(kind, mode, options, shape):
    torch.manual_seed(1)
    layer = LAYERS[kind](4, 5, mode=mode, **options).double()
    x = numbers(*shape, requires_grad=True)
    rows = layer.num_layers * (1 + layer.bidirectional)
    size = (rows, 3, 5) if x.ndim == 3 else (rows, 5)
    h = numbers(*size, seed=1, requires_grad=True)
    h0 = (h, numbers(*size, seed=2, requires_grad=True)) if kind == "LSTM" else h

    def derived():
        torch.manual_seed(5)
        return derivatives(layer(x, h0), x, h0, dict(layer.named_parameters()))

    expected, after = derived(), random.generator().get_state()
    with observing(layer) as recurrences:
        actual = derived()
    assert_agree(actual, expected)
    np.testing.assert_array_equal(random.generator().get_state(), after)
    assert len(recurrences) == rows


def test_a_projection():
    layer = nn.LSTM(3, 5, proj_size=2).double()
    x = numbers(4, 2, 3)
    expected = layer(x)
    with observing(layer) as recurrences:
        actual = layer(x)
    assert_agree(dict(enumerate(trees.leaves(actual))), dict(enumerate(trees.leaves(expected))))
    assert [x.shape for x in trees.leaves(recurrences[0].start)] == [(2, 2), (2, 5)]


@each_run
@both_ways
def test_random_numbers_of_a_cell(recurrence, reverse):
    W = numbers(4, 4, requires_grad=True)

    def cell(x, h):
        h = F.dropout(h @ W, 0.5, True) + x + torch.rand(2, 4, dtype=torch.float64)
        return h, h

    def derived():
        torch.manual_seed(3)
        return derivatives(recurrence(cell, numbers(5, 2, 4), numbers(2, 4), reverse=reverse), W)

    expected, after = derived(), random.generator().get_state()
    with observing(None):
        actual = derived()
    assert_agree(actual, expected)
    np.testing.assert_array_equal(random.generator().get_state(), after)


@pytest.mark.parametrize("inner", [scan, unroll])
@each_run
def test_a_recurrence_in_a_step(recurrence, inner):
    w = numbers(3, requires_grad=True)

    def cell(x, h):
        ys, last = inner(lambda u, s: (s * u, (w * s + u).tanh()), x, h)
        return ys.sum(0), last

    xs, h = numbers(4, 6, 2, 3), numbers(2, 3, seed=1, requires_grad=True)
    expected = derivatives(recurrence(cell, xs, h), w, h)
    with observing(None) as recurrences:
        actual = derivatives(recurrence(cell, xs, h), w, h)
    assert_agree(actual, expected)
    assert [len(observed.steps) for observed in recurrences] == [4]
    names = {operation.primitive.name for operation in recurrences[0].steps[0].operations}
    assert ("recur" in names) == (inner is scan)


def test_checkpoints_and_no_steps():
    W = numbers(3, 3)

    def cell(x, h):
        h = (h @ W + x).tanh()
        return h, h

    for length, count in ((6, 1), (0, 0)):
        xs, h = numbers(length, 2, 3), numbers(2, 3)
        expected = scan(cell, xs, h, checkpoint=2)
        with observing(None) as recurrences:
            actual = scan(cell, xs, h, checkpoint=2)
        assert_agree(dict(enumerate(actual)), dict(enumerate(expected)), 1e-15)
        assert len(recurrences) == count


def test_cells_that_only_unroll_can_run():
    """One that branches, counts its calls and has a Function."""

    class Double(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    calls = []

    def cell(x, h):
        calls.append(1)
        h = Double.apply(h) * x if h.sum() > 0 else (h - len(calls)).sigmoid()
        return h, h

    xs, h = numbers(6, 3), numbers(3, requires_grad=True)
    expected = derivatives(unroll(cell, xs, h), h)
    calls.clear()
    with observing(None) as recurrences:
        actual = derivatives(unroll(cell, xs, h), h)
    assert_agree(actual, expected)
    assert len(calls) == 6
    gates = [list(step.gates) for step in recurrences[0].steps]
    assert ["h"] in gates
    assert [] in gates


def test_nothing_is_recorded_under_no_grad():
    layer = nn.GRU(2, 3)
    with torch.no_grad(), observing(layer) as recurrences:
        ys, _ = layer(torch.randn(4, 1, 2))
    assert not ys.requires_grad
    assert not any(x.requires_grad for x in recurrences[0].states)


# It ends.


def test_it_ends_with_its_block_and_with_an_error():
    def broken(x, h):
        raise KeyError("mine")

    with pytest.raises(KeyError), observing(None) as recurrences:
        scan(broken, numbers(3, 2), numbers(2))
    assert current.observer is None
    assert current.watches == ()
    scan(lambda x, h: (h, h), numbers(3, 2), numbers(2))
    assert len(recurrences) == 1


def test_an_observation_inside_another_and_other_threads():
    layer, x = nn.RNN(2, 3), torch.randn(4, 1, 2)
    with observing(layer) as outer:
        with observing(layer) as inner:
            layer(x)
        thread = threading.Thread(target=layer, args=(x,))
        thread.start()
        thread.join()
        assert (len(outer), len(inner)) == (0, 1)
        layer(x)
    assert (len(outer), len(inner)) == (1, 1)


def test_a_step_that_is_only_written_down_is_not_observed(capsys):
    layer = nn.GRU(2, 3)
    with observing(layer) as recurrences:
        torch.explain(layer.cell(), torch.randn(4, 1, 2), torch.zeros(1, 3))
    assert recurrences == []
    assert "STEP" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (lambda x, h: h, "expected a pair"),
        (lambda x, h: (h, h.sum()), "turned a state"),
        (lambda x, h: (h, (h, h)), "turned a state"),
        (lambda x, h: ([h], h), "scan: y: expected a Tensor"),
    ],
)
def test_errors_are_those_of_scan(cell, message):
    with observing(None), pytest.raises((TypeError, ValueError), match=message):
        scan(cell, numbers(3, 2), numbers(2))


# What is kept.


@both_ways
def test_states_steps_and_times(reverse):
    case = next(case for case in CASES if case.name == "LSTM peephole")
    xs, h0, weights = case.leaves()
    cell = case.cell(*weights)
    with observing(None) as recurrences:
        ys, last = scan(cell, xs, h0, reverse=reverse)
    (observed,) = recurrences
    times = [7, 6, 5, 4, 3, 2, 1] if reverse else [1, 2, 3, 4, 5, 6, 7]
    assert [step.t for step in observed.steps] == times
    assert observed.reverse is reverse
    assert trees_equal(observed.states[-1], last)
    before = observed.states[0]
    for step, after in zip(observed.steps, observed.states[1:], strict=True):
        assert trees_equal(step.before, before)
        assert trees_equal(step.after, after)
        np.testing.assert_array_equal(step.x.detach(), xs.detach()[step.t - 1])
        np.testing.assert_array_equal(step.y.detach(), ys.detach()[step.t - 1])
        y, expected = cell(step.x, step.before)
        assert_agree(
            dict(enumerate(trees.leaves((y, expected)))),
            dict(enumerate(trees.leaves((step.y, after)))),
        )
        before = after


def test_operations_are_those_of_the_step():
    layer = nn.LSTM(2, 3).double()
    with observing(layer) as recurrences:
        layer(numbers(4, 1, 2))
    for step in recurrences[0].steps:
        for operation in step.operations:
            arrays = [getattr(x, "array", x) for x in operation.inputs]
            again = operation.primitive(*arrays, **operation.params)
            several = again if type(again) is list else [again]
            for actual, expected in zip(several, operation.outputs, strict=True):
                np.testing.assert_array_equal(host(actual), host(expected))
        names = [operation.primitive.name for operation in step.operations]
        assert names.count("sigmoid") == 3
        assert names.count("matmul") == 2
    line = recurrences[0].steps[0].operations[-1].line
    assert "equations.py:" in line
    assert line.endswith("h = o.sigmoid() * c.tanh()")


def test_a_line_of_the_users_cell():
    def cell(x, h):
        z = helper(x + h)
        return z, z

    def helper(u):
        return u.exp()  # the exponential

    with observing(None) as recurrences:
        scan(cell, numbers(3, 2), numbers(2))
    operation = recurrences[0].steps[2].operations[-1]
    assert operation.primitive.name == "exp"
    assert "test_observe.py:" in operation.line
    assert operation.line.endswith("return u.exp()  # the exponential")
    assert recurrences[0].steps[2].names[id(operation.outputs[0])] == "z"


@pytest.mark.parametrize(
    ("derived", "layer", "gates"),
    [
        (RNN("tanh"), nn.RNN, {"h": "h"}),
        (LSTM(), nn.LSTM, {"i": "i", "f": "f", "g": "g", "o": "o", "tanh(c)": "tanh_c"}),
        (GRU(), nn.GRU, {"r": "r", "z": "z", "n": "n"}),
    ],
)
@both_ways
def test_gates_are_those_of_the_derivation(derived, layer, gates, reverse):
    model = layer(3, 4, bidirectional=True).double()
    x = numbers(5, 2, 3)
    with observing(model) as recurrences:
        model(x)
    suffix = "_l0_reverse" if reverse else "_l0"
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = Weights(*(getattr(model, name + suffix).detach().numpy() for name in names))
    start = tuple(np.zeros((2, 4)) for _ in derived.states)
    y, _, saved = through_time.forward(derived, weights, x.numpy(), start, reverse)
    observed = recurrences[int(reverse)]
    assert observed.state_names == list(derived.states)
    for step in observed.steps:
        assert list(step.gates) == list(gates)
        for name, field in gates.items():
            expected = y[step.t - 1] if field == "h" else getattr(saved[step.t - 1], field)
            gate = step.gates[name]
            assert gate.kind == ("sigmoid" if name in "ifozr" else "tanh")
            np.testing.assert_allclose(gate.value.detach(), expected, atol=1e-14)


def test_names_of_gates_in_cells_of_ones_own():
    W = numbers(3, 3)

    def cell(x, h):
        p, q = x @ W, h @ W
        i = p.sigmoid()
        _ = (q + 1).tanh()
        i = i * 2
        pair = [(p + q).sigmoid(), q.tanh()]
        forget = torch.sigmoid(x @ W - q)
        again = pair[0].tanh()
        state = h.tanh()
        h = forget * h + again * (x @ W @ W).sigmoid() + (h @ W.T).sigmoid() + h.tanh() + state
        return h, h

    with observing(None) as recurrences:
        scan(cell, numbers(2, 1, 3), numbers(1, 3))
    assert list(recurrences[0].steps[1].gates) == [
        *("p", "q", "pair[0]", "pair[1]", "forget", "again", "state"),
        *("sigmoid 1", "sigmoid 2", "tanh 1"),
    ]


def test_names_of_states():
    found = {}
    for case in CASES:
        xs, h0, weights = case.leaves()
        with observing(None) as recurrences:
            scan(case.cell(*weights), xs, h0)
        found[case.name] = recurrences[0].state_names
    assert found["LSTM"] == found["LSTM peephole"] == found["masked pair"] == ["h", "c"]
    assert found["module"] == ["h", "c"]
    assert found["sLSTM"] == ["h", "c", "n", "m_new"]
    assert found["GRU"] == found["scalar"] == ["h"]
    assert found["clockwork RNN"] == ["h0", "h1"]  # the second is `t + 1`
    assert found["pass through"] == ["h0", "h1", "h2", "h3"]


def test_names_in_sequences_of_different_lengths():
    layer = nn.LSTM(3, 4, bidirectional=True)
    packed = pack_padded_sequence(torch.randn(5, 2, 3), [5, 3])
    expected, _ = layer(packed)
    with observing(layer) as recurrences:
        actual, _ = layer(packed)
    np.testing.assert_allclose(actual.data.detach(), expected.data.detach(), atol=1e-6)
    for observed in recurrences:
        assert observed.state_names == ["h", "c"]
        assert list(observed.steps[0].gates) == ["i", "f", "g", "o", "tanh(c)"]


class Model(nn.Module):
    """Recurrences of every kind."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.GRU(3, 4, num_layers=2, bidirectional=True)
        self.cell = nn.LSTMCell(8, 4)
        self.inner = nn.Sequential(nn.Linear(4, 3), nn.Identity())

    def step(self, x, state):
        h, c = self.cell(x, state)
        return h, (h, c)

    def forward(self, x):
        x, _ = self.encoder(x)
        zeros = torch.zeros(x.shape[1], 4)
        h, _ = scan(self.step, x, (zeros, zeros))
        y, _ = scan(lambda x, h: (x + h, x + h), h, zeros, reverse=True)
        return self.encoder(self.inner(y))[0]


def test_names_of_recurrences():
    model, x = Model(), torch.randn(3, 2, 3)
    layers = [f"encoder layer {k} {way}" for k in (0, 1) for way in ("forward", "reverse")]
    with observing(model) as recurrences:
        model(x)
    assert [observed.name for observed in recurrences] == [
        *layers,
        "Model.step",
        "forward.<lambda> reverse",
        *(f"{name} (call 2)" for name in layers),
    ]


def test_names_of_recurrences_in_functions():
    gru, head = nn.GRU(3, 4), nn.Linear(4, 2)
    holder = nn.ModuleList([nn.RNN(2, 2)])
    cell = nn.Sequential(nn.Identity())
    cell.forward = lambda x, h: (x + h, x + h)

    def add(amount, x, h):
        return x, h + amount

    class Trainer:
        def __init__(self):
            self.lstm = nn.LSTM(3, 2)

        def run(self, x):
            return self.lstm(x)

    def model(x):
        y = holder[0](head(gru(x)[0]))[0]
        scan(cell, y, y[0])
        scan(partial(add, 1), y, y[0])
        nn.RNN(2, 2)(y)

    def names(function):
        with observing(function) as recurrences:
            function(torch.randn(3, 1, 3))
        return [observed.name for observed in recurrences]

    assert names(model) == [
        "gru layer 0 forward",
        "holder.0 layer 0 forward",
        "cell",
        "test_names_of_recurrences_in_functions.add",
        "RNN layer 0 forward",
    ]
    assert names(Trainer().run) == ["lstm layer 0 forward"]
    assert names(gru.forward) == ["GRU layer 0 forward"]


# Every state has a gradient of its own.


def test_the_gradient_of_a_state_is_that_of_what_comes_after_it():
    """A state that the first steps leave alone is one value at several times."""
    keep = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)

    def cell(x, state):
        h, kept = state
        y = h * 3 * x
        return y + h, (h if len(y.shape) and x.sum() > 0 else h * 2, kept)

    h = torch.tensor([5.0], dtype=torch.float64)
    with observing(None) as recurrences:
        ys, (last, kept) = unroll(cell, keep, (h, h))
    loss = ys.sum() + last.sum() + 10 * kept.sum()
    states = recurrences[0].states
    found = [[g.item() for g in grad(loss, state, retain_graph=True)] for state in states]
    # y_t = (3 x_t + 1) h_{t-1} with x = 1, 1, 0; h_3 = 2 h_2.
    assert [dh for dh, _ in found] == [4 + 4 + 1 + 2, 4 + 1 + 2, 1 + 2, 1]
    assert [dkept for _, dkept in found] == [10, 10, 10, 10]


def test_an_output_that_is_the_state():
    """y_t = h_t: the gradient of h_t has the output's."""

    def cell(x, h):
        return h, h

    with observing(None) as recurrences:
        ys, _ = scan(cell, numbers(3, 2), numbers(2))
    loss = (ys * torch.tensor([[1.0], [10.0], [100.0]], dtype=torch.float64)).sum()
    found = [grad(loss, h, retain_graph=True)[0][0].item() for h in recurrences[0].states]
    assert found == [111, 111, 110, 100]


def test_a_state_that_a_function_makes():
    """y_t = 10 h_t with h_t = 2 h_{t-1}: the gradient of h_t has that of y_t."""

    class Double(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    def cell(x, h):
        h = Double.apply(h)
        return 10 * h, h

    with observing(None) as recurrences:
        ys, _ = unroll(cell, numbers(2, 1), numbers(1))
    found = [grad(ys.sum(), h, retain_graph=True)[0].item() for h in recurrences[0].states]
    assert found == [60, 30, 10]


def test_leaves_of_the_user_are_not_touched():
    layer, x = nn.GRU(2, 3), torch.randn(4, 1, 2)
    h0 = torch.zeros(1, 1, 3)
    with observing(layer) as recurrences:
        layer(x, h0)[0].sum().backward()
    assert not h0.requires_grad
    assert h0.grad is None
    assert recurrences[0].start.requires_grad
    assert layer.weight_hh_l0.grad is not None
