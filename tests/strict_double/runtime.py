"""What the driver of the test double says: `cupy.cuda.runtime`, with two GPUs and a current one."""

from __future__ import annotations

MEMORY = 8 << 30  # bytes, of each GPU

_current = 0


class CUDARuntimeError(RuntimeError):
    """As CuPy's: a call that the driver refuses."""


def getDeviceCount():
    return 2


def getDevice():
    return _current


def setDevice(device):
    global _current
    if not 0 <= device < getDeviceCount():
        raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
    _current = device


def getDeviceProperties(device):
    if not 0 <= device < getDeviceCount():
        raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
    return {
        "name": f"Strict double {device}".encode(),
        "totalGlobalMem": MEMORY,
        "multiProcessorCount": 132,
        "sharedMemPerBlockOptin": 227 << 10,
        "sharedMemPerMultiprocessor": 228 << 10,
        "major": 9,
        "minor": 0,
    }


def memGetInfo():
    """Bytes: free, in all. That nothing is in use is as good a figure as any."""
    return MEMORY, MEMORY


def driverGetVersion():
    return 13000


def runtimeGetVersion():
    return 13000


def deviceSynchronize():
    pass
