"""How fast could a recurrent layer be on this GPU, if nothing but bytes and operations took time?

The larger of two times: every input read once and every output written once, at the memory's
bandwidth; and the operations of the matrix products, at the peak of the precision. No program is
faster. None reaches it either, because T steps wait for one another, and a floor knows nothing of
that. The cases are those of gpu_cases.py.
"""

from __future__ import annotations

from typing import NamedTuple

#: The cells, and in how many blocks of H rows their weights come.
BLOCKS = {"LSTM": 4, "GRU": 3, "RNN": 1, "MGU": 2, "layer-norm LSTM": 4}

#: Bytes of one value, by precision.
BYTES = {"float32": 4, "TF32": 4, "float16": 2, "bfloat16": 2}


class Peak(NamedTuple):
    """What a data sheet promises: bytes per second, and operations per second by precision."""

    bandwidth: float
    rates: dict[str, float]


_HOPPER = {"float32": 67e12, "TF32": 494.5e12, "float16": 989.5e12, "bfloat16": 989.5e12}

#: By the name that the driver gives. From "NVIDIA H100 Tensor Core GPU" (H100 SXM) and "NVIDIA H200
#: Tensor Core GPU" (H200 SXM), NVIDIA's data sheets, 2024; what they give for tensor cores "with
#: sparsity" is halved here, because no weight is left out.
PEAKS = {
    "NVIDIA H100 80GB HBM3": Peak(3.35e12, _HOPPER),
    "NVIDIA H200": Peak(4.8e12, _HOPPER),
}


def flops(cell: str, T: int, B: int, H: int, training: bool) -> int:
    """Operations in the matrix products, D = H: 2 · T · B · (D + H) · rows, three times to train.

    Backward takes one product for the gradient of each factor. An addition or multiplication counts
    as one operation.
    """
    forward = 2 * T * B * (H + H) * BLOCKS[cell] * H
    return 3 * forward if training else forward


def bytes_moved(cell: str, T: int, B: int, H: int, precision: str, training: bool) -> int:
    """What must be read or written once, D = H: x, outputs and weights; to train, gradients too.

    The gradients are that of the outputs, which is given, and those of x and the weights. Biases,
    states, and what a forward pass keeps for its backward pass are left out.
    """
    sequence, weights = T * B * H, BLOCKS[cell] * H * (H + H)
    forward = 2 * sequence + weights
    return BYTES[precision] * (2 * forward if training else forward)


def floor(
    gpu: str, cell: str, T: int, B: int, H: int, precision: str, training: bool
) -> float | None:
    """The least number of seconds; None for a GPU whose data sheet is not known here."""
    peak = PEAKS.get(gpu)
    if peak is None:
        return None
    moving = bytes_moved(cell, T, B, H, precision, training) / peak.bandwidth
    return max(moving, flops(cell, T, B, H, training) / peak.rates[precision])
