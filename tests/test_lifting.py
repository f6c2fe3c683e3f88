"""lift is the operation at each step, total its sum: for every primitive, whatever is stacked.

The calls are those of test_ops.py. Where `can_lift` or `can_total` says yes, the result must be
right; where they say no, the tables here say so too, so that a change is noticed.
"""

import itertools

import numpy as np
import pytest
from arrays import host, on_device
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ops import PRIMITIVES, as_list, drawn

from tinygrad_rnn import ops
from tinygrad_rnn.ops.lifting import can_lift, can_total, lift, sums_operand, total
from tinygrad_rnn.tensor import Tensor

pytestmark = pytest.mark.usefixtures("device")

T = 4

# Operations that are computed step by step, whatever is stacked ...
NEVER_LIFTED = {"add_rows", "nonzero", "put", "unique"}
# ... or for some operands, or some indices (test_indices).
SOMETIMES_LIFTED = {"getitem", "place", "take"}
# Operations whose sum over the steps is computed at once, or from the sum of an operand.
SUMMED_AT_ONCE = {"add_rows", "contract", "einsum", "sum_to"}
SUM_OF_OPERANDS = {
    "add", "broadcast_to", "cast", "flip", "getitem", "multiply", "negative", "place", "reshape",
    "subtract", "transpose", "unpad",
}  # fmt: skip

every_primitive = pytest.mark.parametrize("name", PRIMITIVES)


def at_steps(x):
    """T values for an operand: the same numbers in other places, each float a little larger."""
    steps = np.stack([np.roll(x, t) for t in range(T)])
    if steps.dtype.kind == "f":
        steps *= 1 + 1e-3 * np.arange(T).reshape(T, *[1] * x.ndim)
    return steps


class Call:
    """A call of a primitive at T steps, with some of its operands stacked; drawn on the host."""

    def __init__(self, name, operands, params, stacked):
        self.primitive, self.stacked = PRIMITIVES[name], stacked
        self.params = on_device(params)
        self.shapes = [np.shape(x) for x in operands]
        self.ndims = [len(shape) for shape in self.shapes]
        self.all = on_device(
            [at_steps(x) if s else x for x, s in zip(operands, stacked, strict=True)]
        )
        self.results = [as_list(self.at(t)) for t in range(T)]

    def at(self, t):
        return self.primitive(
            *(x[t, ...] if s else x for x, s in zip(self.all, self.stacked, strict=True)),
            **self.params,
        )

    def steps(self):
        """Each result at all steps, on the host."""
        return [np.stack(host(steps)) for steps in zip(*self.results, strict=True)]

    def lifted(self, operands):
        return lift(self.primitive, operands, self.stacked, self.ndims, self.params)


def every_call(name, data):
    """A drawn call, once for each choice of operands to stack."""
    operands, params = drawn(data, name)
    for stacked in itertools.product([True, False], repeat=len(operands)):
        if any(stacked):
            yield Call(name, operands, params, list(stacked))


def assert_same(actual, expected, rtol=1e-12):
    actual = host(actual)
    assert (np.shape(actual), actual.dtype) == (np.shape(expected), expected.dtype)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-12)


# All steps at once.


@every_primitive
def test_lift_gives_the_results_of_all_steps(name):
    found = set()

    @settings(max_examples=30)
    @given(data=st.data())
    def look(data):
        for call in every_call(name, data):
            liftable = can_lift(call.primitive, call.stacked, call.params)
            found.add(liftable)
            if liftable:
                made = as_list(call.lifted(call.all))
                for y, steps in zip(made, call.steps(), strict=True):
                    assert_same(y, steps)

    look()
    if name in SOMETIMES_LIFTED:
        assert True in found
    else:
        assert found == {name not in NEVER_LIFTED}


@pytest.mark.parametrize("name", sorted(set(PRIMITIVES) - NEVER_LIFTED))
@settings(max_examples=3)
@given(data=st.data())
def test_lift_on_tensors_is_lift_on_arrays(name, data):
    for call in every_call(name, data):
        if can_lift(call.primitive, call.stacked, call.params):
            made = as_list(call.lifted([Tensor(x) for x in call.all]))
            for y, expected in zip(made, as_list(call.lifted(call.all)), strict=True):
                np.testing.assert_array_equal(host(y), host(expected))


BINARY = ["add", "subtract", "multiply", "divide", "maximum", "power", "less"]


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("number", [2.0, 3])
@pytest.mark.parametrize("first", [True, False])
def test_numbers_are_no_arrays(name, number, first):
    """As operands of an equation may be: they do not widen what they meet."""
    xs = on_device(at_steps(np.linspace(0.5, 2, 6, dtype=np.float32).reshape(2, 3)))
    order = slice(None) if first else slice(None, None, -1)
    made = lift(PRIMITIVES[name], [xs, number][order], [True, False][order], [2, 0][order], {})
    steps = [host(PRIMITIVES[name](*[x, number][order])) for x in xs]
    assert_same(made, np.stack(steps), rtol=0)


INDICES = [
    3,
    -1,
    slice(1, None),
    slice(None, None, -2),
    None,
    ...,
    (1, 2),
    (..., 1),
    (None, ..., 1, None),
    (slice(None), 1),
    np.array([0, 0, 2]),
    np.array([[1], [-1]]),
    np.array(1),
    np.int64(1),
    np.arange(4) % 2 == 0,
    np.arange(12).reshape(4, 3) % 2 == 0,
    (slice(None), np.array([2, 0])),
    (..., np.array([2, 0]), slice(None)),
    (None, np.array([1, 1])),
    np.True_,
]
MIXED = [  # what NumPy would put elsewhere, or ambiguous: not lifted
    (np.array([0, 1]), np.array([2, 0])),
    (np.array([0, 1]), slice(None), np.array([1, 0])),
    (0, np.array([1, 2])),
    (np.array([0, 1]), 1),
    (1, slice(None), np.array([1, 0])),
    True,
    (True, np.array([0, 1])),
]


@pytest.mark.parametrize("index", INDICES + MIXED, ids=repr)
def test_indices(index):
    """Every kind of index on three axes: read at all steps at once if can_lift says so."""
    x = np.random.default_rng(0).normal(size=(4, 3, 2))
    call = Call("getitem", [x], {"index": index}, [True])
    liftable = can_lift(ops.getitem, [True], call.params)
    assert liftable == any(index is other for other in INDICES)
    if liftable:
        assert_same(call.lifted(call.all), *call.steps())
        y = np.asarray(x[index])
        back = Call("place", [y], {"shape": x.shape, "index": index}, [True])
        assert_same(back.lifted(back.all), *back.steps())


# Sums over the steps.


def sum_from_operands(call):
    """As scan/replay/totals.py does it: the operation on the sums of operands; None if it is no
    such sum."""
    shapes = [*call.shapes, np.shape(host(call.results[0][0]))]
    places = sums_operand(call.primitive, shapes, call.stacked)
    if not places or not all(call.stacked[place] for place in places):
        return None
    operands = [x.sum(axis=0) if place in places else x for place, x in enumerate(call.all)]
    return call.primitive(*operands, **call.params)


@every_primitive
def test_sums_over_the_steps(name):
    found = set()

    @settings(max_examples=30)
    @given(data=st.data())
    def look(data):
        for call in every_call(name, data):
            if can_total(call.primitive, call.stacked):
                found.add("at once")
                made = total(call.primitive, call.all, call.stacked, call.params)
                assert_same(made, call.steps()[0].sum(0))
            if (made := sum_from_operands(call)) is not None:
                found.add("of operands")
                assert_same(made, call.steps()[0].sum(0))

    look()
    assert ("at once" in found) == (name in SUMMED_AT_ONCE)
    assert ("of operands" in found) == (name in SUM_OF_OPERANDS)


def test_an_operand_that_is_broadcast_is_not_summed():
    """Σ (a + b) over steps, with b the same at all steps, has T b; with b wider, several a."""
    both = [True, True]
    assert sums_operand(ops.add, [(3,), (3,), (3,)], both) == [0, 1]
    assert sums_operand(ops.add, [(3,), (2, 3), (2, 3)], both) == []
    assert sums_operand(ops.add, [(3,), (3,), (3,)], [True, False]) == []
    assert sums_operand(ops.multiply, [(3,), (3,), (3,)], both) == []
    assert sums_operand(ops.multiply, [(3,), (2, 3), (2, 3)], [True, False]) == []
    assert sums_operand(ops.multiply, [(2, 3), (), (2, 3)], [True, False]) == [0]
