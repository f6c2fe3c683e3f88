"""What the tests share: how Hypothesis draws examples, and the devices to test on.

The examples are the same on every run and every machine, so a failure repeats. To look for new
ones: `pytest --hypothesis-profile=thorough tests/test_ops.py`.
"""

import collections
import contextlib
import importlib.util
import os
import sys

import pytest
import strict_double
import strict_double.cublas
import strict_double.driver
import strict_double.special
from hypothesis import HealthCheck, settings
from strict_double import nvrtc
from strict_double.compiled import has_compiler

from tinygrad_rnn import backend
from tinygrad_rnn.scan.cuda import clusters, cublas, launches
from tinygrad_rnn.scan.cuda.clusters import room
from tinygrad_rnn.scan.cuda.plan import refusals
from tinygrad_rnn.scan.pool import pool
from tinygrad_rnn.scan.recurrence import forget

settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough", settings.get_profile("repeatable"), derandomize=False, max_examples=500
)
settings.load_profile("repeatable")


def _there_is_a_gpu():
    """Whether CuPy can compute on this machine."""
    if not importlib.util.find_spec("cupy"):
        return False
    import cupy

    return cupy.is_available()


no_gpu = pytest.mark.skipif(not _there_is_a_gpu(), reason="no GPU, or no CuPy")


@pytest.fixture(
    scope="module",
    params=["cpu", "double", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])],
)
def device(request):
    """The default device while a module's tests run, once for each: its name is the value.

    "double" is the test double of CuPy (`strict_double`) as device "cuda": what fails on it would
    fail or stall on a GPU. A module asks with `pytestmark = pytest.mark.usefixtures("device")`.
    """
    with _computing_on(request.param) as name:
        yield name


@pytest.fixture(scope="module")
def on_the_double():
    """As `device`, for tests about a GPU's machinery that need nothing but the double."""
    with _computing_on("double") as name:
        yield name


@pytest.fixture(scope="module")
def one_kernel(device):
    """Of tests about loops that one kernel runs: on a GPU, and on the double, where it is slow."""
    if device == "cpu":
        pytest.skip("about a GPU's executor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYGRAD_RNN_CUDA_LOOP", "persistent")
        yield


@pytest.fixture
def gpu(monkeypatch):
    """Sets the room that a GPU has, which a layout depends on; see clusters.py."""

    def resize(wanted):
        xp = backend.library("cuda")
        real = room(xp, xp.cuda.Device().id)
        fits = wanted.shared <= real.shared and all(map(real.clusters.get, wanted.clusters))
        assert fits or xp is not strict_double
        if not fits:
            pytest.skip("a GPU that has no such clusters")
        monkeypatch.setattr(launches, "room", lambda xp, device: wanted)
        pool.clear()  # of frames with another layout

    return resize


@pytest.fixture(autouse=True)
def _on_the_host_unless_asked(request, monkeypatch):
    """A test that asks for no device is on the host, also between tests of its module that do."""
    if not {"device", "on_the_double"} & {*request.fixturenames}:
        monkeypatch.setattr(backend, "_default_device", None)


@contextlib.contextmanager
def _computing_on(param):
    """The default device is that of a param of `device`; nothing worked out before is known."""
    if param == "double" and not has_compiler():
        pytest.skip("the double of CuPy compiles kernels with g++, which is not there")
    patch = pytest.MonkeyPatch()
    if param == "double":
        patch.setitem(sys.modules, "cupy", strict_double)
        patch.setitem(sys.modules, "cupyx.scipy.special", strict_double.special)
        library = strict_double.cublas.Library()
        patch.setattr(cublas, "load", lambda: library)
        patch.setattr(clusters, "load", strict_double.driver.Library)
        # Clusters of fibers are slow: test_persistent.py has the loops that one kernel runs.
        patch.setenv("TINYGRAD_RNN_CUDA_LOOP", "graph")
    name = "cpu" if param == "cpu" else "cuda"
    known = dict(refusals)
    backend.set_default_device(name)
    forget()
    yield name
    forget()
    backend.set_default_device(None)
    refusals.clear()
    refusals.update(known)
    patch.undo()


def pytest_addoption(parser):
    parser.addoption(
        "--ptx",
        action="store_true",
        help="on the double of CuPy, run what NVIDIA's compiler makes of kernels",
    )


def pytest_configure(config):
    if config.getoption("numprocesses", default=None):  # processes of their own (-n): a core each
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    strict_double.compiled.as_ptx = config.getoption("ptx", default=False)
    if strict_double.compiled.as_ptx and nvrtc.library() is None:
        raise pytest.UsageError("--ptx needs NVIDIA's compiler: pip install nvidia-cuda-nvrtc")


def pytest_collection_modifyitems(config, items):
    """On the double, leave out all but every n-th case of a test marked `double_every(n)`."""
    seen, left_out = collections.Counter(), []
    for item in items:
        every = item.get_closest_marker("double_every")
        if every is not None and item.callspec.params.get("device") == "double":
            left_out += [item] if seen[item.function] % every.args[0] else []
            seen[item.function] += 1
    dropped = set(left_out)
    items[:] = [item for item in items if item not in dropped]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="module")
def xp(device):
    """The array library of the device under test."""
    return backend.library(device)
