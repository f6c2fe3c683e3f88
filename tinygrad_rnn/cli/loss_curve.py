"""How do the losses of a run look? A picture with both baselines, where matplotlib is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from tinygrad_rnn.char_lm import Baselines, Row
from tinygrad_rnn.io.files import replacing


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(rows: Sequence[Row], baselines: Baselines, title: str, path: Path) -> None:
    """Write the curves of training and validation loss, and the baselines as lines, as a PNG."""
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    validation = {row.step: row.validation_loss for row in rows if row.validation_loss is not None}
    axes.plot(
        [row.step for row in rows],
        [row.training_loss for row in rows],
        color="tab:blue",
        alpha=0.5,
        linewidth=1,
        label="training",
    )
    axes.plot(
        [*validation.keys()],
        [*validation.values()],
        color="tab:orange",
        marker="o",
        markersize=4,
        label="validation",
    )
    for name, loss, style in (
        ("unigram model", baselines.unigram, ":"),
        ("bigram model", baselines.bigram, "--"),
    ):
        axes.axhline(loss, color="black", linestyle=style, linewidth=1, label=f"{name} {loss:.3f}")
    axes.set_xlabel("training step")
    axes.set_ylabel("loss in nats per character")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    with replacing(path, "train") as file:
        figure.savefig(file, format="png")
