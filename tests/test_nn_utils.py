"""nn.utils: clipping by norm and value, parameters as a vector, padded sequences."""

import math
import warnings

import numpy as np
import pytest

import tinygrad_rnn as torch
from tinygrad_rnn import nn
from tinygrad_rnn.nn.utils import (
    clip_grad_norm_,
    clip_grad_value_,
    get_total_norm,
    parameters_to_vector,
    vector_to_parameters,
)
from tinygrad_rnn.nn.utils.rnn import pad_sequence, unpad_sequence

pytestmark = pytest.mark.usefixtures("device")


def _with_gradient(*gradient):
    p = nn.Parameter(torch.tensor(np.zeros(len(gradient))))
    p.grad = torch.tensor(np.array(gradient))
    return p


def test_clip_grad_norm_by_hand():
    a, b = _with_gradient(3.0), _with_gradient(0.0, 4.0)
    untouched = nn.Parameter(torch.tensor(np.zeros(2)))
    norm = clip_grad_norm_([a, b, untouched], 1.0)
    assert norm.item() == 5
    assert norm.shape == ()
    np.testing.assert_allclose(a.grad.numpy(), [0.6], rtol=1e-6)
    np.testing.assert_allclose(b.grad.numpy(), [0, 0.8], rtol=1e-6)
    assert untouched.grad is None


def test_gradients_are_clipped_where_they_are_and_not_on_the_default_device():
    p = _with_gradient(3.0, 4.0)
    here = nn.Parameter(p.detach().cpu())
    here.grad = p.grad.cpu()
    norm = clip_grad_norm_(here, 1.0)
    assert norm.device == here.grad.device == "cpu"
    np.testing.assert_allclose(here.grad.numpy(), [0.6, 0.8], rtol=1e-6)


def test_clip_grad_norm_leaves_short_gradients_alone():
    a = _with_gradient(0.3, 0.4)
    gradient = a.grad
    assert clip_grad_norm_(a, 1.0).item() == pytest.approx(0.5)
    assert a.grad is gradient
    np.testing.assert_array_equal(a.grad.numpy(), [0.3, 0.4])


@pytest.mark.parametrize(("p", "norm"), [(1, 7.0), (2, 5.0), (3, 91 ** (1 / 3)), (math.inf, 4.0)])
def test_norms(p, norm):
    parts = [torch.tensor(np.array([3.0])), torch.tensor(np.array([[0.0], [-4.0]]))]
    assert get_total_norm(parts, p).item() == pytest.approx(norm, rel=1e-12)


def test_float32_gradients_stay_float32():
    a = _with_gradient(3.0, 4.0)
    a.data, a.grad = a.data.float(), a.grad.float()
    assert clip_grad_norm_([a], 1.0).dtype == np.float32
    assert a.grad.dtype == np.float32


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_norms(bad):
    a = _with_gradient(bad, 1.0)
    with pytest.raises(RuntimeError, match=r"order 2.0 .* non-finite.*error_if_nonfinite=False"):
        clip_grad_norm_([a], 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(a.grad.numpy(), [bad, 1.0])
    assert not math.isfinite(clip_grad_norm_([a], 1.0).item())
    assert a.grad.isnan().any().item()


def test_clipping_nothing():
    assert clip_grad_norm_([], 1.0).item() == 0
    with pytest.warns(UserWarning, match="empty generator"):
        clip_grad_norm_((p for p in ()), 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clip_grad_norm_(nn.Linear(2, 1).parameters(), 1.0).item() == 0


def test_clip_grad_value():
    a = _with_gradient(-3.0, 0.5, 2.0)
    clip_grad_value_([a, nn.Parameter(torch.tensor(np.zeros(1)))], 1.0)
    np.testing.assert_array_equal(a.grad.numpy(), [-1, 0.5, 1])


def test_parameters_as_a_vector_and_back():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).double()
    vector = parameters_to_vector(net.parameters())
    assert vector.shape == (2 * 3 + 3 + 3 + 1,)
    (vector * vector).sum().backward()
    for p in net.parameters():
        np.testing.assert_allclose(p.grad.numpy(), 2 * p.detach().numpy())
    arrays = [p.array for p in net.parameters()]
    vector_to_parameters(vector.detach() + 1, net.parameters())
    np.testing.assert_array_equal(
        parameters_to_vector(net.parameters()).detach().numpy(), vector.detach().numpy() + 1
    )
    assert all(p.array is a for p, a in zip(net.parameters(), arrays, strict=True))


def test_vector_errors():
    with pytest.raises(ValueError, match="at least one parameter"):
        parameters_to_vector([])
    with pytest.raises(TypeError, match="expected a Tensor, got int"):
        vector_to_parameters(3, [])
    with pytest.raises(ValueError, match="the vector has 3 values, the parameters have 2"):
        vector_to_parameters(torch.tensor(np.zeros(3)), [_with_gradient(1.0, 1.0)])


def test_pad_and_unpad_by_hand():
    a, b = torch.tensor(np.array([1.0, 2.0])), torch.tensor(np.array([3.0]))
    assert pad_sequence([a, b]).tolist() == [[1, 3], [2, 0]]
    assert pad_sequence([a, b], batch_first=True, padding_value=-1).tolist() == [[1, 2], [3, -1]]
    assert pad_sequence([a, b], True, 0.0, "left").tolist() == [[1, 2], [0, 3]]
    back = unpad_sequence(pad_sequence([a, b]), [2, 1])
    assert [sequence.tolist() for sequence in back] == [[1, 2], [3]]


def test_padding_errors():
    with pytest.raises(RuntimeError, match="iterable"):
        pad_sequence(3)
    with pytest.raises(RuntimeError, match="empty list"):
        pad_sequence([])
    with pytest.raises(RuntimeError, match="one of left or right, but got up"):
        pad_sequence([torch.tensor(np.zeros(2))], padding_side="up")
    with pytest.raises(RuntimeError, match=r"sequence 1 has shape \(3, 4\).*\(2, 3\)"):
        pad_sequence([torch.tensor(np.zeros((2, 3))), torch.tensor(np.zeros((3, 4)))])
    with pytest.raises(ValueError, match="3 lengths for a batch of 2"):
        unpad_sequence(torch.tensor(np.zeros((4, 2))), [1, 2, 3])
