"""A character model trained here and in PyTorch from the same weights: the losses must agree.

One program, written once and run with either library: whatever differs in the embedding, the
layers, the loss, backward or the optimizer shows in the curve.
"""

import random

import numpy as np
import pytest

import tinygrad_rnn

torch = pytest.importorskip("torch")

STEPS, T, B = 200, 17, 9  # training steps, characters of a sequence, sequences of a batch
TOLERANCE = 1e-3  # nats per character


def text() -> str:
    """Sums as a pupil writes them down: every rule of the text is learnable."""
    draw = random.Random(3)
    pairs = [(draw.randrange(10), draw.randrange(10)) for _ in range(400)]
    return "".join(f"{a} + {b} = {a + b};\n" for a, b in pairs)


def batches(codes: np.ndarray) -> list[np.ndarray]:
    """For each training step, B sequences of T characters and the one after: (T + 1, B)."""
    draw = np.random.default_rng(4)
    starts = draw.integers(0, len(codes) - T, (STEPS, B))
    return [np.stack([codes[start : start + T + 1] for start in row], axis=1) for row in starts]


def character_model(library, characters):
    """Embedding, two layers of LSTM and a linear output; the parameters of all of them."""

    class CharacterModel(library.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = library.nn.Embedding(characters, 12)
            self.lstm = library.nn.LSTM(12, 32, num_layers=2)
            self.output = library.nn.Linear(32, characters)

        def forward(self, x, state):
            y, state = self.lstm(self.embedding(x), state)
            return self.output(y), state

    return CharacterModel()


def train(library, model, data):
    """The loss of every step, in nats per character."""
    optimizer = library.optim.Adam(model.parameters(), lr=5e-3)
    curve = []
    for batch in data:
        state = library.full((2, B, 32), 0.1), library.full((2, B, 32), -0.2)
        sequence = library.tensor(batch)
        scores, _ = model(sequence[:-1], state)
        loss = library.nn.functional.cross_entropy(
            scores.reshape(T * B, -1), sequence[1:].reshape(T * B)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    return curve


def losses():
    """PyTorch's curve and ours, from equal weights and equal batches, in float32."""
    alphabet = sorted(set(text()))
    codes = np.array([alphabet.index(character) for character in text()])
    data = batches(codes)
    torch.manual_seed(0)
    theirs = character_model(torch, len(alphabet))
    ours = character_model(tinygrad_rnn, len(alphabet))
    ours.load_state_dict(theirs.state_dict())
    return train(torch, theirs, data), train(tinygrad_rnn, ours, data)


def test_the_same_curve():
    theirs, ours = losses()
    assert len(ours) == STEPS
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)
    assert ours[-1] < 0.6 * ours[0]  # and it did learn
