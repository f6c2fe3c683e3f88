"""Chapter 5: why gradients vanish or explode, the NaN, and what clipping does.

    python examples/vanishing_gradients.py [--steps 60] [--updates 800] [--seeds 3]

Gradients on their way back through recurrences whose matrix is scaled below and above 1, with and
without tanh; then a task is trained where they explode, with and without clipping. It takes about
half a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import numpy as np
from experiment import panels, program, progress

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.diagnose import gradient_flow
from tinygrad_rnn.optim import SGD
from tinygrad_rnn.scan import scan

UNITS = 32
RADII = (0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0)
KINDS = ("linear", "tanh, inputs of size 0.1", "tanh, inputs of size 1")
CLIPS = (None, 1.0, 0.1)


def scaled_rnn(radius: float, inputs: int, nonlinearity: str = "tanh") -> nn.RNN:
    """An RNN whose recurrent matrix is `radius` times an orthogonal one.

    All its eigenvalues have the absolute value `radius`, and all its singular values are `radius`.
    """
    rnn = nn.RNN(inputs, UNITS, nonlinearity=nonlinearity)
    nn.init.orthogonal_(rnn.weight_hh_l0)
    with torch.no_grad():
        rnn.weight_hh_l0.mul_(radius)
        rnn.bias_ih_l0.zero_()
        rnn.bias_hh_l0.zero_()
    return rnn


def without_tanh(rnn: nn.RNN) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same recurrence, h' = W x + U h."""

    def cell(x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = x @ rnn.weight_ih_l0.T + h @ rnn.weight_hh_l0.T
        return h, h

    return lambda xs: scan(cell, xs, torch.zeros(xs.shape[1], UNITS))


def gradient_norms(kind: str, radius: float, steps: int) -> np.ndarray:
    """The norms of dL/dh_t for t = 0 … T, for a loss on the last state alone, as logarithms."""
    rnn = scaled_rnn(radius, inputs=4)
    model = without_tanh(rnn) if kind == "linear" else rnn
    xs = (1.0 if kind.endswith("size 1") else 0.1) * torch.randn(steps, 4, 4)
    weights = torch.randn(4, UNITS)
    (flow,) = gradient_flow(model, xs, lambda output: (weights * output[0][-1]).sum())
    return np.log(flow.norms("h"))


def rates(steps: int) -> dict[str, list[float]]:
    """By kind, for each radius: the factor per step by which the gradient changes going back."""
    return {
        kind: [
            float(np.exp((norms[0] - norms[-1]) / steps))
            for norms in (gradient_norms(kind, radius, steps) for radius in progress(RADII, kind))
        ]
        for kind in KINDS
    }


def norms_of_powers(matrix: np.ndarray, most: int) -> np.ndarray:
    """The largest singular value of the matrix to the power 0, 1, …, most."""
    power, found = np.eye(len(matrix)), []
    for _ in range(most + 1):
        found.append(np.linalg.norm(power, 2))
        power = power @ matrix
    return np.array(found)


def matrices_of_radius(radius: float) -> dict[str, np.ndarray]:
    """Two matrices whose eigenvalues have the same absolute value, and nothing else in common."""
    orthogonal, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((8, 8)))
    chain = radius * np.eye(8) + 0.5 * np.eye(8, k=1)  # every unit feeds the next one
    return {"orthogonal": radius * orthogonal, "a chain of units": chain}


def first_overflow(radius: float, steps: int) -> int | None:
    """The step at which a relu RNN in float32 first has a state that is no finite number."""
    rnn = scaled_rnn(radius, inputs=4, nonlinearity="relu")
    with torch.no_grad():
        hs, _ = rnn(torch.randn(steps, 4, 4))
    finite = np.isfinite(hs.numpy()).all(axis=(1, 2))
    return None if finite.all() else int(np.argmin(finite)) + 1


def sums_to_learn(steps: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(T, B, 2): a number from [0, 1) and a mark at every step; (B, 1): the sum of the marked."""
    numbers = torch.rand(steps, batch)
    first = torch.randint(0, steps // 2, (batch,))
    second = torch.randint(steps // 2, steps, (batch,))
    marks = (F.one_hot(first, steps) + F.one_hot(second, steps)).float().T
    return torch.stack([numbers, marks], -1), (numbers * marks).sum(0).unsqueeze(-1)


def train(clip: float | None, updates: int, radius: float = 1.3, lr: float = 0.1) -> dict[str, Any]:
    """Losses and gradient norms of a tanh RNN that learns to add, until a loss is not finite."""
    rnn, output = scaled_rnn(radius, inputs=2), nn.Linear(UNITS, 1)
    weights = [*rnn.parameters(), *output.parameters()]
    optimizer = SGD(weights, lr=lr)
    losses, norms = [], []
    for _ in progress(range(updates), f"clip {clip}"):
        xs, sums = sums_to_learn(10, 32)
        loss = F.mse_loss(output(rnn(xs)[1][0]), sums)
        losses.append(loss.item())
        if losses[-1] > 1e6:  # lost; what follows are Inf and NaN
            break
        optimizer.zero_grad()
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(weights, clip or float("inf")).item())
        optimizer.step()
    return {"losses": losses, "norms": norms, "lost": losses[-1] > 1e6}


def draw_rates(found: dict[str, list[float]], steps: int) -> Any:
    """Gradients over t for some radii; the rate per step by radius."""
    figure, (left, right) = panels(columns=2, width=10, height=3.4)
    for radius in (0.8, 1.0, 1.2, 1.5):
        line = left.semilogy(
            np.exp(gradient_norms("linear", radius, steps)), "--", alpha=0.6, linewidth=1
        )
        norms = np.exp(gradient_norms(KINDS[2], radius, steps))
        left.semilogy(norms, color=line[0].get_color(), label=f"{radius}")
    left.set(xlabel="t (the loss is at the end)", ylabel="norm of $dL/dh_t$")
    left.legend(frameon=False, title="radius; dashed: without tanh", fontsize=8, title_fontsize=8)
    for kind, values in found.items():
        right.plot(RADII, values, "o-", label=kind, markersize=4)
    right.axhline(1, color="black", linewidth=1, linestyle=":")
    right.axvline(1, color="black", linewidth=1, linestyle=":")
    right.set(xlabel="radius of $W_{hh}$", ylabel="factor per step, going back")
    right.legend(frameon=False, fontsize=8)
    return figure


def draw_powers(radius: float = 0.9, most: int = 250) -> Any:
    """What powers of two matrices of one spectral radius do."""
    figure, axis = panels(width=6)
    for name, matrix in matrices_of_radius(radius).items():
        axis.semilogy(norms_of_powers(matrix, most), label=name)
    axis.set(xlabel="k", ylabel="largest singular value of $W^k$")
    axis.legend(frameon=False, title=f"spectral radius {radius}")
    return figure


def draw_training(runs: dict[float | None, list[dict[str, Any]]]) -> Any:
    """The losses with and without clipping, a line for each seed."""
    figure, axis = panels(width=8)
    for number, (clip, several) in enumerate(runs.items()):
        for run in several:
            smooth = np.convolve(run["losses"], np.ones(20) / 20, "valid")
            axis.semilogy(smooth, color=f"C{number}", alpha=0.8, linewidth=1)
            if run["lost"]:
                axis.semilogy(len(smooth) - 1, 3, "x", color=f"C{number}", clip_on=False)
        axis.plot([], [], color=f"C{number}", label="no clipping" if clip is None else f"{clip}")
    axis.axhline(1 / 6, color="black", linestyle=":", linewidth=1, label="always saying 1")
    axis.set(xlabel="updates", ylabel="squared error", ylim=(0.02, 3))
    axis.legend(frameon=False, title="norm clipped to; × lost", fontsize=8, title_fontsize=8)
    return figure


@program
@click.option("--steps", default=60, show_default=True, type=click.IntRange(min=2))
@click.option("--updates", default=800, show_default=True, type=click.IntRange(min=20))
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1))
def main(steps: int, updates: int, seeds: int) -> Callable[[], Any]:
    """Rates by radius, overflow, training with and without clipping."""
    found = rates(steps)
    print("factor per step at radius " + "  ".join(f"{radius:5.1f}" for radius in RADII))
    for kind, values in found.items():
        print(f"{kind:26s}" + "  ".join(f"{value:5.2f}" for value in values))
    print(f"relu, radius 3: the state is Inf or NaN from step {first_overflow(3, 400)} on")
    runs = {clip: [train(clip, updates) for _ in range(seeds)] for clip in CLIPS}
    for clip, several in runs.items():
        ends = ", ".join(
            "lost" if r["lost"] else f"{np.mean(r['losses'][-50:]):.3f}" for r in several
        )
        print(f"gradient norm clipped to {clip}: squared error {ends}")
    return lambda: draw_training(runs)


if __name__ == "__main__":
    main()
