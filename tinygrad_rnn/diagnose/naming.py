"""What are the parts of a recurrence called, so that a person knows which is meant?

A recurrence is called after the module that runs it, a value of a step after the local variable of
the cell that holds it, and a gate, the result of a sigmoid or tanh, after the variable for the
result or else for what goes in. Nothing here changes what is computed. `observe.py` asks for the
names; read `nn/recurrent/equations.py` to see where `i`, `f`, `g` and `o` come from.
"""

from __future__ import annotations

import inspect
import linecache
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from types import FrameType
from typing import Any, NamedTuple

from tinygrad_rnn.nn import Module
from tinygrad_rnn.nn.recurrent import RNNBase, equations
from tinygrad_rnn.ops import add, sigmoid, subtract, tanh, where
from tinygrad_rnn.scan import trees
from tinygrad_rnn.scan.trees import Tree
from tinygrad_rnn.tensor import Tensor

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_EQUATIONS = os.path.abspath(equations.__file__)


# --- recurrences ----------------------------------------------------------------------------------


class RecurrenceNames:
    """Names for the recurrences of a model, in the order in which they run.

    A layer of `nn`: its path in the model, layer and direction, "encoder layer 0 reverse". Another
    cell: the path if it is a Module, else the function, behind the path of the Module that runs it.
    A recurrence that runs again is "… (call 2)".
    model: a Module, or a function, whose Modules are those that it knows by name.
    """

    def __init__(self, model: Any) -> None:
        self._paths: dict[int, str] = {}
        for path, module in modules_of(model):
            self._paths.setdefault(id(module), path)
        self._runs: Counter[int] = Counter()  # of layers, by the id of the Module
        self._calls: Counter[str] = Counter()

    def next(self, cell: Any, reverse: bool, caller: FrameType | None) -> str:
        """The name of the recurrence that runs now, called from this frame."""
        owner = running_module(caller)
        if isinstance(owner, RNNBase):
            runs = owner._runs()
            layer, reverse = runs[self._runs[id(owner)] % len(runs)]
            self._runs[id(owner)] += 1
            name = f"{self._name(owner)} layer {layer} {'reverse' if reverse else 'forward'}"
        else:
            path = self._paths.get(id(owner), "")
            own = self._name(cell) if isinstance(cell, Module) else _function_name(cell)
            within = path and not own.startswith(path)
            name = (f"{path}: {own}" if within else own) + (" reverse" if reverse else "")
        self._calls[name] += 1
        calls = self._calls[name]
        return name if calls == 1 else f"{name} (call {calls})"

    def _name(self, module: Module) -> str:
        return self._paths.get(id(module)) or type(module).__name__


def modules_of(model: Any) -> Iterator[tuple[str, Module]]:
    """The Modules in a model by their paths; in a function, those that it knows by name."""
    for name, module in _known_modules(model):
        for path, inner in module.named_modules():
            yield ".".join(filter(None, (name, path))), inner


def _known_modules(model: Any) -> Iterator[tuple[str, Module]]:
    """The Modules that a model knows by name."""
    if isinstance(model, Module):
        yield "", model
        return
    known: dict[str, Any] = dict(getattr(getattr(model, "__self__", model), "__dict__", {}))
    if inspect.ismethod(model) or inspect.isfunction(model):
        variables = inspect.getclosurevars(model)
        known |= {**variables.globals, **variables.nonlocals}
        if inspect.ismethod(model) and isinstance(model.__self__, Module):
            yield "", model.__self__
    for name, value in known.items():
        if isinstance(value, Module):
            yield name, value


def running_module(frame: FrameType | None) -> Module | None:
    """The Module whose method runs in this frame, or in the nearest caller."""
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, Module):
            return owner
        frame = frame.f_back
    return None


def _function_name(cell: Any) -> str:
    """A function's name, behind that of the function or class that it stands in."""
    while isinstance(cell, partial):
        cell = cell.func
    name = getattr(cell, "__qualname__", type(cell).__name__)
    return ".".join(name.replace(".<locals>", "").split(".")[-2:])


# --- values of a step -----------------------------------------------------------------------------


class CellFrames:
    """The functions of a cell that called operations, with what they then held in variables.

    Functions of this package do not count, but for the equations of its layers.
    """

    def __init__(self, base: FrameType) -> None:
        self._base = base  # the frame that calls the cell
        self._found: dict[FrameType, int] = {}  # with how deep it lies

    def visit(self, frame: FrameType | None) -> str:
        """Note the functions that led to the operation called in `frame`; the line that did."""
        line, path = "", []
        while frame is not None and frame is not self._base:
            path.append(frame)
            frame = frame.f_back
        for height, each in enumerate(path):
            name = each.f_code.co_filename
            if belongs_to_cell(each):
                self._found[each] = len(path) - height
                text = linecache.getline(name, each.f_lineno).strip()
                line = line or f"{name}:{each.f_lineno}: {text}"
        return line

    def names(self) -> dict[int, str]:
        """What the variables hold now, name by the Tensor's id: an outer function's names count.

        Once the functions have returned, what they held at the end.
        """
        names: dict[int, str] = {}
        for frame in sorted(self._found, key=lambda frame: -self._found[frame]):
            own: dict[int, str] = {}
            for name, value in frame.f_locals.items():
                if name in ("self", "_"):
                    continue
                if isinstance(value, Tensor):
                    own[id(value)] = name
                elif isinstance(value, tuple | list):
                    for label, part in _parts(name, value):
                        own.setdefault(id(part), label)
            names |= own
        return names


def _parts(name: str, value: Sequence[Any]) -> Iterator[tuple[str, Tensor]]:
    """The Tensors of a tuple or list, by what a program calls them."""
    fields = getattr(value, "_fields", None)
    for k, part in enumerate(value):
        if isinstance(part, Tensor):
            yield f"{name}[{k}]" if fields is None else f"{name}.{fields[k]}", part


def new_states(state: Tree, operations: Iterable[Any]) -> list[Any]:
    """The tensors of a state; of one that is masked, where(mask, new, old), the new one."""
    made = {id(y): operation for operation in operations for y in operation.outputs}
    found = []
    for x in trees.leaves(state):
        operation = made.get(id(x))
        if operation is not None and operation.primitive is where:
            found.append(operation.inputs[1])
        else:
            found.append(x)
    return found


def belongs_to_cell(frame: FrameType) -> bool:
    """Whether a function is part of a cell: the user's own, or the equations of a layer."""
    name = frame.f_code.co_filename
    return not name.startswith(_PACKAGE) or name == _EQUATIONS


def names_of_state(state: Tree, operations: Iterable[Any], names: dict[int, str]) -> list[str]:
    """A name for each tensor of a state: a named tuple's fields, else variables, else h0, h1, …"""
    numbered = [name for _, name in trees.named(state, "h")]
    pairs = zip(trees.leaves(state), new_states(state, operations), strict=True)
    held = [names.get(id(x)) or names.get(id(new), "") for x, new in pairs]
    plain = type(state) is tuple and all(name.isidentifier() for name in held)
    return held if plain and len(set(held)) == len(held) else numbered


class Gate(NamedTuple):
    """The result of a sigmoid or tanh in a step. kind: "sigmoid" or "tanh"."""

    kind: str
    value: Tensor


_GATES = (sigmoid, tanh)
_SUMS = (add, subtract)  # often without a name; the first operand says what it is


def gates_of(
    operations: Sequence[Any], names: dict[int, str], states: Iterable[Any]
) -> dict[str, Gate]:
    """The gates of a step by name, in the order of the cell's variables, then those without one.

    A gate is called as the variable that holds it, else as the one that holds its operand, or the
    first summand of that; "tanh(c)" if this is a state; "sigmoid 1", "tanh 1" if it has no name.
    operations: of the step. names: of its values. states: the tensors of the two states.
    """
    made = {id(y): operation for operation in operations for y in operation.outputs}
    order = {name: place for place, name in enumerate(names.values())}
    is_state = {id(x) for x in states}
    found: list[tuple[int, str, Gate]] = []
    unnamed: Counter[str] = Counter()
    for operation in operations:
        if operation.primitive not in _GATES:
            continue
        kind, value = operation.primitive.name, operation.outputs[0]
        name = names.get(id(value))
        if name is None:
            x = operation.inputs[0]
            while id(x) not in names and id(x) in made and made[id(x)].primitive in _SUMS:
                x = made[id(x)].inputs[0]
            name = names.get(id(x))
            if name is not None and id(x) in is_state:
                name = f"{kind}({name})"
        if name is None:
            unnamed[kind] += 1
            name = f"{kind} {unnamed[kind]}"
        found.append((order.get(name, len(order)), name, Gate(kind, value)))
    found.sort(key=lambda entry: entry[0])  # stable: else in the order of the operations
    gates: dict[str, Gate] = {}
    for _, name, gate in found:
        labels = (name if k == 1 else f"{name} ({k})" for k in count(1))
        gates[next(label for label in labels if label not in gates)] = gate
    return gates
