"""The CTC loss by itself: against all paths written out, second-order gradients, edges, errors."""

import itertools
import math

import numpy as np
import pytest

import tinygrad_rnn as torch
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn import nn
from tinygrad_rnn.autograd import gradcheck, gradgradcheck
from tinygrad_rnn.nn.functional import ctc
from tinygrad_rnn.scan import unroll

pytestmark = pytest.mark.usefixtures("device")


def collapsed(path, blank):
    """The labelling of a path: repeats merged, then blanks removed (the paper's map B)."""
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def probabilities(rows, blank):
    """p of every labelling that T frames can give, by enumerating all C ** T paths."""
    found = {}
    for path in itertools.product(range(rows.shape[1]), repeat=len(rows)):
        labelling = collapsed(path, blank)
        chance = math.prod(rows[t, label] for t, label in enumerate(path))
        found[labelling] = found.get(labelling, 0.0) + chance
    return found


def posterior(rows, target, blank):
    """(T, C): the probability, given the target, that its path says label k at frame t."""
    shares = np.zeros(rows.shape)
    for path in itertools.product(range(rows.shape[1]), repeat=len(rows)):
        if collapsed(path, blank) == tuple(target):
            chance = math.prod(rows[t, label] for t, label in enumerate(path))
            shares[range(len(rows)), path] += chance
    return shares / shares.sum(1, keepdims=True)


def drawn(*shape, seed=0):
    """Probabilities of C labels for frames."""
    scores = np.random.default_rng(seed).standard_normal(shape)
    return np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)


def padded(targets, width=None, padding=0):
    """Targets of different lengths as (B, S)."""
    width = max(map(len, targets)) if width is None else width
    return torch.tensor(np.array([[*t, *[padding] * (width - len(t))] for t in targets], int))


# All that can happen to a row: repeats, nothing to say, fewer frames, no frame to spare.
TARGETS = [(1, 1, 2), (), (3, 2), (2, 3, 1), (1,)]
FRAMES = [5, 4, 3, 3, 5]
COUNTS = [len(target) for target in TARGETS]


def loss_of(log_probs, **options):
    return F.ctc_loss(log_probs, padded(TARGETS), FRAMES, COUNTS, **options)


@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_every_labelling_has_the_probability_of_its_paths(frames, blank):
    rows = drawn(frames, 3, seed=frames)
    expected = probabilities(rows, blank)
    targets = list(expected)
    assert () in expected
    assert any(a == b for target in targets for a, b in itertools.pairwise(target)) == (frames > 2)
    losses = F.ctc_loss(
        torch.tensor(np.log(rows)[:, None].repeat(len(targets), 1)),
        padded(targets, frames, blank),
        [frames] * len(targets),
        [len(target) for target in targets],
        blank,
        "none",
    )
    np.testing.assert_allclose(np.exp(-losses.numpy()), list(expected.values()), rtol=1e-12)
    np.testing.assert_allclose(np.exp(-losses.numpy()).sum(), 1, rtol=1e-12)


@pytest.mark.parametrize("blank", [0, 3])
def test_rows_of_a_batch_are_what_they_are_alone(blank):
    frames = drawn(5, 5, 4)
    targets = [tuple((label + blank) % 4 for label in target) for target in TARGETS]
    losses = F.ctc_loss(
        torch.tensor(np.log(frames)), padded(targets), FRAMES, COUNTS, blank, reduction="none"
    )
    for b, target in enumerate(targets):
        expected = probabilities(frames[: FRAMES[b], b], blank)[target]
        np.testing.assert_allclose(losses[b].item(), -math.log(expected), rtol=1e-12)


def test_the_gradient_is_minus_the_posterior_of_the_labels():
    frames = drawn(5, 5, 4)
    log_probs = torch.tensor(np.log(frames)).requires_grad_()
    loss_of(log_probs, reduction="sum").backward()
    expected = np.zeros(frames.shape)
    for b, target in enumerate(TARGETS):
        expected[: FRAMES[b], b] = -posterior(frames[: FRAMES[b], b], target, 0)
    np.testing.assert_allclose(log_probs.grad.numpy(), expected, rtol=1e-12, atol=1e-14)


def test_reductions():
    log_probs = torch.tensor(np.log(drawn(5, 5, 4)))
    each = loss_of(log_probs, reduction="none").numpy()
    assert loss_of(log_probs, reduction="sum").item() == pytest.approx(each.sum(), rel=1e-14)
    mean = (each / [3, 1, 2, 3, 1]).mean()  # an empty target counts as one label
    assert loss_of(log_probs).item() == pytest.approx(mean, rel=1e-14)
    with pytest.raises(ValueError, match="average is not a valid value for reduction"):
        loss_of(log_probs, reduction="average")


SCORES = np.random.default_rng(1).standard_normal((5, 5, 4))


@pytest.mark.parametrize(
    ("scores", "function"),
    [
        (SCORES, lambda x: loss_of(x.log_softmax(-1))),
        (SCORES, lambda x: loss_of(x, reduction="none")),  # they need not be normalised
        (SCORES * 0, lambda x: loss_of(x, reduction="sum")),  # all ways into a state tie
        (
            SCORES,
            lambda x: F.ctc_loss(x, padded([(1, 1, 2)] * 5), FRAMES, [3] * 5, 0, "none", True),
        ),
    ],
    ids=["logits", "raw", "ties", "impossible"],
)
def test_gradients_of_first_and_second_order(scores, function):
    x = torch.tensor(scores).requires_grad_()
    assert gradcheck(function, (x,))
    assert gradgradcheck(function, (x,))


def _with_gradients(log_probs, **options):
    x = torch.tensor(log_probs).requires_grad_()
    loss = loss_of(x, reduction="sum", **options)
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    (second,) = torch.autograd.grad((first * first).sum(), x)
    return loss.item(), first.detach().numpy(), second.numpy()


def test_scan_and_unroll_agree(monkeypatch):
    log_probs = np.log(drawn(5, 5, 4))
    by_scan = _with_gradients(log_probs)
    monkeypatch.setattr(ctc, "scan", unroll)
    for found, expected in zip(by_scan, _with_gradients(log_probs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_forms_of_the_arguments():
    log_probs = torch.tensor(np.log(drawn(5, 5, 4)))
    expected = loss_of(log_probs, reduction="none").tolist()
    joined = torch.tensor(np.array(sum(TARGETS, ()), int))
    wide = padded(TARGETS, 6)
    for targets in (wide, joined, wide.to("uint8"), joined.to("int32")):
        for frames, counts in [
            (tuple(FRAMES), tuple(COUNTS)),
            (torch.tensor(FRAMES), torch.tensor(COUNTS)),
            (torch.tensor(FRAMES).to("uint8"), torch.tensor(COUNTS).to("uint8")),
            (torch.tensor([FRAMES]), COUNTS),
        ]:
            losses = F.ctc_loss(log_probs, targets, frames, counts, reduction="none")
            assert losses.tolist() == expected


def test_long_targets_with_small_integers():
    """2S is more than an int8 can count."""
    log_probs = torch.tensor(np.log(drawn(150, 1, 3)))
    targets = torch.tensor(np.array([[1, 2] * 50]))
    expected = F.ctc_loss(log_probs, targets, [150], [100]).item()
    small = torch.tensor([100]).to("int8")
    assert F.ctc_loss(log_probs, targets.to("int8"), [150], small).item() == expected


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_one_sequence_without_a_batch_axis(reduction):
    log_probs = torch.tensor(np.log(drawn(4, 3)))
    target = torch.tensor([1, 2])
    expected = F.ctc_loss(log_probs.unsqueeze(1), target, [3], [2], reduction=reduction)
    for lengths in ((torch.tensor(3), torch.tensor(2)), ([3], (2,)), (3, 2)):
        loss = F.ctc_loss(log_probs, target, *lengths, reduction=reduction)
        assert loss.shape == ()
        assert loss.item() == expected.item()


def test_what_lies_beyond_the_lengths_is_not_looked_at():
    frames = np.log(drawn(5, 5, 4))
    expected = _with_gradients(frames)
    spoilt = frames.copy()
    for b, count in enumerate(FRAMES):
        spoilt[count:, b] = np.nan
    labels = padded(TARGETS, 7, padding=-99)
    x = torch.tensor(spoilt).requires_grad_()
    loss = F.ctc_loss(x, labels, FRAMES, COUNTS, reduction="sum")
    loss.backward()
    assert loss.item() == expected[0]
    np.testing.assert_array_equal(x.grad.numpy(), expected[1])
    for b, count in enumerate(FRAMES):
        assert not x.grad.numpy()[count:, b].any()


def test_only_empty_targets():
    frames = drawn(4, 2, 3)
    expected = [-np.log(frames[:3, 0, 2]).sum(), -np.log(frames[:, 1, 2]).sum()]
    for targets in (torch.zeros(2, 0).long(), torch.tensor([]), padded([(), ()], 3)):
        losses = F.ctc_loss(torch.tensor(np.log(frames)), targets, [3, 4], [0, 0], 2, "none")
        np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-14)


def test_no_frames_say_nothing_for_sure():
    log_probs = torch.tensor(np.log(drawn(3, 2, 3)))
    losses = F.ctc_loss(log_probs, padded([(), (1,)]), [0, 0], [0, 1], reduction="none")
    assert losses.tolist() == [0, math.inf]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_impossible_target_costs_infinity_or_nothing_and_has_no_gradient(dtype):
    """(1, 1) needs a blank between, so three frames; in the last row, label 2 has no chance."""
    log_probs = np.log(drawn(3, 4, 3)).astype(dtype)
    log_probs[:, 3, 2] = -np.inf
    targets = padded([(1, 1), (1,), (1, 2, 1), (2,)])
    frames, counts = [2, 3, 2, 3], [2, 1, 3, 1]
    for zero_infinity, cost in ((False, math.inf), (True, 0)):
        x = torch.tensor(log_probs).requires_grad_()
        losses = F.ctc_loss(x, targets, frames, counts, 0, "none", zero_infinity)
        assert losses.dtype == dtype
        assert losses[[0, 2, 3]].tolist() == [cost, cost, cost]
        assert losses[1].item() < 10
        (first,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first * first).sum(), x)
        for g in (first.detach().numpy(), second.numpy()):
            assert g.dtype == dtype
            assert np.isfinite(g).all()
            assert g[:, 1].any()
            assert not g[:, [0, 2, 3]].any()


def test_labels_without_a_chance_leave_the_others_alone():
    """Probabilities of 0 are logarithms of -inf; the gradient there is 0, and finite elsewhere."""
    frames = drawn(4, 1, 3)
    frames[1:3, 0, 1] = 0
    x = torch.tensor(
        np.log(np.where(frames, frames, 1)) + np.where(frames, 0, -np.inf)
    ).requires_grad_()
    loss = F.ctc_loss(x, torch.tensor([[1, 2]]), [4], [2], reduction="sum")
    loss.backward()
    expected = probabilities(frames[:, 0], 0)[1, 2]
    assert math.exp(-loss.item()) == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(
        x.grad.numpy()[:, 0], -posterior(frames[:, 0], (1, 2), 0), rtol=1e-12, atol=1e-14
    )


def test_nan_stays_in_its_row():
    log_probs = np.log(drawn(4, 2, 3))
    log_probs[2, 0, 0] = np.nan
    losses = F.ctc_loss(
        torch.tensor(log_probs), padded([(1,), (1,)]), [4, 4], [1, 1], 0, "none", True
    )
    assert np.isnan(losses[0].item())
    assert np.isfinite(losses[1].item())


def test_a_thousand_frames_of_float32_neither_underflow_nor_drift():
    """The probability itself is about e ** -2400."""
    scores = np.random.default_rng(3).standard_normal((1000, 2, 20))
    targets = torch.tensor(np.random.default_rng(4).integers(1, 20, (2, 150)))
    found = []
    for dtype in (np.float32, np.float64):
        x = torch.tensor(scores.astype(dtype)).requires_grad_()
        loss = F.ctc_loss(x.log_softmax(-1), targets, [1000, 900], [150, 120], reduction="sum")
        loss.backward()
        found.append((loss.item(), x.grad.numpy()))
    (loss, gradient), (exact, exact_gradient) = found
    assert exact > 4000
    assert loss == pytest.approx(exact, rel=1e-6)
    # Logarithms of this size are rounded to 2e-4, and so is how far one path is above another.
    np.testing.assert_allclose(gradient, exact_gradient, atol=2e-3)


def test_the_module_is_the_function():
    log_probs = torch.tensor(np.log(drawn(5, 5, 4)))
    arguments = padded([(1, 1, 0)] * 5), FRAMES, [3, 3, 1, 2, 2]
    assert nn.CTCLoss()(log_probs, *arguments).item() == F.ctc_loss(log_probs, *arguments).item()
    module = nn.CTCLoss(3, "none", zero_infinity=True)
    assert module.state_dict() == {}
    losses = F.ctc_loss(log_probs, *arguments, 3, "none", True)
    assert module(log_probs, *arguments).tolist() == losses.tolist()
    assert losses[0].item() > 0


def test_a_layer_learns_to_say_a_labelling_at_frames_of_its_own_choice():
    torch.manual_seed(0)
    xs = torch.randn(8, 2, 3)
    lstm, output = nn.LSTM(3, 8), nn.Linear(8, 4)
    optimizer = torch.optim.Adam([*lstm.parameters(), *output.parameters()], 0.05)
    targets = [(1, 2, 2), (3, 1)]
    for _ in range(60):
        log_probs = output(lstm(xs)[0]).log_softmax(-1)
        loss = F.ctc_loss(log_probs, padded(targets), [8, 6], [3, 2])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    best = log_probs.detach().numpy().argmax(-1)
    assert collapsed(best[:, 0].tolist(), 0) == targets[0]
    assert collapsed(best[:6, 1].tolist(), 0) == targets[1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (lambda x, t: (x.long(), t, [5, 5], [3, 2]), NotImplementedError, "floating-point"),
        (lambda x, t: (x[None], t, [5, 5], [3, 2]), RuntimeError, r"got \(1, 5, 2, 4\)"),
        (lambda x, t: (x[:0], t, [0, 0], [3, 2]), RuntimeError, "at least one of each"),
        (lambda x, t: (x, t, [5, 5], [3, 2], 4), RuntimeError, "from 0 to 3, got 4"),
        (lambda x, t: (x, t, [5, 5], [3, 2], -1), RuntimeError, "got -1"),
        (lambda x, t: (x, t, [6, 5], [3, 2]), RuntimeError, "at most 5, .*, got 6"),
        (lambda x, t: (x, t, [-1, 5], [3, 2]), RuntimeError, "input_lengths of at least 0"),
        (lambda x, t: (x, t, [5, 5], [-1, 2]), RuntimeError, "target_lengths of at least 0"),
        (lambda x, t: (x, t, [5], [3, 2]), RuntimeError, "input_lengths .* batch_size, 2, got 1"),
        (lambda x, t: (x, t, [5, 5], [3, 2, 1]), RuntimeError, "target_lengths .*, 2, got 3"),
        (lambda x, t: (x, t, [5.0, 5.0], [3, 2]), TypeError, "input_lengths must be integral"),
        (lambda x, t: (x, t, torch.ones(2), [3, 2]), RuntimeError, "must be integral"),
        (lambda x, t: (x, [[1, 2, 3], [2, 2, 0]], [5, 5], [3, 2]), TypeError, "a Tensor, got list"),
        (lambda x, t: (x, t.double(), [5, 5], [3, 2]), RuntimeError, "long"),
        (lambda x, t: (x, t, [5, 5], [4, 2]), RuntimeError, r"\(2, S\), S at least 4.*\(2, 3\)"),
        (lambda x, t: (x, t[:1], [5, 5], [3, 2]), RuntimeError, r"got \(1, 3\)"),
        (lambda x, t: (x, t[None], [5, 5], [3, 2]), RuntimeError, r"got \(1, 2, 3\)"),
        (lambda x, t: (x, t.reshape(-1)[:4], [5, 5], [3, 2]), RuntimeError, r"\(5,\).*\(4,\)"),
        (lambda x, t: (x, t + 1, [5, 5], [3, 2]), IndexError, "Target 4 is out of bounds"),
        (lambda x, t: (x, t - 2, [5, 5], [3, 2]), IndexError, "Target -1 is out of bounds"),
    ],
)
def test_errors(arguments, error, message):
    given = arguments(torch.tensor(np.log(drawn(5, 2, 4))), padded([(1, 2, 3), (2, 2)]))
    with pytest.raises(error, match=message):
        F.ctc_loss(*given)
