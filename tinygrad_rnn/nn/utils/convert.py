"""All parameters of a model as one vector, and back.

For methods that think in one long vector: curvature products, line searches, averages of models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from tinygrad_rnn.modes import no_grad
from tinygrad_rnn.ops.operators import cat
from tinygrad_rnn.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All values in one vector, parameter after parameter; gradients flow back through it.

    Raises:
        ValueError: there are no parameters.
    """
    flat = [param.reshape(-1) for param in parameters]
    if not flat:
        raise ValueError("parameters_to_vector: expected at least one parameter, got none")
    vector: Tensor = cat(flat)
    return vector


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy consecutive pieces of `vec` into the parameters: undoes `parameters_to_vector`.

    Raises:
        ValueError: the sizes do not add up to that of `vec`. PyTorch ignores values left over.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"vector_to_parameters: expected a Tensor, got {type(vec).__name__}")
    params = list(parameters)
    sizes = [math.prod(param.shape) for param in params]
    if sum(sizes) != vec.numel():
        raise ValueError(
            f"vector_to_parameters: the vector has {vec.numel()} values, the parameters have "
            f"{sum(sizes)}"
        )
    start = 0
    with no_grad():
        for param, size in zip(params, sizes, strict=True):
            param.copy_(vec[start : start + size].reshape(param.shape))
            start += size
