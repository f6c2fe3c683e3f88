"""Chapter 6: an LSTM step by step: forget, input, update, output; and what its gates do on a text.

    python examples/lstm_gates.py [--text FILE] [--units 96] [--updates 600]

A small character model learns the source of Python's standard library, or any text. Then one step
is taken apart, gates are drawn over text that the model has not seen, and gates are forced shut to
see what becomes of the past. It takes about half a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from experiment import panels, program, progress

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.char_lm import TextError, Vocabulary, python_text, read_text
from tinygrad_rnn.optim import Adam
from tinygrad_rnn.utils.data import BPTTBatcher

HELD_OUT = 20_000  # characters
SAMPLE = """\
def total(prices):
    net = [round(p, 2) for p in prices]
    return "sum: " + str(sum(net))
"""
GATES = ("input", "forget", "candidate", "output")  # the order of their rows in the weights


class CharLSTM(nn.Module):
    """The chances of the next character, given those so far."""

    def __init__(self, vocabulary: Vocabulary, units: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.embedding = nn.Embedding(len(vocabulary), 24)
        self.lstm = nn.LSTM(24, units)
        self.output = nn.Linear(units, len(vocabulary))

    def forward(self, tokens: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """(T, B) characters -> (T, B, symbols) scores, and the state after the last."""
        hs, state = self.lstm(self.embedding(tokens), state)
        return self.output(hs), state


class Step(NamedTuple):
    """What one step computes: its gates, and its new cell and hidden state. (B, H) each."""

    forget: torch.Tensor
    input: torch.Tensor
    candidate: torch.Tensor
    output: torch.Tensor
    c: torch.Tensor
    h: torch.Tensor


def lstm_step(lstm: nn.LSTM, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> Step:
    """One step, in the order in which it is told."""
    z = x @ lstm.weight_ih_l0.T + lstm.bias_ih_l0 + h @ lstm.weight_hh_l0.T + lstm.bias_hh_l0
    z_i, z_f, z_g, z_o = z.chunk(4, -1)  # (B, H) each
    forget = z_f.sigmoid()  # 1. how much of the old cell stays
    input, candidate = z_i.sigmoid(), z_g.tanh()  # 2. how much of what is new comes in
    c = forget * c + input * candidate  # 3. the cell is updated
    output = z_o.sigmoid()  # 4. how much of the cell is shown
    return Step(forget, input, candidate, output, c, output * c.tanh())


def walk(lstm: nn.LSTM, xs: torch.Tensor, c: torch.Tensor | None = None) -> Step:
    """All steps over (T, B, D), each value stacked to (T, B, H)."""
    h = torch.zeros(xs.shape[1], lstm.hidden_size)
    c = torch.zeros_like(h) if c is None else c
    steps = []
    for x in xs.unbind(0):
        steps.append(lstm_step(lstm, x, h, c))
        h, c = steps[-1].h, steps[-1].c
    return Step(*(torch.stack(values) for values in zip(*steps, strict=True)))


def train(text: str, units: int, updates: int) -> tuple[CharLSTM, list[float]]:
    """A model of the text, and its losses in nats per character."""
    model = CharLSTM(Vocabulary.of(text), units)
    optimizer = Adam(model.parameters(), lr=5e-3)
    tokens = torch.tensor(model.vocabulary.encode(text))
    batches, state, losses = iter(BPTTBatcher(tokens, batch_size=32, seq_len=48)), None, []
    for _ in progress(range(updates), "training"):
        batch = next(batches, None)
        if batch is None:  # the text has been read to its end
            batches, state = iter(BPTTBatcher(tokens, batch_size=32, seq_len=48)), None
            batch = next(batches)
        inputs, targets = batch
        logits, state = model(inputs, state)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        state = tuple(part.detach() for part in state)
        losses.append(loss.detach())
    return model, torch.stack(losses).tolist()


@torch.no_grad()
def gates_on(model: CharLSTM, text: str) -> Step:
    """What every step over a text computed: (T, H) each."""
    tokens = torch.tensor(model.vocabulary.encode(text))[:, None]
    return Step(*(values[:, 0] for values in walk(model.lstm, model.embedding(tokens))))


def features(text: str) -> dict[str, np.ndarray]:
    """What a reader of code keeps in mind, after each character: (T,) numbers each."""
    depth = column = 0
    in_word, quote, rows = False, "", []
    for character in text:
        if quote:
            quote = "" if character in (quote, "\n") else quote
        elif character in "'\"":
            quote = character
        depth = 0 if character == "\n" else depth + (character in "([{") - (character in ")]}")
        column = 0 if character == "\n" else column + 1
        in_word = character.isalnum() or character == "_"
        rows.append((depth > 0, bool(quote), column, in_word))
    names = ("inside brackets", "inside quotes", "place in the line", "inside a word")
    return dict(zip(names, np.array(rows, float).T, strict=True))


class Reader(NamedTuple):
    """A unit whose cell goes with something that a reader keeps in mind."""

    feature: str
    unit: int
    correlation: float


def readers(model: CharLSTM, text: str) -> list[Reader]:
    """For every feature, the unit whose cell correlates with it best, on a text."""
    cells = gates_on(model, text).c.numpy()  # (T, H)
    found = []
    for feature, values in features(text).items():
        if values.std() == 0:
            continue
        correlations = [np.corrcoef(cells[:, unit], values)[0, 1] for unit in range(cells.shape[1])]
        best = int(np.argmax(np.abs(correlations)))
        found.append(Reader(feature, best, float(correlations[best])))
    return found


def force(lstm: nn.LSTM, **gates: float) -> nn.LSTM:
    """A copy with gates that are 0 or 1 whatever comes in: force(lstm, forget=1, input=0)."""
    forced = nn.LSTM(lstm.input_size, lstm.hidden_size)
    forced.load_state_dict(lstm.state_dict())
    with torch.no_grad():
        for gate, value in gates.items():
            start = GATES.index(gate) * lstm.hidden_size
            rows = slice(start, start + lstm.hidden_size)
            for weight in forced.parameters():
                weight[rows] = 0
            forced.bias_ih_l0[rows] = 200.0 if value else -200.0  # σ(±200) is 1 or 0, exactly
    return forced


def influence(lstm: nn.LSTM, xs: torch.Tensor) -> dict[str, np.ndarray]:
    """By t: how much the cell at t still depends on c_0, and on the first input x_1.

    The norms of the gradients of ⟨v, c_t⟩ with respect to c_0 and x_1, for a fixed random v of
    length 1; xs is (T, 1, D).
    """
    c_0 = torch.randn(1, lstm.hidden_size, requires_grad=True)
    x_1 = xs[:1].detach().requires_grad_()
    v = torch.randn(1, lstm.hidden_size)
    v = v / v.norm()
    cs = walk(lstm, torch.cat([x_1, xs[1:]]), c_0).c
    rows = []
    for c in cs.unbind(0):
        grads = torch.autograd.grad((v * c).sum(), [c_0, x_1], retain_graph=True)
        rows.append(torch.stack([grad.norm() for grad in grads]))
    return dict(zip(("c_0", "x_1"), torch.stack(rows).numpy().T, strict=True))


CASES: dict[str, dict[str, float]] = {
    "as trained": {},
    "forget gate closed": {"forget": 0},
    "forget and output gates closed": {"forget": 0, "output": 0},
    "input gate closed": {"input": 0},
    "input gate closed, forget gate open": {"input": 0, "forget": 1},
}


def influences(model: CharLSTM, text: str) -> dict[str, dict[str, np.ndarray]]:
    """`influence` over a text, for every case of gates that are forced."""
    tokens = torch.tensor(model.vocabulary.encode(text))[:, None]
    xs = model.embedding(tokens).detach()
    return {case: influence(force(model.lstm, **gates), xs) for case, gates in CASES.items()}


def draw_gates(model: CharLSTM, text: str, found: list[Reader]) -> Any:
    """Forget gate, input gate, output gate and cell of one unit per feature, over a text."""
    values = gates_on(model, text)
    figure, axes = panels(rows=len(found), width=11, height=1.5)
    for axis, reader in zip(np.atleast_1d(axes), found, strict=True):
        rows = [values.forget, values.input, values.output, values.c.tanh() / 2 + 0.5]
        picture = np.stack([row[:, reader.unit].numpy() for row in rows])
        axis.imshow(picture, aspect="auto", cmap="RdBu_r", vmin=0, vmax=1)
        axis.set_yticks(range(4), ["forget", "input", "output", "cell"], fontsize=8)
        shown = [{" ": "␣", "\n": "↵"}.get(character, character) for character in text]
        axis.set_xticks(range(len(text)), shown, fontsize=8, family="DejaVu Sans Mono")
        axis.tick_params(length=0)
        axis.grid(False)
        title = f"{reader.feature}: unit {reader.unit}, correlation {reader.correlation:+.2f}"
        axis.set_title(title, fontsize=9, loc="left")
    bar = figure.colorbar(axis.images[0], ax=figure.axes, aspect=40, pad=0.01, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["closed\n(cell: -1)", "half\n(0)", "open\n(1)"], fontsize=8)
    return figure


def draw_influences(found: dict[str, dict[str, np.ndarray]]) -> Any:
    """How much the cell still depends on its beginning, by t."""
    figure, axes = panels(columns=2, width=10, height=3.4)
    for axis, source in zip(axes, ("c_0", "x_1"), strict=True):
        for case, norms in found.items():
            shown = np.where(norms[source] > 0, norms[source], np.nan)
            axis.semilogy(range(1, len(shown) + 1), shown, label=case)
        axis.set(xlabel="step t", title=f"how much $c_t$ depends on ${source}$")
        axis.set_ylim(bottom=1e-12)
    axes[0].set_ylabel("norm of the gradient")
    axes[1].legend(frameon=False, fontsize=8)
    return figure


@program
@click.option("--text", type=click.Path(path_type=Path), help="A UTF-8 text to learn.")
@click.option("--units", default=96, show_default=True, type=click.IntRange(min=1))
@click.option("--updates", default=600, show_default=True, type=click.IntRange(min=1))
def main(text: Path | None, units: int, updates: int) -> Callable[[], Any]:
    """Train, take a step apart, force gates."""
    content = python_text(600_000) if text is None else read_text(text)
    if len(content) < 2 * HELD_OUT:
        raise TextError(f"{text} has {len(content)} characters; at least {2 * HELD_OUT} are needed")
    model, losses = train(content[:-HELD_OUT], units, updates)
    unseen = content[-HELD_OUT:]
    print(f"loss {np.mean(losses[-20:]):.3f} nats per character")
    found = readers(model, unseen[:4000])
    for feature, unit, correlation in found:
        print(f"{feature:18s} cell {unit:3d}, correlation {correlation:+.2f}")
    for case, norms in influences(model, unseen[:60]).items():
        last = ", ".join(f"{source} {values[-1]:.1e}" for source, values in norms.items())
        print(f"{case:36s} c_60 depends on {last}")
    return lambda: draw_gates(model, SAMPLE, found)


if __name__ == "__main__":
    main()
