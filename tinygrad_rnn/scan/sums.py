"""How is a sum over the steps computed, once all steps are there?

As partition.py says: inside a product of matrices where there is one. The gradient of a weight over
a sequence is then one product over all its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any

from tinygrad_rnn.ops.lifting import total as total_at_once
from tinygrad_rnn.program import Var
from tinygrad_rnn.scan.partition import Total, stacked_flags


def sum_of(
    total: Total,
    values: Callable[[Var], Any],
    fixed: AbstractSet[Var],
    length: int,
    known: Mapping[Var, Any] = MappingProxyType({}),
) -> Any:
    """The sum of a value over all steps.

    values: gives a variable's values at all steps, (T, …), or the value of a fixed one.
    known: sums that somebody has computed already.
    """
    x = total.value
    if x in known:
        return known[x]
    if total.how == "steps":
        return values(x).sum(axis=0)
    if total.how == "times T":
        return values(x) * length
    equation = x.equation
    assert equation is not None
    operands = [
        sum_of(total.parts[place], values, fixed, length, known)
        if place in total.parts
        else (values(y) if type(y) is Var else y)
        for place, y in enumerate(equation.inputs)
    ]
    if total.how == "of operands":
        return equation.primitive(*operands, **equation.params)
    flags = stacked_flags(equation, set(fixed))
    return total_at_once(equation.primitive, operands, flags, equation.params)
