"""What scan refuses, and in what words: every message names what came and what to do.

A cell that needs values is told the file and line, and that unroll runs it. Nothing of a failed
scan stays behind.
"""

import gc
import re
import weakref

import numpy as np
import pytest
from arrays import on_device

import tinygrad_rnn as torch
from tinygrad_rnn import nn
from tinygrad_rnn.modes import current
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.nn import init
from tinygrad_rnn.scan import scan, unroll

pytestmark = pytest.mark.usefixtures("device")

GENERATOR = torch.Generator(0)


@pytest.fixture(scope="module", autouse=True)
def _inputs(device):
    """The tensors that all cases below mean, made on the device."""
    global XS, H0, W
    XS, H0 = torch.ones(4, 2, 3), torch.full((2, 3), 0.5)
    W = torch.ones(3, 3, requires_grad=True)


def decay(x, h):
    h = h * 0.5 + x
    return h, h


@pytest.fixture(autouse=True)
def nothing_stays_behind():
    """After each test no trace is open, and a scan that is right works."""
    yield
    assert current.trace is None
    actual, expected = (r(decay, XS, H0)[0].tolist() for r in (scan, unroll))
    assert actual == expected


class Cube(torch.autograd.Function):
    """Its forward could be written down, as if it had no backward."""

    @staticmethod
    def forward(ctx, x):
        return x * x * x

    @staticmethod
    def backward(ctx, g):
        return g * 100


def assigns(x, h):
    h[0] = 1.0
    return h, h


def assigns_into_its_own(x, h):
    torch.zeros(2, 3)[0] = h[0]
    return h, h


# Cells that need values: how the message says what they do. The line is that of the lambda, or the
# first of the function.
NEED_VALUES = {
    "if": (lambda x, h: (h, h) if h.sum() > 0 else (x, h), "branches on a value"),
    "and": (lambda x, h: (h.any() and h, h), "branches on a value"),
    "not": (lambda x, h: (not h.sum(), h), "branches on a value"),
    "in": (lambda x, h: (1.0 in h, h), "branches on a value"),
    "assert equal": (lambda x, h: (h.equal(x), h), "branches on a value"),
    "float": (lambda x, h: (x * float(h.sum()), h), "into a Python number"),
    "int": (lambda x, h: (x * int(h.sum()), h), "into a Python number"),
    "range": (lambda x, h: ([h for _ in range(int(h.sum()))], h), "into a Python number"),
    "range of h": (lambda x, h: ([h for _ in range(h.sum())], h), "into a Python number"),
    "item": (lambda x, h: (x * h.sum().item(), h), r"into a Python number \(item\)"),
    "tolist": (lambda x, h: (x * h.tolist()[0][0], h), r"into Python numbers \(tolist\)"),
    "format": (lambda x, h: (print(f"{h.sum():.3f}"), h), "formats a value"),
    "numpy": (lambda x, h: (x * h.numpy(), h), "into a NumPy array"),
    "asarray": (lambda x, h: (x * np.asarray(h), h), "hands a value of the step to NumPy"),
    "tensor": (lambda x, h: (torch.tensor(h), h), "hands a value of the step to NumPy"),
    "tensor of parts": (lambda x, h: (torch.tensor([h.sum(), 1.0]), h), "hands .* to NumPy"),
    "array": (lambda x, h: (h.array, h), "asks for the array behind a value"),
    "index": (lambda x, h: (x[h.argmax(0)], h), "or indexes with one"),
    "mask": (lambda x, h: (x[h > 0], h), "or indexes with one"),
    "index in a list": (lambda x, h: (x[:, [0, h.argmax()]], h), "hands .* to NumPy"),
    "nonzero": (lambda x, h: (h.nonzero(), h), "nonzero, whose result has a shape that depends"),
    "unique": (lambda x, h: (h.unique(), h), "unique, whose result has a shape that depends"),
    "one_hot": (lambda x, h: (F.one_hot(h.argmax(-1)), h), "asks for the array"),
    "assignment": (assigns, "assigns into a value of the step; torch.where"),
    "assignment of": (assigns_into_its_own, "asks for the array behind a value"),
    "in place": (lambda x, h: (h.add_(1), h), r"changes a value of the step in place \(add_\)"),
    "relu in place": (lambda x, h: (F.relu(h, inplace=True), h), "assigns into a value"),
    "backward": (lambda x, h: (h.sum().backward(), h), "calls backward inside the step"),
    "grad_fn": (lambda x, h: (h.grad_fn, h), r"uses \.grad_fn, which a value of the step does not"),
    "hook": (lambda x, h: (h.register_hook(print), h), r"uses \.register_hook"),
    "Function": (lambda x, h: (Cube.apply(h), h), "applies Cube, which has a backward of its own"),
}


@pytest.mark.parametrize("name", NEED_VALUES)
def test_cells_that_need_values(name):
    cell, what = NEED_VALUES[name]
    line = cell.__code__.co_firstlineno + (cell.__name__ != "<lambda>")
    with pytest.raises(RuntimeError, match=r"^scan: the cell ") as caught:
        scan(cell, XS, H0)
    message = str(caught.value)
    said, where = message.split(f" at {__file__}:")  # the line itself holds the expected words
    assert re.search(what, said)
    assert where.startswith(f"{line}: ")
    assert "or use unroll(cell, xs, h0)" in message
    assert message.count("scan: ") == 1  # said once, by whoever noticed first


def test_the_line_is_the_one_that_needs_the_value():
    def helper(h):
        scaled = h * 2
        return scaled.sum().item()  # here

    def cell(x, h):
        total = helper(x)
        return h * total, h

    line = helper.__code__.co_firstlineno + 2
    with pytest.raises(RuntimeError, match=rf"{re.escape(__file__)}:{line}: return scaled.*# here"):
        scan(cell, XS, H0)


def test_unroll_runs_them_as_the_message_says():
    for name in ("if", "item", "index", "Function"):
        unroll(NEED_VALUES[name][0], XS, H0)


def test_what_needs_no_value_is_no_error():
    """Shapes, dtypes and lengths are known; printing shows them; an array may stand on the left."""
    printed, halves = [], on_device(np.full((2, 3), 0.5, np.float32))

    def cell(x, h):
        printed.append(f"{h}")
        assert h.shape == (2, 3)
        assert (len(h), h.ndim, h.size(-1), h.numel(), h.dtype) == (2, 2, 3, 6, np.float32)
        assert hasattr(h, "sum")
        assert not hasattr(h, "nonsense")
        rows = [row * (k + 1) for k, row in enumerate(h)]
        h = halves * torch.stack(rows) + np.float64(1) * x
        h += x
        return h, h

    actual, expected = (r(cell, XS, H0)[0].numpy() for r in (scan, unroll))
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert printed[0] == "Var(h: (2, 3) float32)"


def test_a_function_of_constants_is_an_operation_like_any_other():
    """Applied to a weight it is computed once, and its own backward counts."""
    found = []
    for recurrence in (scan, unroll):
        W.grad = None
        ys, _ = recurrence(lambda x, h: (h, (h @ Cube.apply(W) * 0.1).tanh()), XS, H0)
        ys.sum().backward()
        found.append(W.grad.numpy())
    np.testing.assert_allclose(*found, rtol=1e-5)


# Random numbers that would be drawn once.


@pytest.mark.parametrize(
    "draw",
    [
        lambda: GENERATOR.numpy.random((2, 3)),
        lambda: GENERATOR.uniform((2, 3)),
        lambda: torch.randint(0, 9, (2, 3)),
        lambda: torch.randperm(3),
        lambda: init.normal_(torch.empty(2, 3)),
        lambda: nn.Linear(3, 3).weight[:2],
    ],
)
def test_random_numbers_that_would_be_the_same_at_every_step(draw):
    before = torch.get_rng_state().tolist()
    wanted = r"(?s)draws random numbers, .* same .*test_scan_errors\.py:\d+.*torch\.rand.* unroll"
    with pytest.raises(RuntimeError, match=wanted):
        scan(lambda x, h: (h, h * torch.as_tensor(draw())), XS, H0)
    assert torch.get_rng_state().tolist() == before


# Values that leave their step.


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = torch.zeros(2, 3)

    def forward(self, x, h):
        h = (h + x + self.last).tanh()
        self.last = h
        return h, h


def leaked(cell=None):
    """A value that a step let out."""
    out = []

    def leaking(x, h):
        out.append(h + x)
        return cell(x, h) if cell else (h, h)

    try:
        scan(leaking, XS, H0)
    except (TypeError, ZeroDivisionError):
        assert cell
    return out[0]


OLD = r"written down earlier: the cell let it out, .* attribute.* list.* return it .* unroll"
uses = pytest.mark.parametrize(
    "use",
    [
        lambda v: v + 1,
        lambda v: torch.ones(2, 3) * v,
        lambda v: v.sum().item(),
        lambda v: scan(decay, XS, v),
        lambda v: scan(decay, v, H0[0]),
        lambda v: unroll(decay, XS, v),
    ],
)


@uses
def test_a_leaked_value_has_no_use_outside(use):
    with pytest.raises(RuntimeError, match=OLD):
        use(leaked())


@uses
@pytest.mark.parametrize(
    "cell", [lambda x, h: 1 / 0, lambda x, h: h], ids=["raises", "returns no pair"]
)
def test_nor_has_one_of_a_step_that_failed(cell, use):
    with pytest.raises(RuntimeError, match=OLD):
        use(leaked(cell))


@pytest.mark.parametrize(
    "cell", [lambda v: v + H0, lambda v: H0 + v, lambda v: v, lambda v: torch.stack([H0, v])[0]]
)
def test_nor_in_the_next_scan(cell):
    value = leaked()
    for step in (lambda x, h: (h, cell(value)), lambda x, h: (h + cell(value), h)):
        with pytest.raises(RuntimeError, match=OLD):
            scan(step, XS, H0)


def test_a_module_that_remembers_its_state():
    """The first scan cannot know; the second says what is wrong, and in which line."""
    module = Remembering()
    scan(module, XS, H0)
    line = Remembering.forward.__code__.co_firstlineno + 1
    with pytest.raises(RuntimeError, match=rf"{re.escape(__file__)}:{line}: .*{OLD}"):
        scan(module, XS, H0)


def test_a_value_of_an_inner_step_in_the_outer_one():
    def outer(x, h):
        out = []

        def inner(row, total):
            out.append(row * 2)
            return row, total

        ys, _ = scan(inner, x, h[0])
        return ys + out[0], h

    with pytest.raises(RuntimeError, match=OLD):
        scan(outer, XS, H0)
    assert current.trace is None


# What a cell returns. test_unroll.py has the same for unroll.


@pytest.mark.parametrize(
    ("cell", "error", "match"),
    [
        (lambda x, h: h, TypeError, r"returned \(2, 3\); expected a pair \(y, h\)"),
        (lambda x, h: None, TypeError, r"returned NoneType; expected a pair \(y, h\)"),
        (lambda x, h: [h, h], TypeError, r"returned list; expected a pair \(y, h\)"),
        (lambda x, h: (h, h, h), TypeError, r"expected a pair .* return \(h, h\)"),
        (nn.GRUCell, TypeError, r"returned \(2, 3\); expected a pair"),
        (lambda x, h: (None, h), TypeError, "y: expected a Tensor .*, got NoneType"),
        (lambda x, h: (1.0, h), TypeError, "y: expected a Tensor .*, got float"),
        (lambda x, h: ([h], h), TypeError, "y: expected a Tensor .*, got list"),
        (lambda x, h: (h, np.ones((2, 3))), TypeError, "h: expected .*, got ndarray"),
        (lambda x, h: (h, None), ValueError, r"state of \(2, 3\) into one of NoneType"),
        (lambda x, h: (h, h[0]), ValueError, r"\(2, 3\) into one of \(3,\); .* keep the form"),
        (lambda x, h: (h, (h,)), ValueError, r"\(2, 3\) into one of \[\(2, 3\)\]; .* keep the"),
        (lambda x, h: (h, h.double()), ValueError, r"\) float32 into one of \(2, 3\) float64"),
        (lambda x, h: (h, h + x.double()), ValueError, r"float64; .*Convert .* h0\.to\(dtype\)"),
        (lambda x, h: (h, h.half()), ValueError, "float32 into one of .* float16; .* keep the d"),
        (lambda x, h: (h, h > 0), ValueError, "float32 into one of .* bool; .* keep the dtype"),
    ],
)
def test_cells_that_return_something_else(cell, error, match):
    if cell is nn.GRUCell:
        cell = cell(3, 3)
    with pytest.raises(error, match=f"^scan: .*{match}"):
        scan(cell, XS, H0)


def test_an_integer_state_that_becomes_a_fraction():
    cell = lambda x, n: (x, n * 0.5)
    line = cell.__code__.co_firstlineno
    match = rf"\(\) int64 into one of \(\) float32; .* {re.escape(__file__)}:{line}$"
    with pytest.raises(ValueError, match=match):
        scan(cell, XS, torch.tensor(1))


# The arguments.


@pytest.mark.parametrize(
    ("xs", "error", "match"),
    [
        ((torch.zeros(3, 1), torch.zeros(4, 1)), ValueError, r"one size, .* \[\(3, 1\), \(4, 1\)"),
        (torch.tensor(1.0), ValueError, r"need a first axis of one size, got \[\(\)\]"),
        ((), ValueError, "need a first axis of one size"),
        (np.zeros((3, 1)), TypeError, "expected a Tensor or a tuple of Tensors, got ndarray"),
        ([torch.zeros(3, 1)], TypeError, "expected a Tensor or a tuple of Tensors, got list"),
        (None, TypeError, "expected a Tensor or a tuple of Tensors, got NoneType"),
    ],
)
def test_inputs_that_are_not_sequences(xs, error, match):
    with pytest.raises(error, match=f"^scan: xs: .*{match}"):
        scan(decay, xs, H0)


STATE = torch.zeros(2, 3)


@pytest.mark.parametrize(
    "h0", [None, 0.0, np.zeros(3), [STATE], {"h": STATE}, (STATE, None)], ids=repr
)
def test_states_that_are_not_tensors(h0):
    got = type(h0[1] if isinstance(h0, tuple) else h0).__name__
    with pytest.raises(TypeError, match=f"^scan: h0: expected a Tensor or a tuple.*, got {got}$"):
        scan(decay, XS, h0)


@pytest.mark.parametrize("checkpoint", [0, -1, 1.5, 2.0, "log", "2", True, False, [2]], ids=repr)
@pytest.mark.parametrize("length", [4, 0])
def test_checkpoints_that_are_no_number_of_steps(checkpoint, length):
    expected = f"a number of steps from 1 on, 'sqrt' or None, not {checkpoint!r}"
    with pytest.raises(ValueError, match=f"^scan: checkpoint is {re.escape(expected)}$"):
        scan(decay, XS[:length], H0, checkpoint=checkpoint)


@pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("mode", ["wrong", None, "Scan"])
def test_modes_of_layers(layer, mode):
    expected = f"{layer.__name__}: mode is 'scan' or 'unroll', not {mode!r}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        layer(3, 4, mode=mode)


def test_a_run_that_fails_holds_on_to_nothing():
    """Its inputs go, and the next run of the same step is right."""
    table = torch.ones(4, 3, dtype=torch.int64)

    def cell(place, h):
        return h, h + F.embedding(place, table)

    wrong = torch.tensor([[0, 1], [2, 7], [3, 3]])
    memory = weakref.ref(wrong.array)
    with pytest.raises(IndexError, match=r"out of bounds|outside of"):
        scan(cell, wrong, torch.zeros(2, 3))
    del wrong
    gc.collect()
    assert memory() is None
    _, h = scan(cell, torch.tensor([[0, 1], [2, 0], [3, 3]]), torch.zeros(2, 3))
    assert (h == 3).all()
