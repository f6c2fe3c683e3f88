"""Sums of many rows on a GPU: the values, the same bits on every run, and when they are used.

Truth: NumPy's sums of the same numbers in float64.
"""

import numpy as np
import pytest
from arrays import host, on_device
from test_cuda_source import compiled_for, needs_nvrtc

import tinygrad_rnn as torch
from tinygrad_rnn.ops import summing
from tinygrad_rnn.ops.broadcasting import sum_to

pytestmark = pytest.mark.usefixtures("device")

TOLERANCES = {"float64": 1e-12, "float32": 3e-5, "float16": 2e-2}
SHAPES = [  # how many axes lead, and the shape
    (1, (512, 32)),
    (1, (513, 33)),
    (2, (40, 13, 130)),
    (2, (1500, 2, 64)),
    (3, (7, 30, 3, 5, 8)),
    (1, (9000, 40)),
]


@pytest.fixture
def kernels(monkeypatch):
    """The dtypes for which a kernel was asked."""
    asked, kernel = [], summing._kernel
    monkeypatch.setattr(
        summing, "_kernel", lambda xp, dtype: asked.append(str(dtype)) or kernel(xp, dtype)
    )
    return asked


def drawn(shape, dtype):
    return np.random.default_rng(len(shape)).normal(0.1, 1, shape).astype(dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("lead", "shape"), SHAPES, ids=str)
def test_sums(lead, shape, dtype, xp, kernels):
    x = drawn(shape, dtype)
    found = summing.sum_of_leading(xp, on_device(x), lead)
    assert (found.shape, found.dtype) == (shape[lead:], x.dtype)
    wanted = x.astype(np.float64).sum(axis=tuple(range(lead)))
    scale = np.abs(x.astype(np.float64)).sum(axis=tuple(range(lead)))
    assert (np.abs(host(found) - wanted) <= TOLERANCES[dtype] * scale).all()
    of_shares = "float64" if dtype == "float64" else "float32"
    assert kernels == ([] if xp is np else [dtype, of_shares])
    again = summing.sum_of_leading(xp, on_device(x), lead)
    assert host(again).tobytes() == host(found).tobytes()


@pytest.mark.parametrize(
    "x",
    [
        np.ones((511, 64), "float32"),  # few rows
        np.ones((4096, 31), "float32"),  # few columns
        np.ones((4096, 64), "int64"),
    ],
    ids=lambda x: f"{x.shape} {x.dtype}",
)
def test_where_little_is_gained_the_library_sums(x, xp, kernels):
    found = summing.sum_of_leading(xp, on_device(x), 1)
    np.testing.assert_array_equal(host(found), x.sum(0))
    assert not kernels


def test_what_lies_otherwise_is_summed_by_the_library(xp, kernels):
    x = drawn((64, 600), "float64")
    np.testing.assert_allclose(
        host(summing.sum_of_leading(xp, on_device(x).T, 1)), x.T.sum(0), rtol=1e-12
    )
    assert not kernels


def test_nan_and_inf_stay_in_their_column(xp):
    x = drawn((600, 40), "float32")
    x[17, 3], x[599, 5], x[0, 7] = np.nan, np.inf, -np.inf
    found = host(summing.sum_of_leading(xp, on_device(x), 1))
    assert np.isnan(found[3])
    assert (found[5], found[7]) == (np.inf, -np.inf)
    assert np.isfinite(np.delete(found, [3, 5, 7])).all()


def test_the_gradient_of_a_bias_is_such_a_sum(xp, kernels):
    x, b = torch.randn(30, 20, 48), torch.zeros(48, requires_grad=True)
    ((x + b) * x).sum().backward()
    np.testing.assert_allclose(host(b.grad), host(x).sum((0, 1)), atol=1e-4)
    assert bool(kernels) == (xp is not np)


def test_sum_to_is_the_sum_of_leading_axes(xp):
    x = drawn((600, 3, 40), "float64")
    found = sum_to.evaluate(xp, on_device(x), shape=(3, 40))
    np.testing.assert_allclose(host(found), x.sum(0), rtol=1e-10)


@needs_nvrtc
@pytest.mark.parametrize("kinds", [summing._PLAIN, summing._HALF], ids=["plain", "half"])
@pytest.mark.parametrize("value", ["float", "double"])
def test_the_kernel_compiles_for_a_gpu(value, kinds):
    compiled_for("sm_90", f"typedef {value} value;\n{kinds}{summing.SOURCE}")
