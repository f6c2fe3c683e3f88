"""Sentences in two languages: reading them, holding some out, and judging translations.

A file has a pair on each line, the columns divided by tabs; further columns are left alone. Such
files, short sentences by the thousand, come from the Tatoeba project for many pairs of languages.
Read by `translation.py`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

from tinygrad_rnn.char_lm import TextError, read_text

LONGEST = 40  # characters; longer sentences are left out
EACH = 10  # one in so many sentences is held out

Pair = tuple[str, str]  # a sentence and its translation


def read_pairs(path: Path) -> list[Pair]:
    """The pairs (sentence, translation) of a file, neither longer than LONGEST.

    Raises TextError for a file that cannot be used.
    """
    pairs = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        columns = unicodedata.normalize("NFKC", line).split("\t")
        if len(columns) < 2 or not all(columns[:2]):
            raise TextError(f"{path}, line {number}: two columns divided by a tab are wanted")
        if max(map(len, columns[:2])) <= LONGEST:
            pairs.append((columns[0], columns[1]))
    if len({source for source, _ in pairs}) < EACH:
        raise TextError(f"{path} has fewer than {EACH} sentences of at most {LONGEST} characters")
    return pairs


def hold_out(pairs: list[Pair]) -> tuple[list[Pair], dict[str, list[str]]]:
    """The pairs to learn from, and every tenth sentence with all its translations, held out."""
    translations: dict[str, list[str]] = {}
    for source, target in pairs:
        translations.setdefault(source, []).append(target)
    held_out = {source: translations[source] for source in list(translations)[EACH - 1 :: EACH]}
    return [pair for pair in pairs if pair[0] not in held_out], held_out


def ngrams(text: str, n: int) -> Counter[str]:
    """How often each run of n characters is in a text, spaces left out."""
    letters = text.replace(" ", "")
    return Counter(letters[start : start + n] for start in range(len(letters) - n + 1))


def chrf(text: str, truth: str, longest: int = 6, beta: float = 2) -> float:
    """(1 + β²) P R / (β² P + R): how much of the true translation's n-grams was said, 0 to 1.

    P and R are the shares of the text's and of the truth's n-grams that the other has, too, each
    the mean over n = 1 … longest, as far as both are so long. Popović, "chrF: character n-gram
    F-score for automatic MT evaluation", 2015.

    >>> chrf("le chat", "le chat"), chrf("le chat", "un os")
    (1.0, 0.0)
    >>> round(chrf("ab", "abc"), 4)  # P = 1, R = (2/3 + 1/2) / 2: 5 P R / (4 P + R)
    0.6364
    """
    precisions, recalls = [], []
    for n in range(1, longest + 1):
        said, wanted = ngrams(text, n), ngrams(truth, n)
        if not said or not wanted:
            break
        common = (said & wanted).total()
        precisions.append(common / said.total())
        recalls.append(common / wanted.total())
    if not any(precisions):
        return 0.0
    precision, recall = (sum(shares) / len(shares) for shares in (precisions, recalls))
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def nearest(pairs: list[Pair], source: str) -> str:
    """The translation of the known sentence that has most letter pairs in common with a new one."""
    wanted = ngrams(source, 2)

    def overlap(pair: Pair) -> float:
        known = ngrams(pair[0], 2)
        return 2 * (known & wanted).total() / max(1, known.total() + wanted.total())

    return max(pairs, key=overlap)[1]
