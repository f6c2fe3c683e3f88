"""What a GPU's executor computes is what `interpret` computes: for each step and each pullback.

It runs here on the test double of CuPy: kernels compiled by g++, products and graphs by doubles
that refuse what CUDA refuses. Where a GPU is, the same tests run on it.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from arrays import host, on_device
from hypothesis import given, settings
from recurrent_cells import CASES
from test_scan_random import pulled, some, steps

import tinygrad_rnn as torch
from tinygrad_rnn import backend
from tinygrad_rnn.program import Program, Trace
from tinygrad_rnn.scan import cuda, explain, scan, unroll
from tinygrad_rnn.scan.cuda import cublas, launches
from tinygrad_rnn.scan.cuda import frame as frames
from tinygrad_rnn.scan.cuda.clusters import Room
from tinygrad_rnn.scan.cuda.schedule import Call, Gemm, Kernel
from tinygrad_rnn.scan.cuda.source import can_be_written
from tinygrad_rnn.scan.factors import gather_factors
from tinygrad_rnn.scan.interpret import interpret
from tinygrad_rnn.scan.pool import pool
from tinygrad_rnn.scan.pullback import pull_back
from tinygrad_rnn.scan.scan import trace_step

pytestmark = pytest.mark.usefixtures("on_gpu")
TOLERANCES = {"float64": 1e-12, "float32": 2e-5, "float16": 2e-2}


@pytest.fixture(scope="module")
def on_gpu(device):
    if device == "cpu":
        pytest.skip("about a GPU's executor")


def program_of(case, dtype):
    """A cell's step."""
    xs, h0, weights = case.leaves(dtype)
    return trace_step(case.cell(*weights), xs, h0).program()


def pulled_back(program):
    """The step's pullback, for all cotangents that there can be; None if there is none."""
    wanted = tuple(x.dtype.kind == "f" for x in program.inputs)
    given = tuple(x.dtype.kind == "f" for x in program.outputs)
    found = pull_back(program, given, wanted).program
    return gather_factors(found) if found.outputs else None


def inputs_of(program, length, seed=0):
    """Random arrays on the host for a program."""
    rng = np.random.default_rng(seed)
    sequences = {*program.sequences}

    def drawn(x):
        shape = (length, *x.shape) if x in sequences else x.shape
        if x.dtype.kind == "b":
            return np.asarray(rng.random(shape) < 0.5)
        if x.dtype.kind in "iu":
            return np.asarray(rng.integers(0, 3, shape), x.dtype)
        return np.asarray(0.5 * rng.standard_normal(shape), x.dtype)

    return [drawn(x) for x in program.inputs]


def check(program, length, reverse=False, runs=4):
    """Some runs of a new plan, against `interpret`; gives the plan."""
    return check_plan(cuda.Plan(program), program, length, reverse, runs)


def check_plan(plan, program, length=4, reverse=False, runs=4):
    """Some runs on the same frame, against `interpret`; gives the plan.

    The last one finds its inputs where they were, so that at least this one is by a graph.
    """
    xp = backend.library("cuda")
    for seed in range(runs):
        if seed < runs - 1:
            inputs = inputs_of(program, length, seed)
            wanted = interpret(program, np, inputs, length, reverse)
            given = on_device(inputs)
        found = cuda.run(plan, xp, given, length, reverse)
        for number, (a, b) in enumerate(zip(wanted, host(found), strict=True)):
            assert a.shape == b.shape
            assert a.dtype == b.dtype
            if a.size:
                scale = max(1.0, np.abs(np.asarray(a, np.float64)).max())
                error = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()
                assert error <= TOLERANCES.get(str(a.dtype), 0) * scale, (number, error)
        del found, b  # else the next run could not have the same memory
    return plan


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_step(case, dtype, reverse):
    check(program_of(case, dtype), 5, reverse)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_pulled_back_step(case, dtype):
    program = pulled_back(program_of(case, dtype))
    check(program, 5, reverse=True)
    again = pulled_back(program)
    if again is not None and dtype == "float64":
        check(again, 3)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "LSTM layer norm", "attention"])
def test_half_precision(name):
    """Sums are added up in float32, and each value is rounded as if it had been in memory."""
    (case,) = (case for case in CASES if case.name == name)
    program = program_of(case, "float16")
    check(program, 5)
    check(pulled_back(program), 5)


@settings(max_examples=60)
@given(step=steps())
def test_random_steps(step):
    check(step.program(), step.length, step.reverse)


@settings(max_examples=60)
@given(step=steps(), given_=some)
def test_random_pulled_back_steps(step, given_):
    program = pulled(step, given_)
    check(program, step.length, not step.reverse)
    check(gather_factors(program), step.length, not step.reverse)


def counted(plan):
    """(kernels, products of matrices, other calls) of a step."""
    kinds = [type(x) for x in plan.loop]
    return kinds.count(Kernel), kinds.count(Gemm), kinds.count(Call)


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [
        ("RNN tanh", (1, 1, 0), (1, 1, 0)),
        ("LSTM", (1, 1, 0), (1, 1, 0)),
        ("GRU", (1, 1, 0), (1, 1, 0)),
        ("LSTM peephole", (1, 1, 0), (1, 1, 0)),
        ("LSTM layer norm", (1, 1, 0), (1, 1, 0)),
        ("sLSTM", (1, 1, 0), (1, 1, 0)),
        ("minGRU", (1, 0, 0), (1, 0, 0)),
        ("GRU reset before", (2, 2, 0), (2, 2, 0)),
        ("MGU", (2, 2, 0), (2, 2, 0)),
    ],
)
def test_a_step_is_few_products_and_kernels(name, forward, backward):
    (case,) = (case for case in CASES if case.name == name)
    step = program_of(case, "float32")
    for program, wanted in ((step, forward), (pulled_back(step), backward)):
        plan = cuda.Plan(program)
        assert counted(plan) == wanted


def test_the_recurrent_product_is_added_to_the_product_with_the_input():
    for name in ("RNN tanh", "LSTM", "LSTM peephole", "sLSTM"):
        (case,) = (case for case in CASES if case.name == name)
        plan = cuda.Plan(program_of(case, "float32"))
        (product,) = (x.equation for x in plan.loop if isinstance(x, Gemm))
        assert product.primitive.name == "add_product"
        assert plan.place(product.inputs[0]) == plan.place(product.outputs[0])
        assert [x.primitive.name for x in plan.parts.before] == ["matmul"]


def test_a_product_that_is_the_same_at_every_step_is_not_added_to():
    trace = Trace()
    h, W, A, B = (trace.input(np.zeros(n)) for n in [(3, 4), (4, 4), (3, 2), (2, 4)])
    y = (h @ W + A @ B).tanh()
    check(Program(trace.equations, [h], [], [W, A, B], [y], [y]), 5)


def test_a_product_added_to_a_part_of_another_is_read_after_the_loop():
    """What is read is that part, for all steps: not the whole that it lies in."""
    trace = Trace()
    x, h, W, V = (trace.input(np.zeros(n)) for n in [(3, 4), (3, 4), (4, 8), (4, 4)])
    a, b = (h @ W).split(4, -1)
    a = a.tanh()
    z = b + a @ V
    y = z.tanh()
    plan = check(Program(trace.equations, [h], [x], [W, V], [y], [z * x]), 5)
    (product,) = (e for e in plan.parts.loop if e.primitive.name == "add_product")
    assert [e.primitive.name for e in plan.parts.after] == ["multiply"]
    place = plan.place(product.outputs[0])
    assert (place.storage.shape, place.start, place.stop) == ((3, 8), 4, 8)


def lstm_gate_by_gate(*weights):
    """An LSTM as papers write it: a product with x, one with h and a bias for each gate."""

    def step(x, state):
        h, c = state
        W, U, b = weights[:4], weights[4:8], weights[8:]
        i, f, o, g = (x @ W[k] + h @ U[k] + b[k] for k in range(4))
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return h, (h, c)

    return step


def test_gates_written_one_by_one_are_one_product():
    """Forward: the four products with h are one. Backward: so is the sum of four."""
    rng = np.random.default_rng(4)
    draws = [(5, 3, 2), (3, 4), (3, 4), *[(2, 4)] * 4, *[(4, 4)] * 4, *[(4,)] * 4]
    x, h, c, *weights = (torch.tensor(rng.standard_normal(n), requires_grad=True) for n in draws)
    step = trace_step(lstm_gate_by_gate(*weights), x, (h, c)).program()
    for program in (step, pulled_back(step)):
        plan = cuda.Plan(program)
        assert counted(plan) == (1, 1, 0)
        check(program, 5)
    results = []
    for recurrence in (unroll, scan, scan, scan):
        ys, last = recurrence(lstm_gate_by_gate(*weights), x, (h, c))
        loss = (ys * ys).sum() + (last[1] * last[1]).sum()
        results.append(host(torch.autograd.grad(loss, (x, h, c, *weights))))
    for found in results[1:]:
        for a, b in zip(results[0], found, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-12)


def whole_and_parts(W, A, B):
    """A product of which the parts are used, and the whole is an output."""

    def step(x, h):
        z = x @ A @ B  # (B, H)
        a, b = z.chunk(2, -1)
        h = torch.cat([(a + h @ W[:, :2]).tanh(), b * h[:, 2:]], -1)
        return z, h

    return step


def equal_carries(W, A, B):
    """Two states that are one value."""

    def step(x, state):
        h, c = state
        h = (h @ W + c * x).tanh()
        return c, (h, h)

    return step


@pytest.mark.parametrize("cell", [whole_and_parts, equal_carries])
def test_what_may_not_be_written_over(cell):
    rng = np.random.default_rng(2)
    draws = [(5, 3, 4), (3, 4), (3, 4), (4, 4), (3, 2), (2, 4)]
    if cell is whole_and_parts:
        draws[4:] = (4, 3), (3, 4)
    x, h, c, *weights = (torch.tensor(rng.standard_normal(n), requires_grad=True) for n in draws)
    h0 = (h, c) if cell is equal_carries else h
    sources = [*weights, x, h]
    results = []
    for recurrence in (unroll, scan, scan, scan):
        ys, last = recurrence(cell(*weights), x, h0)
        last = last if isinstance(last, tuple) else (last,)
        loss = (ys * ys).sum() + sum((part * part * part).sum() for part in last)
        results.append(
            host([ys, *last, *torch.autograd.grad(loss, sources, materialize_grads=True)])
        )
    for found in results[1:]:
        for a, b in zip(results[0], found, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-12)


def wide_rows(W, V):
    """Everything that goes along a row, on rows of three widths, parts and joins of them."""

    def step(x, h):
        z = x @ V + h @ W  # (B, 300)
        z = (z - z.mean(-1, keepdim=True)) / (z.var(-1, keepdim=True) + 0.1).sqrt()
        a, b = z.split((260, 40), -1)
        weights = b.softmax(-1)
        joined = torch.cat([weights, a.tanh()], -1)  # another order of columns
        h = joined - joined.amax(-1, keepdim=True) + joined.amin(-1, keepdim=True)
        y = (h * joined).sum(-1)  # (B,)
        return (y, weights.log_softmax(-1)), 0.5 * h

    return step


def test_wide_rows():
    """Blocks of several warps: values and gradients, against `unroll`."""
    rng = np.random.default_rng(1)
    draws = [(6, 3, 4), (3, 300), (300, 300), (4, 300)]
    x, h, W, V = (torch.tensor(0.3 * rng.standard_normal(n), requires_grad=True) for n in draws)
    step = trace_step(wide_rows(W, V), x, h).program()
    for program in (step, pulled_back(step)):
        plan = cuda.Plan(program)
        assert counted(plan) == (1, 1, 0)
    results = []
    for recurrence in (unroll, scan, scan, scan):  # by launches, by capture, by the graph
        (y, logs), last = recurrence(wide_rows(W, V), x, h)
        loss = (y * y).sum() + (logs * torch.arange(40.0)).mean() + (last * last).sum()
        results.append(host([y, logs, last, *torch.autograd.grad(loss, (x, h, W, V))]))
    for found in results[1:]:
        for a, b in zip(results[0], found, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-12)


def test_loops_are_captured_by_the_second_run():
    program = program_of(CASES[2], "float64")
    plan, xp = cuda.Plan(program), backend.library("cuda")
    inputs = on_device(inputs_of(program, 4))
    pool.clear()
    graphs = []
    for _ in range(3):
        cuda.run(plan, xp, inputs, 4, False)
        (frame,) = pool._frames
        graphs.append(frame._graph)
    assert graphs[0] is None
    assert graphs[1] is not None
    assert graphs[2] is graphs[1]


def running_sums(U):
    """Sums along columns and over rows, which CuPy computes."""

    def step(x, h):
        z = (x + h @ U).cumsum(-1)
        h = (z - z.mean(0)).tanh()
        return h, h

    return step


def test_calls_of_the_array_library_are_captured_too():
    rng = np.random.default_rng(5)
    x, h, U = (torch.tensor(rng.standard_normal(n)) for n in [(4, 3, 5), (3, 5), (5, 5)])
    program = trace_step(running_sums(U), x, h).program()
    pool.clear()
    plan = check(program, 4, runs=4)
    assert counted(plan)[2] == 2
    (frame,) = pool._frames  # the calls' operands do not keep it from being used again
    assert frame._graph is not None


def test_what_is_computed_for_all_steps_gives_back_what_it_needs_no_more(monkeypatch):
    """Of a chain of results after the loop, two are there at a time, and not all eight."""
    x, h, U = (torch.zeros(n) for n in [(16, 8, 32), (8, 32), (32, 32)])

    def cell(x, h):
        h = (x + h @ U).tanh()
        y = h
        for _ in range(8):
            y = y.cumsum(-1)
        return y, h

    program = trace_step(cell, x, h).program()
    plan, xp = cuda.Plan(program), backend.library("cuda")
    assert [e.primitive.name for e in plan.parts.after].count("cumsum") == 8
    memory, empty, used = xp.get_default_memory_pool(), xp.empty, []

    def noting(*args, **options):
        used.append(memory.used_bytes())
        return empty(*args, **options)

    inputs = on_device(inputs_of(program, 16))
    cuda.run(plan, xp, inputs, 16, False)  # compiles, and lays out a frame
    monkeypatch.setattr(xp, "empty", noting)
    cuda.run(plan, xp, inputs, 16, False)
    size = 16 * 8 * 32 * np.dtype(program.inputs[0].dtype).itemsize
    assert len(used) >= 7
    assert max(used) - min(used) <= 2 * size


def test_kernels_before_and_after_the_loop_are_written_once(monkeypatch):
    """In later runs, on other arrays that lie likewise, nothing is bound again."""
    (case,) = (case for case in CASES if case.name == "LSTM layer norm")
    bind, bound = launches.bind, []
    monkeypatch.setattr(
        launches, "bind", lambda *arguments: bound.append(arguments[0]) or bind(*arguments)
    )
    pool.clear()
    for program in (program_of(case, "float64"), pulled_back(program_of(case, "float64"))):
        plan, xp = cuda.Plan(program), backend.library("cuda")
        counts, alive = [], []
        for seed in range(3):
            bound.clear()
            inputs = inputs_of(program, 4, seed)
            alive.append(on_device(inputs))
            found = host(cuda.run(plan, xp, alive[-1], 4, False))
            for a, b in zip(interpret(program, np, inputs, 4, False), found, strict=True):
                np.testing.assert_allclose(b, a, atol=1e-11)
            counts.append(sum(isinstance(x, Kernel) for x in bound))
            del found, b  # else the next run could not have the same frame
        assert counts[0] > 0
        assert counts[1:] == [0, 0]


def test_calls_that_cannot_be_captured_are_launched(capsys):
    """Two products of different sizes, which no launch of cuBLAS does at once."""
    rng = np.random.default_rng(6)
    x, h, U = (torch.tensor(rng.standard_normal(n)) for n in [(4, 3, 5), (3, 5), (5, 5)])

    def cell(x, h):
        h = (x + torch.einsum("bi,ij,bj->bi", h, U, h)).tanh()
        return h, h

    plan = check(trace_step(cell, x, h).program(), 4)
    assert plan.refused() == "einsum: CuPy's own products of matrices cannot be captured"
    explain(cell, x, h)
    assert "launched one by one, because a CUDA graph is refused (einsum" in capsys.readouterr().out


def test_sequences_that_move_are_copied_and_the_loop_is_captured_again():
    """The loop reads sequences where they lie, and must not go on reading where they lay."""
    (case,) = (case for case in CASES if case.name == "masked pair")  # x is read in the loop
    program = program_of(case, "float64")
    plan, xp = cuda.Plan(program), backend.library("cuda")
    pool.clear()
    alive = []
    for seed in range(5):
        inputs = inputs_of(program, 4, seed)
        alive.append(on_device(inputs))
        found = cuda.run(plan, xp, alive[-1], 4, False)
        for a, b in zip(interpret(program, np, inputs, 4, False), host(found), strict=True):
            np.testing.assert_allclose(b, a, atol=1e-12)
        del found, b
    (frame,) = (x for x in pool._frames if x.plan is plan)
    assert frame._copies
    assert frame._graph is not None


def test_a_sequence_that_the_loop_does_not_read_may_lie_anywhere():
    program = program_of(CASES[2], "float64")  # an LSTM: x is multiplied before the loop
    plan, xp = cuda.Plan(program), backend.library("cuda")
    pool.clear()
    h, c, _, *weights = on_device(inputs_of(program, 4))
    xs = [on_device(inputs_of(program, 4, seed))[2] for seed in range(4)]
    graphs = []
    for x in xs:
        cuda.run(plan, xp, [h, c, x, *weights], 4, False)
        (frame,) = pool._frames
        graphs.append(frame._graph)
    assert {x.kind for x in frame._copies} == {"fixed"}
    assert graphs[1] is graphs[2] is graphs[3] is not None


def test_a_matrix_lies_the_same_for_cublas_in_every_run():
    """Or products would be rounded otherwise in the second run than in the first."""
    program = program_of(CASES[2], "float64")
    pool.clear()
    cuda.run(
        cuda.Plan(program), backend.library("cuda"), on_device(inputs_of(program, 4)), 4, False
    )
    (frame,) = pool._frames
    kinds = [x.kind for x in frame._read]
    assert "fixed" in kinds
    assert len(frame._copies) == kinds.count("fixed")


def test_weights_may_move_between_runs():
    """As those of several layers whose steps are one program."""
    program = program_of(CASES[2], "float64")
    plan, xp = cuda.Plan(program), backend.library("cuda")
    pool.clear()
    alive = [on_device(inputs_of(program, 4, seed)) for seed in range(2)]
    for inputs in [*alive, *alive, *alive]:
        found = host(cuda.run(plan, xp, inputs, 4, False))
        for a, b in zip(interpret(program, np, host(inputs), 4, False), found, strict=True):
            np.testing.assert_allclose(b, a, atol=1e-12)
        del found, b  # else the next run could not have the same memory
    (frame,) = pool._frames
    assert {x.kind for x in frame._copies} == {"fixed"}
    assert frame._graph is not None


def test_what_a_run_hands_out_is_not_written_over():
    """A second forward pass before the first backward, as when a layer is used twice."""
    program = program_of(CASES[2], "float64")
    plan, xp = cuda.Plan(program), backend.library("cuda")
    first, second = (inputs_of(program, 4, seed) for seed in range(2))
    for _ in range(3):  # by launches, by capture, by the graph
        a = cuda.run(plan, xp, on_device(first), 4, False)
        cuda.run(plan, xp, on_device(second), 4, False)
        for x, y in zip(interpret(program, np, first, 4, False), host(a), strict=True):
            np.testing.assert_allclose(y, x, atol=1e-12)


def test_where_capture_is_refused_the_loop_is_launched_and_explain_says_so(monkeypatch, capsys):
    def refuse(*_):
        raise RuntimeError("not in a capture")

    program = program_of(CASES[2], "float64")
    plan = cuda.Plan(program)
    stream = backend.library("cuda").cuda.Stream
    monkeypatch.setattr(stream, "begin_capture", refuse, raising=True)
    known = dict(frames.refusals)
    try:
        found = check_plan(plan, program)
        assert found.refused() == "launches: RuntimeError: not in a capture"
        xs, h0, weights = CASES[2].leaves("float64")
        explain(CASES[2].cell(*weights), xs, h0)
        why = "because a CUDA graph is refused (launches: RuntimeError: not in a capture)"
        assert f"launched one by one, {why}" in capsys.readouterr().out
    finally:
        frames.refusals.clear()
        frames.refusals.update(known)


def test_the_ways_to_run_a_loop_agree(monkeypatch, capsys):
    xs, h0, weights = CASES[4].leaves("float64")
    results = {}
    for way in ("graph", "launches", "interpret"):  # and "persistent": test_persistent.py
        monkeypatch.setenv("TINYGRAD_RNN_CUDA_LOOP", way)
        for _ in range(3):
            ys, _h = scan(CASES[4].cell(*weights), xs, h0)
        results[way] = host(ys)
        explain(CASES[4].cell(*weights), xs, h0)
        said = capsys.readouterr().out
        assert {
            "graph": "captured as a CUDA graph",
            "launches": "launched one by one, as",
            "interpret": "equation by equation",
        }[way] in said
    np.testing.assert_allclose(results["graph"], results["interpret"], atol=1e-12)
    np.testing.assert_array_equal(results["graph"], results["launches"])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_memory_for_all_steps_is_for_what_the_loop_needs_or_makes(case):
    """What is computed after the loop has memory of its own then, and gives it back."""
    step = program_of(case, "float32")
    for program in (step, pulled_back(step)):
        plan = cuda.Plan(program)
        parts = plan.parts
        in_loop = {x for equation in parts.loop for x in equation.outputs}
        read = {plan.root(x) for equation in parts.loop for x in equation.variables}
        read |= {plan.root(x) for x in [*plan.next_carry, *parts.stacks]}
        for x in plan.stacked - in_loop:
            assert x in read or not can_be_written(x.equation), x


def split_by_rows(x, h):
    """A product of which the loop needs some sequences only."""
    z = h @ x
    first, others = z.split((1, h.shape[0] - 1), 0)
    return others, (h + first).tanh()


def split_and_whole(x, h):
    """One of which it needs some columns, and which is looked at as a whole, too."""
    z = h @ x
    a, b = z.split((1, z.shape[-1] - 1), -1)
    return (z, b), (h + a).tanh()


@pytest.mark.parametrize("cell", [split_by_rows, split_and_whole])
@pytest.mark.parametrize("fixed", [False, True])
def test_products_that_are_split(cell, fixed):
    """With the same matrix at all steps, and with one of each step."""
    rng = np.random.default_rng(0)
    W = torch.tensor(rng.standard_normal((4, 4)) * 0.3)
    xs, h = torch.tensor(rng.standard_normal((5, 4, 4)) * 0.3), torch.tensor(rng.random((4, 4)))
    step = (lambda x, h: cell(W, h)) if fixed else cell
    program = trace_step(step, xs, h).program()
    check(program, 5)
    check(pulled_back(program), 5)


def test_the_memory_of_layer_norms():
    """Of a training step: so many times the gates of all steps, 4 H each."""
    (case,) = (case for case in CASES if case.name == "LSTM layer norm")
    T, B, H = 32, 4, 16
    xs, h0, weights = case.leaves("float32", T=T, B=B, H=H, D=H)
    pool.clear()
    ys, _h = scan(case.cell(*weights), xs, h0)
    torch.autograd.grad(ys, [xs, *weights], torch.ones(T, B, H))
    assert 6 < sum(x.nbytes for x in pool._frames) / (T * B * 4 * H * 4) < 10


def test_one_run_is_as_the_next_bit_for_bit():
    """Sums in a fixed order: forward and backward of a layer, twice."""

    def gradients():
        torch.manual_seed(3)
        layer = torch.nn.GRU(5, 6, 2, dropout=0.3, bidirectional=True)
        x = torch.randn(7, 3, 5)
        layer(x)[0].square().mean().backward()
        return host([p.grad for p in layer.parameters()])

    for a, b in zip(gradients(), gradients(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_products_are_as_exact_as_they_are_asked_to_be(precision, device):
    if device != "cuda" or backend.library("cuda").__name__ != "strict_double":
        pytest.skip("reads what the double was told")
    library = cublas.load()
    library.products.clear()
    torch.set_float32_matmul_precision(precision)
    try:
        xs, h0, weights = CASES[2].leaves("float32")
        scan(CASES[2].cell(*weights), xs, h0)
        weights[0] @ weights[0].T  # an eager product, by CuPy
        told = backend.library("cuda")._core.compute_types[np.float32]
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(library.products) == {77 if precision == "high" else 68}
    assert told == (7 if precision == "high" else 1)


def test_the_page_on_gpus_shows_what_explain_prints(capsys, gpu, monkeypatch):
    """By default, and where loops are graphs."""
    gpu(Room({1: 132, 2: 66, 4: 32, 8: 16}, 227 << 10))
    root = Path(__file__).parent.parent
    readme, page = ((root / name).read_text() for name in ("README.md", "docs/gpu.md"))
    scope = {"torch": torch, "nn": torch.nn}
    exec(re.search(r"^class MGU.*?^        return h, h[^\n]*", readme, re.M | re.S)[0], scope)
    for way in ("persistent", "graph"):
        monkeypatch.setenv("TINYGRAD_RNN_CUDA_LOOP", way)
        explain(scope["MGU"](3, 8), torch.randn(50, 2, 3), torch.zeros(2, 8))
        printed = capsys.readouterr().out
        assert f"```text\n{printed[printed.index('Executor') :]}```" in page
