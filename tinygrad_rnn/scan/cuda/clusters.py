"""How much room does a GPU have for clusters of thread blocks?

The blocks of a cluster run on multiprocessors that are neighbours on the chip, and those come in
groups of different sizes. So only the driver knows how many clusters run at the same time: it is
asked about a kernel that does nothing, of which a block takes a whole multiprocessor. Every GPU
with clusters (from compute capability 9.0 on) has them of 8 blocks; some, as the H100, of 16, for
kernels that say so.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any, NamedTuple

_DIMENSION = 4  # CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
_MORE_THAN_EVERYWHERE = 14  # CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
EVERYWHERE = 8  # blocks of a cluster
_SIZES = (2, 4, 8, 16)


class Room(NamedTuple):
    """What a GPU has room for.

    clusters: how many run at the same time, by the number of their blocks; a block on its own is a
    cluster of one. shared: the bytes of shared memory that a block can have.
    """

    clusters: dict[int, int]
    shared: int


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute, as it says how many blocks a cluster has."""

    _fields_ = (
        ("id", ctypes.c_int),
        ("unused", ctypes.c_int),
        ("blocks", ctypes.c_uint * 3),
        ("rest", ctypes.c_char * 52),
    )


class _Launch(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("count", ctypes.c_uint),
    )


@functools.cache
def room(xp: Any, device: int) -> Room:
    """What the current GPU has room for; device: its number."""
    properties = xp.cuda.runtime.getDeviceProperties(device)
    processors, shared = properties["multiProcessorCount"], properties["sharedMemPerBlockOptin"]
    if properties["major"] < 9:
        return Room({1: processors}, shared)
    # Where the driver does not say, as if all multiprocessors were neighbours.
    counts = {blocks: processors // blocks for blocks in _SIZES if blocks <= EVERYWHERE}
    counts.update(_told(xp, shared))
    return Room({1: processors, **counts}, shared)


def _told(xp: Any, shared: int) -> dict[int, int]:
    """What the driver says, as far as it does."""
    try:
        probe = xp.RawKernel('extern "C" __global__ void probe() {}', "probe")
        probe.max_dynamic_shared_size_bytes = shared
        allow_any_size(xp, probe)
        counts = {blocks: _count(probe.kernel.ptr, blocks, shared) for blocks in _SIZES}
    except Exception:  # of a driver or a compiler that is not as expected: in many ways
        return {}
    return {blocks: count for blocks, count in counts.items() if count is not None}


def allow_any_size(xp: Any, kernel: Any) -> None:
    """Let the clusters of a kernel have more blocks than every GPU can run."""
    xp.cuda.driver.funcSetAttribute(kernel.kernel.ptr, _MORE_THAN_EVERYWHERE, 1)


def _count(function: int, blocks: int, shared: int) -> int | None:
    """How many clusters the driver says; None if it does not."""
    attribute = _Attribute(_DIMENSION, 0, (blocks, 1, 1))
    config = _Launch((blocks, 1, 1), (32, 1, 1), shared, None, ctypes.pointer(attribute), 1)
    count = ctypes.c_int()
    ask = load().cuOccupancyMaxActiveClusters
    status = ask(ctypes.byref(count), ctypes.c_void_p(function), ctypes.byref(config))
    return None if status else count.value


@functools.cache
def load() -> Any:
    """The driver's library, which CuPy has loaded by now."""
    return ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
