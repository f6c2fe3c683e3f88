"""Recurrent cells and layers, with PyTorch's names, shapes and weights.

Read equations.py (what one step computes), then cells.py (one step as a module), then layers.py
(whole sequences, layers and directions).
"""

from tinygrad_rnn.nn.recurrent.cells import GRUCell, LSTMCell, RNNCell, RNNCellBase
from tinygrad_rnn.nn.recurrent.layers import GRU, LSTM, RNN, RNNBase

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNBase", "RNNCell", "RNNCellBase"]
