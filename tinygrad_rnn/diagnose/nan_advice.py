"""What usually helps against a NaN or an Inf?

The usual causes by operation, told from the ranges of what went in: log of 0, exp of a large
number, division by 0, the infinite slope of sqrt at 0, states and gradients that explode. Limits
are those of the number formats. Read `finding.py` first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tinygrad_rnn.diagnose.finding import Values


class Growth(NamedTuple):
    """How something grew from step to step before it left the finite numbers.

    what: "state" or "gradient". start, end: its largest magnitude, `steps` steps apart.
    """

    what: str
    start: float
    end: float
    steps: int

    @property
    def rate(self) -> float:
        """The factor per step."""
        return float((self.end / self.start) ** (1 / self.steps))

    def explains(self, dtype: str) -> bool:
        """Whether, at this rate, it would have left the dtype's numbers within two steps."""
        return self.rate > 1 and self.end > _largest(dtype) / self.rate**2


SMALL = 1e-30  # a divisor below this is as good as 0


def advice_for_given(what: str, kind: str) -> str:
    """For an input, a parameter or a buffer that is not finite before anything is computed."""
    if what == "parameter":
        return (
            "an earlier update has spoilt it. Go back to a checkpoint in which it is finite and "
            "look at the gradients of the next steps: clip them (nn.utils.clip_grad_norm_), lower "
            "the learning rate, and do not step when the loss is not finite"
        )
    if what == "buffer":
        return "a running statistic took in a bad batch: reset it, and look at the data before"
    return (
        f"look at how the data is read and scaled: the usual causes of {kind} are missing values, "
        "and a division by a standard deviation of 0"
    )


def advice_forward(
    operation: str, result: Values, operands: Sequence[Values], growth: Growth | None
) -> str:
    """For an operation of the forward pass."""
    x = operands[0]
    if operation in ("log", "log1p") and x.low <= (0 if operation == "log" else -1):
        return (
            "log of 0 is -Inf, of a negative number NaN: keep the operand above 0, as by "
            "x.clamp(min=1e-8), or use what does not need a log: log_softmax, logsumexp, a loss of "
            "logits (cross_entropy, binary_cross_entropy_with_logits)"
        )
    if operation in ("exp", "expm1") and x.high > _log_of_largest(x.dtype):
        return (
            f"exp overflows above {_log_of_largest(x.dtype):.1f} in {x.dtype}: subtract the "
            "largest value first, as softmax and logsumexp do, or clamp the operand"
        )
    if operation in ("divide", "remainder", "floor_divide") and operands[1].nearest < SMALL:
        return (
            "division by 0: add a small number to the divisor, or clamp it. (torch.where on the "
            "quotient does not help, its gradient is still NaN; choose the divisor with it)"
        )
    if operation == "sqrt" and x.low < 0:
        return "sqrt of a negative number, often a 0 after rounding: clamp(min=0) before it"
    if operation == "power" and x.low <= 0:
        return (
            "0 to a negative power is Inf, a negative number to a broken power NaN: keep the base "
            "above 0"
        )
    if operation in ("softmax", "log_softmax") and x.infs:
        return (
            "in some row all is -Inf, as when a mask leaves nothing to choose from: leave one "
            "value unmasked, or mask with a large finite number"
        )
    if any(operand.infs for operand in operands):
        return (
            "Inf - Inf, 0 * Inf and Inf / Inf are NaN: look for what made the Inf; where it is "
            "meant as a mask, choose with torch.where instead of adding or multiplying"
        )
    if operation == "mean" and 0 in x.shape:
        return "the mean of no values is NaN: is the batch, or what a mask leaves, empty?"
    if growth is not None and growth.explains(result.dtype):
        return (
            f"the state explodes: its largest value grew from {growth.start:.3g} to "
            f"{growth.end:.3g} in {growth.steps} steps, {growth.rate:.3g} times a step. Tanh or "
            "gates (LSTM, GRU) instead of relu or a linear state; an orthogonal or identity matrix "
            "to begin with (Saxe et al. 2014; Le et al. 2015); layer normalisation (Ba et al. "
            "2016); a lower learning rate"
        )
    return (
        f"the result lies beyond {_largest(result.dtype):.2g}, the largest {result.dtype}: scale "
        "inputs and weights to about 1, look for an unbounded function before this one, and lower "
        "the learning rate if weights have grown"
    )


def advice_backward(
    operation: str,
    is_function: bool,
    result: Values,
    operands: Sequence[Values],
    growth: Growth | None,
) -> str:
    """For the rule of an operation, in the backward pass."""
    if is_function:
        return (
            f"it is the backward of {operation}, which is not one of the engine's: compare it with "
            "finite differences (autograd.gradcheck) at these values"
        )
    if operation == "sqrt":
        return (
            "the slope of sqrt at 0 is infinite, and 0 times it is NaN: sqrt(x + 1e-12), also in "
            "norms and standard deviations. (torch.where on the root does not help; choose the "
            "operand with it)"
        )
    if operation == "power":
        return "the slope of a power below 1 is infinite at 0: keep the base above 0"
    if operation in ("log", "log1p", "divide") and any(x.nearest < SMALL for x in operands):
        return (
            "the slope has the operand in its divisor, and that is close to 0: keep it away from "
            "0, as by clamp(min=1e-8), or use what does not divide: log_softmax, logsumexp"
        )
    if growth is not None and growth.explains(result.dtype):
        return (
            f"the gradient explodes: its largest value grew from {growth.start:.3g} to "
            f"{growth.end:.3g} in {growth.steps} steps back, {growth.rate:.3g} times a step. "
            "Smaller or orthogonal recurrent weights, gates, shorter sequences (truncated "
            "backpropagation through time). Clipping (Pascanu et al. 2013) keeps training from "
            "getting there, but does not mend an Inf. See diagnose.gradient_flow"
        )
    return (
        "the gradients that come in are too large for this operation's slope: scale the loss down, "
        "with a mean instead of a sum, and look at the ranges of the operands"
    )


def _largest(dtype: str) -> float:
    return float(np.finfo(dtype).max) if np.dtype(dtype).kind == "f" else np.inf


def _log_of_largest(dtype: str) -> float:
    return float(np.log(_largest(dtype)))
