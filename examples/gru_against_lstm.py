"""Chapter 9: a GRU against an LSTM, in weights, in time, and in what they learn with equally many.

    python examples/gru_against_lstm.py [--task counting] [--seeds 3] [--updates 1000] [--write]

Three tasks: Python's own source text, character by character; counting; and adding over a long lag.
Each cell gets the best of three learning rates. One task takes some minutes; --write keeps what
was found for the page. Read long_lags.py first, whose adding problem is one of the tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import click
import numpy as np
from experiment import now, panels, program, progress, write_record
from long_lags import adding, error_of_sum

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.char_lm.text import Vocabulary, python_text
from tinygrad_rnn.optim import Adam
from tinygrad_rnn.optim.lr_scheduler import LambdaLR

CELLS = {"LSTM": nn.LSTM, "GRU": nn.GRU}
RATES = (0.003, 0.01, 0.03)
HELD_OUT = 50_000  # characters at the end of the text
COUNTED = 20  # the largest count in training
LARGEST = 100  # the largest count that is asked for


def units_for(cell: str, inputs: int, outputs: int, weights: int) -> int:
    """The most units H with at most so many weights in the recurrent and the last layer.

    G blocks have G · H · (H + inputs + 2) weights, and what reads them has outputs · (H + 1).
    """
    blocks = CELLS[cell].num_chunks
    half = (inputs + 2 + outputs / blocks) / 2
    return int(math.sqrt(half**2 + (weights - outputs) / blocks) - half)


def weights(layer: nn.Module) -> int:
    """How many numbers there are to learn."""
    return sum(weight.numel() for weight in layer.parameters())


def times(layers: dict[str, nn.RNNBase], steps: int, batch: int, blocks: int) -> dict[str, float]:
    """Seconds per step of each layer, forward and backward: the median over all calls.

    The layers take turns, block by block, so that whatever else the machine does meets them
    all alike.
    """
    xs = {name: torch.randn(steps, batch, layer.input_size) for name, layer in layers.items()}
    seen: dict[str, list[float]] = {name: [] for name in layers}
    for _ in progress(range(blocks), "times"):
        for name, layer in layers.items():
            for call in range(3):
                start = now()
                layer(xs[name])[0].sum().backward()
                if call > 0:  # the first call of a block warms up
                    seen[name].append(now() - start)
    return {name: float(np.median(several)) / steps for name, several in seen.items()}


class Net(nn.Module):
    """Something that makes vectors of what is read, a recurrent layer, and a linear one."""

    def __init__(self, cell: str, read: nn.Module, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        units = units_for(cell, inputs, outputs, size)
        self.read = read
        self.recurrent = CELLS[cell](inputs, units)
        self.output = nn.Linear(units, outputs)

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        """(T, B, …) -> (T, B, outputs)."""
        hs, _ = self.recurrent(self.read(xs))
        return self.output(hs)


class Text:
    """The next character of the source of Python's standard library, in nats per character."""

    title = "text"
    size = 35_000

    def __init__(self) -> None:
        text = python_text(1_000_000)
        self.vocabulary = Vocabulary.of(text[:-HELD_OUT])
        self.known = torch.tensor(self.vocabulary.encode(text[:-HELD_OUT]))
        self.unseen = torch.tensor(self.vocabulary.encode(text[-HELD_OUT:]))

    def net(self, cell: str) -> Net:
        """A character becomes a vector of 32 numbers."""
        symbols = len(self.vocabulary)
        return Net(cell, nn.Embedding(symbols, 32), 32, symbols, self.size)

    def loss(self, model: Net) -> torch.Tensor:
        """On 32 windows of 50 characters from anywhere in the text."""
        starts = torch.randint(0, len(self.known) - 51, (32,))
        return self._surprise(model, self.known[starts + torch.arange(51).unsqueeze(1)])

    def score(self, model: Net) -> float:
        """Nats per character of the text held out, in windows of 200."""
        lanes = self.unseen[: len(self.unseen) // 200 * 200].reshape(-1, 200).T
        return self._surprise(model, lanes).item()

    def _surprise(self, model: Net, window: torch.Tensor) -> torch.Tensor:
        scores = model(window[:-1])
        return F.cross_entropy(scores.flatten(0, 1), window[1:].flatten())


class Counting:
    """a a a b b b: from which b on have there been as many b as a? (Weiss et al. 2018)"""

    title = "counting"
    size = 1_000

    def net(self, cell: str) -> Net:
        """One input: +1 for a, -1 for b."""
        return Net(cell, nn.Identity(), 1, 1, self.size)

    @staticmethod
    def examples(counts: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(T, B, 1): n times a and then b; and whether there are as many b by now."""
        step = torch.arange(steps).unsqueeze(1)
        letters = 1 - 2 * (step >= counts).float()
        return letters.unsqueeze(-1), (step >= 2 * counts - 1).float().unsqueeze(-1)

    def loss(self, model: Net) -> torch.Tensor:
        """On 32 counts from 1 to COUNTED, in nats per step."""
        counts = torch.randint(1, COUNTED + 1, (32,))
        letters, reached = self.examples(counts, 2 * COUNTED + 2)
        return F.binary_cross_entropy_with_logits(model(letters), reached)

    def score(self, model: Net) -> float:
        """Of the counts that are larger than in training: how many are right at every step."""
        letters, reached = self.examples(torch.arange(1, LARGEST + 1), 2 * LARGEST + 2)
        right = ((model(letters) > 0).float() == reached).numpy().all(axis=(0, 2))
        return float(right[COUNTED:].sum())


def counter() -> Net:
    """An LSTM of one unit, by hand: all gates are open, and c is how many b are missing."""
    net = Net("LSTM", nn.Identity(), inputs=1, outputs=1, size=18)
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
        net.recurrent.weight_ih_l0[2] = 20.0  # the candidate: tanh(±20) is ±1
        net.recurrent.bias_ih_l0[[0, 1, 3]] = 100.0  # the gates: σ(100) is 1
        net.output.weight[:] = -1.0
        net.output.bias[:] = 0.5  # h = tanh(c) is 0 for as many, and at least 0.76 for more
    return net


class Adding:
    """The sum of two marked numbers among the first half of 50, as a squared error."""

    title = "adding"
    size = 2_500
    steps = 50

    def net(self, cell: str) -> Net:
        """Two inputs: a number and a mark."""
        return Net(cell, nn.Identity(), 2, 1, self.size)

    def loss(self, model: Net) -> torch.Tensor:
        """On 20 new sequences."""
        xs, sums = adding(self.steps, 20, within=0.5)
        return error_of_sum(model(xs), sums)

    def score(self, model: Net) -> float:
        """The squared error on 1000 new sequences."""
        xs, sums = adding(self.steps, 1000, within=0.5)
        return error_of_sum(model(xs), sums).item()


TASKS = {task.title: task for task in (Text, Counting, Adding)}
Task = Text | Counting | Adding


class Run(NamedTuple):
    """A trained network, its losses, and what it scores on what it has not seen."""

    model: Net
    losses: list[float]
    score: float

    @property
    def end(self) -> float:
        """The mean loss of the last 50 updates."""
        return float(np.mean(self.losses[-50:]))


def train(task: Task, cell: str, rate: float, updates: int, seed: int) -> Run:
    """Learn a task. The rate falls to 0 along a line; gradients are clipped to norm 1."""
    torch.manual_seed(seed)
    model = task.net(cell)
    optimizer = Adam(model.parameters(), lr=rate)
    falling = LambdaLR(optimizer, lambda update: 1 - update / updates)
    losses = []
    for _ in progress(range(updates), f"{cell}, {task.title}, rate {rate}"):
        loss = task.loss(model)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        falling.step()
        losses.append(loss.detach())
    with torch.no_grad():
        return Run(model, torch.stack(losses).tolist(), task.score(model))


def measure(task: Task, cell: str, seeds: list[int], updates: int) -> dict[str, Any]:
    """Scores by seed, at the rate whose training loss is lower for the first seed."""
    first = {rate: train(task, cell, rate, updates, seeds[0]) for rate in RATES}
    rate = min(first, key=lambda rate: first[rate].end)
    runs = [first[rate], *(train(task, cell, rate, updates, seed) for seed in seeds[1:])]
    return {
        "cell": cell,
        "units": runs[0].model.recurrent.hidden_size,
        "weights": weights(runs[0].model),
        "rate": rate,
        "ends": [round(run.end, 5) for run in runs],
        "scores": [round(run.score, 5) for run in runs],
    }


def described(found: dict[str, Any]) -> str:
    """One line about what `measure` found."""
    scores = " ".join(f"{score:7.4g}" for score in found["scores"])
    return (
        f"{found['cell']:4s} {found['units']:3d} units, {found['weights']:6,d} weights, "
        f"rate {found['rate']:5.3f}: {scores}"
    )


def times_by_units(sizes: tuple[int, ...], blocks: int = 12) -> dict[int, dict[str, float]]:
    """By number of units of an LSTM: microseconds per step, of it and of two GRUs."""
    found = {}
    for units in sizes:
        lstm = nn.LSTM(units, units)
        as_many_weights = units_for("GRU", units, 0, weights(lstm))
        layers = {
            "LSTM": lstm,
            "GRU, as many units": nn.GRU(units, units),
            "GRU, as many weights": nn.GRU(units, as_many_weights),
        }
        seconds = times(layers, steps=25, batch=32, blocks=blocks)
        found[units] = {name: 1e6 * each for name, each in seconds.items()}
    return found


def draw_times(found: dict[int, dict[str, float]]) -> Any:
    """The times of two GRUs as shares of that of the LSTM."""
    figure, ax = panels(width=6)
    for name in ("GRU, as many units", "GRU, as many weights"):
        shares = [times[name] / times["LSTM"] for times in found.values()]
        ax.semilogx(found.keys(), shares, "o-", label=name)
    ax.axhline(1, color="black", linewidth=1)
    ax.axhline(0.75, color="black", linestyle=":", linewidth=1, label="three quarters")
    ax.set_xticks(list(found), [str(units) for units in found])
    ax.minorticks_off()
    ax.set(xlabel="units of the LSTM", ylabel="time / time of the LSTM", ylim=(0, None))
    ax.legend(frameon=False)
    return figure


AXES = {
    "text": "nats per unseen character",
    "counting": f"right of the counts {COUNTED + 1} to {LARGEST}",
    "adding": "squared error (guess: 0.167)",
}


def draw(results: dict[str, list[dict[str, Any]]]) -> Any:
    """By task: the scores of both cells, a point for each seed, a bar at the median."""
    figure, axes = panels(columns=len(results), width=1 + 2.8 * len(results), height=3.4)
    for ax, (task, found) in zip(np.ravel(axes), results.items(), strict=True):
        for place, row in enumerate(found):
            scores = row["scores"]
            aside = np.linspace(-0.15, 0.15, len(scores)) if len(scores) > 1 else [0.0]
            ax.plot(place + np.array(aside), scores, "o", color=f"C{place}", alpha=0.7)
            ax.hlines(np.median(scores), place - 0.25, place + 0.25, color=f"C{place}")
        labels = [f"{row['cell']}\n{row['units']} units" for row in found]
        ax.set_xticks(range(len(found)), labels)
        ax.set(xlim=(-0.5, len(found) - 0.5), title=task, ylabel=AXES[task])
        if task == "adding":
            ax.set_yscale("log")
        if task == "counting":
            ax.set_ylim(0, None)
    return figure


@program
@click.option("--task", default="counting", show_default=True, type=click.Choice(list(TASKS)))
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--updates", default=1000, show_default=True, type=click.IntRange(min=1))
@click.option("--write", is_flag=True, help="Keep what is found in docs/results/.")
def main(task: str, seeds: int, updates: int, write: bool) -> Callable[[], Any]:
    """Train both cells with equally many weights, and keep or draw what they score."""
    first = torch.initial_seed()
    chosen = TASKS[task]()
    print(f"{AXES[task]}, by seed")
    found = []
    for cell in CELLS:
        found.append(measure(chosen, cell, list(range(first, first + seeds)), updates))
        print(described(found[-1]), flush=True)
    if write:
        command = (
            f"python examples/gru_against_lstm.py --task {task} --seeds {seeds} "
            f"--updates {updates} --seed {first} --write"
        )
        print(f"written to {write_record(f'gru_against_lstm_{task}', command, found)}")
    return lambda: draw({task: found})


if __name__ == "__main__":
    main()
