"""nn.init: the distributions, the formulas for their widths, and errors."""

import math

import numpy as np
import pytest

import tinygrad_rnn as torch
from tinygrad_rnn import nn
from tinygrad_rnn.nn import init
from tinygrad_rnn.random import Generator

pytestmark = pytest.mark.usefixtures("device")


def _empty(*shape, dtype=np.float32):
    return torch.tensor(np.full(shape, np.nan, dtype))


@pytest.mark.parametrize(
    ("fill", "bound"),
    [
        (lambda w: init.uniform_(w, -0.2, 0.2), 0.2),
        (lambda w: init.xavier_uniform_(w, gain=2.0), 2 * math.sqrt(6 / (300 + 200))),
        (lambda w: init.kaiming_uniform_(w), math.sqrt(2) * math.sqrt(3 / 200)),
        (lambda w: init.kaiming_uniform_(w, a=1, mode="fan_out"), math.sqrt(3 / 300)),
        (
            lambda w: init.kaiming_uniform_(w, nonlinearity="tanh"),
            5 / 3 * math.sqrt(3 / 200),
        ),
    ],
)
def test_uniform_widths(fill, bound):
    w = _empty(300, 200)
    assert fill(w) is w
    values = w.numpy()
    assert np.abs(values).max() <= bound * (1 + 1e-6)
    assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert values.mean() == pytest.approx(0, abs=0.02 * bound)


@pytest.mark.parametrize(
    ("fill", "mean", "std"),
    [
        (lambda w: init.normal_(w, 1.5, 0.1), 1.5, 0.1),
        (lambda w: init.xavier_normal_(w), 0, math.sqrt(2 / (300 + 200))),
        (lambda w: init.kaiming_normal_(w, nonlinearity="relu"), 0, math.sqrt(2 / 200)),
        (
            lambda w: init.kaiming_normal_(w, 0.5, mode="fan_out"),
            0,
            math.sqrt(2 / 1.25 / 300),
        ),
    ],
)
def test_normal_widths(fill, mean, std):
    w = _empty(300, 200)
    assert fill(w) is w
    assert w.numpy().mean() == pytest.approx(mean, abs=0.02 * std)
    assert w.numpy().std() == pytest.approx(std, rel=0.02)


def test_fans_count_further_axes():
    w = _empty(20, 30, 5)
    init.xavier_uniform_(w)
    assert np.abs(w.numpy()).max() == pytest.approx(math.sqrt(6 / (20 * 5 + 30 * 5)), rel=0.01)


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 3, 2)])
def test_orthogonal(shape):
    w = _empty(*shape, dtype=np.float64)
    init.orthogonal_(w, gain=2.0)
    matrix = w.numpy().reshape(shape[0], -1) / 2
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-12)


def test_orthogonal_has_no_preferred_sign():
    """Without the choice of signs, QR gives matrices with diagonals of one sign."""
    signs = [np.sign(init.orthogonal_(_empty(1, 1)).item()) for _ in range(50)]
    assert {-1.0, 1.0} == set(signs)


def test_constants():
    assert init.constant_(_empty(2), 0.5).tolist() == [0.5, 0.5]
    assert init.ones_(_empty(2)).tolist() == [1, 1]
    assert init.zeros_(_empty(2)).tolist() == [0, 0]
    assert init.eye_(_empty(2, 3)).tolist() == [[1, 0, 0], [0, 1, 0]]


def test_parameters_are_filled_in_place_outside_the_graph():
    p = nn.Parameter(_empty(3, 3))
    array = p.array
    for fill in (init.normal_, init.zeros_, init.eye_, init.orthogonal_):
        fill(p)
        assert p.array is array
        assert p.is_leaf
        assert p.requires_grad


@pytest.mark.parametrize("fill", [init.uniform_, init.normal_, init.orthogonal_])
def test_generators(fill):
    a = fill(_empty(3, 3), generator=Generator(4)).tolist()
    assert a == fill(_empty(3, 3), generator=Generator(4)).tolist()
    assert a != fill(_empty(3, 3), generator=Generator(5)).tolist()
    torch.manual_seed(4)
    b = fill(_empty(3, 3)).tolist()
    torch.manual_seed(4)
    fill(_empty(3, 3), generator=Generator(9))  # leaves the default generator alone
    assert b == fill(_empty(3, 3)).tolist()


def test_errors():
    with pytest.raises(ValueError, match="2 or more dimensions"):
        init.orthogonal_(_empty(3))
    with pytest.raises(ValueError, match="Fan in and fan out"):
        init.xavier_normal_(_empty(3))
    with pytest.raises(ValueError, match="2 dimensions are supported, got 3"):
        init.eye_(_empty(3, 2, 1))
    with pytest.raises(ValueError, match="Mode fan_avg not supported"):
        init.kaiming_normal_(_empty(3, 3), mode="fan_avg")
    with pytest.raises(ValueError, match="Unsupported nonlinearity softplus"):
        init.calculate_gain("softplus")
    with pytest.raises(ValueError, match="negative_slope True not a valid number"):
        init.calculate_gain("leaky_relu", True)
