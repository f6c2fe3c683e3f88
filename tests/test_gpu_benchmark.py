"""What benchmarks/gpu.py makes of its measurements: floors, targets, the page, and where it stops.

Timings here are made up. That it measures what it says is tested against PyTorch, in
test_gpu_cases.py.
"""

import json
import subprocess
import sys
from pathlib import Path

import gpu
import gpu_page
import pytest
from gpu_cases import Case
from gpu_floor import PEAKS, bytes_moved, floor, flops
from gpu_results import Results

from tinygrad_rnn import cuda

ROOT = Path(__file__).resolve().parents[1]
H100 = {"GPU": "NVIDIA H100 80GB HBM3", "source": "abc", "date": "2026-01-01"}


def made_up(scan=None, cudnn=None, loop=None, failed=()):
    """A phase of a case: times in seconds; failed: pairs of a way and why it has none."""
    seconds = {"scan": scan, "cuDNN": cudnn, "loop": loop}
    seconds = {way: value for way, value in seconds.items() if value is not None}
    return {
        "seconds": seconds,
        "calls": {way: 30 for way in seconds},
        "bytes": {way: 3 << 20 for way in seconds},
        "error": {way: 2e-6 for way in seconds},
        "failed": dict(failed),
        "executor": "interpret" if "scan" in seconds else "",
    }


def results_of(cases, machine=H100):
    """Results with a found phase, forward and backward alike, for each case."""
    results = Results(machine)
    results.cases = {case.name: {"forward": f, "training": f} for case, f in cases.items()}
    return results


def test_floors_by_hand():
    """T = 512, B = 64, D = H = 512; x and y are 512 · 64 · 512 = 16 777 216 values each."""
    lstm = ("LSTM", 512, 64, 512)
    assert flops(*lstm, training=False) == 137_438_953_472  # 2 · 32768 rows · 1024 · 2048
    assert flops(*lstm, training=True) == 412_316_860_416
    assert bytes_moved(*lstm, "float32", training=False) == 142_606_336  # + 2 097 152 weights
    assert bytes_moved(*lstm, "bfloat16", training=True) == 142_606_336  # half of twice as many
    h100 = "NVIDIA H100 80GB HBM3"
    assert floor(h100, *lstm, "float32", True) == pytest.approx(6.154e-3, rel=1e-3)
    assert floor(h100, *lstm, "TF32", True) == pytest.approx(0.8338e-3, rel=1e-3)
    assert floor(h100, *lstm, "float16", True) == pytest.approx(0.4167e-3, rel=1e-3)


def test_where_bytes_take_longer_they_are_the_floor():
    """An RNN at B = 16, H = 128: 0.54 µs of products, 4 259 840 bytes."""
    rnn = ("RNN", 512, 16, 128, "bfloat16", False)
    assert floor("NVIDIA H200", *rnn) == pytest.approx(4_259_840 / 4.8e12)
    assert floor("NVIDIA H100 80GB HBM3", *rnn) == pytest.approx(4_259_840 / 3.35e12)


def test_a_gpu_without_a_data_sheet_has_no_floor():
    assert floor("NVIDIA Unknown", "GRU", 512, 16, 128, "TF32", True) is None
    case = Case("GRU", 16, 128, "TF32")
    shown = gpu_page.page(
        results_of({case: made_up(1e-3, 2e-3, 9e-3)}, {"GPU": "NVIDIA Unknown"}), [case]
    )
    assert "no floors" in shown
    assert set(PEAKS) == {"NVIDIA H100 80GB HBM3", "NVIDIA H200"}


@pytest.mark.parametrize(
    ("cell", "precision", "found", "met"),
    [
        ("GRU", "TF32", made_up(scan=3.0e-3, cudnn=2e-3), True),
        ("LSTM", "float32", made_up(scan=3.1e-3, cudnn=2e-3), False),
        ("LSTM", "float16", made_up(scan=3.1e-3, cudnn=2e-3), None),
        ("RNN", "float32", made_up(scan=3.1e-3, cudnn=2e-3, loop=99.0), None),
        ("MGU", "float16", made_up(scan=3e-3, loop=15e-3), True),
        ("layer-norm LSTM", "TF32", made_up(scan=3e-3, loop=14e-3), False),
        ("MGU", "TF32", made_up(loop=14e-3, failed=[("scan", "differs")]), False),
        ("GRU", "float32", made_up(cudnn=14e-3, loop=2.0), False),
        ("GRU", "float32", made_up(scan=1e-3), None),
    ],
)
def test_a_target_is_met_or_missed(cell, precision, found, met):
    assert gpu_page.target(Case(cell, 64, 512, precision), found) is met


def test_a_case_is_told_in_a_line():
    case = Case("LSTM", 64, 512, "TF32")
    failed = [("loop", "MemoryError: no room")]
    results = results_of({case: made_up(12.34e-3, 10e-3, failed=failed)})
    assert gpu.told(results, case, "training") == (
        "scan 12.340 ms, cuDNN 10.000 ms, loop MemoryError: no room, floor 0.834 ms, "
        "scan / cuDNN 1.23: target met"
    )


def test_targets_are_counted():
    found = {
        Case("GRU", 64, 512, "TF32"): made_up(1e-3, 1e-3, 9e-3),
        Case("LSTM", 64, 512, "TF32"): made_up(1e-3, 1e-4, 9e-3),
        Case("LSTM", 64, 512, "float16"): made_up(1e-3, 1e-4, 9e-3),
        Case("MGU", 64, 512, "TF32"): made_up(1e-3, None, 9e-3),
    }
    results = results_of(found)
    of_one_size = gpu.all_cases([(64, 512)])
    assert set(found) <= set(of_one_size)
    custom, _, layers, _ = gpu_page.targets(results, of_one_size)
    assert custom.startswith("MGU and layer-norm LSTM, forward and backward")
    assert custom.endswith("met in 1 of 1 measured cases")
    assert layers.endswith("met in 1 of 2 measured cases")


def row(page, *first):
    """The cells of the first row of a page that begins with these."""
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[: len(first)] == list(first):
            return cells
    raise AssertionError(f"no row {first} in\n{page}")


def test_a_row_shows_times_floor_ratios_and_target():
    case = Case("LSTM", 64, 512, "TF32")
    page = gpu_page.page(results_of({case: made_up(12.34e-3, 10e-3, 123.4e-3)}), [case])
    assert row(page, "LSTM", "64", "512", "TF32")[4:] == [
        *("12.3", "10.0", "123", "0.834", "14.80", "1.23", "10.00", "met", "interpret")
    ]
    assert "Not measured" not in page
    assert "2e-06 in TF32" in page
    memory = page[page.index("## Memory") :]
    assert row(memory, "LSTM", "64", "512", "TF32")[4:] == ["3", "3", "3"]


def test_rows_stand_by_cell_precision_and_size():
    cases = gpu.all_cases([(64, 512), (16, 128)])
    page = gpu_page.page(results_of(dict.fromkeys(cases, made_up(1e-3, 1e-3, 1e-3))), cases)
    rows = [line.strip("|").split("|")[:4] for line in page.splitlines() if "| met " in line]
    found = [" ".join(cell.strip() for cell in row) for row in rows if row[0].strip() == "LSTM"]
    one_table = ["LSTM 16 128 float32", "LSTM 64 512 float32", "LSTM 16 128 TF32"]
    assert found[:3] == one_table


def test_what_has_no_time_says_so_and_why():
    half = Case("GRU", 64, 512, "bfloat16")
    wrong = Case("MGU", 64, 512, "float16")
    page = gpu_page.page(
        results_of(
            {
                half: made_up(
                    cudnn=1e-3, loop=9e-3, failed=[("scan", "bfloat16 is not supported")]
                ),
                wrong: made_up(
                    loop=9e-3, failed=[("scan", "differs from PyTorch in float32 by 3e-01")]
                ),
            }
        ),
        [half, wrong],
    )
    assert row(page, "GRU", "64", "512", "bfloat16")[4] == "not supported"
    assert row(page, "MGU", "64", "512", "float16")[4:6] == ["differs", ""]
    assert "by 3e-01 (MGU, B 64, H 512, float16, forward; MGU, B 64, H 512, float16, tr" in page


def test_there_are_as_many_cases_as_cells_sizes_and_precisions():
    cases = gpu.all_cases(gpu.SIZES)
    assert len(cases) == 12 * (5 * 2 + 5 + 3)
    assert len({case.name for case in cases}) == len(cases)


def test_what_was_not_measured_is_a_line_for_each_precision():
    """All of float32 is there, nothing of float16; cells that miss the same stand together."""

    def is_missing(case):
        size = case.B, case.H
        if case.precision == "TF32":
            few = case.cell in ("LSTM", "GRU", "layer-norm LSTM")
            return case.cell == "RNN" or (few and size in [(16, 1024), (64, 128), (256, 128)])
        if case.precision == "bfloat16":
            return case.cell != "LSTM" or size not in [(64, 512), (256, 128)]
        return case.precision == "float16"

    cases = gpu.all_cases(gpu.SIZES)
    measured = [case for case in cases if not is_missing(case)]
    page = gpu_page.page(results_of(dict.fromkeys(measured, made_up(1e-3, 1e-3, 1e-3))), cases)
    assert page.split("## Not measured\n\n")[1].splitlines() == [
        "115 of 216 cases, for which there was no time:",
        "",
        "- TF32: LSTM, GRU and layer-norm LSTM at B 64, H 128, B 256, H 128 and B 16, H 1024; "
        "RNN at all sizes",
        "- float16: nothing was measured",
        "- bfloat16: LSTM at all sizes but B 256, H 128 and B 64, H 512; GRU and RNN at all sizes",
    ]


def test_the_page_in_the_repository_is_what_the_benchmark_writes():
    written = ROOT / "docs" / "benchmarks" / "gpu.md"
    kept = written.with_suffix(".json")
    machine = json.loads(kept.read_text("utf-8"))["machine"] if kept.exists() else {}
    results = Results(machine, kept)
    assert written.read_text("utf-8") == gpu_page.page(results, gpu.all_cases(gpu.SIZES))


def test_results_are_gone_on_with_on_another_day_but_not_of_another_source(tmp_path):
    path = tmp_path / "gpu.json"
    case = Case("LSTM", 64, 512, "TF32")
    results = Results(H100, path)
    results.cases[case.name] = {"forward": made_up(1e-3), "training": made_up(2e-3)}
    results.save()
    assert [file.name for file in tmp_path.iterdir()] == ["gpu.json"]
    assert Results({**H100, "date": "2026-01-02"}, path).cases == results.cases
    assert Results({**H100, "date": "2026-01-02"}, path).machine == H100
    assert Results({**H100, "source": "abd"}, path).cases == {}


def measuring(monkeypatch, seconds):
    """Pretend that every case takes so long: the clock, and the names of the cases measured."""
    clock, measured = [0.0], []

    def measure(case, our_side, their_side, _):
        clock[0] += seconds
        measured.append(case)
        return {"forward": made_up(1e-3), "training": made_up(1e-3)}

    monkeypatch.setattr(gpu, "measure", measure)
    return (lambda: clock[0]), measured


def test_a_run_stops_before_the_time_is_up_and_goes_on_where_it_was(monkeypatch, capsys):
    now, measured = measuring(monkeypatch, seconds=30)
    cases = gpu.all_cases([(64, 512)])
    results, kept = Results(H100), []

    def run():
        budget = gpu.Budget(100, now)
        gpu.measure_cases(
            results, cases, (None, None), budget, 1.0, lambda: kept.append(len(results.cases))
        )

    run()  # three take 90 seconds, and a fourth would end after 120
    assert measured == cases[:3]
    assert kept == [1, 2, 3]
    assert "the time is up: 3 of 18 cases are measured" in capsys.readouterr().out
    run()
    assert measured == cases[:6]


@pytest.mark.parametrize("error", [RuntimeError("the context is lost"), KeyboardInterrupt()])
def test_a_case_that_ended_a_run_is_not_tried_again_unless_somebody_stopped_it(
    monkeypatch, tmp_path, error
):
    _, measured = measuring(monkeypatch, seconds=1)
    works = gpu.measure
    cases = gpu.all_cases([(64, 512)])[:3]
    path = tmp_path / "gpu.json"

    def run():
        results = Results(H100, path)
        gpu.measure_cases(results, cases, (None, None), gpu.Budget(100), 1.0, results.save)
        return results

    def fails(case, *rest):
        if case is cases[1]:
            raise error
        return works(case, *rest)

    monkeypatch.setattr(gpu, "measure", fails)
    with pytest.raises(type(error)):
        run()
    monkeypatch.setattr(gpu, "measure", works)
    found = run().cases
    assert [*found] == [case.name for case in cases]
    stopped = isinstance(error, KeyboardInterrupt)
    assert measured == (cases if stopped else [cases[0], cases[2]])
    if not stopped:
        page = gpu_page.page(Results(H100, path), cases[1:2])
        assert "ended in this case (LSTM, B 64, H 512, float32, forward; LSTM, B 64" in page
        assert page.count("| failed ") == 6  # three ways, and two phases
    assert "begun" not in json.loads(path.read_text("utf-8"))


def test_a_part_that_fails_does_not_end_the_run(capsys):
    results = Results(H100)

    def fails():
        raise RuntimeError("cudaErrorStreamCaptureUnsupported")

    parts = {"One": fails, "Two": lambda: {"about": "", "header": ["a"], "rows": [["1"]]}}
    gpu.measure_parts(results, parts, lambda: None)
    assert list(results.tables) == ["Two"]
    assert "One: RuntimeError: cudaErrorStreamCaptureUnsupported" in capsys.readouterr().out
    parts["Two"] = fails  # it is there, and not measured again
    gpu.measure_parts(results, parts, lambda: None)


@pytest.mark.skipif(cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_one_line_and_status_2():
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("benchmarks/gpu.py: ")
    assert done.stderr.count("\n") == 1
