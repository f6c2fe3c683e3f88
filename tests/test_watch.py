"""Watches: who looks at every operation sees each once, in order, in its own thread only."""

import threading

import numpy as np
import pytest
from arrays import host

import tinygrad_rnn as torch
from tinygrad_rnn.modes import Watch, current

pytestmark = pytest.mark.usefixtures("device")


class Diary(Watch):
    """Writes down what it sees."""

    def __init__(self):
        self.lines = []

    def before(self, primitive, operands):
        self.lines.append(f"before {primitive.name}")

    def after(self, primitive, operands, params, made):
        self.lines.append(f"after {primitive.name}")

    def recorded(self, node):
        self.lines.append(f"recorded {node.primitive.name}")

    def pulling(self, turn):
        self.lines.append(f"pull {turn.node.primitive.name}")
        yield
        self.lines.append(f"pulled {[g.shape for g in turn.pulled()]}")


def test_a_watch_sees_forward_and_backward_in_order():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    with Diary() as diary:
        (x.detach() * 2).sum()
        x.exp().sum().backward()
        torch.tensor(3.0) + 1
    x.exp()
    assert diary.lines == [
        *("before multiply", "after multiply", "before sum", "after sum"),
        *("before exp", "recorded exp", "after exp", "before sum", "recorded sum", "after sum"),
        *("pull sum", "pulled [(2,)]", "pull exp", "pulled [(2,)]"),
        *("before add", "after add"),
    ]


def test_two_watches_see_the_same_and_the_inner_one_ends_first():
    x = torch.tensor([1.0], requires_grad=True)
    with Diary() as outer:
        x.exp()
        with Diary() as inner:
            x.sin().backward()
        x.cos()
    assert inner.lines == ["before sin", "recorded sin", "after sin", "pull sin", "pulled [(1,)]"]
    assert outer.lines[-1] == "after cos"
    assert [line for line in outer.lines if "exp" not in line and "cos" not in line] == inner.lines
    assert current.watches == ()


def test_a_failed_operation_has_no_after_and_a_watch_ends_with_an_exception():
    with pytest.raises(RuntimeError, match="broadcast"), Diary() as diary:
        torch.ones(2) + torch.ones(3)
    assert diary.lines == ["before add"]
    assert current.watches == ()


def test_operands_that_must_be_converted_are_seen_once_converted():
    with Diary() as diary:
        torch.ones(2, requires_grad=True) + torch.ones(2, dtype=torch.float64)
    assert [line for line in diary.lines if "recorded" not in line] == [
        *("before add", "before cast", "after cast", "before add", "after add")
    ]


def test_a_weight_used_twice_shows_its_whole_cotangent():
    """Products of matrices are collected and not yet computed when a watch looks."""
    rng = np.random.default_rng(0)
    W = torch.tensor(rng.standard_normal((3, 3)), requires_grad=True)
    seen = []

    class Last(Watch):
        def pulling(self, turn):
            yield
            seen.append(turn.pulled()[-1])

    with Last():
        ((torch.tensor(rng.standard_normal((2, 3))) @ W).tanh() @ W).sum().backward()
    np.testing.assert_allclose(host(seen[-1]), host(W.grad))


def test_a_function_is_recorded_too():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    with Diary() as diary:
        Double.apply(torch.tensor([1.0], requires_grad=True)).backward()
    assert diary.lines == [
        *("before multiply", "after multiply", "recorded Double"),
        *("pull Double", "before multiply", "after multiply", "pulled [(1,)]"),
    ]


def test_a_watch_belongs_to_its_thread():
    with Diary() as diary:
        thread = threading.Thread(target=lambda: torch.ones(2).exp())
        thread.start()
        thread.join()
    assert diary.lines == []
