"""Where does everything stand?

In the way of Sugiyama, Tagawa and Toda ("Methods for visual understanding of hierarchical system
structures", 1981): boxes stand in rows, so that every arrow leads downwards; an arrow across
several rows gets a point in each; rows are ordered so that few arrows cross (ordering.py); then
they are moved sideways until arrows are nearly straight (aligning.py). Between rows there are only
arrows, and in a row every box and point has room of its own, so no arrow passes through a box.
What leads back, from the end of a loop to its start, goes round on the right.
Read diagram.py before this file; svg.py draws what it gives.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tinygrad_rnn.diagnose.draw.aligning import aligned, spaced
from tinygrad_rnn.diagnose.draw.diagram import LEAVES, Arrow, Diagram
from tinygrad_rnn.diagnose.draw.ordering import ordered
from tinygrad_rnn.diagnose.draw.text import (
    FORM_SIZE,
    NOTE_SIZE,
    TEXT_SIZE,
    TITLE_SIZE,
    mono_width,
    wrapped,
)

MARGIN = 16.0  # around the drawing
HEIGHT = 38.0  # of a box
PADDING = 10.0  # between a box's text and its sides
APART = 16.0  # between neighbours in a row
POINT = 8.0  # the room that an arrow has where it passes a row
HEADING = 170.0  # the column at the left for what frames are called
INSIDE = 14.0  # between a frame and what is in it
BETWEEN = 14.0  # between two frames
GAP = 26.0  # between two rows, at least
LANE = 10.0  # between two arrows that lead back
LINE = 15.0  # from a line of notes to the next
BESIDE = 4  # leaves side by side above the same use
PORTS = 0.36  # how far from its middle arrows meet a box, as a share of its width
CORNER = 14.0  # of a box, where no arrow meets it


class Rectangle(NamedTuple):
    """x, y: the upper left corner; y grows downwards."""

    x: float
    y: float
    width: float
    height: float


#: The points of an arrow. Between two that share an x or a y it is straight, else it swings.
Path = list[tuple[float, float]]


class Layout(NamedTuple):
    """The places of a diagram's boxes and arrows, and of its regions' frames, None without one.

    headings: the notes of each region, broken into lines.
    """

    width: float
    height: float
    boxes: list[Rectangle]
    arrows: list[Path]
    frames: list[Rectangle | None]
    headings: list[list[str]]


class Grid(NamedTuple):
    """Boxes, and points of arrows that pass a row, in rows. Points are numbered after the boxes.

    rows: the members of each row, from left to right. regions: the region of each row.
    above, below: what each member is linked with in the row above, and below.
    row_of: the row of each box.
    points: for each value, (source, output), its point in each row that it passes.
    """

    rows: list[list[int]]
    regions: list[int]
    above: list[list[int]]
    below: list[list[int]]
    row_of: list[int]
    points: dict[tuple[int, int], dict[int, int]]

    def leads_down(self, arrow: Arrow) -> bool:
        """Whether an arrow's target stands below its source; else it leads back."""
        return self.row_of[arrow.source] < self.row_of[arrow.target]


def lay_out(diagram: Diagram) -> Layout:
    """The places of everything in a diagram; the same for the same diagram."""
    grid = _grid(diagram)
    grid = grid._replace(rows=ordered(grid.rows, grid.above, grid.below))
    widths = [
        max(mono_width(box.text, TEXT_SIZE), mono_width(f"{box.tag}  {box.form}", FORM_SIZE))
        + 2 * PADDING
        for box in diagram.boxes
    ]
    widths += [POINT] * (len(grid.above) - len(widths))
    middles = aligned(grid.rows, grid.above, grid.below, widths, APART, len(diagram.boxes))
    return _Drafting(diagram, grid, widths, middles).layout()


def _grid(diagram: Diagram) -> Grid:
    """Every box in a row, and a point wherever an arrow passes a row; uses of a value share it."""
    row_of, regions = _rows_of_boxes(diagram)
    rows: list[list[int]] = [[] for _ in regions]
    for number, row in enumerate(row_of):
        rows[row].append(number)
    above: list[list[int]] = [[] for _ in row_of]
    below: list[list[int]] = [[] for _ in row_of]
    points: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    grid = Grid(rows, regions, above, below, row_of, points)

    def link(upper: int, lower: int) -> int:
        if lower not in below[upper]:
            below[upper].append(lower)
            above[lower].append(upper)
        return lower

    for arrow in filter(grid.leads_down, diagram.arrows):
        last = arrow.source
        own = points[arrow.source, arrow.output]
        for row in range(row_of[arrow.source] + 1, row_of[arrow.target]):
            if row not in own:
                own[row] = len(above)
                rows[row].append(own[row])
                above.append([])
                below.append([])
            last = link(last, own[row])
        link(last, arrow.target)
    return grid


def _rows_of_boxes(diagram: Diagram) -> tuple[list[int], list[int]]:
    """The row of every box, and the region of every row."""
    boxes = diagram.boxes
    row_of = _rows_within_regions(diagram)
    regions: list[int] = []
    for region in range(len(diagram.regions)):
        members = [k for k, box in enumerate(boxes) if box.region == region]
        shift = len(regions) - min((row_of[k] for k in members), default=0)
        for k in members:
            row_of[k] += shift
            regions += [region] * (row_of[k] + 1 - len(regions))
    return row_of, regions


def _rows_within_regions(diagram: Diagram) -> list[int]:
    """The row of every box, counted in its region from anywhere.

    An operation stands below all that it reads. A state stands at the top. Any other leaf, and what
    is computed of such leaves alone, stands right above its first use; but no more than so many for
    one use, and further leaves go above them.
    """
    boxes = diagram.boxes
    reads: list[list[int]] = [[] for _ in boxes]  # those in the same region
    uses: list[list[int]] = [[] for _ in boxes]
    for source, _, target, _, carry in diagram.arrows:
        if boxes[source].region == boxes[target].region and not carry:
            reads[target].append(source)
            uses[source].append(target)
    above_all = dict.fromkeys(range(len(diagram.regions)), -1)  # the row above all operations
    above_all |= {box.region: 0 for box in boxes if box.kind == "state"}
    row_of = [above_all[box.region] for box in boxes]
    moves = [box.kind in LEAVES for box in boxes]  # downwards, to where it is used
    for number, box in enumerate(boxes):  # what is read has a lower number
        if box.kind != "state" and not moves[number]:
            moves[number] = all(moves[k] for k in reads[number])
            rows = [row_of[k] for k in reads[number] if moves[number] or not moves[k]]
            row_of[number] = max(rows, default=above_all[box.region]) + 1
    beside: Counter[int] = Counter()
    for leaves in (False, True):  # first what is computed
        for number in reversed(range(len(boxes))):
            if moves[number] and uses[number] and leaves == (not reads[number]):
                use = min(uses[number], key=row_of.__getitem__)
                row_of[number] = row_of[use] - 1 - leaves * (beside[use] // BESIDE)
                beside[use] += 1
    return row_of


class _Drafting:
    """The drawing of a grid whose members know their middles: from there on, pen and ruler."""

    def __init__(
        self, diagram: Diagram, grid: Grid, widths: Sequence[float], middles: Sequence[float]
    ) -> None:
        self.diagram, self.grid, self.widths = diagram, grid, widths
        self.framed = any(region.title for region in diagram.regions)
        left = MARGIN + (INSIDE + HEADING if self.framed else 0.0)
        self.middles = [left + x for x in middles]
        back = [k for k, arrow in enumerate(diagram.arrows) if not grid.leads_down(arrow)]
        self.back = sorted(back, key=lambda k: grid.row_of[diagram.arrows[k].source])
        self.exits = self._exits()
        self.entries = self._entries()
        self.tops: list[float] = []  # of the rows

    def layout(self) -> Layout:
        """All coordinates."""
        spans, headings, bottom = self._down_the_page()
        boxes = [
            Rectangle(self.middles[k] - self.widths[k] / 2, self.tops[row], self.widths[k], HEIGHT)
            for k, row in enumerate(self.grid.row_of)
        ]
        arrows = [
            self._round(k) if k in self.back else self._downwards(k)
            for k in range(len(self.diagram.arrows))
        ]
        right = max([x for arrow in arrows for x, _ in arrow], default=0.0)
        right = max([right, *(box.x + box.width for box in boxes)])
        right += INSIDE if self.framed else 0.0
        frames = [
            None if span is None else Rectangle(MARGIN, span[0], right - MARGIN, span[1] - span[0])
            for span in spans
        ]
        return Layout(right + MARGIN, bottom, boxes, arrows, frames, headings)

    # Where arrows leave and enter boxes.

    def _exits(self) -> dict[tuple[int, int], float]:
        """The x at which each value leaves its box, values in the order of where they go."""
        goals: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        for arrow in self.diagram.arrows:
            goal = self._neighbours(arrow)[0] if self.grid.leads_down(arrow) else arrow.source
            goals[arrow.source][arrow.output].append(goal)
        exits: dict[tuple[int, int], float] = {}
        for box, outputs in goals.items():
            wishes = {}
            for output, met in outputs.items():
                mean = sum(self.middles[goal] for goal in met) / len(met)
                passes = len({*met}) == 1 and met[0] >= len(self.diagram.boxes)
                wishes[output] = mean if passes or len(outputs) > 1 else self.middles[box]
            exits.update(((box, output), x) for output, x in self._ports(box, wishes))
        return exits

    def _entries(self) -> dict[int, float]:
        """The x at which each arrow enters its box, in the order of where they come from."""
        origins: dict[int, dict[int, float]] = defaultdict(dict)
        for k, arrow in enumerate(self.diagram.arrows):
            last = self._neighbours(arrow)[1]
            if not self.grid.leads_down(arrow):
                wish = self.middles[arrow.target] + self.widths[arrow.target]
            elif last == arrow.source:
                wish = self.exits[last, arrow.output]
            else:
                wish = self.middles[last]
            origins[arrow.target][k] = wish
        return {k: x for box, wishes in origins.items() for k, x in self._ports(box, wishes)}

    def _ports(self, box: int, wishes: dict[int, float]) -> Iterable[tuple[int, float]]:
        """A port for each key, as near to where it wants to be as the others and the box let it."""
        reach = min(self.widths[box] * PORTS, self.widths[box] / 2 - CORNER)
        left, right = self.middles[box] - reach, self.middles[box] + reach
        keys = sorted(wishes, key=lambda k: (wishes[k], k))
        step = min(18.0, 2 * reach / len(keys))
        xs = spaced([wishes[k] for k in keys], [1.0] * len(keys), [step] * (len(keys) - 1))
        for place, (key, x) in enumerate(zip(keys, xs, strict=True)):
            lowest, highest = left + step * place, right - step * (len(keys) - 1 - place)
            yield key, min(max(x, lowest), highest)

    def _neighbours(self, arrow: Arrow) -> tuple[int, int]:
        """What an arrow meets first, and what last: points, or its own ends."""
        own, row_of = self.grid.points[arrow.source, arrow.output], self.grid.row_of
        first = own.get(row_of[arrow.source] + 1, arrow.target)
        last = own.get(row_of[arrow.target] - 1, arrow.source)
        if row_of[arrow.source] + 1 == row_of[arrow.target]:
            return arrow.target, arrow.source
        return first, last

    # From top to bottom.

    def _down_the_page(self) -> tuple[list[tuple[float, float] | None], list[list[str]], float]:
        """From where to where each frame goes, its notes in lines, and the end; fills `tops`."""
        grid, arrows = self.grid, self.diagram.arrows
        leaving = Counter(grid.row_of[arrows[k].source] for k in self.back)
        arriving = Counter(grid.row_of[arrows[k].target] for k in self.back)
        y = MARGIN + (2 * LINE if self.diagram.title else 0.0)
        spans: list[tuple[float, float] | None] = []
        headings = []
        for number, region in enumerate(self.diagram.regions):
            notes = (wrapped(note, NOTE_SIZE, HEADING - 12) for note in region.notes)
            lines = [line for note in notes for line in note]
            top = y
            y += INSIDE if region.title else 0.0
            rows = [row for row, own in enumerate(grid.regions) if own == number]
            for row in rows:
                y += LANE * arriving[row] + (0.0 if row == rows[0] else GAP)
                self.tops.append(y)
                y += HEIGHT + LANE * leaving[row] + self._swing(row)
            if region.title:
                y = max(y, top + INSIDE + TITLE_SIZE + LINE * len(lines)) + INSIDE
            spans.append((top, y) if region.title else None)
            headings.append(lines)
            y += BETWEEN if region.title else GAP
        return spans, headings, y

    def _swing(self, row: int) -> float:
        """What is added below a row so that wide swings do not become flat."""
        widest = max(
            (
                abs(self.middles[a] - self.middles[b])
                for a in self.grid.rows[row]
                for b in self.grid.below[a]
            ),
            default=0.0,
        )
        return min(36.0, widest / 14)

    # The arrows.

    def _downwards(self, k: int) -> Path:
        """From a box to one below it, past the rows between them."""
        arrow, grid = self.diagram.arrows[k], self.grid
        start, end = grid.row_of[arrow.source], grid.row_of[arrow.target]
        path = [(self.exits[arrow.source, arrow.output], self.tops[start] + HEIGHT)]
        for row in range(start + 1, end):
            x = self.middles[grid.points[arrow.source, arrow.output][row]]
            path += [(x, self.tops[row]), (x, self.tops[row] + HEIGHT)]
        return [*path, (self.entries[k], self.tops[end])]

    def _round(self, k: int) -> Path:
        """From the end of a loop to its start, round on the right, in a lane of its own."""
        arrow, row_of, region_of = self.diagram.arrows[k], self.grid.row_of, self.grid.regions
        start, goal = row_of[arrow.source], row_of[arrow.target]
        nearer = [self.diagram.arrows[j] for j in self.back[: self.back.index(k)]]
        nearer = [other for other in nearer if region_of[row_of[other.target]] == region_of[goal]]
        rows = (row for row, own in enumerate(region_of) if own == region_of[goal])
        members = [number for row in rows for number in self.grid.rows[row]]
        right = max(self.middles[number] + self.widths[number] / 2 for number in members)
        lane = right + INSIDE + LANE * len(nearer)
        low = self.tops[start] + HEIGHT
        low += LANE * (0.6 + sum(row_of[other.source] == start for other in nearer))
        high = self.tops[goal]
        high -= LANE * (1.2 + sum(row_of[other.target] == goal for other in nearer))
        x, end = self.exits[arrow.source, arrow.output], self.entries[k]
        return [
            (x, self.tops[start] + HEIGHT),
            (x, low),
            (lane, low),
            (lane, high),
            (end, high),
            (end, self.tops[goal]),
        ]
