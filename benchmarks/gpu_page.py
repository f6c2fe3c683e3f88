"""How do the measurements of gpu.py read? As tables, targets, and a list of what is missing.

Plain data in, Markdown out; nothing is measured here, and what was not measured is named. Read
gpu_results.py before this file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gpu_cases import CUSTOM, PRECISIONS, WAYS, Case
from gpu_floor import BLOCKS, PEAKS, floor
from gpu_results import Results
from harness import table

PHASES = {"training": "Forward and backward", "forward": "Forward"}

#: At most so many times cuDNN's time for GRU and LSTM in float32; at least so many times faster
#: than PyTorch's eager loop for a cell of one's own.
CUDNN_FACTOR, LOOP_FACTOR = 1.5, 5.0

ALL_SIZES = "all sizes"

COMMAND = "PYTHONPATH=. python3 benchmarks/gpu.py --micro --write docs/benchmarks/gpu.md"


def page(results: Results, cases: Sequence[Case]) -> str:
    """The page. cases: all that a whole run measures."""
    parts = ["# Recurrent layers on a GPU, beside PyTorch", *_parts(results, cases)]
    return "\n\n".join(parts) + "\n"


def _parts(results: Results, cases: Sequence[Case]) -> Iterator[str]:
    measured = sorted((case for case in cases if case.name in results.cases), key=_order)
    if not measured and not results.tables:
        yield UNMEASURED
        return
    machine = results.machine
    yield "; ".join(
        f"{name} {value}" if name != "GPU" else value for name, value in machine.items()
    )
    yield LEGEND
    if machine["GPU"] not in PEAKS:
        yield f"The data sheet of {machine['GPU']} is not in `benchmarks/gpu_floor.py`: no floors."
    if measured:
        yield "## Targets"
        yield "\n".join(f"- {line}" for line in targets(results, cases))
        for phase, title in PHASES.items():
            yield f"## {title}"
            yield times(results, measured, phase)
        yield "## Memory"
        yield MEMORY
        yield memory(results, measured)
        yield from _failures(results, measured)
    if missing := sum(case.name not in results.cases for case in cases):
        yield "## Not measured"
        yield f"{missing} of {len(cases)} cases, for which there was no time:"
        yield "\n".join(f"- {line}" for line in _not_measured(results, cases))
    for title, found in results.tables.items():
        yield f"## {title}"
        yield found["about"]
        yield table(found["header"], found["rows"])


def _order(case: Case) -> tuple[int, int, int, int]:
    """Where a case stands in a table: by cell, precision and size."""
    return [*BLOCKS].index(case.cell), [*PRECISIONS].index(case.precision), case.H, case.B


def times(results: Results, cases: Sequence[Case], phase: str) -> str:
    """A row for each case: times, the floor, ratios, the target, and what ran the loop."""
    header = ["cell", "B", "H", "precision", *(f"{way} ms" for way in WAYS), "floor ms"]
    header += ["scan / floor", "scan / cuDNN", "loop / scan", "target", "loop ran as"]
    rows = []
    for case in cases:
        found = results.cases[case.name][phase]
        seconds = found["seconds"]
        least = least_seconds(results, case, phase)
        to_cudnn, over_loop = ratios(found)
        met = target(case, found)
        rows.append(
            [
                *(case.cell, case.B, case.H, case.precision),
                *(_milliseconds(case, found, way) for way in WAYS),
                "" if least is None else _digits(least * 1e3),
                _ratio(seconds["scan"] / least) if least and "scan" in seconds else "",
                *map(_ratio, (to_cudnn, over_loop)),
                "" if met is None else ("met" if met else "missed"),
                found["executor"],
            ]
        )
    return table(header, rows)


def least_seconds(results: Results, case: Case, phase: str) -> float | None:
    """The floor of a case on the GPU of the results."""
    gpu, training = results.machine["GPU"], phase == "training"
    return floor(gpu, case.cell, case.T, case.B, case.H, case.precision, training)


def ratios(found: dict[str, Any]) -> tuple[float | None, float | None]:
    """scan's time in units of cuDNN's, and the loop's in units of scan's."""
    seconds = found["seconds"]
    scan, cudnn, loop = (seconds.get(way) for way in WAYS)
    to_cudnn = scan / cudnn if scan and cudnn else None
    return to_cudnn, loop / scan if scan and loop else None


def target(case: Case, found: dict[str, Any]) -> bool | None:
    """Whether a phase of a case meets the target for its cell; None where there is none.

    What PyTorch ran and scan did not is missed.
    """
    to_cudnn, over_loop = ratios(found)
    if case.cell in CUSTOM and "loop" in found["seconds"]:
        return over_loop is not None and over_loop >= LOOP_FACTOR
    in_float32 = case.precision in ("float32", "TF32")
    if case.cell in ("LSTM", "GRU") and in_float32 and "cuDNN" in found["seconds"]:
        return to_cudnn is not None and to_cudnn <= CUDNN_FACTOR
    return None


def targets(results: Results, cases: Sequence[Case]) -> list[str]:
    """For each target, how often it was met."""
    lines = []
    for cells, promise in (
        (CUSTOM, f"at least {LOOP_FACTOR:g} times as fast as PyTorch's eager loop"),
        (("GRU", "LSTM"), f"in float32 and TF32 at most {CUDNN_FACTOR:g} times cuDNN's time"),
    ):
        for phase, title in PHASES.items():
            judged = [
                met
                for case in cases
                if case.cell in cells and case.name in results.cases
                if (met := target(case, results.cases[case.name][phase])) is not None
            ]
            lines.append(
                f"{' and '.join(cells)}, {title.lower()}: {promise}: "
                f"met in {sum(judged)} of {len(judged)} measured cases"
            )
    return lines


def memory(results: Results, cases: Sequence[Case]) -> str:
    """Highest use of forward and backward, in MiB."""
    header = ["cell", "B", "H", "precision", *(f"{way} MiB" for way in WAYS)]
    rows = []
    for case in cases:
        found = results.cases[case.name]["training"]["bytes"]
        used = [f"{found[way] / 2**20:.0f}" if way in found else "" for way in WAYS]
        rows.append([case.cell, case.B, case.H, case.precision, *used])
    return table(header, rows)


def _failures(results: Results, cases: Sequence[Case]) -> Iterator[str]:
    """What has no time, and why; and how well the rest agrees."""
    reasons: dict[str, list[str]] = {}
    errors: dict[str, float] = {}
    for case in cases:
        for phase, found in results.cases[case.name].items():
            for way, reason in found["failed"].items():
                reasons.setdefault(f"{way}: {reason}", []).append(f"{case.name}, {phase}")
            for way, error in found["error"].items():
                if way not in found["failed"]:
                    errors[case.precision] = max(errors.get(case.precision, 0.0), error)
    if reasons:
        yield "## Without a time"
        yield "\n".join(f"- {reason} ({'; '.join(names)})" for reason, names in reasons.items())
    if errors:
        worst = ", ".join(f"{error:.0e} in {precision}" for precision, error in errors.items())
        yield f"Largest difference of anything that was timed from PyTorch in float32: {worst}."


def _not_measured(results: Results, cases: Sequence[Case]) -> Iterator[str]:
    """For each precision, what of it is missing; cells that miss the same sizes stand together."""
    for precision in PRECISIONS:
        of_precision = sorted((case for case in cases if case.precision == precision), key=_order)
        cells: dict[str, list[str]] = {}  # by the sizes that they miss
        for cell, of_cell in itertools.groupby(of_precision, key=lambda case: case.cell):
            cells.setdefault(_missing_sizes(results, of_cell), []).append(cell)
        if [*cells] == [ALL_SIZES]:
            yield f"{precision}: nothing was measured"
        elif lacks := [f"{_listed(names)} at {sizes}" for sizes, names in cells.items() if sizes]:
            yield f"{precision}: {'; '.join(lacks)}"


def _missing_sizes(results: Results, cases: Iterable[Case]) -> str:
    """Sizes not measured of a cell in a precision; named by those measured where these are fewer.

    Empty if none is missing.
    """
    measured: list[str] = []
    missing: list[str] = []
    for case in cases:
        sizes = measured if case.name in results.cases else missing
        sizes.append(f"B {case.B}, H {case.H}")
    if not measured:
        return ALL_SIZES
    if len(measured) < len(missing):
        return f"{ALL_SIZES} but {_listed(measured)}"
    return _listed(missing)


def _listed(words: list[str]) -> str:
    """As in a sentence: a, b and c."""
    return ", ".join([*words[:-2], " and ".join(words[-2:])])


def _milliseconds(case: Case, found: dict[str, Any], way: str) -> str:
    """A time, or in a word why there is none."""
    if way in found["seconds"]:
        return _digits(found["seconds"][way] * 1e3)
    if way not in case.ways:
        return ""
    reason = found["failed"][way]
    return next((word for word in ("not supported", "differs") if word in reason), "failed")


def _digits(milliseconds: float) -> str:
    """Three digits that count, or all before the point."""
    return f"{milliseconds:.{max(0, 2 - math.floor(math.log10(milliseconds)))}f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


UNMEASURED = f"""Not measured yet: `benchmarks/gpu.py` has not run on a GPU. It writes this page,
on a machine with a GPU, CuPy and PyTorch:

```sh
{COMMAND}
```

`--minutes` says how long it may take; `--quick` measures the most telling sizes only. A run
that was stopped goes on where it was."""

LEGEND = f"""One layer in one direction, T = 512 steps, as many inputs as units (D = H), from zero
states. To measure again:

```sh
{COMMAND}
```

- **scan** is tinygrad_rnn; **cuDNN** is PyTorch's `nn.LSTM`, `nn.GRU` and `nn.RNN`; **loop** is
  PyTorch with a cell that Python calls T times: `nn.LSTMCell` and so on, or, for the minimal gated
  unit (MGU) and the LSTM with layer norms, the same text as for `scan` (`benchmarks/gpu_cases.py`).
- Times are medians between events in the stream of work, from blocks of calls that take turns in
  one process; the first call of several does not count. All compute on the same numbers. *Forward*
  is without recording; *forward and backward* gives the gradients of x and of every weight, for a
  given gradient of the outputs. What differs from PyTorch in float32 by more than its precision
  explains gets no time.
- *TF32* is float32 whose products may be taken in TF32, on both sides. tinygrad_rnn has no
  bfloat16; those rows are PyTorch's alone, and the cells without a layer have none.
- The **floor** is the larger of two times: every input read and every output written once, at the
  memory's bandwidth; and the operations of the products, at the peak of the precision; both after
  NVIDIA's data sheet (`benchmarks/gpu_floor.py`). It knows nothing of steps that wait for others.
- *loop ran as* says what ran the loop of `scan` (of the backward one, where there are two): one
  *kernel* for all steps, whose products are full float32 in every row; a CUDA *graph*; or single
  *launches*."""

MEMORY = """The most that arrays occupied at one time in forward and backward, without x and the
gradient of the outputs: weights, gradients, and what is kept from forward to backward."""
