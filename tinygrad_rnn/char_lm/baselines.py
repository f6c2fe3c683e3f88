"""How well can a text be guessed without a network? Two models made of counts, as yardsticks.

The unigram model knows how frequent each character is, the bigram model also which character came
just before. A network whose loss is below the bigram's has learnt something that reaches further
back than one character. Losses are in nats per character. Read `text.py` before this file.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]


class Baselines(NamedTuple):
    """Losses on held-out text, in nats per character."""

    unigram: float
    bigram: float


def baselines(training: Tokens, inputs: Tokens, targets: Tokens, symbols: int) -> Baselines:
    """The losses of both models, fitted to `training`, on guessing `targets[k]` after `inputs[k]`.

    training: (N,) numbers below `symbols`. inputs, targets: (M,).
    """
    unigram = _unigram(training, symbols)
    return Baselines(
        unigram=float(-np.log(unigram[targets]).mean()),
        bigram=float(-np.log(_bigram(training, unigram, inputs, targets)).mean()),
    )


def _unigram(training: Tokens, symbols: int) -> NDArray[np.float64]:
    """p(b) = (n(b) + 1) / (N + V), Laplace's rule: (V,)."""
    counts = np.bincount(training, minlength=symbols)
    return np.asarray((counts + 1) / (len(training) + symbols), np.float64)


def _bigram(
    training: Tokens, unigram: NDArray[np.float64], before: Tokens, after: Tokens
) -> NDArray[np.float64]:
    """p(b | a) = (n(a, b) + d(a) p(b)) / (n(a) + d(a)) for each pair (a, b): (M,).

    n counts occurrences, d(a) is the number of different characters seen after a. The more of
    them, the likelier is yet another one: Witten and Bell, "The zero-frequency problem", 1991,
    method C, interpolated with the unigram model.
    """
    symbols = len(unigram)
    # A pair as one number; only pairs that occur take memory.
    pairs, counts = np.unique(training[:-1] * symbols + training[1:], return_counts=True)
    first = pairs // symbols
    total = np.bincount(first, weights=counts, minlength=symbols)  # n(a)
    different = np.bincount(first, minlength=symbols)  # d(a)

    wanted = before * symbols + after
    place = np.searchsorted(pairs, wanted).clip(max=len(pairs) - 1)
    seen = np.where(pairs[place] == wanted, counts[place], 0)  # n(a, b)
    never = total[before] == 0  # nothing is known about what follows a
    weight = np.where(never, 1, different[before])
    return np.asarray((seen + weight * unigram[after]) / (total[before] + weight), np.float64)
