"""A loop that one kernel runs from the first step to the last: which, how shared out, how right.

What it computes is compared with `interpret`. On the test double of CuPy the threads of a cluster
are fibers and shared memory is poisoned, so that a wait or a zero that is missing is found.
"""

import re

import numpy as np
import pytest
import strict_double
from arrays import host, on_device
from recurrent_cells import CASES, Case
from strict_double.compiled import RawKernel
from test_scan_cuda import check_plan, inputs_of, pulled_back

import tinygrad_rnn as torch
from tinygrad_rnn import backend
from tinygrad_rnn.program import Program, Trace
from tinygrad_rnn.scan import cuda
from tinygrad_rnn.scan.cuda import frame as frames
from tinygrad_rnn.scan.cuda import launches
from tinygrad_rnn.scan.cuda.launches import bind_loop
from tinygrad_rnn.scan.cuda.persistent import tile_of
from tinygrad_rnn.scan.cuda.plan import refusals
from tinygrad_rnn.scan.interpret import interpret
from tinygrad_rnn.scan.pool import pool
from tinygrad_rnn.scan.scan import trace_step

pytestmark = pytest.mark.usefixtures("on_gpu")


@pytest.fixture(scope="module")
def on_gpu(device):
    if device == "cpu":
        pytest.skip("about a GPU's executor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYGRAD_RNN_CUDA_LOOP", "persistent")
        yield


@pytest.fixture
def gpu(monkeypatch):
    """Sets whether the GPU has clusters, and how many multiprocessors: what a layout depends on."""
    real = launches._size_of_gpu

    def resize(clusters, processors):
        xp = backend.library("cuda")
        if clusters and not real(xp, xp.cuda.Device().id)[0]:
            pytest.skip("a GPU without clusters")
        monkeypatch.setattr(launches, "_size_of_gpu", lambda xp, device: (clusters, processors))
        pool.clear()  # of frames with another layout

    return resize


def two_gates(W, U, b):
    """A unit with two columns: half of a GRU."""

    def step(x, h):
        z, g = (x @ W + h @ U + b).chunk(2, -1)
        h = z.sigmoid() * h + (1 - z.sigmoid()) * g.tanh()
        return h, h

    return step


TWO_GATES = Case("two gates", two_gates, "B,D", "B,H", ("D,2H", "H,2H", "2H"))
KNOWN = {case.name: case for case in [*CASES, TWO_GATES]}


def step_of(case, dtype="float32", **sizes):
    """A cell's step."""
    xs, h0, weights = case.leaves(dtype, **sizes)
    return trace_step(case.cell(*weights), xs, h0).program()


def plans_of(case, dtype="float32", **sizes):
    """The plans of a step, of its pullback, and of the pullback's."""
    step = step_of(case, dtype, **sizes)
    return [cuda.Plan(x) for x in (step, pulled_back(step), pulled_back(pulled_back(step)))]


def check(program, length=5, reverse=False, runs=3):
    """Some runs of a loop that one kernel runs, against `interpret`; gives the plan."""
    plan = cuda.Plan(program)
    assert plan.persistent is not None
    return check_plan(plan, program, length, reverse, runs)


# --- which loops ----------------------------------------------------------------------------------

ONE_KERNEL = ("RNN tanh", "RNN relu", "LSTM", "GRU", "LSTM peephole", "sLSTM", "two gates")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", [*ONE_KERNEL, "tokens", "masked pair", "module"])
def test_one_kernel_runs_a_product_and_what_follows_it(name, dtype):
    """Pulled back, the kernel comes first; pulled back twice, the product again."""
    loops = [plan.persistent for plan in plans_of(KNOWN[name], dtype)]
    assert [loop.kernel_first for loop in loops] == [False, True, False]


@pytest.mark.parametrize("name", ONE_KERNEL)
def test_no_kernel_runs_double_precision(name):
    """Half as many weights would fit in registers, and products by thread are slow."""
    assert [plan.persistent for plan in plans_of(KNOWN[name], "float64")] == [None] * 3


WHY_NOT = {
    "LSTM layer norm": "sums along rows, which lie in several blocks",
    "LSTM projected": "two products: of the state with the weights, and the projection",
    "MGU": "two products, one after the other",
    "GRU reset before": "two products, one after the other",
    "attention": "more products, and with matrices that differ from sequence to sequence",
    "minGRU": "no product in the loop",
    "weight twice": "two products, one after the other",
    "pass through": "no product in the loop",
    "scalar": "no matrices",
}


@pytest.mark.parametrize("name", WHY_NOT)
def test_other_loops_are_not_for_one_kernel(name):
    step = step_of(KNOWN[name])
    for program in (step, pulled_back(step)):
        assert cuda.Plan(program).persistent is None, WHY_NOT[name]


# --- values ---------------------------------------------------------------------------------------

LAYOUTS = [  # (clusters, multiprocessors), (B, H), thread blocks of a cluster
    pytest.param((True, 132), (11, 13), 4, id="two-groups-of-four-blocks"),
    pytest.param((True, 132), (8, 32), 8, id="nothing-left-over"),
    pytest.param((True, 132), (1, 5), 2, id="one-sequence"),
    pytest.param((True, 4), (9, 33), 2, id="two-groups-of-two-blocks"),
    pytest.param((True, 5), (35, 6), 1, id="as-many-groups-as-processors"),
    pytest.param((False, 4), (3, 40), 1, id="one-block-that-is-large"),
    pytest.param((False, 4), (17, 7), 1, id="three-groups-without-clusters"),
]


@pytest.mark.parametrize("name", ["RNN tanh", "two gates", "GRU", "LSTM"])
@pytest.mark.parametrize(("size", "shape", "blocks"), LAYOUTS)
def test_layouts(size, shape, blocks, name, gpu):
    """Units and sequences that do or do not fill their blocks; more and fewer rows than lanes."""
    gpu(*size)
    step = step_of(KNOWN[name], B=shape[0], H=shape[1])
    for program, reverse in ((step, False), (pulled_back(step), True)):
        plan = check(program, reverse=reverse, runs=2)
        assert tile_of(plan.persistent, *size).blocks == blocks


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("name", [*ONE_KERNEL, "tokens", "masked pair", "module"])
def test_cells(name, reverse, gpu):
    """And their pullbacks, and their pullbacks' ones."""
    gpu(True, 132)
    case = KNOWN[name]
    small = name in ("module", "sLSTM")  # which divides by a state: a draw is soon too near zero
    step = step_of(case) if small else step_of(case, B=11, H=13)
    pullback = pulled_back(step)
    for program in (step, pullback, pulled_back(pullback)):
        check(program, 4, reverse)


@pytest.mark.parametrize("shape", [(11, 13), (3, 40)], ids=str)
@pytest.mark.parametrize("name", ["RNN tanh", "two gates", "GRU", "LSTM"])
def test_half_precision(name, shape, gpu):
    """Sums are float32's; what is handed on is rounded as if it had been in memory."""
    gpu(True, 132)
    step = step_of(KNOWN[name], "float16", B=shape[0], H=shape[1])
    for program, reverse in ((step, False), (pulled_back(step), True)):
        check(program, reverse=reverse, runs=2)


def test_half_precision_is_rounded_at_every_step(gpu):
    """Bit for bit, on whole numbers, whose sums are exact in float32 and not in float16."""
    gpu(True, 132)

    def cell(x, h):
        y = h @ W - x
        return y, y.clamp(-4, 4)

    rng = np.random.default_rng(0)
    draws = [(-2000, 2000, (4, 9, 5)), (-4, 5, (9, 5)), (-600, 600, (5, 5))]
    x, h, W = (torch.tensor(rng.integers(*draw).astype("float16")) for draw in draws)
    program = trace_step(cell, x, h).program()
    plan, xp = cuda.Plan(program), backend.library("cuda")
    assert plan.persistent is not None
    inputs = host([h, x, W])
    found = host(cuda.run(plan, xp, on_device(inputs), 4, False))
    for a, b in zip(interpret(program, np, inputs, 4, False), found, strict=True):
        np.testing.assert_array_equal(b, a)


def test_operands_for_which_a_block_asks(gpu):
    """They need more shared memory than a block gets without asking."""
    gpu(True, 132)
    plan = check(pulled_back(step_of(KNOWN["LSTM"], B=1, H=256)), 2, runs=2)
    assert tile_of(plan.persistent, True, 132).shared > 48 << 10


@pytest.mark.parametrize("length", [0, 1, 2, 9])
def test_lengths(length, gpu):
    gpu(True, 132)
    step = step_of(KNOWN["GRU"], B=3, H=6)
    for program in (step, pulled_back(step)):
        check(program, length)


def test_weights_and_sequences_that_move(gpu):
    """As those of several layers whose steps are one program, and whose inputs are read."""
    gpu(True, 132)
    program = step_of(KNOWN["masked pair"], B=9, H=6)
    plan, xp = cuda.Plan(program), backend.library("cuda")
    alive = [on_device(inputs_of(program, 4, seed)) for seed in range(2)]
    for inputs in [*alive, *alive]:
        found = host(cuda.run(plan, xp, inputs, 4, False))
        for a, b in zip(interpret(program, np, host(inputs), 4, False), found, strict=True):
            np.testing.assert_allclose(b, a, atol=2e-5)
        del found, b  # else the next run could not have the same memory
    (frame,) = pool._frames
    assert {x.kind for x in frame._copies} == {"fixed", "given"}
    assert len(frame._loop) == 1


def test_a_layer_with_gradients_is_as_on_the_host(gpu):
    """Steps of training by stock parts, in both directions."""
    gpu(True, 132)

    def losses(device):
        torch.manual_seed(3)
        layer = torch.nn.LSTM(5, 12, bidirectional=True)
        x = torch.randn(6, 9, 5).to(device)
        layer.to(device)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        found = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = layer(x)[0].square().mean()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    np.testing.assert_allclose(losses("cuda"), losses("cpu"), rtol=1e-4)


# --- one launch -----------------------------------------------------------------------------------


def frame_of(plan):
    """The frame that the plan's runs share."""
    (frame,) = (x for x in pool._frames if x.plan is plan)
    return frame


@pytest.mark.parametrize("pulled", [False, True], ids=["step", "pullback"])
@pytest.mark.parametrize("name", ["RNN tanh", "LSTM", "GRU"])
def test_the_ways_to_run_a_loop_agree(name, pulled, gpu, monkeypatch):
    """One kernel is one launch, of which no graph is made; else the loop is captured."""
    gpu(True, 132)
    program = step_of(KNOWN[name], B=9, H=12)
    program = pulled_back(program) if pulled else program
    xp, inputs, results = backend.library("cuda"), on_device(inputs_of(program, 4)), {}
    for way in ("persistent", "graph", "launches"):
        monkeypatch.setenv("TINYGRAD_RNN_CUDA_LOOP", way)
        plan = cuda.Plan(program)
        for _ in range(3):
            found = host(cuda.run(plan, xp, inputs, 4, pulled))
        frame = frame_of(plan)
        assert len(frame._loop) == (1 if way == "persistent" else 2 * 4)
        assert (frame._graph is not None) == (way == "graph")
        results[way] = found
    for a, b in zip(results["persistent"], results["graph"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(results["graph"], results["launches"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loop_that_does_not_fit_is_captured(gpu):
    gpu(False, 1)  # one block, for all of three groups
    program = step_of(KNOWN["LSTM"], B=17, H=5)
    plan = check(program)
    assert tile_of(plan.persistent, False, 1) is None
    assert len(frame_of(plan)._loop) == 2 * 5
    assert frame_of(plan)._graph is not None


def test_one_run_is_as_the_next_bit_for_bit(gpu):
    gpu(True, 132)
    step = step_of(KNOWN["LSTM"], B=11, H=20)
    for program in (step, pulled_back(step)):
        plan, xp = cuda.Plan(program), backend.library("cuda")
        inputs = on_device(inputs_of(program, 6))
        first, second = (host(cuda.run(plan, xp, inputs, 6, False)) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)


# --- carries, and what else may go wrong between steps --------------------------------------------


def swapped(W, U):
    def step(x, state):
        a, b = state
        new = (x @ W + b @ U + a).tanh()
        return new, (b, new)

    return step


def swapped_before_the_product(W, U):
    """What is multiplied is handed on by a carry, not computed."""

    def step(x, state):
        a, b = state
        new = (x @ W + a @ U + b).tanh()
        return new, (b, new)

    return step


def three_in_a_ring(W, U):
    def step(x, state):
        a, b, c = state
        new = (x @ W + a @ U).tanh() * b + 0.5 * c
        return a * c, (b, c, new)

    return step


def exchanged(W, U):
    """Two that change places: neither may be overwritten before the other has it."""

    def step(x, state):
        h, a, b = state
        h = (x @ W + h @ U).tanh() * a - b
        return h, (h, b, a)

    return step


def handed_through(W, U):
    def step(x, state):
        h, c = state
        h = (x @ W + h @ U).tanh() * c
        return h, (h, c)

    return step


def last_input(U):
    """The next state is a sequence's value."""

    def step(x, state):
        h, last = state
        h = (h @ U + last).tanh()
        return h, (h, x)

    return step


def made_before(W, V, U):
    """The next state is computed for all steps at once, before the loop."""

    def step(x, state):
        h, last = state
        h = (x @ W + h @ U).tanh() + last
        return h, (h, x @ V)

    return step


def product_as_state(U):
    """The product itself is a state, which the next step reads."""

    def step(x, state):
        h, last = state
        z = h @ U
        return last, ((x + last).tanh(), z)

    return step


def product_now_and_then(U):
    """Read by this step and by the next one."""

    def step(x, state):
        h, last = state
        z = h @ U
        return z.sigmoid(), ((x + z * last).tanh(), z)

    return step


def twice_the_same(W, U):
    """Two states that are one value, of which the copy is multiplied."""

    def step(x, state):
        h, c = state
        new = (x @ W + c @ U).tanh() * h
        return new, (new, new)

    return step


def side_by_side(W, U):
    """A state of two parts, each computed; pulled back, a unit has two columns."""

    def step(x, h):
        i, f, g, o = (x @ W + h @ U).chunk(4, -1)
        h = torch.cat([i.sigmoid() * f.tanh(), g.tanh() * o.sigmoid()], -1)
        return h, h

    return step


def with_a_part_of_itself(W, U):
    """One that reads a part of it."""

    def step(x, h):
        a, b = h.chunk(2, -1)
        i, f = (x @ W + h @ U).chunk(2, -1)
        h = torch.cat([i.tanh() * b, f.tanh() + a], -1)
        return h, h

    return step


def with_a_part_handed_on(U):
    """A state of what is computed and a sequence's value."""

    def step(x, h):
        h = torch.cat([(h @ U).tanh(), x], -1)
        return h, h

    return step


def product_kept(W, U):
    """The product is an output."""

    def step(x, h):
        z = x @ W + h @ U
        a, b = z.chunk(2, -1)
        h = a.tanh() * b.sigmoid()
        return z, h

    return step


def part_kept(W, U):
    def step(x, h):
        a, b = (x @ W + h @ U).chunk(2, -1)
        h = a.tanh() * b.sigmoid()
        return b, h

    return step


def product_read_afterwards(W, U, V):
    """Every step's product is multiplied after the loop."""

    def step(x, h):
        z = x @ W + h @ U
        h = z.tanh()
        return z @ V, h

    return step


def added_to_an_output(W, U):
    def step(x, h):
        u = x @ W
        h = (u + h @ U).tanh()
        return u, h

    return step


def lagging(W, U, V):
    """Backward, the product is added to one that is there before the loop."""

    def step(x, h):
        return h @ V, (x @ W + h @ U).tanh()

    return step


def product_last(W, U):
    """The state is what the next step's gates are computed of: forward, the kernel comes first."""

    def step(x, z):
        a, b = z.chunk(2, -1)
        h = a.tanh() * b.sigmoid()
        return h, x @ W + h @ U

    return step


def counting(W, U):
    """A state of integers, one for each unit."""

    def step(x, state):
        h, n = state
        z = x @ W + h @ U
        h = torch.where(n > 1, z.tanh(), h)
        return h, (h, 3 - n)

    return step


def mirrored(W, U):
    """Another unit's state, which another thread writes."""

    def step(x, h):
        h = (x @ W + h @ U).tanh() + h.flip(-1)
        return h, h

    return step


def of_other_sequences(W, U):
    def step(x, h):
        h = (x @ W + h @ U).tanh() + h.flip(0)
        return h, h

    return step


def of_the_first_sequence(W, U):
    def step(x, h):
        h = (x @ W + h @ U).tanh() + h[:1]
        return h, h

    return step


def of_the_first_unit(W, U):
    def step(x, h):
        h = (x @ W + h @ U).tanh() + h[:, :1]
        return h, h

    return step


def transposed(U):
    """As many sequences as units: of the same shape, and other units'."""

    def step(x, h):
        h = (x + h @ U).tanh() + 0.5 * h.T
        return h, h

    return step


def mirrored_product(W, U):
    def step(x, h):
        z = x @ W + h @ U
        h = z.tanh() + z.flip(-1)
        return h, h

    return step


def mirrored_product_last(W, U):
    def step(x, z):
        h = z.flip(-1).tanh()
        return h, x @ W + h @ U

    return step


def columns_out_of_step(W, U):
    """Columns of the product that are not those of the units, though as many."""

    def step(x, h):
        H = h.shape[-1]
        _, a, _ = (x @ W + h @ U).split((1, H, H - 1), -1)
        h = a.tanh()
        return h, h

    return step


def row_of_states(W, U):
    """A state that all sequences share."""

    def step(x, state):
        h, row = state
        h = (x @ W + h @ U).tanh() + row
        return h, (h, 0.5 * row)

    return step


TWO, PLAIN = ("B,H", "B,H"), ("D,H", "H,H")
RIGHT = [
    Case("swapped", swapped, "B,D", TWO, PLAIN),
    Case("swapped before the product", swapped_before_the_product, "B,D", TWO, PLAIN),
    Case("three in a ring", three_in_a_ring, "B,D", ("B,H",) * 3, PLAIN),
    Case("exchanged", exchanged, "B,D", ("B,H",) * 3, PLAIN),
    Case("handed through", handed_through, "B,D", TWO, PLAIN),
    Case("last input", last_input, "B,H", TWO, ("H,H",)),
    Case("made before", made_before, "B,D", TWO, ("D,H", "D,H", "H,H")),
    Case("product as state", product_as_state, "B,H", TWO, ("H,H",)),
    Case("product now and then", product_now_and_then, "B,H", TWO, ("H,H",)),
    Case("twice the same", twice_the_same, "B,D", TWO, PLAIN),
    Case("side by side", side_by_side, "B,D", "B,2H", ("D,4H", "2H,4H")),
    Case("with a part handed on", with_a_part_handed_on, "B,H", "B,2H", ("2H,H",)),
    Case("product kept", product_kept, "B,D", "B,H", ("D,2H", "H,2H")),
    Case("part kept", part_kept, "B,D", "B,H", ("D,2H", "H,2H")),
    Case("product read afterwards", product_read_afterwards, "B,D", "B,H", (*PLAIN, "H,P")),
    Case("added to an output", added_to_an_output, "B,D", "B,H", PLAIN),
    Case("lagging", lagging, "B,D", "B,H", (*PLAIN, "H,P")),
    Case("product last", product_last, "B,D", "B,2H", ("D,2H", "H,2H")),
    Case("counting", counting, "B,D", ("B,H", "#B,H"), PLAIN),
]
OF_OTHERS = [
    Case("mirrored", mirrored, "B,D", "B,H", PLAIN),
    Case("mirrored product", mirrored_product, "B,D", "B,H", PLAIN),
    Case("mirrored product last", mirrored_product_last, "B,D", "B,H", PLAIN),
    Case("columns out of step", columns_out_of_step, "B,D", "B,H", ("D,2H", "H,2H")),
    Case("of other sequences", of_other_sequences, "B,D", "B,H", PLAIN),
    Case("of the first sequence", of_the_first_sequence, "B,D", "B,H", PLAIN),
    Case("of the first unit", of_the_first_unit, "B,D", "B,H", PLAIN),
    Case("transposed", transposed, "B,H", "B,H", ("H,H",)),
    Case("row of states", row_of_states, "B,D", ("B,H", "H"), PLAIN),
    Case("with a part of itself", with_a_part_of_itself, "B,D", "B,2H", ("D,2H", "2H,2H")),
]


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("case", RIGHT, ids=str)
def test_what_a_step_hands_on(case, reverse, gpu):
    gpu(True, 132)
    step = step_of(case, B=9, H=6)
    check(step, 4, reverse, runs=2)
    pullback = pulled_back(step)
    check_plan(cuda.Plan(pullback), pullback, 4, reverse, runs=2)


@pytest.mark.parametrize("case", OF_OTHERS, ids=str)
def test_what_other_threads_write_is_not_read(case, gpu):
    """Such loops are right as they are without: this kernel cannot run them."""
    gpu(True, 132)
    step = step_of(case, B=6, H=6)
    for program in (step, pulled_back(step)):
        plan = cuda.Plan(program)
        assert plan.persistent is None
        check_plan(plan, program, 4, runs=2)


def test_states_of_other_dtypes(gpu):
    """A sum in double precision beside a state in single: each in its own in registers, too."""
    gpu(True, 132)
    trace = Trace()
    x, h, c, U = (
        trace.input(np.zeros(shape, dtype))
        for shape, dtype in [((9, 6), "f4"), ((9, 6), "f4"), ((9, 6), "f8"), ((6, 6), "f4")]
    )
    z = (h @ U + x).tanh()
    total = 0.5 * c + x.double()
    h_next = z + total.float().tanh()
    program = Program(trace.equations, [h, c], [x], [U], [h_next, total], [total, z > 0])
    check(program, 4)


def test_operands_may_lie_with_gaps(gpu):
    """As what is given of each array is every other number of a larger one."""
    gpu(True, 132)
    program = step_of(KNOWN["GRU"], B=9, H=6)
    plan, xp = cuda.Plan(program), backend.library("cuda")
    assert plan.persistent is not None
    inputs = inputs_of(program, 4)
    strided = [xp.stack([x, x], axis=-1)[..., 0] for x in on_device(inputs)]
    found = host(cuda.run(plan, xp, strided, 4, False))
    for a, b in zip(interpret(program, np, inputs, 4, False), found, strict=True):
        np.testing.assert_allclose(b, a, atol=2e-5)


# --- which memory is touched ----------------------------------------------------------------------

WATCHED = """
#include <map>
struct Touched { unsigned by; bool known, written; };
static std::map<const void*, Touched> touched;
static long long* watch;  // counts: outside, by several; then where each address may point
static void touch(int number, const void* address, bool writes) {
  const long long at = (long long)address;
  watch[0] += at < watch[2 + 2 * number] || at >= watch[3 + 2 * number];
  const unsigned me = blockIdx.x * blockDim.x + threadIdx.x;
  Touched& found = touched[address];
  watch[1] += found.known && found.by != me && (found.written || writes);
  found = {me, true, found.written || writes};
}
template <typename T> struct Element {
  T* at;
  int number;
  operator T() const { return touch(number, at, false), *at; }
  void operator=(T x) { touch(number, at, true), *at = x; }
};
template <typename T> struct Watched {
  T* at;
  int number;
  Element<T> operator*() const { return {at, number}; }
  Element<T> operator[](long long n) const { return {at + n, number}; }
  void operator+=(long long n) { at += n; }
};
"""


class Watching(RawKernel):
    """A kernel that counts what its threads touch outside of arrays, or of what others write."""

    def __init__(self, code, *args, **kwargs):
        head = re.search(r'extern "C".*\((.*), i64 rows, i64 length\) {', code)
        if head is not None:
            pointers = [text.split("* p") for text in head[1].split(", ")]
            given = ", ".join(f"{kind}* given{n}" for kind, n in pointers)
            watched = [f"Watched<{kind}> p{n} = {{given{n}, {n}}};" for kind, n in pointers]
            new_head = head[0].replace(head[1], given).replace("length)", "length, i64* watching)")
            lines = [WATCHED, new_head, "watch = watching;", *watched]
            code = code.replace(head[0], "\n".join(lines))
        super().__init__(code, *args, **kwargs)


@pytest.fixture
def counts(monkeypatch, device, gpu):
    """Of each loop that one kernel runs: (outside of arrays, touched by several threads)."""
    if backend.library("cuda") is not strict_double:
        pytest.skip("the double counts")
    gpu(True, 132)
    monkeypatch.setattr(strict_double, "RawKernel", Watching)
    launches._compiled.cache_clear()
    found = []

    def bind_watching(loop, tile, array, move, length):
        whole = bind_loop(loop, tile, array, move, length)
        owners = [array(x).data.mem.owner for x in whole.values]
        bounds = [n for x in owners for n in (x.ctypes.data, x.ctypes.data + x.nbytes)]
        watch = np.array([0, 0, *bounds])

        def launch(*addresses):
            watch[:2] = 0
            watching(whole.function, addresses, watch.ctypes.data)
            found.append(tuple(watch[:2]))

        return whole._replace(function=launch)

    def watching(function, addresses, watch):
        """The call, with one argument more."""
        call = Watching.__call__
        with monkeypatch.context() as patch:
            patch.setattr(
                Watching,
                "__call__",
                lambda self, grid, block, args, **k: call(self, grid, block, (*args, watch), **k),
            )
            function(*addresses)

    monkeypatch.setattr(frames, "bind_loop", bind_watching)
    yield found
    launches._compiled.cache_clear()


@pytest.mark.parametrize(
    "name",
    [
        *("RNN tanh", "two gates", "GRU", "LSTM", "masked pair"),
        *("swapped", "made before", "lagging", "product last", "product kept"),
    ],
)
def test_no_thread_touches_what_is_not_its_own(name, counts):
    """Or what is not there: sequences and units beyond the last ones, steps beyond the last one."""
    (case,) = (case for case in [*KNOWN.values(), *RIGHT] if case.name == name)
    step = step_of(case, B=9, H=6)
    for program, reverse in ((step, False), (pulled_back(step), True)):
        counts.clear()
        plan = cuda.Plan(program)
        check_plan(plan, program, 3, reverse, runs=2)
        assert plan.persistent is None or counts == [(0, 0)] * 2


# --- where a GPU does not run such a kernel -------------------------------------------------------


def test_launches_run_a_loop_whose_kernel_is_refused(gpu, monkeypatch):
    """The first run finds out, and still gives the result; from then on nobody tries again."""
    if backend.library("cuda") is not strict_double:
        pytest.skip("a GPU does not refuse when it is told to")
    gpu(True, 132)
    launches._compiled.cache_clear()
    call, refused = RawKernel.__call__, []

    def refusing(self, *args, **options):
        if "shared_memory()" in self.code:
            refused.append(self)
            raise RuntimeError("no room for a cluster")
        call(self, *args, **options)

    case = KNOWN["LSTM"]
    program = step_of(case)
    known = dict(refusals)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(RawKernel, "__call__", refusing)
            plan = cuda.Plan(program)
            check_plan(plan, program, 4)
            check_plan(cuda.Plan(pulled_back(program)), pulled_back(program), 4)
        assert len(refused) == 1
        assert refusals["one kernel"] == "one kernel: RuntimeError: no room for a cluster"
        assert plan.tile(strict_double) is None
        why = "because a kernel for all steps is refused (one kernel: RuntimeError: no room"
        assert why in plan.way()
        assert pool.newest.executor == "graph"
    finally:
        refusals.clear()
        refusals.update(known)
        launches._compiled.cache_clear()


def test_an_error_of_launches_is_no_refusal(monkeypatch):
    if backend.library("cuda") is not strict_double:
        pytest.skip("a GPU does not refuse when it is told to")
    program = step_of(KNOWN["LSTM"], "float64")

    def failing(self, *args, **options):
        raise RuntimeError("broken")

    launches._compiled.cache_clear()
    monkeypatch.setattr(RawKernel, "__call__", failing)
    inputs = on_device(inputs_of(program, 3))
    with pytest.raises(RuntimeError, match="broken"):
        cuda.run(cuda.Plan(program), strict_double, inputs, 3, False)
    assert "one kernel" not in refusals


# --- how the work is shared out -------------------------------------------------------------------


def loop_at(name, B, H, pulled=False):
    """A loop at a size."""
    program = step_of(KNOWN[name], B=B, H=H, T=1)
    return cuda.Plan(pulled_back(program) if pulled else program).persistent


@pytest.mark.parametrize(
    ("name", "B", "H", "blocks"),
    [
        ("LSTM", 64, 128, 8),
        ("LSTM", 64, 256, 8),
        ("LSTM", 256, 128, 4),
        ("LSTM", 64, 512, None),
        ("GRU", 64, 256, 8),
        ("RNN tanh", 64, 384, 8),
        ("RNN tanh", 64, 512, None),
        ("LSTM", 128, 256, 8),
        ("LSTM", 136, 256, None),  # 17 clusters of 8 do not run at the same time
        ("LSTM", 64, 168, 8),  # of which the last has no unit: four have not enough registers
    ],
)
def test_blocks_of_a_cluster(name, B, H, blocks):
    for pulled in (False, True):
        tile = tile_of(loop_at(name, B, H, pulled), True, 132)
        assert (tile and tile.blocks) == blocks


@pytest.mark.parametrize(("H", "fits"), [(16, True), (32, True), (128, False), (256, False)])
def test_without_clusters_a_loop_must_fit_one_block(H, fits):
    tile = tile_of(loop_at("LSTM", 64, H), False, 132)
    assert (tile is not None and tile.blocks == 1) if fits else tile is None


@pytest.mark.parametrize("pulled", [False, True], ids=["step", "pullback"])
@pytest.mark.parametrize("name", ["RNN tanh", "two gates", "GRU", "LSTM", "sLSTM"])
def test_every_tile_can_be_launched(name, pulled):
    """Whatever the size: no block is empty, and no more is asked for than there is."""
    found = 0
    for H in (1, 3, 4, 5, 31, 32, 33, 60, 100, 127, 128, 200, 256, 384, 512):
        loop = loop_at(name, 1, H, pulled)
        for B in (1, 8, 9, 64, 150, 600):
            kernel = loop.kernel._replace(shape=(B, H))
            for clusters, processors in ((True, 132), (True, 8), (False, 80)):
                tile = tile_of(loop._replace(kernel=kernel), clusters, processors)
                if tile is None:
                    continue
                found += 1
                assert tile.blocks in ((1, 2, 4, 8) if clusters else (1,))
                assert (tile.blocks - 1) * tile.units < H <= tile.blocks * tile.units
                assert tile.threads % 32 == 0
                assert 32 <= tile.threads <= 1024
                assert tile.height >= loop.left.shape[1]
                assert tile.columns * 8 == loop.parts * tile.lanes
                assert tile.threads * tile.columns * tile.depth * 8 >= H * loop.parts * tile.height
                assert tile.threads * tile.columns * (tile.depth + 8) <= 1 << 16
                assert tile.shared == 2 * tile.height * 8 * 4 <= 99 << 10  # what any GPU gives
                assert -(-B // 8) * tile.blocks <= processors
    assert found > 50
