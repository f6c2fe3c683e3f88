"""How fast do recurrences train through `scan`, what memory do they take, and how do both grow?

    python benchmarks/recurrent.py [--write] [--sizes 0,1,2] [--cells LSTM,GRU] [--yardstick FILE]

Forward and backward of one layer, float32, 2 threads: `scan` against `unroll`, PyTorch's layers,
`lax.scan` of JAX, and for the LSTM a loop tuned by hand. recurrent_columns.py says what each is.
Needs `pip install torch==2.13.0 jax==0.10.2`; a column whose library or file is missing stays
empty. Then three tables about scan alone: growth with T, B and H, peak memory, and the first call.
With --write, docs/benchmarks/recurrent.md. A selection of sizes or cells measures the first table
only and is not written.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")  # for OpenBLAS and PyTorch
os.environ.setdefault("NPROC", "2")  # for XLA
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import recurrent_memory
from harness import alternate, machine, table, write_page
from recurrent_columns import (
    BLOCKS,
    Step,
    columns,
    draw,
    installed,
    layer_step,
    peephole,
    training_step,
    worst_error,
)

import tinygrad_rnn
from tinygrad_rnn.scan import scan, unroll
from tinygrad_rnn.scan.scan import trace_step

SIZES = [  # T, B, D, H
    (32, 16, 32, 64),
    (64, 32, 64, 128),
    (100, 32, 128, 256),
    (50, 64, 256, 512),
    (35, 20, 650, 650),
    (128, 1, 64, 128),
    (200, 128, 64, 128),
]
COLUMNS = ("scan", "unroll", "PyTorch", "JAX", "hand-tuned")
LARGEST_ERROR = 1e-4
YARDSTICK = Path(__file__).resolve().parents[2] / "shared" / "yardstick" / "lstm_loop_numpy.py"

#: What grows -> the sizes, all else being equal.
GROWTH = {
    "T": [(T, 32, 128, 128) for T in (25, 50, 100, 200, 400)],
    "B": [(50, B, 128, 128) for B in (8, 16, 32, 64, 128, 256)],
    "H": [(50, 32, 128, H) for H in (32, 64, 128, 256, 512)],
}
MEMORY_SIZES = [(200, 128, 64, 128), (1000, 64, 128, 256)]
FIRST_CALL_SIZE = (8, 16, 32, 64)
FRESH_CELLS, LATER_CALLS = 15, 10

Table = tuple[list[str], list[list[str]]]


def written(size: tuple[int, ...]) -> str:
    return ", ".join(map(str, size))


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}" if seconds < 0.01 else f"{seconds * 1e3:.1f}"


def paced(steps: dict[str, Step], seconds: float = 12.0) -> dict[str, float]:
    """`alternate`, with as many blocks as fit into so many seconds: 8, or fewer of long steps."""
    pause, block = 0.1, 0.2
    a_round = 0.0
    for step in steps.values():
        # Two calls warm up, and the last one may begin just before the end of the block.
        a_round += pause + block + 3 * duration(step)
    blocks = min(max(int(seconds / a_round), 3), 8)
    return alternate(steps, blocks, block, pause)


def gemm_rate(n: int = 2048) -> float:
    """Operations per second in the product of two large float32 matrices, at its best of 30."""
    a, b = np.random.default_rng(0).standard_normal((2, n, n), np.float32)
    product = np.empty_like(a)
    seconds = []
    for _ in range(30):
        start = time.perf_counter()
        np.matmul(a, b, out=product)
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds)


def speed(cells: list[str], sizes: list[tuple[int, ...]], yardstick: Path | None) -> Table:
    """scan against the others: a row for each cell and size."""
    others = COLUMNS[1:]
    fastest = gemm_rate() / 1e9
    header = ["cell", "T, B, D, H", *(f"{name} ms" for name in COLUMNS)]
    header += [f"{name} / scan" for name in others]
    header += ["scan, GFLOP/s", f"of {fastest:.0f}", "worst error"]
    rows = []
    for cell in cells:
        for size in sizes:
            problem = draw(cell, *size)
            steps = columns(problem, yardstick)
            error = worst_error(steps)
            if not error < LARGEST_ERROR:
                raise SystemExit(f"{cell} {size}: gradients differ by {error:.0e}; nothing timed")
            seconds = paced(steps)
            times = [milliseconds(seconds[name]) if name in seconds else "" for name in COLUMNS]
            ratios = [
                f"{seconds[name] / seconds['scan']:.2f}" if name in seconds else ""
                for name in others
            ]
            rate = problem.flops / seconds["scan"] / 1e9
            row = [cell, written(size), *times, *ratios]
            rows.append([*row, f"{rate:.0f}", f"{rate / fastest:.0%}", f"{error:.0e}"])
            show(header, rows)
    return header, rows


def growth() -> Table:
    """An LSTM layer, with T, then B, then H varied."""
    header = ["varied", "T, B, D, H", "ms", "µs per step", "per sequence", "GFLOP/s"]
    rows = []
    for varied, sizes in GROWTH.items():
        problems = {written(size): draw("LSTM", *size) for size in sizes}
        seconds = paced(
            {
                size: layer_step(tinygrad_rnn, problem, mode="scan")
                for size, problem in problems.items()
            }
        )
        for size, problem in problems.items():
            T, B, _, _ = problem.size
            a_step = seconds[size] / T * 1e6
            rate = problem.flops / seconds[size] / 1e9
            row = [varied, size, milliseconds(seconds[size]), f"{a_step:.0f}", f"{a_step / B:.2f}"]
            rows.append([*row, f"{rate:.0f}"])
            show(header, rows)
    return header, rows


def memory() -> Table:
    """The peak of one training step of an LSTM layer, each in a process of its own."""
    ways = [way for way in recurrent_memory.WAYS if way != "PyTorch" or installed("torch")]
    header = ["T, B, D, H", *(f"{way} MiB" for way in ways)]
    header += [f"{way} / scan" for way in ways[1:]]
    rows = []
    for size in MEMORY_SIZES:
        peaks = []
        for way in ways:
            command = [sys.executable, recurrent_memory.__file__, way, *map(str, size)]
            peaks.append(float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
        ratios = [f"{peak / peaks[0]:.2f}" for peak in peaks[1:]]
        rows.append([written(size), *(f"{peak:.0f}" for peak in peaks), *ratios])
        show(header, rows)
    return header, rows


def first_calls() -> Table:
    """What tracing a step costs, at every call, and the first call of scan with a cell."""
    header = ["", "tracing ms", "two eager steps ms", "first call ms", "later calls ms"]
    rows = []
    for name, backward in (("forward", False), ("forward and backward", True)):
        T, B, D, H = FIRST_CALL_SIZE
        # Every cell comes with a batch size of its own, so that nothing can be known of it.
        batches = (B + 2 * k + backward for k in range(FRESH_CELLS))
        samples = [of_a_new_cell((T, batch, D, H), backward) for batch in batches]
        times = [statistics.median(column) for column in zip(*samples, strict=True)]
        rows.append([name, *(f"{seconds * 1e3:.2f}" for seconds in times)])
        show(header, rows)
    return header, rows


def of_a_new_cell(size: tuple[int, int, int, int], backward: bool) -> tuple[float, ...]:
    """Seconds to trace a step, of two eager steps, of the first call of scan and of a later one."""
    problem = draw("peephole", *size)
    x, *weights = (tinygrad_rnn.tensor(leaf, requires_grad=True) for leaf in problem.leaves)
    two = tinygrad_rnn.tensor(problem.x[:2], requires_grad=True)
    zeros, grad_out = tinygrad_rnn.zeros(size[1], size[3]), tinygrad_rnn.tensor(problem.grad_out)
    cell = peephole(*weights)

    def call(recurrence: Callable[..., Any], xs: Any) -> Callable[[], Any]:
        def forward() -> Any:
            return recurrence(cell, xs, (zeros, zeros))[0]

        return training_step(forward, [xs, *weights], grad_out[: len(xs)]) if backward else forward

    scanning, eager = call(scan, x), call(unroll, two)
    first, *later = (duration(scanning) for _ in range(1 + LATER_CALLS))
    eagerly = [duration(eager) for _ in range(LATER_CALLS)]
    traces = [duration(lambda: trace_step(cell, x, (zeros, zeros))) for _ in range(LATER_CALLS)]
    tracing, eager_time, later_time = map(statistics.median, (traces, eagerly, later))
    return tracing, eager_time, first, later_time


def duration(call: Callable[[], Any]) -> float:
    """How many seconds one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def show(header: list[str], rows: list[list[str]]) -> None:
    """Print the newest row, below the header if it is the first."""
    lines = table(header, rows).splitlines()
    print("\n".join([*lines[:2], lines[-1]] if len(rows) == 1 else lines[-1:]), flush=True)


def some_of(options: dict[str, Any]) -> Callable[[str], list[Any]]:
    """A parser of comma-separated names of options."""

    def parse(text: str) -> list[Any]:
        try:
            return [options[name] for name in text.split(",")]
        except KeyError as unknown:
            raise argparse.ArgumentTypeError(
                f"{unknown}: expected some of {list(options)}"
            ) from None

    return parse


def main() -> None:
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(description="Time and memory of recurrences in training.")
    parser.add_argument("--write", action="store_true", help="replace docs/benchmarks/recurrent.md")
    sizes = {str(index): size for index, size in enumerate(SIZES)}
    parser.add_argument("--sizes", type=some_of(sizes), help="some of the seven, from 0: 0,1,2")
    cells = {cell: cell for cell in BLOCKS}
    parser.add_argument("--cells", type=some_of(cells), help=f"some of {','.join(cells)}")
    parser.add_argument(
        "--yardstick",
        type=Path,
        default=YARDSTICK if YARDSTICK.exists() else None,
        help="a file with the hand-tuned loop",
    )
    arguments = parser.parse_args()
    selected = arguments.sizes or arguments.cells
    if selected and arguments.write:
        parser.error("--write replaces the whole page: leave out --sizes and --cells")

    if installed("torch"):
        import torch

        torch.set_num_threads(2)
    for name, there in (
        ("PyTorch", installed("torch")),
        ("JAX", installed("jax")),
        ("hand-tuned", arguments.yardstick),
    ):
        if not there:
            print(f"not found: {name}; its column stays empty")

    measured = [
        speed(arguments.cells or list(cells), arguments.sizes or SIZES, arguments.yardstick)
    ]
    if not selected:
        measured += [measure() for measure in (growth, memory, first_calls)]
    if arguments.write:
        write_page("recurrent", "Training recurrent layers", *page(*measured))


def page(*measured: Table) -> Iterator[str]:
    """The tables, each below what it shows and how that was measured."""
    for legend, (header, rows) in zip(LEGENDS, measured, strict=True):
        yield legend
        yield table(header, rows)
    packages = [package for package in ("numpy", "torch", "jax") if installed(package)]
    yield machine(*packages)


LEGENDS = (
    """Forward and backward of one layer in one direction, from zero states, float32, 2 threads:
gradients of the input and of every weight for a given gradient of the outputs. Medians over blocks
that alternate between the columns, all in one process (`benchmarks/recurrent.py`). Before a row is
timed, all gradients are compared with those of `scan`: the last column is the largest difference in
any of them, relative to the largest value of that gradient. Compilation and tracing happen before
the timing. In the columns *… / scan*, above 1 means that `scan` is faster.

- **scan**, **unroll**: `nn.RNN`, `nn.LSTM` and `nn.GRU` with that `mode`, the cell run by that
  function for *peephole*: an LSTM with peepholes, nine lines of tensor operations that the library
  does not know.
- **PyTorch**: its layer of the same name; for *peephole*, which has none, the same cell in a Python
  loop.
- **JAX**: the same equations in `jax.lax.scan`, its `jax.vjp` in one `jax.jit`, on the CPU. The
  cell is given to it as to `scan`, with the product of input and weights inside the step.
- **hand-tuned**: an LSTM layer written for speed in plain NumPy, forward and backward by hand, with
  everything allocated beforehand. It computes nothing but this layer, and is not part of the
  repository.

*GFLOP/s* counts the matrix products, 2 T B (D + H) G H forward with G blocks of H rows, and twice
that backward, and relates them to the product of two large matrices (2048 × 2048) in this run.""",
    """## Growth

One LSTM layer as above, through `scan`; one of T, B and H varied at a time.
*µs per step* is the time divided by T, *per sequence* that divided by B, too.""",
    """## Memory

One training step of an LSTM layer, forward and backward. Each number is from a process of its own:
the highest resident memory during the step (VmHWM, set back before it through
`/proc/self/clear_refs`), less the resident memory before it, when imports, weights and data were
there and a step of a tiny layer had been taken (`benchmarks/recurrent_memory.py`). The gradients
are part of it, the input and the weights are not.""",
    f"""## First call

The cell is traced at every call, whatever T is; what follows from that is worked out once. The
peephole LSTM above at T, B, D, H = {written(FIRST_CALL_SIZE)}: tracing a step, and two steps of the
same cell through `unroll`; then a whole call with a new cell at a new batch size, and the median of
the {LATER_CALLS} calls after it. Medians over {FRESH_CELLS} cells.""",
)

if __name__ == "__main__":
    main()
