"""What was recorded behind a tensor, as equations?

A recorded node and an equation of a program have the same four fields, so here the one becomes the
other: the graph behind a tensor turns into the lines that would have been written down. What the
graph has not kept is not known: of an operand that needs no gradient and that no rule reads, only
the shape. Read `graph.py` (what a node is) and `program.py` (what an equation is) before this file.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinygrad_rnn import backend
from tinygrad_rnn.autodiff import Edge, output_edges, source
from tinygrad_rnn.autograd.function import FunctionPrimitive
from tinygrad_rnn.diagnose.errors import DiagnosisError
from tinygrad_rnn.graph import Node, newest_first
from tinygrad_rnn.nn import Module
from tinygrad_rnn.ops import cast
from tinygrad_rnn.program import Equation, Trace, Var
from tinygrad_rnn.scan.naming import memory_of, names_by_memory
from tinygrad_rnn.tensor import Tensor

#: What tensors are called: a Module, or names for tensors and Modules.
Names: TypeAlias = Module | Mapping[str, Any] | None


class Recorded(NamedTuple):
    """The graph behind a tensor, in the order in which it was computed.

    leaves: what no equation makes, with the kind of each: "parameter" gets a gradient, "input"
        does not. result: the tensor itself.
    """

    equations: list[Equation]
    leaves: dict[Var, str]
    result: Var


def recorded(tensor: Tensor, names: Names = None) -> Recorded:
    """The equations behind a tensor.

    names: what its leaves, and results on the way, are called.
    Raises DiagnosisError if nothing was recorded, RuntimeError if backward has released the graph.
    """
    if tensor._edge is None:
        raise DiagnosisError(
            "draw_graph: nothing is recorded behind this tensor. Compute it from tensors with "
            "requires_grad=True, outside no_grad, or draw a step: draw_graph(cell, xs, h0)"
        )
    return _Reading(_named_tensors(names)).read(tensor)


def _named_tensors(names: Names) -> list[tuple[str, Tensor]]:
    """Every tensor that has a name, with it. Raises TypeError for anything else."""
    if isinstance(names, Module):
        return [*names.named_parameters(), *names.named_buffers()]
    found: list[tuple[str, Tensor]] = []
    for name, value in (names or {}).items():
        if isinstance(value, Module):
            found += [(f"{name}.{inner}", tensor) for inner, tensor in _named_tensors(value)]
        elif isinstance(value, Tensor):
            found.append((name, value))
        else:
            raise TypeError(
                "draw_graph: names is a Module, or a dict of names with a Tensor or a Module each; "
                f"{name!r} is a {type(value).__name__}"
            )
    return found


class _Reading:
    """One walk through a graph, from the first node to the last."""

    def __init__(self, named: list[tuple[str, Tensor]]) -> None:
        self.trace = Trace()  # numbers the values
        self.results = {x._edge: name for name, x in named if x._edge is not None}
        leaves = [(name, x) for name, x in named if x._edge is None]
        self.names = names_by_memory(leaves)
        self.sequences = [(name, x.array) for name, x in leaves if not x.requires_grad and x.ndim]
        self.values: dict[Edge, Var] = {}
        self.inputs: dict[Hashable, Var] = {}
        self.leaves: dict[Var, str] = {}
        self.equations: list[Equation] = []

    def read(self, tensor: Tensor) -> Recorded:
        """Every node behind the tensor."""
        for node in reversed(newest_first([source(tensor._edge)])):
            if node.inputs is None:
                raise RuntimeError(
                    f"draw_graph: an earlier backward has released the values of "
                    f"'{node.primitive.name}', and their shapes with them. Draw before backward, "
                    "or call backward(retain_graph=True)"
                )
            self.equation(node, node.inputs)
        return Recorded(self.equations, self.leaves, self.values[tensor._edge])

    def equation(self, node: Node, operands: list[Any]) -> None:
        """A node as an equation."""
        inputs = [
            self.operand(edge, operand)
            for place, (edge, operand) in enumerate(zip(node.edges, operands, strict=True))
            if _is_tensor(node, place)
        ]
        floats = [x.dtype for x in inputs if type(x) is Var and x.dtype.kind == "f"]
        dtype = node.params["dtype"] if node.primitive is cast else floats[0]
        outputs = []
        for y, edge in zip(node.outputs, output_edges(node), strict=True):
            shape = y if type(y) is tuple else y.shape
            name = self.results.get(edge)
            made = Var(self.trace, shape, getattr(y, "dtype", dtype), name=name)
            self.values[edge] = made
            outputs.append(made)
        equation = Equation(node.primitive, inputs, outputs, node.params)
        for index, made in enumerate(outputs):
            made.equation, made.index = equation, index
        self.equations.append(equation)

    def operand(self, edge: Edge | None, value: Any) -> Any:
        """An operand: what an earlier equation made, a leaf, or a number."""
        if edge is not None:
            if edge not in self.values:  # a leaf tensor
                name = self.names.get(memory_of(edge))
                self.values[edge] = self._leaf("parameter", edge.shape, edge.dtype, name)
            return self.values[edge]
        if type(value) is tuple:
            return self._leaf("input", value, np.dtype(backend.get_default_dtype()), None)
        if not backend.is_array(value):
            return value
        memory = memory_of(value)
        if memory not in self.inputs:
            name = self.names.get(memory) or next(self._parts(value), None)
            self.inputs[memory] = self._leaf("input", value.shape, value.dtype, name)
        return self.inputs[memory]

    def _leaf(self, kind: str, shape: tuple[int, ...], dtype: Any, name: str | None) -> Var:
        leaf = Var(self.trace, shape, dtype, name=name)
        self.leaves[leaf] = kind
        return leaf

    def _parts(self, array: Any) -> Iterator[str]:
        """What an array is called that is one step of a named one, as xs[3] is of xs."""
        own: Any = memory_of(array)
        for name, whole in self.sequences:
            memory: Any = memory_of(whole)
            start, (length, *shape), (stride, *strides) = memory
            if own[1:] == (tuple(shape), tuple(strides)) and stride:
                step, rest = divmod(own[0] - start, stride)
                if not rest and 0 <= step < length:
                    yield f"{name}[{step}]"


def _is_tensor(node: Node, place: int) -> bool:
    """Whether an operand is a tensor or a number, and not another argument of a user's Function."""
    if not isinstance(node.primitive, FunctionPrimitive):
        return True
    arguments = node.params["arguments"]  # and behind them what else was saved
    return place >= len(arguments) or arguments[place] is not None
