"""Where does the 1/2 in sigmoid(x) = tanh(x/2)/2 + 1/2 go?

Into the weights, where it costs nothing: x is usually a sum of products with matrices and of
biases, and half of it is the sum of products with half the matrices. All gates of a cell then take
one tanh. Multiplying by 1/2 is exact in binary, so the results are the same bits.

`halved` rewrites a program so; where the 1/2 would have to be multiplied in inside the loop it
stays in the sigmoid. Read `program.py` and ../partition.py before this file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_rnn.ops.elementwise import Elementwise, add, multiply, sigmoid, subtract
from tinygrad_rnn.ops.linear import matmul
from tinygrad_rnn.ops.shape import split
from tinygrad_rnn.program import Equation, Program, Trace, Var

#: y = sigmoid(2x).
sigmoid_of_twice = Elementwise("sigmoid_of_twice", lambda xp, x: xp.tanh(x) * 0.5 + 0.5)


def halved(program: Program) -> tuple[Program, list[Any]]:
    """The program with 1/2 in its weights, and the arrays that it has as further constants."""
    return _Halving(program).rewritten()


class _Halving:
    """The rewriting of one program.

    scales: what a value is to be multiplied by, 1/2 or an array along its last axis; for values
        that can take it in: products with something fixed, sums of such, parts of such.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.uses: dict[Var, int] = {}
        for x in [*program.outputs, *(x for e in program.equations for x in e.variables)]:
            self.uses[x] = self.uses.get(x, 0) + 1
        self.fixed = set(program.constants)
        self.ahead = {*program.constants, *program.sequences}  # known before the loop
        for equation in program.equations:
            for kind in (self.fixed, self.ahead):
                if all(x in kind for x in equation.variables):
                    kind.update(equation.outputs)
        self.able: dict[Var, bool] = {}
        self.scales: dict[Var, Any] = {}
        self.trace = Trace()
        self.known: dict[Var, Any] = {}

    def rewritten(self) -> tuple[Program, list[Any]]:
        """Hand scales from the sigmoids back to the matrices, then write all equations anew."""
        program = self.program
        for equation in program.equations:
            for x in equation.outputs:
                self.able[x] = self.uses.get(x) == 1 and self._takes(equation)
        for equation in reversed(program.equations):
            self._hand_back(equation)
        if not self.scales:
            return program, []
        kinds = (program.carry, program.sequences, program.constants)
        inputs = [[self.trace.input(x, x.name) for x in kind] for kind in kinds]
        for old, new in zip(kinds, inputs, strict=True):
            self.known.update(zip(old, new, strict=True))
        for equation in program.equations:
            self._write(equation)
        captured = list(self.trace.constants.values())
        inputs[2] += [x for _, x in captured]
        outputs = (
            [self.known[x] for x in several]
            for several in (program.next_carry, program.stacked, program.summed)
        )
        return Program(self.trace.equations, *inputs, *outputs), [x for x, _ in captured]

    def _takes(self, equation: Equation) -> bool:
        """Whether an equation's result can be scaled by scaling what goes into it."""
        primitive, inputs = equation.primitive, equation.inputs
        if primitive is matmul:
            return inputs[1] in self.fixed and len(inputs[1].shape) == 2
        if primitive is multiply:
            return any(type(x) is Var and x in self.fixed for x in inputs)
        if primitive is split:
            return equation.params["axis"] == -1 and self.able.get(inputs[0], False)
        if primitive not in (add, subtract):
            return False
        (result,) = equation.outputs
        return all(
            type(x) is Var
            and (x in self.ahead or (self.able.get(x, False) and x.shape == result.shape))
            for x in inputs
        )

    def _hand_back(self, equation: Equation) -> None:
        """From the scales of an equation's results to those of its operands."""
        primitive, inputs = equation.primitive, equation.inputs
        if primitive is sigmoid:
            if self.able.get(inputs[0], False):
                self.scales[inputs[0]] = 0.5
        elif primitive is split:
            wanted = [self.scales.get(x) for x in equation.outputs]
            if any(scale is not None for scale in wanted):
                parts = [
                    np.full(size, 1.0, inputs[0].dtype) * (1.0 if scale is None else scale)
                    for scale, size in zip(wanted, equation.params["sizes"], strict=True)
                ]
                self.scales[inputs[0]] = np.concatenate(parts).astype(inputs[0].dtype)
        elif primitive in (add, subtract) and equation.outputs[0] in self.scales:
            for x in inputs:
                if self.able.get(x, False) and x.shape == equation.outputs[0].shape:
                    self.scales[x] = self.scales[equation.outputs[0]]

    def _write(self, equation: Equation) -> None:
        """The equation, with its result scaled if it is to be."""
        primitive, inputs = equation.primitive, equation.inputs
        operands = [self.known[x] if type(x) is Var else x for x in inputs]
        scale = self.scales.get(equation.outputs[0]) if equation.arity == 1 else None
        if primitive is sigmoid and inputs[0] in self.scales:
            primitive = sigmoid_of_twice
        elif primitive in (matmul, multiply) and scale is not None:
            place = next(k for k in (1, 0) if type(inputs[k]) is Var and inputs[k] in self.fixed)
            operands[place] = operands[place] * scale
        elif primitive in (add, subtract) and scale is not None:
            operands = [
                y if x in self.scales else y * scale for x, y in zip(inputs, operands, strict=True)
            ]
        made = primitive(*operands, **equation.params)
        several = made if type(made) is list else [made]
        self.known.update(zip(equation.outputs, several, strict=True))
