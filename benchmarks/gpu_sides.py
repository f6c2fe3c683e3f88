"""The two libraries that are compared on a GPU: how each is called, timed, and weighed.

A Side is tinygrad_rnn or PyTorch on one device, with a meter: marks in the stream of work (CUDA's
events on a GPU, the clock on a host), and the bytes that its arrays occupy. Both sides compute on
the same numbers, which PyTorch draws and tinygrad_rnn sees through DLPack, in the same memory. What
is timed stands in gpu_cases.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import tinygrad_rnn
from tinygrad_rnn.scan import forget


class Meter(Protocol):
    """Time and memory, as one library sees them."""

    def mark(self) -> Any:
        """A place in the stream of work: after all that was asked for so far."""

    def seconds(self, start: Any, end: Any) -> float:
        """From one mark to another; both must have been passed."""

    def wait(self) -> None:
        """Until all that was asked for is done."""

    def used(self) -> int | None:
        """Bytes that arrays occupy now; None where that is not counted."""

    def highest(self, step: Callable[[], Any]) -> int | None:
        """Run a step: the most bytes that arrays occupied at one time."""

    def release(self) -> None:
        """Give back memory that is kept for later arrays."""


class Host:
    """The clock of the machine itself. Memory is not counted."""

    def mark(self) -> float:
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        return end - start

    def wait(self) -> None:
        pass

    def used(self) -> None:
        return None

    def highest(self, step: Callable[[], Any]) -> None:
        step()

    def release(self) -> None:
        pass


class OnCuPy:
    """CuPy's events in the current stream, and its memory pool."""

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self.pool = cupy.get_default_memory_pool()

    def mark(self) -> Any:
        event = self.cupy.cuda.Event()
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        return self.cupy.cuda.get_elapsed_time(start, end) / 1e3

    def wait(self) -> None:
        self.cupy.cuda.Device().synchronize()

    def used(self) -> int:
        return self.pool.used_bytes()

    def highest(self, step: Callable[[], Any]) -> int:
        class Highest(self.cupy.cuda.MemoryHook):
            """Counts along with the pool, which does not remember its highest."""

            name = "Highest"
            used = highest = self.used()

            def malloc_postprocess(self, **memory: int) -> None:
                self.used += memory["mem_size"]
                self.highest = max(self.highest, self.used)

            def free_postprocess(self, **memory: int) -> None:
                self.used -= memory["mem_size"]

        with Highest() as hook:
            step()
        return hook.highest

    def release(self) -> None:
        forget()
        self.pool.free_all_blocks()


class OnTorch:
    """PyTorch's events in its current stream, and its caching allocator."""

    def __init__(self, torch: Any) -> None:
        self.cuda = torch.cuda

    def mark(self) -> Any:
        event = self.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        return start.elapsed_time(end) / 1e3

    def wait(self) -> None:
        self.cuda.synchronize()

    def used(self) -> int:
        return self.cuda.memory_allocated()

    def highest(self, step: Callable[[], Any]) -> int:
        self.cuda.reset_peak_memory_stats()
        step()
        return self.cuda.max_memory_allocated()

    def release(self) -> None:
        self.cuda.empty_cache()


@dataclass
class Side:
    """A library on one device.

    given: a PyTorch tensor as one of the library's, without gradients. taken: the way back.
    set_tf32: whether products of float32 matrices may be taken in TF32.
    """

    library: Any
    device: str
    meter: Meter
    given: Callable[[Any], Any]
    taken: Callable[[Any], Any]
    set_tf32: Callable[[bool], None]


def ours(cupy: Any, torch: Any) -> Side:
    """tinygrad_rnn on the GPU."""
    return Side(
        tinygrad_rnn,
        "cuda",
        OnCuPy(cupy),
        given=lambda tensor: tinygrad_rnn.from_dlpack(tensor.detach()),
        taken=lambda tensor: torch.from_dlpack(tensor.detach().array),
        set_tf32=_set_our_tf32,
    )


def theirs(torch: Any) -> Side:
    """PyTorch on the GPU."""
    return Side(
        torch,
        "cuda",
        OnTorch(torch),
        given=lambda tensor: tensor.detach(),
        taken=lambda tensor: tensor.detach(),
        set_tf32=lambda allowed: _set_their_tf32(torch, allowed),
    )


def _set_our_tf32(allowed: bool) -> None:
    tinygrad_rnn.set_float32_matmul_precision("high" if allowed else "highest")


def _set_their_tf32(torch: Any, allowed: bool) -> None:
    """For cuBLAS and for cuDNN's recurrent layers, by the names that PyTorch has from 2.9 on."""
    precision = "tf32" if allowed else "ieee"
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.rnn.fp32_precision = precision
