"""Which module of a model is running, and with tensors of which shapes was each called?

`following` puts a hook at the end of every module, which notes the shapes; the hooks are gone
afterwards. Who is running is read from Python's own call stack (`naming.py`), so modules that fail
and are forgiven leave no false trace.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tinygrad_rnn.diagnose.naming import modules_of, running_module
from tinygrad_rnn.modes import current
from tinygrad_rnn.nn import Module
from tinygrad_rnn.ops import Tracer


class Call(NamedTuple):
    """One call of a module.

    inputs, outputs: the shapes of tensors, in lists nested as the arguments and the result are;
    None for what is no tensor. in_step: it was part of a step that a `scan` wrote down.
    """

    path: str
    inputs: Any
    outputs: Any
    in_step: bool


class Running:
    """The calls of the modules of a model, in the order in which they ended.

    modules: the paths. ended: how many calls of each have ended, by path.
    """

    def __init__(self, model: Any) -> None:
        self.calls: list[Call] = []
        self.ended: Counter[str] = Counter()
        self.modules = {module: path for path, module in reversed([*modules_of(model)])}

    def path(self) -> str:
        """The path of the innermost module that is running; "" for the model itself."""
        module = running_module(sys._getframe(1))
        return "" if module is None else self.modules.get(module, "")

    def note(self, module: Module, args: Any, options: Any, outputs: Any) -> None:
        """Note a call: a hook for `register_forward_hook`."""
        inputs = shapes((*args, *options.values()))
        path = self.modules[module]
        self.ended[path] += 1
        self.calls.append(Call(path, inputs, shapes(outputs), current.trace is not None))


@contextmanager
def following(model: Any) -> Iterator[Running]:
    """Follow the calls of the modules of a model, or of a function, while the block runs."""
    running = Running(model)
    handles = [
        module.register_forward_hook(running.note, with_kwargs=True) for module in running.modules
    ]
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


def arguments(x: Any) -> tuple[Any, ...]:
    """The arguments that "an input, or a tuple of inputs" means; a named tuple is one input."""
    return x if type(x) is tuple else (x,)


def shapes(value: Any) -> Any:
    """The shapes of the tensors in a value, nested as it is; None for what is no tensor."""
    if isinstance(value, Tracer):
        return tuple(value.shape)  # type: ignore[attr-defined]
    if isinstance(value, tuple | list):
        return [shapes(part) for part in value]
    if isinstance(value, dict):
        return [shapes(part) for part in value.values()]
    return None
