"""How does a loop over time fit into one drawing, once every step was recorded?

What a loop records is periodic: the same operations in the same order, on the same weights. `fold`
finds such runs, and gives one step in place of all. What the step reads of the step before becomes
a state; what it reads anew each time, of a sequence, becomes one value for each step. Nothing of
the loop in the user's program is needed, and no operation is recognised by what it is.
Read recorded.py before this file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn.autograd.function import FunctionPrimitive
from tinygrad_rnn.diagnose.draw.diagram import Carry
from tinygrad_rnn.diagnose.draw.recorded import Recorded
from tinygrad_rnn.ops import getitem
from tinygrad_rnn.program import Equation, Var, freeze

LEAST_STEPS = 3  # two are no evidence of a loop
LEAST_SAVED = 10  # boxes that a fold must save to be worth the reading
PERIODS = 32  # the most frequent distances that are tried as the length of a step


class Part(NamedTuple):
    """Equations in order. title, notes: of their frame, if they have one.

    carry: what each step hands to the next, where they are one step of several.
    """

    equations: list[Equation]
    title: str = ""
    notes: Sequence[str] = ()
    carry: Sequence[Carry] = ()


class Folded(NamedTuple):
    """A graph in parts. series: the values that stand for one of each step, drawn once."""

    parts: list[Part]
    leaves: dict[Var, str]
    result: Var
    series: set[Var]


def unfolded(graph: Recorded) -> Folded:
    """The graph as it is."""
    return Folded([Part(graph.equations)], graph.leaves, graph.result, set())


def fold(graph: Recorded) -> Folded:
    """The graph with each run of equal steps drawn together into one."""
    loops = _loops(graph)
    return _Folding(graph, loops).folded() if loops else unfolded(graph)


class Loop(NamedTuple):
    """Equations from `start` on: so many steps of so many equations each."""

    start: int
    period: int
    steps: int

    @property
    def stop(self) -> int:
        """Where the equations go on behind it."""
        return self.start + self.period * self.steps

    @property
    def saved(self) -> int:
        """How many boxes folding it saves."""
        return self.period * (self.steps - 1)


# Finding loops.


def _loops(graph: Recorded) -> list[Loop]:
    """Loops that do not overlap, the largest preferred, in order."""
    equations = graph.equations
    places = {equation: place for place, equation in enumerate(equations)}
    free = np.array(_tokens(graph), dtype=np.int64)
    found: list[Loop] = []
    while True:
        before = len(found)
        for start, stop, period in _periodic(free):
            if (free[start:stop] < 0).any():
                continue  # part of it belongs to a loop found earlier; it is looked at again
            loop = _checked(equations, places, start, stop, period)
            if loop is not None and loop.saved >= LEAST_SAVED:
                found.append(loop)
                free[loop.start : loop.stop] = -1 - np.arange(loop.start, loop.stop)
        if len(found) == before:
            return sorted(found)


def _tokens(graph: Recorded) -> list[int]:
    """A number for each equation, equal for equations that could be of two steps of one loop."""
    numbers: dict[Hashable, int] = {}
    tokens = []
    for equation in graph.equations:
        operands = (_operand_token(x, graph.leaves) for x in equation.inputs)
        token = (
            equation.primitive,
            _params_token(equation),
            tuple((y.shape, y.dtype) for y in equation.outputs),
            *operands,
        )
        tokens.append(numbers.setdefault(token, len(numbers)))
    return tokens


def _operand_token(x: Any, leaves: Mapping[Var, str]) -> Hashable:
    """What of an operand all steps share: numbers, parameters, and shapes of anything else."""
    if type(x) is not Var:
        return (type(x), repr(x))
    return x if leaves.get(x) == "parameter" else x.shape


def _params_token(equation: Equation) -> Hashable:
    """The parameters, but for the integers of an index, which may be the time."""
    if isinstance(equation.primitive, FunctionPrimitive):
        return None  # its params tell one call from another
    if equation.primitive is getitem:
        return freeze(_with_integers(equation.params["index"], lambda _: 0))
    frozen = freeze(equation.params)
    return id(equation) if frozen is None else frozen


def _with_integers(index: Any, change: Any) -> Any:
    """An index with each of its integers changed."""
    if isinstance(index, tuple):
        return tuple(_with_integers(part, change) for part in index)
    if isinstance(index, slice):
        start, stop = (_with_integers(end, change) for end in (index.start, index.stop))
        return slice(start, stop, index.step)
    return change(index) if type(index) is int else index


def _periodic(tokens: np.ndarray[Any, Any]) -> list[tuple[int, int, int]]:
    """Runs (start, stop, period) in which every token equals that a period later; best first."""
    last: dict[int, int] = {}
    distances: Counter[int] = Counter()
    for place, token in enumerate(tokens.tolist()):
        if token in last:
            distances[place - last[token]] += 1
        last[token] = place
    runs = []
    for period, _ in distances.most_common(PERIODS):
        equal = np.concatenate(([False], tokens[:-period] == tokens[period:], [False]))
        (starts,) = np.nonzero(~equal[:-1] & equal[1:])
        (stops,) = np.nonzero(equal[:-1] & ~equal[1:])
        for start, stop in zip(starts.tolist(), (stops + period).tolist(), strict=True):
            steps = (stop - start) // period
            if steps >= LEAST_STEPS and period * (steps - 1) >= LEAST_SAVED:
                runs.append((period * (steps - 1), start, stop, period))
    runs.sort(key=lambda run: (-run[0], run[1:]))
    return [run[1:] for run in runs]


def _checked(
    equations: Sequence[Equation],
    places: Mapping[Equation, int],
    start: int,
    stop: int,
    period: int,
) -> Loop | None:
    """The longest loop at the start of a run, begun where the least is handed from step to step."""
    best: Loop | None = None
    fewest = 0
    for shift in range(min((stop - start) % period, period - 1) + 1):
        probe = Loop(start + shift, period, LEAST_STEPS)
        if probe.stop > stop or _agreeing(equations, places, probe) < LEAST_STEPS:
            continue
        carried = len(_handed_on(equations, places, probe))
        if best is None or carried < fewest:
            best, fewest = probe, carried
    if best is None:
        return None
    most = best._replace(steps=(stop - best.start) // period)
    return most._replace(steps=_agreeing(equations, places, most))


def _operands(equations: Sequence[Equation], loop: Loop) -> Iterator[tuple[int, list[Any]]]:
    """For each operand of a step: the number of its equation, and what it is at each step."""
    for number in range(loop.period):
        same = equations[loop.start + number : loop.stop : loop.period]
        for operand in range(len(same[0].inputs)):
            yield number, [equation.inputs[operand] for equation in same]


def _agreeing(equations: Sequence[Equation], places: Mapping[Equation, int], loop: Loop) -> int:
    """How many steps, from the first, get their operands from the same places as each other."""
    steps = loop.steps
    for _, xs in _operands(equations, loop):
        if type(xs[0]) is Var:
            steps = min(steps, _agreeing_operand(xs, places, loop))
    return steps


def _agreeing_operand(xs: Sequence[Var], places: Mapping[Equation, int], loop: Loop) -> int:
    """For how many steps an operand is of the same step, of the step before, or from outside.

    One of the step before is at the first step from outside.
    """
    made = [-1 if x.equation is None else places[x.equation] for x in xs]
    if made[1] < loop.start:
        return next((k for k, place in enumerate(made) if place >= loop.start), len(xs))
    first = made[1] - loop.period
    if made[0] != first and not (made[0] < loop.start and first < loop.start):
        return 0
    for k in range(1, len(xs)):
        if made[k] != first + k * loop.period or xs[k].index != xs[1].index:
            return k
    return len(xs) if first < loop.start or xs[0].index == xs[1].index else 0


def _handed_on(
    equations: Sequence[Equation], places: Mapping[Equation, int], loop: Loop
) -> set[tuple[int, int]]:
    """What a step reads of the step before: the numbers of equations and of their outputs."""
    found = set()
    for _, xs in _operands(equations, loop):
        x = xs[1]
        if type(x) is Var and x.equation is not None:
            number = places[x.equation] - loop.start
            if 0 <= number < loop.period:
                found.add((number, x.index))
    return found


# Drawing one step in place of all.


class _Unquoted(str):
    """A text that stands in a program as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class _Folding:
    """The rewriting of one graph: every value of a loop is represented by that of its last step."""

    def __init__(self, graph: Recorded, loops: Sequence[Loop]) -> None:
        self.graph = graph
        self.equations = graph.equations
        self.places = {equation: place for place, equation in enumerate(graph.equations)}
        self.stands_for: dict[Var, Var] = {}
        self.series: set[Var] = set()
        self.loops = [loop for loop in loops if self.take_in(loop)]

    def shown(self, x: Any) -> Any:
        """What is drawn in place of a value; numbers are themselves."""
        return self.stands_for.get(x, x) if type(x) is Var else x

    def take_in(self, loop: Loop) -> bool:
        """Find what represents the values that a loop reads and makes; False if nothing can."""
        anew = []
        for _, xs in _operands(self.equations, loop):
            outside = type(xs[1]) is Var and not self.made_in(loop, xs[1])
            if outside and len({self.shown(x) for x in xs}) > 1:
                if len({x.equation for x in xs}) > 1:
                    return False  # made here and there: it is no sequence
                anew.append(xs)
        for xs in anew:
            if len({self.shown(x) for x in xs}) > 1:
                one = _like(xs[-1])
                self.series.add(one)
                self.stands_for.update((x, one) for x in xs)
        last = loop.stop - loop.period
        for place in range(loop.start, last):
            standing = self.equations[last + (place - loop.start) % loop.period]
            pairs = zip(self.equations[place].outputs, standing.outputs, strict=True)
            self.stands_for.update(pairs)
        return True

    def made_in(self, loop: Loop, x: Var) -> bool:
        """Whether a loop makes a value itself."""
        return x.equation is not None and self.places[x.equation] >= loop.start

    def folded(self) -> Folded:
        """The parts in order."""
        parts, place = [], 0
        for loop in self.loops:
            parts += [Part([self.alone(e) for e in self.equations[place : loop.start]])]
            parts += [self.step(loop)]
            place = loop.stop
        parts += [Part([self.alone(e) for e in self.equations[place:]])]
        leaves = {x: kind for x, kind in self.graph.leaves.items() if x not in self.stands_for}
        leaves |= {x: "sequence" for x in self.series if x.equation is None}
        result = self.shown(self.graph.result)
        return Folded([part for part in parts if part.equations], leaves, result, self.series)

    def alone(self, equation: Equation) -> Equation:
        """An equation outside loops; of what it joins, all that a loop made is one operand."""
        inputs = [self.shown(x) for x in equation.inputs]
        if equation.primitive.joint_rule is not None:
            inputs = list(dict.fromkeys(inputs))
        outputs = list(dict.fromkeys(self.shown(y) for y in equation.outputs))
        return Equation(equation.primitive, inputs, outputs, equation.params)

    def step(self, loop: Loop) -> Part:
        """The last step of a loop, with states for what it reads of the step before."""
        last = loop.stop - loop.period
        states: dict[tuple[Var, Var], Var] = {}
        inputs: list[list[Any]] = [[] for _ in range(loop.period)]
        for number, xs in _operands(self.equations, loop):
            x = xs[-1]
            if type(x) is Var and self.made_in(loop, x) and not self.made_in(loop, xs[0]):
                handed_on, initial = self.shown(x), self.shown(xs[0])
                x = states.setdefault((handed_on, initial), _like(handed_on))
            inputs[number].append(self.shown(x))
        equations = []
        for number, operands in enumerate(inputs):
            first, equation = self.equations[loop.start + number], self.equations[last + number]
            params = _at_time_t(equation, first)
            equations.append(Equation(equation.primitive, operands, equation.outputs, params))
        carry = [Carry(state, *pair) for pair, state in states.items()]
        note = f"{loop.steps} steps that are alike, drawn once: the last of them"
        return Part(equations, f"loop × {loop.steps}", [note], carry)


def _like(x: Var) -> Var:
    """A value of the same form, for the drawing only; a name such as xs[3] becomes xs."""
    name = None if x.name is None else re.sub(r"\[\d+\]$", "", x.name)
    made = Var(x.owner, x.shape, x.dtype, x.device, name)
    made.equation = x.equation
    return made


def _at_time_t(equation: Equation, first: Equation) -> dict[str, Any]:
    """An equation's parameters, with t where its index is another one than at the first step."""
    if equation.primitive is not getitem:
        return equation.params
    index, earlier = equation.params["index"], iter(_integers(first.params["index"]))
    moving: list[int] = []

    def at_t(number: int) -> Any:
        start = next(earlier)
        if start == number:
            return number
        moving.append(start)
        ahead = start - moving[0]
        return _Unquoted(f"t{ahead:+}" if ahead else "t")

    return {**equation.params, "index": _with_integers(index, at_t)}


def _integers(index: Any) -> list[int]:
    """The integers of an index, in order."""
    found: list[int] = []
    _with_integers(index, found.append)
    return found
