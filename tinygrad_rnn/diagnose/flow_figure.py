"""How does a gradient flow look as a picture?

A row of four panels for each recurrence: the gradients of its states over t, the singular values of
its steps, those of the products, and which gates are saturated when. It needs matplotlib. The
numbers come from `flow.py`, which is the file to read first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.diagnose.flow import CLOSED, OPEN, Flow
from tinygrad_rnn.diagnose.jacobians import Spectrum
from tinygrad_rnn.diagnose.verdicts import Verdict

WIDTH, HEIGHT = 15.0, 3.3  # inches of a row
COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red")
SPREAD = "tab:purple"
ROUNDING = 1e-9  # of the largest singular value; what is smaller says nothing, and is not shown
DEEPER = 3  # how many times further than the largest singular values the axis goes for the others


def figure(flows: Sequence[Flow], verdicts: Mapping[str, list[Verdict]]) -> Any:
    """A matplotlib Figure. ImportError if matplotlib is not installed."""
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    drawn = Figure(figsize=(WIDTH, HEIGHT * len(flows) + 0.2), dpi=120, layout="constrained")
    parts = drawn.subfigures(len(flows), 1, squeeze=False)
    for part, flow in zip(parts[:, 0], flows, strict=True):
        kinds = ", ".join(dict.fromkeys(verdict.kind for verdict in verdicts[flow.name]))
        part.suptitle(f"{flow.name}: {kinds}", fontsize=11, fontweight="bold")
        panels = part.subplots(1, 4, width_ratios=(1, 1, 1, 1.15))
        for draw, axes in zip((_gradients, _steps, _products, _gates), panels, strict=True):
            draw(axes, flow)
            axes.set_xlabel(f"t  (runs from {flow.length} to 1)" if flow.reverse else "t")
            axes.set_xlim(flow.state_times.min() - 0.5, flow.state_times.max() + 0.5)
            axes.xaxis.get_major_locator().set_params(integer=True)
    return drawn


def _gradients(axes: Any, flow: Flow) -> None:
    """‖dL/ds‖ over t: the root mean square over the batch, and its smallest and largest row."""
    axes.set_title("gradient of the loss, |dL/ds|", fontsize=10)
    axes.set_yscale("log")
    for color, (name, rows) in zip(_colors(), flow.gradients.items(), strict=False):
        values = _positive(flow.norms(name))
        axes.plot(flow.state_times, values, color=color, label=name, marker=_marker(values))
        ends = _positive(rows.min(axis=1)), _positive(rows.max(axis=1))
        axes.fill_between(flow.state_times, *ends, color=color, alpha=0.15, linewidth=0)
    if not any(np.nan_to_num(rows).any() for rows in flow.gradients.values()):
        _say(axes, "0 or not finite everywhere")
    axes.legend(frameon=False, fontsize=9)
    axes.grid(alpha=0.25)


def _steps(axes: Any, flow: Flow) -> None:
    """Singular values of the Jacobian of each step."""
    axes.set_title("singular values of a step", fontsize=10)
    axes.set_yscale("log")
    values = np.exp(_row_means(flow.steps))
    top = max(1, np.nanmax(values[0], initial=0))
    _fan(axes, flow, values, 1, (top * ROUNDING, 2 * top))


def _products(axes: Any, flow: Flow) -> None:
    """Singular values of the product of the Jacobians of step t and all after it."""
    axes.set_title("… of all steps from t to the end", fontsize=10)
    axes.set_ylabel("power of ten")
    values = _row_means(flow.products) / np.log(10)
    largest = values[0, np.isfinite(values[0])]
    span = max(1, np.abs(largest).max(initial=0))
    _fan(axes, flow, values, 0, (-DEEPER * span, max(0, largest.max(initial=0)) + 0.1 * span))
    axes.legend(frameon=False, fontsize=9)


def _row_means(spectrum: Spectrum) -> Any:
    """(3, T): largest, smallest and geometric mean, each over the batch rows."""
    return np.stack([x.mean(axis=1) for x in spectrum])


def _fan(axes: Any, flow: Flow, values: Any, neutral: float, limits: tuple[float, float]) -> None:
    """Largest, smallest and mean over t, with the line at which a gradient keeps its size.

    limits: what is shown, at most.
    """
    largest, smallest, mean = np.where(np.isfinite(values), values, np.nan)
    axes.axhline(neutral, color="black", linewidth=1, linestyle=":")
    axes.fill_between(flow.step_times, smallest, largest, color=SPREAD, alpha=0.15, linewidth=0)
    for label, line, style in (
        ("largest", largest, "-"),
        ("geometric mean", mean, "--"),
        ("smallest", smallest, "-."),
    ):
        marker = _marker(line)
        axes.plot(flow.step_times, line, style, color=SPREAD, label=label, marker=marker)
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, limits[0]), min(top, limits[1]))
    axes.grid(alpha=0.25)


def _gates(axes: Any, flow: Flow) -> None:
    """A row for each end of each gate: what share of it is there at t."""
    axes.set_title("saturated share of each gate", fontsize=10)
    rows: list[tuple[str, Any]] = []
    for name, gate in flow.saturation.items():
        if gate.kind == "sigmoid":
            rows += [(f"{name} < {CLOSED:g}", gate.low), (f"{name} > {OPEN:g}", gate.high)]
        else:
            rows.append((f"|{name}| > {OPEN:g}", gate.low + gate.high))
    if not rows:
        _say(axes, "no sigmoid and no tanh")
        axes.set_yticks([])
        return
    shares = np.stack([values for _, values in rows])[:, np.argsort(flow.step_times)]
    extent = (0.5, flow.length + 0.5, len(rows) - 0.5, -0.5)
    image = axes.imshow(
        shares, aspect="auto", vmin=0, vmax=1, cmap="Reds", extent=extent, interpolation="none"
    )
    axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=9)
    axes.figure.colorbar(image, ax=axes)


def _say(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center")


def _colors() -> Iterator[str]:
    return itertools.cycle(COLORS)


def _positive(values: Any) -> Any:
    """Values for a logarithmic axis: NaN, which is not drawn, for 0."""
    return np.where(values > 0, values, np.nan)


def _marker(values: Any) -> str:
    """Dots where there are too few values for a line to be seen."""
    return "o" if len(values) < 4 else ""
