"""`tinygrad-rnn sample`: a trained model writes, each character shown as soon as it is known."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from tinygrad_rnn import backend
from tinygrad_rnn.char_lm import check_prompt, generate, load_model
from tinygrad_rnn.cli.errors import Number, device_option
from tinygrad_rnn.cli.run_folder import RunFolder
from tinygrad_rnn.random import Generator


@click.command()
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    help="A run's folder or its checkpoint file.  [default: the newest run below runs/]",
)
@click.option(
    "--prompt",
    default="",
    help="What the text begins with; the model goes on from there.  [default: a new line]",
)
@click.option(
    "--temperature",
    type=Number(min=0),
    default=0.8,
    show_default=True,
    help="1 draws characters with the chances that the model gives them, less is more cautious, "
    "more is wilder, 0 always takes the likeliest.",
)
@click.option(
    "--length",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Characters to write.",
)
@click.option("--seed", type=int, help="Write the same text again.  [default: another each time]")
@device_option
def sample(
    checkpoint: Path | None,
    prompt: str,
    temperature: float,
    length: int,
    seed: int | None,
    device: backend.device,
) -> None:
    """Let a trained model write text.

    \b
    Example:
      tinygrad-rnn sample --prompt "def " --temperature 0.5 --length 300
    """
    if checkpoint is None:
        checkpoint = RunFolder.newest().checkpoint
    elif checkpoint.is_dir():
        checkpoint = RunFolder(checkpoint).checkpoint
    model, vocabulary = load_model(checkpoint, device)
    check_prompt(prompt, vocabulary)
    generator = Generator(secrets.randbits(64) if seed is None else seed)
    click.echo(prompt, nl=False)
    try:
        for character in generate(model, vocabulary, prompt, length, temperature, generator):
            click.echo(character, nl=False)  # flushes
    finally:
        click.echo()
