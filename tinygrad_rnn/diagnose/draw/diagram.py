"""What is in a drawing: boxes, arrows and regions as plain data, before anything has a place.

A drawing is made of *sections*, one below the other: operations that stand together, such as the
loop of a step, which says by its `carry` what it hands from one time to the next. `diagram` makes a
box of every operation and of every value that comes from outside, and an arrow of every use.
Nothing here knows where the operations came from (step.py, recorded.py) or where boxes will stand
(layout.py). Read `program_text.py` (how an equation is written) before this file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from tinygrad_rnn import ops
from tinygrad_rnn.autograd.function import FunctionPrimitive
from tinygrad_rnn.diagnose.errors import DiagnosisError
from tinygrad_rnn.ops.elementwise import Elementwise
from tinygrad_rnn.program import Equation, Var
from tinygrad_rnn.program_text import equation_row, expression, form, operand
from tinygrad_rnn.scan.explain import GEMMS
from tinygrad_rnn.scan.recurrence import Recurrence

#: What a box can be, and what the legend calls it.
KINDS = {
    "parameter": "leaf that gets a gradient",
    "constant": "the same at all steps",
    "input": "leaf without a gradient",
    "sequence": "a value for each step",
    "state": "from the step before",
    "product": "product of matrices",
    "gate": "gate (sigmoid)",
    "squash": "tanh, softmax, …",
    "elementwise": "elementwise",
    "reduction": "reduction",
    "shape": "parts, places, order",
    "recurrence": "recurrence (scan)",
    "function": "your own Function",
    "output": "result",
}

#: The kinds of what no operation of the drawing makes, but for states.
LEAVES = ("parameter", "constant", "input", "sequence")

_SQUASHING = (ops.tanh, ops.relu, ops.softplus, ops.erf, ops.softmax, ops.log_softmax)
_REDUCTIONS = (ops.sum, ops.sum_to, ops.mean, ops.max, ops.min, ops.logsumexp, ops.any, ops.all)

#: From how many characters on a box leaves out parameters, and how many it shows at most; its
#: tooltip has them all.
LONG, LONGEST = 30, 46
#: More can neither be read nor laid out in a few seconds.
MOST_OPERATIONS = 400


def kind_of(primitive: Any) -> str:
    """The kind of box that an operation gets."""
    if primitive in GEMMS:
        return "product"
    if primitive is ops.sigmoid:
        return "gate"
    if primitive in _SQUASHING:
        return "squash"
    if primitive in _REDUCTIONS:
        return "reduction"
    if isinstance(primitive, Elementwise):
        return "elementwise"
    if isinstance(primitive, Recurrence):
        return "recurrence"
    return "function" if isinstance(primitive, FunctionPrimitive) else "shape"


class Operation(NamedTuple):
    """One box's worth of computing: its line, what it reads and what it makes.

    text: the line as the box shows it; full: the whole line. form: the shape below it.
    tag: what the cell calls the result, if it is known.
    """

    kind: str
    text: str
    full: str
    form: str
    tag: str
    reads: Sequence[Var]
    makes: Sequence[Var]


class Carry(NamedTuple):
    """A value that a loop hands on: `state` is `handed_on` of the step before, or `initial`.

    initial: None for a step by itself, whose first state nobody has said.
    """

    state: Var
    handed_on: Var
    initial: Var | None = None


class Section(NamedTuple):
    """Operations that stand together, in order. title: of its frame; without one there is none."""

    title: str
    notes: Sequence[str]
    operations: Sequence[Operation]
    carry: Sequence[Carry] = ()


class Output(NamedTuple):
    """A value under the name that it has outside. stacked: it has one for each step."""

    value: Var
    name: str
    stacked: bool


class Box(NamedTuple):
    """What one box says.

    text: its line. tag, form: below it, what the cell calls the value, or "", and its shape.
    region: the number of its region. stacked: drawn as a pile.
    """

    kind: str
    text: str
    tag: str
    form: str
    tooltip: str
    region: int
    stacked: bool


class Arrow(NamedTuple):
    """A use: from box `source`, which makes the value as its output number `output`, to `target`.

    carry: it leads to the next step.
    """

    source: int
    output: int
    target: int
    tooltip: str
    carry: bool = False


class Region(NamedTuple):
    """A part of the drawing, from left to right; one without a title has no frame."""

    title: str
    notes: Sequence[str]


class Diagram(NamedTuple):
    """A drawing without places. Boxes and arrows refer to regions and boxes by their numbers."""

    title: str
    regions: list[Region]
    boxes: list[Box]
    arrows: list[Arrow]


#: What a cell calls its values, by their names in the program.
Tags: TypeAlias = Mapping[str, str]
NO_TAGS: Tags = MappingProxyType({})


def operation(
    equation: Equation, names: Mapping[Var, str], usual: Any, tags: Tags = NO_TAGS
) -> Operation:
    """An equation as a box shows it; usual: a dtype that goes without saying."""
    used = [x for x in equation.outputs if x in names]
    shown = Equation(equation.primitive, equation.inputs, used, equation.params)
    operands = [operand(x, names) for x in equation.inputs]
    forms = list(dict.fromkeys(form(x, usual) for x in used))
    result = ", ".join(_shortened([names[x] for x in used]))
    name = equation.primitive.name
    if isinstance(equation.primitive, Recurrence):
        length, reverse = equation.params["length"], equation.params["reverse"]
        number = len(equation.primitive.program.equations)
        right = short = f"scan, T = {length}{', reverse' if reverse else ''}"
        full = f"{result} = {right} of a step of {number} operations on {', '.join(operands)}"
    elif isinstance(equation.primitive, FunctionPrimitive):
        short = f"{name}({', '.join(_shortened(operands))})"
        full = f"{result} = {name}({', '.join(operands)})"
    else:
        right = expression(equation, operands)
        short = right
        if len(f"{result} = {right}") > LONG and right.startswith(f"{name}("):
            short = f"{name}({', '.join(_shortened(operands))})"
        full, _ = equation_row(shown, names, usual)
    return Operation(
        kind_of(equation.primitive),
        _cut(f"{result} = {short}"),
        full,
        f"{forms[0]} each" if len(forms) == 1 and len(used) > 1 else ", ".join(_shortened(forms)),
        ", ".join(_shortened([tags[names[x]] for x in used if names[x] in tags])),
        equation.variables,
        equation.outputs,
    )


def _shortened(texts: list[str]) -> list[str]:
    """A list without its middle, if it is long."""
    return texts if len(texts) <= 4 else [*texts[:2], "…", texts[-1]]


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def diagram(
    title: str,
    sections: Sequence[Section],
    leaves: Mapping[Var, str],
    outputs: Sequence[Output],
    names: Mapping[Var, str],
    usual: Any,
    tags: Tags = NO_TAGS,
    aliases: Mapping[Var, Var] = MappingProxyType({}),
) -> Diagram:
    """Boxes and arrows for everything in the sections.

    leaves: the values that no operation makes, with the kind of each. They stand in the section
        that reads them first.
    outputs: get boxes of their own below everything else.
    aliases: values that others stand for.
    Raises DiagnosisError if there are too many operations to look at.
    """
    number = sum(len(section.operations) for section in sections)
    if number > MOST_OPERATIONS:
        raise DiagnosisError(
            f"draw_graph: {number:,} operations are too many for one drawing, whose limit is "
            f"{MOST_OPERATIONS}. Loops over time are folded into one step unless fold=False; if "
            "this graph has none, draw a part of it, draw_graph(y) for an earlier result y. A "
            "recurrence run by scan is a single operation, and draw_graph(cell, xs, h0) its step"
        )
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    makers: dict[Var, tuple[int, int]] = {}

    def leaf(x: Var, kind: str, region: int) -> None:
        makers[x] = len(boxes), 0
        shape, tag = form(x, usual), tags.get(names[x], "")
        tooltip = _with_tag(tag, f"{names[x]} {shape}: {KINDS[kind]}")
        boxes.append(Box(kind, names[x], tag, shape, tooltip, region, kind == "sequence"))

    def use(x: Var, target: int, region: int, text: str = "", carry: bool = False) -> None:
        whole = aliases.get(x, x)
        if whole not in makers:
            leaf(whole, leaves[whole], region)
        source, output = makers[whole]
        arrows.append(Arrow(source, output, target, text or f"{names[x]} {form(x, usual)}", carry))

    for region, section in enumerate(sections):
        for state, _, _ in section.carry:
            leaf(state, "state", region)
        for kind, text, full, shape, tag, reads, makes in section.operations:
            sources = {aliases.get(x, x): x for x in reads}
            for x in sources:
                if x not in makers:
                    leaf(x, leaves[x], region)
            number = len(boxes)
            tooltip = _with_tag(tag, f"{full}  {shape}")
            boxes.append(Box(kind, text, tag, shape, tooltip, region, False))
            makers.update((y, (number, index)) for index, y in enumerate(makes))
            for x in sources.values():
                use(x, number, region)
        for state, handed_on, initial in section.carry:
            target, _ = makers[state]
            if initial is not None:
                first = f"at the first step {names[state]} is {names[initial]}"
                use(initial, target, region, first)
            text = f"at the next step {names[state]} is this {names[handed_on]}"
            use(handed_on, target, region, text, carry=True)
    for x, kind in leaves.items():
        if x not in makers:
            leaf(x, kind, 0)
    regions = [Region(section.title, section.notes) for section in sections]
    if outputs:
        regions.append(Region("", ()))
    for x, name, stacked in outputs:
        number, shape = len(boxes), form(x, usual)
        tooltip = f"{name} is {names[x]} {shape}{' of every step' if stacked else ''}"
        boxes.append(Box("output", name, "", shape, tooltip, len(regions) - 1, stacked))
        use(x, number, len(regions) - 1)
    return Diagram(title, regions, boxes, arrows)


def _with_tag(tag: str, text: str) -> str:
    return f"{tag}: {text}" if tag else text
