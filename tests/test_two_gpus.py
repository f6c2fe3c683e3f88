"""With two GPUs, which the test double has: which one computes, and what the other one says."""

import pytest
import strict_double
from click.testing import CliRunner

import tinygrad_rnn as torch
from tinygrad_rnn import cuda, nn
from tinygrad_rnn.cli import main
from tinygrad_rnn.doctor import self_test

pytestmark = pytest.mark.usefixtures("on_the_double")


@pytest.fixture(autouse=True)
def _first():
    """Every test begins, and the next one too, with the first GPU."""
    yield
    cuda.set_device(0)


def test_cuda_means_the_gpu_that_computes():
    assert torch.device("cuda") == "cuda:0"
    with cuda.device(1):
        assert cuda.current_device() == 1
        assert torch.device("cuda") == "cuda:1"
        x = torch.ones(3, device="cuda")
        assert x.device == (x + x).device == "cuda:1"
        with cuda.device("cuda:0"):
            assert cuda.current_device() == 0
        assert cuda.current_device() == 1
    assert cuda.current_device() == 0
    cuda.set_device(torch.device("cuda:1"))
    assert torch.zeros(2, device="cuda").device == torch.zeros(2).device == "cuda:1"


def test_the_gpu_is_chosen_again_after_an_error():
    with pytest.raises(KeyError), cuda.device(1):
        raise KeyError
    assert cuda.current_device() == 0


def test_tensors_are_made_and_moved_on_an_idle_gpu():
    x = torch.ones(2, 3, device="cuda:1")
    assert x.device == "cuda:1"
    assert x.to("cuda:0").device == "cuda:0"
    assert x.cuda().device == "cuda:0"
    assert x.to(0).device == "cuda:0"
    assert x.cpu().tolist() == [[1.0] * 3] * 2
    assert torch.tensor([1, 2], device="cuda:1").to("cuda:0").tolist() == [1, 2]
    assert torch.zeros_like(x).device == "cuda:1"
    assert nn.Linear(2, 3).cuda(1).weight.device == "cuda:1"
    assert nn.Linear(2, 3).cuda(torch.device("cuda:1")).weight.device == "cuda:1"
    assert nn.LSTM(2, 3, device="cuda:1").weight_ih_l0.device == "cuda:1"
    dtypes = (torch.float32, torch.float16)
    torch.manual_seed(3)
    drawn = [torch.rand(5, dtype=dtype, device="cuda:1").tolist() for dtype in dtypes]
    torch.manual_seed(3)
    assert drawn == [torch.rand(5, dtype=dtype, device="cpu").tolist() for dtype in dtypes]
    assert cuda.memory_allocated(1) > 0


def test_an_idle_gpu_does_not_compute():
    x = torch.ones(2, 3, device="cuda:1")
    for compute in (torch.tanh, torch.sum, lambda x: x * 2, lambda x: x @ x.T):
        with pytest.raises(RuntimeError, match="on cuda:1, but cuda:0 is the GPU that computes"):
            compute(x)
    with cuda.device(1):
        assert x.tanh().device == "cuda:1"


def test_a_result_that_another_gpu_got_is_an_error(monkeypatch):
    """CuPy may compute with an idle GPU's array where the two can read each other's memory."""
    x = torch.ones(3, device="cuda:1")
    monkeypatch.setattr(strict_double, "tanh", lambda _x: strict_double.zeros(3))
    with pytest.raises(RuntimeError, match="on cuda:1, but cuda:0 is the GPU that computes"):
        x.tanh()


def test_two_gpus_do_not_mix():
    x, y = torch.ones(3, device="cuda:0"), torch.ones(3, device="cuda:1")
    with pytest.raises(RuntimeError, match=r"operand 1 \(x\), .* on cuda:0, and operand 2 \(y\)"):
        x + y
    with pytest.raises(RuntimeError, match=r"is on cuda:0, and what is written, .* is on cuda:1"):
        x += y
    assert x.copy_(y).tolist() == [1.0] * 3


def test_a_model_learns_on_the_second_gpu():
    with cuda.device(1):
        model = nn.GRU(3, 4).cuda()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        x = torch.randn(6, 2, 3, device="cuda")
        losses = []
        for _ in range(5):
            optimizer.zero_grad()
            loss = model(x)[0].square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert loss.device == "cuda:1"
        assert losses[-1] < losses[0]


def test_memory_is_counted_apart():
    before = cuda.memory_allocated(0), cuda.memory_allocated(1)
    x = torch.ones(100, device="cuda:1")
    assert (cuda.memory_allocated(0), cuda.memory_allocated(1)) == (before[0], before[1] + 512)
    assert x.numel() == 100


def test_every_check_of_the_doctor_passes_on_the_second_gpu():
    for outcome in self_test(["cuda:1"]):
        assert outcome.passed, str(outcome)
    assert cuda.current_device() == 0


def test_the_doctor_tests_all_gpus(monkeypatch):
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 0, result.output
    assert "Everything is right on cpu, cuda:0, cuda:1." in result.output
    assert "recurrences     CUDA graphs" in result.output
    monkeypatch.setattr(strict_double, "tanh", strict_double.sin)  # a GPU that computes wrong
    result = CliRunner().invoke(main, ["doctor", "--device", "cuda:1"])
    assert result.exit_code == 1
    assert "FAIL  cuda:1  elementwise functions" in result.output
    assert "tanh is wrong by" in result.output
    assert "checks failed on cuda:1" in result.output
    assert "Traceback" not in result.output
