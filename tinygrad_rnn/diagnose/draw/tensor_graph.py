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
    parts, leaves, result = folded.parts, folded.leaves, folded.result
    if open_scans:
        parts, result = opened(parts, leaves, result)
    parts = [part for part in parts if part.equations or part.carry]
    aliases = {x: whole for x, (whole, _) in folded.aliases.items()}
    used = {aliases.get(x, x) for part in parts for x in part.values}
    used.add(aliases.get(result, result))
    texts = names_of(x for x in _in_order(parts, leaves) if x in used)
    texts |= {x: f"{texts[whole]}[{which}]" for x, (whole, which) in folded.aliases.items()}
    texts |= {
        carry.state: f"{texts[carry.handed_on]}[t-1]" for part in parts for carry in part.carry
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


def _in_order(parts: Sequence[Part], leaves: dict[Var, str]) -> Iterator[Var]:
    """All values but the states, in the order in which they get numbers."""
    yield from leaves
    for part in parts:
        for equation in part.equations:
            yield from equation.outputs
