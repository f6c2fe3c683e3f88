"""Chapter 15: tanh, GRU and LSTM of one size on polyphonic music, as in Chung et al. 2014.

    python examples/polyphonic_music.py [--data FILE.npz] [--draws 8] [--seeds 3] [--epochs 150]

Each network guesses which keys of a piano sound at the next step. The learning rate is the best of
several draws on the validation pieces; the test pieces are scored for the final networks, in nats
per time step, beside models of every key by itself and the figures of the paper. Without --data it
reads Bach's chorales where they are at hand, which takes seven minutes, else generated ones, which
takes one and a half.
"""

from __future__ import annotations

import contextlib
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from experiment import RECORDS, panels, program, progress, read_record, write_record
from piano_rolls import (
    KEYS,
    PARTS,
    Batch,
    EachKeyByItself,
    Loss,
    Music,
    batches,
    chorales,
    cut,
    loss_on,
    nats,
    read_music,
)

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
from tinygrad_rnn.optim import RMSprop
from tinygrad_rnn.optim.lr_scheduler import LinearLR
from tinygrad_rnn.scan import scan

RECORD = "polyphonic_music"
BACH = Path(__file__).resolve().parents[2] / "shared" / "data" / "music" / "jsb_chorales.npz"
SCORED = 32  # pieces at a time
LONGEST = 130  # steps of a piece that are learnt in one go; longer ones are cut in parts
NOISE = 0.075  # standard deviation of what is added to the weights of the recurrent layer
PATIENCE = 20  # epochs without a better validation loss, then training stops


class NoMemory(nn.Module):
    """h' = tanh(W x + b): the control, which hears the last step and nothing before it."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.W = nn.Linear(inputs, units)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: (B, inputs), (B, units) -> (B, units), (B, units)."""
        h = self.W(x).tanh()
        return h, h


class Tanh(nn.Module):
    """h' = tanh(W x + U h + b)."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.W = nn.Linear(inputs, units)
        self.U = nn.Linear(units, units, bias=False)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: (B, inputs), (B, units) -> (B, units), (B, units)."""
        h = (self.W(x) + self.U(h)).tanh()
        return h, h


class GRU(nn.Module):
    """h' = (1 - z) ⊙ h + z ⊙ tanh(W x + U (r ⊙ h) + b), z and r = σ(W x + U h + b)."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.W = nn.Linear(inputs, 3 * units)  # of r, z and the candidate
        self.U_rz = nn.Linear(units, 2 * units, bias=False)
        self.U = nn.Linear(units, units, bias=False)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: (B, inputs), (B, units) -> (B, units), (B, units)."""
        x_r, x_z, x_n = self.W(x).chunk(3, -1)
        h_r, h_z = self.U_rz(h).chunk(2, -1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
        n = (x_n + self.U(r * h)).tanh()
        h = (1 - z) * h + z * n
        return h, h


class LSTM(nn.Module):
    """c' = f ⊙ c + i ⊙ g, h' = o ⊙ tanh(c'); each unit's gates see its cell too."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.W = nn.Linear(inputs, 4 * units)  # of i, f, o and g
        self.U = nn.Linear(units, 4 * units, bias=False)
        self.V = nn.Parameter(torch.zeros(3, units))  # the peepholes of i, f and o

    def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        """One step: (B, inputs), two of (B, units) -> (B, units), two of (B, units)."""
        h, c = state
        i, f, o, g = (self.W(x) + self.U(h)).chunk(4, -1)
        i, f = (i + self.V[0] * c).sigmoid(), (f + self.V[1] * c).sigmoid()
        c = f * c + i * g.tanh()
        h = (o + self.V[2] * c).sigmoid() * c.tanh()  # o sees the new cell
        return h, (h, c)


CELLS = {  # with their units
    "no memory": (NoMemory, 212),
    "tanh": (Tanh, 100),
    "GRU": (GRU, 46),
    "LSTM": (LSTM, 36),
}


class Musician(nn.Module):
    """What each key does next, given all that was heard: a recurrent layer, and a logistic one."""

    def __init__(self, cell: str, habit: torch.Tensor) -> None:
        super().__init__()
        make, self.units = CELLS[cell]
        self.cell = make(KEYS, self.units)
        self.output = nn.Linear(self.units, KEYS)
        with torch.no_grad():
            self.output.bias.copy_(habit)  # how often each key sounds is known from the start

    def forward(self, heard: torch.Tensor) -> torch.Tensor:
        """(T, B, KEYS) -> logits of the next step, (T, B, KEYS)."""
        h_0 = torch.zeros(heard.shape[1], self.units)
        hs, _ = scan(self.cell, heard, (h_0, h_0) if isinstance(self.cell, LSTM) else h_0)
        return self.output(hs)


@contextlib.contextmanager
def noisy(module: nn.Module, deviation: float = NOISE) -> Iterator[None]:
    """Add new normal noise to every weight, for as long as the block lasts (Graves 2011)."""
    kept = [weight.detach().clone() for weight in module.parameters()]
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(deviation * torch.randn_like(weight))
    yield
    with torch.no_grad():
        for weight, before in zip(module.parameters(), kept, strict=True):
            weight.copy_(before)


def one_epoch(model: Musician, optimizer: RMSprop, pieces: list[Batch]) -> float:
    """Learn from every batch once; the loss on the way, noise and all, in nats per step."""
    costs = []
    for number in torch.randperm(len(pieces)).tolist():
        batch = pieces[number]
        with noisy(model.cell):
            cost = nats(model(batch.heard), batch).sum()
            optimizer.zero_grad()
            (cost / batch.lengths.sum()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        costs.append(cost.detach())
    steps = sum(batch.lengths.sum().item() for batch in pieces)
    return sum(torch.stack(costs).tolist()) / steps


class Plan(NamedTuple):
    """All that a run depends on, but for the pieces."""

    cell: str
    rate: float
    seed: int
    epochs: int  # at most
    batch: int  # pieces, or parts of pieces, in an update


class Run(NamedTuple):
    """A training: its losses by epoch, and those of the best epoch's network. Nats per step."""

    plan: Plan
    training: list[float]  # on the way, with noise on the weights; of epoch 1, 2, …
    validation: list[float]  # after epoch 0, 1, 2, …
    scores: dict[str, dict[str, float]]  # by part; by mean over "steps" and over "pieces"

    @property
    def best(self) -> int:
        """The epoch after which the validation loss was least."""
        return int(np.nanargmin(self.validation))


def train(plan: Plan, music: Music) -> tuple[Musician, Run]:
    """The network of the epoch that was best on the validation pieces, and the way there."""
    torch.manual_seed(plan.seed)
    parts = {part: batches(getattr(music, part), SCORED) for part in PARTS}
    lessons = batches(cut(music.train, LONGEST), plan.batch)
    model = Musician(plan.cell, EachKeyByItself(music.train, past=False).after_silence)
    optimizer = RMSprop(model.parameters(), lr=plan.rate, alpha=0.95, momentum=0.9)
    slower = LinearLR(optimizer, 1.0, 0.01, plan.epochs)
    training, validation = [], [loss_on(model, parts["valid"]).steps]
    best, kept = 0, _copy_of(model)
    for epoch in progress(range(1, plan.epochs + 1), f"{plan.cell}, rate {plan.rate:.1e}"):
        training.append(one_epoch(model, optimizer, lessons))
        slower.step()
        validation.append(loss_on(model, parts["valid"]).steps)
        if validation[-1] == min(validation):
            best, kept = epoch, _copy_of(model)
        elif epoch - best >= PATIENCE:
            break
    model.load_state_dict(kept)
    scores = {part: loss_on(model, parts[part])._asdict() for part in PARTS}
    return model, Run(plan, training, validation, scores)


def _copy_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights as they are now."""
    return {name: weight.clone() for name, weight in model.state_dict().items()}


class Study(NamedTuple):
    """What was found on one set of music."""

    music: str
    floors: dict[str, dict[str, dict[str, float]]]  # by model without a network: its scores
    runs: list[Run]  # for each cell: one try for each rate, of seed 0; then the final runs

    def tries(self, cell: str) -> list[Run]:
        """The runs that chose the learning rate."""
        return [run for run in self.runs if run.plan.cell == cell and run.plan.seed == 0]

    def finals(self, cell: str) -> list[Run]:
        """The runs with the learning rate that was best in the tries, from new weights."""
        return [run for run in self.runs if run.plan.cell == cell and run.plan.seed > 0]


def study(
    music: Music,
    rates: list[float],
    seeds: int,
    epochs: int,
    batch: int = 16,
    known: Sequence[Run] = (),
    after_each_run: Callable[[Study], None] = lambda found: None,
) -> Study:
    """Every cell with every learning rate, and then with its best one from other seeds.

    known: runs that need not be made again. after_each_run: gets what was found so far.
    """
    made = {run.plan: run for run in known}
    parts = {part: batches(getattr(music, part), SCORED) for part in PARTS}
    floors = {
        name: {part: loss_on(model, parts[part])._asdict() for part in PARTS}
        for name, model in {
            "each key by itself": EachKeyByItself(music.train, past=False),
            "each key, given itself a step ago": EachKeyByItself(music.train),
        }.items()
    }
    found = Study(music.name, floors, [])

    def run(plan: Plan) -> Run:
        found.runs.append(made[plan] if plan in made else train(plan, music)[1])
        after_each_run(found)
        return found.runs[-1]

    for cell in CELLS:
        tries = [run(Plan(cell, rate, 0, epochs, batch)) for rate in rates]
        best = min(tries, key=lambda each: each.scores["valid"]["steps"])
        for seed in range(1, seeds + 1):
            run(best.plan._replace(seed=seed))
    return found


def some_rates(count: int, low: float, high: float) -> list[float]:
    """Learning rates drawn log-uniformly, one from each of `count` equal parts of [low, high)."""
    places = (torch.arange(count) + torch.rand(count)) / count
    return [math.exp(low + (high - low) * place) for place in places.tolist()]


# Chung et al. 2014, tables 1 and 2: nats per step on the training pieces, on the test pieces.
CHUNG = {
    "jsb_chorales": {"tanh": (8.82, 9.10), "GRU": (6.94, 8.54), "LSTM": (8.15, 8.67)},
    "nottingham": {"tanh": (3.22, 3.13), "GRU": (2.79, 3.23), "LSTM": (3.08, 3.20)},
}


def table(found: Study) -> str:
    """Nats per step of the floors and of the mean final run, beside the paper's."""
    paper = CHUNG.get(found.music, {})
    lines = [
        f"{found.music:33} train          test",
        f"{'mean over':33} steps pieces   steps (seeds)       pieces",
    ]
    if paper:
        lines = [f"{lines[0]:78}paper", f"{lines[1]:78}train    test"]
    for name, scores in found.floors.items():
        train, test = scores["train"], scores["test"]
        lines.append(
            f"{name:33}{train['steps']:6.2f}{train['pieces']:7.2f}{test['steps']:8.2f}"
            f"{test['pieces']:21.2f}"
        )
    for cell in CELLS:
        finals = found.finals(cell)
        train, test = (
            {mean: np.array([run.scores[part][mean] for run in finals]) for mean in Loss._fields}
            for part in ("train", "test")
        )
        name = f"{cell}, rate {finals[0].plan.rate:.1e}"
        seeds = f"({test['steps'].min():.2f} to {test['steps'].max():.2f})"
        lines.append(
            f"{name:33}{train['steps'].mean():6.2f}{train['pieces'].mean():7.2f}"
            f"{test['steps'].mean():8.2f} {seeds:14}{test['pieces'].mean():6.2f}"
            + "".join(f"{nats:8.2f}" for nats in paper.get(cell, ()))
        )
    return "\n".join(lines)


def weights(cell: str) -> int:
    """How many numbers the recurrent layer learns."""
    make, units = CELLS[cell]
    return sum(weight.numel() for weight in make(KEYS, units).parameters())


COLORS = {"no memory": "tab:gray", "tanh": "tab:green", "GRU": "tab:orange", "LSTM": "tab:blue"}


def draw(studies: list[Study]) -> Any:
    """A row for each set of music: the final runs by epoch, and the tries by learning rate."""
    figure, axes = panels(rows=len(studies), columns=2, width=9, height=3.1)
    for (left, right), found in zip(np.reshape(axes, (-1, 2)), studies, strict=True):
        floor = found.floors["each key, given itself a step ago"]["valid"]["steps"]
        left.axhline(floor, color="black", linestyle="--", linewidth=1, label="each key by itself")
        for cell, color in COLORS.items():
            for number, run in enumerate(found.finals(cell)):
                label = cell if number == 0 else None
                left.plot(run.validation, color=color, label=label, linewidth=1.2)
                epochs = range(1, len(run.training) + 1)
                left.plot(epochs, run.training, color=color, linestyle=":", linewidth=1)
                left.plot(run.best, run.validation[run.best], "o", color=color, markersize=4)
            tries = sorted(found.tries(cell))
            losses = [run.scores["valid"]["steps"] for run in tries]
            right.semilogx(
                [run.plan.rate for run in tries], losses, "o-", color=color, markersize=4
            )
        left.set(
            title=found.music, xlabel="epoch", ylabel="nats per step", ylim=(None, floor + 0.2)
        )
        right.set(title="best epoch, validation", xlabel="learning rate")
        right.tick_params(axis="x", which="minor", labelbottom=False)
    lines, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=len(names), frameon=False)
    return figure


def draw_guesses(model: Musician, piece: np.ndarray) -> Any:
    """A piece, and how probable each key was held to be a step before."""
    keys = torch.tensor(piece).float().unsqueeze(1)  # (T, 1, KEYS)
    with torch.no_grad():
        guessed = model(keys[:-1]).sigmoid()[:, 0].numpy()
    figure, axes = panels(columns=2, width=9, height=3)
    for axis, (title, picture) in zip(
        axes, {"played": piece[1:], "probability, one step before": guessed}.items(), strict=True
    ):
        image = axis.imshow(picture.T, origin="lower", aspect="auto", cmap="Blues", vmin=0, vmax=1)
        used = np.flatnonzero(piece.any(0))
        axis.set(title=title, xlabel="step", ylabel="key", ylim=(used[0] - 3, used[-1] + 3))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(False)
    figure.colorbar(image, ax=axes, pad=0.01)
    return figure


def write(found: Study, command: str, others: Sequence[Run] = ()) -> None:
    """Keep a study in the record, beside those of other music; and other runs with it.

    Of the tries the curves are left out.
    """
    runs = {run.plan: run for run in (*others, *found.runs)}
    rows = []
    for plan, run in runs.items():
        training, validation = (
            [round(loss, 4) for loss in curve] if plan.seed > 0 else []
            for curve in (run.training, run.validation)
        )
        curves = {"training": training, "validation": validation}
        rows.append({**plan._asdict(), **curves, "scores": run.scores})
    kept = {"command": command, "floors": found.floors, "runs": rows}
    write_record(RECORD, command, {**recorded(), found.music: kept})


def recorded() -> dict[str, Any]:
    """By music: the command, the floors and the runs that were kept; nothing if none were."""
    return read_record(RECORD)["results"] if (RECORDS / f"{RECORD}.json").exists() else {}


def recorded_study(music: str) -> Study:
    """What was kept of one set of music."""
    kept = recorded().get(music, {"floors": {}, "runs": []})
    runs = [
        Run(
            Plan(*(row[name] for name in Plan._fields)),
            *(row[name] for name in ("training", "validation", "scores")),
        )
        for row in kept["runs"]
    ]
    return Study(music, kept["floors"], runs)


@program
@click.option("--data", type=click.Path(path_type=Path), help="An .npz file of piano rolls.")
@click.option("--draws", default=8, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--rates",
    default=(-9.0, -5.0),
    show_default=True,
    nargs=2,
    type=float,
    help="Natural logarithms of the least and the largest learning rate.",
)
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--epochs", default=150, show_default=True, type=click.IntRange(min=1))
@click.option("--batch", default=16, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--write",
    "remember",
    is_flag=True,
    help="Keep every run in docs/results/, and do not make again what is kept there.",
)
def main(
    data: Path | None,
    draws: int,
    rates: tuple[float, float],
    seeds: int,
    epochs: int,
    batch: int,
    remember: bool,
) -> Callable[[], Any]:
    """Choose learning rates, train the three cells, score them."""
    if data is None and BACH.exists():
        data = BACH
    music = chorales() if data is None else read_music(data)
    command = shlex.join(["python", *sys.argv])
    known = recorded_study(music.name).runs if remember else []

    def after_each_run(found: Study) -> None:
        run = found.runs[-1]
        print(
            f"{run.plan.cell:9} rate {run.plan.rate:.1e} seed {run.plan.seed}: "
            f"validation {run.scores['valid']['steps']:.3f} nats per step",
            flush=True,
        )
        if remember:
            write(found, command, known)

    found = study(music, some_rates(draws, *rates), seeds, epochs, batch, known, after_each_run)
    if remember:
        write(found, command)
    print(table(found))
    return lambda: draw([found])


if __name__ == "__main__":
    main()
