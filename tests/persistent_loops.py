"""Loops that one kernel runs from the first step to the last, for tests: their steps and plans."""

from recurrent_cells import CASES, Case
from test_scan_cuda import check_plan, pulled_back

from tinygrad_rnn.scan import cuda
from tinygrad_rnn.scan.cuda.clusters import Room
from tinygrad_rnn.scan.cuda.plan import ONE_KERNEL, refusals
from tinygrad_rnn.scan.pool import pool
from tinygrad_rnn.scan.scan import trace_step


def two_gates(W, U, b):
    """A unit with two columns: half of a GRU."""

    def step(x, h):
        z, g = (x @ W + h @ U + b).chunk(2, -1)
        h = z.sigmoid() * h + (1 - z.sigmoid()) * g.tanh()
        return h, h

    return step


def two_layers(W, U, V, R):
    """Two layers in one step: the upper one reads what the lower one has just computed."""

    def step(x, state):
        lower, upper = state
        lower = (x @ W + lower @ U).tanh()
        upper = (lower @ V + upper @ R).tanh()
        return upper, (lower, upper)

    return step


OTHERS = [
    Case("two gates", two_gates, "B,D", "B,H", ("D,2H", "H,2H", "2H")),
    Case("two layers", two_layers, "B,D", ("B,H", "B,H"), ("D,H", "H,H", "H,H", "H,H")),
]
LARGE = Room({1: 132, 2: 66, 4: 32, 8: 16}, 227 << 10)
LARGER = LARGE._replace(clusters={**LARGE.clusters, 16: 8})
KNOWN = {case.name: case for case in [*CASES, *OTHERS]}


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
    check_plan(plan, program, length, reverse, runs)
    assert ONE_KERNEL not in refusals, refusals[ONE_KERNEL]
    return plan


def frame_of(plan):
    """The frame that the plan's runs share."""
    (frame,) = (x for x in pool._frames if x.plan is plan)
    return frame
