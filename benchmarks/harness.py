"""How benchmarks here measure: in alternating blocks, in one process, and with the machine named.

Idle threads of one library spin for a while and slow the next library's calls, so two libraries are
never timed call by call: each gets a block of calls after a pause, block after block in turn, and
medians over all its calls are compared. A library against itself then reads 0.97 to 1.03.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

PAGES = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"


def alternate(
    steps: dict[str, Callable[[], object]],
    blocks: int = 8,
    block_seconds: float = 0.25,
    pause_seconds: float = 0.1,
) -> dict[str, float]:
    """The median time of each step, in seconds: name -> median over all calls of all blocks."""
    seen: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(blocks):
        for name, step in steps.items():
            time.sleep(pause_seconds)
            step()
            step()
            stop = time.perf_counter() + block_seconds
            while True:
                start = time.perf_counter()
                step()
                end = time.perf_counter()
                seen[name].append(end - start)
                if end > stop:
                    break
    return {name: float(np.median(times)) for name, times in seen.items()}


def machine(*packages: str) -> str:
    """One line that says what was measured on: processor, cores, versions, date."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return (
        f"{processor()}, {os.cpu_count()} cores, {platform.system()}; "
        f"Python {platform.python_version()}, {versions}; {datetime.date.today().isoformat()}"
    )


def processor() -> str:
    """The name of the machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (n + 2) for n in widths) + "|")
    return "\n".join(lines)


def write_page(name: str, title: str, *parts: str) -> Path:
    """Write docs/benchmarks/NAME.md, which only benchmarks write."""
    PAGES.mkdir(parents=True, exist_ok=True)
    path = PAGES / f"{name}.md"
    path.write_text("\n\n".join([f"# {title}", *parts]) + "\n", encoding="utf-8")
    return path
