"""The layer that forgets at random while training, and does nothing in evaluation.

Read module.py before this file; the computation is `functional.dropout`.
"""

from __future__ import annotations

from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.tensor import Tensor


class Dropout(Module):
    """y = x · m / (1 - p), with m ~ Bernoulli(1 - p) drawn anew at each call; y = x after `eval()`.

    Any shape. Srivastava et al., "Dropout", 2014; scaled while training ("inverted"), so that
    evaluation needs no factor.

    Args:
        p: the probability of zeroing an element.
        inplace: whether the result is written into the input as well.

    >>> Dropout(0.2)
    Dropout(p=0.2, inplace=False)
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """The input with dropout applied in training mode."""
        return F.dropout(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        """The constructor arguments."""
        return f"p={self.p}, inplace={self.inplace}"
