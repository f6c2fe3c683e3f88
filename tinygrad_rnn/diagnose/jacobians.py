"""How much does a step of a recurrence stretch and shrink what passes through it?

The Jacobian of a step, ds_t/ds_{t-1}, is computed by the chain rule over the step's own part of the
graph, once for each unit of the state. Its singular values say by how much a gradient grows or
shrinks at this step, those of a product of Jacobians what is left of it after many. A product of
1,000 matrices fits no float, so everything here is a natural logarithm. What the numbers mean for
training is in `verdicts.py`; read `observe.py` and `autodiff.py` before this file.

The analysis is that of Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural
networks", 2013 (arXiv 1211.5063), section 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn.autodiff import Edge, backpropagate, paths, source
from tinygrad_rnn.backend import namespace, to_numpy
from tinygrad_rnn.diagnose.observe import Step
from tinygrad_rnn.graph import Node
from tinygrad_rnn.modes import no_grad
from tinygrad_rnn.scan import trees
from tinygrad_rnn.scan.trees import Tree
from tinygrad_rnn.tensor import Tensor, wrap


def floating(state: Tree) -> list[Tensor]:
    """The tensors of a state that can have a gradient."""
    return [x for x in trees.leaves(state) if x.is_floating_point()]


def by_row(x: Any) -> Any:
    """An array as (B, N), the values of each batch row: the first of two or more axes is B."""
    return x.reshape(x.shape[0] if x.ndim > 1 else 1, -1)


def jacobian(step: Step, row: int) -> Any:
    """ds_t/ds_{t-1} for the state s of one batch row: a NumPy array (N, N), float64.

    s holds the N values of all floating tensors of the state, one behind the other: h and c of an
    LSTM. If rows depend on each other, as with a norm over the batch, what the others add is left
    out. NaN if the step was not recorded. Costs N walks through the step's part of the graph, each
    over the whole batch.
    """
    before, after = floating(step.before), floating(step.after)
    size = sum(by_row(x.array).shape[1] for x in before)
    if not any(x.requires_grad for x in before):
        return np.full((size, size), np.nan)
    visits = _visits(before, after)
    found = []
    for y in after:
        xp = namespace(y.array)
        for unit in range(by_row(y.array).shape[1]):
            g = xp.zeros(y.shape, y.dtype)
            values = by_row(g)
            values[min(row, len(values) - 1), unit] = 1
            # A Tensor, though nothing is recorded: with arrays, gradients of matrices come later.
            cotangents: dict[Edge, Any] = {_edge(y): wrap(g, None)}
            with no_grad(), np.errstate(all="ignore"):
                backpropagate(visits, cotangents, lambda _edge, earlier, g: earlier + g)
            found.append(np.concatenate([_row(cotangents.get(_edge(x)), x, row) for x in before]))
    return np.array(found)


def _row(g: Tensor | None, x: Tensor, row: int) -> Any:
    """What belongs to a batch row in the cotangent of x; zeros if there is none."""
    values = by_row(x.array if g is None else g.array)[min(row, len(by_row(x.array)) - 1)]
    return np.zeros(values.shape) if g is None else to_numpy(values).astype(np.float64)


def _edge(x: Tensor) -> Edge:
    return x if x._edge is None else x._edge


def _visits(before: Sequence[Tensor], after: Sequence[Tensor]) -> list[Any]:
    """The nodes on a path from one state to the next, the newest first, as `backpropagate` wants.

    What is older than the state before does not lead to it.
    """
    oldest = max((source(x._edge).order for x in before if x._edge is not None), default=0)
    found: set[Node] = set()
    ahead = [source(x._edge) for x in after if x._edge is not None]
    while ahead:
        node = ahead.pop()
        if type(node) is Node and node.order > oldest and node not in found:
            found.add(node)
            ahead += [source(edge) for edge in node.edges if edge is not None]
    nodes = sorted(found, key=lambda node: -node.order)
    leading = paths(nodes, {_edge(x) for x in before})
    return [(node, leading[node], node.outputs, node.inputs) for node in nodes if node in leading]


class Spectrum(NamedTuple):
    """Natural logarithms of singular values; -inf stands for 0, NaN where a matrix is not finite.

    largest, smallest: one of them. geometric_mean: of all N, which is log|det| / N.
    """

    largest: Any
    smallest: Any
    geometric_mean: Any


def spectrum(matrix: Any) -> Spectrum:
    """Of one square matrix (N, N). Values below its rounding, eps times the largest, are noise."""
    if not np.isfinite(matrix).all():
        return Spectrum(np.nan, np.nan, np.nan)
    with np.errstate(divide="ignore"):
        logs = np.log(np.linalg.svd(matrix, compute_uv=False))
    return Spectrum(logs[0], logs[-1], logs.mean())


def stacked(spectra: Iterable[Spectrum]) -> Spectrum:
    """Several spectra as one, along a new first axis."""
    return Spectrum(*map(np.array, zip(*spectra, strict=True)))


class Product:
    """M_1 M_2 … M_k of square matrices (N, N), for any k: nothing over- or underflows.

    The product and its inverse are kept without their scales, whose logarithms are added up.
    """

    def __init__(self, size: int) -> None:
        self._product, self._inverse = np.eye(size), np.eye(size)
        self._log_product = self._log_inverse = self._log_mean = 0.0

    def times(self, matrix: Any, own: Spectrum) -> Spectrum:
        """Multiply by one more matrix, whose spectrum is `own`; the spectrum of the product."""
        self._product, log = _rescaled(self._product @ matrix)
        self._log_product += log
        self._inverse, log = _rescaled(_solved(matrix, self._inverse))
        self._log_inverse += log
        self._log_mean += own.geometric_mean
        return Spectrum(
            self._log_product + _log_norm(self._product),
            -self._log_inverse - _log_norm(self._inverse),
            self._log_mean,
        )


def _solved(matrix: Any, inverse: Any) -> Any:
    """matrix⁻¹ inverse; infinite once a matrix was singular."""
    if np.isinf(inverse).any():
        return inverse
    try:
        return np.linalg.solve(matrix, inverse)
    except np.linalg.LinAlgError:
        return np.full_like(inverse, np.inf)


def _rescaled(matrix: Any) -> tuple[Any, float]:
    """The matrix with 1 as its largest entry, and the logarithm of what it was divided by."""
    scale = np.abs(matrix).max()
    if scale == 0 or not np.isfinite(scale):
        return matrix, 0.0
    return matrix / scale, float(np.log(scale))


def _log_norm(matrix: Any) -> float:
    """log of the largest singular value; of a matrix that is not finite, its largest entry."""
    if not np.isfinite(matrix).all():
        return float(np.abs(matrix).max())
    with np.errstate(divide="ignore"):  # half the time of an SVD, and as exact for the largest
        return float(np.log(max(0.0, np.linalg.eigvalsh(matrix.T @ matrix)[-1])) / 2)
