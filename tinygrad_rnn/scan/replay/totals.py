"""How is a sum over the steps computed, once all steps are there?

As partition.py says: inside a product of matrices where there is one. The products of a weight over
a sequence are then one matrix product over all its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_rnn.ops.lifting import total as total_at_once
from tinygrad_rnn.ops.linear import contract
from tinygrad_rnn.program import Var
from tinygrad_rnn.scan.partition import Total, stacked_flags


class Totals:
    """The sums of one run.

    values: gives the values of a variable at all steps, (T, …), or a fixed one's value.
    """

    def __init__(self, fixed: set[Var], length: int, values: Callable[[Var], Any]) -> None:
        self.fixed, self.length, self.values = fixed, length, values
        self._columns: dict[Var, Any] = {}

    def sum(self, total: Total) -> Any:
        """The sum over the steps of one value."""
        if total.how == "steps":
            return self.values(total.value).sum(axis=0)
        if total.how == "times T":
            return self.values(total.value) * self.length
        equation = total.value.equation
        assert equation is not None
        if total.how == "at once" and equation.primitive is contract:
            return self._contract(*equation.inputs)
        operands = [
            self.sum(total.parts[place])
            if place in total.parts
            else (self.values(x) if type(x) is Var else x)
            for place, x in enumerate(equation.inputs)
        ]
        if total.how == "of operands":
            return equation.primitive(*operands, **equation.params)
        flags = stacked_flags(equation, self.fixed)
        return total_at_once(equation.primitive, operands, flags, equation.params)

    def _contract(self, a: Var, b: Var) -> Any:
        """Σ aᵀ b over all rows of all steps."""
        return self._as_columns(a) @ self._as_columns(b).T

    def _as_columns(self, x: Var) -> Any:
        """The values as (features, rows); a copy for those stored with the batch innermost."""
        if x not in self._columns:
            values = self.values(x)
            if values.flags.c_contiguous:
                self._columns[x] = values.reshape(-1, values.shape[-1]).T
            else:
                turned = np.moveaxis(values, -1, 0)
                self._columns[x] = np.ascontiguousarray(turned).reshape(values.shape[-1], -1)
        return self._columns[x]
