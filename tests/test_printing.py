"""How tensors are printed, and what set_printoptions changes."""

import pytest

import tinygrad_rnn as torch


@pytest.fixture(autouse=True)
def defaults():
    yield
    torch.set_printoptions(profile="default")


def test_options():
    x = torch.tensor([1 / 3, 1e-6])
    assert repr(x) == "tensor([3.3333e-01, 1.0000e-06])"
    torch.set_printoptions(precision=2)
    assert repr(x) == "tensor([3.33e-01, 1.00e-06])"
    torch.set_printoptions(sci_mode=False)
    assert repr(x) == "tensor([0.33, 0.  ])"
    torch.set_printoptions(profile="default")
    assert repr(x) == "tensor([3.3333e-01, 1.0000e-06])"


def test_long_tensors():
    assert repr(torch.arange(1001)) == "tensor([   0,    1,    2, ...,  998,  999, 1000])"
    torch.set_printoptions(edgeitems=1)
    assert repr(torch.arange(1001)) == "tensor([   0, ..., 1000])"
    torch.set_printoptions(profile="full")
    assert repr(torch.arange(1001)).count(",") == 1000
    torch.set_printoptions(threshold=4, edgeitems=1, linewidth=26)
    assert repr(torch.zeros(2, 3)) == "tensor([[0., ..., 0.],\n        [0., ..., 0.]])"


def test_refused():
    with pytest.raises(ValueError, match="default, short, full, not long"):
        torch.set_printoptions(profile="long")
    with pytest.raises(NotImplementedError, match="sci_mode"):
        torch.set_printoptions(sci_mode=True)
