"""unroll: outputs, order, forms of inputs and states, gradients, and what it refuses."""

from typing import NamedTuple

import numpy as np
import pytest

import tinygrad_rnn as torch
from tinygrad_rnn import nn
from tinygrad_rnn.autograd import gradcheck, gradgradcheck
from tinygrad_rnn.scan import unroll

pytestmark = pytest.mark.usefixtures("device")


def decay(x, h):
    """h' = h / 2 + x."""
    h = h * 0.5 + x
    return h, h


def test_values_by_hand():
    ys, h = unroll(decay, torch.tensor([1.0, 2.0, 3.0]), torch.tensor(8.0))
    assert ys.tolist() == [5.0, 4.5, 5.25]
    assert h.item() == 5.25


def test_reverse_walks_back_and_keeps_each_output_at_its_step():
    ys, h = unroll(decay, torch.tensor([1.0, 2.0, 3.0]), torch.tensor(8.0), reverse=True)
    assert ys.tolist() == [3.75, 5.5, 7.0]
    assert h.item() == 3.75


def test_output_and_state_may_differ():
    def cell(x, h):
        return x * h, h + x

    ys, h = unroll(cell, torch.tensor([1.0, 2.0, 3.0]), torch.tensor(1.0))
    assert ys.tolist() == [1.0, 4.0, 12.0]
    assert h.item() == 7.0


class Masked(NamedTuple):
    x: torch.Tensor
    mask: torch.Tensor


class Counts(NamedTuple):
    steps: torch.Tensor
    total: torch.Tensor


def test_tuples_of_inputs_outputs_and_states():
    """Every form survives: named tuples in xs, in ys and in the state, and tuples in tuples."""

    def cell(inputs, state):
        counts, last = state
        counts = Counts(counts.steps + inputs.mask, counts.total + inputs.x * inputs.mask)
        return (Counts(counts.steps, counts.total * 2), (last,)), (counts, inputs.x[:1])

    xs = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    masks = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    state = Counts(torch.zeros(2), torch.zeros(2)), torch.tensor([9.0])
    (ys, (lasts,)), (counts, last) = unroll(cell, Masked(xs, masks), state)
    assert type(ys) is Counts
    assert ys.steps.tolist() == [[1.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    assert ys.total.tolist() == [[2.0, 0.0], [2.0, 8.0], [12.0, 20.0]]
    assert lasts.tolist() == [[9.0], [1.0], [3.0]]
    assert type(counts) is Counts
    assert counts.steps.tolist() == [2.0, 2.0]
    assert counts.total.tolist() == [6.0, 10.0]
    assert last.tolist() == [5.0]


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_by_hand(reverse):
    """h_T = aᵀ h_0 + Σ aᵀ⁻ᵗ x_t, whose derivatives are known."""
    steps = 5
    a, h0 = torch.tensor(0.9, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
    xs = torch.tensor(np.arange(1.0, steps + 1))
    for leaf in (a, h0, xs):
        leaf.requires_grad_()
    _, h = unroll(lambda x, h: (h, a * h + x), xs, h0, reverse=reverse)
    h.backward()

    later = np.arange(steps) if reverse else np.arange(steps)[::-1]  # steps after step t
    values = np.arange(1.0, steps + 1)
    np.testing.assert_allclose(xs.grad.numpy(), 0.9**later, rtol=1e-14)
    np.testing.assert_allclose(h0.grad.item(), 0.9**steps, rtol=1e-14)
    expected = steps * 0.9 ** (steps - 1) * 2.0 + (later * 0.9 ** (later - 1.0) * values).sum()
    np.testing.assert_allclose(a.grad.item(), expected, rtol=1e-14)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [1, 4])
def test_first_and_second_order_gradients(steps, reverse):
    """A cell with two inputs, two states, and an output that is not the state."""
    draw = np.random.default_rng(1).standard_normal

    def leaf(*shape):
        return torch.tensor(draw(shape), requires_grad=True)

    W = leaf(3, 3)

    def cell(inputs, state):
        x, gate = inputs
        h, c = state
        c = c * gate.sigmoid() + x
        h = (h @ W + c).tanh()
        return (h * x, c), (h, c)

    def outputs(xs, gates, h, c):
        (ys, cs), (h_n, c_n) = unroll(cell, (xs, gates), (h, c), reverse=reverse)
        return ys, cs, h_n, c_n

    arguments = leaf(steps, 2, 3), leaf(steps, 2, 3), leaf(2, 3), leaf(2, 3)
    assert gradcheck(lambda *xs: outputs(*xs[:4]), (*arguments, W))
    assert gradgradcheck(lambda *xs: outputs(*xs[:4]), (*arguments, W), fast_mode=True)


def test_a_cell_may_branch_on_values():
    def collatz(x, n):
        n = n / 2 if n.item() % 2 == 0 else 3 * n + 1
        return n, n

    ys, _ = unroll(collatz, torch.zeros(7), torch.tensor(6.0))
    assert ys.tolist() == [3.0, 10.0, 5.0, 16.0, 8.0, 4.0, 2.0]


def test_the_inputs_are_cut_once():
    """One unstack for all steps: slices would each fill an array of the size of xs in backward."""
    xs = torch.ones(9, 2, requires_grad=True)
    ys, _ = unroll(decay, xs, torch.zeros(2))
    seen, waiting = {}, [ys.grad_fn]
    while waiting:
        node = waiting.pop()
        if hasattr(node, "next_functions") and id(node) not in seen:
            seen[id(node)] = node.primitive.name
            waiting += [source for source, _ in node.next_functions]
    names = list(seen.values())
    assert {name: names.count(name) for name in set(names)} == {
        "unstack": 1,
        "stack": 1,
        "add": 9,
        "multiply": 8,  # h_0 needs no gradient, so neither does h_0 / 2
    }


def test_a_long_sequence():
    xs = torch.zeros(20_000, requires_grad=True)
    _, h = unroll(lambda x, h: (h, h + x), xs, torch.tensor(1.0))
    h.backward()
    assert xs.grad.tolist() == [1.0] * 20_000


def test_nothing_is_recorded_under_no_grad():
    with torch.no_grad():
        ys, h = unroll(decay, torch.ones(3, requires_grad=True), torch.tensor(0.0))
    assert not ys.requires_grad
    assert not h.requires_grad


@pytest.mark.parametrize(
    ("cell", "error", "match"),
    [
        (lambda x, h: h, TypeError, r"returned \(2, 3\); expected a pair"),
        (lambda x, h: [h, h], TypeError, r"returned list; expected a pair"),
        (lambda x, h: (h, h, h), TypeError, r"expected a pair"),
        (lambda x, h: (h, None), ValueError, r"state of \(2, 3\) into one of NoneType"),
        (lambda x, h: (h, (h,)), ValueError, r"state of \(2, 3\) into one of \[\(2, 3\)\]"),
        (lambda x, h: (h, h[0]), ValueError, r"state of \(2, 3\) into one of \(3,\)"),
        (lambda x, h: (None, h), TypeError, "unroll: y: expected a Tensor .*, got NoneType"),
    ],
)
def test_cells_that_return_something_else(cell, error, match):
    with pytest.raises(error, match=match):
        unroll(cell, torch.ones(4, 2, 3), torch.zeros(2, 3))


def test_a_module_cell_returns_no_pair():
    """A batch of two, where `y, h = h'` would quietly split it into its rows."""
    with pytest.raises(TypeError, match="expected a pair"):
        unroll(nn.GRUCell(3, 5), torch.ones(4, 2, 3), torch.zeros(2, 5))
    with pytest.raises(ValueError, match="must keep the form"):
        unroll(nn.LSTMCell(3, 5), torch.ones(4, 2, 3), (torch.zeros(2, 5), torch.zeros(2, 5)))


@pytest.mark.parametrize(
    ("xs", "error", "match"),
    [
        (torch.zeros(0, 3), ValueError, r"no steps \(T = 0\)"),
        (torch.tensor(1.0), ValueError, "unroll: xs: .*first axis"),
        ((torch.zeros(3, 1), torch.zeros(4, 1)), ValueError, r"\[\(3, 1\), \(4, 1\)\]"),
        ((), ValueError, "unroll: xs: .*first axis"),
        (np.zeros((3, 1)), TypeError, "unroll: xs: .*got ndarray"),
        ([torch.zeros(3, 1)], TypeError, "unroll: xs: .*got list"),
    ],
)
def test_inputs_that_are_not_sequences(xs, error, match):
    with pytest.raises(error, match=match):
        unroll(decay, xs, torch.tensor(0.0))
