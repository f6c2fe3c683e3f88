"""`tinygrad-rnn diagnose`: why does a network not train? Options and files around `diagnose/`.

A subcommand for each way of looking; all take the same TARGET, which `target.py` turns into a
model, its input and its loss. Read that first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from tinygrad_rnn import backend
from tinygrad_rnn.cli.errors import InputError
from tinygrad_rnn.cli.loss_curve import can_draw
from tinygrad_rnn.cli.target import Target, resolve, target_options
from tinygrad_rnn.diagnose import (
    Drawing,
    draw_graph,
    explain_nan,
    gradient_flow,
    observing,
    profile,
    summary,
)
from tinygrad_rnn.diagnose.running import arguments
from tinygrad_rnn.io.files import replacing
from tinygrad_rnn.nn import Module
from tinygrad_rnn.scan import trees
from tinygrad_rnn.tensor import Tensor

PICTURES = (".png", ".svg", ".pdf")
DRAWINGS = (".svg", ".dot")


@click.group(invoke_without_command=True)
@click.pass_context
def diagnose(ctx: click.Context, /) -> None:
    """Look into a network that does not train as it should.

    TARGET is what to look at: the folder or checkpoint of a run of 'tinygrad-rnn train'; by
    default the newest run below runs/. For a model or a cell of your own it is FILE.py:FUNCTION,
    where the function returns (model, x, loss): the model or a function that runs, its input or a
    tuple of inputs, and a function of what it returns that gives the loss.

    \b
    tinygrad-rnn diagnose flow                   how far gradients reach back in time
    tinygrad-rnn diagnose nan                    where the first NaN or Inf is made, and of what
    tinygrad-rnn diagnose graph --out graph.svg  what is computed, as a drawing
    tinygrad-rnn diagnose summary                layers, shapes, parameters, FLOPs, memory
    tinygrad-rnn diagnose profile                where the time goes

    'tinygrad-rnn diagnose COMMAND --help' explains each of them.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


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


@diagnose.command()
@target_options
@click.pass_context
def nan(ctx: click.Context, target: str | None, text: Path | None, device: backend.device) -> None:
    """Find the first NaN or Inf, forward or backward, and say what usually helps.

    It is told by layer, direction, step, gate and operation, with the ranges of what it was made
    of. Exits with status 1 if there is one.

    \b
    Examples:
      tinygrad-rnn diagnose nan
      tinygrad-rnn diagnose nan model.py:example
    """
    looked_at = resolve(target, text, device)
    click.echo(looked_at.name)
    found = explain_nan(looked_at.model, looked_at.x, looked_at.loss)
    click.echo(str(found))
    if found:
        ctx.exit(1)


@diagnose.command(name="summary")
@target_options
def summary_command(target: str | None, text: Path | None, device: backend.device) -> None:
    """Show layers, shapes, parameters, FLOPs, and the memory kept for the backward pass.

    For a model of your own, the first thing that FILE.py:FUNCTION returns must be an nn.Module.

    \b
    Examples:
      tinygrad-rnn diagnose summary
      tinygrad-rnn diagnose summary model.py:example
    """
    looked_at = resolve(target, text, device)
    click.echo(looked_at.name)
    click.echo(str(summary(looked_at.model, *arguments(looked_at.x))))


@diagnose.command(name="profile")
@target_options
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Runs, forward and backward, that are timed together, after one that is not.",
)
def profile_command(
    target: str | None, text: Path | None, device: backend.device, runs: int
) -> None:
    """Show where the time goes, forward and backward, by operation and part of a scan.

    \b
    Examples:
      tinygrad-rnn diagnose profile
      tinygrad-rnn diagnose profile model.py:example --runs 100
    """
    looked_at = resolve(target, text, device)
    click.echo(looked_at.name)
    _run(looked_at)
    with profile() as times:
        for _ in range(runs):
            _run(looked_at)
    click.echo(str(times))


def _run(looked_at: Target) -> None:
    """One run, forward and, if anything requires a gradient, backward."""
    model, x, loss = looked_at.model, looked_at.x, looked_at.loss
    value = loss(model(*arguments(x)))
    if isinstance(value, Tensor) and value.requires_grad:
        value.backward()


@diagnose.command()
@target_options
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PICTURE",
    required=True,
    help="Where to draw it: .svg, which every browser shows, or .dot for Graphviz.",
)
@click.option("--overwrite", is_flag=True, help="Replace the picture in --out.")
@click.option(
    "--step",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="Draw one step of this recurrence of the model, counted in the order in which they run.",
)
@click.option("--pullback", is_flag=True, help="With --step: the step that takes gradients back.")
@click.option("--open-scans", is_flag=True, help="Draw what is inside the recurrences, too.")
@click.option("--no-fold", is_flag=True, help="Draw every step of a loop over time.")
def graph(
    target: str | None,
    text: Path | None,
    device: backend.device,
    out: Path,
    overwrite: bool,
    step: int | None,
    pullback: bool,
    open_scans: bool,
    no_fold: bool,
) -> None:
    """Draw what was recorded behind the loss, or one step of a recurrence.

    A loop over time is folded into one step. A step is drawn in three frames: what runs before the
    loop, in it and after it.

    \b
    Examples:
      tinygrad-rnn diagnose graph --out graph.svg
      tinygrad-rnn diagnose graph runs/python-lstm --step 1 --pullback --out pullback.svg
      tinygrad-rnn diagnose graph model.py:example --open-scans --out graph.svg
    """
    check_file(out, overwrite, DRAWINGS)
    if pullback and step is None:
        raise InputError("--pullback is of one step: add --step 1, or the number of another one")
    if step is not None and (open_scans or no_fold):
        raise InputError("--open-scans and --no-fold are for the whole graph, not for a --step")
    looked_at = resolve(target, text, device)
    click.echo(looked_at.name)
    if step is None:
        drawing = _whole_graph(looked_at, fold=not no_fold, open_scans=open_scans)
    else:
        drawing = _step(looked_at, step, pullback)
    drawing.save(out)
    click.echo(f"{drawing.diagram.title}\n{out} shows it.")


def _whole_graph(looked_at: Target, fold: bool, open_scans: bool) -> Drawing:
    """The graph behind the loss, with what has a name."""
    model, x, loss = looked_at.model, looked_at.x, looked_at.loss
    value = loss(model(*arguments(x)))
    if not isinstance(value, Tensor):
        raise InputError(f"loss gave {type(value).__name__}, expected a Tensor")
    names: dict[str, Tensor] = {}
    if isinstance(model, Module):
        names |= {**dict(model.named_parameters()), **dict(model.named_buffers())}
    names |= {name: tensor for tensor, name in _inputs(x)}
    names["loss"] = value
    return draw_graph(value, names=names, fold=fold, open_scans=open_scans)


def _inputs(x: object) -> list[tuple[Tensor, str]]:
    """The tensors among a model's inputs, with names: x, or x0, x1, …"""
    inputs = [(part, f"x{k}") for k, part in enumerate(x)] if type(x) is tuple else [(x, "x")]
    return [(part, name) for part, name in inputs if isinstance(part, Tensor)]


def _step(looked_at: Target, number: int, pullback: bool) -> Drawing:
    """One step of the recurrence of this number, counted from 1."""
    model, x = looked_at.model, looked_at.x
    with observing(model) as recurrences:
        model(*arguments(x))
    if number > len(recurrences):
        names = ", ".join(f"{k}: {run.name}" for k, run in enumerate(recurrences, 1))
        raise InputError(f"--step {number}: the recurrences are {names or 'none'}")
    run = recurrences[number - 1]
    xs = trees.stack([step.x for step in run.steps])
    click.echo(run.name)
    return draw_graph(run.cell, xs, run.start, pullback=pullback, reverse=run.reverse)


def check_picture(out: Path, overwrite: bool) -> None:
    """Raise InputError for a figure that could not be written, before there is one."""
    if not can_draw():
        raise InputError("--out needs matplotlib: pip install 'tinygrad_rnn[plot]'")
    check_file(out, overwrite, PICTURES)


def check_file(out: Path, overwrite: bool, suffixes: Sequence[str]) -> None:
    """Raise InputError for a picture whose name will not do."""
    if out.suffix not in suffixes:
        raise InputError(f"--out {out}: a picture ends in {', '.join(suffixes)}")
    if out.exists() and not overwrite:
        raise InputError(f"--out {out} exists; add --overwrite to replace it, or choose another")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.parent} does not exist")
