"""Random numbers from a seed: for initial weights, dropout, shuffling and sampling.

NumPy's counter-based Philox generator decides every number, so a seed gives the same weights and
masks on every device; its whole state is fourteen integers, which checkpoints keep. Uniform numbers
are drawn on the device that wants them (`philox.py`), all others on the host.
This file knows arrays only; `creation.py` wraps them in Tensors.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn import backend, philox
from tinygrad_rnn.backend import CPU, Array, DTypeLike, namespace, to_numpy
from tinygrad_rnn.graph import user_line
from tinygrad_rnn.modes import current


class Generator:
    """A stream of random numbers.

    `numpy` is the numpy.random.Generator behind it; use it for anything not offered here.
    device: as in PyTorch, but without effect: one stream serves all devices.

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

    # Draws: float32 unless another dtype is given. NumPy arrays, but for `uniform` elsewhere.

    def uniform(
        self,
        shape: tuple[int, ...],
        low: float = 0.0,
        high: float = 1.0,
        dtype: DTypeLike = None,
        device: str | backend.device = CPU,
    ) -> Array:
        """Uniform in [low, high)."""
        drawn = Numbers(self, "uniform", _drawable(dtype)).next(shape, device)
        with backend.computing_on(backend.device(device)):
            return _rounded(drawn, dtype or np.float32, low, high)

    def normal(
        self, shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0, dtype: DTypeLike = None
    ) -> Array:
        """Normal with the given mean and standard deviation."""
        drawn = Numbers(self, "normal", _drawable(dtype)).next(shape, CPU)
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


def _rounded(drawn: Array, dtype: DTypeLike, low: float = 0.0, high: float = 1.0) -> Array:
    """Uniform numbers in [0, 1), brought to a dtype and to [low, high)."""
    if np.dtype(dtype) == np.float16:
        drawn = namespace(drawn).floor(drawn * 2**11) / 2**11  # nothing between these and 1
    if (low, high) != (0, 1):
        drawn = drawn * float(high - low) + float(low)
    return drawn.astype(dtype, copy=False)


class Numbers(NamedTuple):
    """The numbers of one kind that a generator gives: n of them, and then m, are the next n + m.

    law: "uniform" in [0, 1), or "normal" with mean 0 and variance 1. precision: float32 or float64.
    """

    source: Generator
    law: str
    precision: Any

    def next(self, shape: tuple[int, ...], device: str | backend.device) -> Array:
        """As many as fit a shape, on a device; the same ones on every device."""
        if self.law == "normal":
            drawn = self.source.numpy.standard_normal(shape, self.precision)
            return backend.to_device(drawn, device)
        where = backend.device(device)
        xp = backend.library(where)
        if xp is np:
            return self.source.numpy.random(shape, self.precision)
        bits: Any = self.source.numpy.bit_generator
        with xp.cuda.Device(where.index):
            return philox.uniform(xp, bits, shape, self.precision)


class Draw:
    """A random array that is to be drawn: at once, or by a `scan` at each of its steps.

    finish: the array's values, given a number for each of them, of `numbers`.
    forms: (shape, dtype) of the array; of each, in a subclass that draws several together.
    sources: the generators that it draws from.
    """

    def __init__(
        self,
        numbers: Numbers,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        device: backend.device,
        finish: Callable[[Array], Array],
    ) -> None:
        self.numbers: Any = numbers  # None in a subclass that draws several kinds in turn
        self.device, self._finish = device, finish
        self.forms: list[tuple[tuple[int, ...], Any]] = [(shape, np.dtype(dtype))]
        self.sources = [numbers.source]

    def now(self) -> Array:
        """The array, drawn."""
        with backend.computing_on(self.device):
            return self._finish(self.numbers.next(self.forms[0][0], self.device))

    @property
    def size(self) -> int:
        """How many numbers it takes."""
        return sum(math.prod(shape) for shape, _ in self.forms)

    def times(self, count: int) -> list[Array]:
        """The arrays drawn `count` times, one after the other: (count, …) each."""
        return self.made_of(self.numbers.next((count, self.size), self.device))

    def made_of(self, numbers: Array) -> list[Array]:
        """As `times`, of given numbers (count, size)."""
        return [self._finish(numbers.reshape((len(numbers), *self.forms[0][0])))]


def uniform_draw(
    source: Generator, shape: tuple[int, ...], dtype: DTypeLike, device: backend.device
) -> Draw:
    """Uniform numbers in [0, 1), to be drawn."""
    numbers = Numbers(source, "uniform", _drawable(dtype))
    return Draw(numbers, shape, dtype, device, lambda drawn: _rounded(drawn, dtype))


def normal_draw(
    source: Generator, shape: tuple[int, ...], dtype: DTypeLike, device: backend.device
) -> Draw:
    """Normal numbers with mean 0 and variance 1, to be drawn."""
    numbers = Numbers(source, "normal", _drawable(dtype))
    return Draw(numbers, shape, dtype, device, lambda drawn: drawn.astype(dtype, copy=False))


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
