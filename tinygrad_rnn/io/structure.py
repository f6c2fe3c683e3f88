"""How does a nested Python structure become named arrays plus a description, and come back exactly?

`pack` takes the arrays out of dicts, lists and tuples and describes what is left in JSON values;
`unpack` puts them back. Only data can be described: no class, function or module is ever named,
so nothing in a file can make a reader run code. Files are the business of `serialization.py`.
"""

from __future__ import annotations

import math
import struct
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tinygrad_rnn import backend
from tinygrad_rnn.tensor import Tensor

Arrays: TypeAlias = dict[str, NDArray[Any]]
#: None, bool, int, float, str and list stand for themselves; any other value is {kind: content}.
Description: TypeAlias = Any

_DICTS: dict[str, type[dict[Any, Any]]] = {"dict": dict, "OrderedDict": OrderedDict}

#: How many levels a structure may have; a limit, so that one that contains itself is noticed.
DEEPEST = 100

#: What NumPy and every version of the safetensors format have in common.
STORABLE_DTYPES = frozenset(
    np.dtype(name)
    for name in (
        "bool",
        *("int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64"),
    )
)


def pack(value: Any, operation: str) -> tuple[Arrays, Description]:
    """The arrays in `value` by name, and a JSON description of the structure around them.

    An array's name is its path: `{"model": {"weight": w}}` gives `model.weight`. Tensors are
    detached and copied to the host; arrays that need not be converted share memory with `value`.

    operation: the caller's name, for messages.
    Raises TypeError, which names the path, for a value that cannot be described, and ValueError
    for a structure that contains itself or is more than a hundred levels deep.
    """
    arrays: Arrays = {}
    return arrays, _describe(value, (), arrays, operation)


def unpack(
    description: Description,
    arrays: Mapping[str, NDArray[Any]],
    device: str | backend.device = "cpu",
    level: int = 0,
) -> Any:
    """The value that `pack` took apart, its Tensors on `device`; `level` counts the nesting.

    Raises ValueError, KeyError or TypeError for a description that `pack` did not make.
    """
    if level > 2 * DEEPEST:  # a dict is described by two levels
        raise ValueError(f"nested more than {DEEPEST} levels deep")

    def inner(part: Description) -> Any:
        return unpack(part, arrays, device, level + 1)

    if isinstance(description, list):
        return [inner(item) for item in description]
    if not isinstance(description, dict):
        return description
    ((kind, content),) = description.items()
    if kind == "tensor":
        return Tensor(arrays[content], device=device)
    if kind == "array":
        return arrays[content]
    if kind == "scalar":
        return arrays[content][()]
    if kind == "int":
        return int(content, 16)
    if kind == "float":
        return struct.unpack(">d", bytes.fromhex(content))[0]
    if kind == "tuple":
        return tuple(inner(content))
    if kind in _DICTS:
        pairs = [(inner(key), inner(item)) for key, item in content]
        return _DICTS[kind](pairs)
    raise ValueError(f"a value of unknown kind {kind!r}")


def _describe(value: Any, path: tuple[Any, ...], arrays: Arrays, operation: str) -> Description:
    if len(path) > DEEPEST:
        raise ValueError(
            f"{operation}: {_shown(path[:4])}…: nested more than {DEEPEST} levels deep; "
            "does it contain itself?"
        )
    kind = type(value)  # exactly: a subclass would come back as something else
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        return value if value.bit_length() <= 64 else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if kind in (list, tuple):
        items = [
            _describe(item, (*path, index), arrays, operation) for index, item in enumerate(value)
        ]
        return items if kind is list else {"tuple": items}
    if kind in _DICTS.values():
        pairs = [
            [_describe_key(key, path, operation), _describe(item, (*path, key), arrays, operation)]
            for key, item in value.items()
        ]
        return {kind.__name__: pairs}
    if isinstance(value, Tensor):
        return {"tensor": _add(value.array, path, arrays, operation)}
    if kind is np.ndarray:
        return {"array": _add(value, path, arrays, operation)}
    if isinstance(value, np.generic):
        return {"scalar": _add(np.asarray(value), path, arrays, operation)}
    raise TypeError(f"{operation}: {_shown(path)}: {_refusal(value)}")


def _describe_key(key: Any, path: tuple[Any, ...], operation: str) -> Description:
    if type(key) not in (str, int):
        raise TypeError(
            f"{operation}: {_shown(path)}: the key {key!r} cannot be saved; "
            "keys must be strings or ints"
        )
    return _describe(key, path, {}, operation)


def _add(array: Any, path: tuple[Any, ...], arrays: Arrays, operation: str) -> str:
    """Put the array, contiguous on the host, into `arrays` under a name that is free."""
    if array.dtype.newbyteorder("=") not in STORABLE_DTYPES:
        raise TypeError(
            f"{operation}: {_shown(path)}: an array of {array.dtype} cannot be saved; "
            "convert it to a bool, integer or float dtype of at most 64 bits"
        )
    wanted = ".".join(map(str, path)) or "value"
    wanted = wanted.encode("utf-8", "backslashreplace").decode("utf-8")
    name, number = wanted, 1
    while name in arrays or name == "__metadata__":  # a name that safetensors keeps for itself
        number += 1
        name = f"{wanted}#{number}"
    host = backend.to_numpy(array)
    arrays[name] = np.asarray(host, dtype=host.dtype.newbyteorder("="), order="C")
    return name


def _refusal(value: Any) -> str:
    if hasattr(value, "state_dict"):
        return f"a {type(value).__name__} cannot be saved; save its state_dict()"
    if isinstance(value, type):
        return f"the class {value.__name__} cannot be saved"
    if callable(value):
        return "a function cannot be saved"
    return (
        f"a {type(value).__name__} cannot be saved; convert it to Tensors, NumPy arrays, dicts, "
        "lists, tuples, numbers and strings"
    )


def _shown(path: tuple[Any, ...]) -> str:
    """The path as one would write it in Python: `optimizer.state[0].step`."""
    text = ""
    for step in path:
        if isinstance(step, str) and step.isidentifier():
            text += f".{step}" if text else step
        else:
            text += f"[{step!r}]"
    return text or "the value"
