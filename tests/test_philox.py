"""The numbers that a GPU draws are NumPy's, bit for bit, from any state, and leave the same state.

The kernels run on the test double, which compiles them with g++, and on a GPU where there is one.
"""

import numpy as np
import pytest
from arrays import host
from test_cuda_source import compiled_for, needs_nvrtc

import tinygrad_rnn as torch
from tinygrad_rnn import philox
from tinygrad_rnn.random import Generator

pytestmark = pytest.mark.usefixtures("device")

LAST = 2**64 - 1
COUNTERS = [[0, 0, 0, 0], [LAST, 0, 0, 7], [LAST - 1, LAST, LAST, 3], [LAST] * 4, [1, 2, 3, 4]]
KEYS = [[0, 0], [LAST, LAST], [0x0123456789ABCDEF, 0xFEDCBA9876543210]]
SIZES = [1, 2, 3, 4, 5, 8, 9, 127, 1000, 4099]


def streams(counter=(0, 0, 0, 0), key=(1, 2)):
    """The same stream twice."""
    key, counter = np.array(key, np.uint64), np.array(counter, np.uint64)
    return [np.random.Philox(key=key, counter=counter) for _ in range(2)]


def assert_in_the_same_state(a, b):
    """Also in what is not looked at any more: a checkpoint would keep it."""
    for name, value in b.state.items():
        if name == "state":
            assert all((a.state[name][part] == value[part]).all() for part in value)
        else:
            assert np.all(a.state[name] == value), name


def assert_draws_as_numpy(bits, expected, shape, dtype, xp):
    y = philox.uniform(xp, bits, shape, dtype)
    wanted = np.random.Generator(expected).random(shape, dtype)
    assert (y.shape, y.dtype) == (wanted.shape, wanted.dtype)
    assert host(y).tobytes() == wanted.tobytes()
    assert_in_the_same_state(bits, expected)


@pytest.fixture(autouse=True)
def _on_a_gpu(device, xp):
    if xp is np:
        pytest.skip("NumPy draws these numbers itself")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("counter", COUNTERS)
@pytest.mark.parametrize("key", KEYS)
def test_from_a_fresh_state(key, counter, dtype, xp):
    for size in SIZES:
        assert_draws_as_numpy(*streams(counter, key), (size,), dtype, xp)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("halves", range(9))
def test_from_the_middle_of_a_count_and_of_a_word(halves, dtype, xp):
    """Four words of two halves belong to a value of the counter: every place among them."""
    for size in SIZES:
        both = streams(COUNTERS[2])
        for bits in both:
            np.random.Generator(bits).random(halves, np.float32)
        assert_draws_as_numpy(*both, (size,), dtype, xp)


def test_one_after_the_other(xp):
    """Halves of words stay over while whole ones are drawn."""
    rng = np.random.default_rng(0)
    both = streams(COUNTERS[1])
    for _ in range(200):
        dtype = [np.float32, np.float64][rng.integers(2)]
        shape = tuple(rng.integers(0, 6, rng.integers(0, 4)).tolist())
        assert_draws_as_numpy(*both, shape, dtype, xp)


def test_other_draws_go_on_from_there(xp):
    bits, expected = streams()
    philox.uniform(xp, bits, (3, 7), np.float32)
    np.random.Generator(expected).random((3, 7), np.float32)
    for draw in ("standard_normal", "random"):
        for dtype in (np.float32, np.float64):
            found, wanted = (
                getattr(np.random.Generator(b), draw)(9, dtype) for b in (bits, expected)
            )
            np.testing.assert_array_equal(found, wanted)
    assert np.random.Generator(bits).integers(1000) == np.random.Generator(expected).integers(1000)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.0, 3.0)])
def test_generator(dtype, bounds, device):
    """Rounding and shifting are the same, too."""
    ours, numpys = Generator(5), Generator(5)
    for shape in [(3,), (4, 5), ()]:
        found = ours.uniform(shape, *bounds, dtype=dtype, device=device)
        wanted = numpys.uniform(shape, *bounds, dtype=dtype)
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        assert host(found).tobytes() == wanted.tobytes()
    assert (ours.get_state() == numpys.get_state()).all()


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_the_kernels_compile_for_a_gpu(architecture):
    assert ".f64" in compiled_for(architecture, philox.SOURCE)
