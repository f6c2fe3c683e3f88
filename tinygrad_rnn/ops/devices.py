"""Do the operands of an operation live on one device? If not: which of them is where?

Nothing is moved by itself, not even a tensor without axes, which PyTorch would move: a copy between
host and GPU that nobody asked for is slow, waits for the GPU, and hides a mistake. `Tensor.trace`
asks before it computes on a GPU, and on the CPU only when an operation has failed or has given no
NumPy array, so there this costs nothing. Read `backend.py` and `primitive.py` first.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.backend import CPU, device, device_of, is_array
from tinygrad_rnn.ops.primitive import Primitive, Tracer, describe


class DeviceError(RuntimeError):
    """Tensors of two devices met in one operation: which operation, and what is wrong there."""

    def __init__(self, operation: str, problem: str) -> None:
        super().__init__(f"{operation}: {problem}")
        self.operation, self.problem = operation, problem
        self.named = False  # whether these are the names that a module knows

    def name(self, owner: str, values: Iterable[tuple[str, Any]]) -> None:
        """Say which of a module's tensors are apart instead: (name, tensor) each."""
        known = list(values)
        try:
            require_one_device(owner, [x for _, x in known], [name for name, _ in known])
        except DeviceError as found:
            self.args = (f"{owner}, in {self.operation}: {found.problem}",)
            self.named = True


def require_one_device(
    operation: str, operands: Sequence[Any], names: Sequence[str] | None = None
) -> None:
    """Raise DeviceError if two of the operands live on different devices.

    names: what the message calls them; by their numbers if None.
    """
    if names is None:
        names = [f"operand {number + 1}" for number in range(len(operands))]
    placed = [(name, x, _place(x)) for name, x in zip(names, operands, strict=True)]
    placed = [each for each in placed if each[2] is not None]
    for name, x, here in placed:
        first, y, there = placed[0]
        if here != there:
            gpu = here if here.type == "cuda" else there
            also = "" if x.ndim and y.ndim else ", not even a single number"
            raise DeviceError(
                operation,
                f"{first}, {describe(y)}, is on {there}, and {name}, {describe(x)}, is on {here}. "
                f"Nothing is moved by itself{also}: move one of them, x.to('{gpu}') or x.to('cpu')",
            )


def check_operands(primitive: Primitive, operands: Sequence[Any]) -> None:
    """Raise DeviceError if an operation's operands are on different devices."""
    first = None
    for operand in operands:
        where = _place(operand)
        if where is None or where is first:
            continue
        if first is not None:
            require_one_device(primitive.name, operands, _names(primitive, len(operands)))
        first = where


def check_output(primitive: Primitive, operand: Any, output: Any) -> None:
    """Raise DeviceError if one GPU has the operands and another one computes.

    output: the array that was computed; None if that failed.
    """
    given = _place(operand)
    computing = device("cuda") if output is None else _place(output)
    if computing is not given and computing != given and primitive.name != "transfer":
        raise DeviceError(
            primitive.name,
            f"the operands are on {given}, but {computing} is the GPU that computes: choose with "
            f"tinygrad_rnn.cuda.set_device({given.index}), or for a block with "
            f"tinygrad_rnn.cuda.device({given.index})",
        )


def _place(value: Any) -> Any:
    """The device of an array or a Tracer; None for a number, which has none."""
    if type(value) is np.ndarray:
        return CPU
    if isinstance(value, Tracer):
        return value.device  # type: ignore[attr-defined]
    return device_of(value) if is_array(value) else None


def _names(primitive: Primitive, count: int) -> list[str]:
    """What a primitive calls its operands: the parameters of `evaluate` after the library."""
    names = [f"operand {number + 1}" for number in range(count)]
    parameters = list(inspect.signature(primitive.evaluate).parameters.values())[1:]
    named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    for number, name in enumerate(named[:count]):
        names[number] += f" ({name})"
    return names
