"""How is one step of a recurrence differentiated?

By the engine's own `backpropagate`, run on the step's equations while a `Trace` is listening: what
the rules compute is written down, and that is the pulled-back step. It is a Program of the same
form. Its carry is the cotangent of the carry, and what the rules read of the forward pass comes in
as sequences; but sums and products of what is there anyway are computed again, since that costs no
more time than to keep and read them, and less memory.
Read `program.py` and `autodiff.py` before this file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tinygrad_rnn.autodiff import Edge, backpropagate
from tinygrad_rnn.backend import filled
from tinygrad_rnn.ops.broadcasting import broadcast_to
from tinygrad_rnn.ops.elementwise import add, multiply, negative, subtract
from tinygrad_rnn.ops.shape import reshape, transpose
from tinygrad_rnn.program import Equation, Program, Trace, Var


class Pullback(NamedTuple):
    """A step's pullback, and what its inputs and outputs have to do with the step.

    program: carry: the cotangents of the step's next carry; sequences: those of its stacked
        outputs, then `reads`; constants: the cotangents of its sums, then `constants`, then
        `captured`. Its next carry are the cotangents of the carry; its stacked outputs those of
        the step's sequences, and its sums those of the constants.
    carry, sequences, summed: the numbers of the carries, sequences and constants that get one.
    reads: values of the step that vary with time and are read: of its carry, sequences, equations.
    constants: the step's constants that are read.
    captured: arrays of zeros, for what gets no cotangent.
    """

    program: Program
    carry: list[int]
    sequences: list[int]
    summed: list[int]
    reads: list[Var]
    constants: list[Var]
    captured: list[Any]


def pull_back(program: Program, given: Sequence[bool], wanted: Sequence[bool]) -> Pullback:
    """The pullback of a step.

    given: which outputs have cotangents. Those of the carry always have one, zeros if need be.
    wanted: for which inputs a cotangent is asked for.
    """
    found = _pull_back(program, given, wanted, set())
    at_hand = {*program.sequences, *program.stacked}
    known = at_hand | {*found.reads}
    again = {x for x in found.reads if x not in at_hand and _is_arithmetic_of(x, known)}
    return _pull_back(program, given, wanted, again) if again else found


def _is_arithmetic_of(x: Var, known: set[Var]) -> bool:
    """Whether a value is a sum or a product of values that are known."""
    equation = x.equation
    return (
        equation is not None
        and equation.primitive in (add, subtract, multiply, negative)
        and all(y in known for y in equation.variables)
    )


def _pull_back(
    program: Program, given: Sequence[bool], wanted: Sequence[bool], again: set[Var]
) -> Pullback:
    """The pullback, in which the values `again` are computed, not read."""
    active = reached(program, wanted)
    trace = Trace()
    forward = _Forward(program, trace, again)
    cotangents: dict[Edge, Any] = {}

    def seed(output: Var, name: str) -> Var:
        g = trace.input(output, name)
        if output in active:
            known = cotangents.get(output.edge)
            cotangents[output.edge] = g if known is None else known + g
        return g

    carry = [k for k, x in enumerate(program.carry) if x in active]
    g_carry = [seed(program.next_carry[k], f"d{program.carry[k].name}") for k in carry]
    flags = iter(given[len(program.next_carry) :])
    g_stacked = [seed(y, "dy") for y in program.stacked if next(flags)]
    g_summed = [seed(y, "ds") for y in program.summed if next(flags)]

    backpropagate(forward.steps(active), cotangents, lambda _edge, earlier, g: earlier + g)

    def found(inputs: Sequence[Var]) -> list[int]:
        return [k for k, x in enumerate(inputs) if x in active and x in cotangents]

    sequences, summed = found(program.sequences), found(program.constants)
    next_carry = [
        cotangents[x] if x in cotangents else trace.constant(filled(x.shape, 0, x.dtype, x.device))
        for x in (program.carry[k] for k in carry)
    ]
    g_sequences = [cotangents[program.sequences[k]] for k in sequences]
    g_constants = [cotangents[program.constants[k]] for k in summed]
    equations = trace.equations
    kept = Program(equations, [], [], [], next_carry, g_sequences, g_constants)
    used = {x for equation in kept.equations for x in equation.variables} | {*kept.outputs}
    reads = [x for x, stand_in in forward.reads.items() if stand_in in used]
    constants = [x for x, stand_in in forward.constants.items() if stand_in in used]
    captured = list(trace.constants.values())
    pulled = Program(
        kept.equations,
        g_carry,
        g_stacked + [forward.reads[x] for x in reads],
        g_summed + [forward.constants[x] for x in constants] + [x for _, x in captured],
        next_carry,
        g_sequences,
        g_constants,
    )
    return Pullback(
        pulled, carry, sequences, summed, reads, constants, [value for value, _ in captured]
    )


def reached(program: Program, wanted: Sequence[bool]) -> set[Var]:
    """The values that depend, now or by way of earlier steps, on an input that wants a cotangent.

    The carry is followed round the loop until nothing is added.
    """
    active = {
        x for x, want in zip(program.inputs, wanted, strict=True) if want and x.dtype.kind == "f"
    }
    while True:
        before = len(active)
        for equation in program.equations:
            if _asked(equation, active):
                active.update(x for x in equation.outputs if x.dtype.kind == "f")
        for state, output in zip(program.carry, program.next_carry, strict=True):
            if output in active and state.dtype.kind == "f":
                active.add(state)
        if len(active) == before:
            return active


def _asked(equation: Equation, active: set[Var]) -> list[Edge | None]:
    """The edges of an equation along which cotangents are asked for; [] if there are none."""
    if not equation.primitive.differentiable:
        return []
    rules = equation.primitive.rules or [True] * len(equation.inputs)
    edges = [
        x.edge if rule is not None and type(x) is Var and x in active else None
        for x, rule in zip(equation.inputs, rules, strict=True)
    ]
    return edges if any(edge is not None for edge in edges) else []


class _Forward:
    """The step's values as the rules see them: stand-ins in the trace of the pullback.

    What varies with time is read of the forward pass; what only depends on constants is computed
    again, and so are views, and the values `again`. Nothing becomes a read that no rule asks for.
    """

    _VIEWS = (reshape, transpose, broadcast_to)

    def __init__(self, program: Program, trace: Trace, again: set[Var]) -> None:
        self.program = program
        self.trace = trace
        self.again = again
        self.reads: dict[Var, Var] = {}
        self.constants: dict[Var, Var] = {}
        self._made: dict[Var, Any] = {}
        self._fixed = set(program.constants)
        for equation in program.equations:
            if all(x in self._fixed for x in equation.variables):
                self._fixed.update(equation.outputs)

    def steps(self, active: set[Var]) -> Iterator[tuple[Any, Any, Any, Any]]:
        """The equations from last to first, as `backpropagate` visits them."""
        for equation in reversed(self.program.equations):
            edges = _asked(equation, active)
            if not edges:
                continue
            pattern = 1 << len(edges)
            for place, edge in enumerate(edges):
                if edge is not None:
                    pattern |= 1 << place
            primitive = equation.primitive
            reads_outputs, unread = primitive.kept.get(pattern) or primitive.keeps(pattern)
            inputs = [
                getattr(x, "shape", ()) if place in unread else self.read(x)
                for place, x in enumerate(equation.inputs)
            ]
            outputs = [self.read(x) if reads_outputs else x.shape for x in equation.outputs]
            yield equation, edges, outputs, inputs

    def read(self, x: Any) -> Any:
        """The stand-in for a value of the step."""
        if type(x) is not Var:
            return x
        equation = x.equation
        if equation is None and x in self._fixed:
            return self._input(self.constants, x)
        if equation is not None and (
            x in self._fixed or x in self.again or equation.primitive in self._VIEWS
        ):
            if x not in self._made:
                made = equation.primitive(*map(self.read, equation.inputs), **equation.params)
                several = made if type(made) is list else [made]
                self._made.update(zip(equation.outputs, several, strict=True))
            return self._made[x]
        return self._input(self.reads, x)

    def _input(self, known: dict[Var, Var], x: Var) -> Var:
        if x not in known:
            known[x] = self.trace.input(x, x.name)
        return known[x]
