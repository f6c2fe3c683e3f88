"""How does a pulled-back step get by with the fewest operations on the cotangent of the state?

Everything in it is linear in that cotangent, and much of it is products: (dc * g) * (i * (1 - i)).
Gathered as dc * (g * (i * (1 - i))), the second factor no longer depends on the state, and leaves
the loop. So a value is carried along as base * factor and multiplied out only where it must be;
multiples of one base add up to a multiple of that base: dh + -(dh * z) = dh * (1 - z).
Read pullback.py before this file.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tinygrad_rnn.ops.elementwise import add, cast, divide, multiply, negative, subtract
from tinygrad_rnn.program import Equation, Program, Trace, Var


class Multiple(NamedTuple):
    """± base * factor, not yet multiplied: the base depends on the carry, the factor does not.

    factor: a Var, a number, or None for 1.
    """

    base: Var
    factor: Any = None
    minus: bool = False


def gather_factors(program: Program) -> Program:
    """The same step, with products regrouped so that factors without the carry stand together."""
    return _Gathering(program).rewritten()


class _Gathering:
    """The rewriting of one program: its variables as values of a new trace."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.trace = Trace()
        self.known: dict[Var, Any] = {}  # variable -> a new Var, or a Multiple if it has the carry
        self.products: dict[Var, Any] = {}  # those that were multiplied out

    def rewritten(self) -> Program:
        """Go through the equations once."""
        program, known = self.program, self.known
        kinds = (program.carry, program.sequences, program.constants)
        inputs = [[self.trace.input(x, x.name) for x in kind] for kind in kinds]
        known.update((x, Multiple(y)) for x, y in zip(program.carry, inputs[0], strict=True))
        for old, new in zip(kinds[1:], inputs[1:], strict=True):
            known.update(zip(old, new, strict=True))
        for equation in program.equations:
            self.rewrite(equation)
        return Program(
            self.trace.equations,
            *inputs,
            *(
                [self.multiplied_out(x) for x in outputs]
                for outputs in (program.next_carry, program.stacked, program.summed)
            ),
        )

    def rewrite(self, equation: Equation) -> None:
        """One equation: a Multiple again if it can be, else computed."""
        operands = [self.known[x] if type(x) is Var else x for x in equation.inputs]
        gathered = None
        if equation.arity == 1 and any(type(x) is Multiple for x in operands):
            gathered = self.gathered(equation, operands)
        if gathered is not None:
            self.known[equation.outputs[0]] = gathered
            return
        values = [self.multiplied_out(x) for x in equation.inputs]
        made = equation.primitive(*values, **equation.params)
        depends = any(type(x) is Multiple for x in operands)
        for output, y in zip(equation.outputs, made if type(made) is list else [made], strict=True):
            self.known[output] = Multiple(y) if depends else y

    def gathered(self, equation: Equation, operands: list[Any]) -> Multiple | None:
        """The result as a multiple of one base, or None where it is none."""
        primitive, shape = equation.primitive, equation.outputs[0].shape
        multiples = [x for x in operands if type(x) is Multiple]
        base = multiples[0].base
        if base.shape != shape or any(x.base is not base for x in multiples):
            return None
        if primitive is negative:
            return operands[0]._replace(minus=not operands[0].minus)
        if primitive is multiply and len(multiples) == 1:
            (other,) = (x for x in operands if type(x) is not Multiple)
            if type(other) is Var and other.dtype != base.dtype:  # a mask: True + True is True
                other = cast(other, dtype=base.dtype, source=other.dtype)
            factor = multiples[0].factor
            return multiples[0]._replace(factor=other if factor is None else factor * other)
        if primitive is divide and type(operands[0]) is Multiple and len(multiples) == 1:
            return operands[0]._replace(factor=_number(operands[0].factor) / operands[1])
        if primitive in (add, subtract) and len(multiples) == 2:
            return _sum(multiples[0], multiples[1], primitive is subtract)
        return None

    def multiplied_out(self, x: Any) -> Any:
        """The value of a variable of the old program, or a number, in the new one."""
        if type(x) is not Var:
            return x
        value = self.known[x]
        if type(value) is not Multiple:
            return value
        if value.factor is None:
            return -value.base if value.minus else value.base
        if x not in self.products:
            self.products[x] = value.base * (-value.factor if value.minus else value.factor)
        return self.products[x]


def _sum(a: Multiple, b: Multiple, subtracted: bool) -> Multiple:
    """a + b, or a - b, of one base."""
    x, y = _number(a.factor), _number(b.factor)
    if a.minus == (b.minus != subtracted):
        return Multiple(a.base, x + y, a.minus)
    return Multiple(a.base, y - x if a.minus else x - y)


def _number(factor: Any) -> Any:
    return 1 if factor is None else factor
