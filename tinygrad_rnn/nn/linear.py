"""The affine layer, and the layer that does nothing.

Read module.py before this file; the computation is `functional.linear`.
"""

from __future__ import annotations

import math
from typing import Any

from tinygrad_rnn import creation
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.nn import init
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.nn.parameter import Parameter
from tinygrad_rnn.tensor import Tensor


class Linear(Module):
    """y = x Wᵀ + b.

    Shapes: x: (..., in_features) -> (..., out_features); `weight`: (out_features, in_features),
    `bias`: (out_features,). Both start uniform in ±1/√in_features.

    >>> Linear(20, 30)
    Linear(in_features=20, out_features=30, bias=True)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(
            creation.empty(out_features, in_features, device=device, dtype=dtype)
        )
        if bias:
            self.bias = Parameter(creation.empty(out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew from U(-1/√in_features, 1/√in_features)."""
        bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0.0
        for param in self.parameters():
            init.uniform_(param, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """x Wᵀ + b for every vector along the last axis."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The constructor arguments."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Identity(Module):
    """y = x; takes and ignores any arguments, so that it can stand in for another layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """The input itself."""
        return input
