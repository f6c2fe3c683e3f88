"""Making tensors: shapes, dtypes, whose memory it is, and what is refused."""

import numpy as np
import pytest
from arrays import on_device, share_memory

import tinygrad_rnn as torch
from tinygrad_rnn.tensor import Tensor

pytestmark = pytest.mark.usefixtures("device")


def check(x, values, dtype):
    assert type(x) is Tensor
    assert x.tolist() == values
    assert x.dtype == dtype
    assert x.is_leaf
    assert not x.requires_grad
    assert x.device == torch.get_default_device()


# --- from data -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "values", "dtype"),
    [
        (3, 3, torch.int64),
        (2.5, 2.5, torch.float32),
        (True, True, torch.bool),
        ([1, 2], [1, 2], torch.int64),
        ([1, 2.5], [1, 2.5], torch.float32),
        ([True, False], [True, False], torch.bool),
        (((1, 2), (3, 4)), [[1, 2], [3, 4]], torch.int64),
        ([], [], torch.float32),
        ([[], []], [[], []], torch.float32),
        (np.arange(2), [0, 1], torch.int64),
        (np.ones(2), [1, 1], torch.float64),
        (np.ones(2, np.float32), [1, 1], torch.float32),
        (np.ones(2, np.int8), [1, 1], torch.int8),
        (np.float64(0.1), 0.1, torch.float64),
        (np.float32(0.5), 0.5, torch.float32),
    ],
)
def test_tensor(data, values, dtype):
    """Python's floats have no precision of their own and take the default; NumPy's keep theirs."""
    check(torch.tensor(data), values, dtype)
    check(torch.as_tensor(data), values, dtype)


def test_a_dtype_given_is_the_dtype_made():
    check(torch.tensor([1.7, 0], dtype=torch.int64), [1, 0], torch.int64)
    check(torch.tensor([2, 0], dtype=torch.bool), [True, False], torch.bool)
    check(torch.tensor(np.ones(2), dtype=torch.float16), [1, 1], torch.float16)
    check(torch.as_tensor(np.ones(2), dtype=torch.float32), [1, 1], torch.float32)


def test_the_constructor_takes_sizes_numbers_or_an_array_it_shares():
    check(torch.Tensor(2, 3), [[0, 0, 0]] * 2, torch.float32)
    check(torch.Tensor(2), [0, 0], torch.float32)
    check(torch.Tensor(), [], torch.float32)
    check(torch.Tensor([1, 2]), [1, 2], torch.float32)
    check(torch.Tensor(2.0), 2, torch.float32)
    check(torch.FloatTensor([1, 2]), [1, 2], torch.float32)
    check(torch.FloatTensor(on_device(np.ones(2))), [1, 1], torch.float32)
    check(torch.LongTensor(2, 1), [[0], [0]], torch.int64)
    check(torch.LongTensor([[1, 2]]), [[1, 2]], torch.int64)
    array = on_device(np.arange(2))
    assert torch.Tensor(array).array is array
    assert torch.Tensor(torch.Tensor(array)).array is array
    with pytest.raises(RuntimeError, match="negative size"):
        torch.Tensor(2, -1)
    with pytest.raises(TypeError, match="sizes one by one"):
        torch.Tensor(array, np.float32)


def test_variable_is_a_leaf_that_shares_the_values():
    x = torch.ones(2, requires_grad=True)
    assert torch.autograd.Variable(x * 2).is_leaf
    assert not torch.autograd.Variable(x).requires_grad
    assert torch.autograd.Variable(x, requires_grad=True).array is x.array


def test_tensor_copies_and_as_tensor_shares():
    array = on_device(np.zeros(3))
    copied, shared, same = torch.tensor(array), torch.as_tensor(array), torch.Tensor(array)
    array[0] = 1
    assert (copied[0].item(), shared[0].item(), same[0].item()) == (0, 1, 1)
    assert same.new_tensor(same).array is not array
    assert torch.as_tensor(shared) is shared
    assert torch.as_tensor(shared, dtype=torch.float32).dtype == torch.float32
    assert not share_memory(torch.tensor(shared), shared)


def test_a_tensor_of_tensors():
    assert torch.tensor([torch.tensor(1.0), torch.tensor(2.0)]).tolist() == [1, 2]
    x = torch.ones(2, requires_grad=True)
    assert not torch.tensor(x * 2).requires_grad


def test_requires_grad():
    assert torch.tensor([1.0], requires_grad=True).requires_grad
    assert torch.zeros(2, requires_grad=True).requires_grad
    assert torch.randn(2, requires_grad=True).is_leaf
    with pytest.raises(RuntimeError, match="only floating-point tensors"):
        torch.tensor([1], requires_grad=True)
    with pytest.raises(RuntimeError, match="only floating-point tensors"):
        torch.ones(2, dtype=torch.int64, requires_grad=True)


@pytest.mark.parametrize(
    ("data", "error"),
    [("a", TypeError), (None, TypeError), ([1j], TypeError), ([[1], [1, 2]], ValueError)],
)
def test_data_that_no_tensor_holds(data, error):
    with pytest.raises(error):
        torch.tensor(data)


def test_from_numpy_takes_arrays_only_and_leaves_them_on_the_host():
    array = np.zeros(3)
    assert torch.from_numpy(array).array is array
    with pytest.raises(TypeError, match=r"from_numpy: expected a numpy\.ndarray, got list"):
        torch.from_numpy([1.0])
    with pytest.raises(TypeError, match="cannot hold <U1 values"):
        torch.from_numpy(np.array(["a"]))


def test_is_tensor():
    assert torch.is_tensor(torch.ones(1))
    assert not torch.is_tensor(np.ones(1))


# --- filled --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [torch.zeros, torch.ones, torch.empty, torch.rand, torch.randn])
def test_sizes(make):
    for x in (
        make(2, 3),
        make((2, 3)),
        make([2, 3]),
        make(size=(2, 3)),
        make(torch.ones(2, 3).shape),
    ):
        assert x.shape == (2, 3)
        assert x.dtype == torch.float32
    assert make(()).shape == ()
    assert make(0).shape == (0,)
    assert make(2, 0, dtype=torch.float64).dtype == torch.float64
    with pytest.raises(RuntimeError, match=r"negative size: \(2, -1\)"):
        make(2, -1)
    with pytest.raises(TypeError):
        make(1.5)


def test_filled():
    check(torch.zeros(2), [0, 0], torch.float32)
    check(torch.ones(2, dtype=torch.int64), [1, 1], torch.int64)
    check(torch.full((2,), 3), [3, 3], torch.int64)
    check(torch.full((2,), 0.5), [0.5, 0.5], torch.float32)
    check(torch.full((), True), True, torch.bool)
    check(torch.full((2,), 3, dtype=torch.float64), [3, 3], torch.float64)
    check(torch.eye(2), [[1, 0], [0, 1]], torch.float32)
    check(torch.eye(1, 3), [[1, 0, 0]], torch.float32)
    with pytest.raises(RuntimeError, match="negative size"):
        torch.eye(-1)


def test_like_another():
    whole, double = torch.tensor([1, 2]), torch.ones(2, dtype=torch.float64)
    check(torch.zeros_like(whole), [0, 0], torch.int64)
    check(torch.ones_like(double), [1, 1], torch.float64)
    check(torch.ones_like(whole, dtype=torch.float32), [1, 1], torch.float32)
    check(torch.full_like(double, 2), [2, 2], torch.float64)
    check(torch.full_like(whole, 2.5), [2, 2], torch.int64)
    assert torch.empty_like(double).dtype == torch.float64
    assert torch.rand_like(double).dtype == torch.float64
    assert torch.randn_like(double, dtype=torch.float32).dtype == torch.float32
    assert torch.zeros_like(double, requires_grad=True).requires_grad


# --- counted -------------------------------------------------------------------------------------


def test_arange():
    check(torch.arange(3), [0, 1, 2], torch.int64)
    check(torch.arange(1, 4), [1, 2, 3], torch.int64)
    check(torch.arange(5, 0, -2), [5, 3, 1], torch.int64)
    check(torch.arange(0, 1, 0.25), [0, 0.25, 0.5, 0.75], torch.float32)
    check(torch.arange(3.0), [0, 1, 2], torch.float32)
    check(torch.arange(3, dtype=torch.float64), [0, 1, 2], torch.float64)
    check(torch.arange(start=1, end=3), [1, 2], torch.int64)
    check(torch.arange(end=2), [0, 1], torch.int64)
    check(torch.arange(torch.tensor(2)), [0, 1], torch.int64)
    check(torch.arange(2, 2), [], torch.int64)


@pytest.mark.parametrize("bounds", [(5, 0), (0, 5, -1), (0, 5, 0)])
def test_arange_that_never_arrives(bounds):
    with pytest.raises(RuntimeError, match=r"arange: from .* there is no way by steps of"):
        torch.arange(*bounds)


def test_linspace():
    check(torch.linspace(0, 1, 5), [0, 0.25, 0.5, 0.75, 1], torch.float32)
    check(torch.linspace(2, 3, 1), [2], torch.float32)
    check(torch.linspace(2, 3, 0), [], torch.float32)
    check(torch.linspace(1, -1, 3, dtype=torch.float64), [1, 0, -1], torch.float64)
    with pytest.raises(RuntimeError, match="negative size"):
        torch.linspace(0, 1, -1)


# --- defaults ------------------------------------------------------------------------------------


def test_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        made = [
            torch.tensor(1.0), torch.zeros(2), torch.full((2,), 0.5), torch.arange(0, 1, 0.5),
            torch.linspace(0, 1, 3), torch.eye(2), torch.rand(2), torch.randn(2),
            torch.tensor([1]) / 2, torch.where(torch.tensor([True]), 1.0, 0.0),
        ]  # fmt: skip
        assert {x.dtype for x in made} == {torch.float64}
        assert torch.get_default_dtype() == torch.float64
        assert torch.tensor(np.float32(1)).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.zeros(1).dtype == torch.float32
    with pytest.raises(TypeError, match="int64 is not a floating-point dtype"):
        torch.set_default_dtype(torch.int64)


def test_devices():
    assert torch.zeros(1, device="cpu").device == torch.device("cpu")
    assert torch.zeros(1, device=torch.device("cpu")).device.type == "cpu"
    with pytest.raises(RuntimeError, match="'tpu' is not a device; expected 'cpu', 'cuda'"):
        torch.zeros(1, device="tpu")
