"""Which batch comes next, also in a run that was stopped in the middle of an epoch?

A `DataLoader` walks a sampler, fetches items and collates them, in this process. To resume, it
does not store an epoch's order: it stores the state that the sampler's generator had when the
epoch began, and the number of batches since; the order is drawn again and the batches that were
seen are skipped without being fetched. Read `dataset.py`, `sampler.py` and `collate.py` first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import length_hint
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_rnn import random
from tinygrad_rnn.utils.data.collate import default_collate, default_convert
from tinygrad_rnn.utils.data.dataset import Dataset
from tinygrad_rnn.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler


class DataLoader:
    """Batches of a dataset: each iteration is one epoch in the order that the sampler gives.

    dataset: has `dataset[i]` and `len(dataset)`.
    batch_size: items per batch; None yields single items, not batched.
    shuffle: visit in a new random order every epoch.
    sampler: the order of indices, instead of `shuffle`.
    batch_sampler: the order of whole batches (lists of indices), instead of `batch_size`,
        `shuffle`, `sampler` and `drop_last`.
    num_workers: 0 only. Items are fetched in this process, which keeps every run repeatable.
    collate_fn: list of items -> batch; `default_collate` if None.
    pin_memory: accepted as in PyTorch and without effect: batches are made in ordinary host memory.
    drop_last: leave out the last batch if it is short.
    generator: draws the order when `shuffle` is set; the default generator if None.
    Raises ValueError for arguments that exclude each other.

    The same seed gives the same batches. `state_dict()` between two batches, given to
    `load_state_dict()` of an equal loader, makes that loader's next iteration begin with the
    batch that would have come next.
    Deviation from PyTorch: `epoch`, `position` and the two state methods do not exist there, and
    the random order for a seed is not PyTorch's.

    >>> [batch.tolist() for batch in DataLoader(range(5), batch_size=2)]
    [[0, 1], [2, 3], [4]]
    """

    epoch: int
    """Epochs completed."""
    position: int
    """Batches yielded in the epoch under way, by the iteration begun last."""

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[list[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        *,
        generator: random.Generator | None = None,
    ) -> None:
        if num_workers != 0:
            raise ValueError(
                f"DataLoader: num_workers={num_workers} is not supported: items are fetched in "
                "this process; pass num_workers=0"
            )
        if sampler is not None and shuffle:
            raise ValueError("DataLoader: sampler and shuffle=True exclude each other")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "DataLoader: batch_sampler excludes batch_size, shuffle, sampler and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError(
                "DataLoader: batch_size=None makes no batches, so drop_last=True has none"
            )

        if sampler is None:
            sampler = (
                RandomSampler(dataset, generator=generator)
                if shuffle
                else SequentialSampler(dataset)
            )
        if batch_sampler is None and batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.dataset = dataset
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.generator = generator
        if collate_fn is None:
            collate_fn = default_convert if batch_sampler is None else default_collate
        self.collate_fn = collate_fn

        self.epoch = 0
        self.position = 0
        self._epoch_start: NDArray[np.uint64] | None = None  # generator state; None between epochs
        self._resumed = False  # load_state_dict was called, its iteration has not begun

    def __len__(self) -> int:
        """Batches per epoch; items per epoch if `batch_size` is None."""
        return len(self._order)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        if self._resumed:
            self._resumed = False
            order = self._replayed_order()
        else:
            self.position = 0
            self._epoch_start = self._order_generator().get_state()
            order = iter(self._order)
        for position, chosen in enumerate(order, start=self.position):
            if self.batch_sampler is None:
                batch = self.collate_fn(self.dataset[chosen])
            else:
                batch = self.collate_fn([self.dataset[index] for index in chosen])
            self.position = position + 1
            yield batch
        self.epoch += 1
        self.position = 0
        self._epoch_start = None

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, and in which order of how many items and batches.

        The default generator's own state is not in it: whoever saves the run saves that one once.
        """
        own_generator = _generator_of(self._order)
        return {
            "epoch": self.epoch,
            "position": self.position,
            "epoch_start": self._epoch_start,
            "generator": None if own_generator is None else own_generator.get_state(),
            **self._identity(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Stand where `state_dict` was taken; the next iteration continues its epoch.

        Raises ValueError, and changes nothing, if it was taken from a loader with another number
        of items or batches, or another kind of order.
        """
        missing = {"epoch", "position", "epoch_start", "generator"} - set(state_dict)
        if missing:
            raise ValueError(f"DataLoader.load_state_dict: the state has no {sorted(missing)}")
        for name, here in self._identity().items():
            if state_dict.get(name) != here:
                raise ValueError(
                    "DataLoader.load_state_dict: the state was taken with "
                    f"{name}={state_dict.get(name)!r}, this loader has {name}={here!r}; "
                    "build the loader as in the run that was saved"
                )
        epoch, position = state_dict["epoch"], state_dict["position"]
        if not isinstance(epoch, int) or not isinstance(position, int) or position < 0:
            raise ValueError(
                f"DataLoader.load_state_dict: epoch={epoch!r}, position={position!r} are no counts"
            )
        if 0 <= state_dict["batches"] < position:
            raise ValueError(
                f"DataLoader.load_state_dict: position {position} is past the "
                f"{state_dict['batches']} batches of an epoch"
            )
        own_generator = _generator_of(self._order)
        if (own_generator is None) != (state_dict["generator"] is None):
            raise ValueError(
                "DataLoader.load_state_dict: one of the two loaders has its own generator, the "
                "other uses the default one; pass generator= as in the run that was saved"
            )
        if own_generator is not None:
            own_generator.set_state(state_dict["generator"])
        self.epoch = epoch
        self.position = position
        self._epoch_start = state_dict["epoch_start"]
        self._resumed = self._epoch_start is not None

    @property
    def _order(self) -> Iterable[Any]:
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def _order_generator(self) -> random.Generator:
        own_generator = _generator_of(self._order)
        return random.generator() if own_generator is None else own_generator

    def _replayed_order(self) -> Iterator[Any]:
        """The rest of the epoch under way: its order is drawn again, what was seen is skipped."""
        generator = self._order_generator()
        now = generator.get_state()
        assert self._epoch_start is not None
        generator.set_state(self._epoch_start)
        order = iter(self._order)
        if self.position == 0:  # nothing was drawn yet that must not be drawn twice
            return order
        for _ in range(self.position):
            next(order)
        generator.set_state(now)
        return order

    def _identity(self) -> dict[str, Any]:
        return {
            "items": len(self.dataset),
            "batches": length_hint(self._order, -1),  # -1: the sampler does not know
            "sampler": type(getattr(self._order, "sampler", self._order)).__name__,
        }


def _generator_of(order: Any) -> random.Generator | None:
    """The generator of a sampler, or of the one it wraps; None if it uses the default one."""
    while order is not None:
        if getattr(order, "generator", None) is not None:
            return order.generator  # type: ignore[no-any-return]
        order = getattr(order, "sampler", None)
    return None
