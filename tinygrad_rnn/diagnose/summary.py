"""What is in a model, and what does a forward pass of it cost?

One run, watched: for each module the shapes that went in and came out, its parameters, the FLOPs it
did and the memory that its operations keep for backward. How FLOPs are counted is in `flops.py`,
what counts as kept in `kept.py`. Read `running.py` before this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from tinygrad_rnn.diagnose.errors import DiagnosisError
from tinygrad_rnn.diagnose.flops import flops
from tinygrad_rnn.diagnose.kept import bytes_of, held_by_nodes, owner
from tinygrad_rnn.diagnose.running import Call, Running, following
from tinygrad_rnn.diagnose.table import amount, bytes_, table
from tinygrad_rnn.diagnose.untouched import untouched
from tinygrad_rnn.graph import Node
from tinygrad_rnn.modes import Watch, enable_grad
from tinygrad_rnn.nn import Module
from tinygrad_rnn.nn.parameter import Parameter
from tinygrad_rnn.ops.primitive import Primitive
from tinygrad_rnn.tensor import Tensor


class Row(NamedTuple):
    """One module, without those inside it.

    path: its dotted name, "" for the model itself. type: the name of its class.
    calls: how often it ran.
    inputs, outputs: the shapes of the first call, a tuple for each tensor, in lists nested as the
        arguments and the result are; None if it did not run.
    parameters: how many numbers it learns or has frozen, itself and for the first time.
    frozen: how many of them require no gradient.
    shared: its parameters that an earlier module has too, which are counted there: name -> name.
    flops: of its operations. kept: the bytes that they keep for backward.
    in_step: it ran in the step of a `scan`; its operations count where the scan was called.
    """

    path: str
    type: str
    calls: int
    inputs: Any
    outputs: Any
    parameters: int
    frozen: int
    shared: dict[str, str]
    flops: int
    kept: int
    in_step: bool


class Summary:
    """What `summary` found; printed, a table.

    rows: a Row for each module, in the order of `named_modules`. parameters, frozen, flops, kept:
    their sums. parameter_bytes: the memory of the parameters. working: how many of the bytes kept
    are working memory of scans.
    """

    def __init__(self, rows: Sequence[Row], parameter_bytes: int, working: int) -> None:
        self.rows = list(rows)
        self.parameter_bytes = parameter_bytes
        self.working = working
        self.parameters = sum(row.parameters for row in rows)
        self.frozen = sum(row.frozen for row in rows)
        self.flops = sum(row.flops for row in rows)
        self.kept = sum(row.kept for row in rows)

    def __str__(self) -> str:
        header = ["module", "input", "output", "parameters", "FLOPs", "kept", "notes"]
        sums = f"{self.parameters:,}", amount(self.flops), bytes_(self.kept)
        lines = table("lllrrrl", header, [*map(_cells, self.rows), ["total", "", "", *sums, ""]])
        lines.insert(-1, lines[1])
        return "\n".join([*lines, *self._explanations()])

    __repr__ = __str__

    def _explanations(self) -> Iterator[str]:
        """What the columns mean, and the details that have no room in them."""
        frozen = f", {self.frozen:,} of them frozen" if self.frozen else ""
        yield f"parameters: {bytes_(self.parameter_bytes)}{frozen}"
        yield "FLOPs: of the forward pass; a multiply-add counts as two"
        working = f"; {bytes_(self.working)} of it is working memory of scans"
        yield f"kept: memory held until backward{working if self.working else ''}"
        for row in self.rows:
            for name, other in row.shared.items():
                yield f"shared: {f'{row.path}.{name}'.removeprefix('.')} is {other}, counted there"
        if any(row.in_step for row in self.rows):
            yield "in a scan: run at every step, and counted where the scan is called"


def summary(model: Callable[..., Any], *inputs: Any, **options: Any) -> Summary:
    """Run a Module, `model(*inputs, **options)`, once; tell what is in it and what it cost.

    Each number is that of a module without the modules inside it, so the columns add up. FLOPs are
    counted from the operations that were computed, a scan's T times, by the rules of `flops.py`.
    Kept are the bytes that the graph behind the outputs holds for backward, each array once and as
    a whole where it is a view of a larger one; parameters, buffers and inputs are there anyway and
    do not count. The model runs in the mode that it is in, training or not, and is afterwards as it
    was (`untouched.py`). Raises DiagnosisError (a ValueError) for anything but a Module.

    >>> import tinygrad_rnn as torch
    >>> from tinygrad_rnn import nn
    >>> print(summary(nn.Sequential(nn.Linear(10, 20), nn.Tanh()), torch.zeros(7, 10)))
    module       input    output   parameters   FLOPs   kept  notes
    ---------------------------------------------------------------
    Sequential   (7, 10)  (7, 20)           -       -      -
      0: Linear  (7, 10)  (7, 20)         220  2.94 k      -
      1: Tanh    (7, 20)  (7, 20)           -     140  560 B
    ---------------------------------------------------------------
    total                                 220  3.08 k  560 B
    parameters: 880 B
    FLOPs: of the forward pass; a multiply-add counts as two
    kept: memory held until backward
    """
    if not isinstance(model, Module):
        raise DiagnosisError(
            f"summary: expected a Module, got {type(model).__name__}; to see what a function "
            "computes, print diagnose.profile() around it"
        )
    with untouched([model]), enable_grad(), following(model) as running, _Costs(running) as costs:
        result = model(*inputs, **options)
    there = [*model.parameters(), *model.buffers(), *_tensors((inputs, options))]
    known = {id(owner(tensor.array)) for tensor in there}
    kept: dict[str, int] = {}
    working = 0
    for node, memory, is_working in held_by_nodes(_tensors(result)):
        path = costs.paths.get(node.order)
        if path is not None and id(memory) not in known:  # else a graph was behind the inputs
            kept[path] = kept.get(path, 0) + bytes_of(memory)
            working += bytes_of(memory) if is_working else 0
    rows = [*_rows(model, running.calls, costs.flops, kept)]
    return Summary(rows, sum(param.array.nbytes for param in model.parameters()), working)


class _Costs(Watch):
    """The FLOPs of each module, and which module recorded which node."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.flops: dict[str, int] = {}
        self.paths: dict[int, str] = {}

    def after(
        self, primitive: Primitive, operands: Sequence[Any], params: dict[str, Any], made: Any
    ) -> None:
        """Count an operation."""
        path, results = self.running.path(), made if type(made) is list else [made]
        number = flops(primitive, operands, results, params)
        self.flops[path] = self.flops.get(path, 0) + number

    def recorded(self, node: Node) -> None:
        """Note where a node was recorded."""
        self.paths[node.order] = self.running.path()


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a result, however it is nested."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _rows(
    model: Module, calls: Sequence[Call], done: dict[str, int], kept: dict[str, int]
) -> Iterator[Row]:
    """A row for each module."""
    first_names: dict[int, str] = {}
    for path, module in model.named_modules():
        own: list[Parameter] = []
        shared: dict[str, str] = {}
        for name, param in module._parameters.items():
            full = f"{path}.{name}".removeprefix(".")
            if param is None:
                continue
            if first_names.setdefault(id(param), full) == full:
                own.append(param)
            else:
                shared[name] = first_names[id(param)]
        mine = [call for call in calls if call.path == path]
        yield Row(
            path,
            type(module).__name__,
            len(mine),
            mine[0].inputs if mine else None,
            mine[0].outputs if mine else None,
            sum(param.array.size for param in own),
            sum(param.array.size for param in own if not param.requires_grad),
            shared,
            done.get(path, 0),
            kept.get(path, 0),
            any(call.in_step for call in mine),
        )


def _cells(row: Row) -> list[str]:
    """A row of the table."""
    depth = row.path.count(".") + 1 if row.path else 0
    name = f"{row.path.rpartition('.')[2]}: {row.type}" if row.path else row.type
    notes = ["shared"] if row.shared else []
    if row.frozen:
        notes.append("frozen" if row.frozen == row.parameters else f"{row.frozen:,} frozen")
    if row.in_step:
        notes.append("in a scan")
    elif row.calls != 1:
        notes.append(f"{row.calls} calls" if row.calls else "not run")
    return [
        "  " * depth + name,
        _first_shape(row.inputs),
        _first_shape(row.outputs),
        f"{row.parameters:,}" if row.parameters else "-",
        amount(row.flops) if row.flops else "-",
        bytes_(row.kept) if row.kept else "-",
        ", ".join(notes),
    ]


def _first_shape(nested: Any) -> str:
    """The first tensor's shape, and a sign if there are more."""
    found = list(_flat(nested))
    return f"{found[0]} …" if len(found) > 1 else str(found[0]) if found else "-"


def _flat(nested: Any) -> Iterator[tuple[int, ...]]:
    if type(nested) is tuple:
        yield nested
    for part in nested if type(nested) is list else ():
        yield from _flat(part)
