"""What do layers compute, apart from holding parameters?

Products, look-ups, dropout, normalisation, padding. Read activation.py before this file; the
modules, which hold the parameters, are in nn/linear.py, nn/embedding.py and their siblings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tinygrad_rnn import ops, random
from tinygrad_rnn.backend import Array, library, namespace, to_device
from tinygrad_rnn.creation import drawn
from tinygrad_rnn.nn.functional.activation import result
from tinygrad_rnn.ops.operators.arguments import checked_index, on_gpu
from tinygrad_rnn.random import Draw, Numbers
from tinygrad_rnn.tensor import Tensor


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
        IndexError: an index below 0 or not below N. A GPU would have to be waited for, so there it
            gets a row of NaN instead; `autograd.detect_anomaly` then names the line.
    """
    if input.dtype.kind not in "iu":
        raise RuntimeError(
            f"embedding: expected indices of an integer dtype, got {input.dtype}; "
            "convert them with .long()"
        )
    rows = weight.shape[0]
    index, indices = input, getattr(input, "array", None)  # none yet in the step of a scan
    if on_gpu(input):
        index = checked_index(input, rows, "embedding")
    elif indices is not None and indices.size and (indices.min() < 0 or indices.max() >= rows):
        worst = indices.min() if indices.min() < 0 else indices.max()
        raise IndexError(
            f"embedding: index {int(worst)} is out of range: the table has {rows} rows, "
            f"so indices run from 0 to {rows - 1}"
        )
    y: Tensor = ops.take(weight, index)
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
    Raises RuntimeError for an index that is no class; on a GPU, and in the step of a scan, its row
    is zeros.
    """
    if tensor.dtype.kind not in "iu":
        raise RuntimeError(
            f"one_hot: only applicable to an index tensor of an integer dtype, got {tensor.dtype}"
        )
    if num_classes > 0 and (on_gpu(tensor) or not hasattr(tensor, "array")):
        # A GPU is not waited for, and in the step of a scan there are no values yet.
        classes = library(tensor.device).arange(num_classes)
        return (tensor.unsqueeze(-1) == classes).long()
    indices = tensor.array
    if not indices.size and num_classes <= 0:
        raise RuntimeError(
            "one_hot: cannot infer the number of classes from an empty tensor; pass num_classes"
        )
    low, top = (indices.min().item(), indices.max().item()) if indices.size else (0, 0)
    if low < 0:
        raise RuntimeError(f"one_hot: class values must be non-negative, got {low}")
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

    The mask is drawn where the input is, from the default generator, which `manual_seed` sets; the
    same one on every device. Srivastava et al., "Dropout", 2014.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0:
        return input
    scale, dtype = 1 / (1 - p) if p < 1 else 0.0, input.dtype

    def mask(numbers: Array) -> Array:
        return namespace(numbers).multiply(numbers >= p, scale, dtype=dtype)

    numbers = Numbers(random.generator(), "uniform", np.float32)
    factor = drawn(Draw(numbers, input.shape, dtype, input.device, mask))
    return result(input, input * factor, inplace)


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
    x = input.float() if input.dtype == np.float16 else input  # 1 / eps is too large for it
    centred = x - x.mean(axes, keepdim=True)
    variance = centred.square().mean(axes, keepdim=True)
    y = (centred * (variance + eps).rsqrt()).to(dtype=input.dtype)
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
