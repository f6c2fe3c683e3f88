"""How far back in time does the gradient reach, and what stops it?

`gradient_flow` runs a model once, observed, and measures each of its recurrences: the gradient of
the loss with respect to the state at every t, the Jacobians of the steps, the gates. Read
`observe.py`, `jacobians.py` and `flow.py` first. What the numbers mean is in `verdicts.py`; how
they are shown, in `flow_text.py` and `flow_figure.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinygrad_rnn.backend import namespace, to_numpy
from tinygrad_rnn.diagnose.errors import DiagnosisError, checked_loss
from tinygrad_rnn.diagnose.flow import CLOSED, OPEN, Flow, Saturation, root_mean_square
from tinygrad_rnn.diagnose.flow_figure import figure
from tinygrad_rnn.diagnose.flow_text import text
from tinygrad_rnn.diagnose.jacobians import (
    Product,
    Spectrum,
    by_row,
    floating,
    jacobian,
    spectrum,
    stacked,
)
from tinygrad_rnn.diagnose.naming import Gate
from tinygrad_rnn.diagnose.observe import Observed, Step, observing
from tinygrad_rnn.diagnose.running import arguments
from tinygrad_rnn.diagnose.verdicts import Verdict, judge
from tinygrad_rnn.modes import enable_grad
from tinygrad_rnn.scan import trees
from tinygrad_rnn.tensor import Tensor, grad


class GradientFlow:
    """What `gradient_flow` found: printed, a table and verdicts; drawn, a figure.

    loss: its value.  recurrences: a `Flow` each, in the order in which they ran.
    verdicts: of each recurrence by its name, a list of `Verdict`, the worst first.
    """

    def __init__(self, loss: float, recurrences: list[Flow]) -> None:
        self.loss = loss
        self.recurrences = recurrences
        self.verdicts: dict[str, list[Verdict]] = {flow.name: judge(flow) for flow in recurrences}

    def __getitem__(self, name: str) -> Flow:
        """The recurrence of this name; KeyError, with the names there are, if there is none."""
        for flow in self.recurrences:
            if flow.name == name:
                return flow
        raise KeyError(f"no recurrence {name!r}; there are {', '.join(self.verdicts)}")

    def __iter__(self) -> Iterator[Flow]:
        return iter(self.recurrences)

    def __len__(self) -> int:
        return len(self.recurrences)

    def __str__(self) -> str:
        return text(self.loss, self.recurrences, self.verdicts)

    def draw(self) -> Any:
        """One matplotlib Figure, a row of panels for each recurrence; ImportError without it."""
        return figure(self.recurrences, self.verdicts)


def gradient_flow(
    model: Callable[..., Any], x: Any, loss: Callable[[Any], Tensor], *, rows: int = 1
) -> GradientFlow:
    """How the gradient of loss(model(x)) flows back through every recurrence in the model.

    Args:
        model: a Module, or any function, in which `nn.RNN`, `LSTM`, `GRU`, `scan` or `unroll` run.
        x: its input, or a tuple of its inputs.
        loss: of what the model returns; gives a Tensor with one value.
        rows: for how many rows of the batch, from the first on, the Jacobians are computed.

    The model runs once, as it would by itself: in the mode it is in, with the random numbers that
    come next. `.grad` of its parameters stays as it is. The recurrences run step by step.

    Cost: a state of N units (2H for an LSTM) takes, for each step and row, N walks back through the
    step and four decompositions of an (N, N) matrix, of N³ operations each. Measured on one core
    for LSTMs: 0.6 s for T = 100, B = 8, H = 32; 17 s for T = 64, B = 32, H = 256.

    Raises:
        DiagnosisError (a ValueError): no recurrence with a floating-point state ran, the loss is no
            Tensor or has more than one value, or `rows` is below 1.

    >>> import tinygrad_rnn as torch
    >>> _ = torch.manual_seed(0)
    >>> lstm = torch.nn.LSTM(3, 8)
    >>> flow = gradient_flow(lstm, torch.randn(50, 4, 3), lambda output: output[0][-1].sum())
    >>> flow["LSTM layer 0 forward"].gradients["c"].shape
    (51, 4)
    >>> [verdict.kind for verdict in flow.verdicts["LSTM layer 0 forward"]]
    ['vanishing']
    """
    if rows < 1:
        raise DiagnosisError(
            f"gradient_flow: rows is how many rows of the batch to look at, not {rows}"
        )
    with enable_grad():
        with observing(model) as observed:
            output = model(*arguments(x))
        value = checked_loss("gradient_flow", loss(output))
    recurrences = [one for one in observed if floating(one.start)]
    if not recurrences:
        raise DiagnosisError(
            "gradient_flow: no recurrence ran in the model. It sees nn.RNN, nn.LSTM, nn.GRU, scan "
            "and unroll; a loop over steps written in Python becomes unroll(cell, xs, h0)"
        )
    return GradientFlow(value.item(), [_measured(one, value, rows) for one in recurrences])


def _gradients(loss: Tensor, states: list[list[Tensor]]) -> list[list[Any]]:
    """dL/dx for every tensor x of every state, as arrays; zeros where the loss has no gradient."""
    asked = [x for state in states for x in state if x.requires_grad]
    found: dict[int, Any] = {}
    if loss.requires_grad and asked:
        gs = grad(loss, asked, retain_graph=True, allow_unused=True)
        found = {id(x): g.array for x, g in zip(asked, gs, strict=True) if g is not None}
    return [
        [found[id(x)] if id(x) in found else namespace(x.array).zeros_like(x.array) for x in state]
        for state in states
    ]


def _measured(observed: Observed, loss: Tensor, rows: int) -> Flow:
    """The numbers of one recurrence."""
    states = [floating(state) for state in observed.states]
    leaves = zip(observed.state_names, trees.leaves(observed.start), strict=True)
    names = [name for name, x in leaves if x.is_floating_point()]
    sizes = [by_row(x.array).shape[1] for x in states[0]]
    count = min(rows, max(len(by_row(x.array)) for x in states[0]))
    gradients = _gradients(loss, states)
    steps, blocks, products = _spectra(observed.steps, sizes, count)
    return Flow(
        observed.name,
        observed.reverse,
        dict(zip(names, sizes, strict=True)),
        np.array([all(np.isfinite(_numpy(x.array)).all() for x in state) for state in states]),
        {name: np.array([_norms(g[k]) for g in gradients]) for k, name in enumerate(names)},
        steps,
        dict(zip(names, blocks, strict=True)) if len(names) > 1 else {},
        products,
        _saturation([step.gates for step in observed.steps]),
    )


def _numpy(array: Any) -> Any:
    return to_numpy(array).astype(np.float64)


def _norms(g: Any) -> Any:
    """The norm over the units, for each batch row."""
    values = _numpy(by_row(g))
    return root_mean_square(values) * np.sqrt(values.shape[1])


def _spectra(
    steps: list[Step], sizes: list[int], count: int
) -> tuple[Spectrum, list[Spectrum], Spectrum]:
    """(of the steps, of their blocks, of the products), for the first `count` batch rows."""
    ends = np.cumsum(sizes)
    blocks = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    whole, parts, products = [], [], []
    for row in range(count):
        product = Product(int(ends[-1]))
        for step in reversed(steps):
            matrix = jacobian(step, row)
            whole.append(spectrum(matrix))
            parts.append(stacked(spectrum(matrix[block, block]) for block in blocks))
            products.append(product.times(matrix, whole[-1]))

    def ordered(spectra: list[Spectrum]) -> Spectrum:
        """(T, R, …), from lists over the steps from the last to the first, row behind row."""
        arrays = (x.reshape(count, len(steps), *x.shape[1:]) for x in stacked(spectra))
        return Spectrum(*(np.swapaxes(x[:, ::-1], 0, 1) for x in arrays))

    own = ordered(parts)  # (T, R, blocks)
    return (
        ordered(whole),
        [Spectrum(*(x[..., k] for x in own)) for k in range(len(blocks))],
        ordered(products),
    )


def _saturation(gates: list[dict[str, Gate]]) -> dict[str, Saturation]:
    """By gate, how much of it is saturated at each step. gates: of each step, by name."""
    kinds = {name: gate.kind for step in gates for name, gate in step.items()}
    found = {}
    for name, kind in kinds.items():
        shares = np.array([_shares(step.get(name)) for step in gates])
        found[name] = Saturation(kind, shares[:, 0], shares[:, 1])
    return found


def _shares(gate: Gate | None) -> tuple[float, float]:
    """How many values of a gate are at the low and at the high end of its range."""
    if gate is None or np.isnan(values := _numpy(gate.value.array)).any():
        return np.nan, np.nan
    low = CLOSED if gate.kind == "sigmoid" else -OPEN
    return float(np.mean(values < low)), float(np.mean(values > OPEN))
