"""diagnose.explain_nan: a NaN or Inf is planted at a known place, and exactly that place is told.

Where it must appear follows from how it is planted: a weight so large that one product overflows,
an input that is not 0 at one t only, gradients that grow tenfold at each step.
"""

import numpy as np
import pytest
from recurrent_cells import CASES

import tinygrad_rnn as torch
from tinygrad_rnn import nn, scan
from tinygrad_rnn.autograd import Function
from tinygrad_rnn.diagnose import DiagnosisError
from tinygrad_rnn.diagnose.explain_nan import explain_nan
from tinygrad_rnn.diagnose.finding import values_of
from tinygrad_rnn.diagnose.nan_search import LIMIT
from tinygrad_rnn.diagnose.table import WIDTH
from tinygrad_rnn.nn.utils.rnn import pack_padded_sequence
from tinygrad_rnn.scan import trees

pytestmark = pytest.mark.usefixtures("device")

T, B, D, H = 7, 2, 3, 4
HUGE = 3e38  # twice this is Inf in float32
NAN, INF = float("nan"), float("inf")

LAYERS = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
GATES = {"RNN": ["h"], "LSTM": ["i", "f", "g", "o"], "GRU": ["r", "z", "n"]}
EVERY_GATE = [(kind, gate) for kind, gates in GATES.items() for gate in gates]


def first_output(returned):
    return returned[0].square().mean()


def last_step(returned):
    return returned[0][-1].sum()


def randn(*shape, **options):
    return torch.randn(*shape, generator=torch.Generator(4), **options)


def layer_of(kind, **options):
    """A layer whose weights and biases are all 0, so that its states are, where x is."""
    layer = LAYERS[kind](D, H, **options)
    with torch.no_grad():
        for param in layer.parameters():
            param.zero_()
    return layer


def rows_of(kind, gate):
    """The rows of the weights that belong to a gate."""
    place = GATES[kind].index(gate)
    return slice(place * H, (place + 1) * H)


def wake(layer, kind, suffix):
    """Have a layer with zero weights answer an input with states well above 0."""
    with torch.no_grad():
        weight = getattr(layer, f"weight_ih{suffix}")
        for gate, value in {
            "RNN": {"h": 9.0},
            "LSTM": {"i": 9.0, "g": 9.0, "o": 9.0},
            "GRU": {"z": -9.0, "n": 9.0},
        }[kind].items():
            weight[rows_of(kind, gate)] = value


def impulse(t):
    """An input that is 1 at step t, counted from 1, and 0 at all others."""
    x = torch.zeros(T, B, D)
    x[t - 1] = 1.0
    return x


# Forward: in every layer kind, at every gate, in both directions, in either layer.


@pytest.mark.parametrize("mode", ["scan", "unroll"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("kind", "gate"), EVERY_GATE)
def test_a_product_with_x_overflows_at_one_gate(kind, gate, reverse, mode):
    layer = layer_of(kind, bidirectional=True, mode=mode)
    with torch.no_grad():
        weight = layer.weight_ih_l0_reverse if reverse else layer.weight_ih_l0
        weight[rows_of(kind, gate)] = HUGE  # the three features together: Inf
    found = explain_nan(layer, impulse(3), first_output)
    first = found.first
    assert (first.direction, first.kind, first.operation) == ("forward", "Inf", "matmul")
    assert first.recurrence == f"{kind} layer 0 {'reverse' if reverse else 'forward'}"
    assert (first.t, first.gate) == (3, gate)
    assert [operand.name for operand in first.operands] == [
        *("x", f"weight_ih_l0{'_reverse' if reverse else ''}.T")
    ]
    assert first.result.infs == B * H
    assert first.result.first == (0, rows_of(kind, gate).start)
    assert "beyond 3.4e+38" in first.advice
    assert "equations.py" in first.line  # the step's own line, not that which calls the layer


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("kind", "gate"), EVERY_GATE)
def test_a_product_with_h_overflows_one_step_later_in_the_second_layer(kind, gate, reverse):
    """Layer 0 hands on an impulse; layer 1 answers it, and overflows when it reads its own h."""
    suffix = "_l1_reverse" if reverse else "_l1"
    layer = layer_of(kind, num_layers=2, bidirectional=True)
    for woken in ("_l0", "_l0_reverse", suffix):
        wake(layer, kind, woken)
    with torch.no_grad():
        # The second layer's directions look at the half of the features that is 0 until t = 4
        # comes, seen from where they start.
        blind = slice(0, H) if reverse else slice(H, 2 * H)
        getattr(layer, f"weight_ih{suffix}")[:, blind] = 0.0
        getattr(layer, f"weight_hh{suffix}")[rows_of(kind, gate)] = HUGE
    first = explain_nan(layer, impulse(4), first_output).first
    assert (first.direction, first.kind, first.operation) == ("forward", "Inf", "matmul")
    assert first.recurrence == f"{kind} layer 1 {'reverse' if reverse else 'forward'}"
    assert (first.t, first.gate) == (3 if reverse else 5, gate)
    assert [operand.name for operand in first.operands] == [
        *("h of the step before", f"weight_hh{suffix}.T")
    ]


def test_a_state_that_explodes_is_told_with_its_rate():
    rnn = nn.RNN(1, 3, nonlinearity="relu")
    with torch.no_grad():
        for param, value in zip(rnn.parameters(), (1.0, 0.0, 0.0, 0.0), strict=True):
            param.fill_(value)
        rnn.weight_hh_l0.copy_(10 * torch.eye(3))
    x = torch.zeros(60, 1, 1)
    x[4] = 1.0  # h is 1 after t = 5, 10 after t = 6, …, and 1e38 after t = 43
    first = explain_nan(rnn, x, last_step).first
    assert (first.recurrence, first.t, first.operation) == ("RNN layer 0 forward", 44, "matmul")
    assert first.gate == ""  # relu is none
    assert "from 1 to 1e+38 in 38 steps, 10 times a step" in first.advice


class Cell(nn.Module):
    """A cell of one's own, with a named gate, that does something to one of its values."""

    def __init__(self, operate):
        super().__init__()
        self.linear = nn.Linear(D, H)
        self.operate = operate

    def forward(self, x, h):
        forget = (self.linear(x) + h).sigmoid()
        change = self.operate(x)
        h = forget * h + change.sum(-1, keepdim=True)
        return h, h


class Model(nn.Module):
    """A scan of a cell, as part of a model."""

    def __init__(self, cell, reverse=False, run=scan.scan):
        super().__init__()
        self.cell = cell
        self.head = nn.Linear(H, 1)
        self.reverse, self.run = reverse, run

    def forward(self, xs):
        ys, _ = self.run(self.cell, xs, torch.zeros(B, H), reverse=self.reverse)
        return self.head(ys)


FORWARD = {
    # what the cell does to x; what it is 1 at all steps but one; there; kind; advice
    "log": (lambda x: x.log(), 0.0, "Inf", "log of 0"),
    "log of a negative number": (lambda x: x.log(), -1.0, "NaN", "of a negative number NaN"),
    "exp": (lambda x: x.exp(), 100.0, "Inf", "exp overflows above 88.7"),
    "divide": (lambda x: 1 / x, 0.0, "Inf", "division by 0"),
    "sqrt": (lambda x: x.sqrt(), -1.0, "NaN", "sqrt of a negative number"),
    "power": (lambda x: x**-2, 0.0, "Inf", "0 to a negative power"),
    "square": (lambda x: x.square(), 1e30, "Inf", "beyond 3.4e+38"),
    "log_softmax": (
        lambda x: x.masked_fill(x < 0, -INF).log_softmax(-1),
        -1.0,
        "NaN",
        "in some row all is -Inf",
    ),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", FORWARD)
def test_an_operation_of_an_own_cell(name, reverse):
    operate, value, kind, advice = FORWARD[name]
    x = torch.ones(T, B, D)
    x[2, 1] = value
    first = explain_nan(Model(Cell(operate), reverse), x, torch.Tensor.sum).first
    assert (first.direction, first.kind) == ("forward", kind)
    assert first.operation == name.split()[0]
    assert first.recurrence == ("cell reverse" if reverse else "cell")
    assert first.t == 3
    assert first.result.first[0] == 1  # the batch row
    assert advice in first.advice
    assert "test_explain_nan.py" in first.line
    assert "x" in [operand.name for operand in first.operands] or name == "log_softmax"


@pytest.mark.parametrize("reverse", [False, True])
def test_the_gate_whose_operand_it_is(reverse):
    cell = Cell(lambda x: x * 1)
    with torch.no_grad():
        cell.linear.weight.fill_(HUGE)
    x = torch.zeros(T, B, D)
    x[4] = 1.0
    first = explain_nan(Model(cell, reverse), x, torch.Tensor.sum).first
    assert (first.t, first.gate, first.operation) == (5, "forget", "matmul")
    assert [operand.name for operand in first.operands] == ["x", "cell.linear.weight.T"]


def test_the_gate_that_it_is_made_of():
    def cell(x, h):
        gate = x.sigmoid()
        h = h + gate / (x - 1)
        return h, h

    x = torch.zeros(T, B, D)
    x[5] = 1.0
    first = explain_nan(lambda x: scan.scan(cell, x, torch.zeros(B, D)), x).first
    assert (first.t, first.gate, first.operation) == (6, "gate", "divide")
    assert [operand.name for operand in first.operands] == ["gate", "result of subtract"]


def test_a_cell_that_branches_and_one_in_a_loop():
    def cell(x, h):
        if x.max().item() > 1:
            h = (h - h) / (h - h)
        return h, h + 1

    x = torch.zeros(T, B)
    x[3] = 2.0
    first = explain_nan(lambda x: scan.unroll(cell, x, torch.zeros(B)), x).first
    assert (first.t, first.operation, first.kind) == (4, "divide", "NaN")

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.RNNCell(1, H, nonlinearity="relu")

        def forward(self, xs):
            h = None
            for x in xs:
                h = self.cell(x, h)
            return h.sum()

    loop = Loop()
    with torch.no_grad():
        loop.cell.weight_ih.fill_(HUGE)
    x = torch.zeros(T, B, 1)
    x[3] = 10.0
    first = explain_nan(loop, x).first
    assert (first.recurrence, first.t) == ("", None)
    assert (first.module, first.call, first.operation) == ("cell", 4, "matmul")
    assert first.place == "forward pass, module cell (call 4), matmul"


def test_without_recurrences_the_module_and_the_line_are_told():
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))
    with torch.no_grad():
        model[1][1].weight.fill_(HUGE)
        model[0].bias.fill_(1e5)
    found = explain_nan(model, randn(5, 3), lambda y: y.logsumexp(-1).mean())
    assert (found.first.module, found.first.operation) == ("1.1", "matmul")
    assert found.reached[:2] == ["the output", "the loss"]


# Backward.


# The step's derivative at states of 0 if the weights in its tanh are 40 times the identity, as a
# matrix: rows are what it makes, columns what it was given, and the last of both is h. Sigmoids
# of 0 are 1/2, and the slope of tanh is 1. For each, by how much the gradient of h' exceeds the one
# that comes out of the product alone.
JACOBIANS = {
    "RNN": np.array([[40.0]]),
    "LSTM": np.array([[0.5, 20.0], [0.25, 10.0]]),  # c' = c/2 + 40 h/2, h' = c'/2
    "GRU": np.array([[10.5]]),  # n = 40 h/2, h' = n/2 + h/2: 10 by way of the product
}


def products_until_overflow(kind):
    """How many steps back the gradient of sum(h) leaves float32 in the product with the weights."""
    jacobian = JACOBIANS[kind]
    g, steps = np.zeros(len(jacobian)), 0
    g[-1] = 1.0
    while True:
        steps += 1
        product = g[-1] * 10.0 if kind == "GRU" else (g @ jacobian)[-1]
        if product > np.finfo(np.float32).max:
            return steps
        g = g @ jacobian


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_gradient_that_explodes(kind, reverse, layers):
    layer = layer_of(kind, num_layers=layers, bidirectional=True)
    suffix = f"_l{layers - 1}{'_reverse' if reverse else ''}"
    gate = {"RNN": "h", "LSTM": "g", "GRU": "n"}[kind]
    with torch.no_grad():
        getattr(layer, f"weight_hh{suffix}")[rows_of(kind, gate)] = 40 * torch.eye(H)

    def loss(returned):
        ys, _ = returned
        return ys[0, :, H:].sum() if reverse else ys[-1, :, :H].sum()

    found = explain_nan(layer, torch.zeros(80, B, D), loss)
    first, back = found.first, products_until_overflow(kind)
    assert 20 < back < 60
    assert (first.direction, first.kind, first.operation) == ("backward", "Inf", "matmul")
    assert first.recurrence == f"{kind} layer {layers - 1} {'reverse' if reverse else 'forward'}"
    assert first.t == (back if reverse else 81 - back)
    assert first.result.name == "gradient of h of the step before"
    assert f"weight_hh{suffix}.T" in [operand.name for operand in first.operands]
    assert "the gradient explodes" in first.advice
    assert f"in {back - 1} steps back" in first.advice
    own = {f"the gradient of {name}" for name, _ in layer.named_parameters()}
    assert found.reached
    assert own.issuperset(
        found.reached
    )  # neither the loss, nor initial states that nobody asked for


@pytest.mark.parametrize("reverse", [False, True])
def test_the_gate_whose_gradient_it_is(reverse):
    w = torch.ones(D, requires_grad=True)

    def cell(x, h):
        update = (h - 80).sigmoid()  # 1e-35
        h = (x * w) * update
        return h, 0 * h

    x = torch.zeros(T, B, D)
    x[1] = 1e38
    found = explain_nan(
        lambda x, h: scan.scan(cell, x, h, reverse=reverse),
        (x, torch.zeros(B, D, requires_grad=True)),
        lambda returned: 10 * returned[0].sum(),
    )
    first = found.first
    assert (first.direction, first.operation, first.t) == ("backward", "multiply", 2)
    assert (first.gate, first.result.name) == ("update", "gradient of update")


class Faulty(Function):
    """The identity, with a gradient of Inf where x is above 5."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 1

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return torch.where(x > 5, INF, g)


class Wasteful(Faulty):
    """The same, by way of an Inf that it makes itself."""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return torch.where(x > 5, 1 / (x - x), g)


BACKWARD = {
    # what the cell does to x; what it is 1 at all steps but one; there; advice
    "sqrt": (lambda x: x.sqrt(), 0.0, "the slope of sqrt at 0"),
    "power": (lambda x: x**0.5, 0.0, "the slope of a power below 1"),
    "log": (lambda x: (1e30 * x.log()) * 1e-20, 1e-36, "the slope has the operand in its divisor"),
    "divide": (lambda x: (1e-9 / x) * 1e-20, 1e-36, "the slope has the operand in its divisor"),
    "multiply": (lambda x: (x * 1e30) * 1e30, 1e-36, "gradients that come in are too large"),
    "Faulty": (Faulty.apply, 9.0, "the backward of Faulty"),
    "Wasteful": (Wasteful.apply, 9.0, "the backward of Wasteful"),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", BACKWARD)
def test_a_rule_of_an_own_cell(name, reverse):
    operate, value, advice = BACKWARD[name]
    x = torch.ones(T, B, D)
    x[2] = value

    def there_only(x):
        return operate(x) if x.detach().numpy()[0, 0] == np.float32(value) else x * 1

    x.requires_grad_()
    model = Model(Cell(there_only), reverse, scan.unroll)
    found = explain_nan(model, x, torch.Tensor.sum)
    first = found.first
    assert (first.direction, first.kind, first.operation) == ("backward", "Inf", name)
    assert (first.recurrence, first.t) == ("cell reverse" if reverse else "cell", 3)
    assert first.result.first == (0, 0)
    own = name in ("Faulty", "Wasteful")  # of which the operands are not known
    assert first.result.name == f"gradient of {f'operand of {name}' if own else 'x'}"
    assert advice in first.advice
    assert "test_explain_nan.py" in first.line
    assert found.reached == ["the gradient of input"]
    assert {each.direction for each in found.findings} == {"backward"}


# What is not finite to begin with.


def test_inputs_that_are_not_finite_are_told_first_and_by_name():
    x, h, c = torch.zeros(T, B, D), torch.zeros(1, B, H), torch.zeros(1, B, H)
    x[2, 1, 0] = NAN
    c[0, 0, 3] = INF
    lstm = nn.LSTM(D, H)
    found = explain_nan(lstm, (x, (h, c)), first_output)
    places = [(each.direction, each.kind, each.operation, each.place) for each in found.findings]
    assert places[:2] == [
        ("given", "NaN", "input", "input[0]"),
        ("given", "Inf", "input", "input[1][1]"),
    ]
    assert found.first.result.first == (2, 1, 0)
    assert (found.first.result.nans, found.findings[1].result.infs) == (1, 1)
    assert found.reached == ["the output", "the loss"]
    alone = explain_nan(lstm, x, first_output)
    assert alone.first.place == "input"
    assert len(alone.findings) == 1  # what passes it on is not blamed
    assert "missing values" in alone.first.advice


def test_a_packed_sequence_is_one_input():
    x = torch.zeros(T, 2, D)
    x[3, 1] = INF
    packed = pack_padded_sequence(x, [T, 5])
    found = explain_nan(nn.GRU(D, H), packed, lambda out: out[0].data.sum())
    assert found.first.place == "input[0]"
    assert not explain_nan(
        nn.GRU(D, H), pack_padded_sequence(x, [T, 3]), lambda out: out[0].data.sum()
    )


def test_parameters_and_buffers_that_are_not_finite():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.RNN(D, H)
            self.register_buffer("mean", torch.zeros(D))
            self.register_buffer("mask", torch.full((H,), -INF))

        def forward(self, x):
            return (self.rnn(x - self.mean)[0] + self.mask).softmax(-1)

    model = Normed()
    with torch.no_grad():
        model.rnn.weight_hh_l0[1, 2] = NAN
        model.mean[0] = NAN
    found = explain_nan(model, torch.zeros(T, B, D), torch.Tensor.sum)
    places = [each.place for each in found.findings if each.direction == "given"]
    assert places == ["parameter rnn.weight_hh_l0", "buffer mean"]  # a mask of -Inf is no fault
    assert "an earlier update has spoilt it" in found.first.advice
    assert "running statistic" in found.findings[1].advice


# Nothing to find.


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_clean_recurrence_has_nothing(case):
    xs, h0, weights = case.leaves()

    def model(xs, h0):
        ys, h = scan.scan(case.cell(*weights), xs, h0)
        return [*trees.leaves(ys), *trees.leaves(h)]

    def loss(outputs):
        return sum(y.sum() for y in outputs if y.requires_grad)

    found = explain_nan(model, (xs, h0), loss)
    assert not found
    assert found.first is None
    assert found.findings == found.reached == []
    assert found.forward > 7
    assert found.backward > 7
    assert str(found).startswith("no non-finite value: looked at inputs, parameters, ")


@pytest.mark.parametrize("kind", LAYERS)
def test_a_clean_layer_has_nothing(kind):
    layer = LAYERS[kind](D, H, num_layers=2, bidirectional=True, dropout=0.5)
    assert not explain_nan(layer, randn(T, B, D), first_output)


def test_infinities_put_in_on_purpose_are_none():
    def attend(x):
        mask = torch.tensor([[False, True, False]])
        return x.masked_fill(mask, -INF).softmax(-1) + torch.where(mask, -INF, x).softmax(-1)

    assert not explain_nan(attend, randn(4, 3, requires_grad=True), lambda y: y.square().sum())


# The rest of the explanation.


def test_weights_that_only_a_function_knows_are_looked_at_too():
    w = torch.zeros(D, requires_grad=True)

    def cell(x, h):
        h = h + (x * w).abs().sqrt()
        return h, h

    found = explain_nan(
        lambda x: scan.scan(cell, x, torch.zeros(B, D)), torch.ones(T, B, D), first_output
    )
    assert (found.first.direction, found.first.operation, found.first.t) == ("backward", "sqrt", T)
    assert found.reached == ["the gradient of a tensor of (3,) float32"]


def test_an_output_that_is_masked_before_the_loss_does_not_hide_the_backward_pass():
    def model(x):
        return x.log() + x.sqrt()

    x = torch.tensor([0.0, 1.0], requires_grad=True)
    found = explain_nan(model, x, lambda y: torch.where(y > 0, y, 0.0).sum())
    assert {each.direction for each in found.findings} == {"forward", "backward"}
    assert found.reached == ["the output", "the gradient of input"]


def test_what_comes_after_a_recurrence_is_not_in_it():
    model = nn.Sequential(nn.RNN(D, H), nn.Identity())
    found = explain_nan(model, randn(T, B, D), lambda out: (out[0].mean() * 0).log())
    assert (found.first.operation, found.first.recurrence, found.first.t) == ("log", "", None)
    assert found.first.place == "forward pass, log"


def test_a_scan_in_a_step_is_an_operation_of_it():
    def inner(x, h):
        return (x - 1).log(), h + x  # the state stays finite

    def outer(x, h):
        ys, _ = scan.scan(inner, x, h)
        return ys, h

    x = torch.full((T, 3, B), 2.0)
    x[4, 1] = 1.0
    first = explain_nan(lambda x: scan.scan(outer, x, torch.zeros(B)), x).first
    assert (first.operation, first.t, first.kind) == ("recur", 5, "Inf")
    assert first.result.first == (1, 0)


def test_what_was_recorded_before_stays_and_is_looked_at_too():
    w = torch.tensor([0.0, 1.0], requires_grad=True)
    x = (w * w).sqrt()
    found = explain_nan(torch.Tensor.exp, x, torch.Tensor.sum)
    assert (found.first.direction, found.first.operation) == ("backward", "sqrt")
    assert found.first.line == ""
    x.sum().backward()  # the graph behind the input has not been released
    assert w.grad is not None


def test_inside_no_grad_there_is_a_backward_pass_too():
    x = torch.zeros(1, requires_grad=True)
    with torch.no_grad():
        assert explain_nan(torch.Tensor.sqrt, x).first.direction == "backward"


def test_a_shared_parameter_is_told_once():
    model = nn.Sequential(nn.Linear(D, D), nn.Linear(D, D))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight[0, 0] = NAN
    found = explain_nan(model, torch.ones(B, D), torch.Tensor.sum)
    assert [each.place for each in found.findings] == ["parameter 0.weight"]


def test_what_it_reached():
    def model(x):
        return torch.where(x > 0, x.log(), 0.0)

    x = torch.tensor([0.0, 1.0])
    found = explain_nan(model, x, torch.Tensor.sum)
    assert (found.first.operation, found.reached) == ("log", [])
    assert "It reached neither the output nor the loss" in str(found)
    found = explain_nan(model, x.requires_grad_(), torch.Tensor.sum)
    assert [each.direction for each in found.findings] == ["forward", "backward"]
    assert found.reached == ["the gradient of input"]  # 0 times the slope at 0


class Log(nn.Module):
    """Its own line is run for every instance."""

    def forward(self, x):
        return x.log()


def test_many_findings_are_cut_off():
    model = nn.ModuleList(Log() for _ in range(LIMIT + 5))
    model.forward = lambda x: sum(log(x) for log in model)
    found = explain_nan(model, torch.zeros(3), torch.Tensor.sum)
    assert [each.module for each in found.findings] == [str(k) for k in range(LIMIT)]
    assert str(found).count("log") > LIMIT


def test_an_operation_that_does_it_again_and_again_is_told_once():
    layer = layer_of("GRU", bidirectional=True)
    with torch.no_grad():
        layer.weight_ih_l0[rows_of("GRU", "z")] = HUGE
    x = torch.ones(T, B, D)
    x[0] = 0.0
    found = explain_nan(layer, x, first_output)
    assert [(each.t, each.times) for each in found.findings] == [(2, T - 1)]
    assert f"In this run it happened there {T - 1} times" in str(found)

    def model(x):
        return sum((x - k).log() for k in range(5)) + x.exp()

    found = explain_nan(model, torch.tensor([100.0, 0.0]), torch.Tensor.sum)
    assert [(each.operation, each.times) for each in found.findings] == [("log", 5), ("exp", 1)]
    twice = explain_nan(lambda x: x.exp() + model(x), torch.tensor([100.0, 0.0]))
    assert "log (5 times)" in str(twice)


def test_an_error_after_a_finding_is_told_and_one_without_is_raised():
    def model(x):
        y = x.log()
        if not y.isfinite().all():
            raise ArithmeticError("that should not be")
        return y

    found = explain_nan(model, torch.zeros(2))
    assert found.first.operation == "log"
    assert isinstance(found.error, ArithmeticError)
    assert "Then the model raised ArithmeticError: that should not be" in str(found)
    with pytest.raises(ValueError, match="of its own"):
        explain_nan(lambda x: (_ for _ in ()).throw(ValueError("of its own")), torch.ones(2))


def test_an_error_in_a_step():
    def cell(x, h):
        h = h + x.log()
        if not h.isfinite().all():
            raise ArithmeticError("that should not be")
        return h, h

    x = torch.ones(T, B)
    x[3] = 0.0
    found = explain_nan(lambda x: scan.unroll(cell, x, torch.zeros(B)), x)
    assert (found.first.t, found.first.operation) == (4, "log")
    assert found.first.recurrence.endswith("cell")
    back = explain_nan(lambda x: scan.unroll(cell, x, torch.zeros(B), reverse=True), x)
    assert (back.first.t, back.first.operation) == (4, "log")


def test_a_loss_that_is_none():
    with pytest.raises(DiagnosisError, match=r"gave a tensor of shape \(2, 3\), expected one"):
        explain_nan(nn.Linear(4, 3), randn(2, 4), lambda y: y)
    with pytest.raises(DiagnosisError, match="gave float, expected a Tensor"):
        explain_nan(nn.Linear(4, 3), randn(2, 4), lambda y: 1.0)


def test_without_a_loss_the_output_is_one_if_it_can_be():
    x = torch.tensor([0.0], requires_grad=True)
    assert explain_nan(torch.Tensor.sqrt, x).first.direction == "backward"
    assert not explain_nan(torch.Tensor.sqrt, torch.zeros(2, requires_grad=True))
    assert not explain_nan(torch.Tensor.sqrt, torch.zeros(1))


def test_it_changes_nothing():
    model = nn.Sequential(nn.Linear(D, H), nn.Dropout(0.5))
    grad = model[0].weight.grad = torch.ones(H, D)
    torch.manual_seed(5)
    state = torch.get_rng_state().tolist()
    for x in (torch.ones(B, D), torch.full((B, D), NAN)):
        explain_nan(model, x, torch.Tensor.sum)
        assert torch.get_rng_state().tolist() == state
        assert model[0].weight.grad is grad
        assert model[0].bias.grad is None
        assert not any(module._forward_hooks for module in model.modules())
    torch.manual_seed(5)
    wanted = model(torch.ones(B, D))
    torch.manual_seed(5)
    assert model(torch.ones(B, D)).tolist() == wanted.tolist()


def test_double_precision_and_no_grad():
    x = torch.tensor([[800.0]], dtype=torch.float64)
    with torch.no_grad():
        first = explain_nan(torch.Tensor.exp, x).first
    assert first.operation == "exp"
    assert "above 709.8 in float64" in first.advice


def test_values_in_short():
    values = values_of(np.array([[3.0, NAN, -2.0], [INF, -INF, 0.5]]), "x")
    assert values[:6] == ("x", (2, 3), "float64", -2.0, 3.0, 0.5)
    assert (values.nans, values.infs, values.first, values.kind) == (1, 2, (0, 1), "NaN")
    assert values.largest == 3.0
    assert values_of(torch.arange(4)).kind == values_of(2.5).kind == ""
    assert values_of(-INF).kind == "Inf"
    assert values_of(np.array([NAN])).largest == 0.0


def test_the_text_fits_and_has_a_table():
    layer = layer_of("LSTM", num_layers=2)
    with torch.no_grad():
        layer.weight_ih_l0[rows_of("LSTM", "g")] = HUGE
    found = explain_nan(layer, impulse(3), first_output)
    text = str(found)
    lines = text.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[0] == (
        "first non-finite value: Inf, forward pass, LSTM layer 0 forward, t = 3, gate g, matmul"
    )
    assert "value" in text
    assert "What usually helps: the result lies beyond" in text
    assert repr(found) == text
    header = next(line for line in lines if line.startswith("value"))
    assert header.split() == [
        *("value", "shape", "dtype", "lowest", "highest", "NaN", "Inf", "first", "at")
    ]
