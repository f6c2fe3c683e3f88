"""`tinygrad-rnn train`: options, messages, files and signals around `char_lm.Training`."""

from __future__ import annotations

import dataclasses
import math
import platform
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from tqdm import tqdm

from tinygrad_rnn import backend
from tinygrad_rnn.char_lm import (
    CELLS,
    Row,
    Settings,
    Training,
    TrainingError,
    generate,
    python_text,
    read_run,
    read_text,
)
from tinygrad_rnn.cli import loss_curve
from tinygrad_rnn.cli.errors import InputError, Number, device_option
from tinygrad_rnn.cli.run_folder import RunFolder
from tinygrad_rnn.random import Generator

SAMPLE_LENGTH = 200  # characters
SAMPLE_TEMPERATURE = 0.8

F = TypeVar("F", bound=Callable[..., Any])
positive = click.IntRange(min=1)


def setting(name: str, kind: Any, help: str) -> Callable[[F], F]:
    """The option for one field of Settings, with the field's default."""
    default = getattr(Settings, name)
    return click.option(f"--{name}", type=kind, default=default, show_default=True, help=help)


@click.command()
@click.option(
    "--text",
    metavar="FILE",
    help="UTF-8 text to learn from.  [default: the source of Python's standard library]",
)
@setting("cell", click.Choice([*CELLS]), "Kind of recurrent layer.")
@setting("layers", positive, "Recurrent layers, one upon the other.")
@setting("hidden", positive, "Units in each recurrent layer: what the model can remember.")
@setting("embed", positive, "Size of the vector that stands for a character.")
@setting(
    "dropout", Number(0, 1, max_open=True), "Chance to drop a value between layers in training."
)
@setting("batch", positive, "Sequences trained on at once.")
@setting("seq", positive, "Characters through which gradients flow back.")
@setting("steps", positive, "Updates of the weights, each from batch times seq characters.")
@setting("lr", Number(0, min_open=True), "Learning rate of Adam at its highest.")
@setting("clip", Number(0), "Longest gradient; longer ones are shortened to it. 0: never.")
@setting("seed", int, "Start of all random numbers. Equal seeds give equal runs.")
@device_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for checkpoint, log and loss curve.  [default: a new one below runs/]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the run in --out, or the newest below runs/, as if it had not stopped. Its own "
    "settings are used; only --steps may be given, to train longer.",
)
@click.option("--overwrite", is_flag=True, help="Replace the run in --out.")
@click.pass_context
def train(
    ctx: click.Context,
    /,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    device: backend.device,
    **options: Any,
) -> None:
    """Train a recurrent network to predict the next character of a text.

    Losses are in nats per character, on text that was held out from training where it says
    "validation"; the perplexity e^loss is the number of characters among which the model is, on
    average, undecided. Two models made of counts are the yardsticks: the unigram model knows how
    frequent each character is, the bigram model also what came just before. Below the bigram's loss
    the network has learnt more than pairs.

    Ctrl-C stops after the current step, saves, and says how to go on.

    \b
    Examples:
      tinygrad-rnn train
      tinygrad-rnn train --text book.txt --cell gru --hidden 512 --steps 20000
      tinygrad-rnn train --resume
    """
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite contradict each other")
    if resume:
        folder = RunFolder(out) if out else RunFolder.newest()
        training = resumed(ctx, folder, device)
        if training.finished:
            click.echo(
                f"The run in {folder.path} has taken all of its {training.step} steps; to train "
                "longer, add --steps with a larger number."
            )
            return
    else:
        settings = Settings(**options)
        training = Training(settings, text_of(settings), device)
        folder = RunFolder.named(out, overwrite) if out else RunFolder.fresh(run_name(settings))
        training.save(folder.checkpoint)
    folder.rewrite_log(training.rows)
    describe(training, folder)
    with StopRequest() as stop:
        try:
            run(training, folder, stop)
        except TrainingError as error:
            raise InputError(f"{error}. {folder.checkpoint} still is as it was before") from error
        except KeyboardInterrupt:  # a second Ctrl-C, perhaps in the middle of a step
            click.echo("\nStopped. To go on from the last checkpoint:")
            click.echo(f"  {resume_command(folder, device)}")
            ctx.exit(130)
    draw_losses(training, folder)
    if training.finished:
        summarize(training, folder)
    else:
        click.echo(f"\nStopped after step {training.step} and saved. To go on:")
        click.echo(f"  {resume_command(folder, device)}")
        ctx.exit(128 + stop.signal)


def text_of(settings: Settings) -> str:
    """The text that the settings name."""
    return python_text() if settings.text is None else read_text(settings.text)


def run_name(settings: Settings) -> str:
    """What a run is called that was given no name: its text and its cell."""
    return f"{'python' if settings.text is None else Path(settings.text).stem}-{settings.cell}"


def resumed(ctx: click.Context, folder: RunFolder, device: backend.device) -> Training:
    """The training that the folder's checkpoint holds, with more steps if they were asked for."""
    given = [
        name
        for name in (field.name for field in dataclasses.fields(Settings))
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    changed = [f"--{name}" for name in given if name != "steps"]
    if changed:
        raise click.UsageError(
            f"{', '.join(changed)}: a run goes on with its own settings; with --resume only "
            "--steps, --out and --device can be given"
        )
    settings = read_run(folder.checkpoint)["settings"]
    if "steps" in given:
        settings = dataclasses.replace(settings, steps=ctx.params["steps"])
    training = Training(settings, text_of(settings), device)
    training.load(folder.checkpoint)
    return training


def run(training: Training, folder: RunFolder, stop: StopRequest) -> None:
    """Train to the end, or until a stop is requested; log, show, sample and save on the way."""
    settings = training.settings
    with tqdm(
        total=settings.steps,
        initial=training.step,
        disable=None,  # where stderr is not a terminal
        dynamic_ncols=True,
        bar_format="{n_fmt}/{total_fmt}, {remaining} left{desc} |{bar}|",
    ) as bar:
        start, characters = time.perf_counter(), training.step * settings.batch * settings.seq
        while not training.finished and not stop.signal:
            row = training.advance()
            if row is not None:
                folder.append_to_log(row)
                speed = (row.characters - characters) / (time.perf_counter() - start)
                bar.set_description_str(standing(row, speed), refresh=False)
            bar.update()
            if row is not None and row.validation_loss is not None:
                training.save(folder.checkpoint)
                tqdm.write(progress(training, row, row.validation_loss))
                tqdm.write(written_by(training))
        if stop.signal:
            training.save(folder.checkpoint)


def standing(row: Row, speed: float) -> str:
    """What the progress bar says about the last row."""
    return (
        f", loss {row.training_loss:.3f} nats/char, perplexity {perplexity(row.training_loss)}, "
        f"{speed / 1000:.1f}k char/s"
    )


class StopRequest:
    """Turns the first Ctrl-C (or SIGTERM) into a request, `signal`; a second one interrupts."""

    def __init__(self) -> None:
        self.signal = 0
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number


def describe(training: Training, folder: RunFolder) -> None:
    """Say what is trained on what, and which losses are to be beaten."""
    settings = training.settings
    text = settings.text or f"source of Python's standard library ({platform.python_version()})"
    weights = sum(parameter.numel() for parameter in training.model.parameters())
    layers = "1 layer" if settings.layers == 1 else f"{settings.layers} layers"
    click.echo(
        f"text     {text}, {len(training.vocabulary)} symbols\n"
        f"         {training.batcher.tokens.numel():,} characters to train on, "
        f"{training.held_out.tokens.numel() - 1:,} held out for validation\n"
        f"model    {settings.cell.upper()} with {layers} of {settings.hidden} units, "
        f"{weights:,} weights, on {training.device}\n"
        f"to beat  {training.baselines.unigram:.3f} (unigram model), "
        f"{training.baselines.bigram:.3f} (bigram model) nats per character\n"
        f"run      {folder.path}"
    )


def progress(training: Training, row: Row, loss: float) -> str:
    """A line on a validation with this loss."""
    below = training.baselines.bigram - loss
    return (
        f"\nstep {row.step}: validation loss {loss:.3f} nats/char (perplexity {perplexity(loss)}), "
        f"{abs(below):.3f} {'below' if below >= 0 else 'above'} the bigram model; training loss "
        f"{row.training_loss:.3f}"
    )


def written_by(training: Training) -> str:
    """A sample, indented. It has random numbers of its own, so that showing it changes nothing."""
    generator = Generator(training.settings.seed + training.step)
    training.model.eval()
    text = "".join(
        generate(
            training.model, training.vocabulary, "", SAMPLE_LENGTH, SAMPLE_TEMPERATURE, generator
        )
    )
    training.model.train()
    return "\n".join(f"  | {line}" for line in text.splitlines())


def perplexity(loss: float) -> str:
    """e^loss, the number of characters among which the model is undecided, to read."""
    return f"{math.exp(loss):.1f}" if loss < 100 else "inf"


def resume_command(folder: RunFolder, device: backend.device) -> str:
    """What to type to go on."""
    where = "" if device == backend.CPU else f" --device {device}"
    return f"tinygrad-rnn train --resume --out {shlex.quote(str(folder.path))}{where}"


def draw_losses(training: Training, folder: RunFolder) -> None:
    """Write the picture of the losses, if there is something to draw with."""
    if not loss_curve.can_draw():
        click.echo("No loss curve: matplotlib is not installed (pip install 'tinygrad_rnn[plot]').")
    elif training.rows:
        title = f"{run_name(training.settings)}, {training.settings.hidden} units"
        loss_curve.draw(training.rows, training.baselines, title, folder.loss_curve)


def summarize(training: Training, folder: RunFolder) -> None:
    """The result, where it is, and what to do with it."""
    loss = next(x for row in reversed(training.rows) if (x := row.validation_loss) is not None)
    click.echo(
        f"\nvalidation loss {loss:.3f} nats per character (perplexity {perplexity(loss)}); bigram "
        f"model {training.baselines.bigram:.3f}, unigram model {training.baselines.unigram:.3f}"
    )
    files = [file for file in (folder.checkpoint, folder.log, folder.loss_curve) if file.exists()]
    click.echo(f"{folder.path} holds {', '.join(file.name for file in files)}; to let it write:")
    click.echo(f"  tinygrad-rnn sample --checkpoint {shlex.quote(str(folder.path))}")
