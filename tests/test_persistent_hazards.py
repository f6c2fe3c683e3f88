"""What may go wrong between the steps, and between the threads, of a loop that one kernel runs.

Carries that change places, values that other threads have written, operands that lie otherwise:
such a loop is right, or is not run by one kernel. On the test double of CuPy, every access to
memory is watched as well. Read test_persistent.py first.
"""

import re

import numpy as np
import pytest
import strict_double
from arrays import host, on_device
from persistent_loops import KNOWN, LARGE, check, step_of
from recurrent_cells import Case
from strict_double import compiled
from strict_double.compiled import RawKernel
from test_scan_cuda import check_plan, inputs_of, pulled_back

import tinygrad_rnn as torch
from tinygrad_rnn import backend
from tinygrad_rnn.program import Program, Trace
from tinygrad_rnn.scan import cuda
from tinygrad_rnn.scan.cuda import frame as frames
from tinygrad_rnn.scan.cuda import launches
from tinygrad_rnn.scan.cuda.launches import bind_loop
from tinygrad_rnn.scan.interpret import interpret

pytestmark = pytest.mark.usefixtures("one_kernel")


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
    """One that reads a part of it: each unit, what its thread has computed for another column."""

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


def last_input_in_a_part(U):
    """The next step reads a sequence's value of this one, which only the state has by then."""

    def step(x, h):
        _, last = h.chunk(2, -1)
        new = (h @ U + last).tanh()
        return new, torch.cat([new, x], -1)

    return step


def shifted(U):
    """A state of three parts, each of which becomes the next one: all of them at once."""

    def step(x, h):
        a, b, c = h.chunk(3, -1)
        new = (x + h @ U + c).tanh()
        return new, torch.cat([new, a, b], -1)

    return step


def input_in_a_part(U, R):
    """So does a later kernel of the same step."""

    def step(x, h):
        both = torch.cat([(h @ U).tanh(), x], -1)
        _, given = both.chunk(2, -1)
        h = (both @ R + 0.5 * given).tanh()
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


def added_out_of_step(W, U, V):
    """A product that is added to such columns of another."""

    def step(x, h):
        H = h.shape[-1]
        _, a, _ = (x @ W + h @ U).split((1, H, H - 1), -1)
        h = (a + h.sigmoid() @ V).tanh()
        return h, h

    return step


def gate_of_all_units(U):
    """A column of the product that belongs to no unit."""

    def step(x, h):
        a, b = (h @ U).split((h.shape[-1], U.shape[-1] - h.shape[-1]), -1)
        h = (x + a).tanh() * b[:, :1]
        return h, h

    return step


def multiplied_after_it_is_made(U):
    """The last step's state is multiplied when its successor is there already."""

    def step(x, state):
        h, z = state
        new = (x + z).tanh()
        return z, (new, new * x + h @ U)

    return step


def product_of_a_product(W, U, V):
    """What is multiplied is a product, which no kernel makes."""

    def step(x, state):
        h, z = state
        h = (x @ W + h @ U + z).tanh()
        return h, (h, z @ V)

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
    Case("with a part of itself", with_a_part_of_itself, "B,D", "B,2H", ("D,2H", "2H,2H")),
    Case("with a part handed on", with_a_part_handed_on, "B,H", "B,2H", ("2H,H",)),
    Case("last input in a part", last_input_in_a_part, "B,H", "B,2H", ("2H,H",)),
    Case("shifted", shifted, "B,H", "B,3H", ("3H,H",)),
    Case("input in a part", input_in_a_part, "B,H", "B,H", ("H,H", "2H,H")),
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
    Case("added out of step", added_out_of_step, "B,D", "B,H", ("D,2H", "H,2H", "H,H")),
    Case("gate of all units", gate_of_all_units, "B,H", "B,H", ("H,W",)),
    Case("multiplied after it is made", multiplied_after_it_is_made, "B,H", TWO, ("H,H",)),
    Case("product of a product", product_of_a_product, "B,D", TWO, (*PLAIN, "H,H")),
    Case("of other sequences", of_other_sequences, "B,D", "B,H", PLAIN),
    Case("of the first sequence", of_the_first_sequence, "B,D", "B,H", PLAIN),
    Case("of the first unit", of_the_first_unit, "B,D", "B,H", PLAIN),
    Case("transposed", transposed, "B,H", "B,H", ("H,H",)),
    Case("row of states", row_of_states, "B,D", ("B,H", "H"), PLAIN),
]


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("case", RIGHT, ids=str)
def test_what_a_step_hands_on(case, reverse, gpu):
    gpu(LARGE)
    step = step_of(case, B=9, H=6)
    check(step, 4, reverse, runs=2)
    pullback = pulled_back(step)
    check_plan(cuda.Plan(pullback), pullback, 4, reverse, runs=2)


@pytest.mark.parametrize("case", OF_OTHERS, ids=str)
def test_what_other_threads_write_is_not_read(case, gpu):
    """Such loops are right as they are without: this kernel cannot run them."""
    gpu(LARGE)
    step = step_of(case, B=6, H=6)
    assert cuda.Plan(step).persistent is None
    for program in (step, pulled_back(step)):
        check_plan(cuda.Plan(program), program, 4, runs=2)


def test_states_of_other_dtypes(gpu):
    """A sum in double precision beside a state in single: each in its own in registers, too."""
    gpu(LARGE)
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
    gpu(LARGE)
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
    if backend.library("cuda") is not strict_double or compiled.as_ptx:
        pytest.skip("the double counts, in the text that we write")
    gpu(LARGE)
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
        *("GRU reset before", "MGU", "two layers"),
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
