"""Where does each value of a step live?

A `Storage` is memory for one value of the step, of which there may be one for each step of time; a
`Place` is a part of a Storage, or a view of it. Values share memory where they can: the parts of a
split are Places in what was split, an operation writes over an operand that nobody needs any more,
and what is kept for backward is written straight into its stack. What memory an executor gives a
Storage is the executor's choice: see replay/ (NumPy) and cuda/.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tinygrad_rnn.backend import namespace
from tinygrad_rnn.ops.shape import split
from tinygrad_rnn.program import Equation

#: How many values a Storage holds, and which of them belongs to a step.
SCRATCH = "scratch"  # one, of the step that is being computed
STRIP = "strip"  # one for each step of the strip that is being computed
STACK = "stack"  # one for each step of the run
BEFORE = "before"  # a carry as the step finds it
AFTER = "after"  # the same carry as the step leaves it
FIXED = "fixed"  # one, the same at all steps
GIVEN = "given"  # one for each step, in an array that comes with each run: a sequence
CONSTANT = "constant"  # one, in an array that comes with each run


class Storage:
    """Memory for a value of the step.

    shape, dtype: of one step's value. kind: see above. number: of a carry, of an input.
    """

    __slots__ = ("dtype", "kind", "number", "shape")

    def __init__(self, kind: str, shape: tuple[int, ...], dtype: Any, number: int = -1) -> None:
        self.kind = kind
        self.shape = shape
        self.dtype = dtype
        self.number = number

    def __repr__(self) -> str:
        return f"<{self.kind} {self.shape}>"

    def whole(self) -> Place:
        """All of it."""
        return Place(self, 0, self.shape[-1] if self.shape else 1, ())


class Place(NamedTuple):
    """A part of a Storage along its last axis, from start to stop, seen through `views`."""

    storage: Storage
    start: int
    stop: int
    views: tuple[Callable[[Any], Any], ...]

    def part(self, start: int, stop: int) -> Place:
        """A part of this part."""
        return Place(self.storage, self.start + start, self.start + stop, ())

    def through(self, view: Callable[[Any], Any]) -> Place:
        """Seen through one more view."""
        return self._replace(views=(*self.views, view))

    def overlaps(self, other: Place) -> bool:
        """Whether writing one may change the other."""
        return self.storage is other.storage and self.start < other.stop and other.start < self.stop

    def of(self, array: Any) -> Any:
        """This place of the storage's array."""
        if self.storage.shape and (self.start > 0 or self.stop < self.storage.shape[-1]):
            array = array[..., self.start : self.stop]
        for view in self.views:
            array = view(array)
        return array


def viewed(place: Place, equation: Equation, number: int) -> Place:
    """Where output `number` of an equation is whose results lie in its operand's memory.

    place: where the operand is.
    """
    primitive, params = equation.primitive, equation.params
    if primitive is split and params["axis"] == -1 and not place.views:
        start = sum(params["sizes"][:number])
        return place.part(start, start + params["sizes"][number])

    def view(array: Any) -> Any:
        made = primitive.evaluate(namespace(array), array, **params)
        return made[number] if type(made) is list else made

    return place.through(view)
