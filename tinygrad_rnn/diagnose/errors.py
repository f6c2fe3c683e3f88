"""What is raised when there is nothing to be diagnosed, as when what should be a loss is none?"""

from __future__ import annotations

from typing import Any

from tinygrad_rnn.tensor import Tensor


class DiagnosisError(ValueError):
    """A model or graph cannot be looked into; the message says why and what to do, in one line."""


def checked_loss(caller: str, value: Any) -> Tensor:
    """What a loss function gave. Raises DiagnosisError if it is not a Tensor with one value."""
    if not isinstance(value, Tensor):
        raise DiagnosisError(f"{caller}: loss gave {type(value).__name__}, expected a Tensor")
    if value.array.size != 1:
        raise DiagnosisError(
            f"{caller}: loss gave a tensor of shape {value.shape}, expected one value; reduce it "
            "with .mean() or .sum()"
        )
    return value
