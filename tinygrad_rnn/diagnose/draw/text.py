"""How wide is a text, where no font can be asked?

From tables of usual widths: every character of a monospaced font is 0.6 of its size wide, those of
a sans-serif font are narrow, wide or in between. A little is added, since the reader's fonts are
not known.
"""

from __future__ import annotations

import unicodedata

TEXT_SIZE = 12.0  # of an equation in its box
FORM_SIZE = 10.0  # of the shape below it
TITLE_SIZE = 14.0
NOTE_SIZE = 11.0

_MONO = 0.61
_NARROW, _WIDE = frozenset("fijlrtI.,:;'|!()[] "), frozenset("mwMW@%…")


def mono_width(text: str, size: float) -> float:
    """The width of a text in a monospaced font; Chinese characters and the like are two wide."""
    cells = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
    return cells * _MONO * size


def sans_width(text: str, size: float, bold: bool = False) -> float:
    """About the width of a text in a sans-serif font such as Helvetica, Arial or DejaVu Sans."""
    return sum(map(_share, text)) * size * (1.12 if bold else 1.0)


def _share(letter: str) -> float:
    """The width of a letter as a share of the size of the font."""
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    if letter in _NARROW:
        return 0.36
    if letter in _WIDE:
        return 0.95
    return 0.7 if letter.isupper() else 0.6


def wrapped(text: str, size: float, width: float) -> list[str]:
    """A sans-serif text in lines of at most this width; a single word may be wider."""
    lines: list[str] = []
    for word in text.split():
        if lines and sans_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
