"""Backpropagation through time derived by hand, and the check that the graph says the same.

`docs/derivations.md` is the page to read beside these files. The derivations, in plain NumPy:
cell.py (what a cell is), rnn.py, lstm.py, gru.py (one step), through_time.py (a sequence),
stacked.py (layers and directions), cross_entropy.py (where gradients begin). The check:
numerical.py (slopes measured), witnesses.py (graph and derivation asked alike), compare.py
(`verify`), verification.py (what it finds), matrix.py (`check_all`, for `tinygrad-rnn check`).
"""

from tinygrad_rnn.by_hand.cell import Cell, Weights
from tinygrad_rnn.by_hand.compare import verify
from tinygrad_rnn.by_hand.gru import GRU
from tinygrad_rnn.by_hand.lstm import LSTM
from tinygrad_rnn.by_hand.matrix import check_all
from tinygrad_rnn.by_hand.rnn import RNN
from tinygrad_rnn.by_hand.verification import Row, Verification

__all__ = ["GRU", "LSTM", "RNN", "Cell", "Row", "Verification", "Weights", "check_all", "verify"]
