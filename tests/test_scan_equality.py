"""scan is unroll: the same values, gradients and second gradients, for every cell of the table.

`unroll` is the definition. What scan computes is also held against truths that share no code with
either: differences, and the gradients derived by hand. (parity/test_scan.py: against PyTorch.)
"""

from types import SimpleNamespace

import numpy as np
import pytest
from recurrent_cells import CASES, SIZES

import tinygrad_rnn as torch
from tinygrad_rnn import nn
from tinygrad_rnn.autograd import check_grads, gradcheck, gradgradcheck, tree
from tinygrad_rnn.by_hand import verify
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.scan import scan, trees, unroll

pytestmark = pytest.mark.usefixtures("device")

CELLS = {case.name: case for case in CASES}
# Largest difference, in units of the largest value of the array if that is above 1.
TOLERANCES = {"float64": 1e-12, "float32": 1e-5}

all_cases = pytest.mark.parametrize("case", CASES, ids=str)
both_ways = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
each_recurrence = pytest.mark.parametrize(
    ("recurrence", "options"),
    [(unroll, {}), (scan, {}), (scan, {"checkpoint": 2})],
    ids=["unroll", "scan", "checkpoint"],
)


# The same quantities from both, and how they are compared.


def run(recurrence, case, leaves, **options):
    xs, h0, weights = leaves
    return recurrence(case.cell(*weights), xs, h0, **options)


def floating(name, *several):
    """The floating tensors in some trees, by name."""
    return {label: x for label, x in tree.leaves(several, name) if x.is_floating_point()}


def pulled(outputs, sources, order):
    """(gradients of a random projection of all outputs, its cotangents); zeros where none leads.

    A cotangent depends on the name of its output alone, and can be differentiated for.
    """
    cotangents, used = {}, []
    for name, y in outputs.items():
        draw = np.random.default_rng([order, *name.encode()]).standard_normal(y.shape)
        cotangents[f"{name}'"] = torch.tensor(draw.astype(y.dtype), requires_grad=True)
        if y.requires_grad:
            used.append((y, cotangents[f"{name}'"]))
    ys, gs = zip(*used, strict=True)
    found = torch.autograd.grad(
        ys, list(sources.values()), gs, create_graph=True, materialize_grads=True
    )
    return {f"d{order} {name}": g for name, g in zip(sources, found, strict=True)}, cotangents


def derivatives(outputs, *leaves):
    """By name: all outputs, their gradients with respect to the leaves that require any, and the
    gradients of those with respect to leaves and cotangents."""
    found = dict(tree.leaves(outputs, "output"))
    assert not any(y.requires_grad for y in found.values() if not y.is_floating_point())
    sources = {name: x for name, x in floating("leaf", *leaves).items() if x.requires_grad}
    values = floating("output", *outputs)
    for order in (1, 2):
        values, cotangents = pulled(values, sources, order)
        found |= values
        sources |= cotangents
    return found


def assert_agree(actual, expected, tolerance=None):
    assert list(actual) == list(expected)
    for name, y in expected.items():
        a, b = actual[name].detach().numpy(), y.detach().numpy()
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        atol = TOLERANCES.get(b.dtype.name, 0.0) if tolerance is None else tolerance
        atol *= max(1.0, np.abs(b).max(initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=name)


def assert_scan_is_unroll(case, leaves, *, checkpoint=None, **options):
    actual = run(scan, case, leaves, checkpoint=checkpoint, **options)
    expected = run(unroll, case, leaves, **options)
    assert_agree(derivatives(actual, *leaves), derivatives(expected, *leaves))


# Every cell.


@pytest.mark.double_every(3)
@all_cases
@both_ways
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_values_and_two_gradients(case, reverse, dtype):
    assert_scan_is_unroll(case, case.leaves(dtype), reverse=reverse)


@pytest.mark.double_every(7)
@all_cases
@pytest.mark.parametrize(
    ("checkpoint", "reverse"),
    [(1, False), (2, True), (3, False), ("sqrt", True), ("sqrt", False), (100, True)],
)
def test_checkpoints_change_nothing(case, checkpoint, reverse):
    assert_scan_is_unroll(case, case.leaves(), checkpoint=checkpoint, reverse=reverse)


@pytest.mark.double_every(5)
@all_cases
@both_ways
def test_directional_differences(case, reverse):
    def f(xs, h0, *weights):
        return run(scan, case, (xs, h0, weights), reverse=reverse)

    xs, h0, weights = case.leaves(T=3)
    check_grads(f, (xs, h0, *weights), order=2)


@pytest.mark.double_every(5)
@all_cases
def test_differences_by_changing_the_leaves_in_place(case):
    """Also that an output nobody used is the same as one with a cotangent of zeros."""
    leaves = case.leaves(T=3)

    def f(*_):
        return run(scan, case, leaves)

    strict = {"fast_mode": True, "atol": 1e-9, "rtol": 1e-6}
    assert gradcheck(f, leaves, **strict)
    assert gradgradcheck(f, leaves, **strict)


@pytest.mark.double_every(4)
@all_cases
def test_each_output_alone(case):
    leaves = case.leaves()
    actual, expected = (floating("output", *run(r, case, leaves)) for r in (scan, unroll))
    for name in expected:
        assert_agree(derivatives((actual[name],), *leaves), derivatives((expected[name],), *leaves))


@pytest.mark.double_every(4)
@all_cases
def test_each_leaf_alone_requires_a_gradient(case):
    leaves = case.leaves()
    wanted = floating("leaf", *leaves)
    for name in wanted:
        for label, x in wanted.items():
            x.requires_grad_(label == name)
        assert_scan_is_unroll(case, leaves)


@pytest.mark.double_every(3)
@all_cases
def test_nothing_is_recorded_without_need(case):
    leaves = case.leaves()
    with torch.no_grad():
        recorded = run(scan, case, leaves)
    for x in floating("leaf", *leaves).values():
        x.requires_grad_(False)
    for ys in (recorded, run(scan, case, leaves)):
        assert_agree(dict(tree.leaves(ys, "")), dict(tree.leaves(run(unroll, case, leaves), "")))
        assert not any(y.requires_grad for _, y in tree.leaves(ys, ""))


@pytest.mark.double_every(11)
@all_cases
@both_ways
@pytest.mark.parametrize("sizes", [{"T": 1}, {"B": 1}, {"B": 0}, {"T": 1, "B": 0}], ids=str)
def test_sizes_at_the_edge(case, sizes, reverse):
    assert_scan_is_unroll(case, case.leaves(**sizes), reverse=reverse)


@pytest.mark.double_every(11)
@all_cases
@both_ways
@pytest.mark.parametrize("checkpoint", [None, 2, "sqrt"])
def test_no_steps(case, checkpoint, reverse):
    """The outputs are empty, and the final state is the initial one."""
    xs, h0, weights = leaves = case.leaves(T=0)
    one = [torch.zeros(1, *x.shape[1:], dtype=x.dtype) for x in trees.leaves(xs)]
    ys, _ = run(unroll, case, (trees.rebuild(xs, one), h0, weights))
    expected = trees.rebuild(ys, [y[:0] for y in trees.leaves(ys)]), h0
    actual = run(scan, case, leaves, checkpoint=checkpoint, reverse=reverse)
    assert_agree(derivatives(actual, *leaves), derivatives(expected, *leaves))


# How scans are put together.


def leaf(*shape, seed=0, dtype="float64"):
    draw = 0.7 * np.random.default_rng([seed, *shape]).standard_normal(shape)
    return torch.tensor(draw.astype(dtype), requires_grad=True)


@pytest.mark.double_every(5)
@pytest.mark.parametrize("checkpoint", [None, 2])
@pytest.mark.parametrize(
    "pair", [(scan, scan), (scan, unroll), (unroll, scan)], ids=["both", "outer", "inner"]
)
@both_ways
def test_a_scan_inside_a_step(pair, checkpoint, reverse):
    """The inner step draws masks, and reads a weight, its own state and one of the outer step."""
    leaves = leaf(5, 3, 2, 4), leaf(2, 4), leaf(2, 4), leaf(4, 4)
    xs, h0, c0, W = leaves

    def result(outer, inner, **options):
        def step(x, state):
            h, c = state

            def inner_step(x, h):
                h = (x + F.dropout(h, 0.25) @ W + c).tanh()
                return h * c, h

            ys, h = inner(inner_step, x, h, reverse=not reverse)  # x: (3, 2, 4)
            return (ys, h), (h, c * 0.5 + ys.sum(0))

        torch.manual_seed(1)
        return derivatives(outer(step, xs, (h0, c0), reverse=reverse, **options), *leaves)

    options = {"checkpoint": checkpoint} if pair[0] is scan else {}
    assert_agree(result(*pair, **options), result(unroll, unroll))


@pytest.mark.double_every(3)
@pytest.mark.parametrize("wanted", [True, False], ids=["weight", "constant"])
@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (2, 1, 4), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_constants_of_every_rank(shape, wanted, dtype):
    """Read before and after the state, and by themselves; of float64 where that widens nothing."""
    xs, h0 = leaf(6, 2, 3, 4, dtype=dtype), leaf(2, 3, 4, dtype=dtype)
    a = leaf(*shape, dtype=dtype if shape else "float64").requires_grad_(wanted)

    def step(x, h):
        h = (h * a + x * a.tanh() + 0.25).tanh()
        return h - a, h

    results = (derivatives(r(step, xs, h0), xs, h0, a) for r in (scan, unroll))
    assert_agree(*results, tolerance=TOLERANCES[dtype])


@pytest.mark.parametrize("name", ["GRU", "weight twice", "attention"])
def test_two_forwards_before_one_backward(name):
    """Neither run may write into what the other keeps."""
    case = CELLS[name]
    xs, h0, weights = leaves = case.leaves()

    def result(recurrence):
        cell = case.cell(*weights)
        return recurrence(cell, xs, h0), recurrence(cell, xs[2:] * 2, h0, reverse=True)

    assert_agree(*(derivatives(result(r), *leaves) for r in (scan, unroll)))


def test_one_cell_twice_in_one_graph():
    """The second run reads the outputs and the state of the first."""
    xs, h0, weights = leaves = CELLS["weight twice"].leaves()
    cell = CELLS["weight twice"].cell(*weights)
    results = (r(cell, *r(cell, xs, h0), reverse=True) for r in (scan, unroll))
    assert_agree(*(derivatives(result, *leaves) for result in results))


@pytest.mark.double_every(3)
@all_cases
def test_backward_twice(case):
    leaves = case.leaves()
    outputs = run(scan, case, leaves)
    assert_agree(derivatives(outputs, *leaves), derivatives(outputs, *leaves), tolerance=0.0)


@each_recurrence
def test_a_graph_is_used_up(recurrence, options):
    case = CELLS["GRU"]
    ys, _ = run(recurrence, case, case.leaves(), **options)
    ys.sum().backward()
    with pytest.raises(RuntimeError, match="retain_graph"):
        ys.sum().backward()


@each_recurrence
def test_a_weight_changed_before_backward_is_refused(recurrence, options):
    case = CELLS["LSTM peephole"]
    leaves = case.leaves()
    ys, _ = run(recurrence, case, leaves, **options)
    with torch.no_grad():
        leaves[2][3].mul_(2.0)  # p_i, which the derivative reads
    with pytest.raises(RuntimeError, match="was changed by"):
        ys.sum().backward()


def test_a_step_sees_what_its_weights_are_now():
    """One cell, and between its runs: a write in place, another tensor, another number."""
    xs, h0 = leaf(6, 2, 4), leaf(2, 4)
    own = SimpleNamespace(W=leaf(4, 4), scale=1.0)

    def cell(x, h):
        h = (x + h @ own.W * own.scale).tanh()
        return h, h

    def final_state():
        actual, expected = (derivatives(r(cell, xs, h0), xs, h0, own.W) for r in (scan, unroll))
        assert_agree(actual, expected)
        return actual["output[1]"].detach().sum().item()

    found = [final_state()]
    with torch.no_grad():
        own.W.mul_(-1.5)
    found.append(final_state())
    own.W = leaf(4, 4, seed=1)
    found.append(final_state())
    own.scale = 0.5
    found.append(final_state())
    assert len(set(found)) == 4  # each change was one


# Dropout.


@pytest.mark.double_every(5)
@both_ways
@pytest.mark.parametrize("on", ["h", "x", "xh"])
@pytest.mark.parametrize("checkpoint", [None, 1, 2, "sqrt"])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_dropout_draws_the_bits_of_unroll(on, checkpoint, reverse, dtype):
    """A new mask at each step, the same in backward, and the generator left at the same place."""
    leaves = xs, h0, W = tuple(leaf(*shape, dtype=dtype) for shape in [(7, 3, 5), (3, 5), (5, 5)])

    def cell(x, h):
        x = F.dropout(x, 0.25) if "x" in on else x
        h = (x + (F.dropout(h, 0.5) if "h" in on else h) @ W).tanh()
        return h, h

    found, left_at = [], []
    for recurrence, options in ((scan, {"checkpoint": checkpoint}), (unroll, {})):
        torch.manual_seed(3)
        outputs = recurrence(cell, xs, h0, reverse=reverse, **options)
        found.append(derivatives(outputs, *leaves))
        left_at.append(torch.get_rng_state().tolist())
    assert_agree(*found)
    assert left_at[0] == left_at[1]


# The gradients derived by hand.


@pytest.mark.double_every(3)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RNN", {}),
        ("RNN", {"nonlinearity": "relu"}),
        ("LSTM", {}),
        ("LSTM", {"proj_size": SIZES["P"]}),
        ("GRU", {}),
    ],
)
def test_layers_against_the_derivation_by_hand(name, options, bidirectional):
    torch.manual_seed(0)
    layer = getattr(nn, name)(
        SIZES["D"], SIZES["H"], 2, bidirectional=bidirectional, mode="scan", **options
    )
    x = leaf(SIZES["T"], SIZES["B"], SIZES["D"]).detach()
    tables = []
    assert verify(layer, x, directions=1, report=tables.append), tables[0]
