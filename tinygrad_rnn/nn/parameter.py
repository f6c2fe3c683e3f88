"""What makes a Tensor learnable?

Only its type: a `Module` registers every `Parameter` that is assigned to it, and an optimizer
updates the parameters that a module lists. All arithmetic is that of `Tensor`. Read tensor.py
before this file and module.py after it.
"""

from __future__ import annotations

from typing import Any

from tinygrad_rnn.tensor import Tensor


class Parameter(Tensor):
    """A Tensor that a Module lists among its parameters; a leaf that requires gradients by default.

    Args:
        data: a Tensor, whose array is shared, or anything that `Tensor` accepts.
        requires_grad: False freezes the parameter: it stays in `state_dict` but gets no gradient.

    >>> Parameter([0.0, 1.0])
    Parameter containing:
    tensor([0., 1.], requires_grad=True)
    """

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(
            data.array if isinstance(data, Tensor) else data, requires_grad=requires_grad
        )

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()
