"""Dates as people write them, and as ISO 8601 writes them: pairs to translate, without end.

    Tuesday, 3 March 1998    3.3.98    mar 3 1998    ->    1998-03-03

Days stand before months where both are numbers, and years of two digits mean 1950 to 2049. Every
tenth day of the calendar is held out: no training pair has it, in whatever form. `write` also says
which characters tell the day, which the month, which the year. Read by `translation.py`.
"""

from __future__ import annotations

import datetime
from string import Formatter
from typing import NamedTuple

import tinygrad_rnn as torch

FIRST = datetime.date(1950, 1, 1).toordinal()
DAYS = datetime.date(2050, 1, 1).toordinal() - FIRST
EACH = 10  # one in so many days is held out
BETWEEN = "; "  # several dates in one text

WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August"]
MONTHS += ["September", "October", "November", "December"]
FORMS = (
    "{weekday}, {day} {month} {year}",
    "{month} {day}, {year}",
    "the {nth} of {month} {year}",
    "{wd} {day} {mon} {year}",
    "{mon} {day} {year}",
    "{day} {mon} '{yy}",
    "{dd}.{mm}.{year}",
    "{day}.{m}.{yy}",
    "{dd}/{mm}/{yy}",
    "{year}/{m}/{day}",
)
PARTS = ("year", "month", "day", "rest")
ISO_PLACES = {"year": slice(4), "month": slice(5, 7), "day": slice(8, 10)}  # in 1998-03-03


class Written(NamedTuple):
    """A date in some form, and which of the PARTS each of its characters tells."""

    text: str
    parts: list[str]


def write(date: datetime.date, form: str, lower: bool = False) -> Written:
    """A date in one of the FORMS.

    >>> write(datetime.date(1998, 3, 3), "{nth} {mon}", lower=True)
    Written(text='3rd mar', parts=['day', 'day', 'day', 'rest', 'month', 'month', 'month'])
    """
    weekday, month = WEEKDAYS[date.weekday()], MONTHS[date.month - 1]
    ending = {1: "st", 2: "nd", 3: "rd"}.get(0 if date.day // 10 == 1 else date.day % 10, "th")
    fields = {
        "weekday": ("rest", weekday),
        "wd": ("rest", weekday[:3]),
        "day": ("day", f"{date.day}"),
        "dd": ("day", f"{date.day:02}"),
        "nth": ("day", f"{date.day}{ending}"),
        "month": ("month", month),
        "mon": ("month", month[:3]),
        "m": ("month", f"{date.month}"),
        "mm": ("month", f"{date.month:02}"),
        "year": ("year", f"{date.year}"),
        "yy": ("year", f"{date.year % 100:02}"),
    }
    text, parts = "", []
    for between, field, *_ in Formatter().parse(form):
        part, value = fields[field] if field else ("rest", "")
        text += between + value
        parts += ["rest"] * len(between) + [part] * len(value)
    return Written(text.lower() if lower else text, parts)


def some_dates(count: int, held_out: bool = False) -> list[datetime.date]:
    """Random days: of those held out, or of the others."""
    tens = torch.randint(0, DAYS // EACH, (count,)).tolist()
    ones = [0] * count if held_out else torch.randint(1, EACH, (count,)).tolist()
    return [
        datetime.date.fromordinal(FIRST + EACH * ten + one)
        for ten, one in zip(tens, ones, strict=True)
    ]


def write_some(dates: list[datetime.date]) -> list[Written]:
    """Each date in a random form."""
    forms = torch.randint(0, len(FORMS), (len(dates),)).tolist()
    lower = torch.randint(0, 2, (len(dates),)).tolist()
    return [
        write(date, FORMS[form], bool(small))
        for date, form, small in zip(dates, forms, lower, strict=True)
    ]


def some_pairs(count: int, dates: int = 1, held_out: bool = False) -> list[tuple[str, str]]:
    """Pairs of texts: so many random dates in random forms, and the same dates in ISO form."""
    pairs = []
    for _ in range(count):
        chosen = some_dates(dates, held_out)
        source = BETWEEN.join(text for text, _ in write_some(chosen))
        pairs.append((source, BETWEEN.join(date.isoformat() for date in chosen)))
    return pairs
