"""A training step on a GPU moves nothing between host and GPU, and waits for nothing.

The test double counts: every array of the host that is brought over, and every value that is read.
Not the first steps: what is worked out then, or kept from then on, may move.
"""

import numpy as np
import pytest
import strict_double

import tinygrad_rnn as torch
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn import nn, optim
from tinygrad_rnn.scan import scan

pytestmark = pytest.mark.usefixtures("on_the_double")


@pytest.fixture
def moved(monkeypatch):
    """What has been moved or waited for."""
    seen = []
    array = strict_double.ndarray

    def watched(name, function, counts):
        def call(x, *args, **kwargs):
            if counts(x):
                seen.append(name)
            return function(x, *args, **kwargs)

        return call

    for name in ("asarray", "array"):
        function = watched(name, getattr(strict_double, name), lambda x: type(x) is not array)
        monkeypatch.setattr(strict_double, name, function)
    for name in ("get", "item", "tolist", "set", "__bool__", "__float__", "__int__", "__index__"):
        if hasattr(array, name):
            function = watched(name, getattr(array, name), lambda _: True)
            monkeypatch.setattr(array, name, function)
    return seen


class Tagger(nn.Module):
    """Words, an LSTM in both directions, a GRU, dropout, a choice for each step."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 6, padding_idx=0)
        self.lstm = nn.LSTM(6, 5, num_layers=2, bidirectional=True, dropout=0.25)
        self.gru = nn.GRU(10, 10)
        self.norm = nn.LayerNorm(10)
        self.out = nn.Linear(10, 4)

    def forward(self, tokens):
        ys, _ = self.gru(self.lstm(self.words(tokens))[0])
        return self.out(self.norm(F.dropout(ys, 0.1, self.training)))


class OwnCell(nn.Module):
    """A recurrence with attention to its own inputs and dropout in its step."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.step = nn.Linear(12, 6)
        self.out = nn.Linear(6, 4)

    def forward(self, tokens):
        xs = self.words(tokens)

        def cell(x, h):
            weights = (h @ xs.mean(0).T).softmax(-1)
            h = F.dropout(self.step(torch.cat([x, weights @ xs.mean(0) + h], -1)).tanh(), 0.2)
            return torch.where(x > 0, h, 0.5 * h), h

        start = torch.zeros(tokens.shape[1], 6)
        return self.out(scan(cell, xs, start)[0])


@pytest.mark.parametrize("model", [Tagger, OwnCell])
@pytest.mark.parametrize("optimizer", [optim.SGD, optim.AdamW, optim.RMSprop])
def test_a_training_step_moves_nothing(model, optimizer, moved):
    model = model()
    optimizer = optimizer(model.parameters(), lr=0.01)
    tokens, tags = torch.randint(11, (7, 4)), torch.randint(4, (7, 4))
    losses = []
    for step in range(5):
        if step == 3:
            moved.clear()
        loss = F.cross_entropy(model(tokens).flatten(0, 1), tags.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
    assert moved == []
    assert len({loss.item() for loss in losses}) == 5


def test_the_count_counts(moved):
    x = torch.ones(3)
    assert moved == []
    torch.tensor(np.ones(3))
    assert moved == ["asarray"]
    x.sum().item()
    x.numpy()
    bool((x > 0).all())
    assert moved == ["asarray", "item", "get", "item"]
