"""NumPy's executor of a recurrence: everything is decided before the loop, and then replayed.

Read memory.py (where values are), instructions.py (what NumPy is told to do), lowering.py (how
equations become instructions), plan.py (a whole step), frame.py (one run of it).
"""

from tinygrad_rnn.scan.replay.plan import Plan

__all__ = ["Plan"]
