"""Where in a sequence should a decoder look?

A query is compared with a key for each position; the softmax of the scores are weights, and the sum
of the values so weighted is the context. `Attention.forward` is that, once; the classes below say
how a query and a key are compared. All of it works inside the step of a `scan`, where keys and mask
come from outside and are the same at all steps. Read module.py before this file.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn import creation
from tinygrad_rnn.nn import init
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.nn.parameter import Parameter
from tinygrad_rnn.ops.operators import Operators
from tinygrad_rnn.ops.primitive import describe
from tinygrad_rnn.tensor import Tensor


class Projected(NamedTuple):
    """Keys (B, S, K), and what an attention computes of them alone, whatever the query."""

    keys: Tensor
    projection: Tensor


class Attention(Module):
    """context = Σ_s a_s value_s with a = softmax(e) and e_s = score(query, key_s).

    A subclass says what `score` is. Called as `attention(query, keys, values=None, mask=None)`.

    Args:
        query: (B, Q), or (B, T, Q) for T queries to the same keys.
        keys: (B, S, K), or what `project(keys)` gave: worth it where one source sequence is asked
            many times, outside of a `scan` (which computes it once by itself).
        values: (B, S, V); the keys themselves unless given. At masked positions, too, they must be
            finite, for 0 · ∞ is NaN.
        mask: (B, S), True where a position may be attended to; all may unless given. A row without
            any such position gets weights and a context of zeros, and no gradient.

    Returns:
        (context, weights): (B, V) and (B, S), or (B, T, V) and (B, T, S). Weights sum to one.

    Raises:
        TypeError: something that is not a Tensor.
        RuntimeError: sizes that do not fit, or a mask that is not of dtype bool.

    >>> import tinygrad_rnn as torch
    >>> attention = DotProductAttention()
    >>> keys = torch.tensor([[[0.0, 1.0], [9.0, 0.0], [0.0, 1.0]]])
    >>> mask = torch.arange(3) < torch.tensor([2]).unsqueeze(1)  # from lengths
    >>> context, weights = attention(torch.tensor([[0.0, 0.0]]), keys, mask=mask)
    >>> weights.tolist(), context.tolist()
    ([[0.5, 0.5, 0.0]], [[4.5, 0.5]])
    """

    #: The numbers Q and K of features that queries and keys must have; None for any.
    query_size: int | None = None
    key_size: int | None = None

    def project(self, keys: Tensor) -> Projected:
        """The keys and what is computed of them alone, to be given in place of the keys."""
        raise NotImplementedError

    def score(self, queries: Tensor, projection: Tensor) -> Tensor:
        """e of every query and key: (B, T, Q) and the projection of (B, S, K) to (B, T, S)."""
        raise NotImplementedError

    def forward(
        self,
        query: Tensor,
        keys: Tensor | Projected,
        values: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(context, weights)."""
        keys, projection = keys if isinstance(keys, Projected) else self.project(keys)
        if values is None:
            values = keys
        self._check("query", query, (2, 3), "(B, Q) or (B, T, Q)", self.query_size)
        self._check_sizes(query, keys, values, mask)
        queries = query.unsqueeze(1) if query.ndim == 2 else query
        weights = _masked_softmax(self.score(queries, projection), mask)  # (B, T, S)
        context = weights @ values  # (B, T, V)
        if query.ndim == 2:
            return context.squeeze(1), weights.squeeze(1)
        return context, weights

    # The checks, before anything is computed.

    def _check(
        self, what: str, x: Any, axes: tuple[int, ...], shape: str, size: int | None = None
    ) -> None:
        """Raise if x is not a Tensor with so many axes, the last of which has this size."""
        name = type(self).__name__
        if not isinstance(x, Operators):
            raise TypeError(f"{name}: {what} must be a Tensor, got {type(x).__name__}")
        if x.ndim not in axes:
            raise RuntimeError(f"{name}: expected {what} of shape {shape}, got {describe(x)}")
        if size is not None and x.shape[-1] != size:
            raise RuntimeError(
                f"{name}: expected {what} of shape {shape} with a last axis of {size}, as the "
                f"constructor was told, got {describe(x)}"
            )

    def _check_sizes(self, query: Any, keys: Any, values: Any, mask: Any) -> None:
        """Raise if the arguments do not agree on B and S."""
        name = type(self).__name__
        self._check("values", values, (3,), "(B, S, V)")
        batch, positions = keys.shape[:2]
        if query.shape[0] != batch:
            raise RuntimeError(
                f"{name}: query {describe(query)} and keys {describe(keys)} differ in their first "
                "axis, the batch; sequences that lie (T, B, ...) want .transpose(0, 1)"
            )
        if values.shape[:2] != (batch, positions):
            raise RuntimeError(
                f"{name}: values {describe(values)} and keys {describe(keys)} must agree in their "
                "first two axes: one value for each key"
            )
        if mask is None:
            return
        self._check("mask", mask, (2,), "(B, S)")
        if mask.dtype != np.bool_:
            raise RuntimeError(
                f"{name}: the mask must be bool, True where a position may be attended to, got "
                f"{describe(mask)}; compare, as in mask != 0"
            )
        if mask.shape != (batch, positions):
            raise RuntimeError(
                f"{name}: the mask {describe(mask)} must have one value for each of the keys "
                f"{describe(keys)}: {(batch, positions)}"
            )


def _masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """The softmax over the positions that the mask allows, (B, T, S) by (B, S); else zeros.

    Filled with -∞, a row without any such position would be NaN, and so would its gradient.
    """
    if mask is None:
        return scores.softmax(-1)
    barred = ~mask.unsqueeze(1)  # (B, 1, S)
    lowest = float(np.finfo(scores.dtype).min)
    return scores.masked_fill(barred, lowest).softmax(-1).masked_fill(barred, 0)


class AdditiveAttention(Attention):
    """e = vᵀ tanh(W q + U k): a small network compares the query with each key.

    Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align and
    translate", 2014 (arXiv 1409.0473), appendix A.1.2, without biases as there. The first weights
    are those of a linear layer, U(±1/√inputs); the paper draws smaller ones, and zeros for v.
    How it is called: `Attention`.

    Args:
        query_size, key_size: the numbers Q and K of features of queries and keys.
        hidden_size: the number H of units that compare them.
        device, dtype: where the weights live and what they are.

    Weights: W (H, Q), U (H, K), v (H,).

    >>> import tinygrad_rnn as torch
    >>> attention = AdditiveAttention(query_size=5, key_size=4, hidden_size=8)
    >>> states = torch.randn(2, 7, 4)  # of an encoder: (B, S, K)
    >>> memory = attention.project(states)  # U k, once
    >>> for query in torch.randn(3, 2, 5):
    ...     context, weights = attention(query, memory)
    >>> context.shape, weights.shape
    ((2, 4), (2, 7))
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        hidden_size: int,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.query_size = query_size
        self.key_size = key_size
        self.hidden_size = hidden_size
        self.W = Parameter(creation.empty(hidden_size, query_size, device=device, dtype=dtype))
        self.U = Parameter(creation.empty(hidden_size, key_size, device=device, dtype=dtype))
        self.v = Parameter(creation.empty(hidden_size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every weight anew from U(±1/√inputs)."""
        for weight in self.parameters():
            bound = 1 / math.sqrt(weight.shape[-1])
            init.uniform_(weight, -bound, bound)

    def project(self, keys: Tensor) -> Projected:
        """U k: (B, S, K) to (B, S, H)."""
        self._check("keys", keys, (3,), "(B, S, K)", self.key_size)
        return Projected(keys, keys @ self.U.T)

    def score(self, queries: Tensor, projection: Tensor) -> Tensor:
        """vᵀ tanh(W q + U k)."""
        asked = (queries @ self.W.T).unsqueeze(2)  # (B, T, 1, H)
        return (asked + projection.unsqueeze(1)).tanh() @ self.v

    def extra_repr(self) -> str:
        """The constructor arguments."""
        return f"{self.query_size}, {self.key_size}, {self.hidden_size}"


class DotProductAttention(Attention):
    """e = qᵀ k, or qᵀ k / √Q: the score is large where query and key point the same way.

    "dot" of Luong, Pham and Manning, "Effective approaches to attention-based neural machine
    translation", 2015 (arXiv 1508.04025), section 3.1; scaled as in Vaswani et al., "Attention is
    all you need", 2017 (arXiv 1706.03762), equation 1. How it is called: `Attention`.

    Args:
        scale: whether to divide by √Q, which keeps the scores of long vectors in the range where
            the softmax has a gradient.

    It has no weights, so queries and keys must have one size; else see `GeneralAttention`.

    >>> DotProductAttention(scale=True)
    DotProductAttention(scale=True)
    """

    def __init__(self, scale: bool = False) -> None:
        super().__init__()
        self.scale = scale

    def project(self, keys: Tensor) -> Projected:
        """The keys as they are: (B, S, Q)."""
        self._check("keys", keys, (3,), "(B, S, K)", self.key_size)
        return Projected(keys, keys)

    def score(self, queries: Tensor, projection: Tensor) -> Tensor:
        """qᵀ k, for all queries and keys one matrix product."""
        size = queries.shape[-1]
        if size != projection.shape[-1]:
            raise RuntimeError(
                f"{type(self).__name__}: queries of {size} features and keys of "
                f"{projection.shape[-1]} have no product; GeneralAttention({size}, "
                f"{projection.shape[-1]}) learns a matrix between them"
            )
        scores = queries @ projection.mT
        return scores * (1 / math.sqrt(size)) if self.scale else scores

    def extra_repr(self) -> str:
        """The constructor arguments that are not the defaults."""
        return "scale=True" if self.scale else ""


class GeneralAttention(DotProductAttention):
    """e = qᵀ W k, or qᵀ W k / √Q: a dot product with a learnt matrix in it.

    "general" of Luong, Pham and Manning, 2015 (arXiv 1508.04025), section 3.1. The matrix is drawn
    from U(-1/√K, 1/√K). How it is called: `Attention`.

    Args:
        query_size, key_size: the numbers Q and K of features of queries and keys.
        scale: whether to divide by √Q.
        device, dtype: where the matrix lives and what it is.

    Weights: W (Q, K).

    >>> GeneralAttention(5, 4)
    GeneralAttention(5, 4)
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        scale: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(scale)
        self.query_size = query_size
        self.key_size = key_size
        self.W = Parameter(creation.empty(query_size, key_size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrix anew from U(-1/√K, 1/√K)."""
        bound = 1 / math.sqrt(self.W.shape[-1])
        init.uniform_(self.W, -bound, bound)

    def project(self, keys: Tensor) -> Projected:
        """W k: (B, S, K) to (B, S, Q)."""
        self._check("keys", keys, (3,), "(B, S, K)", self.key_size)
        return Projected(keys, keys @ self.W.T)

    def extra_repr(self) -> str:
        """The constructor arguments that are not the defaults."""
        return f"{self.query_size}, {self.key_size}" + (", scale=True" if self.scale else "")
