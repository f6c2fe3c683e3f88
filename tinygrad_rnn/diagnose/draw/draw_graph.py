"""How do I see a graph?

`draw_graph` draws what was recorded behind a tensor, or one step of a recurrence. It only chooses:
tensor_graph.py and step.py say what is drawn, svg.py and dot.py write it. Read diagram.py first, to
know what a drawing is made of.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from tinygrad_rnn.diagnose.draw.diagram import NO_TAGS, Diagram, Tags
from tinygrad_rnn.diagnose.draw.dot import dot
from tinygrad_rnn.diagnose.draw.recorded import Names
from tinygrad_rnn.diagnose.draw.step import named_alone, step_diagram
from tinygrad_rnn.diagnose.draw.svg import svg
from tinygrad_rnn.diagnose.draw.tensor_graph import tensor_diagram
from tinygrad_rnn.diagnose.draw.variables import tags_of, watching_variables
from tinygrad_rnn.diagnose.errors import DiagnosisError
from tinygrad_rnn.io import files
from tinygrad_rnn.nn.recurrent import RNNBase, RNNCellBase
from tinygrad_rnn.program import Program
from tinygrad_rnn.scan import Cell, trees
from tinygrad_rnn.scan.explain import steps_text
from tinygrad_rnn.scan.naming import NamedProgram, named_pullback, named_step
from tinygrad_rnn.scan.pullback import Pullback, pull_back
from tinygrad_rnn.scan.trees import Tree
from tinygrad_rnn.tensor import Tensor


class Drawing:
    """A graph as a picture: `svg` and `dot` are its texts, `save` writes it to a file.

    A notebook shows it. diagram: its boxes and arrows as data.
    """

    def __init__(self, diagram: Diagram) -> None:
        self.diagram = diagram

    @cached_property
    def svg(self) -> str:
        """The drawing as an SVG document, which every browser shows."""
        return svg(self.diagram)

    @cached_property
    def dot(self) -> str:
        """The drawing as source text for Graphviz, which lays it out in its own way."""
        return dot(self.diagram)

    def save(self, path: files.Path) -> None:
        """Write the drawing to a file, as its suffix says: .svg or .dot.

        An existing file is replaced at once, so nobody meets half of one.
        Raises ValueError for another suffix, FileNotFoundError if there is no such folder.
        """
        suffix = os.path.splitext(path)[1]
        if suffix not in (".svg", ".dot"):
            raise ValueError(
                f"save: {os.fspath(path)}: a drawing is saved as .svg or .dot, not as "
                f"{suffix or 'a file without a suffix'}. A browser prints SVG as PDF; Graphviz "
                "makes of a .dot file what you like"
            )
        with files.replacing(path, "save") as file:
            file.write((self.svg if suffix == ".svg" else self.dot).encode())

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<drawing: {self.diagram.title}>"


def draw_graph(
    what: Tensor | Program | Cell,
    xs: Tree = None,
    h0: Tree = None,
    *,
    pullback: bool = False,
    reverse: bool = False,
    names: Names = None,
    fold: bool = True,
    open_scans: bool = False,
) -> Drawing:
    """A drawing of what was recorded behind a tensor, or of one step of a recurrence.

    draw_graph(loss, names=model): every operation that led to `loss`, from the leaves down. A loop
    over time whose steps are alike is folded into one step, with an arrow from its end to its
    start. A recurrence run by `scan` is one box.

    draw_graph(cell, xs, h0): one step as `scan(cell, xs, h0)` runs it, in three frames: before, in
    and after the loop. Values have the names that `explain` prints. A recurrent layer is drawn in
    the same way, draw_graph(lstm, x): the step of its first layer, from zeros if there is no h0;
    other layers are draw_graph(lstm.cell(1, reverse=True), xs, h0). A Program is a step, too.

    Args:
        what: the tensor; or the cell, layer or Program.
        xs, h0: as for `scan`, or as the layer takes them; only shapes and dtypes matter.
        pullback: draw the pulled-back step, which takes cotangents from the end to the start.
        reverse: say in the title that time runs backwards.
        names: what leaves and results are called: a Module, whose parameters have names, or a
            dict such as {"model": model, "x": x, "loss": loss}.
        fold: whether to fold loops over time.
        open_scans: draw the step of each recurrence in place of its box.

    Raises:
        TypeError: for anything else, or arguments that do not go together.
        DiagnosisError (a ValueError): if nothing was recorded, or more than can be looked at.
        RuntimeError: if an earlier backward has released the graph.
        What `scan` raises, for a cell that it refuses.

    >>> import tinygrad_rnn as torch
    >>> x, y = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    >>> drawing = draw_graph(x * y + x.sin(), names={"x": x, "y": y})
    >>> [box.text for box in drawing.diagram.boxes]
    ['x', 'y', 'v1 = x * y', 'v2 = sin(x)', 'v3 = v1 + v2']
    >>> drawing.svg.startswith("<svg")
    True
    """
    if isinstance(what, Tensor):
        _refuse(what, [("xs", xs), ("h0", h0), ("pullback", pullback), ("reverse", reverse)])
        return Drawing(tensor_diagram(what, names, fold, open_scans))
    _refuse(what, [("names", names), ("open_scans", open_scans), ("fold=False", not fold)])
    if isinstance(what, Program):
        _refuse(what, [("xs", xs), ("h0", h0), ("reverse", reverse)])
        step = named_alone(what)
        if pullback:
            return Drawing(_pulled_back(step, _whole_pullback(what)))
        return Drawing(step_diagram(step, "STEP"))
    if not callable(what):
        raise TypeError(
            f"draw_graph: expected a Tensor, a Program, or a cell with xs and h0, got "
            f"{type(what).__name__}"
        )
    if isinstance(what, RNNBase) and xs is not None:
        what, xs, h0 = _first_layer(what, xs, h0)
    if isinstance(what, RNNCellBase):
        what = _as_step(what)
    if xs is None or h0 is None:
        raise TypeError(
            "draw_graph: a cell is drawn with what scan takes, draw_graph(cell, xs, h0). To draw "
            "what a model records, draw its result: draw_graph(model(x), names=model)"
        )
    return Drawing(_step(what, xs, h0, pullback, reverse))


def _refuse(what: Any, arguments: Sequence[tuple[str, Any]]) -> None:
    """Raise TypeError if there is an argument that means nothing here."""
    for name, value in arguments:
        if value is not None and value is not False:
            kind = type(what).__name__ if isinstance(what, Tensor | Program) else "cell"
            raise TypeError(f"draw_graph: {name} means nothing for a {kind}")


def _first_layer(layer: RNNBase, xs: Tensor, h0: Tree) -> tuple[Cell, Tensor, Tree]:
    """The step, input and state of a layer's first layer, forward."""
    layer._check_input(xs)
    batched = xs.ndim == 3
    if not batched:
        xs = xs.unsqueeze(1)
    elif layer.batch_first:
        xs = xs.transpose(0, 1)
    initial = layer._zeros(xs) if h0 is None else layer._state(h0, xs, batched)
    return layer.cell(), xs, trees.unstack(initial)[0]


def _as_step(cell: RNNCellBase) -> Cell:
    """A cell of `nn`, which gives the next state alone, as `scan` wants it."""

    def step(x: Tree, state: Tree) -> tuple[Tree, Tree]:
        after = cell(x, state)
        return after[0] if isinstance(after, tuple) else after, after

    return step


def _step(cell: Cell, xs: Tree, h0: Tree, pullback: bool, reverse: bool) -> Diagram:
    """One step of a recurrence, or its pullback."""
    length = trees.length(trees.leaves(xs, "scan: xs"), "scan: xs")
    with watching_variables() as variables:
        step, pulled = named_step(cell, xs, h0)
    tags = tags_of(step.program, variables, step.names)
    if pullback:
        return _pulled_back(step, pulled, length, reverse, tags)
    return step_diagram(step, f"STEP  {steps_text(length, reverse)}", length, tags)


def _whole_pullback(program: Program) -> Pullback:
    """The pullback of a program, with gradients of all that can have one."""
    given = [x.dtype.kind == "f" for x in program.outputs]
    return pull_back(program, given, [x.dtype.kind == "f" for x in program.inputs])


def _pulled_back(
    step: NamedProgram,
    pullback: Pullback,
    length: int | None = None,
    reverse: bool = False,
    tags: Tags = NO_TAGS,
) -> Diagram:
    """The pulled-back step, in the names of the step."""
    if not pullback.program.outputs:
        raise DiagnosisError(
            "draw_graph: there is no pullback: nothing that goes into the step can have a gradient"
        )
    steps = "" if length is None else f"  {steps_text(length, not reverse)}"
    return step_diagram(
        named_pullback(step, pullback), f"PULLBACK OF THE STEP{steps}", length, tags
    )
