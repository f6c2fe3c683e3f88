"""How much memory does one training step of an LSTM take at its peak, in one library?

    python benchmarks/recurrent_memory.py {scan,unroll,PyTorch} T B D H

Prints MiB: the highest resident size of this process during one forward and backward, less its
resident size before, when imports, weights and data were there and a tiny step had been taken.
recurrent.py starts one process for each number. Linux only: writing 5 to /proc/self/clear_refs
sets the peak that the kernel keeps (VmHWM) back to the present size. The ru_maxrss of getrusage
would not do: it cannot be set back, so a peak at import would hide that of a small step.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from recurrent_columns import Problem, Step, draw, layer_step

WAYS = ("scan", "unroll", "PyTorch")


def step_of(way: str, problem: Problem) -> Step:
    """One training step of an LSTM layer."""
    if way == "PyTorch":
        import torch

        torch.set_num_threads(2)
        return layer_step(torch, problem)
    import tinygrad_rnn

    return layer_step(tinygrad_rnn, problem, mode=way)


def resident(field: str) -> int:
    """VmRSS, the resident size of this process, or VmHWM, the highest it has had; in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1])


def main() -> None:
    way, *size = sys.argv[1:]
    step_of(way, draw("LSTM", 2, 1, 4, 4))()
    problem = draw("LSTM", *map(int, size))  # kept: freed, its memory might serve the step unseen
    step = step_of(way, problem)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    step()
    print((resident("VmHWM") - before) / 1024)


if __name__ == "__main__":
    main()
