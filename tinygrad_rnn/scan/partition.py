"""What of a step must run T times?

Only the path from state to state. An equation that does not depend on the carry is computed before
the loop, for many steps at once; one that no later carry needs is computed after it, likewise. The
definition is reachability: no equation is recognised by what it is. The same definition serves the
pulled-back step, where it moves the gradients of the weights behind the loop.

    fixed    depends on constants alone               once
    before   depends on sequences too                 on stacked values
    loop     on a path from the carry to the carry    T times
    after    depends on the carry                     on stacked values
    totals   outputs of which only the sum over the steps is wanted: once, at the end

Read `program.py` and `ops/lifting.py` before this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from tinygrad_rnn.ops.lifting import can_lift, can_total, lift, sums_operand
from tinygrad_rnn.program import Equation, Program, Var


class Partition(NamedTuple):
    """A program's equations by when they run, each list in order.

    fixed_values: the values that are the same at all steps, constants included.
    totals: how each sum is computed.
    stacks: values of which all T are kept: stacked outputs, and what the totals read.
    """

    fixed: list[Equation]
    before: list[Equation]
    loop: list[Equation]
    after: list[Equation]
    totals: list[Total]
    fixed_values: set[Var]
    stacks: list[Var]


class Total(NamedTuple):
    """How the sum over the steps of one value is computed.

    how: "steps" sums the stacked value itself; "times T": it is the same at all steps;
        "at once": its equation sums over all leading axes; "of operands": its equation is linear,
        and applied to the sums of `parts` in place of those operands.
    """

    value: Var
    how: str
    parts: Mapping[int, Total] = MappingProxyType({})


def partition(program: Program) -> Partition:
    """Sort the equations of a step by when they must run."""
    fixed_values = set(program.constants)
    fixed = []
    for equation in program.equations:
        if all(x in fixed_values for x in equation.variables):
            fixed.append(equation)
            fixed_values.update(equation.outputs)

    uses = _uses(program)
    totals = [_total(x, fixed_values, uses) for x in program.summed]
    elsewhere = {x.equation for total in totals for x in _made_inside(total)} | set(fixed)

    known = {*fixed_values, *program.sequences}  # before the loop
    before, rest = [], []
    for equation in program.equations:
        if equation in elsewhere:
            continue
        if all(x in known for x in equation.variables) and _liftable(equation, fixed_values):
            before.append(equation)
            known.update(equation.outputs)
        else:
            rest.append(equation)

    in_loop = {x.equation for x in program.next_carry}
    loop: list[Equation] = []
    after: list[Equation] = []
    for equation in reversed(rest):
        if equation in in_loop or not _liftable(equation, fixed_values):
            loop.append(equation)
            in_loop.update(x.equation for x in equation.variables)
        else:
            after.append(equation)

    read = [x for total in totals for x in _read_by(total, fixed_values)]
    stacks = list(dict.fromkeys([*program.stacked, *read]))
    return Partition(fixed, before, loop[::-1], after[::-1], totals, fixed_values, stacks)


def _liftable(equation: Equation, fixed: set[Var]) -> bool:
    return can_lift(equation.primitive, stacked_flags(equation, fixed), equation.params)


def stacked_flags(equation: Equation, fixed: set[Var]) -> list[bool]:
    """Which operands have a value for each step."""
    return [type(x) is Var and x not in fixed for x in equation.inputs]


def lift_all(equations: Iterable[Equation], values: dict[Var, Any], fixed: set[Var]) -> None:
    """Compute equations of a step for many steps at once, and add the results to `values`.

    values: of what the equations read, of all those steps, (T, …); of what is fixed, its own.
    """
    for equation in equations:
        operands = [values[x] if type(x) is Var else x for x in equation.inputs]
        ndims = [len(x.shape) if type(x) is Var else 0 for x in equation.inputs]
        flags = stacked_flags(equation, fixed)
        made = lift(equation.primitive, operands, flags, ndims, equation.params)
        several = made if type(made) is list else [made]
        values.update(zip(equation.outputs, several, strict=True))


def _uses(program: Program) -> dict[Var, int]:
    """How often each value is used, outputs included."""
    uses: dict[Var, int] = {}
    for x in [*program.outputs, *(x for e in program.equations for x in e.variables)]:
        uses[x] = uses.get(x, 0) + 1
    return uses


def _total(x: Var, fixed: set[Var], uses: dict[Var, int]) -> Total:
    """Push the sum inwards as far as it goes: into a product of matrices, if there is one."""
    equation = x.equation
    if x in fixed:
        return Total(x, "times T")
    if equation is None or uses[x] > 1 or equation.arity > 1:
        return Total(x, "steps")
    flags = stacked_flags(equation, fixed)
    if can_total(equation.primitive, flags):
        return Total(x, "at once")
    shapes = [getattr(y, "shape", ()) for y in (*equation.inputs, x)]
    places = sums_operand(equation.primitive, shapes, flags)
    if places and all(flags[place] for place in places):
        return Total(x, "of operands", {k: _total(equation.inputs[k], fixed, uses) for k in places})
    return Total(x, "steps")


def _made_inside(total: Total) -> list[Var]:
    """The values whose equations the total computes itself."""
    if total.how not in ("at once", "of operands"):
        return []
    return [total.value, *(x for part in total.parts.values() for x in _made_inside(part))]


def _read_by(total: Total, fixed: set[Var]) -> list[Var]:
    """The stacked values that a total reads."""
    if total.how == "steps":
        return [total.value]
    if total.how == "times T":
        return []
    equation = total.value.equation
    assert equation is not None
    found = []
    for place, x in enumerate(equation.inputs):
        if place in total.parts:
            found += _read_by(total.parts[place], fixed)
        elif type(x) is Var and x not in fixed:
            found.append(x)
    return found
