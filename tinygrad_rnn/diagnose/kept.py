"""Which memory does a recorded graph hold until backward?

The arrays that the rules of its nodes will read. Several of them may be views of the same memory,
which is held as a whole and counted once. A scan also holds the working memory of its loop, which
nobody else can use while its stacks wait for backward (scan/replay/frame.py).
Read `graph.py` first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tinygrad_rnn.autodiff import source
from tinygrad_rnn.autograd.function import FunctionCtx
from tinygrad_rnn.backend import is_array, namespace
from tinygrad_rnn.graph import Node, newest_first
from tinygrad_rnn.scan.pool import pool
from tinygrad_rnn.tensor import Tensor


def owner(array: Any) -> Any:
    """What owns the memory that an array is a view of: an array; on a GPU, an allocation."""
    if namespace(array) is not np:
        return array.data.mem
    while is_array(getattr(array, "base", None)):
        array = array.base
    return array


def bytes_of(memory: Any) -> int:
    """The size of what `owner` gave."""
    return int(memory.nbytes if is_array(memory) else memory.size)


def held_by_nodes(tensors: Iterable[Tensor]) -> Iterator[tuple[Node, Any, bool]]:
    """Each owner of memory that is held by the graph behind some tensors, once.

    With the first node that holds it, oldest first, and whether it is only working memory.
    """
    edges = [tensor._edge for tensor in tensors if tensor._edge is not None]
    seen: set[int] = set()
    for node in reversed(newest_first(map(source, edges))):
        owners = [owner(array) for array in _arrays(node.inputs, node.outputs, node.params)]
        beside = pool.held_with(owners)
        for place, memory in enumerate((*owners, *beside)):
            if id(memory) not in seen:
                seen.add(id(memory))
                yield node, memory, place >= len(owners)


def _arrays(*values: Any) -> Iterator[Any]:
    """The arrays in what a node keeps: values for its rules, index arrays, attributes of a ctx."""
    for value in values:
        if is_array(value):
            yield value
        elif isinstance(value, Tensor):
            yield value.array
        elif isinstance(value, list | tuple):
            yield from _arrays(*value)
        elif isinstance(value, dict):
            yield from _arrays(*value.values())
        elif isinstance(value, FunctionCtx):
            yield from _arrays(*vars(value).values())
