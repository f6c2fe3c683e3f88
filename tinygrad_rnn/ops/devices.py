"""Do the operands of an operation live on one device? If not: which of them is where?

Nothing is moved by itself: a copy between host and GPU that nobody asked for is slow, and hides a
mistake. `Tensor.trace` looks only when an operation has failed, or has given no NumPy array, so on
the CPU this costs nothing. Read `backend.py` (what a device is) and `primitive.py` first.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

from tinygrad_rnn.backend import device, device_of, is_array
from tinygrad_rnn.ops.primitive import Primitive, Tracer, describe


class DeviceError(RuntimeError):
    """Tensors of two devices met in one operation: which operation, and what is wrong there."""

    def __init__(self, operation: str, problem: str) -> None:
        super().__init__(f"{operation}: {problem}")
        self.operation, self.problem = operation, problem
        self.named = False  # whether these are the names that a module knows

    def name(self, owner: str, values: Iterable[tuple[str, Any]]) -> None:
        """Say which of a module's tensors are apart instead: (name, tensor) each."""
        names, tensors = zip(*values, strict=True)
        try:
            require_one_device(owner, tensors, names)
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


def check_devices(primitive: Primitive, operands: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Raise DeviceError if an operation's operands are on different devices, or on an idle GPU.

    outputs: what it gave; none if it failed.
    """
    require_one_device(primitive.name, operands, _names(primitive, len(operands)))
    given = next((where for x in operands if (where := _place(x)) is not None), None)
    if given is None or given.type == "cpu" or primitive.name == "transfer":
        return
    computing = _place(outputs[0]) if outputs else device("cuda")
    if computing != given:
        raise DeviceError(
            primitive.name,
            f"the operands are on {given}, but {computing} is the GPU that computes: choose with "
            f"tinygrad_rnn.cuda.set_device({given.index}), or for a block with "
            f"tinygrad_rnn.cuda.device({given.index})",
        )


def _place(value: Any) -> Any:
    """The device of an array or a Tracer; None for a number, which has none."""
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
