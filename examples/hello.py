"""Chapter 3: the "hello" character model, by hand and by graph.

    python examples/hello.py [--updates 300] [--units 3]

Four letters, three hidden units: given h, e, l, l, a network learns to say e, l, l, o. Gradients
are computed twice, by lines of NumPy and by the graph. It takes some seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import click
import numpy as np
from experiment import panels, program, progress

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.optim import SGD

LETTERS = "helo"
INPUTS, TARGETS = "hell", "ello"


def one_hot(text: str) -> np.ndarray:
    """(T, 4): a one at the place of each letter."""
    return np.eye(len(LETTERS))[[LETTERS.index(letter) for letter in text]]


class Weights(NamedTuple):
    """Of the model, or their gradients. h' = tanh(x W_x + h W_h + b), scores = h' W_y + b_y."""

    W_x: Any  # (4, H)
    W_h: Any  # (H, H)
    b: Any  # (H,)
    W_y: Any  # (H, 4)
    b_y: Any  # (4,)


def some_weights(units: int, seed: int = 0) -> Weights:
    """Small random weights."""
    random = np.random.default_rng(seed)
    shapes = ((4, units), (units, units), (units,), (units, 4), (4,))
    return Weights(*(random.standard_normal(shape) / 2 for shape in shapes))


def by_hand(w: Weights) -> tuple[float, Weights]:
    """The loss in nats per letter and its gradients, every line of it written out."""
    xs, ys = one_hot(INPUTS), one_hot(TARGETS)
    hs, ps = [np.zeros(w.b.shape)], []
    for x in xs:
        hs.append(np.tanh(x @ w.W_x + hs[-1] @ w.W_h + w.b))
        scores = np.exp(hs[-1] @ w.W_y + w.b_y)
        ps.append(scores / scores.sum())  # softmax: the chance of each letter
    loss = -np.mean([np.log(p @ y) for p, y in zip(ps, ys, strict=True)])

    dW_x, dW_h, db, dW_y, db_y = (np.zeros_like(weight) for weight in w)
    dh_next = np.zeros(w.b.shape)
    for t in reversed(range(len(xs))):
        ds = (ps[t] - ys[t]) / len(xs)  # softmax and cross-entropy together
        dW_y += np.outer(hs[t + 1], ds)
        db_y += ds
        dh = ds @ w.W_y.T + dh_next  # the letter and the next step both read h
        da = dh * (1 - hs[t + 1] ** 2)
        dW_x += np.outer(xs[t], da)
        dW_h += np.outer(hs[t], da)
        db += da
        dh_next = da @ w.W_h.T
    return float(loss), Weights(dW_x, dW_h, db, dW_y, db_y)


def by_graph(w: Weights) -> tuple[float, Weights]:
    """The same from the graph, which is told the forward pass only."""
    leaves = Weights(*(torch.tensor(weight, requires_grad=True) for weight in w))
    h, losses = torch.zeros(w.b.shape, dtype=torch.float64), []
    for x, y in zip(torch.tensor(one_hot(INPUTS)), torch.tensor(one_hot(TARGETS)), strict=True):
        h = (x @ leaves.W_x + h @ leaves.W_h + leaves.b).tanh()
        losses.append(-((h @ leaves.W_y + leaves.b_y).log_softmax(-1) * y).sum())
    loss = torch.stack(losses).mean()
    loss.backward()
    return loss.item(), Weights(*(leaf.grad.numpy() for leaf in leaves))


class Hello(nn.Module):
    """The same model from layers. remembers: whether a step gets the state of the one before."""

    def __init__(self, units: int, remembers: bool = True) -> None:
        super().__init__()
        self.rnn = nn.RNN(len(LETTERS), units)
        self.output = nn.Linear(units, len(LETTERS))
        self.remembers = remembers

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        """(T, 4) letters -> (T, 4) scores of the next one."""
        if self.remembers:
            return self.output(self.rnn(xs)[0])
        alone = xs.unsqueeze(0)  # (1, T, 4): every letter is a sequence of its own
        return self.output(self.rnn(alone)[0].squeeze(0))


class Training(NamedTuple):
    """Chances of the right letters (updates, T), losses in nats, and what the model says."""

    chances: np.ndarray
    losses: list[float]
    says: str


def train(units: int, updates: int, remembers: bool = True) -> Training:
    """Train on "hell" -> "ello", and ask for the likeliest letters."""
    model = Hello(units, remembers)
    optimizer = SGD(model.parameters(), lr=0.5)
    xs = torch.tensor(one_hot(INPUTS)).float()
    targets = torch.tensor([LETTERS.index(letter) for letter in TARGETS])
    chances, losses = [], []
    for _ in progress(range(updates), "training"):
        scores = model(xs)
        loss = F.cross_entropy(scores, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right = scores.softmax(-1).gather(-1, targets.unsqueeze(-1))
        chances.append(right.detach()[:, 0])
        losses.append(loss.detach())
    says = "".join(LETTERS[place] for place in model(xs).argmax(-1).tolist())
    return Training(torch.stack(chances).numpy(), torch.stack(losses).tolist(), says)


def draw(runs: dict[str, Training]) -> Any:
    """The chance of each right letter over training, with and without memory."""
    figure, axes = panels(columns=2, width=10)
    for axis, (name, run) in zip(axes, runs.items(), strict=True):
        for t, (letter, target) in enumerate(zip(INPUTS, TARGETS, strict=True)):
            style = "--" if t == 3 else "-"
            axis.plot(run.chances[:, t], style, label=f"{t + 1}: after {letter}, {target}")
        axis.set(ylim=(0, 1.02), xlabel="updates", title=f'{name}: says "{run.says}"')
    axes[0].set_ylabel("chance of the right letter")
    axes[0].legend(frameon=False, loc="lower right")
    return figure


@program
@click.option("--units", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--updates", default=300, show_default=True, type=click.IntRange(min=1))
def main(units: int, updates: int) -> Callable[[], Any]:
    """Gradients twice, then training with and without memory."""
    weights = some_weights(units)
    (loss, hand), (same_loss, graph) = by_hand(weights), by_graph(weights)
    print(f"loss by hand {loss:.6f}, by graph {same_loss:.6f} nats per letter")
    for name, one, other in zip(Weights._fields, hand, graph, strict=True):
        print(f"d{name:4s} apart by at most {np.abs(one - other).max():.0e}")
    runs = {
        "with memory": train(units, updates),
        "without memory": train(units, updates, remembers=False),
    }
    for name, run in runs.items():
        print(f'{name}: {INPUTS} -> "{run.says}", loss {run.losses[-1]:.4f} nats per letter')
    return lambda: draw(runs)


if __name__ == "__main__":
    main()
