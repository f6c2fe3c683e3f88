"""What do the programs of the chapters share? Options, a progress bar, a clock, figures, records.

A program is a function with `@program`: a click command with --seed, --device and --figure. It
computes plain data, prints what it found, and returns the function that draws it. The chapters in
docs/chapters/ call the same functions.
"""

from __future__ import annotations

import datetime
import functools
import importlib.util
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from tqdm import tqdm

import tinygrad_rnn as torch
from tinygrad_rnn.cli.errors import device_option, in_one_line
from tinygrad_rnn.io.files import replacing

FORMATS = (".svg", ".png", ".pdf")
RECORDS = Path(__file__).resolve().parent.parent / "docs" / "results"

T = TypeVar("T")


class OneLineErrors(click.Command):
    """A command whose errors are one line each, as those of `tinygrad-rnn`."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments."""
        with in_one_line(Path(sys.argv[0]).name):
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the program."""
        with in_one_line(Path(sys.argv[0]).name):
            return super().invoke(ctx)


def program(function: Callable[..., Callable[[], Any] | None]) -> click.Command:
    """The command that runs `function` and draws what it found.

    `function` returns a function that makes the figure, or None; it is not called where matplotlib
    is not installed. --help shows the docstring of its file.
    """
    name = Path(function.__globals__["__file__"]).stem

    @functools.wraps(function)
    def run(seed: int, device: Any, figure: Path, **options: Any) -> None:
        torch.manual_seed(seed)
        torch.set_default_device(device)
        draw = function(**options)
        if draw is None:
            return
        if importlib.util.find_spec("matplotlib") is None:
            click.echo("No figure: matplotlib is not installed (pip install 'tinygrad_rnn[plot]').")
        else:
            click.echo(f"The figure is in {save(draw(), figure)}")

    run.__doc__ = function.__globals__["__doc__"].replace("\n\n    ", "\n\n\b\n    ")
    for option in (
        click.option(
            "--figure",
            type=click.Path(path_type=Path, dir_okay=False),
            callback=_drawable,
            default=Path("figures") / f"{name}.svg",
            show_default=True,
            help="Where to draw: .svg, .png or .pdf. A file of this name is replaced.",
        ),
        device_option,
        click.option("--seed", default=0, show_default=True, help="Of all random numbers."),
    ):
        run = option(run)
    return click.command(
        cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]}
    )(run)


def _drawable(_ctx: click.Context, _option: click.Parameter, path: Path) -> Path:
    """The path of a figure, if its ending says how to write it."""
    if path.suffix not in FORMATS:
        raise click.BadParameter(f"{path} must end in one of {', '.join(FORMATS)}")
    return path


def progress(steps: Iterable[T], what: str) -> Iterable[T]:
    """The steps, with a bar that says how far they are and vanishes at the end."""
    return tqdm(steps, desc=what, leave=False, disable=None)  # None: only on a terminal


def now() -> float:
    """Seconds on a clock, once the device has done all that it was asked for."""
    if torch.get_default_device().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def panels(rows: int = 1, columns: int = 1, width: float = 8, height: float = 3) -> tuple[Any, Any]:
    """A figure and its axes, all of one look. Sizes in inches; height: of one row."""
    from matplotlib.figure import Figure  # not pyplot: no window, no global state

    figure = Figure(figsize=(width, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns)
    for each in figure.axes:
        each.grid(alpha=0.25)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save(figure: Any, path: Path) -> Path:
    """Write a figure, by the ending of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "--figure") as file:
        figure.savefig(file, format=path.suffix.removeprefix("."), dpi=150)
    return path


def write_record(name: str, command: str, results: Any) -> Path:
    """Keep what a long run found, and how it was run, as docs/results/NAME.json."""
    versions = {"Python": platform.python_version(), "NumPy": np.__version__}
    record = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "versions": {**versions, "tinygrad_rnn": torch.__version__},
        "results": results,
    }
    RECORDS.mkdir(exist_ok=True)
    path = RECORDS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def read_record(name: str) -> dict[str, Any]:
    """What `write_record` kept: command, date, versions, results."""
    return json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))
