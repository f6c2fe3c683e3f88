"""What is a character model? Three layers of `nn`, and nothing of its own.

An embedding turns a character's number into a vector, a recurrent layer turns the vectors so far
into one that remembers them, and a linear layer turns that into a score for each character that
may come next. How it is trained: `training.py`; how it writes: `sampling.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinygrad_rnn import creation, nn
from tinygrad_rnn.tensor import Tensor

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class CharLM(nn.Module):
    """Scores of the next character: logits_t = output(recurrent(embedding(x_t), h_{t-1})).

    Shapes: tokens: (T, B) integers below `symbols`; logits: (T, B, symbols), log-probabilities
    but for a constant per position. `state` is the recurrent layer's: (layers, B, hidden), for an
    LSTM a pair of them; None stands for zeros.

    symbols: size of the vocabulary. cell: "rnn", "lstm" or "gru". embed: size of a character's
    vector. dropout: the chance that a value between two layers is dropped while training.
    """

    def __init__(
        self,
        symbols: int,
        cell: str = "lstm",
        layers: int = 1,
        hidden: int = 256,
        embed: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0  # one layer has nothing between
        self.embedding = nn.Embedding(symbols, embed)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = CELLS[cell](embed, hidden, layers, dropout=between)
        self.output = nn.Linear(hidden, symbols)

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """(logits, the state after the last step)."""
        x = self.dropout(self.embedding(tokens))  # (T, B, embed)
        y, state = self.recurrent(x, state)  # (T, B, hidden)
        return self.output(self.dropout(y)), state

    def streaming(self) -> tuple[Callable[[int, Any], tuple[Tensor, Any]], Any]:
        """(step, state), to read one character at a time: logits, state = step(token, state).

        The same function as `forward` on one sequence in evaluation mode, without what only whole
        sequences need: a token goes through one cell after the other; logits are (symbols,), and
        the state is a list with the state of each layer. The state given here is zeros.
        """
        table, W, b = self.embedding.weight, self.output.weight.T, self.output.bias
        cells = [self.recurrent.cell(layer) for layer in range(self.recurrent.num_layers)]

        def step(token: int, states: list[Any]) -> tuple[Tensor, list[Any]]:
            y, after = table[token], []
            for cell, h in zip(cells, states, strict=True):
                y, h = cell(y, h)
                after.append(h)
            return y @ W + b, after

        zeros = creation.zeros(self.recurrent.hidden_size, device=table.device)
        pair = isinstance(self.recurrent, nn.LSTM)
        return step, [(zeros, zeros) if pair else zeros for _ in cells]
