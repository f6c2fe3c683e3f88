"""Chapter 8: over how many steps can a network remember?

    python examples/long_lags.py [--task adding] [--lag 20 --lag 50] [--seeds 3] [--write]

The answer lies far back, and what comes in between says nothing. Five recurrent layers with equally
many weights learn such tasks, each with the best of three learning rates. One lag and one seed take
about a minute; --write keeps what was found for the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import click
import numpy as np
from experiment import panels, program, progress, write_record

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.optim import Adam

WEIGHTS = 2500  # of every recurrent layer, at most
RATES = (0.001, 0.003, 0.01)
BATCH = 20
LATEST = 100  # the updates whose mean loss counts as the loss now
SOLVED = 0.1  # of the loss of those who remember nothing
DONE = 0.01  # of the same: training stops early
WORST = 10.0  # of the same: whatever is worse, or no number, counts as this

Pair = tuple[torch.Tensor, torch.Tensor]


def adding(steps: int, batch: int, within: float = 1.0) -> Pair:
    """(T, B, 2) numbers from [0, 1) and marks; (B, 1) sums of the two that are marked.

    There is one mark in each half of the first `within` of the steps.
    """
    numbers, half = torch.rand(steps, batch), int(steps * within) // 2
    first, second = torch.randint(0, half, (batch,)), torch.randint(half, 2 * half, (batch,))
    marks = (F.one_hot(first, steps) + F.one_hot(second, steps)).float().T
    return torch.stack([numbers, marks], -1), (numbers * marks).sum(0).unsqueeze(-1)


def copy_memory(blanks: int, batch: int, symbols: int = 1) -> Pair:
    """Symbols from 1 … 8, blanks (0), and from the cue (9) on the symbols are to be said.

    (T, B, 10) with one 1 at every step, and (T, B) what to say, 0 until then. T is blanks + 2 ·
    symbols; a symbol is said blanks + symbols steps after it was read.
    """
    what = torch.randint(1, 9, (symbols, batch))
    nothing = torch.zeros(blanks + symbols, batch, dtype=torch.int64)
    cue = torch.full((symbols + 1, batch), 9)
    read = torch.cat([what, nothing[: blanks - 1], cue])
    return F.one_hot(read, 10).float(), torch.cat([nothing, what])


def error_of_sum(outputs: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
    """The squared error of what is said after the last step."""
    return F.mse_loss(outputs[-1], sums)


def surprise(outputs: torch.Tensor, symbols: torch.Tensor) -> torch.Tensor:
    """Nats per step."""
    return F.cross_entropy(outputs.flatten(0, 1), symbols.flatten())


class Task(NamedTuple):
    """What is read, what is to be said, and what it costs to remember nothing."""

    title: str
    inputs: int
    outputs: int
    examples: Callable[[int, int], Pair]  # of a lag and a batch size
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    floor: Callable[[int], float]  # the loss of the best that one can say without a memory


def adding_task(title: str, within: float) -> Task:
    """Without a memory one says 1, and is off by the variance of two uniform numbers."""
    return Task(title, 2, 1, partial(adding, within=within), error_of_sum, lambda lag: 2 / 12)


def copy_task(title: str, symbols: int) -> Task:
    """Without a memory one guesses each symbol with chance 1/8; blanks cost nothing."""
    draw = partial(copy_memory, symbols=symbols)
    return Task(
        title, 10, 9, draw, surprise, lambda lag: symbols * math.log(8) / (lag + 2 * symbols)
    )


TASKS = {
    "adding": adding_task("adding, marks anywhere", within=1.0),
    "early": adding_task("adding, marks in the first half", within=0.5),
    "copy": copy_task("copy memory, one symbol", symbols=1),
    "copy10": copy_task("copy memory, ten symbols", symbols=10),
}


def tanh_rnn(inputs: int, units: int, lag: int) -> nn.RNN:
    """h' = tanh(W x + U h + b)."""
    return nn.RNN(inputs, units)


def identity_rnn(inputs: int, units: int, lag: int) -> nn.RNN:
    """h' = relu(W x + U h + b) with U = 1 and b = 0 at first: Le, Jaitly and Hinton 2015."""
    rnn = nn.RNN(inputs, units, nonlinearity="relu")
    nn.init.normal_(rnn.weight_ih_l0, std=0.001)
    nn.init.eye_(rnn.weight_hh_l0)
    nn.init.zeros_(rnn.bias_ih_l0)
    nn.init.zeros_(rnn.bias_hh_l0)
    return rnn


def lstm(inputs: int, units: int, lag: int) -> nn.LSTM:
    """As it is: all weights and biases from U(-1/√H, 1/√H), so gates begin near one half."""
    return nn.LSTM(inputs, units)


def lstm_for_lag(inputs: int, units: int, lag: int) -> nn.LSTM:
    """Forget gates that hold for up to `lag` steps: Tallec and Ollivier 2018."""
    rnn = nn.LSTM(inputs, units)
    nn.init.zeros_(rnn.bias_ih_l0)
    nn.init.zeros_(rnn.bias_hh_l0)
    with torch.no_grad():
        forget = (1 + (lag - 2) * torch.rand(units)).log()
        rnn.bias_ih_l0[:units] = -forget  # the input gate
        rnn.bias_ih_l0[units : 2 * units] = forget
    return rnn


def gru(inputs: int, units: int, lag: int) -> nn.GRU:
    """As it is."""
    return nn.GRU(inputs, units)


CELLS = {
    "tanh RNN": tanh_rnn,
    "identity RNN": identity_rnn,
    "LSTM": lstm,
    "LSTM, biases for the lag": lstm_for_lag,
    "GRU": gru,
}
MARKERS = "os^vD"
BLOCKS = {tanh_rnn: 1, identity_rnn: 1, lstm: 4, lstm_for_lag: 4, gru: 3}


def units_for(cell: str, inputs: int) -> int:
    """The most units H with at most WEIGHTS weights: G blocks have G · H · (H + inputs + 2)."""
    half = (inputs + 2) / 2
    return int(math.sqrt(half**2 + WEIGHTS / BLOCKS[CELLS[cell]]) - half)


class Net(nn.Module):
    """A recurrent layer, and a linear one that reads every state of it."""

    def __init__(self, cell: str, task: Task, lag: int) -> None:
        super().__init__()
        units = units_for(cell, task.inputs)
        self.recurrent = CELLS[cell](task.inputs, units, lag)
        self.output = nn.Linear(units, task.outputs)

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        """(T, B, inputs) -> (T, B, outputs)."""
        hs, _ = self.recurrent(xs)
        return self.output(hs)


class Run(NamedTuple):
    """A trained network, and its loss at every update as a share of the floor."""

    model: Net
    losses: list[float]

    @property
    def end(self) -> float:
        """The loss at the end: 1 is that of remembering nothing."""
        return min(float(np.nan_to_num(np.mean(self.losses[-LATEST:]), nan=WORST)), WORST)


def train(name: str, cell: str, lag: int, rate: float, updates: int, seed: int) -> Run:
    """Learn a task, on new sequences at every update, until it is done or the updates are spent."""
    torch.manual_seed(seed)
    task = TASKS[name]
    model = Net(cell, task, lag)
    run = Run(model, [])
    optimizer = Adam(model.parameters(), lr=rate)
    for _ in progress(range(updates), f"{cell}, {name}, lag {lag}"):
        xs, targets = task.examples(lag, BATCH)
        loss = task.loss(model(xs), targets)
        run.losses.append(loss.item() / task.floor(lag))
        done = len(run.losses) >= LATEST and run.end < DONE
        if done or not math.isfinite(run.losses[-1]):
            break
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return run


def arriving(layer: nn.RNNBase, xs: torch.Tensor) -> float:
    """The norm of what arrives at the first state of a gradient of norm 1 at the last output."""
    zeros = torch.zeros(1, xs.shape[1], layer.hidden_size, dtype=xs.dtype)
    state = [zeros.clone().requires_grad_() for _ in layer.state_names]
    hs, _ = layer(xs, tuple(state) if len(state) > 1 else state[0])
    direction = torch.randn_like(hs[-1])
    gradients = torch.autograd.grad(hs[-1], state, direction / direction.norm())
    return torch.cat([gradient.flatten() for gradient in gradients]).norm().item()


def measure(name: str, cell: str, lag: int, seeds: list[int], updates: int) -> dict[str, Any]:
    """Loss at the end and number of updates by seed, at the rate that is best for the first."""
    first = {rate: train(name, cell, lag, rate, updates, seeds[0]) for rate in RATES}
    rate = min(first, key=lambda rate: (max(first[rate].end, DONE), len(first[rate].losses)))
    runs = [first[rate], *(train(name, cell, lag, rate, updates, seed) for seed in seeds[1:])]
    return {
        "cell": cell,
        "lag": lag,
        "units": units_for(cell, TASKS[name].inputs),
        "rate": rate,
        "ends": [round(run.end, 4) for run in runs],
        "updates": [len(run.losses) for run in runs],
    }


def described(found: dict[str, Any]) -> str:
    """One line about what `measure` found."""
    solved = sum(end < SOLVED for end in found["ends"])
    ends = "  ".join(f"{end:6.3f}" for end in found["ends"])
    return (
        f"{found['cell']:24s} lag {found['lag']:4d}: solved by {solved} of {len(found['ends'])}; "
        f"loss at the end {ends}; rate {found['rate']}"
    )


def table(found: list[dict[str, Any]]) -> str:
    """By cell and lag: how many seeds solved it, and after how many updates (median)."""
    lags = sorted({row["lag"] for row in found})
    lines = [f"{'':24s}" + "".join(f"  lag {lag:<6d}" for lag in lags)]
    for cell in CELLS:
        line = f"{cell:24s}"
        for row in (row for row in found if row["cell"] == cell):
            pairs = zip(row["updates"], row["ends"], strict=True)
            spent = sorted(updates for updates, end in pairs if end < SOLVED)
            after = f"({spent[len(spent) // 2]})" if spent else ""
            line += f"  {len(spent)} {after:8s}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def draw(results: dict[str, list[dict[str, Any]]]) -> Any:
    """By task: the loss at the end over the lag, a line for each cell, all seeds."""
    figure, axes = panels(columns=len(results), width=1.4 + 2.6 * len(results), height=3.6)
    for ax, (name, found) in zip(np.ravel(axes), results.items(), strict=True):
        for place, cell in enumerate(CELLS):
            rows = [row for row in found if row["cell"] == cell]
            if not rows:
                continue
            aside = 1.06 ** (place - 2)  # so that bars of different cells do not hide each other
            lags = np.array([row["lag"] for row in rows]) * aside
            middle = np.array([np.median(row["ends"]) for row in rows])
            bars = [
                middle - [min(row["ends"]) for row in rows],
                np.array([max(row["ends"]) for row in rows]) - middle,
            ]
            look = {
                "fmt": MARKERS[place] + "-",
                "color": f"C{place}",
                "markersize": 5,
                "capsize": 2,
            }
            ax.errorbar(lags, middle, bars, label=cell, **look)
        ax.axhline(1, color="black", linestyle=":", linewidth=1)
        ax.axhspan(ax.get_ylim()[0], SOLVED, color="tab:green", alpha=0.1)
        ticks = sorted({row["lag"] for row in found})
        ax.set(
            xscale="log",
            yscale="log",
            ylim=(DONE / 4, 2),
            title=TASKS[name].title.replace(", ", ",\n"),
        )
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.set_xlabel("blanks" if name.startswith("copy") else "steps")
    np.ravel(axes)[0].set_ylabel("loss at the end / without memory")
    handles, labels = np.ravel(axes)[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=5, frameon=False, columnspacing=1
    )
    return figure


def draw_losses(runs: dict[str, Run]) -> Any:
    """The loss during training, a line for each network."""
    figure, ax = panels(width=7)
    for cell, run in runs.items():
        smooth = np.convolve(run.losses, np.ones(20) / 20, "valid")
        ax.semilogy(smooth, color=f"C{list(CELLS).index(cell)}", label=cell)
    ax.axhline(1, color="black", linestyle=":", linewidth=1, label="without memory")
    ax.set(xlabel="updates", ylabel="loss / without memory")
    ax.legend(frameon=False)
    return figure


@program
@click.option("--task", default="adding", show_default=True, type=click.Choice(list(TASKS)))
@click.option(
    "--lag", "lags", multiple=True, default=[50], show_default=True, type=click.IntRange(min=4)
)
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--updates", default=1500, show_default=True, type=click.IntRange(min=1))
@click.option("--write", is_flag=True, help="Keep what is found in docs/results/.")
def main(
    task: str, lags: tuple[int, ...], seeds: int, updates: int, write: bool
) -> Callable[[], Any]:
    """Train every cell at every lag, and keep or draw how far they came."""
    first = torch.initial_seed()
    found = []
    print("loss at the end: 1 is that of remembering nothing, below 0.1 is solved")
    for lag in lags:
        for cell in CELLS:
            found.append(measure(task, cell, lag, list(range(first, first + seeds)), updates))
            print(described(found[-1]), flush=True)
    if write:
        chosen = " ".join(f"--lag {lag}" for lag in lags)
        command = (
            f"python examples/long_lags.py --task {task} {chosen} --seeds {seeds} "
            f"--updates {updates} --seed {first} --write"
        )
        print(f"written to {write_record(f'long_lags_{task}', command, found)}")
    return lambda: draw({task: found})


if __name__ == "__main__":
    main()
