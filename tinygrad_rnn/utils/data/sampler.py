"""In which order are a dataset's items visited?

A sampler is an iterable of indices with a length; one iteration is one epoch. Which generator
draws a random order matters for resuming: `DataLoader` replays an epoch's order from the state
that generator had when the epoch began. Read `dataset.py` first and `dataloader.py` next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice
from typing import Any, Generic, TypeVar

from tinygrad_rnn import random

Index = TypeVar("Index", covariant=True)


class Sampler(Generic[Index]):
    """An order of visiting: a subclass defines `__iter__()` over indices and `__len__()`.

    A random sampler of your own can be resumed in the middle of an epoch if it draws from the
    package's default generator, or from one that it holds as `self.generator`.
    """

    def __iter__(self) -> Iterator[Index]:
        raise NotImplementedError(f"{type(self).__name__}: a Sampler defines __iter__()")


class SequentialSampler(Sampler[int]):
    """0, 1, ..., len(data_source) - 1."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """A fresh random permutation of 0, ..., N - 1 in every epoch; or N independent draws.

    replacement: draw every index independently instead of permuting.
    num_samples: how many indices make an epoch; N = len(data_source) if None. Without
        replacement, more than N are taken from one permutation after another.
    generator: draws the order. If None, every epoch draws one seed from the default generator and
        permutes with a private one, so that other draws during the epoch cannot change its order.
    Raises TypeError or ValueError for a `replacement` that is not a bool and a `num_samples`
    that is not a positive integer (an empty data source included).
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: random.Generator | None = None,
    ) -> None:
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator
        if not isinstance(replacement, bool):
            raise TypeError(f"RandomSampler: replacement must be a bool, got {replacement!r}")
        if not isinstance(self.num_samples, int) or self.num_samples <= 0:
            raise ValueError(
                f"RandomSampler: num_samples must be a positive integer, got {self.num_samples!r}"
                + ("; the data source is empty" if num_samples is None else "")
            )

    @property
    def num_samples(self) -> int:
        """Indices in one epoch."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        size = len(self.data_source)
        generator = self.generator
        if generator is None:
            seed = random.generator().integers((), 0, 2**63 - 1)
            generator = random.Generator(int(seed))
        if self.replacement:
            yield from generator.integers((self.num_samples,), 0, size).tolist()
            return
        wanted = self.num_samples
        while wanted > 0:
            yield from generator.permutation(size).tolist()[:wanted]
            wanted -= size

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """A fresh random permutation of the given indices in every epoch.

    generator: as in `RandomSampler`, but None draws from the default generator itself.
    """

    def __init__(self, indices: Sequence[int], generator: random.Generator | None = None) -> None:
        self.indices = indices
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        generator = random.generator() if self.generator is None else self.generator
        for position in generator.permutation(len(self.indices)).tolist():
            yield self.indices[position]

    def __len__(self) -> int:
        return len(self.indices)


class BatchSampler(Sampler[list[int]]):
    """The indices of `sampler` in lists of `batch_size`.

    drop_last: leave out the last list if it is short.
    Raises ValueError for a `batch_size` that is not a positive integer or a `drop_last` that is
    not a bool.

    >>> list(BatchSampler(SequentialSampler(range(5)), batch_size=2, drop_last=False))
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0:
            raise ValueError(
                f"BatchSampler: batch_size must be a positive integer, got {batch_size!r}"
            )
        if not isinstance(drop_last, bool):
            raise ValueError(f"BatchSampler: drop_last must be a bool, got {drop_last!r}")
        self.sampler: Any = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        while batch := list(islice(indices, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        full, rest = divmod(len(self.sampler), self.batch_size)
        return full + (rest > 0 and not self.drop_last)
