"""The chain rule, once, for every kind of value.

A *step*, such as a recorded node (`graph.py`), applies a `primitive` to inputs and says by `edges`
where each input came from. This file walks steps backwards and asks each primitive's rule for the
cotangents of its inputs. It knows no arrays, no Tensors and no rules; those are in `ops/`, where
`primitive.py` is the file to read next.

An *edge* says which value a cotangent belongs to: the step that made it, a pair (step, index) if
that step made several, or, for a value that no step made (a leaf tensor), the value itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

Edge: TypeAlias = Any


class Step(Protocol):
    """What the chain rule needs to know of one application of a primitive."""

    primitive: Any
    params: dict[str, Any]
    edges: Sequence[Edge | None]  # per input; None where no cotangent is wanted
    arity: int  # number of outputs


def source(edge: Edge) -> Any:
    """The step (or the leaf) at the end of an edge."""
    return edge[0] if type(edge) is tuple else edge


def output_edges(step: Step) -> Sequence[Edge]:
    """The edges of a step's own outputs."""
    return (step,) if step.arity == 1 else [(step, index) for index in range(step.arity)]


def backpropagate(
    steps: Iterable[tuple[Step, Sequence[Edge | None], Sequence[Any], Sequence[Any]]],
    cotangents: dict[Edge, Any],
    add: Callable[[Edge, Any, Any], Any],
) -> None:
    """Turn cotangents of a graph's outputs into cotangents of what its edges lead to, in place.

    steps: each step on the way before those that made its inputs, as (step, edges to follow,
        outputs, inputs). Outputs and inputs are what the rules see: arrays make them compute,
        Tensors compute and record (double backward).
    cotangents: edge -> cotangent; holds the outputs' at the start, the leaves' at the end.
    add: sums two cotangents of one edge.
    """
    for step, edges, outputs, inputs in steps:
        if step.arity == 1:
            gs = [cotangents.pop(step, None)]
        else:
            gs = [cotangents.pop((step, index), None) for index in range(step.arity)]
        if gs[0] is None and all(g is None for g in gs):
            continue
        pulled = step.primitive.pull(gs, outputs, inputs, step.params, edges)
        for edge, g in zip(edges, pulled):  # noqa: B905 - as long as each other: a rule per edge
            if edge is not None and g is not None:
                earlier = cotangents.get(edge)
                cotangents[edge] = g if earlier is None else add(edge, earlier, g)


def paths(steps: Sequence[Step], wanted: set[Edge]) -> dict[Any, tuple[Edge | None, ...]]:
    """Which edges lead to a wanted one: for each step on such a path, its edges with the rest None.

    steps: in any order in which a step comes before those that made its inputs.
    """
    leading: dict[Any, tuple[Edge | None, ...]] = {}
    for step in reversed(steps):
        edges = tuple(
            edge if edge is not None and (edge in wanted or source(edge) in leading) else None
            for edge in step.edges
        )
        if any(edge is not None for edge in edges):
            leading[step] = edges
    return leading
