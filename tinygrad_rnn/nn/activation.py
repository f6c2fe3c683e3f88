"""The elementwise nonlinearities and the softmax, as layers for `Sequential`.

Each has no parameters and calls the function of the same name in functional/activation.py, which
says what it computes. Read module.py before this file.
"""

from __future__ import annotations

from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.tensor import Tensor


class Tanh(Module):
    """y = tanh(x)."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply tanh elementwise."""
        return F.tanh(input)


class Sigmoid(Module):
    """y = 1 / (1 + exp(-x))."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply the logistic function elementwise."""
        return F.sigmoid(input)


class ReLU(Module):
    """y = max(x, 0)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Zero the negative elements."""
        return F.relu(input, self.inplace)

    def extra_repr(self) -> str:
        """`inplace`, when set."""
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    """y = x where x > 0, else negative_slope · x."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Scale the negative elements by the slope."""
        return F.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        """The slope, and `inplace` when set."""
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class GELU(Module):
    """y = x Φ(x), Φ the normal distribution function; `approximate="tanh"` for the tanh formula."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """Apply the Gaussian error linear unit elementwise."""
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """The constructor argument."""
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """y = x · sigmoid(x)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Apply the sigmoid linear unit elementwise."""
        return F.silu(input, self.inplace)

    def extra_repr(self) -> str:
        """`inplace`, when set."""
        return "inplace=True" if self.inplace else ""


class Softplus(Module):
    """y = log(1 + exp(beta · x)) / beta; y = x where beta · x > threshold."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        """Apply the smooth ReLU elementwise."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """The constructor arguments."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Hardtanh(Module):
    """y = x limited to [min_val, max_val]."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        if not min_val < max_val:
            raise ValueError(
                f"Hardtanh: min_val must be below max_val, got {min_val} and {max_val}"
            )
        self.min_val = min_val
        self.max_val = max_val
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Limit the elements to the interval."""
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        """The constructor arguments."""
        inplace = ", inplace=True" if self.inplace else ""
        return f"min_val={self.min_val}, max_val={self.max_val}{inplace}"


class Softmax(Module):
    """y = exp(x) / Σ exp(x) along the axis `dim`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Turn scores into probabilities."""
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """The constructor argument."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """y = x - log Σ exp(x) along the axis `dim`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Turn scores into log-probabilities."""
        return F.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        """The constructor argument."""
        return f"dim={self.dim}"
