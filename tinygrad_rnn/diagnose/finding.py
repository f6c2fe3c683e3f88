"""What is known of a non-finite value: where it was made, of what, and in which words it is told.

`nan_search.py` finds them, `nan_advice.py` says what usually helps.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn.backend import is_array, namespace
from tinygrad_rnn.diagnose.table import WIDTH, table


class Values(NamedTuple):
    """What is in a tensor, in short.

    name: as the program calls it, or "". low, high: the lowest and highest of its finite values,
    nearest: the smallest magnitude among them; NaN if there are none.
    nans, infs: how many. first: the position of the first of them, or None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    nearest: float
    nans: int
    infs: int
    first: tuple[int, ...] | None

    @property
    def kind(self) -> str:
        """The worst there is: "NaN", "Inf", or "" if all are finite."""
        return "NaN" if self.nans else "Inf" if self.infs else ""

    @property
    def largest(self) -> float:
        """The largest finite magnitude; 0 if there is none."""
        return max(abs(self.low), abs(self.high)) if self.low <= self.high else 0.0


def values_of(value: Any, name: str = "") -> Values:
    """The Values of a Tensor, an array or a number."""
    array = getattr(value, "array", value)
    if not is_array(array):
        array = np.asarray(array)
    xp = namespace(array)
    bad = ~xp.isfinite(array)
    finite, count = array[~bad], bad.sum().item()
    nans = xp.isnan(array).sum().item() if count else 0
    first = tuple(xp.argwhere(bad)[0].tolist()) if count else None
    low = high = nearest = math.nan
    if finite.size:
        extremes = finite.min(), finite.max(), abs(finite).min()
        low, high, nearest = (float(x.item()) for x in extremes)
    shape, dtype = tuple(array.shape), str(array.dtype)
    return Values(name, shape, dtype, low, high, nearest, nans, count - nans, first)


class Finding(NamedTuple):
    """A NaN or Inf that was made of better values: NaN of Inf or finite ones, Inf of finite ones.

    direction: "given" if nothing made it: an input, a parameter or a buffer holds it; else
        "forward" or "backward".
    kind: "NaN" or "Inf".
    operation: the primitive, or the Function, that made it; of a given one "input", "parameter" or
        "buffer".
    recurrence, t, gate: in which recurrence, such as "LSTM layer 0 reverse", at which step from 1
        to T, and of which gate; "" and None if it was not in one.
    module: the path of the module, "" for the model itself. call: the how manieth of its calls.
    line: of the program, as "file:number: text".
    times: how often the same operation of the same recurrence or line made such a value, this one
        included.
    result: what was made; backward, the worst of the cotangents that the operation's rules gave.
    operands: what it was made of; backward, the cotangents that came in, and the values that the
        rules read.
    advice: what usually helps.
    """

    direction: str
    kind: str
    operation: str
    recurrence: str
    t: int | None
    gate: str
    module: str
    call: int
    line: str
    times: int
    result: Values
    operands: tuple[Values, ...]
    advice: str

    @property
    def place(self) -> str:
        """In words, such as "forward pass, LSTM layer 0 reverse, t = 3, gate f, log"."""
        if self.direction == "given":
            kind = "" if self.operation == "input" else f"{self.operation} "
            return kind + self.result.name
        parts = [f"{self.direction} pass"]
        if self.recurrence:
            parts += [self.recurrence, f"t = {self.t}"]
            several = "s" if "," in self.gate else ""
            parts += [f"gate{several} {self.gate}"] if self.gate else []
        elif self.module:
            again = f" (call {self.call})" if self.call > 1 else ""
            parts.append(f"module {self.module}{again}")
        return ", ".join([*parts, self.operation])


class Explanation:
    """What `explain_nan` found; true if there is a non-finite value; printed, an explanation.

    findings: in the order of computation, the given ones before all; at most LIMIT.
    reached: what became non-finite: "the output", "the loss", "the gradient of …".
    forward, backward: how many operations were looked at.
    error: what the model raised after a finding, or None.
    """

    def __init__(
        self,
        findings: Sequence[Finding],
        reached: Sequence[str],
        forward: int,
        backward: int,
        error: Exception | None = None,
    ) -> None:
        self.findings = list(findings)
        self.reached = list(reached)
        self.forward, self.backward = forward, backward
        self.error = error

    @property
    def first(self) -> Finding | None:
        """The first finding, or None."""
        return self.findings[0] if self.findings else None

    def __bool__(self) -> bool:
        return bool(self.findings)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _lines(self) -> Iterator[str]:
        looked = f"{self.forward:,} operations forward and {self.backward:,} backward"
        first = self.first
        if first is None:
            yield f"no non-finite value: looked at inputs, parameters, {looked}"
            return
        yield from _wrapped(f"first non-finite value: {first.kind}, {first.place}")
        if first.line:
            yield from _wrapped(f"line: {first.line}")
        yield ""
        yield from _values_table([first.result, *first.operands])
        yield ""
        yield from _wrapped(f"What usually helps: {first.advice}")
        yield from _wrapped(self._reached())
        if self.error is not None:
            yield from _wrapped(f"Then the model raised {type(self.error).__name__}: {self.error}")
        if first.times > 1:
            yield f"In this run it happened there {first.times:,} times"
        if len(self.findings) > 1:
            yield "Others after it, which may follow from it:"
        for other in self.findings[1:]:
            again = f" ({other.times:,} times)" if other.times > 1 else ""
            yield from _wrapped(f"{other.kind}, {other.place}{again}", "  ")

    def _reached(self) -> str:
        if self.reached:
            return f"It reached: {_listed(self.reached)}"
        gradients = ", nor a gradient" if self.backward else ""
        return f"It reached neither the output nor the loss{gradients}"


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ")


def _listed(names: Sequence[str]) -> str:
    """The first few of many."""
    return ", ".join(names[:4]) + (f", and {len(names) - 4} more" if len(names) > 4 else "")


def _values_table(several: Iterable[Values]) -> list[str]:
    header = ["value", "shape", "dtype", "lowest", "highest", "NaN", "Inf", "first at"]
    rows = [
        [
            each.name,
            str(each.shape),
            each.dtype,
            _number(each.low),
            _number(each.high),
            f"{each.nans:,}" if each.nans else "-",
            f"{each.infs:,}" if each.infs else "-",
            "" if each.first is None else str(list(each.first)),
        ]
        for each in several
    ]
    return table("lllrrrrl", header, rows)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"
