"""How does NumPy's executor compute the sums over the steps?

As ../sums.py says, but for the products of matrices, of which most are: they are taken over `ROWS`
rows at a time, so that the copies in which features are contiguous stay small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.ops.broadcasting import sum_to
from tinygrad_rnn.ops.linear import contract
from tinygrad_rnn.program import Var
from tinygrad_rnn.scan.partition import Total
from tinygrad_rnn.scan.sums import sum_of

ROWS = 4096  # of a product: enough for a GEMM to be at its best


class Totals:
    """The sums of runs of one length, with the memory that they take."""

    def __init__(self, totals: Sequence[Total], fixed: set[Var], length: int) -> None:
        self.totals, self.fixed, self.length = totals, fixed, length
        self.products = [total for total in _within(totals) if _over_rows(total)]
        self.factors = {x: None for total in self.products for x in total.value.equation.inputs}  # type: ignore[union-attr]
        self._columns: dict[Var, Any] = {}

    def sums(self, values: Callable[[Var], Any]) -> list[Any]:
        """The sums; `values` gives a variable's values at all steps, (T, …), or a fixed value."""
        known = self._summed_products(values)
        return [sum_of(total, values, self.fixed, self.length, known) for total in self.totals]

    def _summed_products(self, values: Callable[[Var], Any]) -> dict[Var, Any]:
        """Σ aᵀ b and Σ b over all rows, a number of steps at a time."""
        found: dict[Var, Any] = {}
        if not self.products:
            return found
        stacks = {x: values(x) for x in self.factors}
        rows = max(math.prod(stack.shape[1:-1]) for stack in stacks.values())
        size = max(ROWS // max(rows, 1), 1)
        for start in range(0, max(self.length, 1), size):
            columns = {
                x: self._as_columns(x, stack[start : start + size], size)
                for x, stack in stacks.items()
            }
            for total in self.products:
                product = _product(*(columns[x] for x in total.value.equation.inputs))  # type: ignore[union-attr]
                known = found.get(total.value)
                found[total.value] = product if known is None else np.add(known, product, known)
        return found

    def _as_columns(self, x: Var, values: Any, size: int) -> Any:
        """The values as (features, rows); a copy for those stored with the batch innermost."""
        features = values.shape[-1]
        if values.flags.c_contiguous:
            return values.reshape(-1, features).T
        if x not in self._columns:
            steps = min(size, self.length)
            self._columns[x] = np.empty((features, steps, *values.shape[1:-1]), values.dtype)
        copied = self._columns[x][:, : len(values)]
        np.copyto(copied, np.moveaxis(values, -1, 0))
        return copied.reshape(features, -1)


def _within(totals: Sequence[Total]) -> Iterator[Total]:
    """The totals, and those inside them."""
    for total in totals:
        yield total
        yield from _within(list(total.parts.values()))


def _over_rows(total: Total) -> bool:
    """Whether a total is a product of matrices, or a sum of vectors, over all rows."""
    equation = total.value.equation
    if total.how != "at once" or equation is None:
        return False
    if equation.primitive is sum_to:
        return equation.params["shape"] == equation.inputs[0].shape[-1:]
    return equation.primitive is contract


def _product(a: Any, b: Any = None) -> Any:
    """a bᵀ for columns a (I, rows) and b (J, rows), the larger one on the left; Σ a without b."""
    if b is None:
        return a.sum(axis=1)
    return a @ b.T if len(a) > len(b) else (b @ a.T).T
