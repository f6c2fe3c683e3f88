"""Which operation made the first NaN or Inf?

A watch that looks at each result, forward and backward, and stops at one that is worse than all
that went into it. For recurrences, and for an explanation instead of an error, see
`diagnose.explain_nan`. What a watch is stands in `modes.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tinygrad_rnn.backend import namespace
from tinygrad_rnn.graph import Node, Turn, user_line
from tinygrad_rnn.modes import Watch, current
from tinygrad_rnn.ops.primitive import Primitive, describe

GRADES = ("finite values", "Inf", "NaN")


def worst(values: Iterable[Any]) -> int:
    """The place in GRADES of the worst value there is."""
    found = 0
    for value in values:
        array = getattr(value, "array", value)
        if type(array) is float or getattr(getattr(array, "dtype", None), "kind", "") == "f":
            xp = namespace(array)
            if xp.isnan(array).any().item():
                return 2
            found = max(found, int(xp.isinf(array).any().item()))
    return found


class detect_anomaly(Watch):
    """Stop at the first operation, forward or backward, that makes a NaN or Inf it was not given.

    The RuntimeError names the operation, the shapes and dtypes of its operands, and the line
    of the program that called it. Slower by one check per operation: for looking, not for training.

    >>> import tinygrad_rnn as torch
    >>> with torch.autograd.detect_anomaly():
    ...     torch.log(torch.zeros(2))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    RuntimeError: forward of log((2,) float32) made the first Inf; ...
    """

    def __init__(self, mode: bool = True) -> None:
        self._value = mode
        self._earlier: list[detect_anomaly | None] = []

    def __enter__(self) -> None:
        self._earlier.append(_active())
        _activate(self if self._value else None)

    def __exit__(self, *exc_info: object) -> None:
        _activate(self._earlier.pop())

    def after(
        self, primitive: Primitive, operands: Sequence[Any], params: dict[str, Any], made: Any
    ) -> None:
        """Raise if the results are worse than the operands."""
        grade = worst(made if type(made) is list else [made])
        if grade > worst(operands):
            raise RuntimeError(_message("forward", primitive, operands, grade, user_line()))

    def recorded(self, node: Node) -> None:
        """Note the line of the program, for an error in backward."""
        node.line = user_line()

    def pulling(self, turn: Turn) -> Iterator[None]:
        """Raise if the rules made something worse than they were given."""
        before = worst([*turn.given(), *turn.pulled(), *turn.outputs, *turn.inputs])
        yield
        grade = worst(turn.pulled())
        if grade > before:
            node = turn.node
            raise RuntimeError(_message("backward", node.primitive, turn.inputs, grade, node.line))


class set_detect_anomaly(detect_anomaly):
    """`detect_anomaly`, on (or off) at once when called, and back again at the end of a `with`."""

    def __init__(self, mode: bool) -> None:
        super().__init__(mode)
        super().__enter__()

    def __enter__(self) -> None:
        _activate(self if self._value else None)


def _active() -> detect_anomaly | None:
    """The one that is watching."""
    return next((watch for watch in current.watches if isinstance(watch, detect_anomaly)), None)


def _activate(wanted: detect_anomaly | None) -> None:
    """Have this one watch instead of any other; None for none."""
    others = tuple(watch for watch in current.watches if not isinstance(watch, detect_anomaly))
    current.watches = others if wanted is None else (*others, wanted)


def _message(
    direction: str, primitive: Primitive, operands: Sequence[Any], grade: int, line: str | None
) -> str:
    shapes = ", ".join(describe(operand) for operand in operands)
    where = line or "called before detect_anomaly was entered: run the forward pass inside it too"
    return f"{direction} of {primitive.name}({shapes}) made the first {GRADES[grade]}; {where}"
