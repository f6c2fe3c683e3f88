"""F.ctc_loss and nn.CTCLoss against PyTorch's: values, gradients, edges and kinds of error.

Gradients are compared behind log_softmax. For log_probs themselves PyTorch gives another quantity,
and for infinite losses NaN; two tests at the end say exactly what.
"""

import itertools

import numpy as np
import pytest

import tinygrad_rnn.nn as our_nn
import tinygrad_rnn.nn.functional as ours
from tinygrad_rnn import tensor

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("device")
theirs = torch.nn.functional

TOLERANCE = {np.float64: 1e-10, np.float32: 2e-5}
T, B, C = 9, 6, 5
# Repeats; nothing to say; every label; exactly as many frames as needed; the blank as a label.
TARGETS = [[1, 1, 2, 2], [], [4, 3, 2, 1], [3, 3, 1], [0, 2], [1]]
COUNTS = [len(target) for target in TARGETS]
FRAMES = [9, 7, 9, 4, 5, 1]


def _targets(form, blank):
    rows = [[(label + blank) % C for label in target] for target in TARGETS]
    if form == "joined":
        return np.array(list(itertools.chain(*rows)))
    width, padding = (4, blank) if form == "padded" else (6, -100)
    return np.array([row + [padding] * (width - len(row)) for row in rows])


def _scores(dtype, *shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype) * 2


def _run(library, make, scores, targets, *arguments, **options):
    x = make(scores).requires_grad_()
    loss = library.ctc_loss(x.log_softmax(-1), make(targets), *arguments, **options)
    cotangent = np.random.default_rng(4).standard_normal(tuple(loss.shape)).astype(scores.dtype)
    loss.backward(make(np.asarray(cotangent)))
    assert x.grad.numpy().dtype == scores.dtype
    return loss.detach().numpy(), x.grad.numpy()


def _compare(dtype, *arguments, **options):
    found = _run(ours, tensor, *arguments, **options)
    expected = _run(theirs, torch.from_numpy, *arguments, **options)
    for mine, other in zip(found, expected, strict=True):
        assert mine.dtype == other.dtype == dtype
        assert mine.shape == other.shape
        np.testing.assert_allclose(mine, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda d: d.__name__)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("blank", [0, 2, 4])
@pytest.mark.parametrize("form", ["padded", "wide", "joined"])
def test_values_and_gradients(form, blank, reduction, dtype):
    _compare(
        dtype,
        _scores(dtype, T, B, C),
        _targets(form, blank),
        FRAMES,
        COUNTS,
        blank=blank,
        reduction=reduction,
    )


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda d: d.__name__)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_one_sequence_without_a_batch_axis(reduction, dtype):
    scores = _scores(dtype, T, C)
    for target, frames in ((np.array([3, 3, 1]), 8), (np.array([2]), 1), (np.zeros(0, int), 9)):
        for lengths in (((frames,), (len(target),)), ([frames], [len(target)])):
            _compare(dtype, scores, target, *lengths, reduction=reduction)
        for shape in ((), (1,)):
            mine, other = (
                library.ctc_loss(
                    make(scores),
                    make(target),
                    make(np.full(shape, frames)),
                    make(np.full(shape, len(target))),
                    reduction=reduction,
                )
                for library, make in ((ours, tensor), (theirs, torch.from_numpy))
            )
            np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=TOLERANCE[dtype])
            assert mine.shape == tuple(other.shape)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda d: d.__name__)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_targets_that_do_not_fit(reduction, dtype):
    scores, targets = _scores(dtype, T, B, C), _targets("padded", 0)
    frames = [3, 7, 9, 3, 5, 0]  # too few for rows 0, 3 and 5
    _compare(dtype, scores, targets, frames, COUNTS, reduction=reduction, zero_infinity=True)
    mine = ours.ctc_loss(
        tensor(scores).log_softmax(-1),
        tensor(targets),
        frames,
        COUNTS,
        reduction=reduction,
    )
    other = theirs.ctc_loss(
        torch.from_numpy(scores).log_softmax(-1),
        torch.from_numpy(targets),
        frames,
        COUNTS,
        reduction=reduction,
    )
    assert np.isinf(mine.numpy()).sum() == (3 if reduction == "none" else 1)
    np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("targets", [np.zeros((2, 0), int), np.zeros(0, int), np.zeros(0)])
def test_only_empty_targets(targets):
    for reduction in ("none", "mean", "sum"):
        _compare(
            np.float64, _scores(np.float64, T, 2, C), targets, [9, 4], [0, 0], reduction=reduction
        )


def test_many_frames():
    """In float32, log p = -700 has an error of 4e-5: both err, and ours no more than PyTorch's."""
    scores = _scores(np.float32, 200, 4, 30)
    targets = np.random.default_rng(0).integers(1, 30, (4, 40))
    arguments = [200, 150, 120, 90], [40, 30, 1, 40]
    exact = scores.astype(np.float64)
    _compare(np.float64, exact, targets, *arguments, reduction="sum")
    found = _run(ours, tensor, scores, targets, *arguments, reduction="none")
    other = _run(theirs, torch.from_numpy, scores, targets, *arguments, reduction="none")
    expected = _run(theirs, torch.from_numpy, exact, targets, *arguments, reduction="none")
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    ours_err, theirs_err = (np.abs(run[1] - expected[1]).max() for run in (found, other))
    assert ours_err < 2 * theirs_err


def test_module():
    scores, targets = _scores(np.float64, T, B, C), _targets("padded", 1)
    for options in ({}, {"blank": 1, "reduction": "none", "zero_infinity": True}):
        mine = our_nn.CTCLoss(**options)
        other = torch.nn.CTCLoss(**options)
        for name in ("blank", "reduction", "zero_infinity"):
            assert getattr(mine, name) == getattr(other, name)
        np.testing.assert_allclose(
            mine(
                tensor(scores).log_softmax(-1),
                tensor(targets),
                FRAMES,
                COUNTS,
            ).numpy(),
            other(
                torch.from_numpy(scores).log_softmax(-1), torch.from_numpy(targets), FRAMES, COUNTS
            ).numpy(),
            rtol=1e-12,
        )


LABELS = [[1, 2, 3], [2, 2, 0]]
WRONG = {
    "log_probs of integers": lambda t, x: (x.long(), t(LABELS), [5, 5], [3, 2]),
    "log_probs of four axes": lambda t, x: (x[None], t(LABELS), [5, 5], [3, 2]),
    "no frames": lambda t, x: (x[:0], t(LABELS), [0, 0], [3, 2]),
    "no rows": lambda t, x: (x[:, :0], t(LABELS)[:0], [], []),
    "blank too large": lambda t, x: (x, t(LABELS), [5, 5], [3, 2], 4),
    "blank negative": lambda t, x: (x, t(LABELS), [5, 5], [3, 2], -1),
    "too many frames": lambda t, x: (x, t(LABELS), [6, 5], [3, 2]),
    "fewer than no frames": lambda t, x: (x, t(LABELS), [-1, 5], [3, 2]),
    "fewer than no labels": lambda t, x: (x, t(LABELS), [5, 5], [-1, 2]),
    "lengths of another batch": lambda t, x: (x, t(LABELS), [5, 5, 5], [3, 2]),
    "target lengths of another batch": lambda t, x: (x, t(LABELS), [5, 5], [3]),
    "a list of floats": lambda t, x: (x, t(LABELS), [5.0, 5.0], [3, 2]),
    "a tensor of floats": lambda t, x: (x, t(LABELS), t([5.0, 5.0]), t([3, 2])),
    "a tensor of truths": lambda t, x: (x, t(LABELS), t([5, 5]), t([True, True])),
    "a list of targets": lambda t, x: (x, LABELS, [5, 5], [3, 2]),
    "targets too narrow": lambda t, x: (x, t(LABELS), [5, 5], [4, 2]),
    "targets of another batch": lambda t, x: (x, t(LABELS)[:1], [5, 5], [3, 2]),
    "targets of three axes": lambda t, x: (x, t(LABELS)[None], [5, 5], [3, 2]),
    "joined targets too short": lambda t, x: (x, t([1, 2, 3, 2]), [5, 5], [3, 2]),
    "joined targets too long": lambda t, x: (x, t([1, 2, 3, 2, 2, 1]), [5, 5], [3, 2]),
    "reduction": lambda t, x: (x, t(LABELS), [5, 5], [3, 2], 0, "average"),
}


@pytest.mark.parametrize("name", WRONG)
def test_kinds_of_error(name):
    kinds = []
    for library, make in (
        (ours, lambda values: tensor(np.array(values))),
        (theirs, lambda values: torch.from_numpy(np.array(values))),
    ):
        arguments = WRONG[name](make, make(_scores(np.float32, 5, 2, 4)))
        with pytest.raises((RuntimeError, TypeError, ValueError)) as raised:
            library.ctc_loss(*arguments)
        kinds.append(raised.type)
    assert kinds[0] is kinds[1]


def test_pytorchs_gradient_of_log_probs_has_the_softmax_added():
    """The derivative of -log p by log_probs is -posterior; PyTorch gives exp(log_probs) more."""
    log_probs = tensor(_scores(np.float64, T, B, C)).log_softmax(-1).numpy()
    mine, other = (
        tensor(log_probs).requires_grad_(),
        torch.from_numpy(log_probs).requires_grad_(),
    )
    arguments = FRAMES, COUNTS
    targets = _targets("padded", 0)
    ours.ctc_loss(mine, tensor(targets), *arguments, reduction="sum").backward()
    theirs.ctc_loss(other, torch.from_numpy(targets), *arguments, reduction="sum").backward()
    real = np.arange(T)[:, None, None] < np.array(FRAMES)[:, None]
    np.testing.assert_allclose(
        mine.grad.numpy() + np.exp(log_probs) * real, other.grad.numpy(), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(mine.grad.numpy().sum(-1), -real[..., 0].astype(float), rtol=1e-12)


def test_pytorchs_gradient_of_an_infinite_loss_is_nan_and_ours_zero():
    scores, targets = _scores(np.float64, 2, 2, C), np.array([[1, 1], [1, 2]])
    mine, other = (
        _run(library, make, scores, targets, [2, 2], [2, 2], reduction="none")
        for library, make in ((ours, tensor), (theirs, torch.from_numpy))
    )
    np.testing.assert_allclose(mine[0], other[0])
    assert np.isnan(other[1][:, 0]).all()
    assert (mine[1][:, 0] == 0).all()
    np.testing.assert_allclose(mine[1][:, 1], other[1][:, 1], rtol=1e-12)
