"""The record of what was computed, and the walk back through it.

A `Node` is one recorded operation: the primitive, where its operands came from, and the values its
rules will read. Nodes point at arrays and at earlier nodes, never at the Tensors that operations
made, so a graph has no reference cycles and dies as soon as nobody holds its end.
Read `autodiff.py` (the chain rule) and `ops/primitive.py` (what a rule is) first; `tensor.py` next.
"""

from __future__ import annotations

import itertools
import linecache
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, TypeAlias

import numpy as np

from tinygrad_rnn import backend
from tinygrad_rnn.autodiff import Edge, backpropagate, output_edges, paths, source
from tinygrad_rnn.backend import Array, namespace
from tinygrad_rnn.modes import current, set_grad_enabled
from tinygrad_rnn.ops.devices import require_one_device
from tinygrad_rnn.ops.linear import Products
from tinygrad_rnn.ops.primitive import Primitive, Tracer, describe

#: A node, the edges to follow from it, and its outputs and inputs as the rules shall see them.
Visit: TypeAlias = tuple["Node", Sequence[Edge | None], Sequence[Any], Sequence[Any]]
#: The hooks of one tensor, in the order of registration.
Hooks: TypeAlias = dict[int, Callable[[Any], Any]]

_clock = itertools.count(1)  # orders nodes and writes: a later one has the larger number
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Node:
    """One recorded operation.

    inputs, outputs: the arrays that the primitive's rules will read; shapes for those they do not,
        and numbers.
    edges: where each input came from; None for an input that needs no gradient.
    order: a creation counter; descending order is a reverse topological order.
    line: the program's line that called the operation; known only under detect_anomaly.
    """

    __slots__ = (
        "__weakref__",
        "arity",
        "edges",
        "hooks",
        "inputs",
        "keeps",
        "line",
        "order",
        "outputs",
        "params",
        "primitive",
    )

    primitive: Primitive
    inputs: list[Any] | None  # None once backward has released the values
    outputs: list[Any]
    params: dict[str, Any]
    edges: Sequence[Edge | None]
    arity: int
    order: int
    keeps: bool  # whether the rules read any value
    hooks: dict[int, Hooks] | None  # by output
    line: str | None

    def __init__(
        self,
        primitive: Primitive,
        inputs: list[Any],
        outputs: list[Any],
        params: dict[str, Any],
        edges: list[Edge | None],
        pattern: int,
    ) -> None:
        reads_outputs, unread = primitive.kept.get(pattern) or primitive.keeps(pattern)
        for place in unread:
            inputs[place] = getattr(inputs[place], "shape", inputs[place])  # a number stays
        self.primitive = primitive
        self.inputs = inputs
        if reads_outputs:
            self.outputs = outputs
        elif len(outputs) == 1:
            self.outputs = [outputs[0].shape]
        else:
            self.outputs = [y.shape for y in outputs]
        self.keeps = reads_outputs or len(unread) < len(inputs)
        self.params = params
        self.edges = edges
        self.arity = len(outputs)
        self.order = next(_clock)
        self.hooks = None
        self.line = None
        if current.watches:
            for watch in current.watches:
                watch.recorded(self)

    def __repr__(self) -> str:
        return f"<node {self.order}: {self.primitive.name}>"

    def name(self) -> str:
        """The primitive's name, for those who look at `grad_fn` as in PyTorch."""
        return self.primitive.name

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """Where the inputs came from, as PyTorch lists it: (node or leaf tensor, output index)."""
        return tuple(edge if type(edge) is tuple else (edge, 0) for edge in self.edges)

    def release(self) -> None:
        """Forget the values, if one of them is an array, and keep the place in the graph."""
        for value in (self.inputs or []) + self.outputs:
            if type(value) not in _NOT_ARRAYS:
                self.inputs, self.outputs = None, []
                return


_NOT_ARRAYS = (tuple, float, int, bool)  # a shape or a number, which is not worth releasing


class Turn:
    """A node's turn in a backward pass, for those who watch.

    outputs, inputs: as the node's rules see them: values, or shapes.
    edges, places: of the inputs whose cotangents are asked for, and which inputs these are.
    known: the pass's cotangents, by edge; those of weights may be `Products`, not yet computed.
    """

    def __init__(
        self,
        node: Node,
        edges: Sequence[Edge | None],
        outputs: Sequence[Any],
        inputs: Sequence[Any],
        known: dict[Edge, Any],
    ) -> None:
        self.node, self.outputs, self.inputs, self.known = node, outputs, inputs, known
        self.edges = [edge for edge in edges if edge is not None]
        self.places = [place for place, edge in enumerate(edges) if edge is not None]

    def given(self) -> list[Any]:
        """The outputs' cotangents, None where there is none: before the turn."""
        return [self._value(edge) for edge in output_edges(self.node)]

    def pulled(self) -> list[Any]:
        """The inputs' cotangents, as far as they are known: other nodes add to them too."""
        return [self._value(edge) for edge in self.edges]

    def _value(self, edge: Edge) -> Any:
        g = self.known.get(edge)
        return g.total() if type(g) is Products else g


class _Writes:
    """When arrays were last written in place: what tells a stale value from a fresh one.

    A write is remembered for the array that owns the memory, so it is seen through every view.
    """

    def __init__(self) -> None:
        self.latest = 0
        self._times: dict[int, tuple[int, str]] = {}

    def note(self, array: Array, writer: str) -> None:
        """Remember that `writer` changed the array's memory now."""
        self.latest = next(_clock)
        self._times[_owner(array)] = (self.latest, writer)

    def since(self, order: int, array: Array) -> str | None:
        """Who changed the array's memory after the node `order` was recorded, if anyone did."""
        time, writer = self._times.get(_owner(array), (0, ""))
        return writer if time > order else None


def _owner(array: Array) -> int:
    """The identity of the memory that an array is a view of."""
    base = getattr(array, "base", None)
    while base is not None:
        array, base = base, getattr(base, "base", None)
    return id(array)


writes = _Writes()


class RemovableHandle:
    """What registering a hook returns; `remove()` takes the hook away again."""

    _ids = itertools.count()

    def __init__(self, hooks: Hooks, hook: Callable[..., Any]) -> None:
        self._hooks = hooks
        self.id = next(self._ids)
        hooks[self.id] = hook

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        self._hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.remove()


def pull_back(
    seeds: dict[Edge, Any],
    wanted: set[Edge] | None,
    wrap: Callable[[Array, Edge | None], Any],
    retain_graph: bool,
    create_graph: bool,
) -> dict[Edge, Any]:
    """From the roots' cotangents to those of the wanted edges, or of all leaves; Tensors.

    wrap: makes a Tensor of an array and its edge.
    The rules see arrays and compute at NumPy's speed, or with create_graph see Tensors, and what
    they compute is recorded.
    """
    walk = _Walk(seeds, wanted, wrap, retain_graph, create_graph)
    with set_grad_enabled(create_graph), np.errstate(all="ignore"):  # NaN and Inf are values
        backpropagate(walk, walk.cotangents, walk.add)
        return walk.results()


class _Walk:
    """Visits nodes, newest first, and does around each what backward owes besides the chain rule.

    Before a node's rules run: tensor hooks, and setting aside the cotangents that were asked for.
    After: releasing the values it kept.
    """

    def __init__(
        self,
        seeds: dict[Edge, Any],
        wanted: set[Edge] | None,
        wrap: Callable[[Array, Edge | None], Any],
        retain_graph: bool,
        create_graph: bool,
    ) -> None:
        self.cotangents = {
            edge: seed if create_graph else seed.array for edge, seed in seeds.items()
        }
        self.nodes = newest_first(map(source, seeds))
        self.wanted = wanted
        self.leading: dict[Node, tuple[Edge | None, ...]] = {}
        if wanted is not None:
            self.leading = paths(self.nodes, wanted)
            self.nodes = [node for node in self.nodes if node in self.leading]
        self.wrap = wrap
        self.retain_graph, self.create_graph = retain_graph, create_graph
        self.aside: dict[Edge, Any] = {}
        self.started = next(_clock)
        self.own: set[Edge] = set()  # edges whose cotangent is a sum in an array of its own

    def __iter__(self) -> Iterator[Visit]:
        wanted, watches, releasing = self.wanted, current.watches, not self.retain_graph
        cotangents, recording = self.cotangents, self.create_graph
        inputs: Sequence[Any] | None
        outputs: Sequence[Any]
        edges: Sequence[Edge | None]
        for node in self.nodes:
            inputs, outputs, edges = node.inputs, node.outputs, node.edges
            if node.arity == 1:
                if type(cotangents.get(node)) is Products:
                    self._compute(node)
            else:
                for edge in output_edges(node):
                    self._compute(edge)
            if inputs is None:
                if any(edge in cotangents for edge in output_edges(node)):
                    raise RuntimeError(_released(node, cotangents))
                continue
            if node.hooks is not None or wanted is not None:
                self._meet(node)
            if node.order < writes.latest:  # after the hooks, which may write
                _refuse_stale(node)
            if wanted is not None:
                edges = self.leading[node]
            if recording:
                outputs, inputs = self._recorded(node)
            if watches:
                turn = Turn(node, edges, outputs, inputs, cotangents)
                looks = _begun(watch.pulling(turn) for watch in watches)
                yield node, edges, outputs, inputs
                for look in looks:
                    next(look, None)
            else:
                yield node, edges, outputs, inputs
            if releasing and node.keeps:
                node.release()

    def _meet(self, node: Node) -> None:
        """Run the hooks on a node's cotangents, and set those aside that were asked for."""
        for index, edge in enumerate(output_edges(node)):
            if edge not in self.cotangents:
                continue
            if node.hooks is not None:
                self.cotangents[edge] = self._hooked(node.hooks.get(index), self.cotangents[edge])
            if self.wanted and edge in self.wanted:
                self.aside[edge] = self.cotangents[edge]

    def _hooked(self, hooks: Hooks | None, g: Any) -> Any:
        """The cotangent after the hooks, of the kind it came as."""
        if not hooks:
            return g
        for edge in self.cotangents:  # what waits must not see what a hook may write
            self._compute(edge)
        tensor = g if self.create_graph else self.wrap(g, None)
        for hook in list(hooks.values()):
            replaced = hook(tensor)
            if replaced is not None:
                tensor = _replacement(hook, tensor, replaced)
        return tensor if self.create_graph else tensor.array

    def add(self, edge: Edge, earlier: Any, g: Any) -> Any:
        """The sum of two cotangents; from the second sum of an edge on in place, if of arrays."""
        if self.create_graph:
            return earlier + g
        if type(earlier) is Products:
            return earlier.add(g)
        if type(g) is Products:
            return g.add(earlier)
        if edge in self.own:
            earlier += g
            return earlier
        self.own.add(edge)
        return earlier + g

    def _compute(self, edge: Edge) -> None:
        """Make an array of a cotangent that was collected as Products."""
        g = self.cotangents.get(edge)
        if type(g) is Products:
            for array in g.arrays() if writes.latest > self.started else ():
                writer = writes.since(self.started, array)
                if writer is not None:
                    raise RuntimeError(
                        f"backward: {describe(array)}, an operand of 'matmul', was changed by "
                        f"{writer} while backward ran, and its old value is needed"
                    )
            looks = _begun(watch.summing(g) for watch in current.watches)
            self.cotangents[edge] = g.total()
            for look in looks:
                next(look, None)
            self.own.add(edge)

    def _recorded(self, node: Node) -> tuple[list[Any], list[Any]]:
        """(outputs, inputs) of a node as Tensors in their place in the graph."""
        outputs = [
            y if type(y) is tuple else self.wrap(y, edge)
            for y, edge in zip(node.outputs, output_edges(node), strict=True)
        ]
        inputs = [
            x if edge is None or type(x) is tuple else self.wrap(x, edge)
            for x, edge in zip(node.inputs or (), node.edges, strict=True)
        ]
        return outputs, inputs

    def results(self) -> dict[Edge, Any]:
        """The cotangents asked for (of all leaves if none were), in memory of their own."""
        results: dict[Edge, Any] = {}
        for edge in self.cotangents:
            self._compute(edge)
        for edge, g in (self.cotangents | self.aside).items():
            if self.wanted is not None and edge not in self.wanted:
                continue
            if edge not in self.aside:  # its hooks were not met on the way
                hooks = source(edge).hooks
                index = edge[1] if type(edge) is tuple else 0
                g = self._hooked(hooks.get(index) if hooks else None, g)
            if self.create_graph:
                g = g.clone()  # it may be the seed itself, or what another edge gets too
            else:
                g = self.wrap(g if edge in self.own else namespace(g).array(g), None)
            results[edge] = g
        return results


def _begun(looks: Iterable[Iterator[None]]) -> list[Iterator[None]]:
    """What watches do before something; the rest of it, which they do after, is still to come."""
    begun = list(looks)
    for look in begun:
        next(look)
    return begun


def _replacement(hook: Callable[[Any], Any], g: Any, replaced: Any) -> Any:
    """What a hook gave in place of a cotangent: a Tensor of its shape and dtype, on its device."""
    name = getattr(hook, "__name__", repr(hook))
    if not isinstance(replaced, Tracer):
        raise TypeError(f"hook '{name}' must return a Tensor or None, not {describe(replaced)}")
    require_one_device(f"hook '{name}'", (g, replaced), ("the gradient", "what it returned"))
    if describe(replaced) != describe(g):
        raise RuntimeError(
            f"hook '{name}' returned {describe(replaced)} in place of a gradient of {describe(g)}"
        )
    return replaced


def newest_first(sources: Iterable[Any]) -> list[Node]:
    """Every node reachable from the sources, each before those it was made from."""
    stack = [maker for maker in sources if type(maker) is Node]
    seen = set(stack)
    while stack:
        for edge in stack.pop().edges:
            maker = edge[0] if type(edge) is tuple else edge
            if type(maker) is Node and maker not in seen:
                seen.add(maker)
                stack.append(maker)
    return sorted(seen, key=attrgetter("order"), reverse=True)


def _refuse_stale(node: Node) -> None:
    """Raise if an array that the node's rules read was written after the node was recorded."""
    index = node.params.get("index", ())
    indices = index if isinstance(index, tuple) else (index,)
    kept = (("operand", node.inputs or ()), ("result", node.outputs), ("index", indices))
    for kind, values in kept:
        for place, value in enumerate(values):
            if type(value) is tuple or not backend.is_array(value):
                continue
            writer = writes.since(node.order, value)
            if writer is not None:
                raise RuntimeError(
                    f"backward: {kind} {place} of '{node.primitive.name}', {describe(value)}, was "
                    f"changed by {writer} after it was used, and its old value is needed. Call "
                    "backward before changing it; or, if a state was kept across an optimizer "
                    "step, detach it: h = h.detach()"
                )


def _released(node: Node, cotangents: dict[Edge, Any]) -> str:
    """The message for a graph that an earlier backward has used up."""
    edges = output_edges(node)
    index = next(index for index, edge in enumerate(edges) if edge in cotangents)
    shape = cotangents[edges[index]].shape
    name = _name_in_callers(edges[index], shape)
    known = f"the earlier value of '{name}'" if name else f"a tensor of shape {shape}"
    state = name or "h"
    return (
        f"backward: {known}, made by '{node.primitive.name}' in an earlier iteration, was used "
        "again, but an earlier backward has released the graph behind it. If only the value should "
        f"go on, detach it between iterations: {state} = {state}.detach(). To differentiate the "
        "same graph twice, pass retain_graph=True to the first backward"
    )


def _name_in_callers(edge: Edge, shape: tuple[int, ...]) -> str | None:
    """What the calling program calls the tensor of an edge.

    That is a local variable or attribute of self that holds it; or, where a loop has given the name
    to a newer tensor (`y, h = cell(x, h)`), one of the same shape that was computed from it.
    """
    newer = None
    for name, tensor in _tensors_of_callers():
        if tensor._edge is None:
            continue
        if tensor._edge == edge:
            return name
        if newer is None and tensor.shape == shape:
            newer = name if source(edge) in newest_first([source(tensor._edge)]) else None
    return newer


def _tensors_of_callers() -> Iterator[tuple[str, Any]]:
    """The names and tensors in the calling functions outside this package, innermost first."""
    frame = sys._getframe(1)
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            held = dict(frame.f_locals)
            for key, value in getattr(held.get("self"), "__dict__", {}).items():
                held[f"self.{key}"] = value
            for name, value in held.items():
                for part in value if isinstance(value, tuple | list) else (value,):
                    if hasattr(part, "_edge"):
                        yield name, part
        frame = frame.f_back  # type: ignore[assignment]


def user_line() -> str:
    """The line of the program, outside this package, that is being executed."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    path, number = frame.f_code.co_filename, frame.f_lineno
    return f"{path}:{number}: {linecache.getline(path, number).strip()}"
