"""Chapter 11: what a language model's loss means, by characters and by words, and how it writes.

    python examples/language_models.py [--text FILE] [--epochs 4] [--units 128] [--words 2000]

One text, read twice: as characters and as words. Networks and n-gram models learn its beginning and
are scored on its end, in nats per symbol, in perplexity, and in bits per character, which alone
compares the two. Then the network of characters writes, at several temperatures. Without --text
the text is the English of Python's standard library: its docstrings. It takes about three minutes.
"""

from __future__ import annotations

import inspect
import math
import re
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import click
from experiment import panels, program, progress, write_record
from ngrams import NGrams

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.char_lm import UNKNOWN, TextError, Vocabulary, python_text, read_text
from tinygrad_rnn.optim import Adam
from tinygrad_rnn.optim.lr_scheduler import CosineAnnealingLR
from tinygrad_rnn.utils.data import BPTTBatcher

LANES, WINDOW = 32, 32  # of a training text, and how many symbols are taken of each at a time
SHORTEST = 2000  # characters of a text
WORD = re.compile(r" ?\w+|\W")  # a word takes the space before it; all else is single characters


def docstrings() -> str:
    """What Python's standard library says of its functions and classes, no text twice: English."""
    found = re.findall(r':\n +r?"""(.+?)"""', python_text(), re.DOTALL)
    texts = dict.fromkeys(inspect.cleandoc(text) for text in found if ">>>" not in text)
    return "\n\n".join(texts)


class Corpus(NamedTuple):
    """A text in numbered symbols, characters or words. The end of the text is held out."""

    symbols: list[str]  # by number; 0 is UNKNOWN
    training: torch.Tensor  # (N,)
    held_out: torch.Tensor  # (M + 1,), from the last symbol of training on
    spelling: float  # nats to spell out the unknown symbols of held_out
    characters: int  # in held_out

    def bits_per_character(self, loss: float) -> float:
        """What a loss in nats per symbol means for the text, whatever its symbols are."""
        nats = loss * (len(self.held_out) - 1) + self.spelling
        return nats / math.log(2) / self.characters


def corpus(training: str, held_out: str, size: int, split: Callable[[str], list[str]]) -> Corpus:
    """Both parts in the `size` most frequent symbols of the training text, UNKNOWN included.

    `split` cuts a text into symbols. Every other symbol is UNKNOWN; to spell it costs what a model
    of 3-grams says that was fitted to the training text's unknown symbols, line by line.
    """
    before, after = split(training), split(held_out)
    frequent = [symbol for symbol, _ in Counter(before).most_common(size) if symbol != UNKNOWN]
    number = {symbol: k for k, symbol in enumerate([UNKNOWN, *frequent][:size])}

    rare = [symbol for symbol in before if symbol not in number]
    speller = NGrams(3, "\n" + "\n".join(rare) + "\n", alphabet=len(set(training)) + 1)
    unknown = [symbol for symbol in after if symbol not in number]
    spelling = sum(sum(speller.surprises(f"\n{symbol}\n", start=1)) for symbol in unknown)

    numbers = [torch.tensor([number.get(s, 0) for s in part]) for part in (before, after)]
    return Corpus(
        symbols=list(number),
        training=numbers[0],
        held_out=torch.cat([numbers[0][-1:], numbers[1]]),
        spelling=spelling,
        characters=len(held_out),
    )


class LanguageModel(nn.Module):
    """Scores of the next symbol, given those so far."""

    def __init__(self, symbols: int, units: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 64)
        self.recurrent = nn.GRU(64, units)
        self.output = nn.Linear(units, symbols)

    def forward(self, tokens: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """(T, B) numbers of symbols -> (T, B, symbols) scores, and the state after them."""
        hs, state = self.recurrent(self.embedding(tokens), state)
        return self.output(hs), state


def train(
    tokens: torch.Tensor,
    symbols: int,
    units: int,
    epochs: int,
    feed: Callable[..., torch.Tensor] | None = None,
) -> LanguageModel:
    """A model trained to guess each symbol from the true ones before it: teacher forcing.

    feed: what the model reads instead of the true symbols, as feed(model, symbols, state, update).
    """
    model = LanguageModel(symbols, units)
    optimizer = Adam(model.parameters(), lr=0.01)
    batches = BPTTBatcher(tokens, LANES, WINDOW)
    schedule = CosineAnnealingLR(optimizer, epochs * len(batches))
    update = 0
    for epoch in range(1, epochs + 1):
        state = None
        for inputs, targets in progress(batches, f"epoch {epoch} of {epochs}"):
            if feed is not None:
                inputs = feed(model, inputs, state, update)
            logits, state = model(inputs, state)
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            state = state.detach()
            update += 1
    return model


@torch.no_grad()
def loss_on(model: LanguageModel, tokens: torch.Tensor) -> float:
    """Nats per symbol, in 16 lanes that each begin without a past."""
    nats, count, state = [], 0, None
    for inputs, targets in BPTTBatcher(tokens, 16, 64):
        logits, state = model(inputs, state)
        nats.append(F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))
        count += targets.numel()
    return sum(torch.stack(nats).tolist()) / count


def chances(logits: torch.Tensor, temperature: float = 1, top_k: int | None = None) -> torch.Tensor:
    """p ∝ exp(logit / temperature), for the top_k likeliest symbols alone. (B, symbols)."""
    if top_k is not None:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    return (logits / temperature).softmax(-1)


@torch.no_grad()
def write(model: LanguageModel, start: torch.Tensor, length: int, **how: Any) -> torch.Tensor:
    """(length, B) symbols, each drawn after `start`, (S, B), and all that were drawn before it."""
    logits, state = model(start)
    drawn = []
    for _ in range(length):
        token = torch.multinomial(chances(logits[-1], **how), 1, replacement=True)  # (B, 1)
        drawn.append(token[:, 0])
        logits, state = model(token.T, state)
    return torch.stack(drawn)


class Score(NamedTuple):
    """How well a model guesses the held-out text."""

    model: str
    symbols: str  # what it reads: "characters" or "words"
    loss: float  # nats per symbol
    bits: float  # per character of the text

    @property
    def perplexity(self) -> float:
        """e^loss: guessing is as hard as among this many equally likely symbols."""
        return math.exp(self.loss)


def by_counting(text: Corpus, symbols: str, longest: int) -> list[Score]:
    """The scores of n-gram models, n = 1 to `longest`."""
    past, future = tuple(text.training.tolist()), tuple(text.held_out.tolist()[1:])
    model = NGrams(longest, past, len(text.symbols))
    scores = []
    for n in range(1, longest + 1):
        losses = model.surprises(past[-n:] + future, start=n, n=n)
        loss = sum(losses) / len(losses)
        scores.append(Score(f"{n}-grams", symbols, loss, text.bits_per_character(loss)))
    return scores


def parts(text: str) -> tuple[str, str]:
    """A text's beginning, to learn from, and its last tenth; very rare characters are UNKNOWN.

    Raises TextError for a text that is too short, or one long line.
    """
    if len(text) < SHORTEST or "\n" not in text:
        raise TextError(
            f"the text has {len(text)} characters in {len(text.splitlines())} lines; "
            f"at least {SHORTEST} in several lines are needed"
        )
    middle = round(0.9 * len(text))
    known = Vocabulary.of(text[:middle])
    text = known.decode(known.encode(text))
    return text[:middle], text[middle:]


def corpora(text: str, words: int) -> dict[str, Corpus]:
    """A text as all its characters, and as its `words` most frequent words."""
    training, held_out = parts(text)
    return {
        "characters": corpus(training, held_out, len(set(training)) + 1, split=list),
        "words": corpus(training, held_out, words, split=WORD.findall),
    }


def compare(
    text: str, words: int, units: int, epochs: int
) -> tuple[list[Score], dict[str, tuple[LanguageModel, Corpus]]]:
    """The scores of n-grams and networks on both readings of a text, and the networks."""
    scores, networks = [], {}
    for symbols, read in corpora(text, words).items():
        scores += by_counting(read, symbols, longest=5 if symbols == "characters" else 3)
        model = train(read.training, len(read.symbols), units, epochs)
        loss = loss_on(model, read.held_out)
        scores.append(Score("GRU", symbols, loss, read.bits_per_character(loss)))
        networks[symbols] = model, read
    return scores, networks


class Writing(NamedTuple):
    """What a network of characters writes at one temperature."""

    temperature: float
    real: float  # share of its words that occur in the training text
    distinct: float  # number of different words, as a share of all it wrote
    sample: str  # the beginning, with all white space as one space


TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)


def writings(
    model: LanguageModel, read: Corpus, lanes: int = 32, length: int = 200
) -> list[Writing]:
    """What the network writes after the end of a line, at rising temperatures."""
    start = torch.full((1, lanes), read.symbols.index("\n"))
    known = set(re.findall(r"\w+", "".join(read.symbols[k] for k in read.training.tolist())))
    found = []
    for temperature in TEMPERATURES:
        drawn = write(model, start, length, temperature=temperature)
        texts = ["".join(read.symbols[k] for k in lane) for lane in drawn.T.tolist()]
        words = [
            word for text in texts for word in re.findall(r"\w+", text)[:-1]
        ]  # the last is cut
        real, distinct = sum(word in known for word in words), len(set(words))
        written = max(1, len(words))
        sample = " ".join(" ".join(texts).split())[:length]
        found.append(Writing(temperature, real / written, distinct / written, sample))
    return found


def draw(scores: list[Score], written: list[Writing]) -> Any:
    """Bits per character of every model; what the temperature does to the words written."""
    figure, (left, right) = panels(columns=2, height=3.2)
    colors = {"characters": "tab:blue", "words": "tab:orange"}
    for place, score in enumerate(scores):
        label = score.symbols if score.model == "GRU" else None
        left.barh(place, score.bits, color=colors[score.symbols], label=label)
        left.text(score.bits, place, f" {score.bits:.2f}", va="center", fontsize="small")
    left.set_yticks(range(len(scores)), [score.model for score in scores])
    left.invert_yaxis()
    left.set(xlabel="bits per character of held-out text", xlim=(0, 6))
    left.legend(frameon=False, loc="lower right", title="a model of")
    temperatures = [each.temperature for each in written]
    real, distinct = [each.real for each in written], [each.distinct for each in written]
    right.plot(temperatures, real, "o-", label="occur in the training text")
    right.plot(temperatures, distinct, "s--", label="are distinct")
    right.set_xticks(temperatures)
    right.set(xlabel="temperature", ylabel="share of the words written", ylim=(0, 1.03))
    right.legend(frameon=False, loc="lower center")
    return figure


@program
@click.option("--text", type=click.Path(), help="A UTF-8 file instead of the docstrings.")
@click.option("--characters", type=click.IntRange(min=SHORTEST), help="Use only its first so many.")
@click.option("--epochs", default=4, show_default=True, type=click.IntRange(min=1))
@click.option("--units", default=128, show_default=True, type=click.IntRange(min=1))
@click.option("--words", default=2000, show_default=True, type=click.IntRange(min=2))
@click.option("--write", "keep", is_flag=True, help="Keep the scores in docs/results/.")
def main(
    text: str | None, characters: int | None, epochs: int, units: int, words: int, keep: bool
) -> Callable[[], Any]:
    """Read a text as characters and as words, score what was learnt, and let it write."""
    content = (read_text(text) if text else docstrings())[:characters]
    scores, networks = compare(content, words, units, epochs)
    print("                     nats per symbol   perplexity   bits per character")
    for score in scores:
        name = f"{score.model} of {score.symbols}"
        print(f"{name:21} {score.loss:14.3f} {score.perplexity:12.1f} {score.bits:20.3f}")
    written = writings(*networks["characters"])
    for each in written:
        print(f"\ntemperature {each.temperature}, {each.real:.0%} of the words known:")
        print(each.sample)
    if keep:
        results = {
            "scores": [score._asdict() for score in scores],
            "written": [each._asdict() for each in written],
        }
        print(write_record("language_models", shlex.join(["python", *sys.argv]), results))
    return lambda: draw(scores, written)


if __name__ == "__main__":
    main()
