"""`tinygrad_rnn.cuda`: what scripts ask about GPUs, where there is one and where there is none.

With two GPUs: test_two_gpus.py.
"""

import sys

import pytest

import tinygrad_rnn as torch
from tinygrad_rnn import backend, cuda, nn

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture
def no_gpu(monkeypatch):
    """As if CuPy were not installed."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(backend, "_default_device", None)


@pytest.fixture
def gpu(device, xp):
    """The array library of a GPU."""
    if device == "cpu":
        pytest.skip("about a GPU")
    return xp


def test_without_a_gpu_scripts_go_on(no_gpu):
    assert cuda.is_available() is False
    assert cuda.device_count() == 0
    assert cuda.memory_allocated() == cuda.memory_reserved() == 0
    cuda.synchronize()
    cuda.empty_cache()
    for needs_one in (cuda.current_device, cuda.get_device_name, cuda.mem_get_info):
        with pytest.raises(RuntimeError, match="needs CuPy, which"):
            needs_one()
    with pytest.raises(RuntimeError, match="needs CuPy, which"):
        cuda.set_device(0)


def test_numbers_for_every_device_come_from_one_stream(no_gpu):
    torch.manual_seed(5)
    drawn = torch.rand(3).tolist()
    for seed in (cuda.manual_seed, cuda.manual_seed_all):
        seed(5)
        assert torch.initial_seed() == 5
        assert torch.rand(3).tolist() == drawn


def test_what_a_gpu_is(gpu):
    assert cuda.is_available()
    assert cuda.device_count() == gpu.cuda.runtime.getDeviceCount() >= 1
    assert cuda.current_device() == 0
    found = cuda.get_device_properties()
    asked = gpu.cuda.runtime.getDeviceProperties(0)
    assert found.name == asked["name"].decode() == cuda.get_device_name("cuda:0")
    assert found.total_memory == asked["totalGlobalMem"]
    assert found.multi_processor_count == asked["multiProcessorCount"]
    assert (found.major, found.minor) == cuda.get_device_capability(0)
    assert cuda.get_device_properties(torch.device("cuda:0")) == found


def test_a_gpu_that_is_not_there(gpu):
    count = cuda.device_count()
    for ask in (cuda.get_device_name, cuda.set_device, cuda.synchronize, cuda.mem_get_info):
        with pytest.raises(RuntimeError, match=f"device 'cuda:{count}' does not exist: there"):
            ask(count)
    with pytest.raises(ValueError, match="expected a GPU, got device 'cpu'"):
        cuda.get_device_name("cpu")


def test_memory(gpu):
    free, total = cuda.mem_get_info()
    assert 0 < free <= total == cuda.get_device_properties().total_memory
    before = cuda.memory_allocated()
    x = torch.ones(1000, 1000)
    assert x.array.nbytes == 4_000_000
    assert 0 <= cuda.memory_allocated() - before - 4_000_000 < 512  # CuPy gives whole blocks
    assert cuda.memory_reserved() >= cuda.memory_allocated()
    del x
    assert cuda.memory_allocated() == before
    cuda.empty_cache()
    assert cuda.memory_reserved() < before + 4_000_000


def test_waiting_for_a_gpu(gpu):
    for device in (None, 0, "cuda", "cuda:0", torch.device("cuda")):
        cuda.synchronize(device)


def test_computing_goes_to_the_stream_that_is_current_and_leaves_it_so(gpu):
    stream = gpu.cuda.Stream(non_blocking=True)
    for current in (stream, gpu.cuda.Stream.null):
        with current:
            model = nn.LSTM(3, 4)
            optimizer = torch.optim.Adam(model.parameters())
            for _ in range(3):
                output, _ = model(torch.randn(5, 2, 3))
                output.square().mean().backward()
                optimizer.step()
            assert gpu.cuda.get_current_stream().ptr == current.ptr
            cuda.synchronize()
    assert gpu.cuda.get_current_stream().ptr == gpu.cuda.Stream.null.ptr
