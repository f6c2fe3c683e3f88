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
from itertools import groupby
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

    @property
    def values(self) -> Iterator[Var]:
        """What is read here or handed on."""
        for equation in self.equations:
            yield from equation.variables
        for carry in self.carry:
            yield from (x for x in carry if x is not None)


class Folded(NamedTuple):
    """A graph in parts.

    aliases: values that are drawn as part of another, v[t] as part of v: for each the other, and
        what stands in the brackets. t is the number of the step, from 0.
    """

    parts: list[Part]
    leaves: dict[Var, str]
    result: Var
    aliases: dict[Var, tuple[Var, str]]


def unfolded(graph: Recorded) -> Folded:
    """The graph as it is."""
    return Folded([Part(graph.equations)], graph.leaves, graph.result, {})


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
            loop = _checked(graph, places, start, stop, period)
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
        operands = (x.shape if type(x) is Var else (type(x), repr(x)) for x in equation.inputs)
        token = (
            equation.primitive,
            _params_token(equation),
            tuple((y.shape, y.dtype) for y in equation.outputs),
            *operands,
        )
        tokens.append(numbers.setdefault(token, len(numbers)))
    return tokens


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
    graph: Recorded,
    places: Mapping[Equation, int],
    start: int,
    stop: int,
    period: int,
) -> Loop | None:
    """The longest loop at the start of a run, begun where the least is handed from step to step.

    If the first step turns out to be another one, the loop begins with the second.
    """
    spare = (stop - start) % period
    for shifts in (range(spare + 1), range(spare + 1, period + 1)):
        probes = [Loop(start + shift, period, LEAST_STEPS) for shift in shifts]
        probes = [
            probe
            for probe in probes
            if probe.stop <= stop and _agreeing(graph, places, probe) == LEAST_STEPS
        ]
        if probes:
            best = min(probes, key=lambda probe: _handed_on(graph.equations, places, probe))
            most = best._replace(steps=(stop - best.start) // period)
            return most._replace(steps=_agreeing(graph, places, most))
    return None


def _operands(equations: Sequence[Equation], loop: Loop) -> Iterator[tuple[int, list[Any]]]:
    """For each operand of a step: the number of its equation, and what it is at each step."""
    for number in range(loop.period):
        same = equations[loop.start + number : loop.stop : loop.period]
        for operand in range(len(same[0].inputs)):
            yield number, [equation.inputs[operand] for equation in same]


def _agreeing(graph: Recorded, places: Mapping[Equation, int], loop: Loop) -> int:
    """How many steps, from the first, get their operands from the same places as each other."""
    steps = loop.steps
    for _, xs in _operands(graph.equations, loop):
        if type(xs[0]) is Var:
            steps = min(steps, _agreeing_operand(xs, graph.leaves, places, loop))
    return steps


def _agreeing_operand(
    xs: Sequence[Var], leaves: Mapping[Var, str], places: Mapping[Equation, int], loop: Loop
) -> int:
    """For how many steps an operand is of the same step, of the step before, or from outside.

    One of the step before is at the first step from outside. A parameter is always the same.
    """
    made = [-1 if x.equation is None else places[x.equation] for x in xs]
    if made[1] < loop.start:
        for k, (place, x) in enumerate(zip(made, xs, strict=True)):
            parameter = "parameter" in (leaves.get(x), leaves.get(xs[0]))
            if place >= loop.start or (parameter and x is not xs[0]):
                return k
        return len(xs)
    first = made[1] - loop.period
    if made[0] != first and not (made[0] < loop.start and first < loop.start):
        return 0
    for k in range(1, len(xs)):
        if made[k] != first + k * loop.period or xs[k].index != xs[1].index:
            return k
    return len(xs) if first < loop.start or xs[0].index == xs[1].index else 0


def _handed_on(equations: Sequence[Equation], places: Mapping[Equation, int], loop: Loop) -> int:
    """How many values a step reads of the step before."""
    found = set()
    for _, xs in _operands(equations, loop):
        x = xs[1]
        if type(x) is Var and x.equation is not None:
            number = places[x.equation] - loop.start
            if 0 <= number < loop.period:
                found.add((number, x.index))
    return len(found)


# Drawing one step in place of all.


class _Unquoted(str):
    """A text that stands in a program as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class _Folding:
    """The rewriting of one graph.

    made: for what a loop makes, the value of its last step, which is the one that is drawn, the
        number of its own step, and how many there are.
    lists: for an equation whose outputs are read one at each step, what stands for all of them.
    leaves: the same for leaves that are read one at each step.
    series: for the values that an operand of a loop has, one at each step, what is drawn instead.
    parts: v[t], by v and t.
    """

    def __init__(self, graph: Recorded, loops: Sequence[Loop]) -> None:
        self.graph = graph
        self.equations = graph.equations
        self.places = {equation: place for place, equation in enumerate(graph.equations)}
        self.made: dict[Var, tuple[Var, int, int]] = {}
        self.lists: dict[Equation, Var] = {}
        self.leaves: dict[Hashable, Var] = {}  # by name or by what they are
        self.parts: dict[tuple[Var, str], Var] = {}
        self.series: dict[tuple[Var, ...], Var] = {}
        self.loops = [loop for loop in loops if self.take_in(loop)]

    def folded(self) -> Folded:
        """The parts in order."""
        parts, place = [], 0
        for loop in self.loops:
            parts += [Part([self.alone(e) for e in self.equations[place : loop.start]])]
            parts += [self.step(loop)]
            place = loop.stop
        parts += [Part([self.alone(e) for e in self.equations[place:]])]
        leaves = self.graph.leaves | {x: "sequence" for x in self.leaves.values()}
        result = self.shown(self.graph.result)
        aliases = {x: meaning for meaning, x in self.parts.items()}
        values = (x for part in parts for x in part.values)
        read = {aliases[x][0] if x in aliases else x for x in values}
        return Folded(
            [part for part in parts if part.equations],
            {x: kind for x, kind in leaves.items() if x in read},
            result,
            aliases,
        )

    def take_in(self, loop: Loop) -> bool:
        """Learn what a loop reads anew at every step, and what it makes; False if that is mixed."""
        for _, xs in _operands(self.equations, loop):
            if type(xs[1]) is Var and not self.made_in(loop, xs[1]) and len({*xs}) > 1:
                series = self.one_for_each_step(xs)
                if series is None:
                    return False
                self.series[tuple(xs)] = series
        last = loop.stop - loop.period
        for place in range(loop.start, loop.stop):
            step, number = divmod(place - loop.start, loop.period)
            drawn = self.equations[last + number].outputs
            for x, standing in zip(self.equations[place].outputs, drawn, strict=True):
                self.made[x] = standing, step, loop.steps
        return True

    def one_for_each_step(self, xs: Sequence[Var]) -> Var | None:
        """What is drawn in place of values that a loop reads one by one; None for a mixture."""
        loops = {self.made[x][0] for x in xs if x in self.made}
        if len(loops) == 1 and all(x in self.made for x in xs):
            return self.alias(loops.pop(), _over_time([self.made[x][1] for x in xs]))
        if len({x.equation for x in xs}) > 1:
            return None
        equation = xs[0].equation
        if equation is not None:
            whole = self.lists.setdefault(equation, _like(xs[0]))
            return self.alias(whole, _over_time([x.index for x in xs]))
        named = [re.fullmatch(r"(.*)\[(\d+)\]", x.name or "") for x in xs]
        matches = [match for match in named if match]
        if len(matches) == len(xs) and len({match[1] for match in matches}) == 1:
            whole = self.leaves.setdefault(matches[0][1], _like(xs[0]))
            whole.name = matches[0][1]
            return self.alias(whole, _over_time([int(match[2]) for match in matches]))
        return self.alias(self.leaves.setdefault(tuple(xs), _like(xs[0])), "t")

    def alias(self, whole: Var, which: str) -> Var:
        """The part of a value that stands for several."""
        if (whole, which) not in self.parts:
            self.parts[whole, which] = _like(whole)
        return self.parts[whole, which]

    def made_in(self, loop: Loop, x: Var) -> bool:
        """Whether a loop makes a value itself."""
        return x.equation is not None and self.places[x.equation] >= loop.start

    def shown(self, x: Any) -> Any:
        """What is drawn in place of one value; numbers are themselves."""
        if type(x) is not Var:
            return x
        if x in self.made:
            drawn, step, steps = self.made[x]
            return drawn if step == steps - 1 else self.alias(drawn, str(step))
        whole = None if x.equation is None else self.lists.get(x.equation)
        return x if whole is None else self.alias(whole, str(x.index))

    def alone(self, equation: Equation) -> Equation:
        """An equation outside loops; of what it joins, all that a loop made is one operand."""
        joins = equation.primitive.joint_rule is not None
        inputs: list[Any] = []
        for _, several in groupby(equation.inputs, lambda x: id(self.made.get(x, (x, 0, 0))[0])):
            xs = list(several)
            if joins and len(xs) > 1 and xs[0] in self.made:
                drawn, _, length = self.made[xs[0]]
                steps = [self.made[x][1] for x in xs]
                inputs.append(self.alias(drawn, _slice(steps, length)))
            else:
                inputs += map(self.shown, xs)
        whole = self.lists.get(equation)
        outputs = equation.outputs if whole is None else [whole]
        return Equation(equation.primitive, inputs, outputs, equation.params)

    def step(self, loop: Loop) -> Part:
        """The last step of a loop, with states for what it reads of the step before."""
        states: dict[tuple[Var, Var], Var] = {}
        inputs: list[list[Any]] = [[] for _ in range(loop.period)]
        for number, xs in _operands(self.equations, loop):
            x = self.shown(xs[-1])
            if type(x) is Var and not self.made_in(loop, xs[1]):
                x = self.series.get(tuple(xs), x)
            elif type(x) is Var:
                handed_on = self.made[xs[-1]][0]
                x = handed_on
                if not self.made_in(loop, xs[0]):
                    x = states.setdefault((handed_on, self.shown(xs[0])), _like(handed_on))
            inputs[number].append(x)
        equations = []
        for number, operands in enumerate(inputs):
            same = self.equations[loop.start + number : loop.stop : loop.period]
            params = _at_time_t(same)
            equations.append(Equation(same[-1].primitive, operands, same[-1].outputs, params))
        carry = [Carry(state, *pair) for pair, state in states.items()]
        note = f"{loop.steps} steps that are alike, drawn once: the last of them"
        return Part(equations, f"loop × {loop.steps}", [note], carry)


def _like(x: Var) -> Var:
    """A value of the same form, for the drawing only."""
    made = Var(x.owner, x.shape, x.dtype, x.device)
    made.equation = x.equation
    return made


def _slice(steps: Sequence[int], length: int) -> str:
    """Which steps, as a slice; "…" for no simple one."""
    if list(steps) == list(range(length)):
        return ":"
    if list(steps) == list(range(length))[::-1]:
        return "::-1"
    in_order = list(steps) == list(range(steps[0], steps[0] + len(steps)))
    return f"{steps[0]}:{steps[-1] + 1}" if in_order else "…"


def _over_time(numbers: Sequence[int]) -> str:
    """Integers, one for each step t from 0 on, as an expression in t; "…" for no simple one."""
    start, step = numbers[0], numbers[1] - numbers[0]
    if list(numbers) != [start + step * t for t in range(len(numbers))]:
        return "…"
    if step == 0:
        return str(start)
    if step < 0:
        return f"{start}-t" if step == -1 else f"{start}-{-step}*t"
    steps = "t" if step == 1 else f"{step}*t"
    return f"{steps}{start:+}" if start else steps


def _at_time_t(same: Sequence[Equation]) -> dict[str, Any]:
    """The parameters of an equation that each step has, with t in an index that changes."""
    params = same[-1].params
    if same[-1].primitive is not getitem:
        return params
    numbers = zip(*(_integers(equation.params["index"]) for equation in same), strict=True)
    texts = map(_over_time, numbers)
    index = _with_integers(params["index"], lambda _: _Unquoted(next(texts)))
    return {**params, "index": index}


def _integers(index: Any) -> list[int]:
    """The integers of an index, in order."""
    found: list[int] = []
    _with_integers(index, found.append)
    return found
