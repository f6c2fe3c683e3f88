"""Random loops that one kernel runs: several products in a step, of whatever its kernels compute.

A random step is a list of operations on a pool of values, all of shape (B, H). The pool starts as
the parts of the states, and the inputs; every operation takes two values from it and adds its
results. Read test_persistent.py first.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_scan_cuda import check_plan, pulled_back

import tinygrad_rnn as torch
from tinygrad_rnn.scan import cuda
from tinygrad_rnn.scan.pool import pool
from tinygrad_rnn.scan.scan import trace_step

pytestmark = pytest.mark.usefixtures("one_kernel")

H = 5
#: name -> new values, from two values and weights (H, H), (H, 2H), (2H, H) and (H,).
OPERATIONS = {
    "tanh": lambda a, b, U, V, R, w: [a.tanh()],
    "gate": lambda a, b, U, V, R, w: [a.sigmoid() * b.tanh()],
    "between": lambda a, b, U, V, R, w: [w.sigmoid() * a + (1 - w.sigmoid()) * b],
    "where": lambda a, b, U, V, R, w: [torch.where(a > 0, a.tanh(), b)],
    "product": lambda a, b, U, V, R, w: [a @ U],
    "added product": lambda a, b, U, V, R, w: [(b + a @ U).tanh()],
    "two products": lambda a, b, U, V, R, w: [(a @ U + b @ U.T).tanh()],
    "gates": lambda a, b, U, V, R, w: (a @ V).chunk(2, -1),
    "product of two": lambda a, b, U, V, R, w: [(torch.cat([a, b], -1) @ R).sigmoid()],
}


@dataclass
class Step:
    """A random step. operations: (name, place of a, place of b); places count in the pool.

    states: their parts, one or two, as the places of what they become; and whether a state's
    product begins the pool. outputs: places.
    """

    states: list
    inputs: int
    operations: list
    outputs: list
    batch: int

    def program(self):
        rng = np.random.default_rng(len(self.operations))

        def leaf(*shape):
            return torch.tensor((0.5 * rng.standard_normal(shape)).astype("float32"))

        weights = leaf(H, H), leaf(H, 2 * H), leaf(2 * H, H), leaf(H)
        h0 = tuple(leaf(self.batch, len(parts) * H) for parts, _ in self.states)
        xs = tuple(leaf(1, self.batch, H) for _ in range(self.inputs))

        def step(x, h):
            pool = [*x]
            for state, (parts, multiplied) in zip(h, self.states, strict=True):
                pool += state.chunk(len(parts), -1) if len(parts) > 1 else [state]
                if multiplied:
                    pool.append(state @ (weights[2] if len(parts) > 1 else weights[0]))
            for name, a, b in self.operations:
                pool += OPERATIONS[name](pool[a % len(pool)], pool[b % len(pool)], *weights)
            after = tuple(
                torch.cat([pool[-1 - place % len(pool)].tanh() for place in parts], -1)
                for parts, _ in self.states
            )
            return tuple(pool[place % len(pool)] for place in self.outputs), after

        return trace_step(step, xs, h0).program()


places = st.integers(0, 30)
steps = st.builds(
    Step,
    states=st.lists(
        st.tuples(st.lists(places, min_size=1, max_size=2), st.booleans()), min_size=1, max_size=2
    ),
    inputs=st.integers(1, 2),
    operations=st.lists(
        st.tuples(st.sampled_from(sorted(OPERATIONS)), places, places), min_size=2, max_size=7
    ),
    outputs=st.lists(places, min_size=1, max_size=2),
    batch=st.sampled_from([1, 3, 9]),
)


def check_if_it_can(program, reverse):
    """Of programs that one kernel can run; hypothesis complains if those are too few."""
    plan = cuda.Plan(program)
    assume(plan.persistent is not None)
    check_plan(plan, program, 3, reverse, runs=2)
    assert pool.newest.executor == "kernel"


@settings(max_examples=30)
@given(step=steps, reverse=st.booleans())
def test_random_steps(step, reverse):
    check_if_it_can(step.program(), reverse)


@settings(max_examples=30)
@given(step=steps, reverse=st.booleans())
def test_random_pulled_back_steps(step, reverse):
    program = pulled_back(step.program())
    assume(program is not None)
    check_if_it_can(program, reverse)
