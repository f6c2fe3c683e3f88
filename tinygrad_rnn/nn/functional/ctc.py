"""How likely is a labelling, when nobody said which frame belongs to which label?

A network says a label or "blank" at every frame. Its path of T words becomes a labelling when
repeats are merged and then blanks removed, so many paths give the same labelling, and their
probabilities must be added. That sum is a recurrence over time, so it is a `scan` of a three-line
step. No gradient is written here: what the paper calls the backward variables is what the scan's
pullback computes. Read losses.py and scan/unroll.py before this file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_rnn import ops
from tinygrad_rnn.backend import Array, to_device, to_numpy
from tinygrad_rnn.nn.functional.losses import reduced
from tinygrad_rnn.ops.operators import cat, stack, where
from tinygrad_rnn.scan.scan import scan
from tinygrad_rnn.tensor import Tensor


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | Sequence[int],
    target_lengths: Tensor | Sequence[int],
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """-log p(target | frames), in nats: connectionist temporal classification.

    p is the sum over all paths that become the target when repeats are merged and then blanks
    removed: "aab", "abb", "a_b", "_ab" and "ab_" are the paths of three frames for "ab".

    Shapes: log_probs: (T, B, C), for every frame the logarithms of the probabilities of the C
    labels, blank among them, as log_softmax gives them; targets: (B, S) labels, of which each row
    counts up to its length, or all rows one after the other, (sum of target_lengths,);
    input_lengths, target_lengths: B integers. Unbatched, log_probs is (T, C), targets (S,), and
    each length one integer.

    Args:
        blank: the label that means "nothing here"; targets should not contain it.
        reduction: "mean" divides each loss by the length of its target (by 1 if that is 0), then
            takes the mean over the batch; "sum"; or "none", (B,).
        zero_infinity: whether a target that no path gives, because it is too long for its frames,
            costs 0 and not ∞.

    Raises:
        TypeError: targets that are no Tensor, or lengths that are no integers.
        RuntimeError: shapes or lengths that do not fit each other, lengths in a Tensor that is not
            of an integer dtype, or a blank that is no label.
        IndexError: a target that is not one of the C labels (PyTorch does not check).

    Graves et al., "Connectionist temporal classification", 2006: section 4.1, equations 5 to 8, on
    logarithms. The derivative is the true one, minus the probability, given the target, that a
    path says label k at frame t. PyTorch adds the softmax to it, which is the derivative for what
    log_softmax was given; behind log_softmax the two are the same. An infinite loss has the
    gradient 0 here and NaN in PyTorch.

    >>> from tinygrad_rnn import tensor
    >>> log_probs = tensor([[0.5, 0.5], [0.5, 0.5]]).log()  # two frames of blank or 1
    >>> p = (-ctc_loss(log_probs, tensor([1]), [2], [1])).exp()
    >>> round(p.item(), 4)  # of four equal paths, 1_, _1 and 11 give the labelling 1
    0.75
    """
    if log_probs.dtype.kind != "f":
        raise NotImplementedError(
            f"ctc_loss: expected floating-point log_probs, got {log_probs.dtype}"
        )
    if log_probs.ndim not in (2, 3) or 0 in log_probs.shape:
        raise RuntimeError(
            "ctc_loss: expected log_probs of shape (T, B, C), or (T, C) for one sequence, with at "
            f"least one of each, got {log_probs.shape}"
        )
    frames = log_probs if log_probs.ndim == 3 else log_probs.unsqueeze(1)
    steps, rows, classes = frames.shape
    if not 0 <= blank < classes:
        raise RuntimeError(
            f"ctc_loss: blank must be in label range, from 0 to {classes - 1}, got {blank}"
        )
    frame_counts = _lengths("input_lengths", input_lengths, rows)
    if frame_counts.max() > steps:
        raise RuntimeError(
            f"ctc_loss: expected input_lengths of at most {steps}, the number of frames, got "
            f"{frame_counts.max()}"
        )
    label_counts = _lengths("target_lengths", target_lengths, rows)
    labels = _padded(targets, label_counts)
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise IndexError(
            f"ctc_loss: Target {wrong} is out of bounds: there are {classes} labels, blank among "
            f"them, so targets run from 0 to {classes - 1}"
        )

    loss = -_log_probability(frames, frame_counts, labels, label_counts, blank)
    if zero_infinity:
        loss = where(loss == math.inf, 0.0, loss)
    if reduction == "mean":
        each = np.maximum(label_counts, 1).astype(loss.dtype)
        loss = loss / Tensor(to_device(each, loss.device))
    if log_probs.ndim == 2:
        loss = loss.squeeze(0)
    return reduced(loss, reduction)


def _log_probability(
    frames: Tensor, frame_counts: Array, labels: Array, label_counts: Array, blank: int
) -> Tensor:
    """log p of each row's labels, (B,): frames (T, B, C), labels (B, S)."""
    steps, rows, classes = frames.shape

    def constant(array: Array) -> Tensor:
        if array.dtype.kind == "f":
            array = array.astype(frames.dtype)
        return Tensor(to_device(array, frames.device))

    # The states that a path goes through: the labels with a blank before, between and after them.
    states = np.full((rows, 2 * labels.shape[1] + 1), blank)  # (B, 2S + 1), the paper's l'
    states[:, 1::2] = labels
    place = np.arange(states.shape[1])
    # A blank between two labels may be left out, if they are not the same.
    skips = np.zeros(states.shape, bool)
    skips[:, 2:] = states[:, 2:] != states[:, :-2]
    barrier = constant(np.where(skips, 0.0, -math.inf))
    outside = constant(np.full((rows, 2), -math.inf))

    by_label = frames.permute(1, 2, 0).reshape(rows * classes, steps)
    index = constant(states + classes * np.arange(rows)[:, None])
    scores = ops.take(by_label, index).permute(2, 0, 1)  # (T, B, 2S + 1)
    # A row that is over goes on with frames that are blank for sure: they change no labelling.
    running = constant(np.arange(steps)[:, None, None] < frame_counts[:, None])  # (T, B, 1)
    scores = where(running, scores, constant(np.where(place % 2, -math.inf, 0.0)))

    def step(score: Tensor, alpha: Tensor) -> tuple[tuple[()], Tensor]:
        """Equations 6 and 7: stay, come from the state before, or skip the blank between."""
        before = cat((outside, alpha), -1)  # (B, 2S + 3)
        ways = stack((alpha, before[:, 1:-1], before[:, :-2] + barrier))
        return (), ways.logsumexp(0) + score

    start = np.full(states.shape, -math.inf)
    start[:, 0] = 0.0  # before the first frame, every path stands at the first blank
    _, alpha = scan(step, scores, constant(start))
    last = 2 * label_counts[:, None]
    ends = constant((place == last) | (place == last - 1))  # equation 8
    log_p: Tensor = where(ends, alpha, -math.inf).logsumexp(-1)
    return log_p


def _lengths(name: str, lengths: Any, rows: int) -> Array:
    """One length for each row, checked, on the host."""
    given = isinstance(lengths, Tensor)
    counts = to_numpy(lengths.array) if given else np.asarray(lengths)
    if counts.dtype.kind not in "iu":
        error = RuntimeError if given else TypeError
        raise error(f"ctc_loss: {name} must be integral, got {lengths!r}")
    if counts.size != rows:
        raise RuntimeError(
            f"ctc_loss: {name} must be of size batch_size, {rows}, got {counts.size} of them"
        )
    if counts.min() < 0:
        raise RuntimeError(f"ctc_loss: expected {name} of at least 0, got {counts.min()}")
    return counts.reshape(rows).astype(np.int64)


def _padded(targets: Tensor, counts: Array) -> Array:
    """The targets as (B, S) on the host, with label 0 after the end of each: it is never read."""
    if not isinstance(targets, Tensor):
        raise TypeError(f"ctc_loss: targets must be a Tensor, got {type(targets).__name__}")
    given = to_numpy(targets.array)
    if given.dtype.kind not in "iu" and given.size:
        raise RuntimeError(
            f"ctc_loss: expected targets of an integer dtype, got {given.dtype}; convert them with "
            ".long()"
        )
    rows, longest, total = len(counts), int(counts.max()), int(counts.sum())
    if given.ndim == 1 and len(given) == total:
        size = longest
    elif given.ndim == 2 and len(given) == rows and given.shape[1] >= longest:
        size = given.shape[1]
    else:
        raise RuntimeError(
            f"ctc_loss: expected targets of shape ({rows}, S), S at least {longest}, or all labels "
            f"one after the other, ({total},), for these target_lengths; got {given.shape}"
        )
    inside = np.arange(size) < counts[:, None]
    padded = np.zeros((rows, size), np.int64)
    padded[inside] = given if given.ndim == 1 else given[inside]
    return padded
