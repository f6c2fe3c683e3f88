"""How far to the right does each member of a row stand, once their order is known?

As near as it can to the mean of what it is linked with: row by row, downwards and upwards in turn,
the places are moved that minimise the squared distances from those means, with room between
neighbours. That is an isotonic regression, which pooling neighbours that are in each other's way
solves exactly (Ayer et al., "An empirical distribution function for sampling with incomplete
information", 1955). Links of arrows that pass rows pull hardest, so long arrows become straight.
layout.py calls this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

SWEEPS = 24
TOGETHER = 8  # of these, the last ones in which both sides pull
INFINITY = float("inf")
PULLS = (1.0, 3.0, 10.0)  # of a link by how many of its ends are points
SLIGHT = 0.1  # the weight of a member without links


def aligned(
    rows: Sequence[Sequence[int]],
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
    widths: Sequence[float],
    apart: float,
    boxes: int,
) -> list[float]:
    """The middle of every member, the leftmost edge at 0.

    widths: of the members. apart: the room between neighbours.
    boxes: members from this number on are points of arrows.
    """
    middles = [0.0] * len(widths)
    gaps = [[(widths[a] + widths[b]) / 2 + apart for a, b in pairwise(row)] for row in rows]
    for row, between in zip(rows, gaps, strict=True):
        x = -sum(between) / 2
        for number, gap in zip(row, [*between, 0.0], strict=True):
            middles[number] = x
            x += gap

    def align(k: int, sides: Sequence[Sequence[Sequence[int]]]) -> None:
        wishes, weights = [], []
        for number in rows[k]:
            linked = [other for links in sides for other in links[number]]
            pulls = [PULLS[(number >= boxes) + (other >= boxes)] for other in linked]
            total = sum(pulls)
            pulled = sum(pull * middles[other] for pull, other in zip(pulls, linked, strict=True))
            wishes.append(pulled / total if total else middles[number])
            weights.append(total or SLIGHT)
        for number, x in zip(rows[k], spaced(wishes, weights, gaps[k]), strict=True):
            middles[number] = x

    for sweep in range(SWEEPS):
        both = (above, below) if sweep >= SWEEPS - TOGETHER else None
        for k in range(len(rows)):
            align(k, both or (above,))
        for k in reversed(range(len(rows))):
            align(k, both or (below,))
    for _ in range(2):
        _straighten(rows, above, gaps, middles, boxes)
    left = min((x - width / 2 for x, width in zip(middles, widths, strict=True)), default=0.0)
    return [x - left for x in middles]


def _straighten(
    rows: Sequence[Sequence[int]],
    above: Sequence[Sequence[int]],
    gaps: Sequence[Sequence[float]],
    middles: list[float],
    boxes: int,
) -> None:
    """Give successive points of an arrow one place, as far as their neighbours let them."""

    def room(row: int, place: int) -> tuple[float, float]:
        """From where to where a point may move."""
        here, low, high = middles[rows[row][place]], -INFINITY, INFINITY
        if place:
            low = middles[rows[row][place - 1]] + gaps[row][place - 1]
        if place < len(gaps[row]):
            high = middles[rows[row][place + 1]] - gaps[row][place]
        return min(low, here), max(high, here)  # where it is, it may stay

    for chain in _chains(rows, above, boxes):
        while chain:
            low, high = room(*chain[0])
            together = 1
            for lowest, highest in (room(*point) for point in chain[1:]):
                if max(low, lowest) > min(high, highest):
                    break
                low, high, together = max(low, lowest), min(high, highest), together + 1
            straight, chain = chain[:together], chain[together:]
            mean = sum(middles[rows[row][place]] for row, place in straight) / together
            for row, place in straight:
                middles[rows[row][place]] = min(max(mean, low), high)


def _chains(
    rows: Sequence[Sequence[int]], above: Sequence[Sequence[int]], boxes: int
) -> list[list[tuple[int, int]]]:
    """The points of each arrow that passes rows, as (row, place in it), from top to bottom."""
    chains: dict[int, list[tuple[int, int]]] = {}  # by the last point so far
    for row, members in enumerate(rows):
        for place, number in enumerate(members):
            if number >= boxes:
                chain = chains.pop(above[number][0], [])
                chains[number] = [*chain, (row, place)]
    return list(chains.values())


def spaced(wishes: Sequence[float], weights: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """The x_k that minimise Σ w_k (x_k - wish_k)² where x_{k+1} - x_k >= gap_k.

    >>> spaced([0.0, 0.0, 9.0], [1.0, 1.0, 1.0], [4.0, 4.0])
    [-2.0, 2.0, 9.0]
    """
    offsets = [0.0]
    for gap in gaps:
        offsets.append(offsets[-1] + gap)
    pools: list[tuple[float, float, int]] = []  # (mean of wish - offset, weight, members)
    for wish, weight, offset in zip(wishes, weights, offsets, strict=True):
        mean, members = wish - offset, 1
        while pools and pools[-1][0] >= mean:
            other, other_weight, other_members = pools.pop()
            mean = (mean * weight + other * other_weight) / (weight + other_weight)
            weight += other_weight
            members += other_members
        pools.append((mean, weight, members))
    means = [mean for mean, _, members in pools for _ in range(members)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]
