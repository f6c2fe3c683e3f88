"""How are parameters given their first values?

Each function fills a tensor in place and returns it. Random values are drawn on the host, from the
default generator unless another is given, so that the same seed gives the same model on every
device. For weights, fan_in is the number of inputs of one output and fan_out the number of outputs
of one input: sizes 1 and 0 of the weight, times the sizes of any further axes. Read random.py
first.
"""

from __future__ import annotations

import math

import numpy as np

from tinygrad_rnn import random
from tinygrad_rnn.modes import no_grad
from tinygrad_rnn.random import Generator
from tinygrad_rnn.tensor import Tensor

_GAINS = {
    "linear": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3,
    "relu": math.sqrt(2.0),
    "selu": 3.0 / 4,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor for the standard deviation of weights that feed a nonlinearity.

    1 for linear, conv1d to conv3d and sigmoid, 5/3 for tanh, √2 for relu, √(2 / (1 + slope²)) for
    leaky_relu with `param` as the slope (default 0.01), 3/4 for selu.
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"negative_slope {slope} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    name = "linear" if nonlinearity.startswith(("conv1d", "conv2d", "conv3d")) else nonlinearity
    if name not in _GAINS:
        raise ValueError(
            f"Unsupported nonlinearity {nonlinearity}: expected one of "
            f"{', '.join(_GAINS)}, leaky_relu, conv1d, conv2d, conv3d"
        )
    return _GAINS[name]


def uniform_(
    tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill with draws from U(a, b)."""
    with no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill with draws from N(mean, std²)."""
    with no_grad():
        return tensor.normal_(mean, std, generator=generator)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one value."""
    with no_grad():
        return tensor.fill_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with 1."""
    return constant_(tensor, 1.0)


def eye_(tensor: Tensor) -> Tensor:
    """Fill a matrix with the identity (ones on the diagonal of a rectangular one)."""
    if tensor.ndim != 2:
        raise ValueError(f"eye_: only tensors with 2 dimensions are supported, got {tensor.ndim}")
    with no_grad():
        return tensor.copy_(np.eye(tensor.shape[0], tensor.shape[1]))


def xavier_uniform_(
    tensor: Tensor, gain: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Fill with draws from U(-a, a), a = gain · √(6 / (fan_in + fan_out)).

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    2010: the variance of activations forward and of gradients backward stays as it is.
    """
    bound = math.sqrt(3.0) * _xavier_std(tensor, gain)
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Fill with draws from N(0, std²), std = gain · √(2 / (fan_in + fan_out)).

    Glorot and Bengio 2010; see `xavier_uniform_`.
    """
    return normal_(tensor, 0.0, _xavier_std(tensor, gain), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill with draws from U(-b, b), b = gain · √(3 / fan).

    He et al., "Delving Deep into Rectifiers", 2015. `mode="fan_in"` keeps the variance of
    activations, "fan_out" that of gradients; `a` is the slope of a leaky_relu.
    """
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Fill with draws from N(0, std²), std = gain / √fan; see `kaiming_uniform_`."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Generator | None = None) -> Tensor:
    """Fill with a random matrix whose rows (or columns, whichever are fewer) are orthonormal.

    Axes after the first are taken as one. Saxe, McClelland and Ganguli, "Exact solutions to the
    nonlinear dynamics of learning in deep linear neural networks", 2014: a recurrent weight
    so filled keeps the length of the state and of its gradient.
    """
    if tensor.ndim < 2:
        raise ValueError(
            f"orthogonal_: only tensors with 2 or more dimensions are supported, got {tensor.ndim}"
        )
    rows = tensor.shape[0]
    columns = math.prod(tensor.shape[1:])
    long, short = max(rows, columns), min(rows, columns)
    normal = (generator or random.generator()).normal((long, short), dtype=np.float64)
    q, r = np.linalg.qr(normal)
    q *= np.sign(np.diagonal(r))  # without the choice of signs, Q would not be uniform
    matrix = q if rows >= columns else q.T
    with no_grad():
        return tensor.copy_(gain * matrix.reshape(tensor.shape))


def _fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight."""
    if tensor.ndim < 2:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions, "
            f"got shape {tensor.shape}"
        )
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _xavier_std(tensor: Tensor, gain: float) -> float:
    fan_in, fan_out = _fans(tensor)
    return gain * math.sqrt(2.0 / (fan_in + fan_out))


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    fan_in, fan_out = _fans(tensor)
    fan = fan_in if mode == "fan_in" else fan_out
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if tensor.numel() else 0.0
