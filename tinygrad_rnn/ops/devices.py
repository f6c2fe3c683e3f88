"""Do the operands of an operation live on one device? If not: which of them is where?

Nothing is moved by itself: a copy between host and GPU that nobody asked for is slow, and hides a
mistake. The functions here look only when an operation has failed, or when its result is no NumPy
array, so on the CPU they cost nothing. Read `backend.py` (what a device is) and `primitive.py`
before this file; `Tensor.trace` asks.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from tinygrad_rnn.backend import device, device_of, is_array
from tinygrad_rnn.ops.primitive import Primitive, Tracer, describe


class DeviceError(RuntimeError):
    """Tensors of two devices met in one operation."""


def place_of(value: Any) -> device | None:
    """The device of an array or a Tracer; None for a number, which has none."""
    if isinstance(value, Tracer):
        return value.device  # type: ignore[attr-defined,no-any-return]
    return device_of(value) if is_array(value) else None


def require_one_device(
    operation: str, operands: Sequence[Any], names: Sequence[str] | None = None
) -> None:
    """Raise DeviceError if two of the operands live on different devices.

    names: what the message calls them; by their numbers if None.
    """
    first: Any = None
    for number, operand in enumerate(operands):
        where = place_of(operand)
        if where is None:
            continue
        name = f"operand {number + 1}" if names is None else names[number]
        if first is None:
            first = where, name, operand
        elif where != first[0]:
            raise DeviceError(f"{operation}: {difference(first, (where, name, operand))}")


def difference(one: tuple[device, str, Any], other: tuple[device, str, Any]) -> str:
    """Two values, each as (device, name, value), that are on different devices: what to do."""
    (here, name, value), (there, other_name, other_value) = one, other
    gpu = here if here.type == "cuda" else there
    single = min(len(value.shape), len(other_value.shape)) == 0
    return (
        f"{name}, {describe(value)}, is on {here}, and {other_name}, {describe(other_value)}, is "
        f"on {there}. Tensors are not moved by themselves{', nor are single numbers' * single}: "
        f"move one of them, x.to({str(gpu)!r}) or x.to('cpu')"
    )


def check_devices(primitive: Primitive, operands: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Raise DeviceError if an operation's operands are on different devices, or on an idle GPU.

    outputs: what it gave; none if it failed.
    """
    require_one_device(primitive.name, operands, _names(primitive, len(operands)))
    given = next((where for x in operands if (where := place_of(x)) is not None), None)
    if given is None or given.type == "cpu" or primitive.name == "transfer":
        return
    computing = place_of(outputs[0]) if outputs else device("cuda")
    if computing != given:
        raise DeviceError(
            f"{primitive.name}: the operands are on {given}, but {computing} is the GPU that "
            f"computes: choose it with tinygrad_rnn.cuda.set_device({given.index}), or for a block "
            f"with tinygrad_rnn.cuda.device({given.index})"
        )


def _names(primitive: Primitive, count: int) -> list[str]:
    """What a primitive calls its operands: the parameters of `evaluate` after the library."""
    parameters = list(inspect.signature(primitive.evaluate).parameters.values())[1:]
    named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    names = [f"operand {number + 1}" for number in range(count)]
    for number, name in enumerate(named[:count]):
        names[number] += f" ({name})"
    return names
