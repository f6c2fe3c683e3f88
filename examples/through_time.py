"""Chapter 4: backpropagation through time: unrolled, derived, equal to the graph's, and truncated.

    python examples/through_time.py [--lag 6] [--updates 600]

The gradients of a small RNN by hand and by graph; which step has what share in them; and a task
that needs a memory of some steps, trained with gradients that are cut after 1, 2, 4, … steps. It
takes half a minute.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import click
import numpy as np
from experiment import now, panels, program, progress

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.diagnose import summary
from tinygrad_rnn.optim import Adam
from tinygrad_rnn.scan import unroll

CUTS = (1, 2, 4, 8, 16)


class Gradients(NamedTuple):
    """Of L = ½ Σ |h_t|² with respect to the weights, (D, H), (H, H), (H,), and to h_0, (B, H)."""

    W_x: np.ndarray
    W_h: np.ndarray
    b: np.ndarray
    h_0: np.ndarray


def by_hand(
    xs: np.ndarray, h_0: np.ndarray, W_x: np.ndarray, W_h: np.ndarray, b: np.ndarray
) -> Gradients:
    """Backpropagation through time in NumPy, for h_t = tanh(x_t W_x + h_{t-1} W_h + b)."""
    hs = [h_0]
    for x in xs:  # forwards: every state is kept
        hs.append(np.tanh(x @ W_x + hs[-1] @ W_h + b))
    dW_x, dW_h, db = np.zeros_like(W_x), np.zeros_like(W_h), np.zeros_like(b)
    dh = np.zeros_like(h_0)  # what comes from the step after
    for t in range(len(xs), 0, -1):  # backwards
        dh = dh + hs[t]  # the loss reads h_t, and so does the next step: both add up
        da = dh * (1 - hs[t] ** 2)  # through tanh
        dW_x += xs[t - 1].T @ da  # the same weights at every step: their shares add up
        dW_h += hs[t - 1].T @ da
        db += da.sum(0)
        dh = da @ W_h.T  # to the step before
    return Gradients(dW_x, dW_h, db, dh)


def by_graph(
    xs: np.ndarray, h_0: np.ndarray, W_x: np.ndarray, W_h: np.ndarray, b: np.ndarray
) -> Gradients:
    """The same gradients from the recorded graph."""
    leaves = [torch.tensor(each, requires_grad=True) for each in (W_x, W_h, b, h_0)]
    W_x, W_h, b, h = leaves
    loss = torch.tensor(0.0, dtype=h.dtype)
    for x in torch.tensor(xs).unbind(0):
        h = (x @ W_x + h @ W_h + b).tanh()
        loss = loss + h.square().sum() / 2
    loss.backward()
    return Gradients(*(leaf.grad.numpy() for leaf in leaves))


def by_differences(
    xs: np.ndarray, h_0: np.ndarray, W_x: np.ndarray, W_h: np.ndarray, b: np.ndarray
) -> Gradients:
    """The same by central differences of the loss, one number at a time."""

    def loss(weights: list[np.ndarray]) -> float:
        W_x, W_h, b, h = weights
        total = 0.0
        for x in xs:
            h = np.tanh(x @ W_x + h @ W_h + b)
            total += (h**2).sum() / 2
        return total

    found, weights = [], [W_x, W_h, b, h_0]
    for k, weight in enumerate(weights):
        gradient = np.zeros_like(weight)
        for place in np.ndindex(weight.shape):
            shifted = []
            for shift in (1e-5, -1e-5):
                moved = weight.copy()
                moved[place] += shift
                shifted.append(loss([*weights[:k], moved, *weights[k + 1 :]]))
            gradient[place] = (shifted[0] - shifted[1]) / 2e-5
        found.append(gradient)
    return Gradients(*found)


def some_weights(D: int = 3, H: int = 5, T: int = 7, B: int = 2) -> dict[str, np.ndarray]:
    """Random inputs, an initial state that is not zero, and weights, in float64."""
    random = np.random.default_rng(0)
    shapes = {"xs": (T, B, D), "h_0": (B, H), "W_x": (D, H), "W_h": (H, H), "b": (H,)}
    return {name: random.standard_normal(shape) / 2 for name, shape in shapes.items()}


def shares(rnn: nn.RNN, steps: int) -> np.ndarray:
    """By distance from the loss, on the last state: the norm of a step's share of dL/dW_hh.

    (steps,): the last step first. Each step gets a copy of the weight, to tell the shares apart.
    """
    W_x, W_h, b_x, b_h = (weight.detach() for weight in rnn.all_weights[0])
    copies = W_h.expand(steps, *W_h.shape).clone().requires_grad_()

    def cell(step: Any, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, own = step
        h = (x @ W_x.T + b_x + h @ own.T + b_h).tanh()
        return h, h

    xs = torch.randn(steps, 1, rnn.input_size)
    _, h = unroll(cell, (xs, copies), torch.randn(1, rnn.hidden_size))
    (gradient,) = torch.autograd.grad(h.sum(), [copies])
    return gradient.numpy().reshape(steps, -1).__pow__(2).sum(1)[::-1] ** 0.5


class Echo(nn.Module):
    """Says again which of two bits came some steps ago."""

    def __init__(self, units: int = 32) -> None:
        super().__init__()
        self.rnn = nn.RNN(1, units)
        self.output = nn.Linear(units, 1)

    def forward(self, xs: torch.Tensor, h: Any = None) -> tuple[torch.Tensor, Any]:
        """(T, B, 1) -> scores (T, B, 1), and the last state."""
        hs, h = self.rnn(xs, h)
        return self.output(hs), h


def train_truncated(cut: int, lag: int, updates: int, recurrence: bool = True) -> float:
    """The share of right answers in the end, with gradients that go back at most `cut` steps.

    One endless sequence is read in windows of `cut` steps; the state goes on from window to window,
    and the gradient does not. recurrence: whether the recurrent weights learn, too.
    """
    model, right = Echo(), []
    learnt = model.parameters() if recurrence else model.output.parameters()
    optimizer = Adam([*learnt], lr=3e-3)
    bits, h = torch.randint(0, 2, (updates * 16 + lag, 16, 1)).float(), None
    for start in progress(range(0, updates * 16, cut), f"cut {cut}"):  # the same bits for all cuts
        xs, targets = bits[lag + start : lag + start + cut], bits[start : start + cut]
        scores, h = model(2 * xs - 1, h)
        loss = F.binary_cross_entropy_with_logits(scores, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        h = h.detach()  # the past is remembered, and not learnt from
        right.append(((scores > 0).float() == targets).float().mean())
    return float(np.mean(torch.stack(right[-len(right) // 10 :]).tolist()))


def cost(lengths: tuple[int, ...] = (25, 50, 100, 200, 400)) -> list[tuple[int, float, int]]:
    """(T, milliseconds for forward and backward, bytes kept for backward) of a small RNN."""
    rnn, rows = nn.RNN(16, 32, mode="unroll"), []
    for T in lengths:
        xs, times = torch.randn(T, 8, 16), []
        for _ in range(7):
            start = now()
            rnn(xs)[0].sum().backward()
            times.append(now() - start)
        rows.append((T, 1e3 * statistics.median(times), summary(rnn, xs).kept))
    return rows


def draw_shares(steps: int = 40) -> Any:
    """How much each step has to say in the gradient of the recurrent weight."""
    figure, axis = panels(width=7)
    for name, gain in (("default weights", None), ("orthogonal", 1.0), ("orthogonal x 1.5", 1.5)):
        rnn = nn.RNN(4, 32)
        if gain is not None:
            nn.init.orthogonal_(rnn.weight_hh_l0, gain)
        axis.semilogy(range(steps), shares(rnn, steps), "o-", markersize=3, label=name)
    axis.set(xlabel="steps before the loss", ylabel="share in $dL/dW_{hh}$ (norm)")
    axis.legend(frameon=False)
    return figure


def draw_truncated(found: dict[str, dict[int, list[float]]], lag: int) -> Any:
    """Right answers by where the gradient is cut."""
    figure, axis = panels(width=7)
    for number, (name, by_cut) in enumerate(found.items()):
        for cut, several in by_cut.items():
            axis.semilogx(
                [cut] * len(several), several, "o", color=f"C{number}", markersize=4, alpha=0.6
            )
        means = [np.mean(several) for several in by_cut.values()]
        axis.plot([*by_cut], means, color=f"C{number}", label=name)
    axis.axvline(lag + 1, color="black", linestyle=":", linewidth=1)
    axis.text(lag + 1.2, 0.52, "steps that the task needs", fontsize=8)
    axis.set_xticks(CUTS, [str(cut) for cut in CUTS])
    axis.minorticks_off()
    axis.set(xlabel="gradient cut after so many steps", ylabel="right answers", ylim=(0.45, 1.02))
    axis.legend(frameon=False, loc="upper left")
    return figure


def truncation(lag: int, updates: int, seeds: int) -> dict[str, dict[int, list[float]]]:
    """By what learns, and by cut: the share of right answers of each seed."""
    return {
        name: {
            cut: [train_truncated(cut, lag, updates, recurrence) for _ in range(seeds)]
            for cut in CUTS
        }
        for name, recurrence in (("all weights learn", True), ("only the output learns", False))
    }


@program
@click.option("--lag", default=6, show_default=True, type=click.IntRange(min=1))
@click.option("--updates", default=600, show_default=True, type=click.IntRange(min=10))
@click.option("--seeds", default=2, show_default=True, type=click.IntRange(min=1))
def main(lag: int, updates: int, seeds: int) -> Callable[[], Any]:
    """Compare three ways to a gradient, then cut it."""
    given = some_weights()
    hand, graph, differences = by_hand(**given), by_graph(**given), by_differences(**given)
    for name, *three in zip(Gradients._fields, hand, graph, differences, strict=True):
        apart = [np.abs(three[0] - other).max() for other in three[1:]]
        print(f"d{name:4s} by hand - graph {apart[0]:.0e}, by hand - differences {apart[1]:.0e}")
    for T, ms, kept in cost():
        print(f"T = {T:3d}: {ms:6.1f} ms, {kept / 1024:6.0f} KiB kept for backward")
    found = truncation(lag, updates, seeds)
    for name, by_cut in found.items():
        row = "  ".join(f"{cut}: {np.mean(several):.1%}" for cut, several in by_cut.items())
        print(f"{name}, right answers by cut  {row}")
    return lambda: draw_truncated(found, lag)


if __name__ == "__main__":
    main()
