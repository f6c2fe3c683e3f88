"""How can one look into the recurrences of a model while it runs?

`observing` has every `scan` and `unroll` that runs inside it done step by step, as `unroll` defines
them, and keeps what each step computed: states, operations, gates, all of them Tensors in the graph
whose gradients can be asked for. The model computes what it always does, only slower. What is asked
of these records is in the other files of this folder; what things are called is in `naming.py`.
Read `scan/unroll.py` first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from tinygrad_rnn.autodiff import source
from tinygrad_rnn.diagnose.naming import (
    CellFrames,
    Gate,
    RecurrenceNames,
    gates_of,
    names_of_state,
    new_states,
)
from tinygrad_rnn.graph import Node
from tinygrad_rnn.modes import Watch, current
from tinygrad_rnn.ops import reshape
from tinygrad_rnn.ops.primitive import Primitive
from tinygrad_rnn.scan import Cell, scan, trees
from tinygrad_rnn.scan.trees import Tree
from tinygrad_rnn.scan.unroll import checked_step
from tinygrad_rnn.tensor import Tensor


class Operation(NamedTuple):
    """outputs = primitive(inputs): one operation of a step.

    inputs: as it was called, with Tensors, arrays and numbers. line: where the cell called it, as
    "file:number: text". Of a Function of one's own there are the operations of its forward.
    """

    primitive: Primitive
    inputs: Sequence[Any]
    outputs: list[Tensor]
    params: dict[str, Any]
    line: str


class Step(NamedTuple):
    """(y, after) = cell(x, before): step t of a recurrence, from 1 to T.

    operations: in the order in which they were computed.
    names: the cell's variables, by the `id` of the Tensor that each holds in the end.
    gates: the results of sigmoid and tanh, by name.
    """

    t: int
    x: Tree
    before: Tree
    y: Tree
    after: Tree
    operations: list[Operation]
    names: dict[int, str]
    gates: dict[str, Gate]


class Observed:
    """One run of a recurrence.

    name: such as "encoder layer 0 forward".
    steps: in the order in which they ran, so from t = T to 1 if `reverse`.
    """

    def __init__(self, name: str, cell: Cell, start: Tree, reverse: bool) -> None:
        self.name, self.cell, self.start, self.reverse = name, cell, start, reverse
        self.steps: list[Step] = []

    @property
    def states(self) -> list[Tree]:
        """The T + 1 states, the initial one first, in the order in which they were computed."""
        return [self.start, *(step.after for step in self.steps)]

    @property
    def state_names(self) -> list[str]:
        """What the tensors of a state are called, in the order of `trees.leaves`."""
        first = self.steps[0]
        return names_of_state(first.after, first.operations, first.names)

    def __repr__(self) -> str:
        return f"<observed {self.name}: {len(self.steps)} steps>"


@contextmanager
def observing(model: Any) -> Iterator[list[Observed]]:
    """Observe the recurrences that run in the block; gives the list to which they are added.

    model: the Module or function that will run; it is only asked for names.
    In the block a recurrence runs step by step, as `unroll` does, also one that asks for `scan`:
    its cell is called at every step, and `checkpoint` has no effect. Values and gradients are the
    same up to rounding, and random numbers the same. Every state has a place of its own in the
    graph, the initial one too. A recurrence inside a step of another is an operation of that step.

    >>> import tinygrad_rnn as torch
    >>> lstm = torch.nn.LSTM(2, 3, num_layers=2)
    >>> with observing(lstm) as recurrences:
    ...     ys, _ = lstm(torch.randn(5, 1, 2))
    >>> recurrences
    [<observed LSTM layer 0 forward: 5 steps>, <observed LSTM layer 1 forward: 5 steps>]
    >>> recurrences[0].state_names, list(recurrences[0].steps[0].gates)
    (['h', 'c'], ['i', 'f', 'g', 'o', 'tanh(c)'])
    """
    observer = _Observer(model)
    earlier, current.observer = current.observer, observer
    try:
        yield observer.recurrences
    finally:
        current.observer = earlier


class _Observer:
    """What `scan` and `unroll` hand over to."""

    def __init__(self, model: Any) -> None:
        self.recurrences: list[Observed] = []
        self._names = RecurrenceNames(model)

    def __call__(self, cell: Cell, xs: Tree, h0: Tree, reverse: bool) -> tuple[Tree, Tree]:
        """(ys, h) of the recurrence, whose steps are kept."""
        current.observer = None  # a recurrence in a step is a part of it
        try:
            inputs = trees.unstack(xs, "scan: xs")
            if not inputs:
                return scan(cell, xs, h0, reverse=reverse)
            name = self._names.next(cell, reverse, sys._getframe(1))
            observed = Observed(name, cell, _initial(h0), reverse)
            self.recurrences.append(observed)
            ys, h = [None] * len(inputs), observed.start
            for k in reversed(range(len(inputs))) if reverse else range(len(inputs)):
                step = _observed_step(k + 1, cell, inputs[k], h)
                observed.steps.append(step)
                ys[k], h = step.y, step.after
            return trees.stack(ys, "scan: y"), h
        finally:
            current.observer = self


def _initial(h0: Tree) -> Tree:
    """The initial state, with a place in the graph for each of its tensors."""
    leaves = []
    for x in trees.leaves(h0, "scan: h0"):
        if x.is_floating_point() and current.recording:
            x = _apart(x) if x.requires_grad else x.detach().requires_grad_()
        leaves.append(x)
    return trees.rebuild(h0, leaves)


def _apart(x: Tensor) -> Tensor:
    """The same values at a place of their own in the graph."""
    return reshape(x, shape=x.shape)  # type: ignore[no-any-return]


def _observed_step(t: int, cell: Cell, x: Tree, before: Tree) -> Step:
    """One step, with what it computed."""
    with _Recorder(CellFrames(sys._getframe())) as recorder:
        returned = cell(x, before)
    y, after = _with_own_states(checked_step("scan", returned, before), recorder)
    own = (x, before, y, after)
    known = recorder.made | {id(value) for tree in own for value in trees.leaves(tree)}
    names = {key: name for key, name in recorder.frames.names().items() if key in known}
    states = [*trees.leaves(before), *new_states(after, recorder.operations)]
    gates = gates_of(recorder.operations, names, states)
    return Step(t, *own, recorder.operations, names, gates)


class _Recorder(Watch):
    """Keeps the operations of a step.

    made: the ids of the Tensors that they computed. nodes: what the step added to the graph, which
    is more: a Function of one's own is a node and no operation.
    """

    def __init__(self, frames: CellFrames) -> None:
        self.frames = frames
        self.operations: list[Operation] = []
        self.made: set[int] = set()
        self.nodes: set[Node] = set()

    def after(self, primitive: Any, operands: Sequence[Any], params: Any, made: Any) -> None:
        """An operation has been computed."""
        line = self.frames.visit(sys._getframe(1))
        outputs = list(made) if type(made) is list else [made]
        self.operations.append(Operation(primitive, operands, outputs, params, line))
        self.made.update(map(id, outputs))

    def recorded(self, node: Any) -> None:
        """A node has been added to the graph."""
        self.nodes.add(node)

    def computed(self, x: Tensor) -> bool:
        """Whether the step has computed x."""
        return id(x) in self.made or (x._edge is not None and source(x._edge) in self.nodes)


def _with_own_states(returned: tuple[Tree, Tree], step: _Recorder) -> tuple[Tree, Tree]:
    """(y, after), where each tensor of the next state is this step's and nothing else's.

    One that the step did not compute, such as a state that it leaves alone, or that is two states
    at once, gets a place of its own in the graph. Its gradient is then that of the state after this
    step, and does not include what the step itself does with it.
    """
    y, after = returned
    own: dict[int, Tensor] = {}
    leaves: list[Tensor] = []
    for x in trees.leaves(after, "scan: h"):
        if step.computed(x) and all(x is not earlier for earlier in leaves):
            leaves.append(x)
        else:
            leaves.append(_apart(x))
            own.setdefault(id(x), leaves[-1])
    ys = [x if step.computed(x) else own.get(id(x), x) for x in trees.leaves(y, "scan: y")]
    return trees.rebuild(y, ys), trees.rebuild(after, leaves)
