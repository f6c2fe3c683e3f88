"""What is inside the recurrences of a graph?

A `scan` is one operation of the graph it stands in. `opened` puts its step in its place: what of it
runs before, in and after the loop. Read `scan/partition.py` and folding.py (what a part is) before
this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tinygrad_rnn.diagnose.draw.diagram import Carry
from tinygrad_rnn.diagnose.draw.folding import Folded, Part
from tinygrad_rnn.program import Equation, Var
from tinygrad_rnn.scan.explain import WHEN, own_equations
from tinygrad_rnn.scan.partition import partition
from tinygrad_rnn.scan.recurrence import Recurrence


def opened(graph: Folded) -> Folded:
    """The graph with every recurrence between loops replaced by its step."""
    opening = _Opening(graph)
    parts = [inner for part in graph.parts for inner in opening.part(part)]
    result = opening.known.get(graph.result, graph.result)
    return Folded(parts, opening.leaves, result, opening.aliases)


class _Opening:
    """One pass over the parts. known: what is shown in place of a recurrence's results."""

    def __init__(self, graph: Folded) -> None:
        self.leaves, self.aliases = dict(graph.leaves), dict(graph.aliases)
        self.known: dict[Var, Var] = {}
        self.count = 0

    def part(self, part: Part) -> Iterator[Part]:
        """A part, or what it consists of."""
        rest: list[Equation] = []
        for equation in part.equations:
            inputs = [self.known.get(x, x) if type(x) is Var else x for x in equation.inputs]
            equation = Equation(equation.primitive, inputs, equation.outputs, equation.params)
            if isinstance(equation.primitive, Recurrence) and not part.title:
                yield Part(rest)
                yield from self.recurrence(equation, equation.primitive)
                rest = []
            else:
                rest.append(equation)
        carry = [
            Carry(state, handed_on, None if initial is None else self.known.get(initial, initial))
            for state, handed_on, initial in part.carry
        ]
        yield part._replace(equations=rest, carry=carry)

    def recurrence(self, equation: Equation, recurrence: Recurrence) -> Iterator[Part]:
        """The step of a recurrence, in parts, with fresh values that stand for its own."""
        program, self.count = recurrence.program, self.count + 1
        count = len(program.carry)
        own: dict[Var, Var] = {x: _like(x) for x in program.carry}
        outer = equation.inputs[count : len(equation.inputs) - len(program.constants)]
        own.update((x, self.at(y, "t")) for x, y in zip(program.sequences, outer, strict=False))
        for drawn in program.sequences[len(outer) :]:
            own[drawn] = _like(drawn)
            self.leaves[own[drawn]] = "sequence"
        own.update(zip(program.constants, equation.inputs[count + len(outer) :], strict=True))

        def inside(inner: Iterable[Equation]) -> list[Equation]:
            return [_copied(each, own) for each in inner]

        parts = partition(program)
        kinds: dict[str, list[Equation]] = {
            title: inside(getattr(parts, title)) for title in WHEN if title != "totals"
        }
        kinds["totals"] = inside(e for total in parts.totals for e in own_equations(total))
        stacked = range(count, count + len(program.stacked))
        for place, (outside, x) in enumerate(zip(equation.outputs, program.outputs, strict=True)):
            self.known[outside] = self.at(own[x], ":") if place in stacked else own[x]
        carry = [
            Carry(own[state], own[after], initial)
            for state, after, initial in zip(
                program.carry, program.next_carry, equation.inputs[:count], strict=True
            )
        ]
        length, reverse = equation.params["length"], equation.params["reverse"]
        for title, equations in kinds.items():
            run = f" × {length}{', reverse' if reverse else ''}" if title == "loop" else ""
            if equations or (title == "loop" and carry):
                yield Part(
                    equations,
                    f"{title}{run}",
                    [f"of scan {self.count}", WHEN[title]],
                    carry if title == "loop" else (),
                )

    def at(self, x: Var, which: str) -> Var:
        """A value drawn as part of another, x[t] or x[:]."""
        whole, part = self.aliases.get(x, (x, ":"))
        made = _like(x)
        self.aliases[made] = whole, which if part == ":" else f"{part}][{which}"
        return made


def _like(x: Var) -> Var:
    """A value of the same form, for the drawing only."""
    made = Var(x.owner, x.shape, x.dtype, x.device, x.name)
    made.equation = x.equation
    return made


def _copied(equation: Equation, known: dict[Var, Any]) -> Equation:
    """An equation on other values; what it makes gets fresh ones."""
    inputs = [known[x] if type(x) is Var else x for x in equation.inputs]
    outputs = [_like(y) for y in equation.outputs]
    known.update(zip(equation.outputs, outputs, strict=True))
    return Equation(equation.primitive, inputs, outputs, equation.params)
