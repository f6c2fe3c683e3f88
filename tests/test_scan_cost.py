"""What a scan costs: products in the loop, memory, what is worked out again; and on which threads.

Times are in benchmarks/. Here things are counted, which does not depend on the machine; the one
test that takes times compares two on the spot.
"""

import gc
import math
import statistics
import threading
import time
import tracemalloc
import weakref

import numpy as np
import pytest
from recurrent_cells import CASES

import tinygrad_rnn as torch
from tinygrad_rnn import nn, ops, optim
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.nn.recurrent import equations
from tinygrad_rnn.scan import forget, scan
from tinygrad_rnn.scan.pullback import pull_back
from tinygrad_rnn.scan.recurrence import Recurrence
from tinygrad_rnn.scan.replay.frame import Frame
from tinygrad_rnn.scan.replay.plan import Plan
from tinygrad_rnn.scan.scan import trace_step

B, D, H = 2, 3, 5
LAYERS = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
every_layer = pytest.mark.parametrize("name", LAYERS)


@pytest.fixture(autouse=True)
def afresh():
    """Nothing is known from other tests, and nothing patched here stays in a plan."""
    forget()
    yield
    forget()


def numbers(*shape, dtype=np.float32, seed=0):
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


@pytest.fixture
def built(monkeypatch):
    """The Plans and the Frames that were made, as long as they live."""
    made = {}
    for kind in (Plan, Frame):
        made[kind] = instances = []

        def init(self, *args, _init=kind.__init__, _instances=instances):
            _instances.append(weakref.ref(self))
            _init(self, *args)

        monkeypatch.setattr(kind, "__init__", init)
    return made


def alive(references):
    gc.collect()
    return sum(reference() is not None for reference in references)


def train(layer, xs):
    ys, _ = layer(xs)
    ys.square().sum().backward()
    return ys


# The loop.


# The functions that multiply matrices. Instructions hold them, and frames may call BLAS itself, so
# no patch of np.matmul sees every call: the instructions are counted.
PRODUCTS = {"matmul", "add_product", "_contract"}


def products(instructions):
    return sum(instruction.function.__name__ in PRODUCTS for instruction in instructions)


@every_layer
@pytest.mark.parametrize("bidirectional", [False, True])
def test_one_product_per_step_and_direction(name, bidirectional, built):
    """Forward and backward. What is multiplied for all steps at once does not depend on T."""
    layer = LAYERS[name](D, H, bidirectional=bidirectional)
    for T in (6, 12):
        train(layer, numbers(T, B, D).requires_grad_())
    plans = {frame().plan for frame in built[Frame]}
    assert len(plans) == 2  # both directions are one program and its pullback
    for plan in plans:
        assert products(plan.loop) == 1
        for T in (6, 12):  # x W, or dx
            assert products(plan.strip(T).before) + products(plan.strip(T).after) == 1
    totals = [total.value.equation for plan in plans for total in plan.parts.totals]
    assert sum(equation.primitive is ops.contract for equation in totals) == 2  # dW_ih, dW_hh


@every_layer
def test_the_loop_calls_as_much_at_each_step(name, built):
    """Six steps more are six times the loop, and nothing else."""
    layer = LAYERS[name](D, H)
    for T in (6, 12):
        train(layer, numbers(T, B, D).requires_grad_())
    frames = [frame() for frame in built[Frame]]
    for plan in {frame.plan for frame in frames}:
        calls = {
            frame.length: sum(len(part) for strip in frame.strips for part in strip[:3])
            for frame in frames
            if frame.plan is plan
        }
        assert calls[12] - calls[6] == 6 * len(plan.loop)


@every_layer
def test_a_cell_is_called_once(name):
    layer, called = LAYERS[name](D, H), []
    cell = layer.cell()

    def counting(x, h):
        called.append(x.shape)
        return cell(x, h)

    h0 = torch.zeros(B, H)
    scan(counting, numbers(50, B, D), (h0, h0) if name == "LSTM" else h0)
    assert called == [(B, D)]


def test_backward_in_time_makes_no_copy_of_the_inputs(monkeypatch):
    def flip(*_args, **_kwargs):
        raise AssertionError("np.flip was called")

    monkeypatch.setattr(np, "flip", flip)
    train(nn.GRU(D, H, 2, bidirectional=True), numbers(6, B, D))


# Memory.


def peak(function):
    """The most bytes that were allocated at a time while a function ran, beyond those before."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    function()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most - before


@every_layer
def test_a_run_in_known_memory_allocates_nothing_that_grows_with_time(name):
    B, H = 4, 32  # so that NumPy's own buffers of 8192 values are full in both cases
    layer = LAYERS[name](D, H)
    most = {}
    with torch.no_grad():
        for T in (100, 400):
            xs = numbers(T, B, D)
            layer(xs)
            most[T] = peak(lambda xs=xs: layer(xs))
    assert abs(most[400] - most[100]) < 4_000
    assert most[400] < 400 * B * H * 4 / 2  # half of one value of all steps


def test_memory_does_not_grow_with_the_number_of_runs(built):
    """Fifty steps of training: after the first few nothing new is made, and nothing is kept."""
    model = nn.LSTM(D, H, 2)
    optimizer = optim.Adam(model.parameters())
    xs = numbers(20, B, D)
    sizes = {}
    tracemalloc.start()
    for step in range(50):
        optimizer.zero_grad()
        train(model, xs)
        optimizer.step()
        if step in (9, 49):
            gc.collect()  # also gives back Python's lists of free objects
            made = [len(built[kind]) for kind in (Plan, Frame)]
            sizes[step] = made, tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert sizes[9][0] == sizes[49][0]
    assert sizes[49][1] - sizes[9][1] < 40 * 20 * B * H * 4  # one value of all steps, each time


@pytest.mark.parametrize(
    ("name", "in_units", "others"),
    [
        ("RNN tanh", 2, 0),  # h, and the next one
        ("LSTM", 7, 0),  # h, c, i, f, g, o, tanh(c)
        ("GRU", 5, 0),  # h, r, z, n, and what r is multiplied with; not h - n
        ("MGU", 3, 16),  # h, f, the candidate, and [h, x], [f * h, x]; not 1 - f, candidate - h
        # h, c, the gates, tanh(c); of each norm, what is centred and what it is scaled by
        ("LSTM layer norm", 16, 6),
    ],
)
def test_what_is_kept_for_backward(name, in_units, others):
    """So many values for each unit and other numbers, of a step; sums and products are not kept."""
    (case,) = (case for case in CASES if case.name == name)
    xs, h0, weights = case.leaves(B=1)
    program = trace_step(case.cell(*weights), xs, h0).program()
    pullback = pull_back(program, [True] * len(program.outputs), [True] * len(program.inputs))
    kept = set(pullback.reads) - set(program.sequences)
    assert sum(math.prod(x.shape) for x in kept) == in_units * 5 + others


def test_what_is_kept_is_enough_for_any_cotangents():
    """For one output only, too: else the forward pass would run again for its gradient."""

    def cell(x, h):
        a, b = (x + h).sin(), (x * h).cos()
        return ((a + b).sin(), a * b), 0.5 * h  # a + b is kept as a and b

    program = trace_step(cell, numbers(3, B, H), numbers(B, H)).program()
    keeping = Recurrence(program).keeping((True, True))
    for places in ([0], [1], [0, 1]):
        given = [number - 1 in places for number in range(len(keeping.program.outputs))]
        reads = pull_back(keeping.program, given, (True, True)).reads
        assert reads
        assert set(reads) <= {*keeping.program.sequences, *keeping.program.stacked}


def test_checkpoints_save_memory():
    """√T segments: less than a third of the memory, and the same gradients."""
    T, B, H = 4000, 2, 16
    xs, h0 = numbers(T, B, H, dtype=np.float64), torch.zeros(B, H, dtype=torch.float64)
    W = (numbers(H, H, dtype=np.float64) * 0.2).requires_grad_()

    def cell(x, h):
        h = (x + h @ W).tanh()
        return (h * h).sum(-1), h

    found = {}

    def run(checkpoint):
        W.grad = None
        ys, _ = scan(cell, xs, h0, checkpoint=checkpoint)
        ys.sum().backward()
        found[checkpoint] = W.grad.numpy()

    most = {}
    for checkpoint in (None, "sqrt"):
        forget()
        most[checkpoint] = peak(lambda checkpoint=checkpoint: run(checkpoint))
    np.testing.assert_allclose(found["sqrt"], found[None], rtol=1e-12, atol=1e-12)
    assert most["sqrt"] < most[None] / 3


def test_checkpoints_keep_no_masks():
    """What dropout drew is drawn again in backward: between the two, no mask is held."""
    T, B, H = 2000, 2, 64
    xs, h0 = numbers(T, B, H), torch.zeros(B, H, requires_grad=True)

    def cell(x, h):
        h = F.dropout(x + h, 0.5).tanh()
        return h.sum(-1), h

    scan(cell, xs, h0, checkpoint=50)
    forget()
    gc.collect()
    tracemalloc.start()
    ys, _ = scan(cell, xs, h0, checkpoint=50)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ys.requires_grad
    assert held < 0.7 * T * B * H * 4


# What is worked out once.


@every_layer
def test_a_second_run_works_nothing_out(name, built):
    layer, xs = LAYERS[name](D, H), numbers(7, B, D)
    train(layer, xs)
    plans, frames = (len(built[kind]) for kind in (Plan, Frame))
    train(layer, xs)
    assert (len(built[Plan]), len(built[Frame])) == (plans, frames)
    train(LAYERS[name](D, H), numbers(7, B, D, seed=1))  # another layer of the same form
    assert (len(built[Plan]), len(built[Frame])) == (plans, frames)
    train(layer, numbers(9, B, D))  # another length: the same plans
    assert len(built[Plan]) == plans


def test_two_forwards_before_a_backward_have_memory_each(built):
    layer = nn.GRU(D, H)
    first, second = numbers(7, B, D), numbers(7, B, D, seed=1)
    alone = [train(layer, xs).detach().numpy().copy() for xs in (first, second)]
    frames = len(built[Frame])
    ys, zs = layer(first)[0], layer(second)[0]
    assert len(built[Frame]) == frames + 1
    np.testing.assert_array_equal(ys.detach().numpy(), alone[0])
    np.testing.assert_array_equal(zs.detach().numpy(), alone[1])
    del ys, zs
    layer(first)
    assert len(built[Frame]) == frames + 1


def test_results_that_are_held_are_never_written_over():
    """A view of a view, or an array behind a result, holds the memory like the result itself."""
    layer = nn.RNN(D, H)
    held = []
    with torch.no_grad():
        for seed in range(6):
            ys, h = layer(numbers(7, B, D, seed=seed))
            kept = [ys, ys[2:5].T, ys.numpy()[::2], h][seed % 4]
            held.append((kept, np.array(getattr(kept, "array", kept))))
            del ys, h
    for kept, expected in held:
        np.testing.assert_array_equal(getattr(kept, "array", kept), expected)


def test_frames_of_many_lengths_are_few(built):
    layer = nn.RNN(D, H)
    with torch.no_grad():
        for T in range(2, 102):
            layer(numbers(T, B, D))
    assert len(built[Frame]) == 100
    assert alive(built[Frame]) <= 40


def test_steps_of_many_forms_are_few(built):
    xs, h0 = numbers(3, B, H), torch.zeros(B, H)
    for k in range(600):
        scan(lambda x, h, k=k: (h, h * 0.5 + k), xs, h0)
    assert alive(built[Plan]) < 400


def test_forget_releases_everything(built):
    train(nn.LSTM(D, H, 2, bidirectional=True), numbers(7, B, D))
    assert alive(built[Plan]) > 0
    assert alive(built[Frame]) > 0
    forget()
    assert (alive(built[Plan]), alive(built[Frame])) == (0, 0)


def test_forget_between_forward_and_backward_changes_nothing():
    layer, xs = nn.LSTM(D, H), numbers(7, B, D)
    grads = []
    for between in (lambda: None, forget):
        layer.zero_grad()
        ys, _ = layer(xs)
        between()
        ys.square().sum().backward()
        grads.append([p.grad.numpy().copy() for p in layer.parameters()])
    for a, b in zip(*grads, strict=True):
        np.testing.assert_array_equal(a, b)


# Time.


def best(function, repeats=5, runs=50):
    """The lowest of several medians, in seconds."""

    def median():
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    return min(median() for _ in range(repeats))


def test_writing_a_step_down_takes_less_than_two_steps():
    B, D, H = 16, 32, 64
    layer = nn.LSTM(D, H)
    xs, state = numbers(2, B, D), (torch.zeros(B, H), torch.zeros(B, H))
    cell, x = equations.lstm(*layer.parameters()), xs[0]
    assert best(lambda: trace_step(cell, xs, state)) < 2 * best(lambda: cell(x, state))


# Threads.


def test_threads_share_a_layer():
    """Each gets its own memory and its own trace; what they work out together is the same."""
    layer = nn.LSTM(D, H, 2)
    inputs = [numbers(20 + k % 2, B, D, seed=k).requires_grad_() for k in range(4)]

    def run(xs):
        found = []
        for _ in range(5):
            ys, (h, c) = layer(xs)
            (dx,) = torch.autograd.grad((ys.square().sum() + (h * c).sum()), xs)
            found.append([ys.detach().numpy().copy(), dx.numpy().copy()])
        return found

    expected = [run(xs) for xs in inputs]
    for _ in range(3):
        forget()
        actual = [None] * 4
        start = threading.Barrier(4)

        def work(k, start=start, actual=actual):
            start.wait()
            actual[k] = run(inputs[k])

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for mine, wanted in zip(actual, expected, strict=True):
            for a, b in zip(mine, wanted, strict=True):
                for x, y in zip(a, b, strict=True):
                    np.testing.assert_array_equal(x, y)
