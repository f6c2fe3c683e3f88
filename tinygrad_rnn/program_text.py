"""How is a program written down so that a person can read it?

One line for each equation, as a paper would have it, `v4 = v2 + v3`, and behind it the shape of
what it makes. Around the equations stand the inputs and the outputs, by kind. Values have the names
that the cell gave them, or numbers. What a Program is stands in `program.py`, which calls this
file; `scan/explain.py` uses the same lines to show what of a program runs when.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import Any

import numpy as np

from tinygrad_rnn.backend import device, is_array

WIDTH = 96  # where a list of values goes on in the next line
LONG = 60  # an equation longer than this does not push the shapes of all others to the right

_INFIX = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "floor_divide": "//",
    "remainder": "%",
    "power": "**",
    "matmul": "@",
    "equal": "==",
    "not_equal": "!=",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
    "bitwise_and": "&",
    "bitwise_or": "|",
    "bitwise_xor": "^",
}
_PREFIX = {"negative": "-", "bitwise_not": "~"}


def program_text(program: Any) -> str:
    """A Program as text: its inputs, its equations with the shapes of their results, its outputs.

    A dtype is shown where it is not that of the first carry. `v -> h`: the next step's h is v.
    """
    names, usual = names_of(program.variables), usual_dtype(program)
    rows = [equation_row(equation, names, usual) for equation in program.equations]
    summed = labelled("summed", [names[x] for x in program.summed])
    lines = input_lines(program, names) + columns(rows) + output_lines(program, names) + summed
    return "\n".join(lines)


def names_of(
    variables: Iterable[Any], known: Mapping[Any, str] = MappingProxyType({})
) -> dict[Any, str]:
    """A name for every value, no two alike: its own if it has one, else a number, in order.

    Results are numbered v1, v2, …, inputs without a name c1, c2, …
    known: names given already, to some of these values or to others; new ones differ from them.
    """
    names = dict(known)
    taken = set(names.values())

    def name(x: Any, candidates: Iterable[str]) -> None:
        names[x] = next(text for text in candidates if text not in taken)
        taken.add(names[x])

    variables = [x for x in variables if x not in names]
    for x in variables:
        if x.name is not None:
            name(x, _alternatives(x.name))
    results, inputs = _numbered("v"), _numbered("c")  # of which each text is tried once
    for x in variables:
        if x.name is None:
            name(x, inputs if x.equation is None else results)
    return names


def _alternatives(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}_{k}" for k in count(2))


def _numbered(letter: str) -> Iterator[str]:
    return (f"{letter}{k}" for k in count(1))


def usual_dtype(program: Any) -> Any:
    """The dtype that is not worth mentioning: that of the first carry, or of the first input."""
    return next((x.dtype for x in program.inputs), None)


def input_lines(program: Any, names: Mapping[Any, str]) -> list[str]:
    """The inputs by kind, each with its shape."""
    usual = usual_dtype(program)
    kinds = (
        ("carry", program.carry),
        ("sequences", program.sequences),
        ("constants", program.constants),
    )
    return [
        line
        for label, inputs in kinds
        for line in labelled(label, [f"{names[x]} {form(x, usual)}" for x in inputs])
    ]


def output_lines(program: Any, names: Mapping[Any, str], outside: Sequence[str] = ()) -> list[str]:
    """The next carry, as `value -> carry`, and what is stacked, as `value -> outside` if given."""
    stacked = [names[x] for x in program.stacked]
    if outside:
        stacked = [f"{value} -> {name}" for value, name in zip(stacked, outside, strict=True)]
    pairs = zip(program.next_carry, program.carry, strict=True)
    carry = [f"{names[after]} -> {names[before]}" for after, before in pairs]
    return [*labelled("next carry", carry), *labelled("stacked", stacked)]


def labelled(label: str, entries: Iterable[str]) -> list[str]:
    """A label and entries behind it, on as many lines as they need; no line without entries."""
    lines: list[str] = []
    for entry in entries:
        if lines and len(lines[-1]) + 2 + len(entry) <= WIDTH:
            lines[-1] += f"  {entry}"
        else:
            lines.append(f"{'' if lines else label:<10}  {entry}")
    return lines


def columns(rows: Sequence[tuple[str, str]], width: int | None = None) -> list[str]:
    """Indented lines of what is computed and, in a column, the shapes.

    width: of the first column, if it is shared with other lines.
    """
    width = column_width(rows) if width is None else width
    return [f"  {left:<{width}}  {right}" for left, right in rows]


def column_width(rows: Sequence[tuple[str, str]]) -> int:
    """The width of the first column: that of its longest text, but for a few very long ones."""
    return max((len(left) for left, _ in rows if len(left) <= LONG), default=0)


def equation_row(equation: Any, names: Mapping[Any, str], usual: Any) -> tuple[str, str]:
    """(what is computed, the shape of the result); usual: a dtype that goes without saying."""
    operands = [operand(x, names) for x in equation.inputs]
    outputs = ", ".join(names[x] for x in equation.outputs)
    forms = [form(x, usual) for x in equation.outputs]
    if len(forms) > 1:
        forms = [f"{forms[0]} each"] if len(set(forms)) == 1 else forms
    return f"{outputs} = {expression(equation, operands)}", ", ".join(forms)


def operand(x: Any, names: Mapping[Any, str]) -> str:
    """An input of an equation: the name of a value, or the number that it is."""
    return names[x] if hasattr(x, "equation") else repr(x)


def form(x: Any, usual: Any) -> str:
    """The shape of a value, and its dtype unless that is the usual one."""
    return f"{x.shape}" if x.dtype == usual else f"{x.shape} {x.dtype}"


def expression(equation: Any, operands: Sequence[str]) -> str:
    """The right side of an equation, with these texts for its operands."""
    name, params = equation.primitive.name, equation.params
    if name in _INFIX:
        left, right = operands
        if name == "power" and left.startswith("-"):
            left = f"({left})"
        return f"{left} {_INFIX[name]} {right}"
    if name in _PREFIX:
        return f"{_PREFIX[name]}{operands[0]}"
    if name == "transpose" and params["axes"] == (-1, -2):
        return f"{operands[0]}.{'T' if len(equation.outputs[0].shape) == 2 else 'mT'}"
    if name == "getitem":
        return f"{operands[0]}{_index(params['index'])}"
    if name == "einsum":
        labels = f"{','.join(params['inputs'])}->{params['output']}"
        return f"einsum({', '.join([repr(labels), *operands])})"
    keywords = (
        f"{key}={_index(value) if key == 'index' else _parameter(value)}"
        for key, value in params.items()
    )
    return f"{name}({', '.join([*operands, *keywords])})"


def _parameter(value: Any) -> str:
    if isinstance(value, tuple | list):
        parts = ", ".join(map(_parameter, value))
        return f"({parts},)" if len(value) == 1 else f"({parts})"
    if is_array(value):
        return f"<{value.dtype} {value.shape}>"
    return str(value) if isinstance(value, np.dtype | device) else repr(value)


def _index(index: Any) -> str:
    """An index in its brackets, as a program would have it."""
    parts = index if isinstance(index, tuple) else (index,)
    return f"[{', '.join(map(_index_part, parts)) or '()'}]"


def _index_part(part: Any) -> str:
    if isinstance(part, slice):
        ends = [part.start, part.stop] if part.step is None else [part.start, part.stop, part.step]
        return ":".join("" if end is None else _parameter(end) for end in ends)
    return "..." if part is Ellipsis else _parameter(part)
