"""The chain rule, once, for every kind of value.

A recorded node (`tensor.py`) and an equation of a traced program (`program.py`) are both *steps*:
they apply a `primitive` to `inputs` and say by `edges` where each input came from. This file walks
steps backwards and asks each primitive's rule for the cotangents of its inputs. It knows no
arrays, no Tensors and no rules; those are in `ops/`, which is the file to read next.

An *edge* is a pair (source, index): output number `index` of the step `source`; a value that no
step made (a leaf tensor, a program's input) is its own source, with index 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias

Edge: TypeAlias = tuple[Any, int]


class Step(Protocol):
    """What the chain rule needs to know of one application of a primitive."""

    primitive: Any
    params: dict[str, Any]
    edges: Sequence[Edge | None]  # per input; None where no cotangent is wanted
    arity: int  # number of outputs


def backpropagate(
    steps: Iterable[Step],
    cotangents: dict[Edge, Any],
    values: Callable[[Any], tuple[Any, Any]],
    add: Callable[[Edge, Any, Any], Any],
    followed: Callable[[Any], Sequence[Edge | None]],
) -> None:
    """Turn cotangents of a graph's outputs into cotangents of what its edges lead to, in place.

    steps: every step on the way, each before those that made its inputs.
    cotangents: edge -> cotangent; holds the outputs' at the start, the leaves' at the end.
    values: step -> (outputs, inputs) as the rules shall see them. Arrays make the rules compute,
        Tensors make them compute and record (double backward), Vars make them write a program.
    add: sums two cotangents of one edge.
    followed: step -> its edges, with None for those that lead to nothing wanted.
    """
    for step in steps:
        gs = [cotangents.pop((step, index), None) for index in range(step.arity)]
        if all(g is None for g in gs):
            continue
        edges = followed(step)
        outputs, inputs = values(step)
        pulled = step.primitive.pull(gs, outputs, inputs, step.params, edges)
        for edge, g in zip(edges, pulled, strict=True):
            if edge is None or g is None:
                continue
            earlier = cotangents.get(edge)
            cotangents[edge] = g if earlier is None else add(edge, earlier, g)


def paths(steps: Sequence[Step], wanted: set[Edge]) -> dict[Any, tuple[Edge | None, ...]]:
    """Which edges lead to a wanted one: for each step on such a path, its edges with the rest None.

    steps: in any order in which a step comes before those that made its inputs.
    """
    leading: dict[Any, tuple[Edge | None, ...]] = {}
    for step in reversed(steps):
        edges = tuple(
            edge if edge is not None and (edge in wanted or edge[0] in leading) else None
            for edge in step.edges
        )
        if any(edge is not None for edge in edges):
            leading[step] = edges
    return leading
