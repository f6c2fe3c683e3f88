"""`tinygrad-rnn diagnose`: why does a network not train? Options and files around `diagnose/`.

A subcommand for each way of looking; all take the same TARGET, which `target.py` turns into a
model, its input and its loss. Read that first.
"""

from __future__ import annotations

from pathlib import Path

import click

from tinygrad_rnn import backend
from tinygrad_rnn.cli.errors import InputError
from tinygrad_rnn.cli.loss_curve import can_draw
from tinygrad_rnn.cli.target import resolve, target_options
from tinygrad_rnn.diagnose import gradient_flow
from tinygrad_rnn.io.files import replacing

PICTURES = (".png", ".svg", ".pdf")


@click.group()
def diagnose() -> None:
    """Look into a network that does not train as it should.

    TARGET is what to look at: the folder or checkpoint of a run of 'tinygrad-rnn train'; by
    default the newest run below runs/. For a model or a cell of your own it is FILE.py:FUNCTION,
    where the function returns (model, x, loss): the model or a function that runs, its input or a
    tuple of inputs, and a function of what it returns that gives the loss.

    \b
    tinygrad-rnn diagnose flow                   how far gradients reach back in time

    'tinygrad-rnn diagnose COMMAND --help' explains each of them.
    """


@diagnose.command()
@target_options
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Sequences of the batch for which the Jacobians are computed, which is what takes time.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PICTURE",
    help="Also draw it: .png, .svg or .pdf. Needs matplotlib.",
)
@click.option("--overwrite", is_flag=True, help="Replace the picture in --out.")
def flow(
    target: str | None,
    text: Path | None,
    device: backend.device,
    rows: int,
    out: Path | None,
    overwrite: bool,
) -> None:
    """Show how gradients flow back through time, and say what stops them.

    For every recurrent layer and direction, and every scan or unroll of a cell of your own: the
    gradients of its states, the singular values of its steps, its saturated gates, and a verdict.

    \b
    Examples:
      tinygrad-rnn diagnose flow
      tinygrad-rnn diagnose flow runs/python-lstm --text book.txt --out flow.png
      tinygrad-rnn diagnose flow model.py:example
    """
    if out is not None:
        check_picture(out, overwrite)
    looked_at = resolve(target, text, device)
    click.echo(looked_at.name)
    found = gradient_flow(looked_at.model, looked_at.x, looked_at.loss, rows=rows)
    click.echo(str(found))
    if out is not None:
        with replacing(out, "diagnose flow") as file:
            found.draw().savefig(file, format=out.suffix[1:])
        click.echo(f"\n{out} shows it.")


def check_picture(out: Path, overwrite: bool) -> None:
    """Raise InputError for a picture that could not be written, before there is one."""
    if not can_draw():
        raise InputError("--out needs matplotlib: pip install 'tinygrad_rnn[plot]'")
    if out.suffix not in PICTURES:
        raise InputError(f"--out {out}: a picture ends in {', '.join(PICTURES)}")
    if out.exists() and not overwrite:
        raise InputError(f"--out {out} exists; add --overwrite to replace it, or choose another")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.parent} does not exist")
