"""What scripts ask about GPUs, on machines with and without one."""

import sys

import numpy as np
import pytest

import tinygrad_rnn as torch


@pytest.fixture
def no_gpu(monkeypatch):
    """As if CuPy were not installed."""
    monkeypatch.setitem(sys.modules, "cupy", None)


def test_without_a_gpu_scripts_go_on(no_gpu):
    assert torch.cuda.is_available() is False
    assert torch.cuda.device_count() == 0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    with pytest.raises(RuntimeError, match="needs CuPy"):
        torch.cuda.current_device()


def test_numbers_for_every_device_come_from_one_stream(no_gpu):
    torch.manual_seed(5)
    drawn = torch.rand(3).tolist()
    for seed in (torch.cuda.manual_seed, torch.cuda.manual_seed_all):
        seed(5)
        assert torch.initial_seed() == 5
        assert torch.rand(3).tolist() == drawn


def test_with_cupy(xp):
    if xp is np:
        pytest.skip("there is no GPU")
    assert torch.cuda.is_available()
    assert torch.cuda.device_count() >= 1
    assert torch.cuda.current_device() == 0
    for device in (None, 0, "cuda", torch.device("cuda:0")):
        torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
