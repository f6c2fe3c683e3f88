"""Chapter 7: a GRU is an interpolation between the old state and a new one.

    python examples/gru_interpolation.py [--units 64] [--updates 400]

A GRU and an LSTM whose gates are merged step by step until it is a GRU; how long a state lasts with
a given update gate; and what the update gates of a trained model do. It takes half a minute.
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
from tinygrad_rnn.optim import Adam
from tinygrad_rnn.scan import scan


class MergedLSTM(nn.Module):
    """An LSTM cell with the weights of a GRU, and three things merged.

    Its forget gate f is one number with its input gate, i = 1 - f; its cell is its hidden state,
    which is shown whole; and a gate r in front of the candidate says how much of the old state the
    candidate sees.
    """

    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        self.gru = gru

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: (B, D), (B, H) -> (B, H), (B, H)."""
        W, U, b, d = self.gru.all_weights[0]
        x_r, x_f, x_g = (x @ W.T + b).chunk(3, -1)  # (B, H) each
        c_r, c_f, c_g = (c @ U.T + d).chunk(3, -1)
        r = (x_r + c_r).sigmoid()
        forget = (x_f + c_f).sigmoid()  # the GRU calls it z
        input = 1 - forget  # merged: as much comes in as goes
        candidate = (x_g + r * c_g).tanh()
        c = forget * c + input * candidate
        return c, c  # merged: h is c


class Step(NamedTuple):
    """What the steps of a GRU computed: (T, B, H) each; h before and after."""

    before: torch.Tensor
    z: torch.Tensor
    candidate: torch.Tensor
    after: torch.Tensor


def walk(gru: nn.GRU, xs: torch.Tensor) -> Step:
    """All steps over (T, B, D), from h = 0."""
    W, U, b, d = gru.all_weights[0]

    def cell(x: torch.Tensor, h: torch.Tensor) -> tuple[Any, torch.Tensor]:
        x_r, x_z, x_n = (x @ W.T + b).chunk(3, -1)
        h_r, h_z, h_n = (h @ U.T + d).chunk(3, -1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
        n = (x_n + r * h_n).tanh()
        after = (1 - z) * n + z * h
        return (h, z, n, after), after

    return Step(*scan(cell, xs, torch.zeros(xs.shape[1], gru.hidden_size))[0])


def hold(gru: nn.GRU, z: float) -> nn.GRU:
    """A copy whose update gate is z at every step, whatever comes in; 0 <= z <= 1."""
    held = nn.GRU(gru.input_size, gru.hidden_size)
    held.load_state_dict(gru.state_dict())
    rows = slice(gru.hidden_size, 2 * gru.hidden_size)
    logit = 200.0 if z == 1 else -200.0 if z == 0 else np.log(z / (1 - z))
    with torch.no_grad():
        for weight in held.parameters():
            weight[rows] = 0
        held.bias_ih_l0[rows] = float(logit)
    return held


def lasting(z: float, steps: int = 60) -> np.ndarray:
    """By t: what is left at step t of the state at step 0, if the candidate does not know of it.

    The gradient d h_t / d h_0 of a GRU whose update gate is held at z and whose candidate reads
    only the input: (steps,).
    """
    gru = hold(nn.GRU(3, 4), z)
    with torch.no_grad():
        gru.weight_hh_l0[:] = 0
    xs, h_0 = torch.randn(steps, 1, 3), torch.randn(1, 1, 4, requires_grad=True)
    hs, _ = gru(xs, h_0)
    return np.array(
        [torch.autograd.grad(h[0, 0], [h_0], retain_graph=True)[0][0, 0, 0].item() for h in hs]
    )


SYMBOLS, CUE = 8, 8  # eight symbols to remember, and one that asks for the last of them


class Recall(nn.Module):
    """Reads symbols and noise; at a cue it has to say which symbol came last."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.gru = nn.GRU(SYMBOLS + 2, units)
        self.output = nn.Linear(units, SYMBOLS)

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        """(T, B, inputs) -> (T, B, symbols) scores."""
        return self.output(self.gru(xs)[0])


def recall_task(length: int, batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs (T, B, SYMBOLS + 2), the last symbol so far (T, B), and where the cue is (T, B).

    A symbol comes with chance 1/10 at a step, the cue with 1/10; the last input is always noise.
    """
    kinds = torch.rand(length, batch)
    symbols = torch.randint(0, SYMBOLS, (length, batch))
    is_symbol, is_cue = kinds < 0.1, kinds > 0.9
    is_symbol[0], is_cue[0] = True, False
    shown = torch.where(is_symbol, symbols, torch.full_like(symbols, SYMBOLS + 1))
    shown = torch.where(is_cue, torch.full_like(symbols, CUE), shown)
    xs = F.one_hot(shown, SYMBOLS + 2).float()
    xs[..., -1] = torch.randn(length, batch)
    last = np.zeros((length, batch), int)
    current = np.zeros(batch, int)
    for t, (here, which) in enumerate(zip(is_symbol.numpy(), symbols.numpy(), strict=True)):
        current = np.where(here, which, current)
        last[t] = current
    return xs, torch.tensor(last), is_cue


def train(units: int, updates: int) -> tuple[Recall, list[float]]:
    """A model of the task, and its share of right answers at the cues."""
    model = Recall(units)
    optimizer = Adam(model.parameters(), lr=5e-3)
    shares = []
    for _ in progress(range(updates), "training"):
        xs, last, is_cue = recall_task(40, 32)
        logits = model(xs)
        losses = F.cross_entropy(logits.flatten(0, 1), last.flatten(), reduction="none")
        cues = is_cue.flatten().float()
        loss = (losses * cues).sum() / cues.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        right = (logits.argmax(-1) == last)[is_cue]
        shares.append(right.float().mean())
    return model, torch.stack(shares).tolist()


class Use(NamedTuple):
    """How a trained model treats its state at some kind of step, on average over units."""

    written: float  # 1 - z, the share of the state that is written anew
    moved: float  # |h_t - h_{t-1}|, how far the state goes


@torch.no_grad()
def use_of_the_state(model: Recall, batch: int = 64) -> dict[str, Use]:
    """By what comes in: a symbol to remember, the cue, or noise only."""
    xs, _, is_cue = recall_task(40, batch)
    steps = walk(model.gru, xs)
    written = (1 - steps.z).mean(-1).numpy()  # (T, B)
    moved = (steps.after - steps.before).abs().mean(-1).numpy()
    is_symbol, cue = xs[..., :SYMBOLS].sum(-1).numpy() > 0, is_cue.numpy()
    kinds = {"a symbol": is_symbol, "the cue": cue, "noise only": ~is_symbol & ~cue}
    return {
        kind: Use(float(written[where].mean()), float(moved[where].mean()))
        for kind, where in kinds.items()
    }


def draw_lasting(holds: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95, 0.99)) -> Any:
    """What lasts of a state with z held."""
    figure, axis = panels(width=6)
    for z in holds:
        axis.semilogy(range(1, 61), lasting(z), label=f"z = {z}")
    axis.set(xlabel="steps t", ylabel="what is left of $h_0$ in $h_t$", ylim=(1e-3, 1.2))
    axis.legend(frameon=False, bbox_to_anchor=(1, 1))
    return figure


@torch.no_grad()
def draw_use(model: Recall) -> Any:
    """What a trained model writes anew, and how far its state moves, at each step of a sequence."""
    figure, axes = panels(columns=2, width=12, height=3.4)
    xs, _, is_cue = recall_task(40, 1)
    steps = walk(model.gru, xs)
    written = (1 - steps.z)[:, 0].numpy()  # (T, H)
    moved = (steps.after - steps.before).abs()[:, 0].numpy()
    marks = np.where(xs[:, 0, :SYMBOLS].sum(-1).numpy() > 0, "s", "")
    marks = np.where(is_cue[:, 0].numpy(), "?", marks)
    order = np.argsort(written.mean(0))
    for axis, values, what in zip(
        axes, (written, moved), ("$1 - z$, written anew", "$|h_t - h_{t-1}|$, moved"), strict=True
    ):
        image = axis.imshow(values[:, order].T, aspect="auto", cmap="viridis", vmin=0, vmax=1)
        axis.set_xticks(range(40), marks, fontsize=9)
        axis.set(xlabel="steps: s a symbol to remember, ? the cue", ylabel="units", title=what)
        axis.grid(False)
    figure.colorbar(image, ax=axes)
    return figure


@program
@click.option("--units", default=64, show_default=True, type=click.IntRange(min=1))
@click.option("--updates", default=400, show_default=True, type=click.IntRange(min=1))
def main(units: int, updates: int) -> Callable[[], Any]:
    """Merge an LSTM into a GRU, hold gates, train."""
    gru, xs = nn.GRU(5, 7), torch.randn(50, 3, 5)
    merged, _ = scan(MergedLSTM(gru), xs, torch.zeros(3, 7))
    print(f"merged LSTM - GRU: at most {(merged - gru(xs)[0]).abs().max().item():.0e}")
    for z in (0.5, 0.9, 0.99):
        print(f"z = {z}: after 10 steps {lasting(z, 10)[-1]:.4f} of the state is left")
    model, shares = train(units, updates)
    print(f"right answers at the cue: {np.mean(shares[-20:]):.1%} (guessing: {1 / SYMBOLS:.1%})")
    for kind, (written, moved) in use_of_the_state(model).items():
        print(f"{kind:10s}: {written:.2f} of the state is written anew, it moves by {moved:.2f}")
    return lambda: draw_use(model)


if __name__ == "__main__":
    main()
