"""The GPU benchmark's measuring, on this machine: NumPy, the test double of CuPy, or a GPU.

Both libraries are arguments of the benchmark, and so is the clock: here PyTorch computes on the
host wherever there is no GPU. Times mean nothing then, but every case is built, run and compared.
"""

import dataclasses
import json
import os

import gpu
import gpu_micro
import gpu_sides
import pytest
from gpu_cases import LEAST_CALLS, Case, measure
from strict_double import compiled

import tinygrad_rnn
from tinygrad_rnn import backend

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("device")


class OnDouble(gpu_sides.OnCuPy):
    """CuPy's events and pool, as the double has them; it has no hooks into its memory."""

    def highest(self, step):
        step()


@pytest.fixture(scope="module")
def sides(device):
    """tinygrad_rnn on the device under test, and PyTorch beside it."""
    if device == "cuda" and torch.cuda.is_available():
        both = gpu_sides.ours(backend.library("cuda"), torch), gpu_sides.theirs(torch)
        yield both
        for side in both:
            side.set_tf32(False)
        return
    if device == "cuda" and compiled.as_ptx:
        pytest.skip("the double's threads are fibers then, and these are too many")
    ours = gpu_sides.Side(
        tinygrad_rnn,
        device,
        gpu_sides.Host() if device == "cpu" else OnDouble(backend.library(device)),
        given=lambda tensor: tinygrad_rnn.tensor(tensor.detach().numpy(), device=device),
        taken=lambda tensor: torch.from_numpy(tensor.detach().numpy().copy()),
        set_tf32=lambda allowed: None,
    )
    theirs = gpu_sides.Side(
        torch,
        "cpu",
        gpu_sides.Host(),
        given=lambda tensor: tensor.detach(),
        taken=lambda tensor: tensor.detach(),
        set_tf32=lambda allowed: None,
    )
    yield ours, theirs


@pytest.mark.parametrize("case", gpu.all_cases([(2, 5)], T=4), ids=lambda case: case.name)
def test_every_way_agrees_and_gets_a_time(case, sides):
    found = measure(case, *sides, seconds=0.003)
    expected = set(case.ways)
    reasons = {}
    if case.precision == "bfloat16":
        reasons = {"scan": "bfloat16 is not supported"}
    for phase in ("forward", "training"):
        assert found[phase]["failed"] == reasons
        assert set(found[phase]["seconds"]) == expected - set(reasons)
        assert all(found[phase]["calls"][way] >= LEAST_CALLS for way in found[phase]["seconds"])
        assert all(seconds > 0 for seconds in found[phase]["seconds"].values())
    assert found["forward"]["error"] != found["training"]["error"]


def test_what_computes_something_else_gets_no_time(sides):
    ours, theirs = sides
    taken = ours.taken
    wrong = dataclasses.replace(ours, taken=lambda tensor: 1.001 * taken(tensor))
    found = measure(Case("GRU", 2, 5, "float32", T=4), wrong, theirs, seconds=0.003)
    assert found["forward"]["failed"] == {"scan": "differs from PyTorch in float32 by 1.0e-03"}
    assert set(found["training"]["seconds"]) == {"cuDNN", "loop"}


def test_what_goes_wrong_only_after_a_while_gets_no_time(sides):
    ours, theirs = sides
    taken, results = ours.taken, []

    def taken_wrongly(tensor):
        results.append(tensor)
        return taken(tensor) + (len(results) > 1)  # after the times were taken

    wrong = dataclasses.replace(ours, taken=taken_wrongly)
    found = measure(Case("RNN", 2, 5, "float32", T=4), wrong, theirs, seconds=0.003)
    assert found["forward"]["failed"].keys() == {"scan"}
    assert found["forward"]["seconds"].keys() == {"cuDNN", "loop"}


def test_what_cannot_be_computed_says_why(sides):
    ours, theirs = sides

    def given(tensor):
        raise MemoryError("no room\nfor it")

    found = measure(
        Case("MGU", 2, 5, "float32", T=4), dataclasses.replace(ours, given=given), theirs, 0.003
    )
    assert found["training"]["failed"] == {"scan": "MemoryError: no room for it"}


def test_an_error_that_takes_the_gpu_ends_the_run_and_is_told(sides):
    class Lost(gpu_sides.Host):
        def wait(self):
            raise RuntimeError("the context is lost")

    def given(tensor):
        raise ValueError("an illegal memory access")

    ours = dataclasses.replace(sides[0], given=given, meter=Lost())
    with pytest.raises(RuntimeError, match="the context is lost") as caught:
        measure(Case("MGU", 2, 5, "float32", T=4), ours, sides[1], seconds=0.003)
    assert str(caught.value.__context__) == "an illegal memory access"


@pytest.fixture
def small(monkeypatch):
    """A benchmark of three steps of a few units."""
    few = {name: shapes for name, shapes in gpu_micro.OPERATIONS.items() if "4096" not in name}
    monkeypatch.setattr(gpu_micro, "OPERATIONS", few)
    monkeypatch.setattr(gpu_micro, "CALLS", 2)
    monkeypatch.setattr(gpu_micro, "LENGTHS", (2, 4))
    monkeypatch.setattr(gpu_micro, "LAYERS", [("GRU", 2, 5)])
    cases = gpu.all_cases([(1, 2)], T=3)[:3]
    monkeypatch.setattr(gpu, "all_cases", lambda sizes: cases)
    monkeypatch.setattr(gpu, "SECONDS", 0.003)
    return cases


def test_a_whole_run_writes_the_page_and_a_second_one_measures_nothing(
    small, sides, device, monkeypatch, capsys, tmp_path
):
    if device == "cpu":
        pytest.skip("it asks for a GPU first")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "ours", lambda cupy, torch: sides[0])
    monkeypatch.setattr(gpu, "theirs", lambda torch: sides[1])
    monkeypatch.setattr(gpu, "machine", lambda cupy, torch: {"GPU": "none", "date": "today"})
    page = tmp_path / "gpu.md"
    gpu.main(["--micro", "--minutes", "1", "--write", str(page)])
    shown = capsys.readouterr().out
    assert all(f"{k}/3 {case.name};" in shown for k, case in enumerate(small, 1))
    assert "met in " in shown
    written = page.read_text("utf-8")
    assert "## Single operations" in written
    assert "## Nodes of a CUDA graph" in written
    assert "## Not measured" not in written
    kept = json.loads(page.with_suffix(".json").read_text("utf-8"))
    assert set(kept["cases"]) == {case.name for case in small}
    gpu.main(["--micro", "--write", str(page)])
    assert "1/3" not in capsys.readouterr().out
    assert page.read_text("utf-8") == written


def test_a_step_of_a_layer_is_the_difference_of_two_lengths(sides, monkeypatch):
    monkeypatch.setattr(gpu_micro, "LENGTHS", (2, 6))
    monkeypatch.setattr(gpu_micro, "LAYERS", [("GRU", 2, 5)])
    seconds = iter([3.0, 11.0, 5.0, 25.0, 0.0, 4.0])
    monkeypatch.setattr(gpu_micro, "median_call", lambda side, step, calls: next(seconds))
    monkeypatch.delenv("TINYGRAD_RNN_CUDA_LOOP", raising=False)
    found = gpu_micro.layer_steps(*sides)
    assert found["rows"] == [["GRU", "2, 5", "2000000.00", "5000000.00", "1000000.00"]]
    assert len(found["header"]) == 5
    assert "TINYGRAD_RNN_CUDA_LOOP" not in os.environ


def test_the_nodes_of_a_graph_get_a_time(sides, device):
    if device == "cpu":
        pytest.skip("kernels are for GPUs")
    found = gpu_micro.graph_nodes(backend.library(device), sides[0])
    assert [blocks for blocks, *_ in found["rows"]] == ["1", "128"]
    assert all(float(time) > 0 for _, *times in found["rows"] for time in times)
