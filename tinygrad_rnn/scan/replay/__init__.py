"""NumPy's executor of a recurrence: everything is decided before the loop, and then replayed.

Read ../memory.py (where values are), layout.py (how they lie there), instructions.py (what NumPy is
told to do), lowering.py (how equations become instructions, helped by halves.py and merging.py),
plan.py (a whole step), frame.py (one run of it, with totals.py).
"""

from tinygrad_rnn.scan.replay.frame import Frame
from tinygrad_rnn.scan.replay.plan import Plan

__all__ = ["Frame", "Plan"]
