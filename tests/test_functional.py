"""nn.functional by itself: second-order gradients, numbers worked out by hand, chance, errors."""

import math

import numpy as np
import pytest

import tinygrad_rnn as torch
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.autograd import gradcheck, gradgradcheck

pytestmark = pytest.mark.usefixtures("device")


def _draw(*shape, seed=0):
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape)).requires_grad_()


def _probabilities(*shape):
    return torch.tensor(np.random.default_rng(1).uniform(0.1, 0.9, shape))


def _class_weights():
    return torch.tensor(np.array([0.5, 2.0, 1.0, 0.25]))


def _indices(*shape, classes=4):
    return torch.tensor(np.random.default_rng(2).integers(0, classes, shape))


DIFFERENTIABLE = {
    "softmax": ([(3, 4)], lambda x: F.softmax(x, 0)),
    "log_softmax": ([(3, 4)], lambda x: F.log_softmax(x, -1)),
    "gelu": ([(5,)], F.gelu),
    "gelu tanh": ([(5,)], lambda x: F.gelu(x, "tanh")),
    "silu": ([(5,)], F.silu),
    "leaky_relu": ([(5,)], F.leaky_relu),
    "hardtanh": ([(5,)], F.hardtanh),
    "softplus": ([(5,)], lambda x: F.softplus(x, 2.0, 1.0)),
    "linear": ([(3, 4), (2, 4), (2,)], F.linear),
    "embedding": ([(5, 2)], lambda w: F.embedding(_indices(3, 2), w)),
    "layer_norm": ([(3, 4), (4,), (4,)], lambda x, w, b: F.layer_norm(x, (4,), w, b)),
    "pad": ([(2, 3)], lambda x: F.pad(x, (1, -1, 0, 2))),
    "pad circular": ([(2, 3)], lambda x: F.pad(x, (2, 1), mode="circular")),
    "mse_loss": ([(3, 2), (3, 2)], F.mse_loss),
    "l1_loss": ([(3, 2), (3, 2)], F.l1_loss),
    "huber_loss": ([(3, 4), (3, 4)], F.huber_loss),
    "smooth_l1_loss": ([(3, 4), (3, 4)], lambda x, y: F.smooth_l1_loss(x, y, beta=0.5)),
    "cross_entropy": ([(3, 4)], lambda x: F.cross_entropy(x, _indices(3))),
    "cross_entropy all options": (
        [(3, 4, 2)],
        lambda x: F.cross_entropy(
            x, _indices(3, 2), _class_weights(), ignore_index=1, label_smoothing=0.1
        ),
    ),
    "cross_entropy probabilities": (
        [(3, 4), (3, 4)],
        lambda x, q: F.cross_entropy(x, q, _class_weights(), label_smoothing=0.1),
    ),
    "nll_loss": ([(3, 4)], lambda x: F.nll_loss(x, _indices(3), _class_weights())),
    "binary_cross_entropy": (
        [(3, 2)],
        lambda x: F.binary_cross_entropy(x.sigmoid(), _probabilities(3, 2)),
    ),
    "binary_cross_entropy_with_logits": (
        [(3, 2), (3, 2)],
        lambda x, y: F.binary_cross_entropy_with_logits(
            x, y, pos_weight=torch.tensor(np.array([3.0, 0.5]))
        ),
    ),
    "kl_div": ([(3, 2)], lambda x: F.kl_div(x, _probabilities(3, 2), reduction="batchmean")),
    "kl_div log_target": (
        [(3, 2), (3, 2)],
        lambda x, y: F.kl_div(x, y, reduction="sum", log_target=True),
    ),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_of_first_and_second_order(name):
    shapes, function = DIFFERENTIABLE[name]
    inputs = tuple(_draw(*shape, seed=k) for k, shape in enumerate(shapes))
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_float32_stays_float32(name):
    if name in ("cross_entropy probabilities", "binary_cross_entropy"):
        pytest.skip("their constants are float64")
    shapes, function = DIFFERENTIABLE[name]
    inputs = [_draw(*shape).detach().float().requires_grad_() for shape in shapes]
    if name not in ("kl_div", "binary_cross_entropy_with_logits"):  # their constants are float64
        assert function(*inputs).dtype == np.float32
    function(*inputs).sum().backward()
    assert all(x.grad.dtype == np.float32 for x in inputs)


def test_cross_entropy_by_hand():
    """Logits ln 1, ln 2, ln 5 are chances 1/8, 2/8, 5/8."""
    x = torch.tensor(np.log([[1.0, 2.0, 5.0]])).requires_grad_()
    loss = F.cross_entropy(x, torch.tensor(np.array([1])))
    assert loss.item() == pytest.approx(math.log(4), rel=1e-15)
    loss.backward()
    np.testing.assert_allclose(x.grad.numpy(), [[1 / 8, 2 / 8 - 1, 5 / 8]], rtol=1e-15)


def test_cross_entropy_divides_by_what_counts():
    x = torch.tensor(
        np.log([[1.0, 3.0], [1.0, 1.0], [3.0, 1.0]])
    )  # chances of class 0: 1/4, 1/2, 3/4
    target = torch.tensor(np.array([0, -100, 1]))
    weight = torch.tensor(np.array([1.0, 3.0]))
    assert F.cross_entropy(x, target).item() == pytest.approx(math.log(4))
    assert F.cross_entropy(x, target, weight).item() == pytest.approx(
        (1 * math.log(4) + 3 * math.log(4)) / (1 + 3)
    )
    assert F.cross_entropy(x, torch.tensor(np.full(3, -100))).isnan().item()


def test_ignored_targets_get_exactly_no_gradient():
    x = _draw(4, 3)
    F.cross_entropy(
        x, torch.tensor(np.array([0, 9, 2, 9])), ignore_index=9, label_smoothing=0.1
    ).backward()
    np.testing.assert_array_equal(x.grad.numpy()[[1, 3]], 0)
    assert (x.grad.numpy()[[0, 2]] != 0).all()


def test_huge_logits_neither_overflow_nor_lose_their_gradient():
    x = torch.tensor(np.array([[1e4, -1e4, 1e4]], np.float32)).requires_grad_()
    loss = F.cross_entropy(x, torch.tensor(np.array([0])))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), [[-0.5, 0, 0.5]], rtol=1e-6)


def test_huber_and_smooth_l1_by_hand():
    x, zero = torch.tensor(np.array([0.5, -3.0])), torch.tensor(np.zeros(2))
    np.testing.assert_allclose(
        F.huber_loss(x, zero, reduction="none", delta=2.0).numpy(), [0.125, 2 * (3 - 1)]
    )
    np.testing.assert_allclose(
        F.smooth_l1_loss(x, zero, reduction="none", beta=2.0).numpy(), [0.0625, 3 - 1]
    )


def test_layer_norm_gives_mean_0_and_variance_1():
    x = _draw(5, 7)
    y = F.layer_norm(x * 100 - 30, (7,)).detach().numpy()
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(-1), 1, rtol=1e-6)


def test_layer_norm_of_equal_values_has_a_gradient_in_float16():
    """By hand: where the variance is 0, dx = (g - mean(g)) / √eps."""
    x = torch.zeros(4, dtype=torch.float16, requires_grad=True)
    F.layer_norm(x, (4,)).backward(torch.tensor([0.0, 1.0, 2.0, 4.0], dtype=torch.float16))
    expected = np.array([-1.75, -0.75, 0.25, 2.25]) / np.sqrt(1e-5)
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-3)
    assert x.grad.dtype == np.float16


def test_embedding_gives_the_padding_row_no_gradient():
    w = _draw(4, 2)
    index = torch.tensor(np.array([3, 1, 3, 0]))
    F.embedding(index, w, padding_idx=3).sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), [[1, 1], [1, 1], [0, 0], [0, 0]])


def test_one_hot(device):
    index = torch.tensor([[2, 0]])
    for classes in (3, -1):
        assert F.one_hot(index, classes).tolist() == [[[0, 0, 1], [1, 0, 0]]]
    if device == "cpu":
        with pytest.raises(RuntimeError, match=r"smaller than num_classes \(2\), got 2"):
            F.one_hot(index, 2)
    else:  # a GPU is not waited for
        assert F.one_hot(index, 2).tolist() == [[[0, 0], [1, 0]]]


def test_dropout_keeps_the_mean_and_repeats_with_the_seed():
    x = torch.tensor(np.ones((200, 300), np.float32)).requires_grad_()
    torch.manual_seed(5)
    y = F.dropout(x, 0.3)
    values = np.unique(y.detach().numpy())
    np.testing.assert_allclose(values, [0, 1 / 0.7], rtol=1e-6)
    assert y.detach().numpy().mean() == pytest.approx(1, abs=0.02)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())
    torch.manual_seed(5)
    np.testing.assert_array_equal(F.dropout(x, 0.3).detach().numpy(), y.detach().numpy())
    assert (F.dropout(x, 0.3).detach().numpy() != y.detach().numpy()).any()
    assert F.dropout(x, 0.3, training=False) is x
    assert not F.dropout(x, 1.0).detach().numpy().any()


def test_in_place_variants_change_their_input_and_keep_its_gradient():
    x = _draw(6)
    y = x * 3
    assert F.leaky_relu(y, 0.1, inplace=True) is y
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.where(x.detach().numpy() > 0, 3, 0.3))
    with pytest.raises(RuntimeError, match="leaf"):
        F.relu(x, inplace=True)


ERRORS = {
    "names the class and the count": (
        lambda: F.cross_entropy(_draw(2, 4), torch.tensor(np.array([0, 4]))),
        IndexError,
        "Target 4 is out of bounds: there are 4 classes.*0 to 3",
    ),
    "says that targets are integers": (
        lambda: F.cross_entropy(_draw(2, 4), torch.tensor(np.array([0.0, 1.0]))),
        RuntimeError,
        r"expected class indices.*float64.*\.long\(\)",
    ),
    "rejects booleans": (
        lambda: F.nll_loss(_draw(2, 4), torch.tensor(np.array([True, False]))),
        RuntimeError,
        "bool",
    ),
    "names both shapes": (
        lambda: F.cross_entropy(_draw(3, 4), _indices(2)),
        ValueError,
        r"target of shape \(3,\) for an input of shape \(3, 4\).*got \(2,\)",
    ),
    "knows the usual mistake": (
        lambda: F.cross_entropy(_draw(5, 2, 4), _indices(5, 2)),
        ValueError,
        r"movedim\(-1, 1\)",
    ),
    "asks for floats": (
        lambda: F.softmax(_indices(3), 0),
        RuntimeError,
        "int64; pass dtype",
    ),
    "linear": (
        lambda: F.linear(_draw(2, 3), _draw(4, 5)),
        RuntimeError,
        r"\(2, 3\).*\(4, 5\).*last sizes",
    ),
    "embedding": (
        lambda: F.embedding(torch.tensor(np.array([7])), _draw(3, 2)),
        IndexError,
        "index 7 is out of range: the table has 3 rows",
    ),
    "embedding below": (
        lambda: F.embedding(torch.tensor(np.array([-1, 9])), _draw(3, 2)),
        IndexError,
        "index -1",
    ),
    "padding_idx": (
        lambda: F.embedding(_indices(2), _draw(5, 2), padding_idx=5),
        ValueError,
        r"num_embeddings \(5\), got 5",
    ),
    "reduction": (
        lambda: F.cross_entropy(_draw(2, 4), _indices(2), reduction="batchmean"),
        ValueError,
        "batchmean is not a valid value",
    ),
    "probabilities": (
        lambda: F.binary_cross_entropy(_draw(3) * 9, _probabilities(3)),
        RuntimeError,
        "elements of input should be between 0 and 1",
    ),
}


VALUES = ["names the class and the count", "embedding", "embedding below", "probabilities"]


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_came_and_what_was_expected(name, device):
    """Of values, the host says so. A GPU would have to be waited for: there they become NaN."""
    call, kind, message = ERRORS[name]
    if name in VALUES and device != "cpu":
        assert call().isnan().any()
        return
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_class_indices_of_any_integer_dtype(dtype):
    x, index = _draw(4, 4), _indices(4)
    narrow = torch.tensor(index.numpy().astype(dtype))
    assert F.cross_entropy(x, narrow).item() == F.cross_entropy(x, index).item()
    assert (F.embedding(narrow, x) == F.embedding(index, x)).all().item()
