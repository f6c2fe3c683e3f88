"""BPTT for RNN, LSTM and GRU derived by hand, and the check that the graph says the same."""
