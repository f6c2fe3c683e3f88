"""What is known about a recurrence after `gradient_flow` has looked at it?

The arrays and their shapes; nothing is measured or judged here. Arrays are NumPy's, of float64: T
steps, B batch rows, R of which had the Jacobians of their steps computed. What has an entry for
each step or state is in the order in which the recurrence ran, so in the reverse direction t = T
comes first. `gradient_flow.py` fills this in; read it beside this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn.diagnose.jacobians import Spectrum

#: Where a gate counts as closed and as open, and a tanh as saturated: beyond -OPEN and OPEN. There
#: a sigmoid has at most 1/5 of its largest slope, and a tanh 1/10.
CLOSED, OPEN = 0.05, 0.95


class Saturation(NamedTuple):
    """How many values of a gate are at an end of its range: shares from 0 to 1, (T,) each.

    kind: "sigmoid", where low is below 0.05 and high above 0.95; or "tanh", where low is below
    -0.95. NaN for a step that does not have the gate.
    """

    kind: str
    low: Any
    high: Any


@dataclass(frozen=True, eq=False)
class Flow:
    """One recurrence: the gradients of its states, the Jacobians of its steps, its gates.

    name: such as "encoder layer 0 forward". reverse: whether it ran from t = T to 1.
    sizes: how many units each state has, by name; N is the sum. An LSTM has "h" and "c".
    finite: (T + 1,), whether all values of a state are finite numbers.
    gradients: by state, (T + 1, B): the norm over the units of dL/ds_t, for each batch row, from
        the initial state on. It is the total derivative, through all that is computed from the
        value: the output y_t, all later steps and, of an LSTM's c_t, also its h_t.
    steps: singular values of ds_t/ds_{t-1}, where s is the whole state: (T, R).
    blocks: by state, those of ds_t/ds_{t-1} where s is this one; {} if there is only one.
    products: those of the product of the Jacobians of step t and of all that ran after it, by which
        a gradient at the end is multiplied on its way back to the state before step t: (T, R).
    saturation: by gate.
    """

    name: str
    reverse: bool
    sizes: dict[str, int]
    finite: Any
    gradients: dict[str, Any]
    steps: Spectrum
    blocks: dict[str, Spectrum]
    products: Spectrum
    saturation: dict[str, Saturation]

    @property
    def length(self) -> int:
        """T."""
        return len(self.steps.largest)

    @property
    def step_times(self) -> Any:
        """(T,): the t of each step: 1 … T, or T … 1."""
        times = np.arange(1, self.length + 1)
        return times[::-1] if self.reverse else times

    @property
    def state_times(self) -> Any:
        """(T + 1,): the t of the step that made each state; 0 for the initial one, or T + 1."""
        return np.concatenate([[self.length + 1 if self.reverse else 0], self.step_times])

    def norms(self, state: str) -> Any:
        """(T + 1,): the norm of dL/ds_t, as its root mean square over the batch."""
        return root_mean_square(self.gradients[state])


def root_mean_square(values: Any) -> Any:
    """Over the last axis, of numbers however small or large: their squares may not be floats."""
    scale = np.abs(values).max(axis=-1, keepdims=True)
    scale[(scale == 0) | ~np.isfinite(scale)] = 1
    with np.errstate(over="ignore"):
        return scale[..., 0] * np.sqrt(np.square(values / scale).mean(axis=-1))


def mean(shares: Any) -> float:
    """Over the steps that have the gate; NaN if none has it."""
    known = shares[~np.isnan(shares)]
    return float(known.mean()) if known.size else np.nan


def decimal(log: float) -> str:
    """e^log with two digits, however large or small.

    >>> decimal(np.log(0.25)), decimal(-2000.0), decimal(-np.inf)
    ('0.25', '2.6e-869', '0')
    """
    if not np.isfinite(log):
        return "0" if log < 0 else f"{log}"
    exponent, digits = divmod(log / np.log(10), 1)
    if -3 <= exponent < 4:
        return f"{float(f'{np.exp(log):.2g}'):g}"  # 300, and not 3e+02
    return f"{10**digits:.1f}e{int(exponent):+03d}"
