"""How tensors are printed, and what set_printoptions changes."""

import pytest

import tinygrad_rnn as torch

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture(autouse=True)
def defaults():
    yield
    torch.set_printoptions(profile="default")


def text(x):
    """repr(x) without the device."""
    return repr(x).replace(", device='cuda:0'", "")


def test_the_device_is_told_unless_it_is_the_host(device):
    where = "" if device == "cpu" else ", device='cuda:0'"
    assert repr(torch.zeros(1)) == f"tensor([0.]{where})"


def test_options():
    x = torch.tensor([1 / 3, 1e-6])
    assert text(x) == "tensor([3.3333e-01, 1.0000e-06])"
    torch.set_printoptions(precision=2)
    assert text(x) == "tensor([3.33e-01, 1.00e-06])"
    torch.set_printoptions(sci_mode=False)
    assert text(x) == "tensor([0.33, 0.  ])"
    torch.set_printoptions(profile="default")
    assert text(x) == "tensor([3.3333e-01, 1.0000e-06])"


def test_long_tensors():
    assert text(torch.arange(1001)) == "tensor([   0,    1,    2, ...,  998,  999, 1000])"
    torch.set_printoptions(edgeitems=1)
    assert text(torch.arange(1001)) == "tensor([   0, ..., 1000])"
    torch.set_printoptions(profile="full")
    assert text(torch.arange(1001)).count(",") == 1000
    torch.set_printoptions(threshold=4, edgeitems=1, linewidth=26)
    assert text(torch.zeros(2, 3)) == "tensor([[0., ..., 0.],\n        [0., ..., 0.]])"


def test_refused():
    with pytest.raises(ValueError, match="default, short, full, not long"):
        torch.set_printoptions(profile="long")
    with pytest.raises(NotImplementedError, match="sci_mode"):
        torch.set_printoptions(sci_mode=True)
