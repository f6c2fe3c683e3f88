"""Chapter 1: one set of weights for every step, and so sequences of any length.

    python examples/any_length.py [--seeds 5] [--units 8] [--updates 1500]

A network reads bits and says after each one whether it has seen an odd number of ones so far. It
trains on at most ten bits and is then asked about up to a thousand. A feed-forward network that
gets the same bits all at once has a weight for every place, and cannot even be asked. It takes ten
seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import click
from experiment import panels, program, progress

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.optim import Adam
from tinygrad_rnn.scan import unroll

TRAINED_ON = 10  # the longest sequence in training
LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Parity(nn.Module):
    """After every bit: was the number of ones so far odd?"""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(1, units)
        self.output = nn.Linear(units, 1)

    def forward(self, bits: torch.Tensor) -> torch.Tensor:
        """(T, B, 1) bits -> (T, B, 1) scores, positive for odd, whatever T is."""
        hs, _ = self.rnn(bits)
        return self.output(hs)


def some_bits(length: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(T, B, 1) random bits, and whether the number of ones up to each is odd."""
    bits = torch.randint(0, 2, (length, batch, 1))
    return bits.float(), (bits.cumsum(0) % 2).float()


def train(units: int, updates: int) -> tuple[Parity, list[float]]:
    """A network trained on sequences of 1 to 10 bits, and its losses in nats per bit."""
    model = Parity(units)
    optimizer = Adam(model.parameters(), lr=0.01)
    losses = []
    for update in progress(range(updates), "training"):
        bits, odd = some_bits(1 + update % TRAINED_ON, batch=64)
        loss = F.binary_cross_entropy_with_logits(model(bits), odd)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return model, torch.stack(losses).tolist()


@torch.no_grad()
def accuracies(model: Parity, batch: int = 200) -> dict[int, float]:
    """By length: the share of right answers after the last bit, on new sequences."""
    found = {}
    for length in LENGTHS:
        bits, odd = some_bits(length, batch)
        right = (model(bits)[-1] > 0).float() == odd[-1]
        found[length] = right.float().mean().item()
    return found


class PerStep(NamedTuple):
    """The gradient of the recurrent weight: of the one that all steps share, and of copies."""

    shared: torch.Tensor  # (H, H)
    of_copies: torch.Tensor  # (T, H, H)


def gradient_per_step(model: Parity, length: int = 6) -> PerStep:
    """dL/dW of the shared weight, and of as many copies as there are steps, one for each."""
    bits, odd = some_bits(length, batch=3)
    loss = F.binary_cross_entropy_with_logits(model(bits), odd)
    (shared,) = torch.autograd.grad(loss, [model.rnn.weight_hh_l0])

    W_x, W, b_x, b = (weight.detach() for weight in model.rnn.all_weights[0])
    copies = W.expand(length, *W.shape).clone().requires_grad_()  # (T, H, H)

    def cell(step: Any, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, own_W = step
        h = (x @ W_x.T + b_x + h @ own_W.T + b).tanh()
        return h, h

    hs, _ = unroll(cell, (bits, copies), torch.zeros(3, W.shape[0]))
    loss = F.binary_cross_entropy_with_logits(model.output(hs), odd)
    (of_copies,) = torch.autograd.grad(loss, [copies])
    return PerStep(shared, of_copies)


def weights_needed(length: int, units: int) -> tuple[int, int]:
    """Numbers to learn, for sequences of a length: by this network, and by a feed-forward one."""
    feed_forward = nn.Sequential(nn.Linear(length, units), nn.Tanh(), nn.Linear(units, 1))
    counts = (sum(w.numel() for w in model.parameters()) for model in (Parity(units), feed_forward))
    return tuple(counts)


def draw(runs: list[dict[int, float]], units: int) -> Any:
    """The share of right answers by length, one line for each seed, and the number of weights."""
    figure, (left, right) = panels(columns=2)
    for found in runs:
        left.semilogx(found.keys(), found.values(), "o-", color="tab:blue", alpha=0.6, markersize=4)
    left.axvspan(1, TRAINED_ON, color="tab:green", alpha=0.15, label="lengths in training")
    left.axhline(0.5, color="black", linestyle=":", label="guessing")
    left.set(ylim=(0.4, 1.03), xlabel="bits read", ylabel="share of right answers")
    left.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.62))
    counts = zip(*(weights_needed(length, units) for length in LENGTHS), strict=True)
    for name, numbers in zip(("recurrent", "feed-forward"), counts, strict=True):
        right.loglog(LENGTHS, numbers, "o-", label=name, markersize=4)
    right.set(xlabel="bits in a sequence", ylabel="weights")
    right.legend(frameon=False)
    return figure


@program
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--units", default=8, show_default=True, type=click.IntRange(min=1))
@click.option("--updates", default=1500, show_default=True, type=click.IntRange(min=1))
def main(seeds: int, units: int, updates: int) -> Callable[[], Any]:
    """Train with several seeds, ask about ever longer sequences, take the gradient apart."""
    runs = []
    print("share of right answers after", "  ".join(f"{length:4d}" for length in LENGTHS), "bits")
    for number in range(1, seeds + 1):  # one generator goes on from run to run
        model, losses = train(units, updates)
        runs.append(accuracies(model))
        shares = "  ".join(f"{share:4.0%}" for share in runs[-1].values())
        print(f"run {number}, trained to {losses[-1]:.4f} nats {shares}")
    shared, of_copies = gradient_per_step(model)
    difference = (shared - of_copies.sum(0)).abs().max() / shared.abs().max()
    print(
        f"gradient of the shared weight, and the sum of those of one copy for each step: apart by "
        f"{difference.item():.0e} of the largest"
    )
    return lambda: draw(runs, units)


if __name__ == "__main__":
    main()
