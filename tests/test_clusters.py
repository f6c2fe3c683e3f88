"""How many clusters of thread blocks a GPU runs at the same time: what its driver says."""

import ctypes

import pytest
import strict_double

from tinygrad_rnn import backend
from tinygrad_rnn.scan.cuda import clusters
from tinygrad_rnn.scan.cuda.clusters import Room, room

pytestmark = pytest.mark.usefixtures("on_the_double")


@pytest.fixture(autouse=True)
def _asked_anew():
    room.cache_clear()
    yield
    room.cache_clear()


@pytest.fixture
def properties(monkeypatch):
    """Sets what the double says of its GPUs."""
    real = strict_double.cuda.runtime.getDeviceProperties

    def change(**changes):
        monkeypatch.setattr(
            strict_double.cuda.runtime,
            "getDeviceProperties",
            lambda device: real(device) | changes,
        )

    return change


WHOLE = {1: 132, 2: 66, 4: 33, 8: 16, 16: 8}


class Driver(strict_double.driver.Library):
    """Of a chip whose multiprocessors come in groups, as the double's do not."""

    groups = (18, 18, 16, 16, 16, 16, 16, 16)

    def cuOccupancyMaxActiveClusters(self, count, function, config):
        status = super().cuOccupancyMaxActiveClusters(count, function, config)
        blocks = config._obj.attributes[0].blocks[0]
        count._obj.value = sum(size // blocks for size in self.groups)
        return status


class Smaller(Driver):
    groups = (18, 18, 18, 18, 16, 16, 14, 14)


@pytest.mark.parametrize(
    ("driver", "found"),
    [
        (Driver, {1: 132, 2: 66, 4: 32, 8: 16, 16: 8}),
        (Smaller, {1: 132, 2: 66, 4: 30, 8: 14, 16: 6}),
    ],
)
def test_the_driver_knows(driver, found, monkeypatch):
    monkeypatch.setattr(clusters, "load", driver)
    assert room(backend.library("cuda"), 0) == Room(found, 227 << 10)


def test_the_double_says_what_its_multiprocessors_can_hold():
    """A block has one to itself, since it takes all of its shared memory."""
    assert room(backend.library("cuda"), 0).clusters == WHOLE


def test_a_driver_that_does_not_say():
    """As an old one, or one that cannot be loaded by its name."""
    guessed = {1: 132, 2: 66, 4: 33, 8: 16}
    for library in (None, object()):
        room.cache_clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clusters, "load", lambda library=library: library)
            assert room(backend.library("cuda"), 0).clusters == guessed


def test_a_gpu_without_clusters_of_16_blocks(monkeypatch):
    monkeypatch.setattr(strict_double.driver.Library, "_most", lambda self, function: 8)
    assert room(backend.library("cuda"), 0).clusters == {1: 132, 2: 66, 4: 33, 8: 16}


def test_a_gpu_without_clusters_is_not_asked(properties, monkeypatch):
    properties(major=8)
    monkeypatch.setattr(clusters, "load", lambda: pytest.fail("asked"))
    assert room(backend.library("cuda"), 0) == Room({1: 132}, 227 << 10)


def test_what_the_driver_is_given_lies_as_cuda_says():
    """Sizes and places in bytes, after cuda.h of CUDA 13."""
    config, attribute = clusters._Launch, clusters._Attribute
    assert ctypes.sizeof(config) == 56
    assert ctypes.sizeof(attribute) == 72
    places = [getattr(config, name).offset for name, _ in config._fields_]
    assert places == [0, 12, 24, 32, 40, 48]
    assert (attribute.id.offset, attribute.blocks.offset) == (0, 8)
