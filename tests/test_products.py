"""A weight used at every step: its products are collected in backward and computed as one.

The result must be the sum of the small products whatever happens in between: more rows than are
collected at once, hooks, other uses of the weight, writes, values that overflow.
"""

import numpy as np
import pytest
from arrays import host, on_device

import tinygrad_rnn as torch
from tinygrad_rnn.ops.linear import Products

pytestmark = pytest.mark.usefixtures("device")


def unrolled(T, B, W, x, h):
    for t in range(T):
        h = (x[t] + h @ W).tanh()
    return h.square().sum()


def step_by_step(T, x, W, h):
    """dL/dW of `unrolled` in plain arrays, one product a step."""
    hs = [h]
    for t in range(T):
        hs.append(np.tanh(x[t] + hs[-1] @ W))
    dh, dW = 2 * hs[-1], np.zeros_like(W)
    for t in reversed(range(T)):
        dz = dh * (1 - hs[t + 1] ** 2)
        dW += hs[t].T @ dz
        dh = dz @ W.T
    return dW


@pytest.fixture
def sizes():
    return {"T": 3 * Products.ROWS // 16 + 5, "B": 16, "H": 3}


@pytest.fixture
def arrays(sizes):
    rng = np.random.default_rng(0)
    T, B, H = sizes["T"], sizes["B"], sizes["H"]
    return rng.normal(size=(T, B, H)), rng.normal(size=(H, H)), rng.normal(size=(B, H))


def test_more_rows_than_are_collected_at_once(sizes, arrays):
    x, W, h = arrays
    weight = torch.tensor(W, requires_grad=True)
    unrolled(sizes["T"], sizes["B"], weight, torch.tensor(x), torch.tensor(h)).backward()
    wanted = step_by_step(sizes["T"], x, W, h)
    np.testing.assert_allclose(weight.grad.numpy(), wanted, rtol=1e-11)


def test_few_arrays_wait():
    a, b = on_device([np.ones((Products.ROWS // 2, 2)), np.ones((Products.ROWS // 2, 3))])
    collected = Products(a, b)
    for _ in range(5):
        collected.add(Products(a, b))
        assert sum(len(array) for array in collected.arrays()) < 2 * Products.ROWS
    np.testing.assert_array_equal(host(collected.total()), np.full((2, 3), 3.0 * Products.ROWS))


@pytest.mark.parametrize("first", ["product", "sum"])
def test_a_weight_that_is_used_in_other_ways_too(first):
    rng = np.random.default_rng(1)
    W = torch.tensor(rng.normal(size=(3, 4)), requires_grad=True)
    a, b = torch.tensor(rng.normal(size=(5, 3))), torch.tensor(rng.normal(size=(2, 7, 3)))
    terms = [lambda: (a @ W).sum(), lambda: (W * W).sum(), lambda: (b @ W).square().sum()]
    if first == "sum":
        terms = terms[1:] + terms[:1]
    sum(term() for term in terms).backward()
    weight, rows, more = host(W), host(a), host(b).reshape(-1, 3)
    wanted = rows.sum(0)[:, None] + 2 * weight + 2 * more.T @ (more @ weight)
    np.testing.assert_allclose(host(W.grad), wanted, rtol=1e-12)


def test_hooks_see_the_whole_gradient(sizes, arrays):
    x, W, h = arrays
    weight, seen = torch.tensor(W, requires_grad=True), []
    weight.register_hook(lambda g: seen.append(g.numpy().copy()))
    transposed = weight.T.T
    transposed.register_hook(lambda g: seen.append(g.numpy().copy()))
    unrolled(sizes["T"], sizes["B"], transposed, torch.tensor(x), torch.tensor(h)).backward()
    assert len(seen) == 2
    for gradient in (*seen, weight.grad.numpy()):
        np.testing.assert_allclose(gradient, step_by_step(sizes["T"], x, W, h), rtol=1e-11)


def test_a_hook_that_writes_cannot_reach_what_was_collected():
    W = torch.ones(2, 2, requires_grad=True)
    h1 = torch.ones(1, 2, requires_grad=True) * 3
    h1.register_hook(lambda g: g.mul_(0))
    (h1 @ W).sum().backward()
    np.testing.assert_array_equal(W.grad.numpy(), np.full((2, 2), 3))


def test_a_write_while_products_wait_is_refused():
    class Writes(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            data.fill_(100)
            return g

    W = torch.ones(2, 2, requires_grad=True)
    data = torch.ones(1, 2)
    y = Writes.apply(torch.ones(1, 2, requires_grad=True)) + data @ W
    with pytest.raises(RuntimeError, match=r"was changed by fill_ while backward ran"):
        (y @ W).sum().backward()


def test_an_overflow_in_a_product_is_found():
    x = torch.full((1, 1), 1e30)
    W = torch.ones(1, 1, requires_grad=True)
    with torch.autograd.detect_anomaly():
        y = x @ W
        with pytest.raises(RuntimeError, match=r"backward of matmul.*made the first Inf"):
            y.backward(torch.full((1, 1), 1e20))


def test_unused_and_wanted_weights():
    V = torch.ones(3, 2, requires_grad=True)
    W = torch.ones(2, 2, requires_grad=True)
    y = torch.ones(4, 3) @ V @ W
    (gW,) = torch.autograd.grad(y.sum(), W, retain_graph=True)
    (gV,) = torch.autograd.grad(y.sum(), V)
    np.testing.assert_array_equal(gW.numpy(), np.full((2, 2), 12))
    np.testing.assert_array_equal(gV.numpy(), np.full((3, 2), 8))
