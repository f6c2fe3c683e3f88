"""What does the drawing of a tensor's graph show?

Every recorded operation on the way to it, and the leaves it came from: loops over time folded into
one step, recurrences as one box or opened. Results have numbers, as in a printed program, unless
they were given names. Read recorded.py, folding.py and diagram.py before this file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tinygrad_rnn.diagnose.draw.diagram import Diagram, Section, diagram, operation
from tinygrad_rnn.diagnose.draw.folding import Part, fold, unfolded
from tinygrad_rnn.diagnose.draw.opening import opened
from tinygrad_rnn.diagnose.draw.recorded import Names, recorded
from tinygrad_rnn.program import Var
from tinygrad_rnn.program_text import form, names_of
from tinygrad_rnn.scan.explain import counts
from tinygrad_rnn.tensor import Tensor


def tensor_diagram(
    tensor: Tensor, names: Names = None, folding: bool = True, open_scans: bool = False
) -> Diagram:
    """The drawing of the graph behind a tensor; see `draw_graph`."""
    graph = recorded(tensor, names)
    folded = fold(graph) if folding else unfolded(graph)
    parts, leaves, result, meanings = opened(folded) if open_scans else folded
    parts = [part for part in parts if part.equations or part.carry]
    aliases = {x: whole for x, (whole, _) in meanings.items()}
    texts = _texts(parts, leaves, result, aliases)
    texts |= {
        x: f"{texts[whole]}[{which}]" for x, (whole, which) in meanings.items() if whole in texts
    }
    sections = [_section(part, texts, result) for part in parts]
    drawn = sum(len(part.equations) for part in parts)
    title = f"The graph behind {texts[result]} {form(result, result.dtype)}"
    number = len(graph.equations)
    title += f": {number:,} operations" + (f", {drawn:,} of them drawn" if drawn < number else "")
    return diagram(title, sections, leaves, (), texts, result.dtype, aliases=aliases)


def _section(part: Part, texts: dict[Var, str], result: Var) -> Section:
    operations = [operation(equation, texts, result.dtype) for equation in part.equations]
    notes = [*part.notes, counts(part.equations, "")] if part.title else []
    return Section(part.title, notes, operations, part.carry)


def _texts(
    parts: Sequence[Part], leaves: dict[Var, str], result: Var, aliases: dict[Var, Var]
) -> dict[Var, str]:
    """The names of what is drawn. A state is v[t-1] if v is what the step before has computed."""
    carry = [pair for part in parts for pair in part.carry]
    used = {aliases.get(x, x) for x in (result, *(x for part in parts for x in part.values))}
    computed = set(_in_order(parts))
    moved = [state for state, handed_on, _ in carry if handed_on not in computed]
    texts = names_of(x for x in (*leaves, *moved, *_in_order(parts)) if x in used)
    return texts | {
        state: f"{texts[handed_on]}[t-1]" for state, handed_on, _ in carry if handed_on in computed
    }


def _in_order(parts: Sequence[Part]) -> Iterator[Var]:
    """What is computed, in the order in which it gets numbers."""
    for part in parts:
        for equation in part.equations:
            yield from equation.outputs
