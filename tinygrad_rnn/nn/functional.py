"""What do layers compute, apart from holding parameters? Activations, normalisation, losses.

Everything here is made of the primitives in ops/ and has no derivative rule of its own, so all of
it can be differentiated as often as one likes. Functions that only rename a method of Tensor are
here because PyTorch has them here. Losses that are logarithms of probabilities are in nats. Read
tensor.py and ops/operators/ before this file; the layers that hold parameters are its siblings.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tinygrad_rnn import ops, random
from tinygrad_rnn.backend import Array, DTypeLike, namespace, to_device
from tinygrad_rnn.creation import drawn
from tinygrad_rnn.tensor import Tensor

# Activations.


def tanh(input: Tensor) -> Tensor:
    """y = tanh x."""
    return input.tanh()


def sigmoid(input: Tensor) -> Tensor:
    """y = 1 / (1 + e⁻ˣ)."""
    return input.sigmoid()


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """y = max(x, 0); the derivative at 0 is taken as 0."""
    return _result(input, input.relu(), inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """y = x where x > 0, else negative_slope · x."""
    return _result(input, ops.where(input > 0, input, input * negative_slope), inplace)


def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """y = x limited to [min_val, max_val]. At the limits the derivative is 1 here, 0 in PyTorch."""
    return _result(input, input.clamp(min_val, max_val), inplace)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """y = x · sigmoid(x), also called swish."""
    return _result(input, input * input.sigmoid(), inplace)


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


def _result(input: Tensor, y: Tensor, inplace: bool) -> Tensor:
    """y itself, or `input` after y has been assigned to it."""
    if not inplace:
        return y
    input[...] = y
    return input


# Layers without state.


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x Wᵀ + b.

    Shapes: input: (..., I); weight: (O, I); bias: (O,) -> (..., O).
    """
    if input.shape[-1:] != weight.shape[-1:]:
        raise RuntimeError(
            f"linear: the input has shape {input.shape} and the weight {weight.shape}, "
            "which is (out_features, in_features): their last sizes must be equal"
        )
    y = input @ weight.T
    if bias is None:
        return y
    if bias.shape != weight.shape[:1]:
        raise RuntimeError(f"linear: the bias has shape {bias.shape}, expected {weight.shape[:1]}")
    return y + bias


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """y = weight[input]: one row of the table for each index.

    Shapes: input: (...) integers; weight: (N, D) -> (..., D).

    Args:
        padding_idx: a row whose gradient is zero; negative values count from the end.

    Raises:
        IndexError: an index below 0 or not below N.
    """
    if input.dtype.kind not in "iu":
        raise RuntimeError(
            f"embedding: expected indices of an integer dtype, got {input.dtype}; "
            "convert them with .long()"
        )
    rows = weight.shape[0]
    indices = getattr(input, "array", None)  # none yet in the step of a scan
    if indices is not None and indices.size and (indices.min() < 0 or indices.max() >= rows):
        worst = indices.min() if indices.min() < 0 else indices.max()
        raise IndexError(
            f"embedding: index {int(worst)} is out of range: the table has {rows} rows, "
            f"so indices run from 0 to {rows - 1}"
        )
    y: Tensor = ops.take(weight, input)
    padding = padding_row(padding_idx, rows)
    if padding is not None:
        y = ops.where((input == padding).unsqueeze(-1), y.detach(), y)
    return y


def padding_row(padding_idx: int | None, rows: int) -> int | None:
    """`padding_idx` as a row number from 0 to `rows` - 1, or None.

    Raises:
        ValueError: the table has no such row (PyTorch: AssertionError).
    """
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise ValueError(
            f"embedding: padding_idx must be within num_embeddings ({rows}), got {padding_idx}"
        )
    return padding_idx % rows


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """y[..., c] = 1 where c is the index, else 0, as int64.

    Shapes: tensor: (...) integers -> (..., num_classes); -1 takes the largest index plus one.
    """
    if tensor.dtype.kind not in "iu":
        raise RuntimeError(
            f"one_hot: only applicable to an index tensor of an integer dtype, got {tensor.dtype}"
        )
    indices = getattr(tensor, "array", None)
    if indices is None and num_classes > 0:  # in the step of a scan, which has no values yet
        return (tensor.unsqueeze(-1) == np.arange(num_classes)).long()
    indices = tensor.array
    if not indices.size and num_classes <= 0:
        raise RuntimeError(
            "one_hot: cannot infer the number of classes from an empty tensor; pass num_classes"
        )
    top = int(indices.max()) if indices.size else 0
    if indices.size and indices.min() < 0:
        raise RuntimeError(f"one_hot: class values must be non-negative, got {int(indices.min())}")
    if num_classes == -1:
        num_classes = top + 1
    elif top >= num_classes:
        raise RuntimeError(
            f"one_hot: class values must be smaller than num_classes ({num_classes}), got {top}"
        )
    xp = namespace(indices)
    return Tensor((indices[..., None] == xp.arange(num_classes)).astype(xp.int64))


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """y = x · m / (1 - p), with m ~ Bernoulli(1 - p); y = x unless `training`.

    The mask is drawn on the host from the default generator, which `manual_seed` sets.
    Srivastava et al., "Dropout", 2014.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0:
        return input
    source = random.generator()

    def mask() -> Array:
        kept = source.uniform(input.shape) >= p
        return np.multiply(kept, 1 / (1 - p) if p < 1 else 0.0, dtype=input.dtype)

    factor = drawn(mask, source, input.shape, input.dtype, input.device)
    return _result(input, input * factor, inplace)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """y = (x - mean) / √(var + eps) · weight + bias, with mean and variance over the last axes.

    Shapes: input: (..., *normalized_shape); weight, bias: normalized_shape. The variance is the
    biased one. Ba, Kiros and Hinton, "Layer Normalization", 2016.
    """
    shape = tuple(normalized_shape)
    if not shape:
        raise RuntimeError("layer_norm: normalized_shape must name at least one axis, got ()")
    if input.shape[-len(shape) :] != shape:
        raise RuntimeError(
            f"layer_norm: given normalized_shape={shape}, expected an input of shape (..., "
            f"{', '.join(map(str, shape))}), got {input.shape}"
        )
    for name, factor in (("weight", weight), ("bias", bias)):
        if factor is not None and factor.shape != shape:
            raise RuntimeError(
                f"layer_norm: expected {name} to be of shape {shape} (normalized_shape), "
                f"got {factor.shape}"
            )
    axes = tuple(range(-len(shape), 0))
    centred = input - input.mean(axes, keepdim=True)
    variance = centred.square().mean(axes, keepdim=True)
    y = centred * (variance + eps).rsqrt()
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


# How NumPy calls the ways to pad by repeating positions.
_PADDING_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """y = x with margins: pairs (before, after) for the last axis, then the one before it, ...

    Args:
        pad: the widths; in constant mode a negative one cuts off.
        mode: "constant" fills with `value` (0), "replicate" repeats the edge, "reflect" mirrors
            without repeating the edge, "circular" continues at the other end.
    """
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise RuntimeError(
            f"pad: expected pairs of widths for at most {input.ndim} axes, got {len(pad)} widths"
        )
    widths = [(pad[k], pad[k + 1]) for k in range(0, len(pad), 2)][::-1]
    if mode == "constant":
        return _pad_constant(input, widths, 0.0 if value is None else value)
    if mode not in _PADDING_MODES:
        raise NotImplementedError(
            f"pad: unrecognised mode {mode!r}, expected constant, {', '.join(_PADDING_MODES)}"
        )
    y = input
    for axis, (low, high) in enumerate(widths, start=-len(widths)):
        size = input.shape[axis]
        most = {"reflect": size - 1, "circular": size}.get(mode, max(low, high))
        if min(low, high) < 0 or max(low, high) > most or size == 0:
            raise RuntimeError(
                f"pad: mode {mode!r} can add from 0 to {max(most, 0)} positions to an axis of size "
                f"{size}, got {(low, high)}"
            )
        positions = np.pad(np.arange(size), (low, high), _PADDING_MODES[mode])  # type: ignore[call-overload]
        y = y.index_select(axis, Tensor(to_device(positions, input.device)))
    return y


def _pad_constant(input: Tensor, widths: list[tuple[int, int]], value: float) -> Tensor:
    y = input
    for axis, (low, high) in enumerate(widths, start=-len(widths)):
        if low < 0 or high < 0:
            start, stop = max(-low, 0), input.shape[axis] - max(-high, 0)
            if start > stop:
                raise RuntimeError(
                    f"pad: widths {(low, high)} cut more than the {input.shape[axis]} positions"
                )
            y = y.narrow(axis, start, stop - start)
    margins = tuple((max(low, 0), max(high, 0)) for low, high in widths)
    if not any(low or high for low, high in margins):
        return y
    padded: Tensor = ops.pad(y, widths=margins, value=value)
    return padded


# Losses of real numbers.


def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """(x - y)², reduced by "mean", "sum" or not at all ("none"). Shapes: both the same."""
    return _reduced(_difference("mse_loss", input, target).square(), reduction)


def l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """|x - y|, reduced by "mean", "sum" or not at all ("none"). Shapes: both the same."""
    return _reduced(_difference("l1_loss", input, target).abs(), reduction)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0
) -> Tensor:
    """½d² where |d| < delta, else delta (|d| - ½delta), with d = x - y.

    Huber, "Robust Estimation of a Location Parameter", 1964.
    """
    if delta <= 0:
        raise RuntimeError(f"huber_loss: delta must be positive, got {delta}")
    return _reduced(_huber(_difference("huber_loss", input, target), delta), reduction)


def smooth_l1_loss(
    input: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """½d² / beta where |d| < beta, else |d| - ½beta, with d = x - y: huber_loss / beta."""
    if beta < 0:
        raise RuntimeError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    d = _difference("smooth_l1_loss", input, target)
    return _reduced(_huber(d, beta) / beta if beta > 0 else d.abs(), reduction)


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


def _reduced(loss: Tensor, reduction: str) -> Tensor:
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
        IndexError: a class index that is not below C.

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
        return _reduced((costs if weight is None else costs * weight).sum(axis), reduction)
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
        IndexError: a class index that is not below C.
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
    total: float  # what the mean divides by: the sum of the factors of the targets that count


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
    indices = target.array.reshape(*input.shape[:place], 1, *input.shape[place + 1 :])
    xp = namespace(indices)
    counted = indices != ignore_index
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
        return cost.sum() * (1 / targets.total if targets.total else math.nan)
    return _reduced(cost.reshape(target.shape), reduction)


# Losses of probabilities.


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """-w (y log p + (1 - y) log(1 - p)), in nats, with each logarithm at least -100.

    Shapes: input: probabilities p in [0, 1]; target: y of the same shape; weight: broadcasts to it.
    Where a logarithm is cut off it has no gradient; PyTorch gives up to 1e12 there. Prefer
    `binary_cross_entropy_with_logits`, which needs no cutting.
    """
    if input.shape != target.shape:
        raise ValueError(
            f"binary_cross_entropy: Using a target size ({target.shape}) that is different to "
            f"the input size ({input.shape}) is not allowed. Please ensure they have the "
            "same size."
        )
    for what, values in (("input", input.array), ("target", target.array)):
        if values.size and not ((values >= 0) & (values <= 1)).all():
            raise RuntimeError(
                f"binary_cross_entropy: all elements of {what} should be between 0 and 1, got "
                f"values from {float(values.min()):g} to {float(values.max()):g}"
            )
    cost = -(target * _cut_log(input) + (1 - target) * _cut_log(1 - input))
    return _reduced(cost if weight is None else cost * weight, reduction)


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
    return _reduced(cost if weight is None else cost * weight, reduction)


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
    return _reduced(cost, reduction)
