"""What was measured on a GPU, where, of which source: plain data, kept so that a run can go on.

Read gpu_cases.py before this file; gpu_page.py shows the results.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
from harness import processor

ROOT = Path(__file__).resolve().parent.parent


class Results:
    """What was measured, kept in a file if there is a path.

    machine: what `machine` says. cases: what `gpu_cases.measure` found, by the case's name.
    begun: the name of the case that is being measured. tables: those of gpu_micro.py, by title. A
    file of another machine, version or source is not gone on with: times of two states of a program
    do not belong into one table.
    """

    def __init__(self, machine: dict[str, str], path: Path | None = None) -> None:
        self.machine, self.path = machine, path
        self.cases: dict[str, Any] = {}
        self.begun = ""
        self.tables: dict[str, Any] = {}
        if path is not None and path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if {**kept["machine"], "date": ""} == {**machine, "date": ""}:
                self.machine = kept["machine"]
                self.cases, self.tables = kept["cases"], kept["tables"]
                self.begun = kept.get("begun", "")

    def save(self) -> None:
        """Replace the file in one step: a run that is killed leaves the one before or after."""
        if self.path is None:
            return
        kept = {"machine": self.machine, "cases": self.cases, "tables": self.tables}
        if self.begun:
            kept["begun"] = self.begun
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.path)


def machine(cupy: Any, torch: Any) -> dict[str, str]:
    """What is measured on, and what: names and versions, the date, a digest of the source."""
    runtime = cupy.cuda.runtime
    return {
        "GPU": runtime.getDeviceProperties(0)["name"].decode(),
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "CUDA of the driver": _version(runtime.driverGetVersion()),
        "CUDA of CuPy": _version(runtime.runtimeGetVersion()),
        "CUDA of PyTorch": torch.version.cuda,
        "CuPy": cupy.__version__,
        "PyTorch": torch.__version__,
        "cuDNN": str(torch.backends.cudnn.version()),
        "NumPy": np.__version__,
        "Python": platform.python_version(),
        "source": source(),
        "date": datetime.date.today().isoformat(),
    }


def _version(number: int) -> str:
    """CUDA's way to write 13.1 is 13010."""
    return f"{number // 1000}.{number % 1000 // 10}"


def source() -> str:
    """A digest of the package and of this benchmark: what was measured is what is there."""
    digest = hashlib.sha256()
    for path in sorted([*ROOT.glob("tinygrad_rnn/**/*.py"), *ROOT.glob("benchmarks/gpu*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
