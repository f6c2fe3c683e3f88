"""Values and gradients of nn.functional against PyTorch's, in float64 and float32."""

import itertools
import warnings

import numpy as np
import pytest

import tinygrad_rnn.nn.functional as ours
from tinygrad_rnn import tensor
from tinygrad_rnn.nn.utils.rnn import pad_sequence, unpad_sequence

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("device")
theirs = torch.nn.functional

TOLERANCE = {np.float64: 1e-10, np.float32: 2e-5}


def _classes(*shape, classes):
    return np.random.default_rng(sum(shape) + classes).integers(0, classes, shape)


def _with_ignored(targets, ignored=-100):
    targets = targets.copy()
    targets.reshape(-1)[::3] = ignored
    return targets


def _probabilities(*shape, axis=1):
    weights = np.random.default_rng(7).uniform(0.1, 1.0, shape)
    return weights / weights.sum(axis, keepdims=True)


def _uniform(*shape):
    return np.random.default_rng(11).uniform(0.05, 0.95, shape)


WEIGHTS = np.array([0.5, 2.0, 1.0, 0.25, 3.0])

# name: (shapes of the inputs, drawn from N(0, 1); function of the library, its constants, inputs)
# The library F is nn.functional of either package; c makes its tensors, floating ones in the dtype
# under test.
CASES = {
    "tanh": ([(3, 5)], lambda F, c, x: F.tanh(x)),
    "sigmoid": ([(3, 5)], lambda F, c, x: F.sigmoid(x * 8)),
    "relu": ([(3, 5)], lambda F, c, x: F.relu(x)),
    "relu inplace": ([(3, 5)], lambda F, c, x: _in_place(x * 2, lambda y: F.relu(y, inplace=True))),
    "leaky_relu": ([(7,)], lambda F, c, x: F.leaky_relu(x, 0.3)),
    "leaky_relu default": ([(7,)], lambda F, c, x: F.leaky_relu(x)),
    "hardtanh": ([(5, 3)], lambda F, c, x: F.hardtanh(x)),
    "hardtanh limits": ([(5, 3)], lambda F, c, x: F.hardtanh(x, -0.3, 0.6)),
    "silu": ([(5, 3)], lambda F, c, x: F.silu(x)),
    "gelu": ([(5, 3)], lambda F, c, x: F.gelu(x * 3)),
    "gelu tanh": ([(5, 3)], lambda F, c, x: F.gelu(x * 3, approximate="tanh")),
    "softplus": ([(5, 3)], lambda F, c, x: F.softplus(x * 40)),
    "softplus beta": ([(5, 3)], lambda F, c, x: F.softplus(x * 5, beta=3.0, threshold=7)),
    "softmax": ([(2, 5, 3)], lambda F, c, x: F.softmax(x, dim=1)),
    "softmax last": ([(5,)], lambda F, c, x: F.softmax(x * 20, dim=-1)),
    "log_softmax": ([(2, 5, 3)], lambda F, c, x: F.log_softmax(x, dim=-1)),
    "linear": ([(4, 3), (5, 3), (5,)], lambda F, c, x, w, b: F.linear(x, w, b)),
    "linear no bias": ([(2, 4, 3), (5, 3)], lambda F, c, x, w: F.linear(x, w)),
    "linear vector": ([(3,), (5, 3), (5,)], lambda F, c, x, w, b: F.linear(x, w, b)),
    "linear empty": ([(0, 3), (5, 3), (5,)], lambda F, c, x, w, b: F.linear(x, w, b)),
    "embedding": ([(6, 3)], lambda F, c, w: F.embedding(c([[1, 5, 1], [0, 2, 2]]), w)),
    "embedding padding": (
        [(6, 3)],
        lambda F, c, w: F.embedding(c([[1, 5, 1], [0, 2, 2]]), w, padding_idx=2),
    ),
    "embedding padding from the end": (
        [(6, 3)],
        lambda F, c, w: F.embedding(c([5, 1, 5]), w, padding_idx=-1),
    ),
    "layer_norm": ([(4, 5)], lambda F, c, x: F.layer_norm(x, (5,))),
    "layer_norm affine": (
        [(2, 4, 5), (4, 5), (4, 5)],
        lambda F, c, x, w, b: F.layer_norm(x * 3 + 2, (4, 5), w, b, 1e-3),
    ),
    "layer_norm one value": (
        [(4, 1), (1,)],
        lambda F, c, x, w: F.layer_norm(x, (1,), w, None, 1.0),
    ),
    "dropout off": ([(4, 5)], lambda F, c, x: F.dropout(x, 0.5, training=False)),
    "dropout of everything": ([(4, 5)], lambda F, c, x: F.dropout(x, 1.0)),
    "pad": ([(2, 3, 4)], lambda F, c, x: F.pad(x, (1, 2, 0, 3), value=1.5)),
    "pad cut": ([(2, 5, 4)], lambda F, c, x: F.pad(x, (-1, 2, 3, -2))),
    "pad reflect": ([(2, 3, 4)], lambda F, c, x: F.pad(x, (3, 2), mode="reflect")),
    "pad replicate": ([(2, 3, 4)], lambda F, c, x: F.pad(x, (5, 2), mode="replicate")),
    "pad circular": ([(2, 3, 4)], lambda F, c, x: F.pad(x, (4, 2), mode="circular")),
    "mse_loss": ([(4, 3), (4, 3)], lambda F, c, x, y: F.mse_loss(x, y)),
    "mse_loss none": ([(4, 3), (4, 3)], lambda F, c, x, y: F.mse_loss(x, y, reduction="none")),
    "mse_loss sum": ([(), ()], lambda F, c, x, y: F.mse_loss(x, y, reduction="sum")),
    "l1_loss": ([(4, 3), (4, 3)], lambda F, c, x, y: F.l1_loss(x, y)),
    "huber_loss": ([(4, 9), (4, 9)], lambda F, c, x, y: F.huber_loss(x, y, delta=0.7)),
    "huber_loss none": (
        [(4, 9), (4, 9)],
        lambda F, c, x, y: F.huber_loss(x, y, reduction="none", delta=1.3),
    ),
    "smooth_l1_loss": ([(4, 9), (4, 9)], lambda F, c, x, y: F.smooth_l1_loss(x, y, beta=0.4)),
    "smooth_l1_loss beta 0": ([(4, 9), (4, 9)], lambda F, c, x, y: F.smooth_l1_loss(x, y, beta=0)),
    "binary_cross_entropy": (
        [(4, 3)],
        lambda F, c, x: F.binary_cross_entropy(F.sigmoid(x), c(_uniform(4, 3))),
    ),
    "binary_cross_entropy weight": (
        [(4, 3)],
        lambda F, c, x: F.binary_cross_entropy(
            F.sigmoid(x), c(_uniform(4, 3)), c(_uniform(3)), reduction="none"
        ),
    ),
    "binary_cross_entropy_with_logits": (
        [(4, 3)],
        lambda F, c, x: F.binary_cross_entropy_with_logits(x * 30, c(_uniform(4, 3))),
    ),
    "binary_cross_entropy_with_logits weights": (
        [(4, 3), (4, 3)],
        lambda F, c, x, y: F.binary_cross_entropy_with_logits(
            x, y, c(_uniform(4, 1)), pos_weight=c(_uniform(3) * 5), reduction="sum"
        ),
    ),
    "kl_div": (
        [(4, 3)],
        lambda F, c, x: F.kl_div(x, c(_probabilities(4, 3)), reduction="batchmean"),
    ),
    "kl_div of a zero": (
        [(2, 2)],
        lambda F, c, x: F.kl_div(x, c([[0.0, 1.0], [0.25, 0.75]]), reduction="none"),
    ),
    "kl_div log_target": (
        [(4, 3), (4, 3)],
        lambda F, c, x, y: F.kl_div(x, y, reduction="sum", log_target=True),
    ),
    "nll_loss": (
        [(7, 5)],
        lambda F, c, x: F.nll_loss(x, c(_classes(7, classes=5))),
    ),
    "nll_loss everything": (
        [(3, 5, 2, 4)],
        lambda F, c, x: F.nll_loss(
            x, c(_with_ignored(_classes(3, 2, 4, classes=5))), c(WEIGHTS), reduction="none"
        ),
    ),
}


def _cross_entropy(target, weighted=False, **options):
    return lambda F, c, x: F.cross_entropy(
        x * 3, c(target), c(WEIGHTS) if weighted else None, **options
    )


def _cross_entropy_cases():
    for shape in [(7, 5), (3, 5, 4), (2, 5, 3, 2)]:
        indices = _classes(shape[0], *shape[2:], classes=5)
        targets = {
            "indices": (indices, -100),
            "ignored": (_with_ignored(indices), -100),
            "ignored class": (_with_ignored(indices, 3), 3),
            "probabilities": (_probabilities(*shape), -100),
        }
        for (kind, (target, ignored)), weighted, smoothing, reduction in itertools.product(
            targets.items(), (False, True), (0.0, 0.1), ("none", "mean", "sum")
        ):
            name = f"cross_entropy {shape} {kind} {weighted} {smoothing} {reduction}"
            function = _cross_entropy(
                target,
                weighted,
                ignore_index=ignored,
                label_smoothing=smoothing,
                reduction=reduction,
            )
            yield name, ([shape], function)
    yield "cross_entropy unbatched", ([(5,)], lambda F, c, x: F.cross_entropy(x, c(3)))
    yield (
        "cross_entropy unbatched probabilities",
        ([(5,)], lambda F, c, x: F.cross_entropy(x, c(_probabilities(5, axis=0)))),
    )
    yield (
        "cross_entropy target gradient",
        ([(4, 5), (4, 5)], lambda F, c, x, q: F.cross_entropy(x, q, label_smoothing=0.3)),
    )


CASES |= dict(_cross_entropy_cases())


def _in_place(y, change):
    changed = change(y)
    assert changed is y
    return y


def _run(library, make, shapes, function, dtype):
    draw = np.random.default_rng(3)
    arrays = [draw.standard_normal(shape).astype(dtype) for shape in shapes]

    def constant(values):
        values = np.asarray(values)
        return make(values.astype(dtype) if values.dtype.kind == "f" else values)

    inputs = [make(array).requires_grad_() for array in arrays]
    y = function(library, constant, *inputs)
    cotangent = np.random.default_rng(4).standard_normal(tuple(y.shape)).astype(dtype)
    if y.requires_grad:
        y.backward(make(np.asarray(cotangent)))
    gradients = [np.zeros(x.shape) if x.grad is None else x.grad.numpy() for x in inputs]
    assert all(x.grad is None or x.grad.numpy().dtype == dtype for x in inputs)
    return y.detach().numpy(), gradients


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, dtype):
    shapes, function = CASES[name]
    y, gradients = _run(ours, tensor, shapes, function, dtype)
    y_torch, gradients_torch = _run(theirs, torch.from_numpy, shapes, function, dtype)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, y_torch, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    for g, g_torch in zip(gradients, gradients_torch, strict=True):
        np.testing.assert_allclose(g, g_torch, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_cross_entropy_with_everything_ignored(reduction):
    x = np.random.default_rng(0).standard_normal((3, 5))
    target = np.full(3, -100)
    mine, other = tensor(x).requires_grad_(), torch.from_numpy(x).requires_grad_()
    y = ours.cross_entropy(mine, tensor(target), reduction=reduction)
    y_torch = theirs.cross_entropy(other, torch.from_numpy(target), reduction=reduction)
    np.testing.assert_equal(y.detach().numpy(), y_torch.detach().numpy())
    y.sum().backward()
    y_torch.sum().backward()
    np.testing.assert_equal(mine.grad.numpy(), other.grad.numpy())


def test_cross_entropy_of_an_empty_batch_is_nan():
    for reduction in ("none", "mean", "sum"):
        y = ours.cross_entropy(
            tensor(np.zeros((0, 5))), tensor(np.zeros(0, int)), reduction=reduction
        )
        y_torch = theirs.cross_entropy(
            torch.zeros(0, 5), torch.zeros(0).long(), reduction=reduction
        )
        np.testing.assert_equal(y.numpy(), y_torch.numpy())


def test_cross_entropy_of_impossible_classes():
    """A logit of -inf is a probability of 0: infinite cost as a target, none as a bystander."""
    x = np.array([[-np.inf, 0.0, 1.0], [0.0, -np.inf, 2.0]])
    target = np.array([1, 1])
    y = ours.cross_entropy(tensor(x), tensor(target), reduction="none").numpy()
    y_torch = theirs.cross_entropy(
        torch.from_numpy(x), torch.from_numpy(target), reduction="none"
    ).numpy()
    np.testing.assert_allclose(y, y_torch)
    ignored = ours.cross_entropy(tensor(x), tensor(np.array([-100, 2])), reduction="none").numpy()
    assert ignored[0] == 0


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_float32_losses_stay_accurate_for_extreme_logits(size):
    x = (np.random.default_rng(5).standard_normal((6, 9)) + 3).astype(np.float32) * np.float32(size)
    target = _classes(6, classes=9)
    y = ours.cross_entropy(tensor(x), tensor(target), reduction="none").numpy()
    exact = theirs.cross_entropy(
        torch.from_numpy(x.astype(np.float64)), torch.from_numpy(target), reduction="none"
    ).numpy()
    np.testing.assert_allclose(y, exact, rtol=1e-6, atol=1e-6)
    yes = (target > 4)[:, None] * np.ones((1, 9))
    y = ours.binary_cross_entropy_with_logits(tensor(x), tensor(yes.astype(np.float32)))
    exact = theirs.binary_cross_entropy_with_logits(
        torch.from_numpy(x.astype(np.float64)), torch.from_numpy(yes)
    )
    np.testing.assert_allclose(y.item(), exact.item(), rtol=1e-6)


def test_binary_cross_entropy_at_certainty():
    p, y = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])
    mine = ours.binary_cross_entropy(tensor(p), tensor(y), reduction="none").numpy()
    other = theirs.binary_cross_entropy(
        torch.from_numpy(p), torch.from_numpy(y), reduction="none"
    ).numpy()
    np.testing.assert_array_equal(mine, other)


def test_softmax_converts_to_dtype_first():
    y = ours.softmax(tensor(np.arange(3)), 0, dtype=np.float64).numpy()
    y_torch = theirs.softmax(torch.arange(3), 0, dtype=torch.float64).numpy()
    np.testing.assert_allclose(y, y_torch, rtol=1e-15)


@pytest.mark.parametrize("classes", [-1, 7])
def test_one_hot(classes):
    index = _classes(2, 3, classes=5)
    y = ours.one_hot(tensor(index), classes).numpy()
    y_torch = theirs.one_hot(torch.from_numpy(index), classes).numpy()
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y, y_torch)


ERRORS = {
    "target out of range": lambda F, c: F.cross_entropy(c(np.zeros((3, 5))), c([0, 1, 5])),
    "negative target": lambda F, c: F.cross_entropy(c(np.zeros((3, 5))), c([0, 1, -1])),
    "float targets": lambda F, c: F.cross_entropy(c(np.zeros((3, 5))), c([0.0, 1.0, 2.0])),
    "batch sizes": lambda F, c: F.cross_entropy(c(np.zeros((3, 5))), c([0, 1])),
    "integer probabilities": lambda F, c: F.cross_entropy(
        c(np.zeros((3, 5))), c(np.zeros((3, 5), int))
    ),
    "ignored probabilities": lambda F, c: F.cross_entropy(
        c(np.zeros((3, 5))), c(np.zeros((3, 5))), ignore_index=1
    ),
    "class weights": lambda F, c: F.cross_entropy(c(np.zeros((3, 5))), c([0, 1, 2]), c(np.ones(4))),
    "smoothing": lambda F, c: F.cross_entropy(
        c(np.zeros((3, 5))), c([0, 1, 2]), label_smoothing=1.5
    ),
    "no classes": lambda F, c: F.nll_loss(c(0.0), c(0)),
    "reduction": lambda F, c: F.mse_loss(c(0.0), c(0.0), reduction="avg"),
    "delta": lambda F, c: F.huber_loss(c(0.0), c(0.0), delta=0),
    "beta": lambda F, c: F.smooth_l1_loss(c(0.0), c(0.0), beta=-1),
    "not probabilities": lambda F, c: F.binary_cross_entropy(c([1.5]), c([0.5])),
    "no probable target": lambda F, c: F.binary_cross_entropy(c([0.5]), c([1.5])),
    "bce shapes": lambda F, c: F.binary_cross_entropy(c([0.5]), c([0.5, 0.5])),
    "bce logits shapes": lambda F, c: F.binary_cross_entropy_with_logits(c([0.5]), c([0.5, 0.5])),
    "linear": lambda F, c: F.linear(c(np.zeros((3, 5))), c(np.zeros((4, 3)))),
    "linear bias": lambda F, c: F.linear(c(np.zeros((3, 5))), c(np.zeros((4, 5))), c(np.zeros(3))),
    "embedding dtype": lambda F, c: F.embedding(c([1.0]), c(np.zeros((3, 4)))),
    "embedding index": lambda F, c: F.embedding(c([1, 3]), c(np.zeros((3, 4)))),
    "embedding negative": lambda F, c: F.embedding(c([-1]), c(np.zeros((3, 4)))),
    "one_hot dtype": lambda F, c: F.one_hot(c([1.0])),
    "one_hot negative": lambda F, c: F.one_hot(c([-1])),
    "one_hot classes": lambda F, c: F.one_hot(c([3]), 2),
    "one_hot empty": lambda F, c: F.one_hot(c(np.zeros(0, int))),
    "layer_norm shape": lambda F, c: F.layer_norm(c(np.zeros((3, 5))), (4,)),
    "layer_norm no shape": lambda F, c: F.layer_norm(c(np.zeros((3, 5))), ()),
    "layer_norm weight": lambda F, c: F.layer_norm(c(np.zeros((3, 5))), (5,), c(np.zeros(4))),
    "dropout": lambda F, c: F.dropout(c([1.0]), 1.5),
    "gelu": lambda F, c: F.gelu(c([1.0]), approximate="erf"),
    "pad odd": lambda F, c: F.pad(c(np.zeros((3, 5))), (1,)),
    "pad many": lambda F, c: F.pad(c(np.zeros((3, 5))), (1,) * 6),
    "pad cut": lambda F, c: F.pad(c(np.zeros((3, 5))), (-3, -3)),
    "pad mode": lambda F, c: F.pad(c(np.zeros((3, 5))), (1, 1), mode="mirror"),
    "pad reflect": lambda F, c: F.pad(c(np.zeros((3, 5))), (5, 1), mode="reflect"),
    "pad circular": lambda F, c: F.pad(c(np.zeros((1, 3, 5))), (6, 1), mode="circular"),
    "softmax dim": lambda F, c: F.softmax(c([1.0]), dim=3),
}


# What the host finds in values. A GPU is not waited for: there it makes NaN, and one_hot zeros.
BY_VALUE = {
    *("target out of range", "negative target", "not probabilities", "no probable target"),
    *("embedding index", "embedding negative", "one_hot classes"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_have_pytorchs_type(name, device):
    wrong = ERRORS[name]
    with pytest.raises(Exception) as expected:  # noqa: PT011 - any type: ours must be the same
        wrong(theirs, lambda values: torch.from_numpy(np.asarray(values)))
    if device != "cpu" and name in BY_VALUE:
        y = wrong(ours, lambda values: tensor(np.asarray(values)))
        assert y.isnan().any() or not y.any()
        return
    with pytest.raises(expected.type):
        wrong(ours, lambda values: tensor(np.asarray(values)))


@pytest.mark.parametrize("loss", ["mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss"])
def test_a_broadcast_target_warns(loss):
    with pytest.warns(UserWarning, match="different to the input size"):
        getattr(theirs, loss)(torch.zeros(3, 1), torch.zeros(3))
    with pytest.warns(UserWarning, match="different to the input size"):
        getattr(ours, loss)(tensor(np.zeros((3, 1))), tensor(np.zeros(3)))


def test_kl_div_mean_warns():
    x, y = np.log(_probabilities(2, 3)), _probabilities(2, 3)
    with pytest.warns(UserWarning, match="batchmean"):
        mine = ours.kl_div(tensor(x), tensor(y))
    with pytest.warns(UserWarning, match="batchmean"):
        other = theirs.kl_div(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_allclose(mine.item(), other.item(), atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.kl_div(tensor(x), tensor(y), reduction="batchmean")


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_pad_sequence(batch_first, side):
    from torch.nn.utils.rnn import pad_sequence as torch_pad_sequence

    draw = np.random.default_rng(1)
    arrays = [draw.standard_normal((n, 2, 3)) for n in (3, 1, 5)]
    mine = [tensor(a).requires_grad_() for a in arrays]
    other = [torch.from_numpy(a).requires_grad_() for a in arrays]
    y = pad_sequence(mine, batch_first, -1.0, side)
    y_torch = torch_pad_sequence(other, batch_first, -1.0, side)
    np.testing.assert_array_equal(y.detach().numpy(), y_torch.detach().numpy())
    (y * y).sum().backward()
    (y_torch * y_torch).sum().backward()
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-12)
    if side == "right":
        back = unpad_sequence(y, tensor(np.array([3, 1, 5])), batch_first)
        for sequence, array in zip(back, arrays, strict=True):
            np.testing.assert_array_equal(sequence.detach().numpy(), array)
