"""Random numbers from a seed: for initial weights, dropout, shuffling and sampling.

Numbers are drawn on the host by NumPy's counter-based Philox generator, so a seed gives the same
weights and masks on every device; its whole state is fourteen integers, which checkpoints keep.
This file knows arrays only; `creation.py` wraps them in Tensors.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np

from tinygrad_rnn.backend import Array, DTypeLike, to_numpy
from tinygrad_rnn.graph import user_line
from tinygrad_rnn.modes import current


class Generator:
    """A stream of random numbers.

    `numpy` is the numpy.random.Generator behind it; use it for anything not offered here.
    device: as in PyTorch, but without effect: numbers are drawn on the host, for every device.

    >>> a, b = Generator(7), Generator(7)
    >>> bool((a.uniform((3,)) == b.uniform((3,))).all())
    True
    """

    def __init__(self, seed: int = 0, device: Any = None) -> None:
        self.manual_seed(seed)

    def manual_seed(self, seed: int) -> Generator:
        """Start again from a seed; any integer."""
        self._seed = int(seed)
        self._numpy = np.random.Generator(np.random.Philox(self._seed % 2**128))
        return self

    @property
    def numpy(self) -> np.random.Generator:
        """What draws. Raises RuntimeError in a step that `scan` writes down, where it would once.

        `rand`, `randn`, `bernoulli` and dropout leave the drawing to the scan, for each step.
        """
        if current.trace is not None:
            raise RuntimeError(
                "scan: the cell draws random numbers, and would get the same ones at every step, "
                f"at {user_line()}\nInside a step use torch.rand, randn, bernoulli or dropout, or "
                "draw all steps' numbers beforehand and pass them with xs, or use unroll"
            )
        return self._numpy

    def initial_seed(self) -> int:
        """The seed this stream was last started from."""
        return self._seed

    def seed(self) -> int:
        """Start again from a seed that the operating system draws, and return it."""
        return self.manual_seed(secrets.randbits(63)).initial_seed()

    def get_state(self) -> np.ndarray[Any, Any]:
        """Where the stream is, as 14 unsigned 64-bit integers."""
        state: Any = self._numpy.bit_generator.state
        loose = [state["buffer_pos"], state["has_uint32"], state["uinteger"], self._seed % 2**64]
        parts = (state["state"]["counter"], state["state"]["key"], state["buffer"])
        return np.concatenate([*parts, np.array(loose, np.uint64)])

    def set_state(self, state: Any) -> Generator:
        """Go to where `get_state` was called. Raises ValueError for anything else."""
        values = to_numpy(getattr(state, "array", state))
        if values.shape != (14,) or values.dtype != np.uint64:
            raise ValueError(
                f"set_state: expected the 14 uint64 of get_state, got {values.shape} {values.dtype}"
            )
        self._seed = int(values[13])
        bits = np.random.Philox(0)
        bits.state = {
            "bit_generator": "Philox",
            "state": {"counter": values[:4].copy(), "key": values[4:6].copy()},
            "buffer": values[6:10].copy(),
            "buffer_pos": int(values[10]),
            "has_uint32": int(values[11]),
            "uinteger": int(values[12]),
        }
        self._numpy = np.random.Generator(bits)
        return self

    # Draws: NumPy arrays on the host.

    def uniform(
        self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0, dtype: DTypeLike = None
    ) -> Array:
        """Uniform in [low, high)."""
        drawn = self.numpy.random(shape, _drawable(dtype))
        if dtype is not None and np.dtype(dtype) == np.float16:
            drawn = np.floor(drawn * 2**11) / 2**11  # float16 has nothing between these and 1
        return (drawn * (high - low) + low).astype(dtype or np.float32, copy=False)

    def normal(
        self, shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0, dtype: DTypeLike = None
    ) -> Array:
        """Normal with the given mean and standard deviation."""
        drawn = self.numpy.standard_normal(shape, _drawable(dtype))
        return (drawn * std + mean).astype(dtype or np.float32, copy=False)

    def integers(self, shape: tuple[int, ...], low: int, high: int) -> Array:
        """Integers in [low, high), as int64."""
        return self.numpy.integers(low, high, shape)

    def permutation(self, n: int) -> Array:
        """The integers 0 … n-1 in random order, as int64."""
        return self.numpy.permutation(n)

    def multinomial(self, weights: Array, count: int, replacement: bool) -> Array:
        """`count` column numbers for each row of weights (R, N), each with chance ∝ its weight.

        Without replacement, by the exponential race: the `count` smallest of Exp(1)/weight.
        """
        weights = np.asarray(weights, np.float64)
        if replacement:
            upto = np.cumsum(weights, axis=-1)
            points = self.numpy.random((len(weights), count)) * upto[:, -1:]
            found = [
                np.searchsorted(row, at, "right") for row, at in zip(upto, points, strict=True)
            ]
            return np.asarray(found, np.int64).reshape(len(weights), count)
        waits = self.numpy.standard_exponential(weights.shape)
        race = np.divide(waits, weights, out=np.full_like(waits, np.inf), where=weights > 0)
        return np.argsort(race, axis=-1, kind="stable")[:, :count].astype(np.int64)


def _drawable(dtype: DTypeLike) -> Any:
    """The dtype NumPy draws in: float64 for float64, else float32."""
    if dtype is not None and np.dtype(dtype).kind != "f":
        raise NotImplementedError(f"cannot draw {np.dtype(dtype)} values here; use randint")
    return np.float64 if dtype is not None and np.dtype(dtype) == np.float64 else np.float32


_default = Generator()


def generator() -> Generator:
    """The generator used wherever none is named."""
    return _default


def manual_seed(seed: int) -> Generator:
    """Start the default generator again from a seed, and return it."""
    return _default.manual_seed(seed)


def seed() -> int:
    """Start the default generator from a seed that the operating system draws, and return it."""
    return _default.seed()


def initial_seed() -> int:
    """The seed the default generator was last started from."""
    return _default.initial_seed()
