"""What does `scan` make of a cell?

`explain` prints it: the step as a program, which of its equations run before, in and after the loop
over time, and the same for the pulled-back step, which nobody wrote. It calls the functions that
`scan` calls, in the same order, and adds only words and names. Read partition.py (what before, loop
and after are), pullback.py and `program_text.py` (how a program is written down) before this file.
"""

from __future__ import annotations

from tinygrad_rnn import program_text
from tinygrad_rnn.ops import contract, einsum, matmul
from tinygrad_rnn.scan import trees
from tinygrad_rnn.scan.pullback import pull_back
from tinygrad_rnn.scan.scan import trace_step
from tinygrad_rnn.scan.trees import Tree
from tinygrad_rnn.scan.unroll import Cell

#: The operations that are products of matrices.
GEMMS = (matmul, contract, einsum)

_WHEN = {
    "fixed": "Once: depends on constants alone.",
    "before": "For many steps at once, ahead of the loop: does not depend on {carry}.",
    "loop": "Step by step: on the path from {carry} to the next {carry}.",
    "after": "For many steps at once, behind the loop: no later {carry} depends on it.",
    "totals": "Once, behind the loop: only the sum over the steps is wanted (sum_t).",
}


def explain(cell: Cell, xs: Tree, h0: Tree, *, reverse: bool = False) -> None:
    """Print how `scan(cell, xs, h0)` computes a recurrence and its gradients: what runs when.

    First the step, then its pullback, each as equations with the shapes that values have within a
    step, sorted by when they run. Values have one name throughout: what the pullback reads of the
    step is called as it is there; cotangents are dh, dy, …, d and the name of what they belong to.
    Counted are products of matrices (GEMMs) and elementwise operations: what takes the time is what
    the loop does T times. Gradients are taken to be wanted of everything that can have one.

    Args:
        cell, xs, h0, reverse: as for `scan`. The cell is run once, without values; xs and h0 are
            looked at for their shapes and dtypes.

    Raises:
        TypeError, ValueError, RuntimeError: where `scan` does, with the same messages.

    >>> import tinygrad_rnn as torch
    >>> decay = torch.tensor(0.5)
    >>> def cell(x, h):
    ...     h = decay * h + x
    ...     return h, h
    >>> explain(cell, torch.ones(4), torch.tensor(0.0))
    """
    step = trace_step(cell, xs, h0)
    length = trees.length(trees.leaves(xs, "explain: xs"), "explain: xs")
    name_constants(cell, step)
    program = step.program
    names = program_text.names_of(program)
    outputs = [name for _, name in trees.named(step.output, "y")]
    wanted = [x.dtype.kind == "f" for x in program.inputs]
    given = [x.dtype.kind == "f" for x in program.outputs]
    pullback = pull_back(program, given, wanted)

    lines = [f"STEP, {_times(length, reverse)}", *_kept(pullback, names, length), ""]
    lines += _described(program, names, length, outputs, [])
    if pullback.program.outputs:
        lines += ["", f"PULLBACK of the step, {_times(length, not reverse)}", ""]
        lines += _described_pullback(program, pullback, names, length, outputs)
    else:
        lines += ["", "No PULLBACK: nothing that the step reads can have a gradient."]
    print("\n".join([*lines, "", _executor(program)]))


def _times(length: int, reverse: bool) -> str:
    steps = f"T = {length} steps" if length != 1 else "T = 1 step"
    return f"{steps}, last to first" if reverse else f"{steps}, first to last"
