"""A GPU's executor of a recurrence: few launches for a step, and one for the whole loop.

Read rewriting.py (which equivalent step needs few launches), source.py (elementwise equations as a
kernel), schedule.py (in what order), plan.py (a whole step), cublas.py and launches.py (what is
launched), frame.py (one run, and the CUDA graph).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from tinygrad_rnn.backend import device_of
from tinygrad_rnn.scan.cuda.frame import Frame, Refused
from tinygrad_rnn.scan.cuda.plan import Plan, way
from tinygrad_rnn.scan.cuda.schedule import launches_text
from tinygrad_rnn.scan.pool import pool

__all__ = ["Plan", "launches_text", "run", "way"]


def run(plan: Plan, xp: Any, inputs: Sequence[Any], length: int, reverse: bool) -> list[Any]:
    """The outputs of a plan after `length` steps; see `interpret`, which defines them."""
    with xp.cuda.Device(device_of(inputs[0]).index):
        try:
            return pool.run(partial(Frame, xp=xp), plan, inputs, length, reverse)
        except Refused:
            return pool.run(partial(Frame, xp=xp), plan, inputs, length, reverse)
