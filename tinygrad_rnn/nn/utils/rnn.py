"""Sequences of different lengths as one padded tensor, and back.

Read functional.py first for `pad`. Batches here carry their padding; the lengths, and what to
do about the padded steps, stay with the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.ops.operators import stack
from tinygrad_rnn.tensor import Tensor


def pad_sequence(
    sequences: Iterable[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Stack B sequences of shape (T_b, ...) into (T, B, ...), T the longest length.

    Args:
        sequences: Tensors that differ in their first size only.
        batch_first: whether the result is (B, T, ...).
        padding_value: what fills the steps that a sequence does not have.
        padding_side: "right" pads the ends, "left" the beginnings.

    Raises:
        RuntimeError: no sequences, or sequences whose other sizes differ.
    """
    if not isinstance(sequences, Iterable):
        raise RuntimeError(
            f"pad_sequence: Expected iterable for input sequences, but got {type(sequences)}"
        )
    given = list(sequences)
    if not given:
        raise RuntimeError("pad_sequence: received an empty list of sequences")
    if padding_side not in ("left", "right"):
        raise RuntimeError(
            f"Expected padding_side to be one of left or right, but got {padding_side}."
        )
    for position, sequence in enumerate(given):
        if sequence.ndim == 0 or sequence.shape[1:] != given[0].shape[1:]:
            raise RuntimeError(
                f"pad_sequence: sequence {position} has shape {sequence.shape}, sequence 0 has "
                f"{given[0].shape}; all sizes but the first must be equal"
            )
    longest = max(sequence.shape[0] for sequence in given)
    padded = []
    for sequence in given:
        lack = longest - sequence.shape[0]
        steps = (lack, 0) if padding_side == "left" else (0, lack)
        rest = (0, 0) * (sequence.ndim - 1)
        padded.append(F.pad(sequence, (*rest, *steps), value=padding_value))
    batch: Tensor = stack(padded, dim=0 if batch_first else 1)
    return batch


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor | Sequence[int], batch_first: bool = False
) -> list[Tensor]:
    """The B sequences of shape (T_b, ...) in a tensor that was padded on the right.

    Shapes: padded_sequences: (T, B, ...), or (B, T, ...) with `batch_first`; lengths: B integers.
    """
    batch = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    counts = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    if len(counts) != batch.shape[0]:
        raise ValueError(
            f"unpad_sequence: {len(counts)} lengths for a batch of {batch.shape[0]} sequences"
        )
    return [sequence[:length] for sequence, length in zip(batch.unbind(0), counts, strict=True)]
