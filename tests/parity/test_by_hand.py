"""The equations of by_hand against PyTorch's layers: outputs and every gradient, in float64."""

import itertools

import numpy as np
import pytest

from tinygrad_rnn.by_hand import stacked
from tinygrad_rnn.by_hand.cross_entropy import cross_entropy, cross_entropy_vjp
from tinygrad_rnn.by_hand.gru import GRU
from tinygrad_rnn.by_hand.lstm import LSTM
from tinygrad_rnn.by_hand.rnn import RNN

torch = pytest.importorskip("torch")

LAYERS = {
    "RNN tanh": (RNN("tanh"), "RNN", {}),
    "RNN relu": (RNN("relu"), "RNN", {"nonlinearity": "relu"}),
    "LSTM": (LSTM(), "LSTM", {}),
    "LSTM proj": (LSTM(), "LSTM", {"proj_size": 3}),
    "GRU": (GRU(), "GRU", {}),
}
T, B, D, H = 7, 3, 5, 4


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_layer(name, num_layers, bidirectional, bias):
    cell, kind, options = LAYERS[name]
    torch.manual_seed(0)
    layer = getattr(torch.nn, kind)(
        D, H, num_layers, bias=bias, bidirectional=bidirectional, dtype=torch.float64, **options
    )
    rows, out = num_layers * (1 + bidirectional), options.get("proj_size", H)
    widths = {"h": out, "c": H}
    x = torch.randn(T, B, D, dtype=torch.float64, requires_grad=True)
    state = [
        torch.randn(rows, B, widths[s], dtype=torch.float64, requires_grad=True)
        for s in cell.states
    ]
    output, final = layer(x, tuple(state) if kind == "LSTM" else state[0])
    outputs = [output, *(final if kind == "LSTM" else [final])]
    cotangents = [torch.randn_like(y) for y in outputs]
    torch.autograd.backward(outputs, cotangents)

    parameters = {name: p.detach().numpy() for name, p in layer.named_parameters()}
    ours, state_n, saved = stacked.forward(
        cell, parameters, x.detach().numpy(), tuple(s.detach().numpy() for s in state)
    )
    for y, expected in zip((ours, *state_n), outputs, strict=True):
        np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-11, atol=1e-12)
    dy, *dstate_n = (g.numpy() for g in cotangents)
    gradients, dx, dstate = stacked.backward(cell, parameters, saved, dy, tuple(dstate_n))
    leaves = [*(p for _, p in layer.named_parameters()), x, *state]
    found = itertools.chain(gradients.values(), [dx], dstate)
    for gradient, leaf in zip(found, leaves, strict=True):
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-10, atol=1e-11)


def test_cross_entropy():
    logits = torch.randn(7, 11, dtype=torch.float64, requires_grad=True)
    target = torch.randint(11, (7,))
    expected = torch.nn.functional.cross_entropy(logits, target)
    expected.backward()
    arrays = logits.detach().numpy(), target.numpy()
    np.testing.assert_allclose(cross_entropy(*arrays), expected.item(), rtol=1e-13)
    np.testing.assert_allclose(cross_entropy_vjp(*arrays), logits.grad.numpy(), atol=1e-15)
