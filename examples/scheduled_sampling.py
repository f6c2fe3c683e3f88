"""Chapter 11, second half: trained on true symbols, used on its own. What does that cost?

    python examples/scheduled_sampling.py [--text FILE] [--seeds 2] [--epochs 2] [--units 96]

In training a language model reads what people wrote, in use what it drew itself: exposure bias.
Scheduled sampling (Bengio et al. 2015) feeds it ever more of its own symbols while it trains. Both
ways are trained with several seeds, and a 5-gram model, which had no part in it, judges what they
write by the distance from the last true symbol. A language of four words shows what the loss of
the schedule asks for. Read `language_models.py` first. It takes about four minutes.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import click
import numpy as np
from experiment import panels, program, write_record
from language_models import (
    LANES,
    SHORTEST,
    WINDOW,
    Corpus,
    LanguageModel,
    corpus,
    docstrings,
    loss_on,
    parts,
    train,
    write,
)
from ngrams import NGrams

import tinygrad_rnn as torch
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.char_lm import read_text
from tinygrad_rnn.optim import Adam
from tinygrad_rnn.utils.data import BPTTBatcher

PROMPTS, GIVEN, WRITTEN = 64, 32, 128  # beginnings; symbols of each; symbols drawn after it
SHARES = (1.0, 0.75, 0.5, 0.25, 0.0)  # of true symbols fed
LETTERS = 4


@torch.no_grad()
def partly_own(
    model: LanguageModel, symbols: torch.Tensor, state: Any, share: float
) -> torch.Tensor:
    """(T, B) symbols: each true with chance `share`, else drawn by the model in its place."""
    if share == 1:
        return symbols
    fed = [symbols[0]]
    for true in symbols[1:]:
        logits, state = model(fed[-1][None], state)
        own = torch.multinomial(logits[0].softmax(-1), 1, replacement=True)[:, 0]
        fed.append(torch.where(torch.rand(len(true)) < share, true, own))
    return torch.stack(fed)


Schedule = Callable[[int], float]  # the share of true symbols that an update feeds


def inverse_sigmoid(updates: int, least: float = 0.0) -> Schedule:
    """ε(i) = k / (k + e^(i / k)) with k a tenth of all updates, but never below `least`."""
    k = updates / 10
    return lambda update: max(least, k / (k + math.exp(update / k)))


def scheduled(share_of: Schedule) -> Callable[..., torch.Tensor]:
    """What `train` of language_models.py is to feed, by a schedule."""
    return lambda model, symbols, state, update: partly_own(model, symbols, state, share_of(update))


def doubles(share_of: Schedule, updates: int) -> list[float]:
    """Learn words of two equal letters; by update, the chance that the second repeats the first."""
    model = LanguageModel(1 + LETTERS, units=16)
    optimizer = Adam(model.parameters(), lr=0.01)
    letters = torch.arange(1, 1 + LETTERS)
    found = []
    for update in range(updates):
        letter = torch.randint(1, 1 + LETTERS, (64,))
        word = torch.stack([torch.zeros_like(letter), letter, letter])  # (3, B), 0 begins a word
        logits, _ = model(partly_own(model, word[:2], None, share_of(update)))
        loss = F.cross_entropy(logits.flatten(0, 1), word[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            logits, _ = model(torch.stack([torch.zeros_like(letters), letters]))
        found.append(logits[1].softmax(-1)[letters - 1, letters].mean())
    return torch.stack(found).tolist()


def prompts(text: Corpus) -> tuple[torch.Tensor, torch.Tensor]:
    """Places in the held-out text: (GIVEN, PROMPTS) symbols, and the (WRITTEN, PROMPTS) after."""
    length = GIVEN + WRITTEN
    starts = np.linspace(0, len(text.held_out) - length, PROMPTS).astype(int)
    pieces = torch.stack([text.held_out[start : start + length] for start in starts.tolist()]).T
    return pieces[:GIVEN], pieces[GIVEN:]


def judged(judge: NGrams, given: torch.Tensor, after: torch.Tensor) -> list[float]:
    """By distance from `given`: nats per symbol of what stands after it, in the judge's view."""
    lanes = zip(given.T.tolist(), after.T.tolist(), strict=True)
    surprises = [judge.surprises((*start, *rest), start=len(start)) for start, rest in lanes]
    return np.mean(surprises, axis=0).tolist()


class Findings(NamedTuple):
    """What a network makes of the held-out text and of its own, in nats per symbol."""

    loss: float  # on the held-out text
    fed: list[float]  # on the held-out text, by the share of true symbols fed (SHARES)
    written: list[float]  # the judge's, on what it writes, by distance from the last true symbol
    single: float  # the judge's, on one symbol drawn after true ones


@torch.no_grad()
def examine(model: LanguageModel, text: Corpus, judge: NGrams) -> Findings:
    """What the network loses by reading its own symbols."""
    given, after = prompts(text)
    _, state = model(given[:-1])
    inputs = torch.cat([given[-1:], after[:-1]])  # (WRITTEN, PROMPTS), what stands before `after`

    fed = []
    for share in SHARES:
        logits, _ = model(partly_own(model, inputs, state, share), state)
        fed.append(F.cross_entropy(logits.flatten(0, 1), after.flatten()).item())

    logits, _ = model(inputs, state)
    drawn = torch.multinomial(logits.flatten(0, 1).softmax(-1), 1, replacement=True)
    before = torch.cat([given, after])  # a symbol is judged after the GIVEN true ones before it
    alone = [
        judged(judge, before[t : t + GIVEN], draw[None])
        for t, draw in enumerate(drawn.reshape(after.shape))
    ]
    written = judged(judge, given, write(model, given, WRITTEN))
    return Findings(loss_on(model, text.held_out), fed, written, np.mean(alone).item())


def runs(text: Corpus, judge: NGrams, units: int, epochs: int, seeds: int) -> dict[str, Any]:
    """What each way to train leads to: Findings, as plain data, by seed."""
    updates = epochs * len(BPTTBatcher(text.training, LANES, WINDOW))
    schedules = {
        "teacher forcing": lambda update: 1.0,
        "scheduled, down to ¾": inverse_sigmoid(updates, least=0.75),
        "scheduled, down to 0": inverse_sigmoid(updates),
    }
    found: dict[str, Any] = {name: [] for name in schedules}
    for _ in range(seeds):  # one generator goes on from run to run
        for name, share_of in schedules.items():
            model = train(text.training, len(text.symbols), units, epochs, scheduled(share_of))
            found[name].append(examine(model, text, judge)._asdict())
    return found


def draw(curves: dict[str, list[float]], true: list[float], found: dict[str, Any]) -> Any:
    """The language of doubles; the judge's view by distance; the loss by the share fed."""
    figure, (left, middle, right) = panels(columns=3, width=11, height=3.5)
    colors = dict(zip(found, ("tab:blue", "tab:green", "tab:orange"), strict=True))

    for name, chances in curves.items():
        left.plot(chances, color=colors[name], label=name)
    epsilon = np.array([inverse_sigmoid(len(chances))(update) for update in range(len(chances))])
    left.plot(epsilon + (1 - epsilon) / LETTERS, "k:", label="ε + (1 - ε) / 4")
    left.set(xlabel="updates", ylabel="chance that letter 2 = letter 1", ylim=(0, 1.03))

    def binned(by_distance: list[float]) -> Any:
        return np.reshape(by_distance, (-1, 8)).mean(1)

    near = np.arange(0, WRITTEN, 8)
    middle.plot(near + 4.5, binned(true), "k:", label="true text")
    for name, several in found.items():
        for each in several:
            middle.plot(near + 4.5, binned(each["written"]), color=colors[name], alpha=0.7)
            middle.plot(0, each["single"], "d", color=colors[name])
            label = name if each is several[0] else None
            right.plot(SHARES, each["fed"], "o-", color=colors[name], markersize=4, label=label)
    middle.plot([], [], "d", color="gray", label="one draw after true symbols")
    middle.set(xlabel="symbols since the last true one", ylabel="nats per symbol, by the judge")
    middle.set_ylim(bottom=0)
    right.set(xlabel="share of true symbols fed", ylabel="nats per true symbol")
    right.invert_xaxis()
    for axes in (left, middle, right):
        axes.legend(frameon=False, fontsize="small")
    return figure


@program
@click.option("--text", type=click.Path(), help="A UTF-8 file instead of the docstrings.")
@click.option("--characters", type=click.IntRange(min=SHORTEST), help="Use only its first so many.")
@click.option("--seeds", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--epochs", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--units", default=96, show_default=True, type=click.IntRange(min=1))
@click.option("--updates", default=600, show_default=True, type=click.IntRange(min=1))
@click.option("--write", "keep", is_flag=True, help="Keep what was found in docs/results/.")
def main(
    text: str | None,
    characters: int | None,
    seeds: int,
    epochs: int,
    units: int,
    updates: int,
    keep: bool,
) -> Callable[[], Any]:
    """Learn the language of doubles, then train both ways on a text and compare."""
    curves = {
        "teacher forcing": doubles(lambda update: 1.0, updates),
        "scheduled, down to 0": doubles(inverse_sigmoid(updates), updates),
    }
    for name, chances in curves.items():
        print(f"{name:22} the second letter repeats the first with chance {chances[-1]:.2f}")

    training, held_out = parts((read_text(text) if text else docstrings())[:characters])
    read = corpus(training, held_out, len(set(training)) + 1, split=list)
    judge = NGrams(5, tuple(read.training.tolist()), len(read.symbols))
    true = judged(judge, *prompts(read))
    found = runs(read, judge, units, epochs, seeds)
    print(f"\nnats per character; the judge on true text: {np.mean(true):.3f}")
    print(f"{'':22}   loss  none true fed   judge: one draw   its own text")
    for name, several in found.items():
        for each in several:
            print(
                f"{name:22} {each['loss']:6.3f} {each['fed'][-1]:14.3f} {each['single']:17.3f} "
                f"{np.mean(each['written']):14.3f}"
            )
    if keep:
        print(
            write_record(
                "scheduled_sampling",
                shlex.join(["python", *sys.argv]),
                {"true": true, "found": found},
            )
        )
    return lambda: draw(curves, true, found)


if __name__ == "__main__":
    main()
