"""Which GPUs are there, which of them computes, and how full are they? As PyTorch's `cuda` says it.

Nothing here needs CuPy: without it there is no GPU. Tensors get to one by `x.to("cuda")`; what
devices and arrays are is in `backend.py`. Streams are CuPy's: everything is computed on the stream
that is current there (`cupy.cuda.Stream` chooses), so what one program asks for is done in order.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tinygrad_rnn import backend, random

Device = str | int | backend.device | None


class DeviceProperties(NamedTuple):
    """What a GPU is. total_memory: in bytes. major, minor: its compute capability, 9.0 for Hopper.

    multi_processor_count: how many blocks of threads run at once, at least.
    """

    name: str
    total_memory: int
    multi_processor_count: int
    major: int
    minor: int


def is_available() -> bool:
    """Whether tensors can live on a GPU: CuPy is installed, and finds one."""
    return device_count() > 0


def device_count() -> int:
    """The number of GPUs; 0 without CuPy."""
    return backend.gpu_count()


def current_device() -> int:
    """The number of the GPU that computes, and that "cuda" without a number means.

    As in PyTorch there must be one: RuntimeError if not.
    """
    return _number(None)


def set_device(device: Device) -> None:
    """Let this GPU compute from now on, in this thread. Operations on another's tensors raise."""
    number = _number(device)
    _runtime().setDevice(number)


@contextmanager
def device(device: Device) -> Iterator[None]:
    """Let this GPU compute inside a `with` statement."""
    before = current_device()
    set_device(device)
    try:
        yield
    finally:
        set_device(before)


def get_device_name(device: Device = None) -> str:
    """What a GPU is called; the one that computes if none is named, here and below."""
    return get_device_properties(device).name


def get_device_capability(device: Device = None) -> tuple[int, int]:
    """The compute capability (major, minor)."""
    properties = get_device_properties(device)
    return properties.major, properties.minor


def get_device_properties(device: Device = None) -> DeviceProperties:
    """Name, memory, size and compute capability. RuntimeError if there is no such GPU."""
    number = _number(device)
    found = _runtime().getDeviceProperties(number)
    return DeviceProperties(
        found["name"].decode(),
        found["totalGlobalMem"],
        found["multiProcessorCount"],
        found["major"],
        found["minor"],
    )


def mem_get_info(device: Device = None) -> tuple[int, int]:
    """Bytes of memory that no program uses, and bytes in all."""
    with _on(device):
        free, total = _runtime().memGetInfo()
    return free, total


def memory_allocated(device: Device = None) -> int:
    """Bytes that arrays use, of those that CuPy's memory pool holds; 0 without a GPU."""
    if not is_available():
        return 0
    with _on(device) as library:
        return int(library.get_default_memory_pool().used_bytes())


def memory_reserved(device: Device = None) -> int:
    """Bytes that CuPy's memory pool holds, used or kept for later arrays; 0 without a GPU."""
    if not is_available():
        return 0
    with _on(device) as library:
        return int(library.get_default_memory_pool().total_bytes())


def empty_cache() -> None:
    """Give memory that CuPy keeps for later arrays back; without a GPU, there is none."""
    if is_available():
        backend.library("cuda").get_default_memory_pool().free_all_blocks()


def synchronize(device: Device = None) -> None:
    """Wait until a GPU has computed all that was asked of it; without one, there is no wait."""
    if is_available():
        with _on(device):
            _runtime().deviceSynchronize()


def manual_seed(seed: int) -> None:
    """As `tinygrad_rnn.manual_seed`: numbers for every device are drawn from one stream."""
    random.manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """As `manual_seed`."""
    random.manual_seed(seed)


def _number(device: Device) -> int:
    """The number of a GPU that there is; of the one that computes for None."""
    chosen = backend.device("cuda" if device is None else device)
    if chosen.index is None:
        raise ValueError(f"expected a GPU, got device '{chosen}'")
    backend.library(chosen)
    return chosen.index


@contextmanager
def _on(device: Device) -> Iterator[Any]:
    """CuPy, with this GPU as the one that computes."""
    library = backend.library("cuda")
    with library.cuda.Device(_number(device)):
        yield library


def _runtime() -> Any:
    """CUDA's runtime, as CuPy hands it on."""
    return backend.library("cuda").cuda.runtime
