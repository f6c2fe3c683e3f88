"""`tinygrad-rnn doctor`: what is installed, what is missing, and does it compute right?

The findings and the checks are in `tinygrad_rnn/doctor/`; here they are printed.
"""

from __future__ import annotations

import textwrap

import click
from tqdm import tqdm

from tinygrad_rnn import __version__, backend, gpu_setup
from tinygrad_rnn.doctor import CHECKS, Finding, findings, recurrences, self_test, usable_devices

WIDTH = 100  # of a line
COLUMN = 16  # where texts begin


class AnyDevice(click.ParamType):  # type: ignore[type-arg]  # generic only in the newest click
    """The name of a device, whether it can compute or not."""

    name = "device"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> backend.device:
        """The device, or a usage error for what is none."""
        try:
            return backend.device(value)
        except RuntimeError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.option(
    "--device", type=AnyDevice(), help="Test this device only.  [default: all that can compute]"
)
@click.option("--no-self-test", is_flag=True, help="Say what is installed, and compute nothing.")
@click.pass_context
def doctor(ctx: click.Context, /, device: backend.device | None, no_self_test: bool) -> None:
    """Say what is installed to compute with, and test it.

    Python, NumPy and its BLAS, CuPy, the driver and the GPUs, with what to install where something
    is missing. Then operations, layers, gradients and an optimizer are computed on every device and
    compared with NumPy; a few seconds on the CPU, up to a minute on a GPU. Exits with status 1 if a
    device computes wrong, or if the one that --device names cannot compute.
    """
    setup = gpu_setup.look()
    for finding in findings(setup, __version__):
        click.echo(_text(finding))
    if no_self_test:
        return
    if device is not None:
        try:
            backend.library(device)
        except RuntimeError as error:
            click.echo(f"\nNothing to test: {error}")
            ctx.exit(1)
    devices = usable_devices(setup) if device is None else [str(device)]
    click.echo()
    failed = 0
    total = len(devices) * len(CHECKS)
    # disable=None: where stderr is not a terminal
    with tqdm(self_test(devices), total=total, disable=None, leave=False) as outcomes:
        for outcome in outcomes:
            tqdm.write(str(outcome))
            failed += not outcome.passed
    if devices[-1] != "cpu":
        click.echo(f"\n{_text(recurrences())}")
    if failed:
        click.echo(f"\n{failed} of {total} checks failed on {', '.join(devices)}.")
        ctx.exit(1)
    click.echo(f"\nEverything is right on {', '.join(devices)}.")


def _text(finding: Finding) -> str:
    """A finding as lines; what to do stands below it."""
    lines = [f"{finding.part:<{COLUMN}}{finding.text}"]
    if finding.advice:
        indent = " " * COLUMN
        lines += textwrap.wrap(
            f"! {finding.advice}", WIDTH, initial_indent=indent, subsequent_indent=indent + "  "
        )
    return "\n".join(lines)
