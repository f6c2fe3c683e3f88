"""Which Tensors are in this nest of tuples, lists and dicts, and what are they called?

The states of recurrent networks come as such nests, `(x, (h, c))`. Checks walk them as flat lists
of Tensors with names. Anything in a nest that is not a Tensor stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tinygrad_rnn.tensor import Tensor


def leaves(tree: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Each Tensor of the tree with its name, such as `inputs[1][0]` for a tree called `inputs`."""
    if isinstance(tree, Tensor):
        yield name, tree
    elif isinstance(tree, dict):
        for key, part in tree.items():
            yield from leaves(part, f"{name}[{key!r}]")
    elif isinstance(tree, tuple | list):
        for place, part in enumerate(tree):
            yield from leaves(part, f"{name}[{place}]")


def rebuilt(tree: Any, tensors: Iterator[Tensor]) -> Any:
    """The tree with its Tensors replaced, in the order of `leaves`."""
    if isinstance(tree, Tensor):
        return next(tensors)
    if isinstance(tree, dict):
        return {key: rebuilt(part, tensors) for key, part in tree.items()}
    if isinstance(tree, tuple | list):
        parts = [rebuilt(part, tensors) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree
