"""A drawing as source text for Graphviz, for those who have it and want another look.

Regions are clusters, states and their arrows are marked, colours are those of svg.py. The text is
plain DOT (https://graphviz.org/doc/info/lang.html); `dot -Tpdf graph.dot` draws it.
Read diagram.py before this file.
"""

from __future__ import annotations

from tinygrad_rnn.diagnose.draw.diagram import Box, Diagram
from tinygrad_rnn.diagnose.draw.svg import CARRY, COLOURS, ROUND


def dot(diagram: Diagram) -> str:
    """The drawing in the DOT language."""
    lines = [
        "digraph {",
        f"  label={_quoted(diagram.title)} labelloc=t",
        '  node [shape=box style="filled" fontname="monospace" fontsize=11]',
    ]
    for number, region in enumerate(diagram.regions):
        indent = "  "
        if region.title:
            heading = "\n".join([region.title, *region.notes])
            lines += [f"  subgraph cluster_{number} {{", f"    label={_quoted(heading)}"]
            indent = "    "
        lines += [
            f"{indent}{_node(k, box)}"
            for k, box in enumerate(diagram.boxes)
            if box.region == number
        ]
        if region.title:
            lines.append("  }")
    for source, _, target, tooltip, carry in diagram.arrows:
        style = f' color="{CARRY}" penwidth=2 constraint=false' if carry else ""
        lines.append(f"  n{source} -> n{target} [tooltip={_quoted(tooltip)}{style}]")
    return "\n".join([*lines, "}"]) + "\n"


def _node(number: int, box: Box) -> str:
    tint, border = COLOURS[box.kind]
    label = _quoted(f"{box.text}\n{box.tag} {box.form}".replace("\n ", "\n"))
    look = f'fillcolor="{tint}" color="{border}"'
    if box.kind in ROUND:
        look += ' style="filled,rounded"'
    if box.stacked:
        look += " peripheries=2"
    return f"n{number} [label={label} tooltip={_quoted(box.tooltip)} {look}]"


def _quoted(text: str) -> str:
    """A string of DOT."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
