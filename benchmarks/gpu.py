"""How fast are recurrences on a GPU, beside PyTorch's cuDNN layers and a loop in Python?

    PYTHONPATH=. python3 benchmarks/gpu.py [--quick] [--micro] [--minutes 8] [--write PAGE]

Needs a GPU, CuPy and PyTorch (2.9 or newer), and no network. Cases go from the most telling size to
the least, until the minutes are up. With --write, what was measured is kept after every case, as
JSON beside the page, and the page is written from it: a run that was stopped goes on where it was.
A kernel that fails can take the GPU from the whole process, or never end: the case in which a run
broke off or was killed is listed as such by the next one, which goes on with the case after it.
What a case is: gpu_cases.py. The page: gpu_page.py. Without a GPU: one line, and exit status 2.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gpu_micro
from gpu_cases import CUSTOM, ENDED_A_RUN, Case, ended_a_run, measure
from gpu_page import least_seconds, page, ratios, target, targets
from gpu_results import Results, machine
from gpu_sides import Side, ours, theirs
from harness import table

from tinygrad_rnn import backend

SIZES = [  # B, H: the most telling first, those whose place between others is clear last
    *((64, 256), (16, 128), (64, 512), (256, 1024), (64, 128), (256, 256)),
    *((16, 512), (16, 256), (64, 1024), (256, 128), (16, 1024), (256, 512)),
]
CELLS = ("LSTM", "GRU", *CUSTOM, "RNN")
QUICK = 3  # sizes
SECONDS = 0.2  # to spend on timing a phase of a case


def all_cases(sizes: Sequence[tuple[int, int]], T: int = 512) -> list[Case]:
    """All cells and precisions at these sizes, in the order in which they are measured."""
    return [
        Case(cell, B, H, precision, T)
        for precisions in (("TF32", "float32"), ("float16", "bfloat16"))
        for B, H in sizes
        for cell in CELLS
        for precision in precisions
        if not (cell in CUSTOM and precision == "bfloat16")  # scan has none, and there is no layer
    ]


class Budget:
    """Seconds that may be spent. `room` says whether another case like the longest fits."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._end = now, now() + seconds
        self._longest = 0.0

    def left(self) -> float:
        """Seconds."""
        return self._end - self._now()

    def room(self) -> bool:
        """Whether there is time for one more."""
        return self.left() > self._longest

    def run(self, work: Callable[[], Any]) -> Any:
        """Do something, and remember how long it took."""
        start = self._now()
        result = work()
        self._longest = max(self._longest, self._now() - start)
        return result


def measure_cases(
    results: Results,
    cases: Sequence[Case],
    sides: tuple[Side, Side],
    budget: Budget,
    seconds: float,
    keep: Callable[[], None],
) -> None:
    """Measure what the results lack, as long as there is room, and keep each case at once.

    A case that is begun and not in the results ended the run before, unless it was interrupted.
    """
    for number, case in enumerate(cases, 1):
        if case.name in results.cases:
            continue
        if case.name == results.begun:
            results.cases[case.name], results.begun = ended_a_run(case), ""
            keep()
            print(f"{number}/{len(cases)} {case.name}: {ENDED_A_RUN}")
            continue
        if not budget.room():
            measured = sum(case.name in results.cases for case in cases)
            print(f"the time is up: {measured} of {len(cases)} cases are measured")
            return
        results.begun = case.name
        results.save()
        try:
            found = budget.run(lambda case=case: measure(case, *sides, seconds))
        except KeyboardInterrupt:
            results.begun = ""
            results.save()
            raise
        results.cases[case.name], results.begun = found, ""
        keep()
        print(f"{number}/{len(cases)} {case.name}; {budget.left():.0f} s left")
        for phase in found:
            print(f"    {phase}: {told(results, case, phase)}", flush=True)


def told(results: Results, case: Case, phase: str) -> str:
    """What was found for a phase of a case, in a line."""
    found = results.cases[case.name][phase]
    parts = [f"{way} {seconds * 1e3:.3f} ms" for way, seconds in found["seconds"].items()]
    parts += [f"{way} {reason}" for way, reason in found["failed"].items()]
    least = least_seconds(results, case, phase)
    if least is not None:
        parts.append(f"floor {least * 1e3:.3f} ms")
    for name, ratio in zip(("scan / cuDNN", "loop / scan"), ratios(found), strict=True):
        if ratio is not None:
            parts.append(f"{name} {ratio:.2f}")
    met = target(case, found)
    return ", ".join(parts) + {True: ": target met", False: ": target missed", None: ""}[met]


def measure_parts(
    results: Results, parts: dict[str, Callable[[], Any]], keep: Callable[[], None]
) -> None:
    """The tables that the results lack; one that fails says so, and the others are measured."""
    for title, part in parts.items():
        if title in results.tables:
            continue
        try:
            found = part()
        except Exception as error:
            print(f"{title}: {type(error).__name__}: {error}")
            continue
        results.tables[title] = found
        keep()
        print(f"{title}\n{table(found['header'], found['rows'])}", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(description="Recurrences on a GPU, beside PyTorch.")
    parser.add_argument("--quick", action="store_true", help=f"only the first {QUICK} sizes")
    parser.add_argument("--micro", action="store_true", help="the parts of a step, too, and first")
    parser.add_argument("--minutes", type=float, default=8.0, help="that it may take (8)")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="Markdown to write, and JSON beside it"
    )
    chosen = parser.parse_args(arguments)
    try:
        cupy = backend.library("cuda")
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError("PyTorch finds no GPU, or was installed without CUDA")
    except (ImportError, RuntimeError) as error:
        print(f"benchmarks/gpu.py: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None

    budget = Budget(60 * chosen.minutes)
    path = chosen.write and chosen.write.with_suffix(".json")
    results = Results(machine(cupy, torch), path)
    everything = all_cases(SIZES)

    def keep() -> None:
        if chosen.write:
            results.save()
            chosen.write.write_text(page(results, everything), encoding="utf-8")

    sides = ours(cupy, torch), theirs(torch)
    parts = {"Single operations": lambda: gpu_micro.operations(*sides)}
    if chosen.micro:
        parts |= {
            "Launches": lambda: gpu_micro.launches(cupy, torch, *sides),
            "Nodes of a CUDA graph": lambda: gpu_micro.graph_nodes(cupy, sides[0]),
            "Steps of a recurrence": lambda: gpu_micro.recurrence_steps(cupy, torch, *sides),
            "Steps of a layer": lambda: gpu_micro.layer_steps(*sides),
        }
    measure_parts(results, parts, keep)
    cases = all_cases(SIZES[:QUICK]) if chosen.quick else everything
    measure_cases(results, cases, sides, budget, SECONDS, keep)
    print("\n".join(targets(results, cases)) if chosen.write else page(results, everything))


if __name__ == "__main__":
    main()
