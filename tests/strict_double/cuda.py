"""Devices, streams, events and memory of the test double: `cupy.cuda`, with two GPUs on the host.

Nothing runs asynchronously: a stream is a name, and an event a time. While a stream captures, what
is launched (kernels, products of matrices, most operations on arrays) is noted down for the graph;
what is not noted is refused. The arrays are in `array.py`.
"""

from __future__ import annotations

import collections
import contextlib
import sys
import time

from strict_double import driver as driver
from strict_double import runtime
from strict_double.runtime import CUDARuntimeError

_stream = None  # the current stream; None for the null stream


class Device:
    """One of the two GPUs; in a `with` statement, the current one. Without a number, that one."""

    def __init__(self, device=None):
        self.id = runtime.getDevice() if device is None else int(device)
        self._before = []

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self):
        return hash(self.id)

    def __int__(self):
        return self.id

    def use(self):
        runtime.setDevice(self.id)

    def __enter__(self):
        self._before.append(runtime.getDevice())
        self.use()
        return self

    def __exit__(self, *exc_info):
        runtime.setDevice(self._before.pop())

    def synchronize(self):
        pass

    @property
    def compute_capability(self):
        return "90"

    @property
    def mem_info(self):
        return runtime.memGetInfo()


def get_device_id():
    """The number of the current device."""
    return runtime.getDevice()


def is_available():
    """Whether there is a GPU: two."""
    return True


def library():
    """The package: what `import cupy` would give."""
    return sys.modules["strict_double"]


# --- streams -------------------------------------------------------------------------------------


class Stream:
    """A stream, which computes at once."""

    null: Stream
    _count = 0

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        Stream._count += not null
        self.ptr = 0 if null else Stream._count
        self.is_non_blocking = non_blocking
        self._before = []
        self._captured = None  # what is launched while a graph is captured
        self._results = []  # the NumPy arrays that it will compute

    def use(self):
        global _stream
        _stream = self

    def __enter__(self):
        self._before.append(_stream)
        self.use()
        return self

    def __exit__(self, *exc_info):
        global _stream
        _stream = self._before.pop()

    def synchronize(self):
        pass

    def record(self, event=None):
        event = Event() if event is None else event
        event.record(self)
        return event

    def wait_event(self, event):
        pass

    def is_capturing(self):
        return self._captured is not None

    def begin_capture(self, mode=None):
        if not self.ptr:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: the default stream")
        self._captured = []

    def end_capture(self):
        captured, self._captured, self._results = self._captured, None, []
        if captured is None:
            raise CUDARuntimeError("cudaErrorIllegalState: no capture was begun")
        return Graph(captured)


Stream.null = Stream(null=True)


class Graph:
    """Launches that were captured, to be done all at once. It holds on to no array, as CuPy's."""

    def __init__(self, launches):
        self.launches = launches

    def launch(self, stream=None):
        check_not_capturing()
        for function, args in self.launches:
            function(*args)

    def upload(self, stream=None):
        pass


def launch(function, *args):
    """Do something on the device; or note it down, if the current stream captures."""
    captured = get_current_stream()._captured
    if captured is None:
        function(*args)
    else:
        captured.append((function, args))


def capture(function, *args):
    """Note something down that the current stream, which captures, will do."""
    get_current_stream()._captured.append((function, args))


def note(result):
    """A NumPy array will be computed by the graph that is being captured."""
    get_current_stream()._results.append(result)


def check_captured(result):
    """Raise CUDARuntimeError if a stream captures, and a NumPy array will not be computed by it."""
    stream = get_current_stream()
    if stream.is_capturing() and not any(x is result for x in stream._results):
        check_not_capturing()


def check_not_capturing():
    """Raise CUDARuntimeError if the current stream captures."""
    if get_current_stream().is_capturing():
        raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: this cannot be captured")


def get_current_stream(device_id=-1):
    """The stream that computations go to."""
    return Stream.null if _stream is None else _stream


class Event:
    """A moment, by the host's clock."""

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        self._seconds = None

    def record(self, stream=None):
        self._seconds = time.perf_counter()

    def synchronize(self):
        pass

    @property
    def done(self):
        return True


def get_elapsed_time(start_event, end_event):
    """Milliseconds between two events."""
    return (end_event._seconds - start_event._seconds) * 1e3


# --- memory --------------------------------------------------------------------------------------

UNIT = 512  # of the memory that a pool hands out, in bytes
_used = collections.Counter()  # bytes, by device


class Memory:
    """One allocation: the NumPy array that owns it, and the device it is said to be on."""

    __slots__ = ("device_id", "owner", "size")  # so that, as CuPy's, it takes no weak references

    def __init__(self, owner):
        self.owner = owner
        self.device_id = runtime.getDevice()
        self.size = -(-owner.nbytes // UNIT) * UNIT
        _used[self.device_id] += self.size

    def __del__(self):
        _used[self.device_id] -= self.size

    @property
    def ptr(self):
        return self.owner.ctypes.data

    @property
    def device(self):
        return Device(self.device_id)


class MemoryPointer:
    """Where an array's first element is, and the allocation that it is in."""

    __slots__ = ("_host", "mem")

    def __init__(self, mem, host):
        self.mem = mem
        self._host = host

    @property
    def ptr(self):
        return self._host.ctypes.data

    @property
    def device_id(self):
        return self.mem.device_id

    @property
    def device(self):
        return Device(self.mem.device_id)


class MemoryPool:
    """The figures of the current device's pool, which keeps nothing back."""

    def used_bytes(self):
        return _used[runtime.getDevice()]

    def total_bytes(self):
        return self.used_bytes()

    def free_bytes(self):
        return 0

    def free_all_blocks(self, stream=None):
        pass

    def malloc(self, size):
        raise NotImplementedError("arrays of the double are NumPy's, and never ask")


@contextlib.contextmanager
def using_allocator(allocator=None):
    """Where memory comes from; the double's always comes from NumPy."""
    yield
