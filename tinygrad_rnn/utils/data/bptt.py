"""How is one long token stream fed to a recurrent network in pieces, without losing its memory?

The stream is cut into B contiguous lanes, one per batch row, and every lane into windows of T
steps. Row b of window k+1 goes on where row b of window k stopped, so that the state after one
window, detached, is the right initial state of the next: truncated backpropagation through time
(Williams and Peng, 1990). For items that are independent of each other, use `dataloader.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_rnn import creation
from tinygrad_rnn.tensor import Tensor


class BPTTBatcher:
    """Windows (inputs, targets), both (T, B), of a token stream in B contiguous lanes.

    With L = (N - 1) // B tokens per lane, lane b holds `tokens[b*L : (b+1)*L]`, its targets are
    the same one step later, and step t of window k is position k*T + t of the lane. The last
    (N - 1) mod B tokens of the stream are not used.

    tokens: (N,), a Tensor or NumPy array (also a memory map). Integer windows come out as int64,
        whatever the stream's integer type, so a large text may be kept as uint8; other types are
        kept. Windows are on the stream's device.
    batch_size: B, the number of lanes.
    seq_len: T, the number of steps in a window.
    drop_last: if L is not a multiple of T, leave out each epoch's last window; otherwise it is
        yielded with its L mod T steps.
    Raises ValueError if the stream is not one axis long or too short for one window.

    An iteration is one epoch. The state must be reset at its start, and only there;
    `starts_epoch` says when, also in a run resumed in the middle of an epoch with `state_dict()`
    / `load_state_dict()`:

    >>> import numpy as np
    >>> batcher = BPTTBatcher(np.arange(13), batch_size=2, seq_len=4)
    >>> for inputs, targets in batcher:
    ...     print(batcher.starts_epoch, inputs.T.tolist(), targets.T.tolist())
    True [[0, 1, 2, 3], [6, 7, 8, 9]] [[1, 2, 3, 4], [7, 8, 9, 10]]
    False [[4, 5], [10, 11]] [[5, 6], [11, 12]]
    """

    epoch: int
    """Epochs completed."""
    position: int
    """Windows yielded in the epoch under way."""

    def __init__(
        self,
        tokens: Tensor | NDArray[Any],
        batch_size: int,
        seq_len: int,
        drop_last: bool = False,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("seq_len", seq_len)):
            if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
                raise ValueError(f"BPTTBatcher: {name} must be a positive integer, got {value!r}")
        if isinstance(tokens, np.ndarray):
            tokens = np.asarray(tokens)  # a memory map as an ordinary array, still not read
        stream = creation.as_tensor(tokens).detach()
        if stream.ndim != 1:
            raise ValueError(
                f"BPTTBatcher: tokens must be one stream of shape (N,), got {stream.shape}"
            )
        size = stream.shape[0]
        steps = max(size - 1, 0) // batch_size  # L
        fewest = seq_len if drop_last else 1
        if steps < fewest:
            raise ValueError(
                f"BPTTBatcher: {size} tokens are too few for {batch_size} lanes of {fewest} steps: "
                f"at least {batch_size * fewest + 1} are needed; lower batch_size or seq_len"
            )
        self.batch_size = batch_size
        self.seq_len = seq_len
        self.drop_last = drop_last
        self.tokens = stream
        self.epoch = 0
        self.position = 0
        self._resumed = False  # load_state_dict was called, its iteration has not begun
        used = batch_size * steps
        self._inputs = stream.array[:used].reshape(batch_size, steps).T  # (L, B), a view
        self._targets = stream.array[1 : used + 1].reshape(batch_size, steps).T  # (L, B), a view

    def __len__(self) -> int:
        """Windows per epoch."""
        full, rest = divmod(self._inputs.shape[0], self.seq_len)
        return int(full) + (rest > 0 and not self.drop_last)

    @property
    def starts_epoch(self) -> bool:
        """True while the window yielded last is the first of its epoch: carry no state into it."""
        return self.position == 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        first = self.position if self._resumed else 0
        self._resumed = False
        for position in range(first, len(self)):
            start = position * self.seq_len
            window = (
                self._window(self._inputs, start),  # (T, B)
                self._window(self._targets, start),  # (T, B)
            )
            self.position = position + 1
            yield window
        self.epoch += 1
        self.position = 0

    def state_dict(self) -> dict[str, int | bool]:
        """Where the batcher stands, and the sizes of the one it must be loaded into."""
        return {"epoch": self.epoch, "position": self.position, **self._identity()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Stand where `state_dict` was taken; the next iteration continues its epoch.

        Raises ValueError, and changes nothing, if the number of tokens, lanes or steps differs.
        """
        for name, here in self._identity().items():
            if state_dict.get(name) != here:
                raise ValueError(
                    "BPTTBatcher.load_state_dict: the state was taken with "
                    f"{name}={state_dict.get(name)!r}, this batcher has {name}={here!r}; "
                    "its windows would be other ones"
                )
        epoch, position = state_dict.get("epoch"), state_dict.get("position")
        if not isinstance(epoch, int) or not isinstance(position, int) or position > len(self):
            raise ValueError(
                f"BPTTBatcher.load_state_dict: epoch={epoch!r}, position={position!r} is no place "
                f"in an epoch of {len(self)} windows"
            )
        self.epoch = epoch
        self.position = position
        self._resumed = position > 0

    def _window(self, lanes: NDArray[Any], start: int) -> Tensor:
        window = lanes[start : start + self.seq_len]
        dtype = np.dtype(np.int64) if window.dtype.kind in "iu" else window.dtype
        return Tensor(window.astype(dtype, order="C"))

    def _identity(self) -> dict[str, int | bool]:
        return {
            "tokens": self.tokens.numel(),
            "batch_size": self.batch_size,
            "seq_len": self.seq_len,
            "drop_last": self.drop_last,
        }
