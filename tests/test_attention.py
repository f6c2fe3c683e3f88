"""Attention: against loops over NumPy's formulas, masks, gradients, and inside a scan."""

import math

import numpy as np
import pytest
from arrays import host

import tinygrad_rnn as torch
from tinygrad_rnn.autograd import gradcheck, gradgradcheck
from tinygrad_rnn.nn.attention import (
    AdditiveAttention,
    Attention,
    DotProductAttention,
    GeneralAttention,
    Projected,
)
from tinygrad_rnn.nn.recurrent import equations
from tinygrad_rnn.scan import scan, unroll
from tinygrad_rnn.scan.scan import trace_step

pytestmark = pytest.mark.usefixtures("device")

B, T, S, Q, K, V, H = 3, 4, 6, 5, 7, 2, 8


def drawn(*shape, seed=0, dtype="float64"):
    values = np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)
    return torch.tensor(values, requires_grad=True)


def additive(q, k, attention):
    W, U, v = (weight.detach().numpy() for weight in (attention.W, attention.U, attention.v))
    return v @ np.tanh(W @ q + U @ k)


def general(q, k, attention):
    return q @ attention.W.detach().numpy() @ k


#: name -> (the module, its score of one query and one key in NumPy, the size of keys)
KINDS = {
    "additive": (lambda **kw: AdditiveAttention(Q, K, H, **kw), additive, K),
    "dot": (lambda **kw: DotProductAttention(), lambda q, k, _: q @ k, Q),
    "scaled": (lambda **kw: DotProductAttention(scale=True), lambda q, k, _: q @ k / Q**0.5, Q),
    "general": (lambda **kw: GeneralAttention(Q, K, **kw), general, K),
    "general, scaled": (
        lambda **kw: GeneralAttention(Q, K, scale=True, **kw),
        lambda q, k, attention: general(q, k, attention) / math.sqrt(Q),
        K,
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def made(kind, dtype="float64"):
    """A module, and keys for it."""
    torch.manual_seed(len(kind))
    build, _, size = KINDS[kind]
    return build(dtype=dtype), drawn(B, S, size, dtype=dtype)


def a_mask(*unmasked):
    """Rows with so many positions, not the first ones, that may be attended to."""
    rows = np.zeros((len(unmasked), S), bool)
    for row, count in zip(rows, unmasked, strict=True):
        row[np.random.default_rng(count).permutation(S)[:count]] = True
    return torch.tensor(rows)


def in_loops(kind, attention, query, keys, values, mask):
    """(context, weights) of queries (B, T, Q), position by position."""
    score = KINDS[kind][1]
    weights = np.zeros((B, query.shape[1], S))
    for b, t in np.ndindex(weights.shape[:2]):
        allowed = [s for s in range(S) if mask[b, s]]
        exps = {s: math.exp(score(query[b, t], keys[b, s], attention)) for s in allowed}
        for s in allowed:
            weights[b, t, s] = exps[s] / sum(exps.values())
    return np.stack([weights[b] @ values[b] for b in range(B)]), weights


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("own_values", [False, True])
@kinds
def test_against_loops(kind, own_values, masked):
    attention, keys = made(kind)
    query, values = drawn(B, T, Q, seed=1), drawn(B, S, V, seed=2) if own_values else None
    mask = a_mask(4, S, 1) if masked else None
    context, weights = attention(query, keys, values, mask)
    expected = in_loops(
        kind,
        attention,
        query.detach().numpy(),
        keys.detach().numpy(),
        (keys if values is None else values).detach().numpy(),
        np.ones((B, S), bool) if mask is None else mask.numpy(),
    )
    for ours, truth in zip((context, weights), expected, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), truth, rtol=1e-12, atol=1e-14)


@kinds
def test_one_query_is_like_several(kind):
    attention, keys = made(kind)
    query, mask = drawn(B, T, Q), a_mask(4, S, 1)
    contexts, weights = attention(query, keys, mask=mask)
    for t in range(T):
        context, row = attention(query[:, t], keys, mask=mask)
        assert (context.shape, row.shape) == ((B, keys.shape[-1]), (B, S))
        np.testing.assert_allclose(context.detach().numpy(), contexts[:, t].detach().numpy())
        np.testing.assert_allclose(row.detach().numpy(), weights[:, t].detach().numpy())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@kinds
def test_weights_are_a_distribution_over_the_mask(kind, dtype):
    attention, keys = made(kind, dtype)
    mask = a_mask(4, S, 1)
    context, weights = attention(drawn(B, Q, dtype=dtype) * 30, keys, mask=mask)
    assert context.dtype == weights.dtype == np.dtype(dtype)
    weights = weights.detach().numpy()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    assert (weights[~mask.numpy()] == 0).all()
    assert (weights >= 0).all()
    assert weights[2, mask.numpy()[2]] == 1


@kinds
def test_a_permutation_of_keys_permutes_the_weights(kind):
    attention, keys = made(kind)
    query, values, mask = drawn(B, Q), drawn(B, S, V), a_mask(4, S, 1)
    order = np.random.default_rng(3).permutation(S)
    context, weights = attention(query, keys, values, mask)
    moved = torch.tensor(order)
    again, permuted = attention(query, keys[:, moved], values[:, moved], mask[:, moved])
    np.testing.assert_allclose(host(permuted), host(weights)[:, order])
    np.testing.assert_allclose(again.detach().numpy(), context.detach().numpy(), rtol=1e-12)


@kinds
def test_masked_positions_are_as_if_they_were_not_there(kind):
    attention, keys = made(kind)
    query, values, mask = drawn(B, Q), drawn(B, S, V), np.tile(np.arange(S) % 2 == 1, (B, 1))
    expected, rest = attention(query, keys[:, 1::2], values[:, 1::2])
    context, weights = attention(query, keys * 1.0, values, torch.tensor(mask))
    np.testing.assert_allclose(context.detach().numpy(), expected.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(weights[:, 1::2].detach().numpy(), rest.detach().numpy())
    leaves = [query, keys, values, *attention.parameters()]
    ours = torch.autograd.grad((context * context).sum(), leaves)
    truth = torch.autograd.grad((expected * expected).sum(), leaves)
    for g, t in zip(ours, truth, strict=True):
        np.testing.assert_allclose(g.numpy(), t.numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@kinds
def test_a_row_without_positions_gives_zeros(kind, dtype):
    attention, keys = made(kind, dtype)
    query, values = drawn(B, T, Q, dtype=dtype), drawn(B, S, V, dtype=dtype)
    leaves = [query, keys, values, *attention.parameters()]
    with torch.autograd.detect_anomaly():  # no NaN on the way either
        context, weights = attention(query, keys, values, a_mask(3, 0, 2))
        loss = (context * context + context).sum()
        gs = torch.autograd.grad(loss, leaves, create_graph=True)
        second = torch.autograd.grad(sum((g * g).sum() for g in gs), leaves)
    assert (weights[1].detach().numpy() == 0).all()
    assert (context[1].detach().numpy() == 0).all()
    for g in gs[:3]:
        assert (g[1].detach().numpy() == 0).all()
        assert (g[0].detach().numpy() != 0).any()
    assert all(np.isfinite(g.detach().numpy()).all() for g in (*gs, *second))


@kinds
def test_gradients(kind):
    attention, keys = made(kind)
    weights = list(attention._parameters)

    def run(query, keys, values, *given):
        attention._parameters.update(zip(weights, given, strict=True))
        return attention(query, keys, values, a_mask(2, 0, S))

    inputs = drawn(B, T, Q), keys, drawn(B, S, V), *attention.parameters()
    assert gradcheck(run, inputs)
    assert gradgradcheck(run, inputs)


@kinds
def test_projected_keys(kind):
    attention, keys = made(kind)
    query, values, mask = drawn(B, Q), drawn(B, S, V), a_mask(4, S, 1)
    memory = attention.project(keys)
    assert type(memory) is Projected
    for given in ((), (values,), (values, mask)):
        expected, ours = attention(query, keys, *given), attention(query, memory, *given)
        for y, truth in zip(ours, expected, strict=True):
            np.testing.assert_array_equal(y.detach().numpy(), truth.detach().numpy())
    calls = []
    attention.project = calls.append
    attention(query, memory)
    assert not calls


# Inside a scan.


def decoder(attention, memory, mask, W, U, C):
    """A plain RNN that attends with the state before: Bahdanau's decoder, with a smaller cell."""

    def step(x, h):
        context, weights = attention(h, memory, mask=mask)
        h = (x @ W + h @ U + context @ C).tanh()
        return (h, weights), h

    return step


@pytest.mark.parametrize("project", [False, True])
@kinds
def test_inside_a_scan(kind, project):
    """Values, gradients and second gradients are those of the loop."""
    attention, keys = made(kind)
    size = keys.shape[-1]
    weights = drawn(2, Q, seed=3), drawn(Q, Q, seed=4), drawn(size, Q, seed=5)
    leaves = [drawn(T, B, 2), drawn(B, Q), keys, *weights, *attention.parameters()]
    found = []
    for run in (scan, unroll):
        memory = attention.project(keys) if project else keys
        cell = decoder(attention, memory, a_mask(4, 0, S), *weights)
        (ys, rows), h = run(cell, leaves[0], leaves[1])
        loss = (ys * ys).sum() + (rows * drawn(T, B, S).detach()).sum() + h.sum()
        gs = torch.autograd.grad(loss, leaves, create_graph=True)
        second = torch.autograd.grad(sum((g * g).sum() for g in gs), leaves)
        found.append([ys, rows, h, *gs, *second])
    for ours, truth in zip(*found, strict=True):
        scale = max(1.0, np.abs(truth.detach().numpy()).max())
        np.testing.assert_allclose(
            ours.detach().numpy(), truth.detach().numpy(), rtol=0, atol=1e-12 * scale
        )


def test_a_scan_projects_keys_once():
    """U k and the mask are constants of the step: computed while it is written down, once."""
    attention, keys = made("additive")
    weights = drawn(2, Q, seed=3), drawn(Q, Q, seed=4), drawn(K, Q, seed=5)
    cell = decoder(attention, keys, a_mask(4, 1, S), *weights)
    step = trace_step(cell, drawn(T, B, 2), drawn(B, Q))
    assert (B, 1, S, H) in [x.shape for x in step.constants]  # U k
    products = [e for e in step.program().equations if e.primitive.name == "matmul"]
    assert len(products) == 6  # x W, h U, C context, and the attention's W q, v e, a keys
    assert not any(e.primitive.name == "bitwise_not" for e in step.program().equations)


def test_with_an_lstm_over_a_batch_of_decoder_steps():
    """The decoder's cell is the layer's; its queries for all steps at once need no loop."""
    attention, keys = made("general")
    W = drawn(4 * Q, 2), drawn(4 * Q, Q)
    ys, _ = scan(equations.lstm(*W), drawn(T, B, 2), (drawn(B, Q), drawn(B, Q, seed=9)))
    context, weights = attention(ys.transpose(0, 1), keys)
    assert (context.shape, weights.shape) == ((B, T, K), (B, T, S))


# As modules.


def test_names_and_first_weights():
    torch.manual_seed(1)
    attention = AdditiveAttention(400, 300, 200)
    shapes = {name: weight.shape for name, weight in attention.named_parameters()}
    assert shapes == {"W": (200, 400), "U": (200, 300), "v": (200,)}
    for name, inputs in (("W", 400), ("U", 300), ("v", 200)):
        largest = np.abs(getattr(attention, name).detach().numpy()).max()
        assert 0.95 / inputs**0.5 < largest <= 1 / inputs**0.5
    assert list(dict(GeneralAttention(4, 3).named_parameters())) == ["W"]
    assert list(DotProductAttention().parameters()) == []
    assert AdditiveAttention(2, 3, 4, dtype="float64").v.dtype == torch.float64
    assert repr(attention) == "AdditiveAttention(400, 300, 200)"
    assert repr(GeneralAttention(4, 3, scale=True)) == "GeneralAttention(4, 3, scale=True)"


class Gaussian(Attention):
    """A score of one's own: e = -|q - k|²."""

    def project(self, keys):
        return Projected(keys, keys)

    def score(self, queries, projection):
        return -(queries.unsqueeze(2) - projection.unsqueeze(1)).square().sum(-1)


def test_a_score_of_ones_own():
    keys = torch.tensor([[[0.0], [1.0], [30.0]]])
    _, weights = Gaussian()(torch.tensor([[0.0]]), keys)
    e = math.exp(-1)
    np.testing.assert_allclose(weights.numpy(), [[1 / (1 + e), e / (1 + e), 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda: {"query": np.ones((B, Q))}, TypeError, "query must be a Tensor, got ndarray"),
        (lambda: {"keys": [1]}, TypeError, "keys must be a Tensor, got list"),
        (
            lambda: {"query": torch.ones(Q)},
            RuntimeError,
            r"query of shape \(B, Q\) or .*got \(5,\)",
        ),
        (lambda: {"query": torch.ones(B, 4)}, RuntimeError, r"last axis of 5.*got \(3, 4\)"),
        (
            lambda: {"keys": torch.ones(B, K)},
            RuntimeError,
            r"keys of shape \(B, S, K\), got \(3, 7\)",
        ),
        (lambda: {"keys": torch.ones(B, S, 2)}, RuntimeError, r"last axis of 7.*got \(3, 6, 2\)"),
        (
            lambda: {"query": torch.ones(2, Q)},
            RuntimeError,
            r"\(2, 5\).*\(3, 6, 7\).*differ in .*batch",
        ),
        (
            lambda: {"values": torch.ones(B, S)},
            RuntimeError,
            r"values of shape \(B, S, V\), got \(3, 6\)",
        ),
        (lambda: {"values": torch.ones(B, 5, V)}, RuntimeError, "one value for each key"),
        (
            lambda: {"mask": torch.ones(B, S)},
            RuntimeError,
            "mask must be bool, True where.*mask != 0",
        ),
        (lambda: {"mask": torch.ones(B, 5) > 0}, RuntimeError, r"mask \(3, 5\) bool.*\(3, 6\)$"),
        (
            lambda: {"mask": torch.ones(B, 1, S) > 0},
            RuntimeError,
            r"mask of shape \(B, S\), got \(3, 1",
        ),
        (lambda: {"mask": [[True] * S] * B}, TypeError, "mask must be a Tensor, got list"),
    ],
)
def test_errors(arguments, error, message):
    given = {"query": torch.ones(B, Q), "keys": torch.ones(B, S, K), "values": None, "mask": None}
    for attention in (AdditiveAttention(Q, K, H), GeneralAttention(Q, K)):
        with pytest.raises(error, match=message):
            attention(**given | arguments())


def test_a_dot_product_of_different_sizes():
    with pytest.raises(RuntimeError, match=r"queries of 5.*keys of 7.*GeneralAttention\(5, 7\)"):
        DotProductAttention()(torch.ones(B, Q), torch.ones(B, S, K))
