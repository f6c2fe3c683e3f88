"""The table of vectors that turns symbols into numbers a network can work with.

Read module.py before this file; the computation is `functional.embedding`.
"""

from __future__ import annotations

from typing import Any

from tinygrad_rnn import creation
from tinygrad_rnn.modes import no_grad
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.nn import init
from tinygrad_rnn.nn.functional.layers import padding_row
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.nn.parameter import Parameter
from tinygrad_rnn.tensor import Tensor


class Embedding(Module):
    """y = weight[index]: row number `index` of a learnt table.

    An index that the table does not have is an IndexError; on a GPU, a row of NaN.

    Shapes: index: (...) integers -> (..., embedding_dim); `weight`, drawn from N(0, 1):
    (num_embeddings, embedding_dim).

    Args:
        num_embeddings: number of symbols; indices run from 0 to num_embeddings - 1.
        embedding_dim: size of each vector.
        padding_idx: a symbol whose vector starts at zero and gets no gradient; negative values
            count from the end.

    >>> Embedding(10, 3, padding_idx=0)
    Embedding(10, 3, padding_idx=0)
    """

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        device: Any = None,
        dtype: Any = None,
        _weight: Parameter | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_row(padding_idx, num_embeddings)
        if _weight is not None:
            self.weight = _weight
        else:
            self.weight = Parameter(
                creation.empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
            )
            self.reset_parameters()

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None
    ) -> Embedding:
        """A layer whose weight shares the array of `embeddings`; frozen unless `freeze=False`."""
        if embeddings.ndim != 2:
            raise ValueError(
                "Embedding.from_pretrained: expected a table of shape (num_embeddings, "
                f"embedding_dim), got shape {embeddings.shape}"
            )
        rows, columns = embeddings.shape
        weight = Parameter(embeddings, requires_grad=not freeze)
        return cls(rows, columns, padding_idx, _weight=weight)

    def reset_parameters(self) -> None:
        """Draw the table anew from N(0, 1), with zeros for `padding_idx`."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx].zero_()

    def forward(self, input: Tensor) -> Tensor:
        """The vectors of the given indices."""
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """The constructor arguments."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
