"""Is there a GPU, and how many? The part of PyTorch's `cuda` that scripts ask before they compute.

Nothing here needs CuPy: without it there is no GPU. Tensors get there by `x.to("cuda")`; what
arrays and devices are is in `backend.py`.
"""

from __future__ import annotations

from typing import Any

from tinygrad_rnn import backend, random


def is_available() -> bool:
    """Whether tensors can live on a GPU: CuPy is installed, and finds one."""
    try:
        backend.library("cuda")
    except RuntimeError:
        return False
    return True


def device_count() -> int:
    """The number of GPUs; 0 without CuPy."""
    return backend.library("cuda").cuda.runtime.getDeviceCount() if is_available() else 0


def current_device() -> int:
    """The number of the GPU that "cuda" without a number means: always 0, as `device` says.

    As in PyTorch there must be one: RuntimeError if not.
    """
    backend.library("cuda")
    return backend.device("cuda").index or 0


def synchronize(device: str | int | backend.device | None = None) -> None:
    """Wait until a GPU has computed all that was asked of it; without one, there is no wait."""
    if is_available():
        if device is None or isinstance(device, int):
            device = f"cuda:{device or 0}"
        library: Any = backend.library("cuda")
        library.cuda.Device(backend.device(device).index).synchronize()


def empty_cache() -> None:
    """Give GPU memory that CuPy keeps for later arrays back; without a GPU, there is none."""
    if is_available():
        backend.library("cuda").get_default_memory_pool().free_all_blocks()


def manual_seed(seed: int) -> None:
    """As `tinygrad_rnn.manual_seed`: numbers for every device are drawn from one stream."""
    random.manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """As `manual_seed`."""
    random.manual_seed(seed)
