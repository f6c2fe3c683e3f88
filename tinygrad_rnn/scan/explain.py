"""What does `scan` make of a cell?

`explain` prints it: the step as a program, which of its equations run before, in and after the loop
over time, and the same for the pulled-back step, which nobody wrote. It calls the functions that
`scan` calls, in the same order, and adds names and words only. Read partition.py (what before, loop
and after are), pullback.py and `program_text.py` (how a program is written down) before this file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tinygrad_rnn.ops import Tracer, contract, einsum, matmul
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
    names_of,
    operand,
    output_lines,
    usual_dtype,
)
from tinygrad_rnn.scan import trees
from tinygrad_rnn.scan.factors import gather_factors
from tinygrad_rnn.scan.partition import Partition, Total, partition
from tinygrad_rnn.scan.pullback import Pullback, pull_back
from tinygrad_rnn.scan.scan import trace_step
from tinygrad_rnn.scan.trees import Tree
from tinygrad_rnn.scan.unroll import Cell

#: Products of matrices.
GEMMS = (matmul, contract, einsum)

_WHEN = {
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
    step = trace_step(cell, xs, h0)
    program = step.program()
    name_constants(cell, zip(step.constants, program.constants, strict=True))
    parts = partition(program)
    names = names_of(_in_order(program, parts))
    outputs = [name for _, name in trees.named(step.output, "y")]
    given = [x.dtype.kind == "f" for x in program.outputs]
    drawn = set(step.random_values())
    wanted = [x.dtype.kind == "f" and x not in drawn for x in program.inputs]
    pullback = pull_back(program, given, wanted)

    lines = [f"STEP  {_steps(length, reverse)}"]
    if pullback.program.outputs:
        lines.append(_kept(program, pullback, names, length))
    lines += ["", *_described(program, parts, names, length, outputs), ""]
    if pullback.program.outputs:
        lines += [
            f"PULLBACK OF THE STEP  {_steps(length, not reverse)}",
            "dh is the cotangent of h, the gradient of the loss with respect to it, and so on;",
            "values of the step have the names that they have above",
            "",
            *_pullback_described(program, pullback, names, length, outputs),
        ]
    else:
        lines.append("NO PULLBACK  nothing that goes into the step can have a gradient")
    print("\n".join([*lines, "", _executor(program)]))


def _in_order(program: Program, parts: Partition) -> Iterator[Var]:
    """The values in the order in which they are printed."""
    yield from program.inputs
    for equation in (*parts.fixed, *parts.before, *parts.loop, *parts.after):
        yield from equation.outputs


def _steps(length: int, reverse: bool) -> str:
    if length < 2:
        return f"T = {length}"
    first, last = (length, 1) if reverse else (1, length)
    return f"T = {length}, from t = {first} to {last}"


def _executor(program: Program) -> str:
    on_cpu = all(x.device.type == "cpu" for x in program.inputs)
    if on_cpu:
        return (
            "Executor: NumPy, by replay of instructions worked out before the loop (scan/replay/)"
        )
    return "Executor: CuPy, equation by equation (scan/interpret.py)"


def _kept(program: Program, pullback: Pullback, names: Mapping[Var, str], length: int) -> str:
    """What the step keeps for its pullback; its sequences are there anyway."""
    read = {*pullback.reads} - {*program.sequences}
    if not read:
        return "keeps nothing for backward"
    size = sum(x.dtype.itemsize * math.prod(x.shape) for x in read)
    values = ", ".join(names[x] for x in program.variables if x in read)
    return f"keeps for backward {values}: {size:,} bytes at each t, {length * size:,} in all"


def _pullback_described(
    program: Program,
    pullback: Pullback,
    names: Mapping[Var, str],
    length: int,
    outputs: Sequence[str],
) -> list[str]:
    """The pulled-back step as it is run, in the names of the step."""
    pulled = gather_factors(pullback.program)
    cotangents = [
        _cotangent(name)
        for x, name in zip(program.stacked, outputs, strict=True)
        if x.dtype.kind == "f"
    ]
    for x, name in zip(pulled.sequences, cotangents, strict=False):  # the others are read
        x.name = name
    zeros = pulled.constants[len(pullback.constants) :]
    for x in zeros:
        x.name = "zeros"
    read = (*pulled.sequences[len(cotangents) :], *pulled.constants[: len(pullback.constants)])
    known = zip(read, (*pullback.reads, *pullback.constants), strict=True)
    known_names = {**names, **{x: names[original] for x, original in known}}
    stacked = [_cotangent(names[program.sequences[k]]) for k in pullback.sequences]
    summed = [_cotangent(names[program.constants[k]]) for k in pullback.summed]
    parts = partition(pulled)
    pulled_names = names_of(_in_order(pulled, parts), known_names)
    return _described(pulled, parts, pulled_names, length, stacked, summed)


def _cotangent(name: str) -> str:
    return f"d{name}" if name.isidentifier() else f"d({name})"


def _described(
    program: Program,
    parts: Partition,
    names: Mapping[Var, str],
    length: int,
    stacked: Sequence[str],
    summed: Sequence[str] = (),
) -> list[str]:
    """A program's inputs, its equations by when they run, its outputs.

    stacked, summed: what the outputs of these kinds are called.
    """
    usual = usual_dtype(program)
    equations = {name: getattr(parts, name) for name in ("fixed", "before", "loop", "after")}
    rows = {
        name: [equation_row(equation, names, usual) for equation in several]
        for name, several in equations.items()
    }
    equations["totals"] = [e for total in parts.totals for e in _equations(total)]
    rows["totals"] = [
        (f"{name} = {_sum(total, names)}", form(total.value, usual))
        for name, total in zip(summed, parts.totals, strict=True)
    ]
    times = {"loop": f", run T = {length} times", "totals": _over_rows(parts.totals, length)}
    width = column_width([row for several in rows.values() for row in several])
    lines = input_lines(program, names)
    for name, when in _WHEN.items():
        if rows[name]:
            counts = _counts(equations[name], times.get(name, ""))
            lines += ["", *labelled(name, [counts]), *labelled("", [when])]
            lines += columns(rows[name], width)
        elif name in ("before", "loop", "after"):
            lines += ["", *labelled(name, ["nothing"])]
    return [*lines, "", *output_lines(program, names, stacked)]


def _counts(equations: Sequence[Equation], gemms_run: str) -> str:
    """How many operations of which kind; gemms_run: how the matrix products are run."""
    gemms = sum(equation.primitive in GEMMS for equation in equations)
    others = Counter(
        "elementwise" if isinstance(equation.primitive, Elementwise) else equation.primitive.name
        for equation in equations
        if equation.primitive not in GEMMS
    )
    texts = [f"{gemms or 'no'} GEMM{'s' if gemms > 1 else ''}{gemms_run if gemms else ''}"]
    return "; ".join([*texts, *(f"{number} {kind}" for kind, number in others.items())])


def _equations(total: Total) -> list[Equation]:
    """The equations that the total computes itself, on the values of all steps."""
    if total.how not in ("at once", "of operands"):
        return []
    assert total.value.equation is not None
    return [*(e for part in total.parts.values() for e in _equations(part)), total.value.equation]


def _sum(total: Total, names: Mapping[Var, str]) -> str:
    """The sum over the steps as it is computed."""
    equation = total.value.equation
    if total.how == "times T":
        return f"T * {names[total.value]}"
    if total.how == "steps":
        return f"sum_t {names[total.value]}"
    assert equation is not None
    operands = [
        f"({_sum(total.parts[place], names)})" if place in total.parts else operand(x, names)
        for place, x in enumerate(equation.inputs)
    ]
    text = expression(equation, operands)
    return f"sum_t {text}" if total.how == "at once" else text


def _over_rows(totals: Iterable[Total], length: int) -> str:
    """Of how many rows the matrix products of the totals are: those of all steps together."""
    leads = [
        equation.inputs[0].shape[:-1]
        for total in totals
        for equation in _equations(total)
        if equation.primitive is contract
    ]
    each = ", each" if len(leads) > 1 else ","
    if len(set(leads)) != 1:
        return f"{each} over the rows of all steps"
    rows = "T * B" if leads[0] else "T"
    return f"{each} over all {rows} = {length * math.prod(leads[0])} rows"


def name_constants(cell: Cell, constants: Iterable[tuple[Any, Var]]) -> None:
    """Give the constants of a step, (Tensor, Var) each, the names under which the cell knows them.

    They are told by their memory, because a cell that says `x @ W.T` uses a new Tensor each time.
    A constant that the cell computed from others keeps no name.
    """
    names: dict[Hashable, str] = {}
    for name, value in _known_to(cell):
        names.setdefault(_identity(value), name)
        if len(value.shape) == 2:
            names.setdefault(_identity(value, transposed=True), f"{name}.T")
    for value, x in constants:
        x.name = names.get(_identity(value))


def _known_to(cell: Cell) -> Iterator[tuple[str, Any]]:
    """Names and tensors: a function's variables from outside it, the parameters of modules."""
    function = getattr(cell, "__func__", cell)  # of a bound method
    known: dict[str, Any] = {"": getattr(cell, "__self__", cell)}
    code = getattr(function, "__code__", None)
    if code is not None:
        for name, contents in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                known[name] = contents.cell_contents
            except ValueError:  # not assigned yet
                continue
        known |= {x: function.__globals__[x] for x in code.co_names if x in function.__globals__}
    for name, value in known.items():
        if isinstance(value, Tracer):
            yield name, value
        elif hasattr(value, "named_parameters") and not isinstance(value, type):
            for own, parameter in (*value.named_parameters(), *value.named_buffers()):
                yield f"{name}.{own}".removeprefix("."), parameter


def _identity(value: Any, transposed: bool = False) -> Hashable:
    """What is the same for two views of the same values: address, shape, strides."""
    if type(value) is Var:
        return value
    array = getattr(value, "array", value)
    interface = getattr(array, "__array_interface__", None) or array.__cuda_array_interface__
    shape, strides = array.shape, array.strides
    if transposed:
        shape, strides = shape[::-1], strides[::-1]
    return interface["data"][0], shape, strides
