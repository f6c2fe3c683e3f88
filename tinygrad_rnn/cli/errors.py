"""What does someone see who typed something wrong? One line on stderr, and exit status 2.

Only errors that the person can act on are shortened so; anything else is a fault of the program and
keeps its traceback.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from tinygrad_rnn import backend
from tinygrad_rnn.char_lm import PromptError, TextError, TrainingError
from tinygrad_rnn.diagnose import DiagnosisError
from tinygrad_rnn.io import FileFormatError


class InputError(click.ClickException):
    """Something that was typed, or a file that was named, cannot be used."""

    exit_code = 2

    def __init__(self, message: str, program: str = "tinygrad-rnn") -> None:
        super().__init__(message)
        self.program = program

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message as one line."""
        line = " ".join(self.format_message().split())
        click.echo(f"{self.program}: {line}", file=file or sys.stderr)


@contextmanager
def in_one_line(program: str = "tinygrad-rnn") -> Iterator[None]:
    """Turn the errors that a person can act on into InputError, which begins with `program`."""
    try:
        yield
    except click.UsageError as error:
        help_command = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        raise InputError(error.format_message() + help_command, program) from error
    except (TextError, PromptError, TrainingError, FileFormatError, DiagnosisError) as error:
        raise InputError(str(error), program) from error
    except MemoryError as error:
        advice = f"not enough memory: {error}; lower --hidden, --batch or --seq"
        raise InputError(advice, program) from error
    except BrokenPipeError:
        raise  # the reader of a pipe has gone, and click ends quietly
    except OSError as error:
        raise InputError(str(error), program) from error


class OneLineErrors(click.Group):
    """A group of commands whose errors are one line each."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the arguments of the group."""
        with in_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Read the arguments of the subcommand and run it."""
        with in_one_line():
            return super().invoke(ctx)


class Number(click.FloatRange):
    """A float in a range; neither nan nor inf."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number, or a usage error."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class Device(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """A device that computes on this machine."""

    name = "device"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> backend.device:
        """The device, or a usage error that says what is missing."""
        try:
            backend.library(value)
        except RuntimeError as error:
            self.fail(str(error), param, ctx)
        return backend.device(value)


device_option = click.option(
    "--device",
    type=Device(),
    default="cpu",
    show_default=True,
    envvar="TINYGRAD_RNN_DEVICE",
    show_envvar=True,
    help="Where to compute: cpu, cuda (the first GPU; needs CuPy) or cuda:1, cuda:2, …",
)
