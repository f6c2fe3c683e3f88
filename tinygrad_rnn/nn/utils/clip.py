"""How are gradients kept from growing without bound?

Recurrent networks multiply by the same Jacobian at every step, so that their gradients can explode;
clipping by the norm keeps the direction and limits the length (Pascanu, Mikolov and Bengio, "On the
difficulty of training recurrent neural networks", 2013). All functions work on `.grad` in place.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

import numpy as np

from tinygrad_rnn.backend import namespace
from tinygrad_rnn.modes import no_grad
from tinygrad_rnn.ops.devices import require_one_device
from tinygrad_rnn.tensor import Tensor


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """g ← g · min(1, max_norm / (‖g‖ + 1e-6)), where ‖g‖ is taken over all gradients together.

    Parameters without a gradient are passed over. `norm_type` may be `math.inf` for the largest
    absolute value.

    Returns:
        The norm before clipping, a Tensor without axes (it stays on the device).

    Raises:
        RuntimeError: with `error_if_nonfinite`, when the norm is NaN or infinite. Gradients are
            then left as they are; otherwise a NaN norm makes all of them NaN.
    """
    gradients = _gradients(parameters, "gradient clipping")
    total = get_total_norm(gradients, norm_type, error_if_nonfinite)
    xp = namespace(total.array)
    scale = xp.asarray(xp.minimum(max_norm / (total.array + 1e-6), 1.0))
    with no_grad(), np.errstate(invalid="ignore"):  # a norm that is not finite makes NaNs
        for g in gradients:
            g.mul_(Tensor(scale))
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """g ← min(max(g, -clip_value), clip_value), element by element."""
    with no_grad():
        for g in _gradients(parameters, "gradient clipping"):
            g.clamp_(-clip_value, clip_value)


def get_total_norm(
    tensors: Tensor | Iterable[Tensor], norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """The norm of all tensors seen as one long vector: (Σ |x|^p)^(1/p), the maximum for p = ∞.

    Raises:
        RuntimeError: with `error_if_nonfinite`, when the norm is NaN or infinite.
    """
    arrays = [t.array for t in ([tensors] if isinstance(tensors, Tensor) else tensors)]
    if not arrays:
        return Tensor(0.0)
    require_one_device("total norm", arrays)
    p = float(norm_type)
    xp = namespace(*arrays)
    # The norm of the norms, each taken in the dtype of its own array.
    norms = xp.stack([xp.linalg.norm(array.reshape(-1), p) for array in arrays])
    total = Tensor(xp.asarray(xp.linalg.norm(norms, p)))
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"The total norm of order {p} for gradients from `parameters` is non-finite, so it "
            "cannot be clipped. To disable this error and scale the gradients by the non-finite "
            "norm anyway, set `error_if_nonfinite=False`"
        )
    return total


def _gradients(parameters: Tensor | Iterable[Tensor], purpose: str) -> list[Tensor]:
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    if not given and not isinstance(parameters, (list, tuple)):
        warnings.warn(f"`parameters` is an empty generator, no {purpose} will occur.", stacklevel=3)
    return [param.grad for param in given if param.grad is not None]
