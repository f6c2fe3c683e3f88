"""Sums at repeated positions come out the same on every run; what lies outside cannot pass unseen.

Truth: `np.add.at`, which adds one value after the other. (test_ops.py has values and gradients of
the operations that add.)
"""

import math

import numpy as np
import pytest
from arrays import host, on_device
from test_cuda_source import compiled_for, needs_nvrtc

import tinygrad_rnn as torch
from tinygrad_rnn import ops
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.ops.adding import SOURCE, add_in_order

pytestmark = pytest.mark.usefixtures("device")

SHAPES = [((7, 3), 100), ((1, 5), 40), ((50,), 1000), ((4, 2, 3), 30), ((300, 2), 5), ((3, 2), 0)]


@pytest.fixture
def on_a_gpu(xp):
    return xp is not np


# --- sums ----------------------------------------------------------------------------------------


def call(shape, count, dtype, seed=0):
    """(y, places, x) with values that do not add up the same in another order."""
    rng = np.random.default_rng(seed)
    y, x = (
        rng.normal(size=shape),
        rng.normal(size=(count, *shape[1:])) * 10.0 ** rng.integers(-3, 4),
    )
    if np.dtype(dtype).kind != "f":
        y, x = rng.integers(0, 2, y.shape), rng.integers(0, 2, x.shape)
    return y.astype(dtype), rng.integers(0, shape[0], count), x.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_])
@pytest.mark.parametrize(("shape", "count"), SHAPES)
def test_one_value_after_the_other(shape, count, dtype, xp, on_a_gpu):
    if not on_a_gpu:
        pytest.skip("NumPy's own add.at is the truth here")
    for seed in range(3):
        y, places, x = call(shape, count, dtype, seed)
        found = on_device(y)
        add_in_order(xp, found, *on_device([places, x]))
        np.add.at(y, places, x)
        assert host(found).tobytes() == y.tobytes()


@needs_nvrtc
@pytest.mark.parametrize("value", ["float", "double", "long long"])
def test_the_kernel_compiles_for_a_gpu(value):
    compiled_for("sm_90", f"typedef {value} value;\n{SOURCE}")


def test_float16_is_rounded_once(xp, on_a_gpu):
    if not on_a_gpu:
        pytest.skip("NumPy rounds after every addition")
    y, places, x = call((3, 4), 500, np.float16)
    found = on_device(y)
    add_in_order(xp, found, *on_device([places, x]))
    exact = y.astype(np.float64)
    np.add.at(exact, places, x.astype(np.float64))
    np.testing.assert_allclose(host(found), exact, rtol=2**-10)


def test_places_outside_are_left_out(xp, on_a_gpu):
    if not on_a_gpu:
        pytest.skip("NumPy raises an IndexError")
    y = on_device(np.zeros((3, 2), np.float32))
    places, x = np.array([2, -1, 3, 0, 2, 10**12]), np.ones((6, 2), np.float32)
    add_in_order(xp, y, *on_device([places, x]))
    assert host(y).tolist() == [[1, 1], [0, 0], [2, 2]]


INDICES = {
    "rows": np.array([[3, 0, 3], [-1, 3, 3]]),
    "a row": np.array(2),
    "in a tuple": (np.array([1, 1, -4, 1]),),
    "of two axes": (np.array([0, 0, -1, 0]), np.array([[2], [2], [-3]])),
    "behind": (slice(None), np.array([1, 1, 0, -1])),
    "around": (np.array([1, 1, 1]), slice(1, None), np.array([0, 0, 1])),
    "after all": (..., np.array([1, 1, 1])),
    "with a new axis": (None, np.array([2, 2])),
    "with a mask": (np.array([True, False, False, True]), np.array([1, 1])),
    "none": np.zeros(0, np.int64),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", INDICES)
def test_gradients_of_reading_are_numpys_sums(name, dtype):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 3, 2)).astype(dtype)
    g = rng.normal(size=x[INDICES[name]].shape).astype(dtype)
    expected = np.zeros_like(x)
    np.add.at(expected, INDICES[name], g)
    index = on_device(INDICES[name])
    runs = [host(ops.place(on_device(g), shape=x.shape, index=index)) for _ in range(2)]
    assert runs[0].tobytes() == runs[1].tobytes() == expected.tobytes()
    t = torch.tensor(x, requires_grad=True)
    t[index].backward(torch.tensor(g))
    np.testing.assert_array_equal(t.grad.numpy(), expected)


def test_rows_with_nan_do_not_spoil_others():
    x = np.array([[1.0], [math.nan], [2.0], [4.0]], np.float32)
    y = host(ops.add_rows(*on_device([x, np.array([0, 1, 2, 2])]), rows=4))
    np.testing.assert_array_equal(y, [[1], [math.nan], [6], [0]])


def test_a_small_value_is_not_lost_beside_a_large_one():
    """As it would be in the difference of two running sums."""
    x = np.array([[1e8], [1.0]], np.float32)
    assert host(ops.add_rows(*on_device([x, np.array([0, 1])]), rows=2)).tolist() == [[1e8], [1]]


# --- outside -------------------------------------------------------------------------------------

TABLE = np.arange(12.0).reshape(4, 3)


def wrong(*values):
    return torch.tensor(list(values))


# name -> (what is read of or done to a table of 4 rows, the rows that show it; None for all).
OUTSIDE = {
    "embedding": (lambda x: F.embedding(wrong(1, 4), x), [1]),
    "embedding below 0": (lambda x: F.embedding(wrong(-1, 1), x), [0]),
    "embedding far away": (lambda x: F.embedding(wrong(2**40, 1), x), [0]),
    "embedding in int32": (lambda x: F.embedding(wrong(1, 9).int(), x), [1]),
    "embedding in uint8": (lambda x: F.embedding(wrong(1, 200).to(torch.uint8), x), [1]),
    "index_select": (lambda x: x.index_select(0, wrong(0, 4)), [1]),
    "index_select below 0": (lambda x: x.index_select(0, wrong(-1, 0)), [0]),
    "gather": (lambda x: x.gather(0, torch.tensor([[0], [4]])), [1]),
    "gather below 0": (lambda x: x.gather(0, torch.tensor([[-1], [0]])), [0]),
    "getitem": (lambda x: x[wrong(0, 4)], None),
    "getitem from the end": (lambda x: x[wrong(0, -5)], None),
    "getitem of two axes": (lambda x: x[wrong(0, 1), wrong(0, 3)], None),
    "getitem behind": (lambda x: x[..., wrong(-4)], None),
    "scatter_add": (lambda x: x.scatter_add(0, wrong(4, 4, 4).reshape(1, 3), x[:1]), None),
    "assignment": (lambda x: _assigned(x, wrong(0, 4)), None),
}  # fmt: skip


def _assigned(x, index):
    y = x.detach().clone()
    y[index] = 1.0
    return y


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_lies_outside(name, on_a_gpu):
    """An error at once; a GPU is not waited for, and gives NaN."""
    read, rows = OUTSIDE[name]
    x = torch.tensor(TABLE, requires_grad=True)
    if not on_a_gpu:
        with pytest.raises((IndexError, RuntimeError), match=r"out of|outside|do not fit"):
            read(x)
        return
    y = read(x)
    found = np.isnan(y.detach().numpy()).reshape(len(y), -1)
    expected = np.ones(len(y), bool) if rows is None else np.isin(np.arange(len(y)), rows)
    np.testing.assert_array_equal(found.all(1), expected)
    np.testing.assert_array_equal(found.any(1), expected)
    if y.requires_grad:  # nothing is written where it does not belong
        y.sum().backward()


@pytest.mark.parametrize("name", ["index_select", "gather", "getitem", "assignment"])
def test_integers_outside(name):
    """Integers have no NaN, so here a GPU is waited for."""
    with pytest.raises((IndexError, RuntimeError), match=r"out of|outside|do not fit"):
        OUTSIDE[name][0](torch.tensor(TABLE.astype(np.int64)))


def test_a_wrong_index_is_found_by_detect_anomaly(on_a_gpu):
    with torch.autograd.detect_anomaly(), pytest.raises((IndexError, RuntimeError)) as found:
        OUTSIDE["embedding"][0](torch.tensor(TABLE, requires_grad=True))
    if on_a_gpu:
        assert "forward of take" in str(found.value)
        assert "test_adding.py:" in str(found.value)
