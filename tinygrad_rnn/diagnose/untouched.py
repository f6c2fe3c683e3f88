"""How can a model be run, to look at it, and be afterwards as if it had not been?

`untouched` puts back what a forward and a backward pass may change: gradients, buffers such as
running statistics, other attributes of modules, hooks, and the streams of random numbers. What a
model changes outside of its modules, or deeper inside an attribute, stays changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tinygrad_rnn import random
from tinygrad_rnn.nn import Module


@contextmanager
def untouched(modules: Iterable[Module]) -> Iterator[None]:
    """Afterwards, also after an error, the modules and all below them are as they were before.

    So are the default generator, and the generators that the modules hold.
    """
    found = list({id(inner): inner for outer in modules for inner in outer.modules()}.values())
    containers = [container for module in found for container in _containers(module)]
    earlier = [(container, container.copy()) for container in containers]
    grads = [(param, param.grad) for module in found for param in module.parameters(recurse=False)]
    buffers = [
        (buffer, buffer.array, buffer.array.copy())
        for module in found
        for buffer in module.buffers(recurse=False)
    ]
    held = [x for module in found for x in vars(module).values() if type(x) is random.Generator]
    streams = [(stream, stream.get_state()) for stream in (random.generator(), *held)]
    try:
        yield
    finally:
        for container, content in earlier:
            _refill(container, content)
        for param, grad in grads:
            param.grad = grad
        for buffer, array, values in buffers:
            array[...] = values
            buffer.array = array
        for stream, state in streams:
            stream.set_state(state)


def _containers(module: Module) -> Iterator[Any]:
    """A module's attributes, and the dicts and lists among them: its tables, hooks, records."""
    yield vars(module)
    yield from (value for value in vars(module).values() if type(value) in (dict, list, set))


def _refill(container: Any, content: Any) -> None:
    """Give a dict, list or set its earlier content; others who hold it go on holding it."""
    if type(container) is list:
        container[:] = content
        return
    container.clear()
    container.update(content)
