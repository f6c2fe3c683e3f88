"""How well can the next symbol be guessed by counting alone? Models of n-grams, as yardsticks.

An n-gram model looks at the last n - 1 symbols and asks what followed them in the training text.
A network that does not beat it has learnt nothing that counting would not find. Not a program:
`language_models.py` and `scheduled_sampling.py` use it. Read `tinygrad_rnn/char_lm/baselines.py`
for the case n = 2 in array form.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import Any


class NGrams:
    """p(b | context) by counts in a text, of contexts up to n - 1 symbols long.

    Each longer context corrects the guess of the one that is a symbol shorter:

        p(b | c) = (n(c, b) + d(c) p(b | c without its first symbol)) / (n(c) + d(c))

    n(c, b) counts how often b followed c, d(c) how many different symbols did (Witten and Bell,
    1991, method C). The shortest guess is 1 / alphabet, so that nothing is impossible.

    text: a string, or a tuple of any symbols. alphabet: how many different ones there may be.

    >>> model = NGrams(2, "abab", alphabet=2)
    >>> model.chance("b", "ba")  # a was seen twice and followed by b both times; p(b) is 1/2
    0.8333333333333334
    """

    def __init__(self, n: int, text: Sequence[Hashable], alphabet: int) -> None:
        self.n = n
        self.alphabet = alphabet
        self.followers: defaultdict[Any, Counter[Hashable]] = defaultdict(Counter)
        for length in range(n):
            for end in range(length, len(text)):
                self.followers[text[end - length : end]][text[end]] += 1
        self._totals = {context: found.total() for context, found in self.followers.items()}

    def chance(self, symbol: Hashable, before: Sequence[Hashable]) -> float:
        """p(symbol | the last n - 1 of `before`)."""
        p = 1 / self.alphabet
        for length in range(min(self.n - 1, len(before)) + 1):
            context = before[len(before) - length :]
            if context not in self._totals:
                break  # nor was any longer one seen
            found = self.followers[context]
            p = (found[symbol] + len(found) * p) / (self._totals[context] + len(found))
        return p

    def surprises(
        self, text: Sequence[Hashable], start: int = 0, n: int | None = None
    ) -> list[float]:
        """-ln p of each symbol from `start` on, in nats, given up to n - 1 before it."""
        reach = (n or self.n) - 1
        return [
            -math.log(self.chance(text[k], text[max(0, k - reach) : k]))
            for k in range(start, len(text))
        ]
