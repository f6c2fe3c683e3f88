"""Attention against PyTorch: its own scaled dot product, and the other scores written in it."""

import numpy as np
import pytest

import tinygrad_rnn
from tinygrad_rnn.nn.attention import AdditiveAttention, DotProductAttention, GeneralAttention

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("device")

B, T, S, Q, K, V, H = 3, 4, 6, 5, 7, 2, 8
TOLERANCES = {"float64": 1e-12, "float32": 1e-5}


def additive(q, k, weights):
    W, U, v = weights
    return torch.tanh((q @ W.T)[:, :, None] + (k @ U.T)[:, None]) @ v


def general(q, k, weights):
    return torch.einsum("btq,qk,bsk->bts", q, weights[0], k)


KINDS = {
    "additive": (lambda dtype: AdditiveAttention(Q, K, H, dtype=dtype), additive, K),
    "dot": (lambda dtype: DotProductAttention(), lambda q, k, _: q @ k.mT, Q),
    "scaled": (lambda dtype: DotProductAttention(scale=True), None, Q),
    "general": (lambda dtype: GeneralAttention(Q, K, dtype=dtype), general, K),
}


def values(*shape, dtype="float64", seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(kind, masked, dtype):
    build, score, size = KINDS[kind]
    attention = build(dtype)
    arrays = [values(*shape, dtype=dtype) for shape in [(B, T, Q), (B, S, size), (B, S, V)]]
    mask = np.arange(S) < np.array([4, S, 1])[:, None] if masked else np.ones((B, S), bool)

    ours = [tinygrad_rnn.tensor(x, requires_grad=True) for x in arrays]
    own_mask = tinygrad_rnn.tensor(mask) if masked else None
    context, weights = attention(*ours, own_mask)
    own_leaves = [*ours, *attention.parameters()]
    own = tinygrad_rnn.autograd.grad((context * context).sum(), own_leaves)

    theirs = [torch.tensor(x, requires_grad=True) for x in arrays]
    given = [torch.tensor(w.detach().numpy(), requires_grad=True) for w in attention.parameters()]
    query, keys, vectors = theirs
    allowed = torch.tensor(mask)[:, None]
    if score is None:
        expected = torch.nn.functional.scaled_dot_product_attention(
            query, keys, vectors, attn_mask=allowed
        )
    else:
        e = score(query, keys, given).masked_fill(~allowed, -torch.inf)
        expected_weights = e.softmax(-1)
        np.testing.assert_allclose(
            weights.detach().numpy(), expected_weights.detach().numpy(), atol=TOLERANCES[dtype]
        )
        expected = expected_weights @ vectors
    truth = torch.autograd.grad((expected * expected).sum(), [*theirs, *given])
    for y, t in zip([context, *own], [expected, *truth], strict=True):
        assert y.dtype == np.dtype(dtype)
        np.testing.assert_allclose(
            y.detach().numpy(), t.detach().numpy(), rtol=0, atol=TOLERANCES[dtype]
        )
