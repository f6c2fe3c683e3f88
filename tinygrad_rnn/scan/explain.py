"""What does `scan` make of a cell?

`explain` prints it: the step as a program, which of its equations run before, in and after the loop
over time, and the same for the pulled-back step, which nobody wrote. It calls the functions that
`scan` calls, in the same order, and adds words only; the names are those of naming.py. Read
partition.py (what before, loop and after are), naming.py and `program_text.py` (how a program is
written down) before this file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tinygrad_rnn.ops import contract, einsum, matmul
from tinygrad_rnn.ops.elementwise import Elementwise
from tinygrad_rnn.program import Equation, Program, Var
from tinygrad_rnn.program_text import (
    column_width,
    columns,
    equation_row,
    expression,
    form,
    input_lines,
    labelled,
    operand,
    output_lines,
    usual_dtype,
)
from tinygrad_rnn.scan import cuda, trees
from tinygrad_rnn.scan.factors import gather_factors
from tinygrad_rnn.scan.naming import NamedProgram, named_pullback, named_step
from tinygrad_rnn.scan.partition import Total
from tinygrad_rnn.scan.pullback import Pullback
from tinygrad_rnn.scan.trees import Tree
from tinygrad_rnn.scan.unroll import Cell

#: Products of matrices.
GEMMS = (matmul, contract, einsum)

#: When the equations of each part of a program run.
WHEN = {
    "fixed": "once: the same at all steps",
    "before": "before the loop, for many steps at once: does not need the carry",
    "loop": "step by step: on the path from carry to carry",
    "after": "after the loop, for many steps at once: no later carry needs it",
    "totals": "after the loop, once: only the sum over all steps t is wanted",
}


def explain(cell: Cell, xs: Tree, h0: Tree, *, reverse: bool = False) -> None:
    """Print how `scan(cell, xs, h0)` computes a recurrence and its gradients: what runs when.

    First the step, then its pullback: equations, with the shapes that values have within one step,
    sorted by when they run. A value has one name throughout, so what the pullback reads of the step
    is called there as in the step, and dh is the cotangent of h. Products of matrices (GEMMs) and
    other operations are counted: what stands in `loop` is done T times. (That is also where an
    operation stays that cannot be done for many steps at once.) Gradients are taken to be wanted of
    all that can have one.

    Args:
        cell, xs, h0, reverse: as for `scan`. The cell is run once, on values without numbers; of
            `xs` and `h0` only the shapes and dtypes matter.

    Raises:
        TypeError, ValueError, RuntimeError: where `scan` does, with the same messages.

    >>> import tinygrad_rnn as torch
    >>> a = torch.tensor(0.5)
    >>> def cell(x, h):
    ...     h = a * h + x
    ...     return h, h
    >>> explain(cell, torch.ones(4), torch.tensor(0.0))
    STEP  T = 4, from t = 1 to 4
    keeps for backward h: 4 bytes at each t, 16 in all
    <BLANKLINE>
    carry       h ()
    sequences   x ()
    constants   a ()
    <BLANKLINE>
    before      nothing
    <BLANKLINE>
    loop        no GEMM; 2 elementwise
                step by step: on the path from carry to carry
      v1 = a * h   ()
      v2 = v1 + x  ()
    <BLANKLINE>
    after       nothing
    <BLANKLINE>
    next carry  v2 -> h
    stacked     v2 -> y
    <BLANKLINE>
    PULLBACK OF THE STEP  T = 4, from t = 4 to 1
    dh is the cotangent of h, the gradient of the loss with respect to it, and so on;
    values of the step have the names that they have above
    <BLANKLINE>
    carry       dh ()
    sequences   dy ()  h ()
    constants   a ()
    <BLANKLINE>
    before      nothing
    <BLANKLINE>
    loop        no GEMM; 2 elementwise
                step by step: on the path from carry to carry
      v3 = dh + dy   ()
      v4 = v3 * a    ()
    <BLANKLINE>
    after       no GEMM; 1 elementwise
                after the loop, for many steps at once: no later carry needs it
      v5 = v3 * h    ()
    <BLANKLINE>
    totals      no GEMM
                after the loop, once: only the sum over all steps t is wanted
      da = sum_t v5  ()
    <BLANKLINE>
    next carry  v4 -> dh
    stacked     v3 -> dx
    <BLANKLINE>
    Executor: NumPy, by replay of instructions worked out before the loop (scan/replay/)
    """
    trees.leaves(h0, "scan: h0")
    length = trees.length(trees.leaves(xs, "scan: xs"), "scan: xs")
    step, pullback = named_step(cell, xs, h0)
    lines = [f"STEP  {steps_text(length, reverse)}"]
    if pullback.program.outputs:
        lines.append(_kept(step, pullback, length))
    lines += ["", *_described(step, length), ""]
    if pullback.program.outputs:
        lines += [
            f"PULLBACK OF THE STEP  {steps_text(length, not reverse)}",
            "dh is the cotangent of h, the gradient of the loss with respect to it, and so on;",
            "values of the step have the names that they have above",
            "",
            *_described(named_pullback(step, pullback), length),
        ]
    else:
        lines.append("NO PULLBACK  nothing that goes into the step can have a gradient")
    pulled = gather_factors(pullback.program) if pullback.program.outputs else None
    print("\n".join([*lines, "", *_executor(step.program, pulled)]))


def steps_text(length: int, reverse: bool) -> str:
    """How many steps there are, and from where to where they go."""
    if length < 2:
        return f"T = {length}"
    first, last = (length, 1) if reverse else (1, length)
    return f"T = {length}, from t = {first} to {last}"


def _executor(step: Program, pullback: Program | None) -> list[str]:
    if all(x.device.type == "cpu" for x in step.inputs):
        return [
            "Executor: NumPy, by replay of instructions worked out before the loop (scan/replay/)"
        ]
    if cuda.way() == "interpret":
        return ["Executor: CuPy, equation by equation (scan/interpret.py)"]
    lines = ["Executor: CUDA (scan/cuda/); a step of the loop consists of"]
    for name, program in (("the step:", step), ("its pullback:", pullback)):
        if program is not None:
            plan = cuda.Plan(program)
            lines.append(f"  {name:13} {cuda.launches_text(plan.loop)}")
            lines.append(f"  {'':13} {plan.way()}")
    return lines


def _kept(step: NamedProgram, pullback: Pullback, length: int) -> str:
    """What the step keeps for its pullback; its sequences are there anyway."""
    program, names = step.program, step.names
    read = {*pullback.reads} - {*program.sequences}
    if not read:
        return "keeps nothing for backward"
    size = sum(x.dtype.itemsize * math.prod(x.shape) for x in read)
    values = ", ".join(names[x] for x in program.variables if x in read)
    return f"keeps for backward {values}: {size:,} bytes at each t, {length * size:,} in all"


def _described(named: NamedProgram, length: int) -> list[str]:
    """A program's inputs, its equations by when they run, its outputs."""
    program, parts, names, stacked, summed = named
    usual = usual_dtype(program)
    equations = {name: getattr(parts, name) for name in ("fixed", "before", "loop", "after")}
    rows = {
        name: [equation_row(equation, names, usual) for equation in several]
        for name, several in equations.items()
    }
    equations["totals"] = [e for total in parts.totals for e in own_equations(total)]
    rows["totals"] = [
        (f"{name} = {sum_text(total, names)}", form(total.value, usual))
        for name, total in zip(summed, parts.totals, strict=True)
    ]
    times = {"loop": f", run T = {length} times", "totals": _over_rows(parts.totals, length)}
    width = column_width([row for several in rows.values() for row in several])
    lines = input_lines(program, names)
    for name, when in WHEN.items():
        if rows[name]:
            counted = counts(equations[name], times.get(name, ""))
            lines += ["", *labelled(name, [counted]), *labelled("", [when])]
            lines += columns(rows[name], width)
        elif name in ("before", "loop", "after"):
            lines += ["", *labelled(name, ["nothing"])]
    return [*lines, "", *output_lines(program, names, stacked)]


def counts(equations: Sequence[Equation], gemms_run: str) -> str:
    """How many operations of which kind; gemms_run: how the matrix products are run."""
    gemms = sum(equation.primitive in GEMMS for equation in equations)
    others = Counter(
        "elementwise" if isinstance(equation.primitive, Elementwise) else equation.primitive.name
        for equation in equations
        if equation.primitive not in GEMMS
    )
    texts = [f"{gemms or 'no'} GEMM{'s' if gemms > 1 else ''}{gemms_run if gemms else ''}"]
    return "; ".join([*texts, *(f"{number} {kind}" for kind, number in others.items())])


def own_equations(total: Total) -> list[Equation]:
    """The equations that the total computes itself, on the values of all steps."""
    if total.how not in ("at once", "of operands"):
        return []
    assert total.value.equation is not None
    return [
        *(e for part in total.parts.values() for e in own_equations(part)),
        total.value.equation,
    ]


def sum_text(total: Total, names: Mapping[Var, str]) -> str:
    """The sum over the steps as it is computed."""
    equation = total.value.equation
    if total.how == "times T":
        return f"T * {names[total.value]}"
    if total.how == "steps":
        return f"sum_t {names[total.value]}"
    assert equation is not None
    operands = [
        f"({sum_text(total.parts[place], names)})" if place in total.parts else operand(x, names)
        for place, x in enumerate(equation.inputs)
    ]
    text = expression(equation, operands)
    return f"sum_t {text}" if total.how == "at once" else text


def _over_rows(totals: Iterable[Total], length: int) -> str:
    """Of how many rows the matrix products of the totals are: those of all steps together."""
    leads = [
        equation.inputs[0].shape[:-1]
        for total in totals
        for equation in own_equations(total)
        if equation.primitive is contract
    ]
    each = ", each" if len(leads) > 1 else ","
    if len(set(leads)) != 1:
        return f"{each} over the rows of all steps"
    rows = "T * B" if leads[0] else "T"
    return f"{each} over all {rows} = {length * math.prod(leads[0])} rows"
