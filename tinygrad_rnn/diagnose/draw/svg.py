"""A drawing as SVG: how does everything look?

Boxes are coloured by kind, in tints that are told apart on white and whose dark text and borders
also print in grey. Whoever points at a box or an arrow is told more. There are no scripts, style
sheets or fonts in the text, so a drawing changes nothing on the page it is put into.
Read layout.py, which says where everything stands, before this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from itertools import pairwise

from tinygrad_rnn.diagnose.draw.diagram import KINDS, LEAVES, Arrow, Box, Diagram, Region
from tinygrad_rnn.diagnose.draw.layout import (
    INSIDE,
    LINE,
    MARGIN,
    Layout,
    Path,
    Rectangle,
    lay_out,
)
from tinygrad_rnn.diagnose.draw.text import (
    FORM_SIZE,
    NOTE_SIZE,
    TEXT_SIZE,
    TITLE_SIZE,
    sans_width,
)

#: The tint and the border of each kind of box.
COLOURS = {
    "parameter": ("#fff1d6", "#b7791f"),
    "constant": ("#fff1d6", "#b7791f"),
    "input": ("#ffffff", "#6b7280"),
    "sequence": ("#ffffff", "#6b7280"),
    "state": ("#fbe3ee", "#b83280"),
    "product": ("#d9e8fb", "#2b5ea7"),
    "gate": ("#d9f2e0", "#2f855a"),
    "squash": ("#e4f5d0", "#5f8a1f"),
    "elementwise": ("#f3f4f6", "#6b7280"),
    "reduction": ("#ede6fb", "#6b46c1"),
    "shape": ("#ffffff", "#a3a9b5"),
    "recurrence": ("#d9e8fb", "#1a365d"),
    "function": ("#fde2dc", "#c05621"),
    "output": ("#e2e8f0", "#1a202c"),
}
INK, PALE_INK, ARROW, CARRY = "#1a202c", "#4a5568", "#7b8494", "#b83280"
FRAME, PAPER = ("#fafbfc", "#cbd5e0"), "#ffffff"
MONO = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
SANS = "system-ui, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
ROUND = {*LEAVES, "state", "output"}
SWATCH = 12.0  # a colour in the legend
PILE = 3.0  # from one sheet of a pile to the next
TURN = 6.0  # the radius of a corner
HEAD = 6.0  # the length of an arrow's head


def svg(diagram: Diagram) -> str:
    """The drawing as an SVG document; the same for the same diagram."""
    layout = lay_out(diagram)
    width = max(layout.width, 2 * MARGIN + sans_width(diagram.title, TITLE_SIZE, bold=True))
    legend = list(_legend(diagram, layout.height, width))
    height = layout.height + (LINE + 8) * (1 + max((row for row, _ in legend), default=-1))
    size = f"{_number(width)} {_number(height)}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{_number(width)}" '
        f'height="{_number(height)}" role="img">',
        f"<title>{escape(diagram.title or 'graph')}</title>",
        f'<rect width="{_number(width)}" height="{_number(height)}" fill="{PAPER}"/>',
        f'<g font-family="{SANS}" fill="{INK}">',
        *_title(diagram),
        *_frames(diagram, layout),
        "</g>",
        *_arrows(diagram, layout),
        f'<g font-family="{MONO}" text-anchor="middle" fill="{INK}">',
        *(
            line
            for box, place in zip(diagram.boxes, layout.boxes, strict=True)
            for line in _box(box, place)
        ),
        "</g>",
        f'<g font-family="{SANS}" font-size="{NOTE_SIZE}" fill="{PALE_INK}">',
        *(line for _, line in legend),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _number(x: float) -> str:
    """A coordinate, to a tenth of a unit."""
    return f"{x:.1f}".removesuffix(".0")


def _title(diagram: Diagram) -> Iterator[str]:
    if diagram.title:
        yield (
            f'<text x="{_number(MARGIN)}" y="{_number(MARGIN + TITLE_SIZE)}" '
            f'font-size="{TITLE_SIZE}" font-weight="bold">{escape(diagram.title)}</text>'
        )


def _frames(diagram: Diagram, layout: Layout) -> Iterator[str]:
    tint, border = FRAME
    for region, frame, heading in zip(diagram.regions, layout.frames, layout.headings, strict=True):
        if frame is None:
            continue
        yield f'<rect {_place(frame)} rx="8" fill="{tint}" stroke="{border}"/>'
        yield from _heading(region, frame, heading)


def _heading(region: Region, frame: Rectangle, notes: Iterable[str]) -> Iterator[str]:
    x, y = frame.x + INSIDE, frame.y + INSIDE + TITLE_SIZE * 0.8
    yield (
        f'<text x="{_number(x)}" y="{_number(y)}" font-size="{TITLE_SIZE}" '
        f'font-weight="bold">{escape(region.title)}</text>'
    )
    for k, note in enumerate(notes):
        yield (
            f'<text x="{_number(x)}" y="{_number(y + 4 + LINE * (k + 1))}" '
            f'font-size="{NOTE_SIZE}" fill="{PALE_INK}">{escape(note)}</text>'
        )


def _place(rectangle: Rectangle) -> str:
    x, y, width, height = map(_number, rectangle)
    return f'x="{x}" y="{y}" width="{width}" height="{height}"'


def _box(box: Box, place: Rectangle) -> Iterator[str]:
    tint, border = COLOURS[box.kind]
    radius = 14 if box.kind in ROUND else 4
    style = f'rx="{_number(radius)}" fill="{tint}" stroke="{border}" stroke-width="1.3"'
    x = _number(place.x + place.width / 2)
    yield f"<g><title>{escape(box.tooltip)}</title>"
    for sheet in (2, 1) if box.stacked else ():
        moved = place._replace(x=place.x + PILE * sheet, y=place.y - PILE * sheet)
        yield f"<rect {_place(moved)} {style}/>"
    yield f"<rect {_place(place)} {style}/>"
    yield (
        f'<text x="{x}" y="{_number(place.y + 16)}" font-size="{TEXT_SIZE}">'
        f"{_text(box.text)}</text>"
    )
    yield (
        f'<text x="{x}" y="{_number(place.y + 30)}" font-size="{FORM_SIZE}" '
        f'fill="{PALE_INK}">{_tagged(box)}</text>'
    )
    yield "</g>"


def _text(text: str) -> str:
    """What is computed in ink, and in a paler one what it is called."""
    name, equals, right = text.partition(" = ")
    if not equals:
        return escape(text)
    return f'<tspan fill="{PALE_INK}">{escape(name)} = </tspan>{escape(right)}'


def _tagged(box: Box) -> str:
    """What the cell calls a value, and its shape."""
    if not box.tag:
        return escape(box.form)
    return f'<tspan fill="{INK}" font-weight="bold">{escape(box.tag)}</tspan>  {escape(box.form)}'


def _arrows(diagram: Diagram, layout: Layout) -> Iterator[str]:
    """Those that lead to the next step last, so that they are above the others."""
    pairs = list(zip(diagram.arrows, layout.arrows, strict=True))
    for carry, colour, width in ((False, ARROW, 1.2), (True, CARRY, 1.8)):
        yield f'<g fill="none" stroke="{colour}" stroke-width="{width}">'
        for arrow, path in pairs:
            if arrow.carry == carry:
                yield _arrow(arrow, path, colour)
        yield "</g>"


def _arrow(arrow: Arrow, path: Path, colour: str) -> str:
    """A path with a head; it enters its box from above."""
    x, y = path[-1]
    shaft = [*path[:-1], (x, y - HEAD)]
    left, right, tip, neck = map(_number, (x - 3, x + 3, y, y - HEAD))
    return (
        f"<g><title>{escape(arrow.tooltip)}</title>"
        f'<path d="{_curve(shaft)}"/>'
        f'<path d="M{_number(x)} {tip}L{left} {neck}L{right} {neck}Z" fill="{colour}" '
        'stroke="none"/></g>'
    )


def _curve(path: Path) -> str:
    """Straight where two points share a coordinate, with round corners; else swinging over."""
    x, y = path[0]
    parts = [f"M{_number(x)} {_number(y)}"]
    for k, ((x0, y0), (x1, y1)) in enumerate(pairwise(path)):
        if x0 != x1 and y0 != y1:
            middle = _number((y0 + y1) / 2)
            parts.append(
                f"C{_number(x0)} {middle} {_number(x1)} {middle} {_number(x1)} {_number(y1)}"
            )
        elif k + 2 < len(path) and _turns(path[k], path[k + 1], path[k + 2]):
            x2, y2 = path[k + 2]
            before, after = _towards((x1, y1), (x0, y0)), _towards((x1, y1), (x2, y2))
            parts.append(f"L{before}Q{_number(x1)} {_number(y1)} {after}")
        else:
            parts.append(f"L{_number(x1)} {_number(y1)}")
    return "".join(parts)


Point = tuple[float, float]


def _turns(a: Point, b: Point, c: Point) -> bool:
    """Whether the straight way from a to b goes on at a right angle."""
    return (a[0] == b[0] and b[1] == c[1]) or (a[1] == b[1] and b[0] == c[0])


def _towards(corner: Point, end: Point) -> str:
    """A point near a corner on the way to an end."""
    x, y = (a + max(-TURN, min(TURN, (b - a) / 2)) for a, b in zip(corner, end, strict=True))
    return f"{_number(x)} {_number(y)}"


def _legend(diagram: Diagram, top: float, right: float) -> Iterator[tuple[int, str]]:
    """What colours and letters mean, each with the number of the row it stands in."""
    present = {box.kind for box in diagram.boxes}
    entries = [(kind, label) for kind, label in KINDS.items() if kind in present]
    if any(arrow.carry for arrow in diagram.arrows):
        entries.append(("carry", "to the next step"))
    if any(box.tag for box in diagram.boxes):
        entries.append(("tag", "a variable of the cell"))
    x, row = MARGIN, 0
    for kind, label in entries:
        width = SWATCH + 6 + sans_width(label, NOTE_SIZE) + 16
        if x > MARGIN and x + width > right - MARGIN + 16:
            x, row = MARGIN, row + 1
        y = top + row * (LINE + 8)
        text = f'<text x="{_number(x + SWATCH + 6)}" y="{_number(y + 10)}">{escape(label)}</text>'
        yield row, _swatch(kind, Rectangle(x, y, SWATCH, SWATCH)) + text
        x += width


def _swatch(kind: str, place: Rectangle) -> str:
    """What the legend explains: a kind of box, the arrow to the next step, a variable's name."""
    if kind == "carry":
        y = _number(place.y + SWATCH / 2)
        return (
            f'<path d="M{_number(place.x)} {y}H{_number(place.x + SWATCH)}" stroke="{CARRY}" '
            'stroke-width="1.8"/>'
        )
    if kind == "tag":
        return (
            f'<text x="{_number(place.x + 2)}" y="{_number(place.y + 10)}" font-family="{MONO}" '
            f'font-weight="bold" fill="{INK}">h</text>'
        )
    tint, border = COLOURS[kind]
    radius = _number(SWATCH / 2 if kind in ROUND else 2)
    return f'<rect {_place(place)} rx="{radius}" fill="{tint}" stroke="{border}"/>'
