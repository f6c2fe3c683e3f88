"""Cells that nobody would write: scan is unroll for random steps, and its stages are right alone.

A random step is a list of operations on a pool of values, all of shape (B, some width). The pool
starts as the state and the inputs; every operation takes two values from it and adds its results.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_scan_equality import assert_agree, derivatives

import tinygrad_rnn as torch
from tinygrad_rnn import ops
from tinygrad_rnn.autograd import tree
from tinygrad_rnn.program import Program, Trace
from tinygrad_rnn.scan import scan, unroll
from tinygrad_rnn.scan.factors import gather_factors
from tinygrad_rnn.scan.interpret import interpret
from tinygrad_rnn.scan.partition import partition
from tinygrad_rnn.scan.pool import pool
from tinygrad_rnn.scan.pullback import pull_back
from tinygrad_rnn.scan.replay import Frame, Plan
from tinygrad_rnn.scan.scan import trace_step

#: What is about the plan of NumPy, or about programs alone, is on the host.
on_every_device = pytest.mark.usefixtures("device")

WIDEST = 4
TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "int64": 0, "bool": 0}


def fitted(v, width, W):
    """v, brought to a width by a slice or a product."""
    have = v.shape[-1]
    return v[:, :width] if have >= width else v @ W[:have, :width]


def like(a, b, W):
    return fitted(b, a.shape[-1], W)


def cut(a, k):
    """Two parts; the whole if it has one column."""
    width = a.shape[-1]
    return a.split([1 + k % (width - 1), width - 1 - k % (width - 1)], -1) if width > 1 else [a]


# name -> new values, from two values, a whole number from 0 to 3, a weight (4, 4) and a row (4,).
OPERATIONS = {
    "add": lambda a, b, k, W, w: [a + like(a, b, W)],
    "subtract": lambda a, b, k, W, w: [a - like(a, b, W)],
    "multiply": lambda a, b, k, W, w: [a * like(a, b, W)],
    "multiply by a column": lambda a, b, k, W, w: [a * b[:, :1]],
    "multiply by a row": lambda a, b, k, W, w: [a * w[: a.shape[-1]] + b[:1, :1]],
    "multiply by a number": lambda a, b, k, W, w: [a * w[k] + 0.25, a * (1.5 - k)],
    "divide": lambda a, b, k, W, w: [a / (b[:, :1] * b[:, :1] + 1)],
    "negative": lambda a, b, k, W, w: [-a],
    "tanh": lambda a, b, k, W, w: [a.tanh()],
    "sigmoid": lambda a, b, k, W, w: [a.sigmoid()],
    "gate": lambda a, b, k, W, w: [a.sigmoid() * like(a, b, W).tanh()],
    "matmul": lambda a, b, k, W, w: [a @ W[: a.shape[-1], : k + 1]],
    "matmul of two": lambda a, b, k, W, w: [a @ (a.T @ b)],
    "affine": lambda a, b, k, W, w: [a @ W[: a.shape[-1]] + w],
    "split": lambda a, b, k, W, w: cut(a, k),
    "gates": lambda a, b, k, W, w: (a @ W[: a.shape[-1]]).chunk(2 + 2 * (k % 2), -1),
    "cat": lambda a, b, k, W, w: [torch.cat([a, b], -1)[:, :WIDEST]],
    "cat of products": lambda a, b, k, W, w: [torch.cat([a * b[:, :1], b], -1)[:, -WIDEST:]],
    "cat of rows": lambda a, b, k, W, w: [torch.cat([like(a, b, W), a], 0)[: a.shape[0]]],
    "slice": lambda a, b, k, W, w: [a[:, k % a.shape[-1] :]],
    "flip": lambda a, b, k, W, w: [a.flip(k % 2)],
    "other rows": lambda a, b, k, W, w: [a.reshape(-1).reshape(a.shape[::-1]).T],
    "softmax": lambda a, b, k, W, w: [a.softmax(k % 2)],
    "sum": lambda a, b, k, W, w: [a.sum(k % 2, keepdim=True) * 0.5 + like(a, b, W)],
    "where": lambda a, b, k, W, w: [torch.where(a > 0, a, like(a, b, W))],
    "detach": lambda a, b, k, W, w: [a.detach() * 0.5],
}


@dataclass
class Step:
    """A random step. operations: (name, place of a, place of b, k); places count in the pool.

    states, inputs: widths. next_state: places, and whether tanh keeps the values small.
    outputs: places. wanted: which of inputs, states and weights require gradients.
    """

    states: list
    inputs: list
    operations: list
    next_state: list
    outputs: list
    wanted: list
    batch: int
    length: int
    reverse: bool

    def leaves(self):
        """(xs, h0, (W, w)): random tensors."""
        rng = np.random.default_rng(len(self.operations))
        wanted = iter(self.wanted)

        def leaf(*shape):
            values = 0.7 * rng.standard_normal(shape)
            return torch.tensor(values, requires_grad=next(wanted))

        h0 = tuple(leaf(self.batch, width) for width in self.states)
        weights = leaf(WIDEST, WIDEST), leaf(WIDEST)
        return tuple(leaf(self.length, self.batch, width) for width in self.inputs), h0, weights

    def cell(self, W, w):
        def step(x, h):
            pool = [*h, *x]
            for name, a, b, k in self.operations:
                pool += OPERATIONS[name](pool[a % len(pool)], pool[b % len(pool)], k, W, w)
            picked = [pool[place % len(pool)] for place, _ in self.next_state]
            after = [fitted(v, width, W) for v, width in zip(picked, self.states, strict=True)]
            bounded = (
                v.tanh() if s else v for v, (_, s) in zip(after, self.next_state, strict=True)
            )
            return tuple(pool[place % len(pool)] for place in self.outputs), tuple(bounded)

        return step

    def run(self, recurrence, leaves, **options):
        xs, h0, weights = leaves
        return recurrence(self.cell(*weights), xs, h0, reverse=self.reverse, **options)

    def program(self):
        xs, h0, weights = self.leaves()
        return trace_step(self.cell(*weights), xs, h0).program()


places = st.integers(0, 30)


@st.composite
def steps(draw):
    widths = st.lists(st.integers(1, 3), min_size=1, max_size=3)
    states, inputs = draw(widths), draw(widths)
    operation = st.tuples(st.sampled_from(sorted(OPERATIONS)), places, places, st.integers(0, 3))
    leaves = len(states) + len(inputs) + 2
    wanted = st.lists(st.booleans(), min_size=leaves, max_size=leaves)
    return Step(
        states,
        inputs,
        operations=draw(st.lists(operation, min_size=2, max_size=9)),
        next_state=[(draw(places), draw(st.integers(0, 3)) > 0) for _ in states],
        outputs=draw(st.lists(places, min_size=1, max_size=3)),
        wanted=draw(st.one_of(st.just([True] * leaves), wanted.filter(any))),
        batch=draw(st.integers(1, 3)),
        length=draw(st.integers(1, 5)),
        reverse=draw(st.booleans()),
    )


def assert_scan_is_unroll(step, tolerance=None, **options):
    leaves = step.leaves()
    outputs = step.run(unroll, leaves)
    with torch.no_grad():
        unrecorded = step.run(scan, leaves, **options)
    assert_agree(*(dict(tree.leaves(x, "output")) for x in (unrecorded, outputs)), tolerance)
    if any(y.requires_grad for part in outputs for y in part):
        actual = derivatives(step.run(scan, leaves, **options), *leaves)
        assert_agree(actual, derivatives(outputs, *leaves), tolerance)


@settings(max_examples=60)
@given(step=steps(), checkpoint=st.sampled_from([None, None, 2]))
def test_scan_is_unroll(step, checkpoint):
    assert_scan_is_unroll(step, 1e-10, checkpoint=checkpoint)


@on_every_device
@settings(max_examples=20)
@given(step=steps(), checkpoint=st.sampled_from([None, None, 2]))
def test_scan_is_unroll_elsewhere(step, checkpoint):
    """Fewer examples, since each compiles kernels."""
    assert_scan_is_unroll(step, 1e-10, checkpoint=checkpoint)


# The stages.


def numbers(program, length, seed):
    """Random inputs of a program."""
    rng = np.random.default_rng(seed)
    shapes = [(x.shape, x.dtype) for x in program.carry]
    shapes += [((length, *x.shape), x.dtype) for x in program.sequences]
    shapes += [(x.shape, x.dtype) for x in program.constants]
    return [(0.7 * rng.standard_normal(shape)).astype(dtype) for shape, dtype in shapes]


def assert_same(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(
            a, b, rtol=0, atol=TOLERANCES[b.dtype.name] * max(1.0, np.abs(b).max(initial=0))
        )


def assert_plan_is_interpret(program, length, reverse):
    """Three runs: in a frame, in another because its results are held, and again in the first."""
    plan = Plan(program)
    held = []
    for seed in range(3):
        inputs = numbers(program, length, seed)
        found = pool.run(Frame, plan, inputs, length, reverse)
        expected = interpret(program, np, inputs, length, reverse)
        assert_same(found, expected)
        held = [(found, expected)] if seed == 0 else held
        for earlier in held:
            assert_same(*earlier)


@settings(max_examples=60)
@given(step=steps())
def test_replay_is_interpret(step):
    assert_plan_is_interpret(step.program(), step.length, step.reverse)


def pulled(step, given_):
    """The pullback of a step, for some outputs with cotangents."""
    program = step.program()
    given_ = (given_ * len(program.outputs))[: len(program.outputs)]
    return pull_back(program, given_, [True] * len(program.inputs)).program


some = st.lists(st.booleans(), min_size=1, max_size=4).filter(any)


@settings(max_examples=60)
@given(step=steps(), given_=some)
def test_replay_is_interpret_for_the_pulled_back_step(step, given_):
    program = pulled(step, given_)
    assert_plan_is_interpret(program, step.length, not step.reverse)
    assert_plan_is_interpret(gather_factors(program), step.length, not step.reverse)


@settings(max_examples=60)
@given(step=steps(), given_=some)
def test_gathered_factors_change_nothing(step, given_):
    program = pulled(step, given_)
    inputs = numbers(program, step.length, seed=0)
    results = (
        interpret(p, np, inputs, step.length, step.reverse)
        for p in (gather_factors(program), program)
    )
    assert_same(*results)


@on_every_device
@pytest.mark.double_every(3)
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_alone(name):
    """A failure here names what one above may be about: on states, on inputs, on both."""
    for a, b in [(0, 0), (0, 1), (1, 0), (1, 2), (2, 2)]:
        ends = {"next_state": [(-1, True), (0, True)], "outputs": [-1], "wanted": [True] * 6}
        sizes = {"batch": 2, "length": 3, "reverse": False}
        assert_scan_is_unroll(Step([3, 2], [4, 2], [(name, a, b, 2)], **ends, **sizes))


# Gates: parts of one product, which replay computes in place and merges where their order allows.

GATE_OPERATIONS = {
    "tanh": lambda gates, k, j, x: gates[k].tanh(),
    "sigmoid": lambda gates, k, j, x: gates[k].sigmoid(),
    "scale": lambda gates, k, j, x: gates[k] * 0.5,
    "add": lambda gates, k, j, x: gates[k] + gates[j],
    "multiply": lambda gates, k, j, x: gates[k] * gates[j],
    "multiply by x": lambda gates, k, j, x: gates[k] * x,
}
gate_operation = st.tuples(
    st.sampled_from(sorted(GATE_OPERATIONS)), st.integers(0, 2), st.integers(0, 2)
)


def gated(operations, joined, U):
    """A step in which every operation replaces a gate, so that its memory is free for the next."""

    def cell(x, h):
        gates = list((h @ U + torch.cat([x, x, x], -1)).chunk(3, -1))
        early = h * 0
        for name, k, j in operations:
            if j == 2:  # somebody still wants the old value
                early = early + gates[k] * 0.3
            gates[k] = GATE_OPERATIONS[name](gates, k, j, x)
        last = torch.cat(gates, -1) @ U.T if joined else gates[0] + gates[1] * gates[2]
        h = (last + early).tanh()
        return h, h

    return cell


@settings(max_examples=60)
@example([("tanh", 0, 0), ("tanh", 1, 2), ("tanh", 2, 2)], False)  # reads, then writes
@example([("tanh", 0, 0), ("scale", 1, 0), ("tanh", 1, 0)], True)  # writes, then reads
@given(st.lists(gate_operation, min_size=2, max_size=8), st.booleans())
def test_gates_in_any_order(operations, joined):
    rng = np.random.default_rng(0)
    shapes = [(3, 2, 2), (2, 2), (2, 6)]
    leaves = [torch.tensor(0.7 * rng.standard_normal(s), requires_grad=True) for s in shapes]
    xs, h0, U = leaves
    cell = gated(operations, joined, U)
    with torch.no_grad():  # where less is kept, more is computed in place
        assert_agree(*(dict(enumerate(r(cell, xs, h0))) for r in (scan, unroll)))
    results = (derivatives(r(cell, xs, h0), *leaves) for r in (scan, unroll))
    assert_agree(*results, tolerance=1e-10)


# Sums over the steps, each in a step of its own: h (B, 3) is the state, x (B, 2) and the indices k
# (B,) are inputs, W (2, 3) and b (3,) constants. What is summed, and how partition.py says it is.
SUMS = {
    "a constant": (lambda h, x, k, W, b: b, "times T"),
    "of constants": (lambda h, x, k, W, b: (W * b).tanh() + 1, "times T"),
    "an input": (lambda h, x, k, W, b: x, "steps"),
    "a state": (lambda h, x, k, W, b: h, "steps"),
    "nothing linear": (lambda h, x, k, W, b: h.tanh() * b, "of operands"),
    "two that vary": (lambda h, x, k, W, b: h * (x @ W), "steps"),
    "rows": (lambda h, x, k, W, b: ops.sum_to(h, shape=(3,)), "at once"),
    "rows to a column": (lambda h, x, k, W, b: ops.sum_to(h, shape=(1, 3)), "at once"),
    "a product": (lambda h, x, k, W, b: ops.contract(x, h), "at once"),
    "a product with itself": (lambda h, x, k, W, b: ops.contract(h, h), "at once"),
    "a product with a constant": (lambda h, x, k, W, b: ops.contract(W, W * x[0, 0]), "steps"),
    "a scaled product": (lambda h, x, k, W, b: -ops.contract(x, h) * W, "of operands"),
    "a turned product": (lambda h, x, k, W, b: ops.contract(x, h).T.reshape(6)[1:], "of operands"),
    "two products": (
        lambda h, x, k, W, b: ops.contract(x, h) - ops.contract(x, h.tanh()) + ops.contract(x, h),
        "of operands",
    ),
    "a product and more": (lambda h, x, k, W, b: ops.contract(x, h) + b, "steps"),
    "einsum": (lambda h, x, k, W, b: torch.einsum("bi,bj,ij->j", x, h, W), "at once"),
    "rows of a table": (lambda h, x, k, W, b: ops.add_rows(h, k, rows=4), "at once"),
    "in float32": (lambda h, x, k, W, b: ops.contract(x, h).float(), "of operands"),
}


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("also_stacked", [False, True])
@pytest.mark.parametrize("name", SUMS)
def test_sums_over_the_steps(name, also_stacked, length):
    value, how = SUMS[name]
    trace = Trace()
    h, x, W, b = (trace.input(np.zeros(shape)) for shape in [(2, 3), (2, 2), (2, 3), (3,)])
    k = trace.input(np.zeros(2, np.int64))
    total = value(h, x, k, W, b)
    after = (h * 0.5 + x @ W).tanh()
    stacked = [total] if also_stacked else []
    program = Program(trace.equations, [h], [x, k], [W, b], [after], stacked, [total])
    if not also_stacked:
        assert [found.how for found in partition(program).totals] == [how]
    assert_plan_is_interpret(program, length, reverse=False)
