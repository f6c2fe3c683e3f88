"""In which order do boxes stand beside each other, so that few arrows cross?

Each row is sorted by the mean place of what its members are linked with in the next row, downwards
and upwards in turn; then neighbours are exchanged where that saves crossings. This is done from
several orders to begin with, and the best order met on the way is taken. (To find the very best is
NP-hard even for two rows.)
Sources: Sugiyama, Tagawa and Toda 1981 for the means; Gansner, Koutsofios, North and Vo, "A
technique for drawing directed graphs", 1993, for the exchanges. layout.py calls this file.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from itertools import pairwise
from random import Random

SWEEPS = 8
STARTS = 24  # orders to begin with, at most
MEMBERS = 4000  # to be ordered in all starts together, so that large graphs have fewer

#: For each member of a row, what it is linked with in the row above, or below.
Links = Sequence[Sequence[int]]


def ordered(rows: Sequence[Sequence[int]], above: Links, below: Links) -> list[list[int]]:
    """The rows with their members in another order, with few crossings between them.

    Always the same for the same rows: the orders to begin with are drawn from a fixed seed.
    """
    random = Random(0)
    best = [list(row) for row in rows]
    fewest = crossings(best, below)
    for start in range(min(STARTS, 1 + MEMBERS // max(len(below), 1))):
        current = [list(row) for row in rows]
        if start:
            current = [sorted(row, key=lambda _: random.random()) for row in current]
        for sweep in range(SWEEPS):
            if not fewest:
                return best
            current = _swept(current, above, below, down=sweep % 2 == 0)
            count = crossings(current, below)
            if count < fewest:
                best, fewest = current, count
    return best


def _swept(rows: list[list[int]], above: Links, below: Links, down: bool) -> list[list[int]]:
    """The rows after one sweep, downwards or upwards."""
    swept = [list(row) for row in rows]
    for k in range(1, len(swept)) if down else range(len(swept) - 2, -1, -1):
        fixed = swept[k - 1 if down else k + 1]
        swept[k] = _by_means(swept[k], above if down else below, _places(fixed))
    _exchange(swept, above, below)
    return swept


def crossings(rows: Sequence[Sequence[int]], below: Links) -> int:
    """How many pairs of links between neighbouring rows cross."""
    count = 0
    for upper, lower in pairwise(rows):
        places = _places(lower)
        passed: list[int] = []  # the ends of links that start further left, sorted
        for number in upper:
            ends = sorted(places[k] for k in below[number])
            count += _inversions(passed, ends)
            for end in ends:
                insort(passed, end)
    return count


def _places(row: Sequence[int]) -> dict[int, int]:
    return {number: place for place, number in enumerate(row)}


def _by_means(row: list[int], links: Links, places: dict[int, int]) -> list[int]:
    """A row sorted by the mean places of its links; who has none stays where it is."""
    means = {k: sum(places[j] for j in links[k]) / len(links[k]) for k in row if links[k]}
    moving = iter(sorted(means, key=means.__getitem__))  # stable: equals keep their order
    return [next(moving) if k in means else k for k in row]


def _exchange(rows: list[list[int]], above: Links, below: Links) -> None:
    """Exchange neighbours as long as that saves crossings."""
    for k, row in enumerate(rows):
        sides = [
            (links, _places(rows[other]))
            for links, other in ((above, k - 1), (below, k + 1))
            if 0 <= other < len(rows)
        ]
        ends = {j: [sorted(places[i] for i in links[j]) for links, places in sides] for j in row}
        improved = True
        while improved:
            improved = False
            for place in range(len(row) - 1):
                a, b = row[place], row[place + 1]
                now = sum(_inversions(x, y) for x, y in zip(ends[a], ends[b], strict=True))
                then = sum(_inversions(y, x) for x, y in zip(ends[a], ends[b], strict=True))
                if then < now:
                    row[place], row[place + 1] = b, a
                    improved = True


def _inversions(left: Sequence[int], right: Sequence[int]) -> int:
    """How many pairs of a left and a right end stand the other way round; both are sorted."""
    return sum(len(left) - bisect_left(left, end + 1) for end in right)
