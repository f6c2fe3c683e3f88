"""An encoder reads a text, a decoder writes its translation, character by character.

Without attention the decoder gets one vector for the whole source; with attention it looks, for
each character that it writes, at the places of the source that matter. `Translator.step` is one
step of the decoder: in training `scan` runs it over the true translations, and later a search of
`tinygrad_rnn.decoding` runs it over what it writes itself. The program is `translation.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from experiment import progress

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.char_lm import Vocabulary
from tinygrad_rnn.decoding import greedy
from tinygrad_rnn.nn.attention import Projected
from tinygrad_rnn.nn.utils.rnn import pack_sequence, pad_packed_sequence, pad_sequence
from tinygrad_rnn.optim import Adam
from tinygrad_rnn.optim.lr_scheduler import CosineAnnealingLR
from tinygrad_rnn.scan import scan

END = "\n"  # of a translation; the decoder reads it first, too
FEATURES = 32  # of a character
ROUND = 16  # memories are as long as a multiple of it: of few sizes, for which a scan has plans

Pair = tuple[str, str]  # a source and its translation


class Memory(NamedTuple):
    """What the decoder may look at. B texts, S places in each, K features of a place."""

    keys: Projected  # of (B, S, K)
    mask: torch.Tensor  # (B, S), False beyond a text's end


class Translator(nn.Module):
    """The chances of every next character of a translation, given the source and those before.

    attention: "additive", "dot", or "none": then there is one place to look at, and it holds the
        encoder's last state.
    reading: what the encoder reads: "forwards", "backwards", or "both" with half the units each.
    """

    def __init__(
        self,
        source: Vocabulary,
        target: Vocabulary,
        units: int,
        attention: str = "none",
        reading: str = "both",
    ) -> None:
        super().__init__()
        self.source, self.target, self.reading = source, target, reading
        both = reading == "both"
        self.read_features = nn.Embedding(len(source), FEATURES)
        self.encoder = nn.GRU(FEATURES, units // 2 if both else units, bidirectional=both)
        self.beginning = nn.Linear(units, units)

        self.one_vector = attention == "none"
        if attention == "additive":
            self.attention = nn.AdditiveAttention(units, units, units)
        else:
            self.attention = nn.DotProductAttention()
        self.written_features = nn.Embedding(len(target), FEATURES)
        self.decoder = nn.GRUCell(FEATURES + units, units)
        self.output = nn.Linear(2 * units, len(target))

    def read(self, sources: Iterable[str]) -> tuple[torch.Tensor, Memory]:
        """The decoder's first state, and its memory: the encoder."""
        step = -1 if self.reading == "backwards" else 1
        texts = [torch.tensor(self.source.encode(text[::step])) for text in sources]
        packed = pack_sequence(texts, enforce_sorted=False)
        packed = packed._replace(data=self.read_features(packed.data))
        states, last = self.encoder(packed)
        last = last.transpose(0, 1).flatten(1)  # (B, H), both directions side by side
        if self.one_vector:
            keys, lengths = last.unsqueeze(1), torch.ones(len(last))
        else:
            size = -(-max(map(len, texts)) // ROUND) * ROUND
            keys, lengths = pad_packed_sequence(states, batch_first=True, total_length=size)
        mask = torch.arange(keys.shape[1]) < lengths.to(keys.device).unsqueeze(1)
        return self.beginning(last).tanh(), Memory(self.attention.project(keys), mask)

    def step(
        self, written: torch.Tensor, s: torch.Tensor, memory: Memory
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        """One step of the decoder, after (B,) characters: ((log_probs, where it looked), state)."""
        context, weights = self.attention(s, memory.keys, mask=memory.mask)
        s = self.decoder(torch.cat([self.written_features(written), context], -1), s)
        scores = self.output(torch.cat([s, context], -1))  # (B, symbols)
        return (scores.log_softmax(-1), weights), s

    def forward(
        self, sources: Iterable[str], written: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """After each of (T, B) characters: (T, B, symbols) log-probabilities, (T, B, S) looks."""
        s, memory = self.read(sources)
        outputs, _ = scan(lambda written, s: self.step(written, s, memory), written, s)
        return outputs


def vocabularies(pairs: list[Pair]) -> tuple[Vocabulary, Vocabulary]:
    """The characters of the sources, and those of the targets."""
    sources, targets = zip(*pairs, strict=True)
    return Vocabulary.of("".join(sources)), Vocabulary.of(END.join([*targets, ""]))


def loss_on(model: Translator, pairs: list[Pair]) -> torch.Tensor:
    """Nats per character of the true translations, each character after the true ones before."""
    texts = [torch.tensor(model.target.encode(END + target + END)) for _, target in pairs]
    before = pad_sequence([text[:-1] for text in texts])  # (T, B)
    after = pad_sequence([text[1:] for text in texts], padding_value=-100)  # which costs nothing
    log_probs, _ = model([source for source, _ in pairs], before)
    return F.nll_loss(log_probs.flatten(0, 1), after.flatten())


def training(
    model: Translator, batches: Iterable[list[Pair]], updates: int, rate: float = 5e-3
) -> Iterator[torch.Tensor]:
    """Train on so many batches; the loss after each update, whenever it is asked for."""
    optimizer = Adam(model.parameters(), lr=rate)
    schedule = CosineAnnealingLR(optimizer, updates)
    for _, batch in zip(progress(range(updates), "training"), batches, strict=False):
        loss = loss_on(model, batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield loss.detach()


@torch.no_grad()
def decode(
    model: Translator,
    s: torch.Tensor,
    memory: Memory,
    longest: int,
    search: Callable[..., Any] = greedy,
    **options: Any,
) -> list[Any]:
    """What `greedy` or `beam_search` writes from a state: a Hypothesis, or a list, for each row."""

    def step(written: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        s, memory = state
        (log_probs, _), s = model.step(written, s, memory)
        return log_probs, (s, memory)

    end = model.target.symbols.index(END)
    return search(step, (s, memory), end, end, max_length=longest, **options)


@torch.no_grad()
def translate(
    model: Translator, sources: Sequence[str], search: Callable[..., Any] = greedy, **options: Any
) -> list[Any]:
    """What `greedy` or `beam_search` makes of each source."""
    longest = 10 + 2 * max(map(len, sources))
    return decode(model, *model.read(sources), longest, search, **options)
