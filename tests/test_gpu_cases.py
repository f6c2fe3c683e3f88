"""The GPU benchmark's measuring, on this machine: NumPy, the test double of CuPy, or a GPU.

Both libraries are arguments of the benchmark, and so is the clock: here PyTorch computes on the
host wherever there is no GPU. Times mean nothing then, but every case is built, run and compared.
"""

import dataclasses

import gpu
import gpu_micro
import gpu_sides
import pytest
from gpu_cases import Case, measure
from gpu_page import page
from gpu_results import Results

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
        return gpu_sides.ours(backend.library("cuda"), torch), gpu_sides.theirs(torch)
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
    return ours, theirs


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
        assert all(found[phase]["calls"][way] >= 5 for way in found[phase]["seconds"])
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


def test_a_whole_run_fills_the_page(sides, capsys):
    results, cases = Results({"GPU": "none", "date": "today"}), gpu.all_cases([(1, 2)], T=3)[:2]
    gpu.measure_parts(results, {"Single operations": lambda: operations(sides)}, lambda: None)
    gpu.measure_cases(results, cases, sides, gpu.Budget(600), 0.003, lambda: None)
    shown = page(results, cases)
    assert "## Single operations" in shown
    assert "Not measured" not in shown
    assert all(f"{k}/2 {case.name}" in capsys.readouterr().out for k, case in [(2, cases[1])])


def operations(sides):
    """The small ones, once each."""
    patch = pytest.MonkeyPatch()
    small = {name: shapes for name, shapes in gpu_micro.OPERATIONS.items() if "4096" not in name}
    patch.setattr(gpu_micro, "OPERATIONS", small)
    found = gpu_micro.operations(*sides, calls=1)
    patch.undo()
    return found


def test_the_nodes_of_a_graph_get_a_time(sides, device):
    if device == "cpu":
        pytest.skip("kernels are for GPUs")
    found = gpu_micro.graph_nodes(backend.library(device), sides[0])
    assert [blocks for blocks, *_ in found["rows"]] == ["1", "128"]
    assert all(float(time) > 0 for _, *times in found["rows"] for time in times)
