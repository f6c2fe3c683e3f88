"""The command `tinygrad-rnn`: train a character model, let it write, check and diagnose networks.

Each subcommand is a file: `train.py`, `sample.py`, `check.py`, `diagnose.py`, `doctor.py`. What
they do is in `char_lm/`, `by_hand/`, `diagnose/` and `doctor/`; here are only options, messages and
files. Read `errors.py` first.
"""

from __future__ import annotations

import platform
import sys

import click
import numpy as np

import tinygrad_rnn
from tinygrad_rnn.cli.check import check
from tinygrad_rnn.cli.diagnose import diagnose
from tinygrad_rnn.cli.doctor import doctor
from tinygrad_rnn.cli.errors import OneLineErrors
from tinygrad_rnn.cli.sample import sample
from tinygrad_rnn.cli.train import train


@click.group(
    cls=OneLineErrors,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(
    tinygrad_rnn.__version__,
    prog_name="tinygrad-rnn",
    message=f"%(prog)s %(version)s (Python {platform.python_version()}, NumPy {np.__version__})",
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Recurrent networks that learn to write text, one character at a time.

    \b
    tinygrad-rnn train              about two minutes; learns to write Python
    tinygrad-rnn sample             lets the newest model write
    tinygrad-rnn check              compares all gradients with derivations by hand
    tinygrad-rnn diagnose           shows why a network does not train
    tinygrad-rnn doctor             says what is installed to compute with, and tests it

    'tinygrad-rnn COMMAND --help' explains each of them.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal may lack characters that a model writes
        getattr(stream, "reconfigure", lambda errors: None)(errors="backslashreplace")
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


main.add_command(train)
main.add_command(sample)
main.add_command(check)
main.add_command(diagnose)
main.add_command(doctor)
