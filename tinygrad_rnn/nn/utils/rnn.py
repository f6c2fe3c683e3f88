"""Sequences of different lengths as one tensor: padded to the longest, or packed without padding.

A padded batch (T, B, ...) carries steps that are not real, and a recurrence must not take them: its
last state would be that of the padding, and in the reverse direction the padding comes first. A
`PackedSequence` holds the real steps alone, and thereby knows the lengths; RNN, LSTM and GRU take
one and give one. How they do it is in nn/recurrent/lengths.py. Here is only the moving of values,
with PyTorch's names and layout. Read functional/layers.py first for `pad`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn import creation, ops
from tinygrad_rnn.backend import to_device, to_numpy
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.ops.operators import Operators, stack
from tinygrad_rnn.ops.primitive import describe
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


class _Fields(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class PackedSequence(_Fields):
    """The real steps of B sequences, longest sequence first: all first steps, all second ones, ...

    Made by `pack_padded_sequence` and `pack_sequence`, not by hand. A layer that works on each step
    alone, such as an embedding, takes the data: `packed._replace(data=embedding(packed.data))`.

    data: (N, ...), N the sum of all lengths.
    batch_sizes: (T,) integers on the host: how many sequences have a step t. They never increase.
    sorted_indices: (B,): the place in the caller's batch of the longest sequence, of the second
        longest, ...; None if the caller's batch was in that order.
    unsorted_indices: (B,): the permutation that undoes it; worked out if it is not given.

    >>> import tinygrad_rnn as torch
    >>> short, long = torch.tensor([1, 2]), torch.tensor([3, 4, 5])
    >>> packed = pack_sequence([short, long], enforce_sorted=False)
    >>> packed.data.tolist(), packed.batch_sizes.tolist(), packed.sorted_indices.tolist()
    ([3, 1, 4, 2, 5], [2, 2, 1], [1, 0])
    """

    __slots__ = ()

    def __new__(
        cls,
        data: Tensor,
        batch_sizes: Tensor,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> PackedSequence:
        """The four fields, with `unsorted_indices` worked out."""
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    @property
    def is_cuda(self) -> bool:
        """Whether the data are on a GPU."""
        return self.data.is_cuda

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """With the data in another dtype or on another device; itself if they are so."""
        data = self.data.to(*args, **kwargs)
        if data is self.data:
            return self
        order = (x if x is None else x.to(device=data.device) for x in self[2:])
        return PackedSequence(data, self.batch_sizes, *order)

    def cpu(self) -> PackedSequence:
        """With the data on the host."""
        return self.to(device="cpu")

    def cuda(self) -> PackedSequence:
        """With the data on a GPU."""
        return self.to(device="cuda")

    def float(self) -> PackedSequence:
        """With the data in float32."""
        return self.to(dtype=np.float32)

    def double(self) -> PackedSequence:
        """With the data in float64."""
        return self.to(dtype=np.float64)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes another: y[permutation[k]] = k. None stands for none."""
    return None if permutation is None else permutation.argsort()


def pack_padded_sequence(
    input: Tensor,
    lengths: Tensor | Sequence[int],
    batch_first: bool = False,
    enforce_sorted: bool = True,
) -> PackedSequence:
    """The real steps of a batch that was padded on the right.

    Args:
        input: (T, B, ...), or (B, T, ...) with `batch_first`.
        lengths: B integers from 1 to T: how many steps of each sequence are real.
        enforce_sorted: whether the caller says that the sequences come longest first; with False
            they are sorted here, and come back in the order given when they are padded again.

    Raises:
        RuntimeError: lengths that do not fit the input, or do not fall with `enforce_sorted`. (In
            PyTorch a length above T reads over the end.)
    """
    _check_padded("pack_padded_sequence", input)
    batch = input.transpose(0, 1) if batch_first else input
    counts = _lengths(lengths, batch)
    order = None
    if not enforce_sorted:
        ranks = np.argsort(-counts, kind="stable")
        order = Tensor(to_device(ranks, input.device))
        batch, counts = batch.index_select(1, order), counts[ranks]
    elif (counts[1:] > counts[:-1]).any():
        raise RuntimeError(
            "pack_padded_sequence: `lengths` array must be sorted in decreasing order when "
            f"`enforce_sorted` is True, got {counts.tolist()}; pass enforce_sorted=False"
        )
    real = np.arange(len(batch))[:, None] < counts  # (T, B)
    data = batch[to_device(real, input.device)]
    return PackedSequence(data, Tensor(real.sum(1)[: counts[0]]), order)


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """(batch, lengths): the sequences padded on the right; undoes `pack_padded_sequence`.

    Args:
        sequence: what was packed, or what a recurrent layer made of it.
        batch_first: whether the batch is (B, T, ...) instead of (T, B, ...).
        padding_value: what fills the steps that a sequence does not have.
        total_length: T, where that should be more than the longest length.

    Returns:
        The batch in the order in which it was given to be packed, and (B,) integers on the host.

    Raises:
        ValueError: a `total_length` below the longest length.
    """
    _check_packed("pad_packed_sequence", sequence)
    longest = len(sequence.batch_sizes)
    if total_length is not None and total_length < longest:
        raise ValueError(
            "pad_packed_sequence: Expected total_length to be at least the length of the longest "
            f"sequence in input, but got total_length={total_length} and max sequence length "
            f"being {longest}"
        )
    batch, real = laid_out(sequence, padding_value, total_length)
    lengths = real.sum(0)
    if sequence.unsorted_indices is not None:
        batch = batch.index_select(1, sequence.unsorted_indices)
        lengths = lengths[to_numpy(sequence.unsorted_indices.array)]
    return (batch.transpose(0, 1) if batch_first else batch), Tensor(lengths)


def pack_sequence(sequences: Iterable[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack sequences of shape (T_b, ...); see `pack_padded_sequence` for `enforce_sorted`."""
    given = list(sequences)
    return pack_padded_sequence(
        pad_sequence(given), [len(x) for x in given], enforce_sorted=enforce_sorted
    )


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences of shape (T_b, ...), in the order in which they were given to be packed."""
    return unpad_sequence(*pad_packed_sequence(packed_sequences, batch_first=True), True)


def laid_out(
    sequence: PackedSequence, padding_value: float = 0.0, steps: int | None = None
) -> tuple[Tensor, np.ndarray[Any, Any]]:
    """(batch, real): the sequences side by side, longest first, and which steps are theirs.

    Shapes: batch: (T, B, ...), T the longest length or `steps`; real: (T, B) truth values on the
    host. `batch[real]` is `sequence.data`: packing and reading by that mask go the same way.
    """
    sizes = to_numpy(sequence.batch_sizes.array)
    data = sequence.data
    if sizes.sum() != len(data) or (sizes[1:] > sizes[:-1]).any():
        raise RuntimeError(
            f"PackedSequence: data of {len(data)} steps do not fit batch_sizes {sizes.tolist()}, "
            "which must add up to that number and never increase; make it with pack_sequence or "
            "pack_padded_sequence"
        )
    real = np.arange(sizes[0]) < sizes[:, None]
    if steps is not None:
        real = np.pad(real, ((0, steps - len(real)), (0, 0)))
    padding = creation.full(
        (*real.shape, *data.shape[1:]), padding_value, dtype=data.dtype, device=data.device
    )
    return ops.put(padding, data, index=to_device(real, data.device)), real


def _lengths(lengths: Tensor | Sequence[int], batch: Tensor) -> np.ndarray[Any, Any]:
    """The lengths of a padded batch (T, B, ...) as integers on the host, checked."""
    array = to_numpy(lengths.array) if isinstance(lengths, Tensor) else np.asarray(lengths)
    counts = array.astype(np.int64)
    steps, rows = batch.shape[:2]
    if counts.ndim != 1:
        raise RuntimeError(
            "pack_padded_sequence: 'lengths' should be a vector, an integer for each sequence, got "
            f"shape {array.shape}"
        )
    if len(counts) != rows:
        raise RuntimeError(
            "pack_padded_sequence: Expected `len(lengths)` to be equal to batch_size, but got "
            f"{len(counts)} (batch_size={rows}) for {describe(batch)}; is batch_first right?"
        )
    if counts.min() <= 0:
        raise RuntimeError(
            "pack_padded_sequence: Length of all samples has to be greater than 0, but found an "
            f"element in 'lengths' that is <= 0: {counts.tolist()}"
        )
    if counts.max() > steps:
        raise RuntimeError(
            f"pack_padded_sequence: the longest length is {counts.max()}, the batch has {steps} "
            "steps; is batch_first right?"
        )
    return counts


def _check_padded(name: str, input: Any) -> None:
    if not isinstance(input, Operators):
        raise TypeError(f"{name}: expected a Tensor, got {type(input).__name__}")
    if input.ndim < 2:
        raise RuntimeError(
            f"{name}: expected (T, B, ...), got {describe(input)}; one sequence is a batch of one: "
            "x.unsqueeze(1)"
        )
    if not input.numel():
        raise RuntimeError(f"{name}: Cannot pack empty tensors, got {describe(input)}")


def _check_packed(name: str, sequence: Any) -> None:
    if not isinstance(sequence, PackedSequence):
        raise TypeError(
            f"{name}: expected a PackedSequence, got {type(sequence).__name__}; a padded tensor "
            "becomes one by pack_padded_sequence"
        )
