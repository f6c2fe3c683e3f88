"""What `import tinygrad_rnn` costs on top of `import numpy`.

    python benchmarks/import_time.py [--write]

Each import runs in a new process, in turn with the other; the difference of the medians counts.
With --write, docs/benchmarks/import_time.md.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
from harness import machine, table, write_page

RUNS = 15
TIMER = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def seconds(statement: str) -> float:
    program = TIMER.format(statement)
    caching = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=caching
    )
    return float(run.stdout)


def main() -> None:
    statements = {"numpy": "import numpy", "both": "import numpy; import tinygrad_rnn"}
    seen: dict[str, list[float]] = {name: [] for name in statements}
    for run in range(RUNS + 1):
        for name, statement in statements.items():
            taken = seconds(statement)
            if run:  # the first run writes the byte code
                seen[name].append(taken)
    numpy, both = (float(np.median(seen[name])) * 1e3 for name in statements)
    rows = [[f"{numpy:.0f}", f"{both:.0f}", f"{both - numpy:.0f}"]]
    result = table(["import numpy, ms", "and tinygrad_rnn, ms", "difference, ms"], rows)
    print(result)
    if "--write" in sys.argv[1:]:
        explanation = f"Medians of {RUNS} new processes each (`benchmarks/import_time.py`)."
        print(
            "wrote", write_page("import_time", "Import time", explanation, result, machine("numpy"))
        )


if __name__ == "__main__":
    main()
