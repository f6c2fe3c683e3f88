"""What do activation functions compute?

Functions that only rename a method of Tensor are here because PyTorch has them here. With `inplace`
the result is also assigned to the input. Read tensor.py and ops/operators/ before this file; the
modules are in nn/activation.py.
"""

from __future__ import annotations

import math

from tinygrad_rnn import ops
from tinygrad_rnn.backend import DTypeLike
from tinygrad_rnn.tensor import Tensor


def tanh(input: Tensor) -> Tensor:
    """y = tanh x."""
    return input.tanh()


def sigmoid(input: Tensor) -> Tensor:
    """y = 1 / (1 + e⁻ˣ)."""
    return input.sigmoid()


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """y = max(x, 0); the derivative at 0 is taken as 0."""
    return result(input, input.relu(), inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """y = x where x > 0, else negative_slope · x."""
    return result(input, ops.where(input > 0, input, input * negative_slope), inplace)


def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """y = x limited to [min_val, max_val]. At the limits the derivative is 1 here, 0 in PyTorch."""
    return result(input, input.clamp(min_val, max_val), inplace)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """y = x · sigmoid(x), also called swish."""
    return result(input, input * input.sigmoid(), inplace)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """y = x Φ(x), Φ the distribution function of N(0, 1).

    Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016. `approximate="tanh"` is their formula
    ½x (1 + tanh(√(2/π) (x + 0.044715 x³))), within 1e-3 of it and much faster on the CPU.
    """
    if approximate == "none":
        return input * (0.5 + 0.5 * (input * math.sqrt(0.5)).erf())
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (input + 0.044715 * (input * input * input))
        return input * (0.5 + 0.5 * inner.tanh())
    raise RuntimeError(
        f"gelu: approximate argument must be either none or tanh, got {approximate!r}"
    )


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """y = log(1 + exp(beta · x)) / beta, and y = x where beta · x > threshold."""
    scaled = input if beta == 1 else input * beta
    smooth = scaled.softplus() if beta == 1 else scaled.softplus() / beta
    y: Tensor = ops.where(scaled > threshold, input, smooth)
    return y


def softmax(input: Tensor, dim: int, dtype: DTypeLike = None) -> Tensor:
    """y = exp(x) / Σ exp(x) along the axis `dim`; with `dtype`, computed in that dtype."""
    return _floating("softmax", input, dtype).softmax(dim)


def log_softmax(input: Tensor, dim: int, dtype: DTypeLike = None) -> Tensor:
    """y = x - log Σ exp(x) along the axis `dim`; with `dtype`, computed in that dtype."""
    return _floating("log_softmax", input, dtype).log_softmax(dim)


def _floating(name: str, input: Tensor, dtype: DTypeLike) -> Tensor:
    x = input if dtype is None else input.to(dtype=dtype)
    if x.dtype.kind != "f":
        raise RuntimeError(
            f"{name}: expected floating-point values, got {x.dtype}; pass dtype=float32 to convert"
        )
    return x


def result(input: Tensor, y: Tensor, inplace: bool) -> Tensor:
    """y itself, or `input` after y has been assigned to it."""
    if not inplace:
        return y
    input[...] = y
    return input
