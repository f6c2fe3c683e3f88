"""How does a gradient flow look in a terminal?

For each recurrence its verdicts, a table over a few of its t with bars, and one of its gates. The
numbers come from `flow.py`, the words from `verdicts.py`; read these first.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.diagnose.flow import CLOSED, OPEN, Flow, decimal, mean
from tinygrad_rnn.diagnose.table import WIDTH, table
from tinygrad_rnn.diagnose.verdicts import Verdict

ROWS = 9  # times that a table shows, at most
BAR = 12  # characters of the longest bar

LEGEND = (
    "|dL/dh|, and so on: norm of the gradient of the loss with respect to the state after step t, "
    "over the units, root mean square over the batch; the bars are logarithmic. Step: singular "
    "values of the Jacobian of step t, where `mean` is the geometric one; to the end: the largest "
    "one of the product of all Jacobians from step t to the last."
)


def text(loss: float, flows: Sequence[Flow], verdicts: Mapping[str, list[Verdict]]) -> str:
    """All of it, in lines of at most 100 characters."""
    lines = [f"gradient flow, loss {loss:.6g}"]
    for flow in flows:
        findings = [f"{verdict.finding}." for verdict in verdicts[flow.name]]
        lines += ["", *_heading(flow), *_listed(findings), "", *_times(flow)]
        if flow.saturation:
            lines += ["", *_gates(flow)]
    advice = [f"{v.kind}: {v.advice}" for several in verdicts.values() for v in several if v.advice]
    if advice:
        lines += ["", "What usually helps", *_listed(dict.fromkeys(advice))]
    return "\n".join([*lines, "", *textwrap.wrap(LEGEND, WIDTH)])


def _heading(flow: Flow) -> list[str]:
    batch = len(next(iter(flow.gradients.values()))[0])
    states = ", ".join(f"{name} of {size}" for name, size in flow.sizes.items())
    title = f"{flow.name}: T = {flow.length}, B = {batch}, {states}"
    return [title, "=" * min(len(title), WIDTH)]


def _listed(texts: Iterable[str]) -> list[str]:
    lines = []
    for each in texts:
        lines += textwrap.wrap(each, WIDTH, initial_indent="* ", subsequent_indent="  ")
    return lines


def _times(flow: Flow) -> list[str]:
    """The table over t."""
    norms = {name: flow.norms(name) for name in flow.sizes}
    bars = _bars(norms)
    header = ["t", *(label for name in norms for label in (f"|dL/d{name}|", ""))]
    header += ["step: largest", "mean", "smallest", "to the end"]
    places = np.unique(np.linspace(0, flow.length, ROWS).round().astype(int))
    rows = []
    for place in places:
        row = [str(flow.state_times[place])]
        for name in norms:
            row += [_short(norms[name][place]), bars[name][place]]
        row += _of_step(flow, place - 1) if place else [""] * 4
        rows.append(row)
    return table("r" + "rl" * len(norms) + "rrrr", header, rows)


def _of_step(flow: Flow, place: int) -> list[str]:
    steps, products = flow.steps, flow.products
    logs = (steps.largest, steps.geometric_mean, steps.smallest, products.largest)
    return [decimal(x[place].mean()) for x in logs]


def _bars(norms: Mapping[str, Any]) -> dict[str, list[str]]:
    """A bar for each norm, from the smallest to the largest of them all, at least over a decade."""
    with np.errstate(divide="ignore"):
        logs = {name: np.log10(values) for name, values in norms.items()}
    known = np.concatenate([*logs.values()])
    known = known[np.isfinite(known)]
    top = known.max(initial=-np.inf)
    bottom = min(known.min(initial=np.inf), top - 1)

    def bar(log: float) -> str:
        return (
            "#" * round(1 + (BAR - 1) * (log - bottom) / (top - bottom)) if np.isfinite(log) else ""
        )

    return {name: [bar(log) for log in values] for name, values in logs.items()}


def _gates(flow: Flow) -> list[str]:
    """The table of the gates: means over t, and where each is worst."""
    rows = []
    for name, gate in flow.saturation.items():
        low = -OPEN if gate.kind == "tanh" else CLOSED
        both = gate.low + gate.high
        worst = np.argmax(np.where(np.isnan(both), -1, both))
        rows.append(
            [
                name,
                gate.kind,
                f"{mean(gate.low):.0%} < {low:g}",
                f"{mean(gate.high):.0%} > {OPEN:g}",
                f"{both[worst]:.0%} at t = {flow.step_times[worst]}",
            ]
        )
    return table("llrrr", ["gate", "", "low", "high", "most"], rows)


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"
