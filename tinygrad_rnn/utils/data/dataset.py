"""What is a dataset? Anything with `dataset[i]` and `len(dataset)`.

Here are the base class, the dataset of tensors that share their first axis, and the three ways
to make datasets from datasets: a subset, a concatenation, a random split. Order and batching are
not decided
here: read `sampler.py` and `dataloader.py` after this file.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from tinygrad_rnn import random
from tinygrad_rnn.tensor import Tensor

Item = TypeVar("Item", covariant=True)


class Dataset(Generic[Item]):
    """Items by index: a subclass defines `__getitem__(index)` and, for every use here, `__len__()`.

    `a + b` is the concatenation `ConcatDataset([a, b])`.
    """

    def __getitem__(self, index: int) -> Item:
        """Item number `index`, counted from 0."""
        raise NotImplementedError(f"{type(self).__name__}: a Dataset defines __getitem__(index)")

    def __len__(self) -> int:
        """Number of items."""
        raise TypeError(f"{type(self).__name__}: this use of a Dataset needs __len__(); define it")

    def __add__(self, other: Dataset[Item]) -> ConcatDataset[Item]:
        return ConcatDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Item i is `(tensors[0][i], tensors[1][i], ...)`: row i of every tensor.

    tensors: each (N, ...), the same N.
    Raises ValueError if the first axes differ, TypeError if there is no tensor or it is not a
    Tensor.

    >>> import tinygrad_rnn as torch
    >>> pairs = TensorDataset(torch.arange(3), torch.tensor([0.0, 0.5, 1.0]))
    >>> len(pairs), pairs[2][0].item(), pairs[2][1].item()
    (3, 2, 1.0)
    """

    tensors: tuple[Tensor, ...]

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors:
            raise TypeError("TensorDataset: at least one tensor is needed")
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise TypeError(
                    f"TensorDataset: expected Tensors, got {type(tensor).__name__}; "
                    "convert an array with from_numpy()"
                )
        shapes = [tensor.shape for tensor in tensors]
        if any(len(shape) == 0 or shape[0] != shapes[0][0] for shape in shapes):
            raise ValueError(
                f"TensorDataset: the first axes must have the same size, got shapes {shapes}"
            )
        self.tensors = tensors

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return int(self.tensors[0].shape[0])


class Subset(Dataset[Item]):
    """Item i is `dataset[indices[i]]`.

    >>> Subset(["a", "b", "c"], [2, 0])[0]
    'c'
    """

    def __init__(self, dataset: Dataset[Item], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: int) -> Item:
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset[Item]):
    """The items of `datasets[0]`, then those of `datasets[1]`, and so on.

    A negative index counts from the end. Raises ValueError without datasets, IndexError out of
    range.

    >>> ConcatDataset([[0, 1], [2]])[-1]
    2
    """

    def __init__(self, datasets: Iterable[Dataset[Item]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("ConcatDataset: at least one dataset is needed")
        self.cumulative_sizes = list(accumulate(len(dataset) for dataset in self.datasets))

    def __getitem__(self, index: int) -> Item:
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"ConcatDataset: index {index} is out of range for {size} items")
        index %= size
        which = bisect_right(self.cumulative_sizes, index)
        first = self.cumulative_sizes[which - 1] if which else 0
        return self.datasets[which][index - first]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


def random_split(
    dataset: Dataset[Item],
    lengths: Sequence[int | float],
    generator: random.Generator | None = None,
) -> list[Subset[Item]]:
    """Disjoint random subsets of `dataset` with the given lengths, or fractions that sum to 1.

    Fractions are rounded down, and the items left over go one each to the first subsets, as in
    PyTorch.
    generator: draws the permutation; the default generator if None.
    Raises ValueError if the lengths do not add up. Warns if a fraction gives an empty subset.
    """
    size = len(dataset)
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        counts = _counts_of_fractions(lengths, size)
    else:
        counts = [int(length) for length in lengths]
        if counts != list(lengths) or min(counts, default=0) < 0 or sum(counts) != size:
            raise ValueError(
                f"random_split: lengths {list(lengths)} must be non-negative whole numbers that "
                f"sum to the dataset's {size} items, or fractions that sum to 1"
            )
    generator = random.generator() if generator is None else generator
    order = generator.permutation(size).tolist()
    ends = list(accumulate(counts))
    return [
        Subset(dataset, order[end - count : end]) for end, count in zip(ends, counts, strict=True)
    ]


def _counts_of_fractions(fractions: Sequence[float], size: int) -> list[int]:
    for position, fraction in enumerate(fractions):
        if not 0 <= fraction <= 1:
            raise ValueError(
                f"random_split: fraction {fraction} at position {position} is not between 0 and 1"
            )
    counts = [math.floor(size * fraction) for fraction in fractions]
    for position in range(size - sum(counts)):
        counts[position % len(counts)] += 1
    for position, count in enumerate(counts):
        if count == 0:
            warnings.warn(
                f"random_split: the subset at position {position} is empty: "
                f"{fractions[position]} of {size} items",
                stacklevel=3,
            )
    return counts
