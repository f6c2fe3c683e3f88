"""NumPy's executor of a recurrence: everything is decided before the loop, and then replayed.

Read memory.py (where values are), instructions.py (what NumPy is told to do), lowering.py (how
equations become instructions, helped by halves.py and merging.py), plan.py (a whole step), frame.py
(one run of it, with totals.py), pool.py (which memory is kept).
"""

from tinygrad_rnn.scan.replay.plan import Plan
from tinygrad_rnn.scan.replay.pool import pool

__all__ = ["Plan", "pool"]
