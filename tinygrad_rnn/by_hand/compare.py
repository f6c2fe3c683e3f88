"""Does the graph's gradient equal the one derived by hand? `verify` asks four witnesses.

The graph; the derivation of this folder; a complex step through the derivation's forward pass; and
differences of the graph's own forward pass. The last two know no calculus, so when the first two
disagree they say which of them is wrong. Read `witnesses.py`, `numerical.py` and `verification.py`
before this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from tinygrad_rnn import nn
from tinygrad_rnn.by_hand.cell import Array, Cell
from tinygrad_rnn.by_hand.gru import GRU
from tinygrad_rnn.by_hand.lstm import LSTM
from tinygrad_rnn.by_hand.numerical import STEP, central_difference, complex_step
from tinygrad_rnn.by_hand.rnn import RNN
from tinygrad_rnn.by_hand.verification import TOLERANCES, Row, Verification
from tinygrad_rnn.by_hand.witnesses import Derivation, Graph, Values, loss
from tinygrad_rnn.tensor import Tensor

EVERY_ELEMENT_UP_TO = 2000  # elements of all arrays; above, slopes along random directions
DIRECTIONS = 2  # per gate of a parameter, per input and per state

State: TypeAlias = Tensor | Array | Sequence[Tensor | Array]


def verify(
    layer: nn.Module,
    x: Tensor | Array,
    state: State | None = None,
    *,
    cell: Cell | None = None,
    directions: int | None = None,
    seed: int = 0,
    report: Callable[[str], object] = print,
) -> Verification:
    """Compare the layer's gradients with those by hand, by differences and by complex step.

    layer: an `nn.RNN`, `nn.LSTM` or `nn.GRU` with any options; or, with `cell`, any module that is
        called as they are and names its parameters as they do. What is compared is a copy, in
        float64 and in eval mode, so without dropout.
    x, state: as the layer takes them, in any dtype. A state of None is drawn at random (the layer
        itself would take zeros), because zero states hide errors.
    cell: the derivation to compare with; by default that of the layer's class.
    directions: measure slopes along so many random directions per gate of a parameter, per input
        and per state. By default every element is measured if there are at most 2,000 in all, else
        2 directions. Graph and derivation are always compared element by element.
    seed: of the states, the directions, and the loss: a random weighting of every output at every
        step and of the final states.
    report: is called with the table.

    Errors are relative to the largest value of their array; those of differences to at least 1e7
    times the rounding of the loss, because they cannot see a gradient that is smaller. Where
    differences disagree they are taken again with a step of 1e-7 for 1e-5: a step may have crossed
    the kink of a ReLU.
    Raises TypeError for a module without a derivation, ValueError for an x or states that are not
    of the form the layer takes.

    >>> result = verify(nn.GRU(3, 4), np.ones((5, 2, 3)), report=lambda table: None)
    >>> result.passed, max(row.by_hand for row in result.gradients) < 1e-12
    (True, True)
    """
    if len(x.shape) not in (2, 3):
        raise ValueError(f"verify: expected x of shape (T, B, D) or (T, D), got {tuple(x.shape)}")
    cell = cell or _cell_of(layer)
    rng = np.random.default_rng(seed)
    values = _values(layer, cell, x, state, rng)
    if directions is None and sum(a.size for a in values.values()) > EVERY_ELEMENT_UP_TO:
        directions = DIRECTIONS
    graph, derivation = Graph(layer, cell, unbatched=len(x.shape) == 2), Derivation(cell)
    comparison = _Comparison(graph, derivation, values, directions, rng)
    sampling = "every element" if directions is None else f"{directions} directions per gate"
    result = Verification(
        repr(layer), sampling, comparison.rows_of_outputs(), comparison.rows_of_gradients()
    )
    report(str(result))
    return result


class _Comparison:
    """The witnesses, asked about the same values."""

    def __init__(
        self,
        graph: Graph,
        derivation: Derivation,
        values: Values,
        directions: int | None,
        rng: np.random.Generator,
    ) -> None:
        self.graph, self.derivation = graph, derivation
        self.values, self.directions, self.rng = values, directions, rng
        self.found, self.expected = graph.forward(values), derivation.forward(values)
        self.weights: dict[str, Array] = {
            name: rng.standard_normal(tuple(y.shape)) for name, y in self.expected.items()
        }

    def rows_of_outputs(self) -> tuple[Row, ...]:
        """The values of the two forward passes."""
        return tuple(
            _row(name, y.shape, by_hand=(self._parts(name, y), _relative(self.found[name], y)))
            for name, y in self.expected.items()
        )

    def rows_of_gradients(self) -> tuple[Row, ...]:
        """The gradient by the graph and by hand, element by element, and measured slopes."""
        by_graph = self.graph.gradients(self.values, self.weights)
        by_hand = self.derivation.gradients(self.values, self.weights)
        return tuple(self._row_of(name, by_graph[name], by_hand[name]) for name in self.values)

    def _row_of(self, name: str, by_graph: Array, by_hand: Array) -> Row:
        a = self.values[name]
        parts = self._parts(name, a)
        at, probes = _probes(a.shape, parts, self.directions, self.rng)
        graph = np.array([np.vdot(by_graph, v) for v in probes])
        hand = np.array([np.vdot(by_hand, v) for v in probes])
        stepped = np.array([complex_step(self._loss(self.derivation, name), a, v) for v in probes])
        return _row(
            name,
            a.shape,
            by_hand=(parts, _relative(by_graph, by_hand)),
            complex_step=(at, _relative(graph, stepped)),
            differences=(at, self._differences(name, probes, graph)),
            derivation=(at, _relative(hand, stepped)),
        )

    def _differences(self, name: str, probes: list[Array], slopes: Array) -> Array:
        """How far the slopes are from differences along the probes."""
        f, a = self._loss(self.graph, name), self.values[name]
        terms = [(self.found[n] * weight).ravel() for n, weight in self.weights.items()]
        rounding = float(np.finfo(float).eps * np.linalg.norm(np.concatenate(terms)) / STEP)
        measured = np.array([central_difference(f, a, v) for v in probes])
        errors = _relative(slopes, measured, at_least=1e7 * rounding)
        for k in np.flatnonzero(errors > TOLERANCES["differences"]):
            measured[k] = central_difference(f, a, probes[k], step=STEP / 100)
        return np.minimum(errors, _relative(slopes, measured, at_least=1e7 * rounding))

    def _loss(self, witness: Graph | Derivation, name: str) -> Callable[[Array], Any]:
        """The loss as a function of one of the values."""
        return lambda a: loss(witness.forward({**self.values, name: a}), self.weights)

    def _parts(self, name: str, a: Array) -> list[str]:
        """For each index of the first axis, the gate, time step or layer that it belongs to."""
        gates = self.graph.cell.gates
        if name in ("x", "output"):
            return [f"t={t}" for t in range(len(a))]
        if name.startswith("weight_hr"):
            return [""] * len(a)
        if name.startswith(("weight", "bias")):
            return [f"gate {gate}" for gate in gates for _ in range(len(a) // len(gates))]
        directions = ["", "_reverse"] if "weight_hh_l0_reverse" in self.values else [""]
        return [f"l{k // len(directions)}{directions[k % len(directions)]}" for k in range(len(a))]


def _probes(
    shape: tuple[int, ...], parts: list[str], directions: int | None, rng: np.random.Generator
) -> tuple[list[str], list[Array]]:
    """Directions to measure slopes along, and before them the part that each lies in.

    Every element, or random directions of length 1 within each gate (or, for input and states,
    through the whole array).
    """
    if directions is None:
        size = int(np.prod(shape))
        row = size // shape[0]
        return [parts[k // row] for k in range(size)], [*np.eye(size).reshape(size, *shape)]
    if not parts[0].startswith("gate"):
        parts = [""] * len(parts)
    at = [part for part in dict.fromkeys(parts) for _ in range(directions)]
    probes = []
    for part in at:
        v = rng.normal(size=shape)
        v[[other != part for other in parts]] = 0
        probes.append(v / np.linalg.norm(v))
    return at, probes


def _relative(u: Array, v: Array, at_least: float = 0.0) -> Array:
    """|u - v| relative to the largest element of the two; 0 where all are 0."""
    scale = max(float(np.abs(u).max()), float(np.abs(v).max()), at_least)
    return np.asarray(np.abs(u - v) / (scale or 1.0))


def _row(name: str, shape: tuple[int, ...], **errors: tuple[list[str], Array]) -> Row:
    """A row from arrays of errors, with the part that each index of their first axes lies in."""
    candidates = []
    for kind, (parts, error) in errors.items():
        excess = np.nan_to_num(error, nan=np.inf).reshape(len(parts), -1).max(axis=1)
        excess /= TOLERANCES[kind]
        part, most = parts[int(excess.argmax())], excess.max()
        candidates.append((most > 1 and part != "", most, part))  # a failure with a name wins
    *_, where = max(candidates)
    worst_of = {kind: float(error.max()) for kind, (_, error) in errors.items()}
    return Row(name, shape, where, **worst_of)


def _cell_of(layer: nn.Module) -> Cell:
    """The derivation for a layer of `nn`."""
    if isinstance(layer, nn.LSTM):
        return LSTM()
    if isinstance(layer, nn.GRU):
        return GRU()
    if isinstance(layer, nn.RNN):
        return RNN(layer.nonlinearity)
    raise TypeError(
        f"verify: no derivation for {type(layer).__name__}, only for nn.RNN, nn.LSTM and nn.GRU; "
        "pass cell=..., an object with the methods of by_hand.cell.Cell"
    )


def _values(
    layer: nn.Module, cell: Cell, x: Tensor | Array, state: State | None, rng: np.random.Generator
) -> dict[str, Array]:
    """Parameters, x and initial states by name, in float64 on the host, x as (T, B, D)."""
    values = {name: _float64(p) for name, p in layer.named_parameters()}
    recurrent = [w for name, w in values.items() if name.startswith("weight_hh")]
    if not recurrent:
        raise ValueError(f"verify: {type(layer).__name__} has no parameter named weight_hh_l0")
    widths = {"h": recurrent[0].shape[1], "c": len(recurrent[0]) // len(cell.gates)}
    names = [f"{name}_0" for name in cell.states]
    unbatched = len(x.shape) == 2
    values["x"] = _float64(x)
    if unbatched:
        values["x"] = values["x"][:, None]
    elif getattr(layer, "batch_first", False):
        values["x"] = values["x"].swapaxes(0, 1)
    if state is None:
        rows, batch = len(recurrent), values["x"].shape[1]
        states = [rng.normal(size=(rows, batch, widths[name])) for name in cell.states]
    else:
        given = [state] if isinstance(state, Tensor | np.ndarray) else state
        states = [_float64(s)[:, None] if unbatched else _float64(s) for s in given]
        if len(states) != len(names):
            raise ValueError(f"verify: expected the states {names}, got {len(states)} of them")
    return {**values, **dict(zip(names, states, strict=True))}


def _float64(a: Tensor | Array) -> Array:
    return np.array(a.detach().numpy() if isinstance(a, Tensor) else a, dtype=np.float64)
