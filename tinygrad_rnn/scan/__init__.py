"""Recurrences: one cell, applied to every step of a sequence.

A cell is any function `cell(x, h) -> (y, h)`. Read trees.py (tuples of tensors as one value), then
unroll.py (what a recurrence is).
"""

from tinygrad_rnn.scan.explain import explain
from tinygrad_rnn.scan.recurrence import forget
from tinygrad_rnn.scan.scan import scan
from tinygrad_rnn.scan.unroll import Cell, unroll

__all__ = ["Cell", "explain", "forget", "scan", "unroll"]
