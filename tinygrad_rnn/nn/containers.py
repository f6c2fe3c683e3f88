"""Modules and parameters held in sequences and dictionaries, so that their owner finds them.

A plain Python list of layers hides them from `parameters()`; these do not. The keys of a module's
tables are strings, so the lists use "0", "1", …, which are also the names in a `state_dict`. Read
module.py before this file.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, overload

from tinygrad_rnn.nn.module import Module, indented
from tinygrad_rnn.nn.parameter import Parameter
from tinygrad_rnn.tensor import Tensor


def _position(index: Any, length: int) -> int:
    """`index` as a position from 0 to `length` - 1; negative ones count from the end."""
    position: int = operator.index(index)
    if not -length <= position < length:
        raise IndexError(f"index {position} is out of range")
    return position % length


def _iterated(what: str, value: Any, kind: str) -> Any:
    if not isinstance(value, Iterable):
        raise TypeError(f"{what} should be called with {kind}, but got {type(value).__name__}")
    return value


class _ModuleSequence(Module):
    """What Sequential and ModuleList share: child modules named by their positions."""

    def _replace_all(self, modules: Iterable[Module]) -> None:
        children = {str(position): module for position, module in enumerate(modules)}
        self._modules.clear()
        for name, module in children.items():
            self.register_module(name, module)

    def _name(self, index: Any) -> str:
        return list(self._modules)[_position(index, len(self))]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._modules.values()))

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._name(index), module)

    def __delitem__(self, index: int | slice) -> None:
        doomed = list(self._modules)[index]
        for name in [doomed] if isinstance(doomed, str) else doomed:
            delattr(self, name)
        self._replace_all(self)

    def append(self: Any, module: Module) -> Any:
        """Add a module at the end; returns this container."""
        self.register_module(str(len(self)), module)
        return self

    def insert(self: Any, index: int, module: Module) -> Any:
        """Put a module before position `index`; returns this container."""
        modules = list(self)
        modules.insert(index, module)
        self._replace_all(modules)
        return self

    def extend(self: Any, modules: Iterable[Module]) -> Any:
        """Add modules at the end; returns this container."""
        kind = type(self).__name__
        for module in list(_iterated(f"{kind}.extend", modules, "an iterable")):
            self.append(module)
        return self

    def pop(self, index: int = -1) -> Module:
        """Take out and return the module at position `index`."""
        module: Module = list(self)[_position(index, len(self))]
        del self[index]
        return module


class Sequential(_ModuleSequence):
    """y = f_n(… f_2(f_1(x))): modules applied one after the other.

    Takes the modules as arguments, or one dict of names to modules. A slice is a Sequential again.

    >>> from tinygrad_rnn.nn import Linear, Tanh
    >>> Sequential(Linear(2, 3), Tanh())
    Sequential(
      (0): Linear(in_features=2, out_features=3, bias=True)
      (1): Tanh()
    )
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        named = (
            modules[0].items()
            if len(modules) == 1 and isinstance(modules[0], Mapping)
            else ((str(position), module) for position, module in enumerate(modules))
        )
        for name, module in named:
            self.register_module(name, module)

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    @overload
    def __getitem__(self, index: int) -> Module: ...

    def __getitem__(self, index: int | slice) -> Module:
        """The module at a position, or the Sequential of a slice, which keeps the names."""
        if isinstance(index, slice):
            return type(self)(dict(list(self._modules.items())[index]))
        module = self._modules[self._name(index)]
        assert module is not None
        return module

    def forward(self, input: Any) -> Any:
        """Feed the input through all modules in order."""
        for module in self:
            input = module(input)
        return input


class ModuleList(_ModuleSequence):
    """A list of modules; it has no `forward` of its own."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...

    @overload
    def __getitem__(self, index: int) -> Module: ...

    def __getitem__(self, index: int | slice) -> Module:
        """The module at a position, or the ModuleList of a slice."""
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        module = self._modules[self._name(index)]
        assert module is not None
        return module

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        """A new list with the modules of both."""
        return type(self)([*self, *other])

    def __iadd__(self, other: Iterable[Module]) -> ModuleList:
        """The same as `extend`."""
        self.extend(other)
        return self

    def __repr__(self) -> str:
        """Runs of equal modules are printed once, with their number."""
        runs: list[tuple[int, int, str]] = []  # first position, last position, text
        for position, module in enumerate(self):
            text = repr(module)
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], position, text)
            else:
                runs.append((position, position, text))
        lines = [
            f"({first}): {text}"
            if first == last
            else f"({first}-{last}): {last - first + 1} x {text}"
            for first, last, text in runs
        ]
        return indented(type(self).__name__, lines)


class ModuleDict(Module):
    """A dictionary of modules in the order of insertion; it has no `forward` of its own."""

    def __init__(self, modules: Any = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Module:
        module = self._modules[key]
        assert module is not None
        return module

    def __setitem__(self, key: str, module: Module) -> None:
        self.register_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._modules))

    def __contains__(self, key: str) -> bool:
        return key in self._modules

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> Iterable[Any]:
        """The modules."""
        return self._modules.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Pairs of name and module."""
        return self._modules.items()

    def clear(self) -> None:
        """Remove all modules."""
        self._modules.clear()

    def pop(self, key: str) -> Module:
        """Take out and return the module under `key`."""
        module = self[key]
        del self[key]
        return module

    def update(self, modules: Any) -> None:
        """Add modules from a mapping or from pairs, replacing those of equal names."""
        pairs = _iterated("ModuleDict.update", modules, "an iterable of key/value pairs")
        for key, module in pairs.items() if hasattr(pairs, "items") else pairs:
            self[key] = module


def _describe(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"Object of type: {type(value).__name__}"
    kind = "Parameter" if isinstance(value, Parameter) else "Tensor"
    size = "x".join(str(n) for n in value.shape)
    return f"{kind} containing: [{value.dtype} of size {size}]"


def _learnable(value: Any) -> Any:
    """A plain Tensor as a Parameter that shares its array; anything else as it is."""
    if isinstance(value, Tensor) and not isinstance(value, Parameter):
        return Parameter(value)
    return value


class ParameterList(Module):
    """A list of parameters (Tensors become parameters; other values are kept as they are)."""

    def __init__(self, values: Iterable[Any] | None = None) -> None:
        super().__init__()
        self._size = 0
        if values is not None:
            self.extend(values)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return iter([self[position] for position in range(self._size)])

    @overload
    def __getitem__(self, index: slice) -> ParameterList: ...

    @overload
    def __getitem__(self, index: int) -> Any: ...

    def __getitem__(self, index: int | slice) -> Any:
        """The value at a position, or the ParameterList of a slice."""
        if isinstance(index, slice):
            return type(self)([self[i] for i in range(*index.indices(self._size))])
        return getattr(self, str(_position(index, self._size)))

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, str(_position(index, self._size)), _learnable(value))

    def append(self, value: Any) -> ParameterList:
        """Add a value at the end; returns this list."""
        self._size += 1
        self[self._size - 1] = value
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Add values at the end; returns this list."""
        for value in list(_iterated("ParameterList.extend", values, "an iterable")):
            self.append(value)
        return self

    def __iadd__(self, values: Iterable[Any]) -> ParameterList:
        """The same as `extend`."""
        return self.extend(values)

    def __repr__(self) -> str:
        lines = [f"({position}): {_describe(value)}" for position, value in enumerate(self)]
        return indented(type(self).__name__, lines)


class ParameterDict(Module):
    """A dictionary of parameters in the order of insertion (Tensors become parameters)."""

    def __init__(self, values: Any = None) -> None:
        super().__init__()
        self._keys: dict[str, None] = {}
        if values is not None:
            self.update(values)

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(key)
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, key, _learnable(value))
        self._keys[key] = None

    def __delitem__(self, key: str) -> None:
        del self._keys[key]
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._keys))

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._keys.keys()

    def values(self) -> Iterable[Any]:
        """The parameters."""
        return [self[key] for key in self._keys]

    def items(self) -> Iterable[tuple[str, Any]]:
        """Pairs of name and parameter."""
        return [(key, self[key]) for key in self._keys]

    def pop(self, key: str) -> Any:
        """Take out and return the value under `key`."""
        value = self[key]
        del self[key]
        return value

    def update(self, values: Any) -> None:
        """Add values from a mapping or from pairs, replacing those of equal names."""
        pairs = _iterated("ParameterDict.update", values, "an iterable of key/value pairs")
        for key, value in pairs.items() if hasattr(pairs, "items") else pairs:
            self[key] = value

    def __repr__(self) -> str:
        lines = [f"({key}): {_describe(value)}" for key, value in self.items()]
        return indented(type(self).__name__, lines)
