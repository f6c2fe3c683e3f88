"""How do numbers become a table that a person can read?

Columns of text, and quantities in three digits with the unit that fits. What goes into the tables
is in the files that print them.
"""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 100  # characters in a line, at most


def table(align: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, with a line drawn below the header.

    align: for each column "l" or "r", left or right. Where the table would be wider than WIDTH, the
    widest of the columns on the left side are cut, with "…" at the end.

    >>> for line in table("lr", ["fruit", "number"], [["apple", "7"], ["pear", "12"]]):
    ...     print(line)
    fruit  number
    -------------
    apple       7
    pear       12
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    texts = [place for place, side in enumerate(align) if side == "l"]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > WIDTH:
        widest = max(texts, key=widths.__getitem__)
        if widths[widest] <= len(header[widest]):
            break
        widths[widest] -= 1
    lines = [_line(align, row, widths) for row in (header, *rows)]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


_GAP = "  "


def _line(align: str, row: Sequence[str], widths: Sequence[int]) -> str:
    shown = []
    for side, text, width in zip(align, row, widths, strict=True):
        if len(text) > width:
            text = text[: width - 1] + "…"
        shown.append(text.ljust(width) if side == "l" else text.rjust(width))
    return _GAP.join(shown).rstrip()


def _three_digits(value: float) -> str:
    """1.23, 12.3, 123."""
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def scaled(value: float, units: Sequence[str], step: int) -> str:
    """A quantity in the largest unit of which there is at least one; units: each `step` times more.

    >>> scaled(1234567, ("", "k", "M"), 1000)
    '1.23 M'
    """
    place = 0
    while value > step * 0.9995 and place < len(units) - 1:  # would be shown as `step` of the unit
        value /= step
        place += 1
    text = str(value) if isinstance(value, int) else _three_digits(value)
    return f"{text} {units[place]}".rstrip()


def amount(number: int) -> str:
    """A count of FLOPs, in thousands, millions (M), billions (G), …

    >>> amount(999), amount(35_400_000)
    ('999', '35.4 M')
    """
    return scaled(number, ("", "k", "M", "G", "T", "P"), 1000)


def bytes_(number: int) -> str:
    """An amount of memory.

    >>> bytes_(1000), bytes_(3 << 20)
    ('1000 B', '3.00 MiB')
    """
    return scaled(number, ("B", "KiB", "MiB", "GiB", "TiB"), 1024)


def seconds(value: float) -> str:
    """A duration.

    >>> seconds(0.0001234), seconds(12.34)
    ('123 µs', '12.3 s')
    """
    for unit, size in (("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3)):
        if value < 999.5 * size:
            return f"{_three_digits(value / size)} {unit}"
    return f"{_three_digits(value)} s"
