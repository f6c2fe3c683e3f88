"""The test double of CuPy refuses what CuPy refuses, and has nothing that CuPy has not.

The second half compares names and parameters with CuPy itself. That needs CuPy, but no GPU.
"""

import inspect
import re
import sys
import weakref

import numpy as np
import pytest
import strict_double as xp
import strict_double.special
from strict_double import cuda

from tinygrad_rnn import backend

HERE = {
    "x": xp.asarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "k": xp.asarray([0, 1]),
}


def there():
    with cuda.Device(1):
        return xp.ones((2, 3), np.float32)


# --- what it refuses -----------------------------------------------------------------------------

REFUSED = {
    "implicit conversion": lambda x, k: np.asarray(x),
    "a NumPy function": lambda x, k: np.concatenate([x, x]),
    "a NumPy ufunc": lambda x, k: np.tanh(x),
    "a NumPy array on the right": lambda x, k: x * np.ones(3),
    "a NumPy array on the left": lambda x, k: np.ones(3) * x,
    "a NumPy array for a ufunc": lambda x, k: xp.add(x, np.ones(3)),
    "NumPy arrays for a function": lambda x, k: xp.concatenate([np.ones(3)]),
    "a NumPy array to reduce": lambda x, k: xp.sum(np.ones(3)),
    "a NumPy array to assign": lambda x, k: x.__setitem__(0, np.ones(3)),
    "a NumPy array as an index": lambda x, k: x[np.array([0])],
    "a NumPy scalar on the right": lambda x, k: x + np.float64(1),
    "a NumPy scalar on the left": lambda x, k: np.float32(1) + x,
    "a NumPy scalar for a ufunc": lambda x, k: xp.multiply(x, np.float32(2)),
    "a NumPy scalar for where": lambda x, k: xp.where(x > 0, x, np.float64(0)),
    "a list on the right": lambda x, k: x * [1, 2, 3],
    "a list for a ufunc": lambda x, k: xp.add(x, [1, 2, 3]),
    "a list for a function": lambda x, k: xp.sum([1, 2]),
    "a list to assign": lambda x, k: x.__setitem__(0, [1, 2, 3]),
    "an array as a size": lambda x, k: xp.zeros(k),
    "an array as an axis": lambda x, k: x.sum(axis=k[1]),
    "truth": lambda x, k: bool(x.sum()),
    "truth in an if": lambda x, k: 1 if (x > 0).all() else 0,
    "float": lambda x, k: float(x.sum()),
    "int": lambda x, k: int(k[0]),
    "a range": lambda x, k: range(k[0]),
    "a slice to an array": lambda x, k: x[: k[1]],
    "membership": lambda x, k: 1 in k,
    "the maximum by comparing": lambda x, k: max(k),
    "an option that only NumPy has": lambda x, k: xp.sum(x, initial=3),
    "a sorting kind that only NumPy has": lambda x, k: xp.argsort(x, kind="quicksort"),
    "a method's kind": lambda x, k: x.argsort(kind="heapsort"),
    "a mode of take": lambda x, k: xp.take(x, k, mode="clip"),
    "an index that wraps around": lambda x, k: xp.take(x, k + 2, axis=0),
    "an index that wraps around in brackets": lambda x, k: x[k + 2],
    "two masks in one index": lambda x, k: x[k >= 0, xp.asarray([True, False, True])],
    "maximum.reduce": lambda x, k: xp.maximum.reduce(x),
    "multiply.reduceat": lambda x, k: xp.multiply.reduceat(x, k),
    "multiply.at": lambda x, k: xp.multiply.at(x, k, 2.0),
    "adding integers at positions": lambda x, k: xp.add.at(k, k, 1),
    "out= of a NumPy array": lambda x, k: xp.add(x, x, out=np.empty((2, 3), np.float32)),
    "out= in Fortran order": lambda x, k: xp.matmul(x, x.T, out=xp.empty((2, 2), "f", order="F")),
    "no bound at all": lambda x, k: xp.clip(x, None, None),
    "a bound that is an array of NumPy": lambda x, k: xp.clip(x, np.zeros(3), None),
    "an array of another device": lambda x, k: x + there(),
    "the other device only": lambda x, k: there() + 1,
    "a device that is not there": lambda x, k: cuda.Device(2).use(),
    "an array of objects": lambda x, k: xp.asarray(["a"]),
    "memory of the host": lambda x, k: xp.from_dlpack(np.ones(3)),
    "a stranger reading its memory": lambda x, k: np.from_dlpack(x),
    "a weak reference to memory": lambda x, k: weakref.ref(x.data.mem),
    "drawing": lambda x, k: xp.random,
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses(name):
    with pytest.raises(
        (TypeError, ValueError, IndexError, RuntimeError, AttributeError, BufferError)
    ):
        REFUSED[name](HERE["x"].copy(), HERE["k"].copy())


def test_what_is_said_aloud_is_read():
    x = xp.asarray(2.5)
    assert x.item() == 2.5
    assert x.tolist() == 2.5
    assert type(x.get()) is np.ndarray
    assert repr(x) == "array(2.5)"


# --- what it does --------------------------------------------------------------------------------


def test_results_are_arrays_of_the_double_always():
    x = HERE["x"]
    for y in (x.sum(), x[0, 0], x + 1, 1 - x, -x, x @ x.T, x > 2, xp.isclose(x, x), x.max(0)):
        assert type(y) is xp.ndarray
    assert [type(row) for row in x] == [xp.ndarray] * 2
    assert [type(part) for part in xp.unique(x, return_counts=True)] == [xp.ndarray] * 2
    assert (x * 2.0).dtype == (x + 1).dtype == np.float32


def test_it_computes_what_numpy_computes():
    x, host = HERE["x"], HERE["x"].get()
    for y, expected in (
        (xp.where(x > 2, x, 0), np.where(host > 2, host, 0)),
        (2**x, 2**host),
        (xp.einsum("ij,kj->ik", x, x), host @ host.T),
        (xp.pad(x, ((0, 1), (2, 0))), np.pad(host, ((0, 1), (2, 0)))),
        (x[xp.asarray([1, 1, 0])], host[[1, 1, 0]]),
        (x[:, xp.asarray([True, False, True])], host[:, [True, False, True]]),
        (xp.linalg.norm(x), np.linalg.norm(host)),
    ):
        np.testing.assert_array_equal(y.get(), expected)


def test_it_divides_by_zero_in_silence():
    """A GPU warns of nothing; and warnings are errors in these tests."""
    x = xp.zeros(2)
    assert np.isnan((x / x).get()).all()
    assert np.isinf(xp.log(x).get()).all()
    assert np.isinf(xp.exp(xp.full(2, 1e6)).get()).all()


def test_in_place_operations_and_out_write_there():
    x = HERE["x"].copy()
    y = x
    y += 1
    xp.multiply(x, 2.0, out=x)
    assert y is x
    assert x[0].tolist() == [2, 4, 6]
    xp.copyto(x, 0.0, where=x > 3)
    x[1] = xp.ones(3)
    assert x.tolist() == [[2, 0, 0], [1, 1, 1]]


def test_views_share_memory_and_know_whose_it_is():
    x = xp.zeros((3, 4))
    for view in (x[1], x.T, x.T[1:], x.reshape(4, 3), x[None], xp.broadcast_to(x, (2, 3, 4))):
        assert view.base is x
        assert view.data.mem is x.data.mem
        assert xp.may_share_memory(view, x)
    for other in (x.copy(), x + 0, x.T.reshape(12), x[xp.asarray([0])]):
        assert other.base is None
        assert other.data.mem is not x.data.mem
    assert x[1].data.ptr == x.data.ptr + x.strides[0]
    x[1][...] = 7
    assert x.tolist() == [[0] * 4, [7] * 4, [0] * 4]


def test_a_single_element_is_a_view_too():
    """Unlike NumPy's."""
    x = xp.zeros((2, 3))
    for element in (x[0, 1], x[1][2], next(iter(x[0]))):
        element += 1
    assert x.tolist() == [[1, 1, 0], [0, 0, 1]]


def test_what_is_computed_is_in_c_order():
    """Unlike NumPy's, of operands in Fortran order."""
    x = xp.zeros((2, 3)).T
    for y in (x + 1, -x, xp.tanh(x), xp.add(x, x), x @ x.T):
        assert y.flags.c_contiguous


def test_memory_counts_its_pointers():
    """A part has a pointer of its own; whoever only turns or reshapes shares one, as in CuPy."""
    x = xp.zeros((3, 4))
    counts = [sys.getrefcount(x.data.mem)]
    parts = [x[1], x[...]]
    counts.append(sys.getrefcount(x.data.mem))
    turned = [x.T, x.reshape(12), parts[0].reshape(2, 2)]
    counts.append(sys.getrefcount(x.data.mem))
    parts.clear()
    counts.append(sys.getrefcount(x.data.mem))
    turned.clear()
    counts.append(sys.getrefcount(x.data.mem))
    assert [count - counts[0] for count in counts] == [0, 2, 2, 1, 0]


def test_memory_in_use_is_counted_on_each_device():
    pool = xp.get_default_memory_pool()
    before = pool.used_bytes()
    x = xp.zeros(1000)
    assert pool.used_bytes() == before + 8192  # in units of 512
    with cuda.Device(1):
        y = xp.zeros(500)
        assert pool.used_bytes() >= 4000
    assert pool.used_bytes() == before + 8192  # in units of 512
    assert (x.device.id, y.device.id) == (0, 1)
    del x
    assert pool.used_bytes() == before


def test_devices_and_streams_go_back_to_what_they_were():
    assert cuda.runtime.getDeviceCount() == 2
    with cuda.Device(1) as device:
        assert cuda.get_device_id() == device.id == 1
        assert cuda.Device() == device
    assert cuda.get_device_id() == 0
    assert cuda.get_current_stream() is cuda.Stream.null
    with cuda.Stream(non_blocking=True) as stream:
        assert cuda.get_current_stream() is stream
        start, end = cuda.Event(), cuda.Event()
        start.record()
        end.record()
        assert cuda.get_elapsed_time(start, end) >= 0
    assert cuda.get_current_stream() is cuda.Stream.null


def test_arrays_move_between_devices_when_they_are_asked_to():
    x = there()
    assert xp.asarray(x).device.id == 0
    assert (xp.asarray(x) + 1).tolist() == [[2] * 3] * 2
    assert x.device.id == 1


def test_another_array_on_the_same_memory_by_dlpack():
    x = xp.zeros(3)
    y = xp.from_dlpack(x)
    y[0] = 1
    assert x.tolist() == [1, 0, 0]
    assert x.__dlpack_device__() == (2, 0)
    assert x.__cuda_array_interface__["data"] == (x.data.ptr, False)


# --- as CuPy, where that is installed ------------------------------------------------------------


@pytest.fixture(scope="module")
def cupy():
    return pytest.importorskip("cupy", reason="CuPy is not installed")


def names(space):
    return [name for name in vars(space) if not name.startswith("_")]


def parameters(function):
    """Names of parameters in order; from the first line of its text for a compiled function."""
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:
        inside = re.match(r"[\w.]+\((.*)\)", function.__doc__.splitlines()[0])[1]
        words = [part.split("=")[0].split()[-1].lstrip("*") for part in inside.split(",")]
        return [word for word in words if word not in ("", "/")]


# The double's own names: its files, and what tests say to it.
OWN = {"compiled", "cublas", "driver", "functions", "nvrtc", "ptx", "runtime", "special"}


def test_every_name_is_cupys(cupy):
    unknown = [n for n in names(xp) if n not in OWN and not hasattr(cupy, n)]
    assert not unknown


@pytest.mark.parametrize(
    "name", [n for n in names(xp) if inspect.isfunction(getattr(xp, n)) and n not in OWN]
)
def test_parameters_of_functions_are_cupys(cupy, name):
    """In the same order, so that they mean the same by position; the double may have fewer."""
    theirs = parameters(getattr(cupy, name))
    ours = parameters(getattr(xp, name))
    if theirs[:1] == ["args"]:  # matmul, whose parameters CuPy does not tell
        assert set(ours[2:]) <= set(theirs)
    else:
        assert ours == theirs[: len(ours)]


def test_parameters_of_the_driver_are_cupys(cupy):
    theirs = parameters(cupy.cuda.driver.funcSetAttribute)
    assert parameters(xp.cuda.driver.funcSetAttribute) == theirs


UFUNCS = [n for n in names(xp) if type(getattr(xp, n)).__name__ == "ufunc"]


@pytest.mark.parametrize("name", UFUNCS)
def test_ufuncs_are_cupys_and_have_its_dtypes(cupy, name):
    theirs, numpy = getattr(cupy, name), getattr(np, name)
    assert type(theirs).__name__ == "ufunc"
    assert (theirs.nin, theirs.nout) == (numpy.nin, numpy.nout)
    for dtype in "?bBhHiIlLqQefd":
        operands = [np.ones(1, dtype)] * numpy.nin
        try:
            result = numpy(*operands).dtype
        except TypeError:
            continue
        loops = [loop.split("->") for loop in theirs.types]
        fitting = [out for into, out in loops if all(np.can_cast(dtype, t) for t in into)]
        assert fitting, f"{name} of {np.dtype(dtype)}"
        assert np.dtype(fitting[0]) == result


ATTRIBUTES = [n for n in dir(xp.ndarray) if re.match("[a-zA-Z]|__", n) and n not in dir(object)]


@pytest.mark.parametrize("name", sorted({*ATTRIBUTES} - {"host", "__weakref__"}))
def test_attributes_of_arrays_are_cupys(cupy, name):
    ours, theirs = getattr(xp.ndarray, name), getattr(cupy.ndarray, name, None)
    assert theirs is not None
    if inspect.isfunction(ours) and not name.startswith("__"):
        assert parameters(ours) == parameters(theirs)[: len(parameters(ours))]


@pytest.mark.parametrize(
    "kind",
    ["Device", "Stream", "Event", "Memory", "MemoryPointer", "MemoryPool", "Graph", "runtime"],
)
def test_what_devices_have_is_cupys(cupy, kind):
    ours, theirs = getattr(cuda, kind), getattr(cupy.cuda, kind)
    own = {"owner", "annotations", "MEMORY", "launches"}
    assert not [name for name in names(ours) if name not in own and not hasattr(theirs, name)]


def test_special_functions_have_cupys_dtypes(cupy):
    """Of a float16 too, which CuPy takes to float64."""
    special = pytest.importorskip("cupyx.scipy.special")
    for loop in special.erf.types:
        dtype, result = loop.split("->")
        assert xp.special.erf(xp.ones(1, dtype)).dtype == np.dtype(result)


def test_cupys_arrays_are_known_by_their_type(cupy):
    assert backend._library(cupy.ndarray) is cupy
