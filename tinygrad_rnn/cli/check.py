"""`tinygrad-rnn check`: are the gradients right? See `by_hand/matrix.py` for what is compared."""

from __future__ import annotations

import click

from tinygrad_rnn.by_hand import check_all


@click.command()
@click.pass_context
def check(ctx: click.Context, /) -> None:
    """Compare the gradients of every recurrent layer with three other ways to get them.

    For each kind of layer, number of layers, direction and bias: the gradients from the graph,
    those derived by hand (docs/derivations.md), by complex step and by finite differences, in
    float64. Takes some tens of seconds. Exits with status 1 if any two disagree.
    """
    passed = check_all(report=click.echo)
    click.echo("All gradients agree." if passed else "Gradients disagree; see the lines with FAIL.")
    if not passed:
        ctx.exit(1)
