"""What programs and `explain` print: that it is true, and that it reads as it was last reviewed.

The printed lines are run as Python and compared with autograd, so a wrong name or sign fails here.
The texts in `snapshots/` are for the reader of a diff: a change of what scan does to a cell shows
there. After an intended change, write them anew with TINYGRAD_RNN_REWRITE_SNAPSHOTS=1.
"""

import inspect
import os
import re
from pathlib import Path

import numpy as np
import pytest
from recurrent_cells import CASES

import tinygrad_rnn as torch
from tinygrad_rnn import nn, ops
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.program import Program, Trace
from tinygrad_rnn.program_text import equation_row, names_of
from tinygrad_rnn.scan import explain, trees
from tinygrad_rnn.scan.scan import trace_step

SNAPSHOTS = Path(__file__).parent / "snapshots"
REWRITE = "TINYGRAD_RNN_REWRITE_SNAPSHOTS"
CASE = {case.name: case for case in CASES}


@pytest.fixture
def explained(capsys):
    """What `explain` prints of a cell."""

    def explained(cell, xs, h0, **options):
        capsys.readouterr()
        assert explain(cell, xs, h0, **options) is None
        return capsys.readouterr().out

    return explained


@pytest.fixture
def explained_case(explained):
    def explained_case(name, **sizes):
        xs, h0, weights = CASE[name].leaves(**sizes)
        return explained(CASE[name].cell(*weights), xs, h0)

    return explained_case


def sections(text):
    """{(program, section): lines}, of "STEP" and "PULLBACK" each "before", "loop" and so on."""
    found, program, section = {}, None, None
    for line in text.splitlines():
        if line[:1].isupper():
            program, section = line.split()[0], None
        elif line[:1].islower():
            section = re.split(r"\s\s+", line)[0]
        found.setdefault((program, section), []).append(line)
    return found


def equations(lines):
    """The equations among printed lines, without the shapes."""
    return [re.split(r"\s\s+\(", line[2:])[0] for line in lines if re.match(r"  \S", line)]


@pytest.mark.parametrize("name", ["RNN tanh", "LSTM", "GRU", "LSTM peephole", "MGU"])
def test_explanations_read_as_they_were_reviewed(explained_case, name):
    printed = explained_case(name)
    path = SNAPSHOTS / f"{name.lower().replace(' ', '_')}.txt"
    if os.environ.get(REWRITE) == "1":
        path.write_text(printed, encoding="utf-8")
    assert path.exists(), f"no {path.name} yet: run with {REWRITE}=1 and read what it writes"
    assert printed == path.read_text(encoding="utf-8"), (
        f"what explain prints is not {path.name} any more. If that is intended, run this test with "
        f"{REWRITE}=1 and read the diff"
    )


# Cells of which every constant has a name, and no operation is printed in a form that is no Python.
RUNNABLE = [
    "RNN tanh",
    "RNN relu",
    "LSTM",
    "LSTM projected",
    "GRU",
    "GRU reset before",
    "LSTM peephole",
    "MGU",
    "minGRU",
    "sLSTM",
    "tokens",
    "pass through",
    "scalar",
]


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_printed_lines_compute_the_step_and_its_gradients(explained_case, name):
    """They are run as they stand, for T = 1, where the sum over the steps is its one addend."""
    xs, h0, weights = CASE[name].leaves(T=1)
    cell = CASE[name].cell(*weights)
    (x,) = trees.unstack(xs)
    y, h = cell(x, h0)
    printed = sections(explained_case(name, T=1))
    constants = {
        name: value
        for name, value in inspect.getclosurevars(cell).nonlocals.items()
        if isinstance(value, torch.Tensor)
    }
    states, results = trees.named(h0, "h"), [*trees.named(y, "y"), *trees.named(h, "h")]
    inputs = {name: value for value, name in [*states, *trees.named(x, "x")]} | constants
    known = vars(ops) | {"float64": torch.float64} | inputs

    run(printed, "STEP", known)
    assert_goes_to(printed, "STEP", "next carry", known, {n: v for v, n in trees.named(h, "h")})
    assert_goes_to(printed, "STEP", "stacked", known, {n: v for v, n in trees.named(y, "y")})

    rng = np.random.default_rng(0)
    cotangents = [torch.tensor(rng.standard_normal(value.shape)) for value, _ in results]
    known |= {f"d{name}": g for (_, name), g in zip(results, cotangents, strict=True)}
    floating = {name: value for name, value in inputs.items() if value.is_floating_point()}
    gradients = torch.autograd.grad(
        [value for value, _ in results],
        list(floating.values()),
        cotangents,
        allow_unused=True,
    )
    expected = {f"d{name}": g for name, g in zip(floating, gradients, strict=True)}
    expected |= {
        f"d({name}.T)": g.T for name, g in zip(floating, gradients, strict=True) if g.ndim == 2
    }
    run(printed, "PULLBACK", known)
    assert_goes_to(printed, "PULLBACK", "next carry", known, expected)
    assert_goes_to(printed, "PULLBACK", "stacked", known, expected)
    totals = equations(printed["PULLBACK", "totals"])
    assert totals, "no gradient of a constant was compared"
    for line in totals:
        target, expression = line.split(" = ", 1)
        same(eval(expression.replace("sum_t ", ""), {}, known), expected[target])


def run(printed, program, known):
    for section in ("fixed", "before", "loop", "after"):
        for line in equations(printed.get((program, section), [])):
            exec(line, {}, known)


def assert_goes_to(printed, program, kind, known, expected):
    """Every `value -> name` of the kind has the value expected under that name."""
    pairs = re.findall(r"(\S+) -> (\S+)", " ".join(printed.get((program, kind), [])))
    for value, name in pairs:
        same(known[value], expected[name])


def same(value, expected):
    np.testing.assert_allclose(value.detach().numpy(), expected.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ["RNN tanh", "LSTM", "GRU"])
def test_the_loop_has_one_matrix_product_each_way(explained_case, name):
    """The input's product runs before the loop, and the products for the weights after it."""
    printed = sections(explained_case(name))
    for program in ("STEP", "PULLBACK"):
        loop = printed[program, "loop"]
        assert "1 GEMM, run T = 7 times" in loop[0]
        assert sum(" @ " in line for line in equations(loop)) == 1
        assert not any("contract" in line or "x @" in line for line in loop)
    assert "x @ W_x" in printed["STEP", "before"][2]
    assert "2 GEMMs, each over all T * B = 14 rows" in printed["PULLBACK", "totals"][0]
    totals = equations(printed["PULLBACK", "totals"])
    assert sum("sum_t contract(" in line for line in totals) == 2


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_value_is_made_once_and_under_one_name(explained_case, case):
    text = explained_case(case.name)
    made = [
        name for line in equations(text.splitlines()) for name in line.split(" = ")[0].split(", ")
    ]
    assert len(made) == len(set(made))
    xs, h0, weights = case.leaves()
    program = trace_step(case.cell(*weights), xs, h0).program()
    names = names_of(program.variables)
    assert len(set(names.values())) == len(names) == len([*program.variables])


def test_names_that_are_taken_are_not_given_again(explained):
    v1 = torch.tensor(2.0)
    h = torch.tensor(3.0)

    def cell(x, state):
        state = v1 * state + h * x
        return state, state

    text = explained(cell, torch.ones(3), torch.tensor(0.0))
    assert "constants   v1 ()  h_2 ()" in text
    assert "v2 = h_2 * x" in text
    assert "v3 = v1 * h" in text


def test_a_program_prints_its_inputs_equations_and_outputs():
    def cell(x, state):
        h, n = state
        h = (x @ W + 2.5 * -h) ** 2 / (n + 1)
        return h[..., 1:], (h, n + 1)

    W = torch.ones(3, 2)
    xs, h0 = torch.ones(4, 5, 3), (torch.zeros(5, 2), torch.tensor(0))
    assert (
        str(trace_step(cell, xs, h0).program())
        == """\
carry       h0 (5, 2)  h1 () int64
sequences   x (5, 3)
constants   c1 (3, 2)
  v1 = x @ c1                                 (5, 2)
  v2 = -h0                                    (5, 2)
  v3 = 2.5 * v2                               (5, 2)
  v4 = v1 + v3                                (5, 2)
  v5 = square(v4)                             (5, 2)
  v6 = h1 + 1                                 () int64
  v7 = cast(v6, dtype=float32, source=int64)  ()
  v8 = v5 / v7                                (5, 2)
  v9 = v8[..., 1:]                            (5, 1)
next carry  v8 -> h0  v6 -> h1
stacked     v9"""
    )


def test_numbers_operators_indices_and_parameters():
    trace = Trace()
    like = torch.ones(2, 3)
    x, y = trace.input(like, "x"), trace.input(like, "y")
    stack = trace.input(torch.ones(4, 2, 3), "s")
    where = torch.tensor([0, 2])
    made = {
        "1 - x": 1 - x,
        "x * -0.5": x * -0.5,
        "(-2.0) ** x": (-2.0) ** x,
        "-x": -x,
        "x <= y": x <= y,
        "x.T": x.T,
        "s.mT": stack.mT,
        "transpose(s, axes=(-1, -3, -2))": stack.permute(2, 0, 1),
        "x[:, ::2]": x[:, ::2],
        "x[None, ..., -1]": x[None, ..., -1],
        "x[:, <int64 (2,)>]": x[:, where],
        "cast(x, dtype=float64, source=float32)": x.double(),
        "einsum('ab,ab->a', x, y)": torch.einsum("ab,ab->a", x, y),
        "clip(x, low=None, high=1.5)": x.clip(max=1.5),
    }
    first, second = ops.split(x, sizes=(1, 2), axis=-1)
    Program(trace.equations, [], [x, y, stack], [], [], [*made.values(), first, second])
    names = {x: "x", y: "y", stack: "s"}
    for expected, value in made.items():
        left, right = equation_row(value.equation, names | {value: "z"}, like.dtype)
        assert left == f"z = {expected}"
        assert (
            right
            == f"{value.shape}{' bool' * ('<=' in expected)}{' float64' * ('cast' in expected)}"
        )
    row = equation_row(first.equation, names | {first: "a", second: "b"}, like.dtype)
    assert row == ("a, b = split(x, sizes=(1, 2), axis=-1)", "(2, 1), (2, 2)")


def test_states_and_outputs_are_called_by_their_place_or_field(explained_case):
    text = explained_case("masked pair")
    assert "carry       h (2, 5)  c (2, 5)" in text
    assert "sequences   x (2, 5)  gate (2, 5)  keep (2,) int64" in text
    assert re.search(r"stacked     v\d+ -> y0  v\d+ -> y1_0  v\d+ -> y1_1", text)
    assert "next carry  v17 -> h0  v14 -> h1" in explained_case("LSTM")


def test_an_integer_state_has_no_cotangent(explained_case):
    printed = sections(explained_case("clockwork RNN"))
    assert printed["STEP", "carry"] == ["carry       h0 (2, 5)  h1 () int64"]
    assert printed["PULLBACK", "carry"] == ["carry       dh0 (2, 5)"]


def test_without_a_floating_input_there_is_no_pullback(explained):
    def count(x, n):
        return n, n + x

    text = explained(count, torch.arange(3), torch.tensor(0))
    assert "NO PULLBACK" in text
    assert "backward" not in text


def test_what_is_kept_for_backward_is_counted_in_bytes(explained_case):
    lines = explained_case("RNN tanh", T=10).splitlines()
    # h before the step for the gradient of W_h, and h after it for tanh': 2 (B, H) in float64
    assert lines[1] == "keeps for backward h, v5: 160 bytes at each t, 1,600 in all"


def test_the_direction_is_told_and_turned_round_for_the_pullback(explained):
    def cell(x, h):
        return h, h * x

    text = explained(cell, torch.ones(3), torch.tensor(1.0), reverse=True)
    assert "STEP  T = 3, from t = 3 to 1" in text
    assert "PULLBACK OF THE STEP  T = 3, from t = 1 to 3" in text
    assert "STEP  T = 0\n" in explained(cell, torch.ones(0), torch.tensor(1.0))


class Leaky(nn.Module):
    """A module of which another method than forward is the cell."""

    def __init__(self, size):
        super().__init__()
        self.U = nn.Parameter(torch.ones(size, size))

    def step(self, x, h):
        h = 0.9 * h + (x + h @ self.U.T).tanh()
        return h, h


def test_weights_have_the_names_that_the_cell_knows_them_by(explained):
    lstm, readout = nn.LSTMCell(3, 5), nn.Linear(5, 4, bias=False)

    def cell(x, state):
        h, c = lstm(x, state)
        return readout(h), (h, c)

    xs, h0 = torch.ones(7, 2, 3), (torch.ones(2, 5), torch.ones(2, 5))
    text = explained(cell, xs, h0)
    assert "lstm.weight_ih.T (3, 20)" in text
    assert "@ readout.weight.T" in text
    assert "U.T (5, 5)" in explained(Leaky(5).step, torch.ones(7, 2, 5), torch.ones(2, 5))


def test_random_numbers_are_inputs_without_a_gradient(explained):
    def cell(x, h):
        return F.dropout(h, 0.5), h * x

    text = explained(cell, torch.ones(3, 2), torch.ones(2))
    assert "sequences   x (2,)  drawn (2,)" in text
    assert "ddrawn" not in text


def test_explaining_draws_no_random_numbers_and_changes_nothing(explained):
    def cell(x, h):
        return F.dropout(h, 0.5), h * a

    a = torch.tensor(0.5, requires_grad=True)
    torch.manual_seed(1)
    expected = torch.rand(3).tolist()
    torch.manual_seed(1)
    explained(cell, torch.ones(3, 2), torch.ones(2))
    assert torch.rand(3).tolist() == expected
    assert a.grad is None


def test_errors_are_those_of_scan(explained):
    with pytest.raises(
        TypeError, match="scan: h0: expected a Tensor or a tuple of Tensors, got int"
    ):
        explained(lambda x, h: (h, h), torch.ones(3), 0)
    with pytest.raises(ValueError, match="scan: xs: the tensors need a first axis of one size"):
        explained(lambda x, h: (h, h), (torch.ones(3), torch.ones(2)), torch.ones(1))
