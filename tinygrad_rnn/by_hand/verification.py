"""What does `verify` find, and how is it told? A row per array, a table, and a verdict.

The numbers come from `compare.py`; here they are judged and printed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# How far the graph's gradient may be from the one by hand, a complex step and differences, and the
# gradient by hand from a complex step; relative to the largest value of the array.
TOLERANCES = {"by_hand": 1e-9, "complex_step": 1e-9, "differences": 1e-6, "derivation": 1e-9}

GRAPH_IS_WRONG = (
    "The graph disagrees with differences of its own forward pass: look at the VJPs of its "
    "primitives."
)
DERIVATION_IS_WRONG = (
    "The derivation disagrees with a complex step through its own forward pass: look at its "
    "step_vjp."
)
EITHER_IS_WRONG = "Differences are too coarse to say whether the graph or the derivation is wrong."
FUNCTIONS_DIFFER = (
    "The two forward passes compute different functions: compare their equations first."
)


@dataclass(frozen=True)
class Row:
    """How far the witnesses are apart on one array: largest difference / largest value.

    by_hand, complex_step, differences: of the graph from each of the other three.
    derivation: of the gradient by hand from the complex step.
    where: the gate, time step or layer that differs most; "" if the array has one part only.
    Of an output only the values are compared: there, all but `by_hand` are 0.
    """

    name: str
    shape: tuple[int, ...]
    where: str
    by_hand: float
    complex_step: float = 0.0
    differences: float = 0.0
    derivation: float = 0.0

    @property
    def excess(self) -> float:
        """The largest difference in units of its tolerance; above 1, or NaN, the row fails."""
        return float(np.max([getattr(self, kind) / most for kind, most in TOLERANCES.items()]))

    @property
    def passed(self) -> bool:
        """Whether all differences are within their tolerances."""
        return self.excess <= 1


@dataclass(frozen=True)
class Verification:
    """What `verify` found. It prints as a table, and is true if all witnesses agree.

    layer: its repr. sampling: along which directions the slopes were measured.
    outputs: a row for the output and each final state, comparing values.
    gradients: a row for each parameter, the input and each initial state.
    """

    layer: str
    sampling: str
    outputs: tuple[Row, ...]
    gradients: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Whether every row is within 1e-9, and within 1e-6 of the differences."""
        return all(row.passed for row in (*self.outputs, *self.gradients))

    def __bool__(self) -> bool:
        return self.passed

    @property
    def verdict(self) -> str:
        """Agreement, or where the largest disagreements are and which of the witnesses is wrong."""
        outputs = [row for row in self.outputs if not row.passed]
        gradients = [row for row in self.gradients if not row.passed]
        if outputs:
            return f"FAIL: the outputs differ, most in {_worst(outputs)}. {FUNCTIONS_DIFFER}"
        if gradients:
            weights = [row for row in gradients if row.name.startswith(("weight", "bias"))]
            others = [row for row in gradients if row not in weights]  # the input and the states
            places = " and ".join(_worst(rows) for rows in (weights, others) if rows)
            return f"FAIL: the gradients differ, most in {places}. {_suspects(gradients)}"
        return "ok: all agree."

    def __str__(self) -> str:
        lines = [
            ["", "", "graph:", "graph:", "graph:", "by hand:", ""],
            ["", "", "by hand", "complex step", "differences", "complex step", "most in"],
        ]
        for row in self.outputs:
            lines.append([row.name, str(row.shape), f"{row.by_hand:.1e}", "", "", "", _place(row)])
        for row in self.gradients:
            slopes = (row.by_hand, row.complex_step, row.differences, row.derivation)
            numbers = (f"{slope:.1e}" for slope in slopes)
            lines.append([f"d {row.name}", str(row.shape), *numbers, _place(row)])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = [
            "  ".join(
                f"{text:{side}{width}}"
                for text, side, width in zip(line, "<<>>>><", widths, strict=True)
            ).rstrip()
            for line in lines
        ]
        return "\n".join([f"{self.layer}: float64, {self.sampling}", *table, self.verdict])


def _place(row: Row) -> str:
    return row.where if row.passed else f"{row.where} FAIL".strip()


def _worst(rows: list[Row]) -> str:
    """Name and part of the row that differs most."""
    row = max(rows, key=lambda row: (np.isnan(row.excess), row.excess))
    return f"{row.name} ({row.where})" if row.where else row.name


def _suspects(gradients: list[Row]) -> str:
    """Who contradicts the measurement of its own forward pass."""
    graph = any(not row.differences <= TOLERANCES["differences"] for row in gradients)
    derivation = any(not row.derivation <= TOLERANCES["derivation"] for row in gradients)
    if graph and derivation:
        return f"{GRAPH_IS_WRONG} {DERIVATION_IS_WRONG}"
    if graph:
        return GRAPH_IS_WRONG
    return DERIVATION_IS_WRONG if derivation else EITHER_IS_WRONG
