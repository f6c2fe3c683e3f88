"""RNN, LSTM, GRU and their cells against PyTorch's: values, all gradients, names and errors.

`benchmarks/parity.py` writes the differences that `compare` measures into docs/parity.md.
"""

import itertools
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import tinygrad_rnn
from tinygrad_rnn import nn

torch = pytest.importorskip("torch")

# PyTorch says that this layer runs on its plain code, not on oneDNN.
pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported"),
    pytest.mark.usefixtures("device"),
]

T, B, D, H, P = 6, 3, 7, 5, 2  # steps, batch, input features, hidden units, projected units
TOLERANCE = {"float64": 1e-10, "float32": 2e-5}

LAYERS = [
    ("RNN", {"nonlinearity": "tanh"}),
    ("RNN", {"nonlinearity": "relu"}),
    ("LSTM", {}),
    ("LSTM", {"proj_size": P}),
    ("GRU", {}),
]
CELLS = [
    ("RNNCell", {"nonlinearity": "tanh"}),
    ("RNNCell", {"nonlinearity": "relu"}),
    ("LSTMCell", {}),
    ("GRUCell", {}),
]


@dataclass(frozen=True)
class Case:
    """A layer or cell with one choice of its options, for one sequence or a batch of them."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    batched: bool = True

    def __str__(self) -> str:
        shown = [self.name, *(f"{key}={value}" for key, value in self.options.items())]
        return "-".join(shown if self.batched else [*shown, "unbatched"])

    def arguments(self, dtype: str) -> list[np.ndarray]:
        """A random input and random initial states, non-zero so that their effect is seen."""
        draw = np.random.default_rng(5).standard_normal
        batch = (B,) if self.batched else ()
        if self.name.endswith("Cell"):
            x = draw((*batch, D))
            states = [draw((*batch, H)) for _ in range(1 + (self.name == "LSTMCell"))]
        else:
            batch_leads = self.batched and self.options.get("batch_first")
            x = draw((B, T, D) if batch_leads else (T, *batch, D))
            rows = self.options.get("num_layers", 1) * (1 + self.options.get("bidirectional", 0))
            sizes = [self.options.get("proj_size") or H, H] if self.name == "LSTM" else [H]
            states = [draw((rows, *batch, size)) for size in sizes]
        return [value.astype(dtype) for value in (x, *states)]


def layer_cases() -> list[Case]:
    """Every combination of the options that change what is computed or how it is laid out."""
    switches = list(itertools.product((1, 3), *[(False, True)] * 4))
    names = ("num_layers", "bidirectional", "bias", "batch_first")
    return [
        Case(name, choice | dict(zip(names, options, strict=True)), batched)
        for name, choice in LAYERS
        for *options, batched in switches
    ]


def cell_cases() -> list[Case]:
    return [
        Case(name, {**choice, "bias": bias}, batched)
        for name, choice in CELLS
        for bias, batched in itertools.product((False, True), repeat=2)
    ]


def both(case: Case, dtype: str) -> tuple[Any, Any]:
    """PyTorch's module and ours with the same weights, whose dtypes are `dtype`."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, case.name)(D, H, **case.options, dtype=getattr(torch, dtype))
    ours = getattr(nn, case.name)(D, H, **case.options, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def leaves_and_results(library: Any, module: Any, arguments: list[Any]) -> tuple[dict, dict]:
    """By name: every tensor that requires a gradient, and every one that the module returns."""
    x, *states = [library.tensor(value, requires_grad=True) for value in arguments]
    returned = flat(module(x, tuple(states) if len(states) > 1 else states[0]))
    names = ("h_n", "c_n") if isinstance(module, CELL_CLASSES) else ("output", "h_n", "c_n")
    leaves = dict(zip(("x", "h_0", "c_0"), (x, *states), strict=False))
    return leaves | dict(module.named_parameters()), dict(zip(names, returned, strict=False))


CELL_CLASSES = (torch.nn.RNNCellBase, nn.RNNCellBase)


def flat(value: Any) -> list[Any]:
    """The tensors in a tuple of tuples."""
    return [part for item in value for part in flat(item)] if isinstance(value, tuple) else [value]


def pulled_back(library: Any, leaves: dict, results: dict, **options: Any) -> dict[str, Any]:
    """The gradients of all leaves, by name, from random cotangents of all results."""
    draw = np.random.default_rng(6).standard_normal
    cotangents = [
        library.tensor(draw(tuple(y.shape)).astype(y.detach().numpy().dtype))
        for y in results.values()
    ]
    gs = library.autograd.grad(list(results.values()), list(leaves.values()), cotangents, **options)
    return {f"d{name}": g for name, g in zip(leaves, gs, strict=True)}


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, float]:
    """The largest absolute difference of each pair, whose shapes and dtypes must be equal."""
    assert list(theirs) == list(ours)
    found = {}
    for name in theirs:
        expected, actual = theirs[name].detach().numpy(), ours[name].detach().numpy()
        assert actual.shape == expected.shape, name
        assert actual.dtype == expected.dtype, name
        found[name] = float(np.abs(actual - expected).max())
    return found


def compare(case: Case, dtype: str) -> dict[str, float]:
    """The largest absolute differences from PyTorch, by name: outputs, states, all gradients."""
    quantities = []
    for library, module in zip((torch, tinygrad_rnn), both(case, dtype), strict=True):
        leaves, results = leaves_and_results(library, module, case.arguments(dtype))
        quantities.append(results | pulled_back(library, leaves, results))
    return differences(*quantities)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", [*layer_cases(), *cell_cases()], ids=str)
def test_values_and_gradients(case, dtype):
    errors = compare(case, dtype)
    assert {"h_n", "dx", "dh_0"} < set(errors)
    wrong = {name: error for name, error in errors.items() if not error <= TOLERANCE[dtype]}
    assert not wrong


@pytest.mark.parametrize(("name", "choice"), [*LAYERS, *CELLS])
def test_second_order_gradients(name, choice):
    """The gradients of the squared gradients, summed: backward through backward."""
    options = {} if name.endswith("Cell") else {"num_layers": 2, "bidirectional": True}
    case = Case(name, choice | options)
    quantities = []
    for library, module in zip((torch, tinygrad_rnn), both(case, "float64"), strict=True):
        leaves, results = leaves_and_results(library, module, case.arguments("float64"))
        first = pulled_back(library, leaves, results, create_graph=True)
        penalty = sum((g * g).sum() for g in first.values())
        quantities.append(
            pulled_back(library, leaves, {"penalty": penalty}, materialize_grads=True)
        )
    errors = differences(*quantities)
    wrong = {name: error for name, error in errors.items() if not error <= 1e-10}
    assert not wrong


@pytest.mark.parametrize("case", [*layer_cases()[:8], *cell_cases()], ids=str)
def test_zero_states_where_none_are_given(case):
    x, *_ = case.arguments("float64")
    theirs, ours = both(case, "float64")
    expected, actual = flat(theirs(torch.tensor(x))), flat(ours(tinygrad_rnn.tensor(x)))
    assert len(actual) == len(expected)
    for y, y_expected in zip(actual, expected, strict=True):
        np.testing.assert_allclose(
            y.detach().numpy(), y_expected.detach().numpy(), rtol=0, atol=1e-10
        )


@pytest.mark.parametrize(("name", "choice"), LAYERS)
def test_evaluation_mode_has_the_same_gradients(name, choice):
    """With dropout, so that training would differ."""
    case = Case(name, choice | {"num_layers": 3, "dropout": 0.5})
    quantities = []
    for library, module in zip((torch, tinygrad_rnn), both(case, "float64"), strict=True):
        module.eval()
        leaves, results = leaves_and_results(library, module, case.arguments("float64"))
        quantities.append(results | pulled_back(library, leaves, results))
    assert max(differences(*quantities).values()) < 1e-10


@pytest.mark.parametrize("case", [*layer_cases(), *cell_cases()], ids=str)
def test_weight_names_order_and_shapes(case):
    theirs, ours = both(case, "float32")
    assert [(name, param.shape) for name, param in ours.named_parameters()] == [
        (name, tuple(param.shape)) for name, param in theirs.named_parameters()
    ]
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("case", layer_cases(), ids=str)
def test_all_weights(case):
    """The parameters in groups of one layer and direction."""
    groups = []
    for layer in both(case, "float32"):
        layer.flatten_parameters()
        names = {id(param): name for name, param in layer.named_parameters()}
        groups.append([[names[id(param)] for param in group] for group in layer.all_weights])
    assert groups[0] == groups[1]


# Errors. Each row makes PyTorch raise; here the same type must come out.


def raised(call: Any) -> type[BaseException] | None:
    try:
        call()
    except Exception as error:
        return type(error)
    return None


WRONG_ARGUMENTS = [
    {"dropout": 1.5},
    {"dropout": -0.1},
    {"dropout": True},
    {"dropout": "half"},
    {"dropout": "0.5"},
    {"dropout": None},
    {"num_layers": 0},
    {"num_layers": -1},
    {"num_layers": "2"},
    {"num_layers": 1.5},
    {"bias": 1},
    {"bias": None},
    {"batch_first": 0},
    {"input_size": 0},
    {"input_size": 3.0},
    {"hidden_size": 0},
    {"hidden_size": "4"},
    {"proj_size": -1},
    {"proj_size": 5},
    {"proj_size": 6},
    {"nonlinearity": "sigmoid"},
    {"nonlinearity": None},
]


@pytest.mark.parametrize("wrong", WRONG_ARGUMENTS, ids=str)
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_wrong_constructor_arguments(name, wrong):
    arguments = {"input_size": D, "hidden_size": H} | wrong
    expected = raised(lambda: getattr(torch.nn, name)(**arguments))
    assert expected is not None
    assert raised(lambda: getattr(nn, name)(**arguments)) is expected


@pytest.mark.parametrize("sizes", [(-1, H), (D, -1)], ids=str)
@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_wrong_cell_arguments(name, sizes):
    expected = raised(lambda: getattr(torch.nn, name)(*sizes))
    assert expected is not None
    assert raised(lambda: getattr(nn, name)(*sizes)) is expected


def test_unknown_nonlinearity_of_a_cell():
    """PyTorch raises when the cell is called; here it is refused when it is made."""
    theirs = torch.nn.RNNCell(D, H, nonlinearity="sigmoid")
    expected = raised(lambda: theirs(torch.zeros(B, D)))
    assert raised(lambda: nn.RNNCell(D, H, nonlinearity="sigmoid")) is expected is RuntimeError


@dataclass(frozen=True)
class Wrong:
    """An input and states that do not fit a layer of two layers, or a cell."""

    x: tuple[int, ...]
    states: tuple[tuple[int, ...], ...] | None = None  # shapes of h and, for an LSTM, of c
    x_dtype: str = "float32"
    state_dtype: str = "float32"
    options: dict[str, Any] = field(default_factory=dict)

    def call(self, library: Any, name: str) -> None:
        module = getattr(library.nn, name)(D, H, **self.options)
        x = library.zeros(self.x, dtype=getattr(library, self.x_dtype))
        if self.states is None:
            module(x)
            return
        dtype = getattr(library, self.state_dtype)
        h, c = [library.zeros(shape, dtype=dtype) for shape in self.states]
        module(x, (h, c) if name.startswith("LSTM") else h)


GOOD, FLAT = (2, B, H), (2, H)  # states of two layers, for a batch and for one sequence
WRONG_LAYER_INPUTS = {
    "one axis": Wrong((D,)),
    "four axes": Wrong((T, B, D, 1)),
    "features": Wrong((T, B, D + 1)),
    "features of one sequence": Wrong((T, D + 1)),
    "no steps": Wrong((0, B, D)),
    "no steps, batch first": Wrong((B, 0, D), options={"batch_first": True}),
    "float64 input": Wrong((T, B, D), x_dtype="float64"),
    "integer input": Wrong((T, B, D), x_dtype="int64"),
    "float64 state": Wrong((T, B, D), (GOOD, GOOD), state_dtype="float64"),
    "state of another batch": Wrong((T, B, D), ((2, B + 1, H),) * 2),
    "state of one layer": Wrong((T, B, D), ((1, B, H),) * 2),
    "state of another size": Wrong((T, B, D), ((2, B, H + 1),) * 2),
    "state with batch first": Wrong((B, T, D), ((B, 2, H),) * 2, options={"batch_first": True}),
    "state without batch": Wrong((T, B, D), (FLAT, FLAT)),
    "batched state for one sequence": Wrong((T, D), (GOOD, GOOD)),
    "state of another size for one sequence": Wrong((T, D), ((2, H + 1),) * 2),
}


@pytest.mark.parametrize("wrong", WRONG_LAYER_INPUTS.values(), ids=WRONG_LAYER_INPUTS)
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_wrong_inputs_of_layers(name, wrong):
    wrong.options["num_layers"] = 2
    expected = raised(lambda: wrong.call(torch, name))
    assert expected is not None
    assert raised(lambda: wrong.call(tinygrad_rnn, name)) is expected


WRONG_LSTM_INPUTS = {
    "c of another batch": Wrong((T, B, D), (GOOD, (2, B + 1, H))),
    "c without batch": Wrong((T, B, D), (GOOD, FLAT)),
    "h not projected": Wrong((T, B, D), (GOOD, GOOD), options={"proj_size": P}),
    "c projected": Wrong((T, B, D), ((2, B, P), (2, B, P)), options={"proj_size": P}),
}


@pytest.mark.parametrize("wrong", WRONG_LSTM_INPUTS.values(), ids=WRONG_LSTM_INPUTS)
def test_wrong_states_of_an_lstm(wrong):
    wrong.options["num_layers"] = 2
    expected = raised(lambda: wrong.call(torch, "LSTM"))
    assert expected is RuntimeError
    assert raised(lambda: wrong.call(tinygrad_rnn, "LSTM")) is expected


WRONG_CELL_INPUTS = {
    "a sequence": Wrong((T, B, D)),
    "no axes": Wrong(()),
    "features": Wrong((B, D + 1)),
    "features of one row": Wrong((D + 1,)),
    "float64 input": Wrong((B, D), x_dtype="float64"),
    "float64 state": Wrong((B, D), ((B, H),) * 2, state_dtype="float64"),
    "state of another batch": Wrong((B, D), ((B + 1, H),) * 2),
    "state of another size": Wrong((B, D), ((B, H + 1),) * 2),
    "state with an axis too many": Wrong((B, D), ((1, B, H),) * 2),
    "state without batch": Wrong((B, D), ((H,),) * 2),
    "batched state for one row": Wrong((D,), ((B, H),) * 2),
}


@pytest.mark.parametrize("wrong", WRONG_CELL_INPUTS.values(), ids=WRONG_CELL_INPUTS)
@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
def test_wrong_inputs_of_cells(name, wrong):
    expected = raised(lambda: wrong.call(torch, name))
    assert expected is not None
    assert raised(lambda: wrong.call(tinygrad_rnn, name)) is expected


@pytest.mark.parametrize("name", ["LSTM", "LSTMCell"])
def test_an_lstm_state_of_three_tensors(name):
    rows = () if name == "LSTMCell" else (1,)

    def call(library):
        states = [library.zeros(*rows, B, H) for _ in range(3)]
        x = library.zeros(*((B, D) if name == "LSTMCell" else (T, B, D)))
        getattr(library.nn, name)(D, H)(x, states)

    assert raised(lambda: call(tinygrad_rnn)) is raised(lambda: call(torch)) is RuntimeError


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_the_dropout_warning(name):
    with pytest.warns(UserWarning, match="num_layers"):
        getattr(torch.nn, name)(D, H, dropout=0.5)
    with pytest.warns(UserWarning, match="num_layers=1") as caught:
        getattr(nn, name)(D, H, dropout=0.5)
    assert [warning.filename for warning in caught] == [__file__]  # not a file of the package


def test_no_warning_without_cause():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.LSTM(D, H, num_layers=2, dropout=0.5)
        nn.LSTM(D, H, dropout=0)


def test_constructors_take_the_documented_arguments_by_position():
    """PyTorch's own signature is (*args, **kwargs); this order is the one that it documents."""
    rnn = nn.RNN(D, H, 2, "relu", False, True, 0.25, True, "cpu", "float64")
    assert repr(rnn) == repr(torch.nn.RNN(D, H, 2, "relu", False, True, 0.25, True))
    assert (rnn.nonlinearity, rnn.weight_ih_l0.dtype) == ("relu", "float64")
    lstm = nn.LSTM(D, H, 2, False, True, 0.25, True, P, "cpu", "float64")
    assert repr(lstm) == repr(torch.nn.LSTM(D, H, 2, False, True, 0.25, True, P))
    assert lstm.weight_hr_l1_reverse.dtype == "float64"
    gru = nn.GRU(D, H, 2, False, True, 0.25, True, "cpu", "float64")
    assert repr(gru) == repr(torch.nn.GRU(D, H, 2, False, True, 0.25, True))
    cell = nn.RNNCell(D, H, False, "relu", "cpu", "float64")
    assert repr(cell) == repr(torch.nn.RNNCell(D, H, False, "relu"))
    for name in ("LSTMCell", "GRUCell"):
        cell = getattr(nn, name)(D, H, False, "cpu", "float64")
        assert repr(cell) == repr(getattr(torch.nn, name)(D, H, False))
