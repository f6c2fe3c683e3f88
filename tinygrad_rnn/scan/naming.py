"""What are the values of a step, and of its pullback, called where a person reads them?

The same everywhere, so that what is printed (explain.py) can be read beside what is drawn
(`diagnose/`): inputs have the names under which the cell knows them, results have numbers in the
order in which they are printed, and a pullback calls what it reads of the step as the step does.
Read partition.py and pullback.py before this file; `program_text.py` chooses the single names.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tinygrad_rnn.ops import Tracer
from tinygrad_rnn.program import Program, Var
from tinygrad_rnn.program_text import names_of
from tinygrad_rnn.scan import trees
from tinygrad_rnn.scan.factors import gather_factors
from tinygrad_rnn.scan.partition import Partition, partition
from tinygrad_rnn.scan.pullback import Pullback, pull_back
from tinygrad_rnn.scan.scan import trace_step
from tinygrad_rnn.scan.trees import Tree
from tinygrad_rnn.scan.unroll import Cell


class NamedProgram(NamedTuple):
    """A step or a pulled-back step, its equations by when they run, and a name for every value.

    stacked, summed: what the outputs of these kinds are called outside the step.
    """

    program: Program
    parts: Partition
    names: dict[Var, str]
    stacked: list[str]
    summed: list[str]


def named_step(cell: Cell, xs: Tree, h0: Tree) -> tuple[NamedProgram, Pullback]:
    """One step of `scan(cell, xs, h0)` and its pullback, with gradients of all that can have one.

    The cell is run once, on values without numbers. Raises what `scan` raises.
    """
    step = trace_step(cell, xs, h0)
    program = step.program()
    name_constants(cell, zip(step.constants, program.constants, strict=True))
    outputs = [name for _, name in trees.named(step.output, "y")]
    named = named_program(program, outputs)
    given = [x.dtype.kind == "f" for x in program.outputs]
    drawn = set(step.random_values())
    wanted = [x.dtype.kind == "f" and x not in drawn for x in program.inputs]
    return named, pull_back(program, given, wanted)


def named_program(
    program: Program, stacked: Sequence[str], summed: Sequence[str] = ()
) -> NamedProgram:
    """A program with names; stacked, summed: those of its outputs."""
    parts = partition(program)
    names = names_of(_in_order(program, parts))
    return NamedProgram(program, parts, names, list(stacked), list(summed))


def named_pullback(step: NamedProgram, pullback: Pullback) -> NamedProgram:
    """The pulled-back step as it is run, in the names of the step."""
    program, names = step.program, step.names
    pulled = gather_factors(pullback.program)
    cotangents = [
        _cotangent(name)
        for x, name in zip(program.stacked, step.stacked, strict=True)
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
    parts = partition(pulled)
    return NamedProgram(
        pulled,
        parts,
        names_of(_in_order(pulled, parts), known_names),
        [_cotangent(names[program.sequences[k]]) for k in pullback.sequences],
        [_cotangent(names[program.constants[k]]) for k in pullback.summed],
    )


def _in_order(program: Program, parts: Partition) -> Iterator[Var]:
    """The values in the order in which they are printed."""
    yield from program.inputs
    for equation in (*parts.fixed, *parts.before, *parts.loop, *parts.after):
        yield from equation.outputs


def _cotangent(name: str) -> str:
    return f"d{name}" if name.isidentifier() else f"d({name})"


def name_constants(cell: Cell, constants: Iterable[tuple[Any, Var]]) -> None:
    """Give the constants of a step, (Tensor, Var) each, the names under which the cell knows them.

    They are told by their memory, because a cell that says `x @ W.T` uses a new Tensor each time.
    A constant that the cell computed from others keeps no name.
    """
    names = names_by_memory(_known_to(cell))
    for value, x in constants:
        x.name = names.get(memory_of(value))


def names_by_memory(known: Iterable[tuple[str, Any]]) -> dict[Hashable, str]:
    """Names for values, each (name, value) told by its memory: of several names the first."""
    names: dict[Hashable, str] = {}
    for name, value in known:
        names.setdefault(memory_of(value), name)
        if len(value.shape) == 2:
            names.setdefault(memory_of(value, transposed=True), f"{name}.T")
    return names


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


def memory_of(value: Any, transposed: bool = False) -> Hashable:
    """What is the same for two views of the same values: address, shape, strides."""
    if type(value) is Var:
        return value
    array = getattr(value, "array", value)
    interface = getattr(array, "__array_interface__", None) or array.__cuda_array_interface__
    shape, strides = array.shape, array.strides
    if transposed:
        shape, strides = shape[::-1], strides[::-1]
    return interface["data"][0], shape, strides
