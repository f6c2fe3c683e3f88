"""The driver of the test double: `cupy.cuda.driver`, and what ctypes would give of libcuda.

Functions are numbers. What the driver would refuse is an error, or a status other than 0.
"""

from __future__ import annotations

import ctypes
import itertools

from strict_double import runtime
from strict_double.runtime import CUDARuntimeError

INVALID_VALUE, INVALID_CLUSTER_SIZE = 1, 912
_NON_PORTABLE_CLUSTER_SIZE_ALLOWED = 14
_CLUSTER_DIMENSION = 4
_numbers = itertools.count(1)
_functions = {}  # by number


class Function:
    """A compiled kernel; `ptr` is its number."""

    def __init__(self):
        self.ptr = next(_numbers)
        self.any_cluster_size = False
        self.shared = 48 << 10  # bytes that a launch may ask for
        _functions[self.ptr] = self


def funcSetAttribute(f, attribute, value):
    if f not in _functions or attribute != _NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
        raise CUDARuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
    _functions[f].any_cluster_size = bool(value)


class Library:
    """libcuda, which reads what it is given byte by byte, as cuda.h says that it lies."""

    def cuOccupancyMaxActiveClusters(self, count, function, config):
        given = bytes(config._obj)
        grid, block = (
            [int.from_bytes(given[at + 4 * n : at + 4 * n + 4], "little") for n in range(3)]
            for at in (0, 12)
        )
        shared, attributes, number = (
            int.from_bytes(given[at : at + size], "little")
            for at, size in ((24, 4), (40, 8), (48, 4))
        )
        if len(given) != 56 or number != 1 or function.value not in _functions:
            return INVALID_VALUE
        if shared > _functions[function.value].shared:
            return INVALID_VALUE
        attribute = ctypes.string_at(attributes, 72)
        kind, *cluster = (int.from_bytes(attribute[at : at + 4], "little") for at in (0, 8, 12, 16))
        if kind != _CLUSTER_DIMENSION or 0 in [*grid, *block] or grid[0] % cluster[0]:
            return INVALID_VALUE
        if cluster[1:] != [1, 1] or cluster[0] > self._most(function.value):
            return INVALID_CLUSTER_SIZE
        properties = runtime.getDeviceProperties(runtime.getDevice())
        alone = 2 * shared > properties["sharedMemPerMultiprocessor"]
        count._obj.value = properties["multiProcessorCount"] * (1 if alone else 2) // cluster[0]
        return 0

    def _most(self, function):
        """How many blocks a cluster of a function may have."""
        return 16 if _functions[function].any_cluster_size else 8
