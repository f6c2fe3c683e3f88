"""What does the drawing of a step show?

Its equations in the regions fixed, before, loop, after and totals, as `scan/partition.py` sorts
them, with the names that `explain` prints, so that the drawing and the print can be read beside
each other. The state stands at the top of the loop, and an arrow leads back to it.
Read `scan/partition.py`, `scan/naming.py` and diagram.py before this file.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinygrad_rnn.diagnose.draw.diagram import (
    NO_TAGS,
    Carry,
    Diagram,
    Operation,
    Output,
    Section,
    Tags,
    diagram,
    kind_of,
    operation,
)
from tinygrad_rnn.program import Program, Var
from tinygrad_rnn.program_text import form, usual_dtype
from tinygrad_rnn.scan.explain import WHEN, counts, own_equations, sum_text
from tinygrad_rnn.scan.naming import NamedProgram, named_program
from tinygrad_rnn.scan.partition import Total

ALWAYS = ("before", "loop", "after")  # shown even where nothing runs then


def step_diagram(
    named: NamedProgram, title: str, length: int | None = None, tags: Tags = NO_TAGS
) -> Diagram:
    """The drawing of a step.

    length: the number of steps, if it is known. tags: what the cell calls its values.
    """
    program, _, names, stacked, _ = named
    leaves = {x: "sequence" for x in program.sequences}
    leaves |= {x: "constant" for x in program.constants}
    outputs = [Output(x, name, True) for x, name in zip(program.stacked, stacked, strict=True)]
    sections, usual = _sections(named, length, tags), usual_dtype(program)
    return diagram(title, sections, leaves, outputs, names, usual, tags)


def named_alone(program: Program) -> NamedProgram:
    """A program that came without its cell, with plain names for its outputs."""
    outputs = (_numbered("y", program.stacked), _numbered("sum", program.summed))
    return named_program(program, *outputs)


def _numbered(name: str, values: Sequence[Var]) -> list[str]:
    return [name] if len(values) == 1 else [f"{name}{k}" for k in range(len(values))]


def _sections(named: NamedProgram, length: int | None, tags: Tags) -> list[Section]:
    """The regions of a step, from first to last."""
    program, parts, names, _, summed = named
    usual = usual_dtype(program)
    sections = []
    for title, when in WHEN.items():
        if title == "totals":
            equations = [e for total in parts.totals for e in own_equations(total)]
            operations = [
                _summing(name, total, named)
                for name, total in zip(summed, parts.totals, strict=True)
            ]
        else:
            equations = getattr(parts, title)
            operations = [operation(equation, names, usual, tags) for equation in equations]
        carry: list[Carry] = []
        if title == "loop":
            carry = [Carry(*pair) for pair in zip(program.carry, program.next_carry, strict=True)]
        run = f", run T = {length} times" if title == "loop" and length is not None else ""
        if operations:
            sections.append(Section(title, [when, counts(equations, run)], operations, carry))
        elif title in ALWAYS:
            sections.append(Section(title, ["nothing"], [], carry))
    return sections


def _summing(name: str, total: Total, named: NamedProgram) -> Operation:
    """The sum over the steps of a value, as one box."""
    text, equation = f"{name} = {sum_text(total, named.names)}", total.value.equation
    own = equation is not None and total.how in ("at once", "of operands")
    kind = kind_of(equation.primitive) if own and equation is not None else "reduction"
    shape = form(total.value, usual_dtype(named.program))
    return Operation(kind, text, text, shape, "", _read_by(total), ())


def _read_by(total: Total) -> list[Var]:
    """The values from which a sum is computed."""
    equation = total.value.equation
    if equation is None or total.how in ("steps", "times T"):
        return [total.value]
    found = []
    for place, x in enumerate(equation.inputs):
        if place in total.parts:
            found += _read_by(total.parts[place])
        elif type(x) is Var:
            found.append(x)
    return found
