"""What a GPU's executor computes is what `interpret` computes: for each step and each pullback.

It runs here on the test double of CuPy: kernels compiled by g++, products and graphs by doubles
that refuse what CUDA refuses. Where a GPU is, the same tests run on it.
"""

import numpy as np
import pytest
from arrays import host, on_device
from recurrent_cells import CASES

from tinygrad_rnn import backend
from tinygrad_rnn.scan import cuda, interpret
from tinygrad_rnn.scan.factors import gather_factors
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


def check(program, length, reverse=False, runs=3):
    """Some runs on the same frame, against `interpret`; gives the plan."""
    plan = cuda.Plan(program)
    xp = backend.library("cuda")
    for seed in range(runs):
        inputs = inputs_of(program, length, seed)
        wanted = interpret.interpret(program, np, inputs, length, reverse)
        found = cuda.run(plan, xp, on_device(inputs), length, reverse)
        for number, (a, b) in enumerate(zip(wanted, host(found), strict=True)):
            assert a.shape == b.shape
            assert a.dtype == b.dtype
            if a.size:
                scale = max(1.0, np.abs(np.asarray(a, np.float64)).max())
                error = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()
                assert error <= TOLERANCES.get(str(a.dtype), 0) * scale, (number, error)
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
