"""detect_anomaly: the first NaN or Inf is stopped where it is made, and the message says where.

Lines are found by a mark in this very file, so moving code does not break the tests.
"""

import re
import threading

import numpy as np
import pytest
from arrays import on_device

import tinygrad_rnn as tg
from tinygrad_rnn import autograd
from tinygrad_rnn.autograd import detect_anomaly, set_detect_anomaly

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # NumPy's, of divisions by zero
    pytest.mark.usefixtures("device"),
]


def line_of(mark):
    """The number of the line in this file that ends in the comment `mark`."""
    with open(__file__, encoding="utf-8") as file:
        return next(n for n, line in enumerate(file, 1) if line.endswith(f"# {mark}\n"))


def leaf(*values):
    return tg.tensor(values, requires_grad=True)


def message_of(call):
    with pytest.raises(RuntimeError) as caught:
        call()
    return str(caught.value)


# Forward.


def test_forward_names_operation_shapes_and_line():
    x = leaf(1.0, -1.0)
    with detect_anomaly():
        message = message_of(lambda: (x * 2).log().sum())  # mark: forward
    assert message.startswith("forward of log((2,) float32) made the first NaN")
    assert re.search(rf"test_anomaly\.py:{line_of('mark: forward')}: ", message)
    assert "(x * 2).log().sum()" in message


@pytest.mark.parametrize(
    ("operate", "operation", "kind"),
    [
        (lambda x: x / 0.0, r"divide\(\(2,\) float32, 0\.0\)", "Inf"),
        (lambda x: (x * 1000).exp(), r"exp\(\(2,\) float32\)", "Inf"),
        (lambda x: (x - 3).sqrt(), r"sqrt\(\(2,\) float32\)", "NaN"),
        (lambda x: (x * 0) / (x * 0), r"divide\(\(2,\) float32, \(2,\) float32\)", "NaN"),
        (lambda x: x * on_device(np.array([1.0, 3e38], np.float32)) * 10, r"multiply", "Inf"),
        (lambda x: tg.cat([x, x * 1e38 * 1e38]), r"multiply", "Inf"),
    ],
)
def test_forward_of_several_operations(operate, operation, kind):
    with detect_anomaly(), pytest.raises(RuntimeError, match=rf"{operation}.*the first {kind}"):
        operate(leaf(1.0, 2.0))


def test_forward_is_watched_without_gradients_too():
    with detect_anomaly(), tg.no_grad(), pytest.raises(RuntimeError, match="forward of log"):
        tg.tensor([-1.0]).log()


def test_line_inside_a_function_of_the_user():
    def deep(x):
        return x.log()  # mark: deep

    def outer(x):
        return deep(x - 5)

    with detect_anomaly():
        message = message_of(lambda: outer(leaf(1.0)))
    assert f"test_anomaly.py:{line_of('mark: deep')}: return x.log()" in message


def test_infinities_put_in_on_purpose_are_no_anomaly():
    """An attention mask of -inf, and what is made of it."""
    x = tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    mask = tg.tensor([[False, True], [False, False]])
    with detect_anomaly():
        scores = x.masked_fill(mask, -np.inf)
        filled = tg.where(mask, -float("inf"), x)
        (scores.softmax(-1) * x.detach()).sum().backward()
        assert filled.softmax(-1).tolist() == scores.softmax(-1).tolist()
    assert np.isfinite(x.grad.numpy()).all()


def test_nan_made_of_infinities_is_an_anomaly():
    x = leaf(float("inf"))
    with detect_anomaly(), pytest.raises(RuntimeError, match=r"subtract.*the first NaN"):
        _ = x - x


def test_nan_that_came_in_is_not_blamed_on_the_operations_that_pass_it_on():
    with detect_anomaly():
        y = leaf(float("nan"), 1.0) * 2 + 1
    assert np.isnan(y.tolist()[0])


# Backward.


def test_backward_names_operation_shapes_and_the_forward_line():
    x = leaf(0.0, 4.0)
    with detect_anomaly():
        y = x.sqrt()  # mark: backward
        loss = y.sum()
        message = message_of(loss.backward)
    assert message.startswith("backward of sqrt(")
    assert "made the first Inf" in message
    assert f"test_anomaly.py:{line_of('mark: backward')}: y = x.sqrt()" in message
    assert "(2,)" in message


def test_backward_nan():
    x = leaf(0.0)
    with detect_anomaly():
        message = message_of(((x * 0).abs().sqrt() * 0).backward)
    assert "backward of sqrt" in message
    assert "made the first NaN" in message


@pytest.mark.parametrize("create_graph", [False, True])
def test_backward_with_create_graph(create_graph):
    x = leaf(0.0, 4.0)
    with detect_anomaly():
        y = x.sqrt().sum()
        with pytest.raises(RuntimeError, match=r"sqrt|divide"):
            autograd.grad(y, x, create_graph=create_graph)


def test_a_forward_before_the_watch_is_still_named_without_its_line():
    x = leaf(0.0)
    y = x.sqrt().sum()
    with detect_anomaly():
        message = message_of(y.backward)
    assert message.startswith("backward of sqrt")
    assert "run the forward pass inside it too" in message


def test_backward_does_not_blame_what_only_passes_on():
    nan = float("nan")
    x, w = leaf(nan, 1.0), leaf(1.0, 1.0)
    with detect_anomaly():
        (x * w).sum().backward()  # dw = x, which is NaN already
    assert np.isnan(w.grad.tolist()[0])
    x = leaf(1.0, 2.0)
    with detect_anomaly():
        early, late = x * 2, x * 3
        # The cotangent of x is NaN from the later node on; the earlier one adds to it.
        autograd.backward([late, early], [tg.tensor([nan, 1.0]), tg.ones(2)])
    assert np.isnan(x.grad.tolist()[0])


def test_a_bad_function_is_named():
    class Faulty(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return tg.tensor(np.full(g.shape, np.nan, np.float32))

    with detect_anomaly(), pytest.raises(RuntimeError, match=r"backward of Faulty.*first NaN"):
        Faulty.apply(leaf(1.0, 2.0)).sum().backward()


def test_the_step_and_not_its_successors_is_blamed():
    """NaN is made in the middle of a recurrence; the message names that operation alone."""
    w = leaf(0.5)
    with detect_anomaly():
        h = leaf(1.0).detach()
        for step in range(6):
            h = (h * w).tanh()
            if step == 3:
                h = h + (h * 0).sqrt()  # mark: middle
        message = message_of(h.sum().backward)
    assert message.startswith("backward of sqrt")
    assert f":{line_of('mark: middle')}: " in message


# Switching on and off.


def test_nothing_is_watched_outside():
    x = leaf(-1.0, 0.0)
    y = x.log()
    y.sum().backward()
    assert not np.isfinite(x.grad.numpy()).all()
    with detect_anomaly(False):
        x.log()
    with detect_anomaly():
        with detect_anomaly(False):
            x.log()
        with pytest.raises(RuntimeError):
            x.log()
    x.log()


def test_set_detect_anomaly():
    x = leaf(-1.0)
    with set_detect_anomaly(True), pytest.raises(RuntimeError, match="forward of log"):
        x.log()
    x.log()
    set_detect_anomaly(True)
    with pytest.raises(RuntimeError), set_detect_anomaly(True):
        x.log()
    with pytest.raises(RuntimeError):
        x.log()
    set_detect_anomaly(False)
    x.log()


def test_it_ends_with_an_exception():
    with pytest.raises(RuntimeError), detect_anomaly():
        leaf(-1.0).log()
    leaf(-1.0).log()


def test_it_belongs_to_its_thread():
    results = []
    with detect_anomaly():
        thread = threading.Thread(target=lambda: results.append(leaf(-1.0).log()))
        thread.start()
        thread.join()
    assert len(results) == 1


def test_finite_training_is_not_disturbed():
    w = tg.tensor(np.random.default_rng(3).standard_normal((3, 3)), requires_grad=True)
    x = tg.ones(2, 3, dtype=tg.float64)

    def gradient():
        return autograd.grad(((x @ w).tanh() @ w).softmax(-1).square().sum(), w)[0].numpy()

    expected = gradient()
    with detect_anomaly():
        np.testing.assert_array_equal(gradient(), expected)
