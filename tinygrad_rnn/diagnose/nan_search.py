"""Which operations make a NaN or an Inf of better values?

A watch that compares each result with what it was made of, as `detect_anomaly` does; but it notes
and goes on, and knows at which step of which recurrence it is. What is told of it, and in which
words, is in `explain_nan.py`. Read `autograd/anomaly.py` and `observe.py` before this file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

from tinygrad_rnn.autograd.anomaly import worst
from tinygrad_rnn.diagnose.finding import Values, values_of
from tinygrad_rnn.diagnose.observe import Observed, Step
from tinygrad_rnn.diagnose.running import Running
from tinygrad_rnn.graph import Node, Turn, user_line
from tinygrad_rnn.modes import Watch, current
from tinygrad_rnn.ops.primitive import Primitive

LIMIT = 20  # findings, after which no more are kept


class Place(NamedTuple):
    """Where an operation was computed: at which run step of which recurrence, by which module."""

    observed: Observed | None
    position: int
    module: str
    call: int
    line: str

    @property
    def t(self) -> int | None:
        """The step, counted from 1 in the order of the sequence; None if it is not known."""
        if self.observed is None:
            return None
        if not self.observed.reverse:
            return self.position + 1
        return self.observed.steps[0].t - self.position if self.observed.steps else None

    def step(self) -> Step | None:
        """The step, unless there is none, or an error ended it."""
        if self.observed is None or self.position >= len(self.observed.steps):
            return None
        return self.observed.steps[self.position]


#: For what was computed before the search began.
EARLIER = Place(None, 0, "", 1, "")


class Shown(NamedTuple):
    """What is in a value, and what it is to be called after.

    role: "operand" or "result" of the operation. is_gradient: whether it is the cotangent of that.
    subject: the operand or result itself, a Tensor, an array or a number; None if not known.
    """

    role: str
    is_gradient: bool
    subject: Any
    values: Values


class Found(NamedTuple):
    """A value that is worse than what it was made of.

    result: the bad one. operands: what it was made of.
    made, inputs: what the operation made forward, and of what; empty if that is not known.
    """

    direction: str
    primitive: Primitive
    place: Place
    result: Shown
    operands: list[Shown]
    made: list[Any]
    inputs: Sequence[Any]

    @property
    def key(self) -> Hashable:
        """Equal for what an operation makes at other steps, or when its line is run again."""
        place = self.place
        where = (place.module, place.line) if place.observed is None else id(place.observed)
        return self.direction, self.primitive, where


class Search(Watch):
    """Compares what each operation made with what it was given, forward and backward.

    found: in order; times: how often, by `key`. forward, backward: how many operations were
    looked at.
    sizes: of the largest finite cotangent at each run step, by recurrence.
    """

    def __init__(self, running: Running) -> None:
        self.running = running
        self.recurrences: list[Observed] = []
        self.found: list[Found] = []
        self.times: Counter[Hashable] = Counter()
        self.forward = self.backward = 0
        self.sizes: dict[tuple[int, int], float] = {}
        self._going_back = False
        self._places: dict[int, Place] = {}  # by the order of the node
        self._made: dict[int, tuple[list[Any], Sequence[Any]]] = {}

    def _here(self) -> Place:
        """Where the operation that is being computed stands."""
        inside = current.observer is None and self.recurrences  # an observer steps back in a step
        observed = self.recurrences[-1] if inside else None
        position = len(observed.steps) if observed is not None else 0
        path = self.running.path()
        return Place(observed, position, path, self.running.ended[path] + 1, user_line())

    def recorded(self, node: Node) -> None:
        """Note where a node was made."""
        self._places[node.order] = self._here()

    def after(
        self, primitive: Primitive, operands: Sequence[Any], params: dict[str, Any], made: Any
    ) -> None:
        """Look at the result of an operation."""
        if self._going_back:  # a Function's backward computes with Tensors
            return
        self.forward += 1
        results = made if type(made) is list else [made]
        if results and results[0].grad_fn is not None:
            self._made[results[0].grad_fn.order] = results, operands
        grade = worst(results)
        if grade > worst(operands):
            bad = next(result for result in results if worst([result]) == grade)
            shown = [Shown("operand", False, x, values_of(x)) for x in operands]
            result = Shown("result", False, bad, values_of(bad))
            here = self._here()
            self._note(Found("forward", primitive, here, result, shown, results, operands))

    def pulling(self, turn: Turn) -> Iterator[None]:
        """Look at what the rules of a node make."""
        self.backward += 1
        self._going_back = True
        node, given = turn.node, turn.given()
        place = self._places.get(node.order, EARLIER)
        before = worst([*given, *turn.pulled(), *turn.inputs, *turn.outputs])
        self._note_size(place, given)
        yield
        pulled = turn.pulled()
        if worst(pulled) > before:
            made, operands = self._made.get(node.order, ([], ()))
            shown = [
                *_shown("result", True, given, made),
                *_shown("operand", False, turn.inputs, operands),
                *_shown("result", False, turn.outputs, made),
            ]
            k = next(k for k, g in enumerate(pulled) if worst([g]) > before)
            about = operands[turn.places[k]] if operands else None
            result = Shown("operand", True, about, values_of(pulled[k]))
            self._note(Found("backward", node.primitive, place, result, shown, made, operands))

    def _note(self, found: Found) -> None:
        """Keep the first value that an operation of a recurrence, or of a line, has made."""
        self.times[found.key] += 1
        if self.times[found.key] == 1 and len(self.found) < LIMIT:
            self.found.append(found)

    def _note_size(self, place: Place, given: Sequence[Any]) -> None:
        """Remember how large gradients are at a step."""
        if place.observed is not None:
            key = id(place.observed), place.position
            sizes = [values_of(g).largest for g in given if g is not None]
            self.sizes[key] = max(self.sizes.get(key, 0.0), *sizes)


def _shown(
    role: str, is_gradient: bool, arrays: Sequence[Any], tensors: Sequence[Any]
) -> list[Shown]:
    """The arrays that a rule sees, with the tensors that they belong to."""
    subjects = [*tensors, *[None] * (len(arrays) - len(tensors))]
    return [
        Shown(role, is_gradient, subject, values_of(array))
        for array, subject in zip(arrays, subjects, strict=True)
        if array is not None and type(array) is not tuple
    ]
