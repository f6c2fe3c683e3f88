"""What does a prediction cost, given its target?

First losses of real numbers, then of classes, then of probabilities. Those that are logarithms of
probabilities are in nats. Read activation.py before this file; the modules are in nn/loss.py.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn import ops
from tinygrad_rnn.backend import Array, namespace
from tinygrad_rnn.ops.operators.arguments import checked_index, on_gpu
from tinygrad_rnn.tensor import Tensor

# Losses of real numbers.


def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """(x - y)², reduced by "mean", "sum" or not at all ("none"). Shapes: both the same."""
    return reduced(_difference("mse_loss", input, target).square(), reduction)


def l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """|x - y|, reduced by "mean", "sum" or not at all ("none"). Shapes: both the same."""
    return reduced(_difference("l1_loss", input, target).abs(), reduction)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0
) -> Tensor:
    """½d² where |d| < delta, else delta (|d| - ½delta), with d = x - y.

    Huber, "Robust Estimation of a Location Parameter", 1964.
    """
    if delta <= 0:
        raise RuntimeError(f"huber_loss: delta must be positive, got {delta}")
    return reduced(_huber(_difference("huber_loss", input, target), delta), reduction)


def smooth_l1_loss(
    input: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """½d² / beta where |d| < beta, else |d| - ½beta, with d = x - y: huber_loss / beta."""
    if beta < 0:
        raise RuntimeError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    d = _difference("smooth_l1_loss", input, target)
    return reduced(_huber(d, beta) / beta if beta > 0 else d.abs(), reduction)


def _huber(d: Tensor, delta: float) -> Tensor:
    """With c = d limited to ±delta, c (d - ½c) is ½d² inside and delta (|d| - ½delta) outside."""
    limited = d.clamp(-delta, delta)
    return limited * (d - 0.5 * limited)


def _difference(name: str, input: Tensor, target: Tensor) -> Tensor:
    if input.shape != target.shape:
        warnings.warn(
            f"{name}: Using a target size ({target.shape}) that is different to the input size "
            f"({input.shape}). This will likely lead to incorrect results due to broadcasting. "
            "Please ensure they have the same size.",
            stacklevel=3,
        )
    return input - target


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """The mean or the sum of a loss, or the loss itself; ValueError for an unknown `reduction`."""
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    if reduction == "none":
        return loss
    raise ValueError(f"{reduction} is not a valid value for reduction: use mean, sum or none")


# Losses of classes.


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-Σ_c q_c w_c log softmax(x)_c, in nats, with q the target distribution.

    Shapes: input: (N, C, d1, ...) logits, or (C,); target: class indices (N, d1, ...), or (), for
    which q is one-hot; or probabilities q of the shape of input.

    Args:
        weight: (C,) a factor w for each class; the mean divides by the sum of the factors of the
            targets (not when the targets are probabilities).
        ignore_index: a target that costs nothing and does not count; indices only.
        reduction: "mean" (NaN when nothing counts), "sum" or "none".
        label_smoothing: ε mixes the target with the uniform distribution: q ← (1 - ε) q + ε / C
            (Szegedy et al., "Rethinking the Inception Architecture", 2016).

    Raises:
        IndexError: a class index that is not below C. A GPU is not waited for: there it makes the
            loss NaN, and `autograd.detect_anomaly` names the line.

    >>> from tinygrad_rnn import tensor
    >>> cross_entropy(tensor([[0.0, 0.0]]), tensor([1]))
    tensor(0.6931)
    """
    name = "cross_entropy"
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(
            f"{name}: label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}"
        )
    axis = _class_axis(name, input)
    classes = input.shape[axis]
    if weight is not None:
        weight = _class_weight(name, weight, input, axis)
    # Logits count from the largest, which changes no probability and hence needs no gradient:
    # exp cannot overflow, and large logits keep their last digits.
    logits = input - input.detach().amax(axis, keepdim=True)
    total = logits.exp().sum(axis, keepdim=True).log()  # (N, 1, d1, …)
    if target.shape == input.shape:
        _check_probabilities(target, ignore_index)
        q = (
            target * (1 - label_smoothing) + label_smoothing / classes
            if label_smoothing
            else target
        )
        costs = q * (total - logits)
        return reduced((costs if weight is None else costs * weight).sum(axis), reduction)
    targets = _class_targets(name, target, weight, ignore_index, input, axis)
    cost = total - ops.gather(logits, targets.index, axis=axis)  # (N, 1, d1, …)
    if targets.weight is not None:
        cost = cost * targets.weight
    if label_smoothing:
        costs = total - logits  # (N, C, d1, …)
        uniform = (costs if weight is None else costs * weight).sum(axis, keepdim=True)
        cost = cost * (1 - label_smoothing) + uniform * (label_smoothing / classes)
    return _reduced_classes(cost, targets, target, reduction)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """-w[target] · x[target], the negative log-likelihood in nats, for log-probabilities x.

    Shapes: input: (N, C, d1, ...), or (C,); target: class indices (N, d1, ...), or (). `weight`,
    `ignore_index` and `reduction` as in `cross_entropy`, which is nll_loss of log_softmax.

    Raises:
        IndexError: a class index that is not below C; on a GPU the loss is NaN instead.
    """
    axis = _class_axis("nll_loss", input)
    if weight is not None:
        weight = _class_weight("nll_loss", weight, input, axis)
    targets = _class_targets("nll_loss", target, weight, ignore_index, input, axis)
    cost = -ops.gather(input, targets.index, axis=axis)
    if targets.weight is not None:
        cost = cost * targets.weight
    return _reduced_classes(cost, targets, target, reduction)


class _Targets(NamedTuple):
    """Class targets, checked. Arrays have the shape of the input with one class: (N, 1, d1, …)."""

    index: Array  # the class, 0 where ignored
    counted: Array | None  # False where ignored; None when nothing is
    weight: Array | None  # the factor of the class; None without weights
    total: Any  # what the mean divides by: the sum of the factors of the targets that count


def _class_axis(name: str, input: Tensor) -> int:
    """The axis of the classes, counted from the end: the only one, or the second."""
    if input.ndim == 0:
        raise ValueError(f"{name}: expected an input of shape (N, C, ...) or (C,), got ()")
    if input.dtype.kind != "f":
        raise RuntimeError(f"{name}: expected a floating-point input, got {input.dtype}")
    return -1 if input.ndim == 1 else 1 - input.ndim


def _class_weight(name: str, weight: Tensor, input: Tensor, axis: int) -> Tensor:
    """The weights in the dtype of the input, as (C, 1, …), to stand against its class axis."""
    classes = input.shape[axis]
    if weight.shape != (classes,):
        raise RuntimeError(
            f"{name}: weight must have one value for each of the {classes} classes, got shape "
            f"{weight.shape}"
        )
    return weight.detach().to(dtype=input.dtype).reshape(classes, *(1,) * (-1 - axis))


def _check_probabilities(target: Tensor, ignore_index: int) -> None:
    if target.dtype.kind != "f":
        raise RuntimeError(
            "cross_entropy: a target of the input's shape holds class probabilities and must be "
            f"floating-point, got {target.dtype}; class indices have no class axis"
        )
    if ignore_index >= 0:
        raise RuntimeError(
            f"cross_entropy: ignore_index ({ignore_index}) is not supported for class probabilities"
        )


def _class_targets(
    name: str, target: Tensor, weight: Tensor | None, ignore_index: int, input: Tensor, axis: int
) -> _Targets:
    """The targets, checked; a GPU is not waited for, and there a wrong class will read as NaN."""
    place = input.ndim + axis
    classes = input.shape[axis]
    expected = (*input.shape[:place], *input.shape[place + 1 :])
    if target.shape != expected:
        hint = ""
        if input.ndim > 2 and target.shape == input.shape[:-1]:
            hint = "; if the classes are its last axis, pass input.movedim(-1, 1)"
        raise ValueError(
            f"{name}: expected a target of shape {expected} for an input of shape "
            f"{input.shape}, whose classes are axis {place}, got {target.shape}{hint}"
        )
    if target.dtype.kind not in "iu":
        raise RuntimeError(
            f"{name}: expected class indices of an integer dtype (int64) as target, got "
            f"{target.dtype}; convert them with .long()"
        )
    indices = target.array.astype(np.int64, copy=False)
    indices = indices.reshape(*input.shape[:place], 1, *input.shape[place + 1 :])
    xp = namespace(indices)
    counted = indices != ignore_index
    if on_gpu(target):
        indices = checked_index(xp.where(counted, indices, 0), classes, name)
        factors = None if weight is None else ops.take(weight.array.reshape(-1), indices)
        counts = counted if factors is None else xp.where(counted, factors, 0)
        return _Targets(indices, counted, factors, counts.sum(dtype=input.dtype))
    count = int(counted.sum())
    if count < indices.size:
        indices = xp.where(counted, indices, 0)
    if indices.size and (indices.min() < 0 or indices.max() >= classes):
        wrong = int(indices.min() if indices.min() < 0 else indices.max())
        raise IndexError(
            f"{name}: Target {wrong} is out of bounds: there are {classes} classes, so targets run "
            f"from 0 to {classes - 1} (or are ignore_index, {ignore_index})"
        )
    factors = None if weight is None else weight.array.reshape(-1)[indices]
    return _Targets(
        indices,
        counted if count < indices.size else None,
        factors,
        count if factors is None else float(factors[counted].sum()),
    )


def _reduced_classes(cost: Tensor, targets: _Targets, target: Tensor, reduction: str) -> Tensor:
    """The costs (N, 1, d1, …) without those ignored, reduced."""
    if targets.counted is not None:
        cost = ops.where(targets.counted, cost, 0.0)
    if reduction == "mean":
        return cost.sum() * (1 / targets.total if on_gpu(cost) or targets.total else math.nan)
    return reduced(cost.reshape(target.shape), reduction)


# Losses of probabilities.


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """-w (y log p + (1 - y) log(1 - p)), in nats, with each logarithm at least -100.

    Shapes: input: probabilities p in [0, 1]; target: y of the same shape; weight: broadcasts to it.
    Where a logarithm is cut off it has no gradient; PyTorch gives up to 1e12 there. Prefer
    `binary_cross_entropy_with_logits`, which needs no cutting. Raises RuntimeError for values that
    are not in [0, 1]; a GPU is not waited for, and there their cost is NaN.
    """
    if input.shape != target.shape:
        raise ValueError(
            f"binary_cross_entropy: Using a target size ({target.shape}) that is different to "
            f"the input size ({input.shape}) is not allowed. Please ensure they have the "
            "same size."
        )
    for what, values in (("input", input.array), ("target", target.array)):
        if not on_gpu(input) and values.size and not ((values >= 0) & (values <= 1)).all():
            raise RuntimeError(
                f"binary_cross_entropy: all elements of {what} should be between 0 and 1, got "
                f"values from {float(values.min()):g} to {float(values.max()):g}"
            )
    cost = -(target * _cut_log(input) + (1 - target) * _cut_log(1 - input))
    if on_gpu(input):
        p, y = input.detach(), target.detach()
        cost = ops.where((p >= 0) & (p <= 1) & (y >= 0) & (y <= 1), cost, math.nan)
    return reduced(cost if weight is None else cost * weight, reduction)


def _cut_log(p: Tensor) -> Tensor:
    """max(log p, -100), with derivative 0 at p = 0."""
    positive = p > 0
    logarithm = ops.where(positive, p, 1.0).log()
    cut: Tensor = ops.where(positive, logarithm.clamp(min=-100.0), -100.0)
    return cut


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """-w (v y log σ(x) + (1 - y) log(1 - σ(x))), in nats, with v = `pos_weight`.

    Shapes: input: logits x; target: y in [0, 1] of the same shape; weight, pos_weight: broadcast to
    it. Computed without overflow as (1 - y) x + (1 + (v - 1) y) log(1 + e⁻ˣ).
    """
    if input.shape != target.shape:
        raise ValueError(
            f"binary_cross_entropy_with_logits: Target size ({target.shape}) must be the "
            f"same as input size ({input.shape})"
        )
    cost_of_yes = (-input).softplus()  # -log σ(x)
    if pos_weight is not None:
        cost_of_yes = cost_of_yes * (1 + (pos_weight - 1) * target)
    cost = (1 - target) * input + cost_of_yes
    return reduced(cost if weight is None else cost * weight, reduction)


def kl_div(
    input: Tensor, target: Tensor, *, reduction: str = "mean", log_target: bool = False
) -> Tensor:
    """y (log y - x), in nats: the Kullback-Leibler divergence KL(y ‖ eˣ) term by term.

    Shapes: input: log-probabilities x; target: probabilities y, or their logarithms with
    `log_target`, of the same shape. `reduction="batchmean"`, the sum divided by the first size, is
    the divergence as it is defined; "mean" divides by the number of elements, and warns.
    """
    if log_target:
        cost = target.exp() * (target - input)
    else:
        entropy = target * ops.where(target > 0, target, 1.0).log()  # 0 log 0 = 0
        cost = entropy - target * input
    if reduction == "batchmean":
        return cost.sum() / input.shape[0] if input.ndim else cost
    if reduction == "mean":
        warnings.warn(
            "kl_div: reduction 'mean' divides by the number of elements; the Kullback-Leibler "
            "divergence of a batch is reduction='batchmean', which divides by the batch size",
            stacklevel=2,
        )
    return reduced(cost, reduction)
