"""A character model in plain API: reads a text, learns to guess its next character, writes.

    python examples/char_lm.py [FILE] [--device cuda]

Without a file it learns from this one, which it will soon know by heart. It takes some seconds.
`tinygrad-rnn train` does the same with checkpoints, validation and a real text.
"""

import argparse
from pathlib import Path

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.optim import Adam
from tinygrad_rnn.utils.data import BPTTBatcher


class CharLM(nn.Module):
    """The chances of the next character, given those so far."""

    def __init__(self, symbols, hidden=96):
        super().__init__()
        self.embedding = nn.Embedding(symbols, 32)
        self.lstm = nn.LSTM(32, hidden)
        self.output = nn.Linear(hidden, symbols)

    def forward(self, tokens, state=None):
        y, state = self.lstm(self.embedding(tokens), state)  # (T, B, hidden)
        return self.output(y), state  # (T, B, symbols)


options = argparse.ArgumentParser(description="Learns to guess the next character of a text.")
options.add_argument("text", nargs="?", default=__file__, help="a UTF-8 file")
options.add_argument("--device", help="cpu, cuda or cuda:1, cuda:2, …; as TINYGRAD_RNN_DEVICE says")
chosen = options.parse_args()
try:
    torch.set_default_device(chosen.device or torch.get_default_device())
except RuntimeError as error:
    options.exit(2, f"{options.prog}: {error}\n")

text = Path(chosen.text).read_text(encoding="utf-8")
symbols = sorted(set(text))
tokens = torch.tensor([symbols.index(character) for character in text])

torch.manual_seed(0)
model = CharLM(len(symbols))
optimizer = Adam(model.parameters(), lr=0.01)
batches = BPTTBatcher(tokens, batch_size=4, seq_len=32)  # four lanes, 32 characters at a time

for epoch in range(40):
    state = None
    for inputs, targets in batches:  # (T, B) each, every window continues the one before
        logits, state = model(inputs, state)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        state = tuple(part.detach() for part in state)  # the past is remembered, not learnt from
    if epoch % 5 == 4:
        print(f"epoch {epoch + 1:3d}: loss {loss.item():.3f} nats per character")

with torch.no_grad():
    token, state = tokens[:1], None
    for _ in range(300):
        logits, state = model(token[:, None], state)  # one step: T = 1, B = 1
        token = torch.multinomial((logits[0, 0] / 0.7).softmax(-1), 1)
        print(symbols[token.item()], end="", flush=True)
print()
