"""Which labelling do the frames of a CTC network say? Two ways to find out, for one sequence each.

The most probable path is found at once, but it need not give the most probable labelling, for a
labelling has many paths. A search over prefixes adds up those that agree so far. Not a program.
What p(labelling) is, and its loss, is in `tinygrad_rnn/nn/functional/ctc.py`.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

import tinygrad_rnn as torch

Labelling = tuple[int, ...]
#: For a prefix, log p of its paths that end in a blank, and of those that end in its last label.
Ends = tuple[float, float]


def best_path(log_probs: torch.Tensor, blank: int = 0) -> Labelling:
    """The labelling of the most probable path: the best label of each frame, collapsed.

    log_probs: (T, C). Graves et al. 2006, section 3.2, "best path decoding".
    """
    path = log_probs.detach().numpy().argmax(-1).tolist()
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def prefix_beam_search(
    log_probs: torch.Tensor, beam: int = 16, blank: int = 0
) -> list[tuple[Labelling, float]]:
    """The most probable labellings that were found, best first, each with its log p in nats.

    After each frame the `beam` most probable prefixes go on. How a path ends decides what its last
    label means when it is said again: after a blank a new label, else still the old one. A log p is
    a lower bound, for paths through prefixes that were dropped are missing in it.

    log_probs: (T, C). Hannun et al., "First-pass large vocabulary continuous speech recognition
    using bi-directional recurrent DNNs", arXiv 1408.2873, 2014, algorithm 1, without its language
    model.
    """
    if beam < 1:
        raise ValueError(f"prefix_beam_search: beam must be at least 1, got {beam}")
    prefixes: dict[Labelling, Ends] = {(): (0.0, -math.inf)}
    for frame in log_probs.detach().numpy().tolist():
        longer: dict[Labelling, Ends] = {}
        for prefix, (blank_last, label_last) in prefixes.items():
            either = _sum(blank_last, label_last)
            for label, score in enumerate(frame):
                if label == blank:
                    _add(longer, prefix, blank_last=either + score)
                elif prefix[-1:] == (label,):
                    _add(longer, prefix, label_last=label_last + score)
                    _add(longer, (*prefix, label), label_last=blank_last + score)
                else:
                    _add(longer, (*prefix, label), label_last=either + score)
        best = sorted(longer.items(), key=_rank)[:beam]
        prefixes = {prefix: ends for prefix, ends in best if max(ends) > -math.inf}
    return [(prefix, _sum(*ends)) for prefix, ends in prefixes.items()]


def _add(
    prefixes: dict[Labelling, Ends],
    prefix: Labelling,
    blank_last: float = -math.inf,
    label_last: float = -math.inf,
) -> None:
    """Add paths to those that a prefix has."""
    known = prefixes.get(prefix, (-math.inf, -math.inf))
    prefixes[prefix] = _sum(known[0], blank_last), _sum(known[1], label_last)


def _sum(a: float, b: float) -> float:
    """log(eᵃ + eᵇ)."""
    return float(np.logaddexp(a, b))


def _rank(item: tuple[Labelling, Ends]) -> tuple[float, Labelling]:
    """The most probable first, and of equals the first by its labels."""
    prefix, ends = item
    return -_sum(*ends), prefix
