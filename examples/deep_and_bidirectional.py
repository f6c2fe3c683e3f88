"""Chapter 10: what a second layer adds, and what a second direction adds, at equal parameters.

    python examples/deep_and_bidirectional.py [--parameters 4000] [--seeds 1] [--write]

Networks of one to three layers, in one direction or both, are made as wide as a number of
parameters allows and learn small tasks: a bit that came before, a bit that is yet to come,
whether the two differ, and a state that moves by what one letter, or a pair of them, stands for.
It takes two minutes for each seed. --write keeps what it found, for the chapter.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import click
import numpy as np
from experiment import panels, program, progress, write_record

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.optim import Adam

UNKNOWN = -100  # the label of a step that is not asked about
LAG = 2  # how many steps lie between a step and the bits that its label is made of
LETTERS = 4
BLOCK, ENOUGH = 50, 0.95  # a task is learnt when so many answers of a block of updates are right


class Design(NamedTuple):
    """How a network is built, but for its width."""

    layers: int
    both_directions: bool = False
    hidden_output: bool = False  # a hidden layer between the states and the scores
    cell: str = "RNN"


class Task(NamedTuple):
    """What a network reads, and how many answers there are."""

    draw: Callable[[int, int], tuple[torch.Tensor, torch.Tensor]]  # (T, B) -> inputs, labels
    lengths: tuple[int, ...]  # T, one after the other in training
    inputs: int
    answers: int


def bits(label: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Task:
    """Random bits; the label is made of the bit LAG steps back and the bit LAG steps ahead."""

    def draw(length: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        xs = torch.randint(0, 2, (length, batch, 1))
        read = xs.numpy()[..., 0]
        labels = np.full(read.shape, UNKNOWN)  # at both ends one of the bits is missing
        labels[LAG:-LAG] = label(read[: -2 * LAG], read[2 * LAG :])
        return xs.float(), torch.tensor(labels)

    return Task(draw, lengths=(20,), inputs=1, answers=2)


def moves(states: int, letters_count: int, number: int) -> Task:
    """Pairs of letters; a state moves on by what they mean, and is asked about each time.

    How far it moves is read off a table without a rule, by the first letter or by both of them;
    the states go round. number: which table.
    """
    random = np.random.default_rng(number)
    table = random.permutation(np.arange(LETTERS**letters_count) % states)

    def draw(length: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = torch.randint(0, LETTERS, (2, length, batch))
        xs = torch.cat([F.one_hot(letters, LETTERS) for letters in pairs.unbind(0)], -1)
        one, two = pairs.numpy()
        word = one if letters_count == 1 else LETTERS * one + two
        return xs.float(), torch.tensor(table[word].cumsum(0) % states)

    return Task(draw, lengths=tuple(range(1, 11)), inputs=2 * LETTERS, answers=states)


BITS = {
    "behind": bits(lambda behind, ahead: behind),
    "ahead": bits(lambda behind, ahead: ahead),
    "differ": bits(lambda behind, ahead: behind ^ ahead),
}
MOVES: dict[str, Callable[[int], Task]] = {  # which table -> the task
    "one letter counts, 5 states": functools.partial(moves, 5, 1),
    "the pair counts, 3 states": functools.partial(moves, 3, 2),
    "the pair counts, 5 states": functools.partial(moves, 5, 2),
}
DESIGNS = {
    "one direction, 1 layer": Design(1),
    "one direction, 2 layers": Design(2),
    "both directions, 1 layer": Design(1, both_directions=True),
    "both directions, 1 layer, hidden output": Design(1, both_directions=True, hidden_output=True),
    "both directions, 2 layers": Design(2, both_directions=True),
}
STACKS = {
    "RNN, 1 layer": Design(1),
    "RNN, 2 layers": Design(2),
    "RNN, 3 layers": Design(3),
    "LSTM, 1 layer": Design(1, cell="LSTM"),
    "LSTM, 2 layers": Design(2, cell="LSTM"),
}


class Tagger(nn.Module):
    """An answer for every step."""

    def __init__(self, design: Design, task: Task, units: int) -> None:
        super().__init__()
        layers, both, hidden_output, cell = design
        recurrent = {"RNN": nn.RNN, "LSTM": nn.LSTM}[cell]
        self.recurrent = recurrent(task.inputs, units, layers, bidirectional=both)
        states = units * (1 + both)
        if hidden_output:
            self.output: nn.Module = nn.Sequential(
                nn.Linear(states, units), nn.Tanh(), nn.Linear(units, task.answers)
            )
        else:
            self.output = nn.Linear(states, task.answers)

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        """(T, B, inputs) -> (T, B, answers) scores."""
        hs, _ = self.recurrent(xs)
        return self.output(hs)


def size(model: nn.Module) -> int:
    """How many numbers a model learns."""
    return sum(weight.numel() for weight in model.parameters())


def widest(design: Design, task: Task, parameters: int) -> int:
    """The most units in a layer with which the network has at most so many parameters."""
    units = 1
    while size(Tagger(design, task, units + 1)) <= parameters:
        units += 1
    return units


def train(design: Design, task: Task, parameters: int, updates: int) -> tuple[Tagger, list[float]]:
    """A network as wide as the parameters allow, and its share of right answers, by update."""
    units = widest(design, task, parameters)
    model = Tagger(design, task, units)
    optimizer = Adam(model.parameters(), lr=0.005)
    shares = []
    for update in progress(range(updates), f"{units} units"):
        xs, labels = task.draw(task.lengths[update % len(task.lengths)], 64)
        scores = model(xs)
        loss = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=UNKNOWN)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        shares.append(share_right(scores, labels))
    return model, torch.stack(shares).tolist()


def share_right(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The share of right answers, at the steps that are asked about."""
    right, asked = scores.argmax(-1) == labels, labels != UNKNOWN
    return (right & asked).float().sum() / asked.float().sum()


class Score(NamedTuple):
    """How a network does on new sequences: nats per answer, and the share of right ones."""

    loss: float
    right: float


@torch.no_grad()
def score(model: Tagger, task: Task, batch: int = 500) -> Score:
    """The score at the greatest length of training."""
    xs, labels = task.draw(task.lengths[-1], batch)
    scores = model(xs)
    loss = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=UNKNOWN)
    return Score(loss.item(), share_right(scores, labels).item())


@torch.no_grad()
def interaction(model: Tagger) -> float:
    """How far the effect of the bit ahead depends on the bit behind: |s_00 - s_01 - s_10 + s_11|.

    s_pq is the score of 1 less that of 0 at a step in the middle of random bits, with p as the bit
    LAG steps behind it and q as the one LAG steps ahead. 0 for any sum F(p) + G(q).
    """
    middle = 2 * LAG
    xs = torch.cat([torch.randint(0, 2, (2 * middle + 1, 1, 1)).float()] * 4, 1)
    xs[middle - LAG, :, 0] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    xs[middle + LAG, :, 0] = torch.tensor([0.0, 1.0, 0.0, 1.0])
    scores = model(xs)[middle]  # (4, 2)
    s = scores[:, 1] - scores[:, 0]
    return abs(s[0] - s[1] - s[2] + s[3]).item()


def steps_read(value: torch.Tensor, xs: torch.Tensor) -> list[int]:
    """The steps of xs (T, B, D) on which a value depends: where its gradient is not zero."""
    (gradient,) = torch.autograd.grad(value.sum(), [xs], retain_graph=True)
    return [t for t, read in enumerate((gradient != 0).flatten(1).any(-1).tolist()) if read]


def in_blocks(shares: list[float]) -> list[float]:
    """The mean of each BLOCK updates."""
    whole = len(shares) // BLOCK * BLOCK
    return [round(float(mean), 3) for mean in np.reshape(shares[:whole], (-1, BLOCK)).mean(1)]


def learnt_after(blocks: list[float]) -> int | None:
    """The updates after which a task was learnt, or None."""
    return next((BLOCK * n for n, mean in enumerate(blocks, start=1) if mean >= ENOUGH), None)


def learn_bits(parameters: int, updates: int, seeds: int) -> dict[str, dict[str, list[Score]]]:
    """By task and design: the score of each seed."""
    found: dict[str, dict[str, list[Score]]] = {}
    for name, task in BITS.items():
        found[name] = {}
        for built, design in DESIGNS.items():
            runs = (train(design, task, parameters, updates) for _ in range(seeds))
            found[name][built] = [score(model, task) for model, _ in runs]
            print(f"{name:8s}{built:41s}", *(f"{loss:7.3f}" for loss, _ in found[name][built]))
    return found


def learn_moves(parameters: int, updates: int, seeds: int) -> dict[str, dict[str, list[Any]]]:
    """By task and stack: the shares of right answers of each seed, in blocks of updates."""
    found: dict[str, dict[str, list[Any]]] = {}
    for name, task in MOVES.items():
        found[name] = {}
        for built, design in STACKS.items():
            runs = (train(design, task(number), parameters, updates) for number in range(seeds))
            found[name][built] = [in_blocks(shares) for _, shares in runs]
            after = (learnt_after(blocks) or "never" for blocks in found[name][built])
            print(f"{name:28s}{built:15s}", *(f"{number:>6}" for number in after))
    return found


def draw_bits(found: dict[str, dict[str, list[Score]]]) -> Any:
    """The loss of every run, by task and design: a dot for each seed."""
    figure, axes = panels(columns=len(found), width=10, height=2.4)
    for axis, (name, designs) in zip(axes, found.items(), strict=True):
        for row, scores in enumerate(designs.values()):
            losses = [loss for loss, _ in scores]
            apart = np.linspace(-0.3, 0.3, len(losses) + 2)[1:-1]  # or all would lie on one
            axis.plot(losses, row + apart, "o", color="tab:blue", alpha=0.6, markersize=4)
        axis.axvline(np.log(2), color="black", linestyle=":", label="guessing, ln 2")
        axis.set(
            title=name, xlabel="nats per answer", xlim=(-0.04, 0.8), yticks=range(len(designs))
        )
        axis.set_yticklabels(designs if axis is axes[0] else [])
        axis.set_ylim(len(designs) - 0.5, -0.5)
    axes[0].legend(frameon=False, fontsize=8, loc="center")
    return figure


def draw_moves(found: dict[str, dict[str, list[Any]]]) -> Any:
    """The share of right answers during training: a panel by cell and task, a line by seed."""
    figure, axes = panels(rows=2, columns=len(found), width=11, height=2.5)
    colours = {1: "tab:blue", 2: "tab:orange", 3: "black"}
    for column, (name, stacks) in zip(axes.T, found.items(), strict=True):
        for built, runs in stacks.items():
            layers, cell = STACKS[built].layers, STACKS[built].cell
            axis = column[["RNN", "LSTM"].index(cell)]
            for number, blocks in enumerate(runs):
                updates = BLOCK * np.arange(1, len(blocks) + 1)
                label = None if number else f"{layers} layer{'s' * (layers > 1)}"
                axis.plot(updates, blocks, color=colours[layers], alpha=0.7, label=label, lw=1.2)
            axis.axhline(ENOUGH, color="gray", linestyle=":")
            axis.set_title(f"{cell}: {name}", fontsize=9)
            axis.set(ylim=(0.2, 1.03))
        column[-1].set_xlabel("updates")
    for axis in axes[:, 0]:
        axis.set_ylabel("share of right answers")
        axis.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


@program
@click.option("--parameters", default=4000, show_default=True, type=click.IntRange(min=200))
@click.option("--bit-updates", default=400, show_default=True, type=click.IntRange(min=1))
@click.option("--move-updates", default=2500, show_default=True, type=click.IntRange(min=BLOCK))
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--write", is_flag=True, help="Keep the results in docs/results, for the chapter.")
def main(
    parameters: int, bit_updates: int, move_updates: int, seeds: int, write: bool
) -> Callable[[], Any]:
    """Train every design on every task."""
    print(f"at most {parameters} parameters; nats per answer on new sequences, by seed")
    bits_found = learn_bits(parameters, bit_updates, seeds)
    print(f"updates until {ENOUGH:.0%} of the answers were right, by seed")
    moves_found = learn_moves(parameters, move_updates, seeds)
    if write:
        command = (
            f"python examples/deep_and_bidirectional.py --parameters {parameters} --bit-updates "
            f"{bit_updates} --move-updates {move_updates} --seeds {seeds} --write"
        )
        write_record("deep_and_bidirectional", command, {"bits": bits_found, "moves": moves_found})
    return lambda: draw_moves(moves_found)


if __name__ == "__main__":
    main()
