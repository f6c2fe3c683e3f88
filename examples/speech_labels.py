"""Chapter 14: labelling speech-like signals with CTC, without saying where the labels are.

    python examples/speech_labels.py [--updates 400] [--units 32] [--seeds 3]

A "phone" is a pattern over twelve frequency bands that lasts some frames; signals are noisy, with
pauses now and then. A network learns from label sequences alone (CTC), and is compared with one
that is told the label of every frame, and with one that only looks back. It takes a minute.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import click
import numpy as np
from ctc_decoding import best_path, prefix_beam_search
from experiment import panels, program, progress

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.optim import Adam

PHONES, BANDS, BLANK = "abcde", 12, 0  # label k is PHONES[k - 1]
KINDS = ("CTC, both directions", "CTC, looks back only", "told every frame")


class Signals(NamedTuple):
    """A batch of B signals of up to T frames.

    frames: (T, B, BANDS), zeros after the end of each. lengths: frames of each. labels: for each
    signal. segments: for each signal, (label, first frame, frame after the last) of each label.
    """

    frames: torch.Tensor
    lengths: list[int]
    labels: list[list[int]]
    segments: list[list[tuple[int, int, int]]]


def patterns() -> np.ndarray:
    """(labels, BANDS): two formants each, as vowels have; label 0 is silence."""
    bands = np.arange(BANDS)
    formants = [(1, 5), (1, 9), (3, 7), (4, 10), (6, 8)]
    rows = [sum(np.exp(-((bands - place) ** 2) / 1.5) for place in pair) for pair in formants]
    return np.array([np.zeros(BANDS), *rows])


def some_signals(random: np.random.Generator, batch: int) -> Signals:
    """Signals of 2 to 6 phones of 3 to 8 frames each, half of them with a pause before."""
    pictures, labels, segments = [], [], []
    for _ in range(batch):
        sequence = random.integers(1, len(PHONES) + 1, random.integers(2, 7)).tolist()
        frame_labels, places = [], []
        for label in sequence:
            frame_labels += [0] * (random.integers(1, 5) * random.integers(0, 2))
            start = len(frame_labels)
            frame_labels += [label] * random.integers(3, 9)
            places.append((label, start, len(frame_labels)))
        frame_labels += [0] * random.integers(0, 4)
        loudness = random.uniform(0.6, 1.4)
        clean = loudness * patterns()[frame_labels]
        pictures.append(clean + 0.4 * random.standard_normal(clean.shape))
        labels.append(sequence)
        segments.append(places)
    frames = np.zeros((max(map(len, pictures)), batch, BANDS), np.float32)
    for b, picture in enumerate(pictures):
        frames[: len(picture), b] = picture
    return Signals(torch.tensor(frames), [len(picture) for picture in pictures], labels, segments)


class Recognizer(nn.Module):
    """For every frame, the log-probabilities of blank and of the phones."""

    def __init__(self, units: int, both_directions: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, units, bidirectional=both_directions)
        self.output = nn.Linear(units * (1 + both_directions), len(PHONES) + 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """(T, B, BANDS) -> (T, B, labels)."""
        return self.output(self.lstm(frames)[0]).log_softmax(-1)


def ctc(log_probs: torch.Tensor, signals: Signals) -> torch.Tensor:
    """The loss that knows the labels of each signal, and not where they are."""
    targets = torch.tensor([label for labels in signals.labels for label in labels])
    counts = [len(labels) for labels in signals.labels]
    return F.ctc_loss(log_probs, targets, signals.lengths, counts, blank=BLANK)


def framewise(log_probs: torch.Tensor, signals: Signals) -> torch.Tensor:
    """The loss that is told the label of every frame; silence is label 0."""
    truth = np.full(log_probs.shape[:2], -100)  # ignored
    for b, (length, places) in enumerate(zip(signals.lengths, signals.segments, strict=True)):
        truth[:length, b] = 0
        for label, start, end in places:
            truth[start:end, b] = label
    return F.nll_loss(log_probs.flatten(0, 1), torch.tensor(truth).flatten(), ignore_index=-100)


def train(kind: str, units: int, updates: int, seed: int) -> tuple[Recognizer, list[float]]:
    """A recognizer of one of the KINDS, and its losses."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    model = Recognizer(units, both_directions=kind != "CTC, looks back only")
    loss_of = framewise if kind == "told every frame" else ctc
    optimizer, losses = Adam(model.parameters(), lr=0.01), []
    for _ in progress(range(updates), kind):
        signals = some_signals(random, 16)
        loss = loss_of(model(signals.frames), signals)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.detach())
    return model, torch.stack(losses).tolist()


def edits(written: list[int], wanted: list[int]) -> int:
    """The fewest insertions, deletions and replacements from one sequence to the other."""
    row = list(range(len(wanted) + 1))
    for i, have in enumerate(written, start=1):
        before, row = row, [i]
        for j, want in enumerate(wanted, start=1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (have != want)))
    return row[-1]


class Score(NamedTuple):
    """How a recognizer does on signals that it has not seen.

    error, error_with_beam: edits per label of the truth, by best path and by prefix beam search.
    frames_per_label: how many frames say a label, for each label of the truth.
    delay: frames from the start of a phone to the first frame that says so, where all labels of a
        signal were found.
    """

    error: float
    error_with_beam: float
    frames_per_label: float
    delay: float


@torch.no_grad()
def score(model: Recognizer, signals: Signals) -> Score:
    """Error rates, peaks and delay."""
    log_probs = model(signals.frames).cpu()
    wrong, wrong_with_beam, speaking, delays = 0, 0, 0, []
    for b, (length, labels) in enumerate(zip(signals.lengths, signals.labels, strict=True)):
        own = log_probs[:length, b]
        said = own.numpy().argmax(-1)
        written = list(best_path(own, BLANK))
        wrong += edits(written, labels)
        (searched, _), *_ = prefix_beam_search(own, beam=8, blank=BLANK)
        wrong_with_beam += edits(list(searched), labels)
        speaking += int((said != BLANK).sum())
        if written == labels:
            first = [
                t for t in range(length) if said[t] not in (BLANK, said[t - 1] if t else BLANK)
            ]
            delays += [
                t - start for t, (_, start, _) in zip(first, signals.segments[b], strict=True)
            ]
    total = sum(map(len, signals.labels))
    delay = float(np.mean(delays)) if delays else float("nan")
    return Score(wrong / total, wrong_with_beam / total, speaking / total, delay)


def merged_repeats(signals: Signals) -> float:
    """The share of labels that follow the same label without a pause: nothing marks their start."""
    total = sum(map(len, signals.labels))
    pairs = (pair for places in signals.segments for pair in itertools.pairwise(places))
    return sum(one[0] == two[0] and one[2] == two[1] for one, two in pairs) / total


def alignments(target: str, frames: int) -> list[str]:
    """All ways in which so many frames can say a target, by trying every path; "_" is blank."""
    paths = itertools.product("_" + PHONES[:2], repeat=frames)
    return ["".join(path) for path in paths if _merged(path) == target]


def _merged(path: tuple[str, ...]) -> str:
    """Repeats merged, then blanks removed."""
    return "".join(label for label, _ in itertools.groupby(path)).replace("_", "")


@torch.no_grad()
def draw(models: dict[str, Recognizer], signals: Signals, b: int = 0) -> Any:
    """A signal with its phones, and what each recognizer says frame by frame."""
    length = signals.lengths[b]
    figure, axes = panels(rows=1 + len(models), width=10, height=1.7)
    axes[0].imshow(
        signals.frames[:length, b].numpy().T, aspect="auto", origin="lower", cmap="magma"
    )
    axes[0].set(
        ylabel="band", xticklabels=[], title="signal; the true phones are between the lines"
    )
    axes[0].grid(False)
    for label, start, end in signals.segments[b]:
        for axis in axes:
            axis.axvspan(
                start - 0.5,
                end - 0.5,
                color="white" if axis is axes[0] else "gray",
                alpha=0.12,
                linewidth=0,
            )
        axes[0].text(
            (start + end - 1) / 2, BANDS - 2, PHONES[label - 1], color="white", ha="center"
        )
        axes[0].axvline(start - 0.5, color="white", linewidth=0.8)
        axes[0].axvline(end - 0.5, color="white", linewidth=0.8)
    for axis, (kind, model) in zip(axes[1:], models.items(), strict=True):
        probabilities = np.exp(model(signals.frames).numpy()[:length, b])
        axis.plot(probabilities[:, BLANK], color="black", linestyle=":", linewidth=1, label="blank")
        for label, phone in enumerate(PHONES, start=1):
            axis.plot(probabilities[:, label], label=phone, linewidth=1.5)
        axis.set(xlim=(-0.5, length - 0.5), ylim=(0, 1.05), ylabel="probability")
        axis.set_title(kind, fontsize=10)
    axes[1].legend(frameon=False, ncols=6, fontsize=8, loc="upper right")
    axes[-1].set_xlabel("frame")
    return figure


@program
@click.option("--updates", default=400, show_default=True, type=click.IntRange(min=1))
@click.option("--units", default=32, show_default=True, type=click.IntRange(min=1))
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1))
def main(updates: int, units: int, seeds: int) -> Callable[[], Any]:
    """Train the three kinds, and compare."""
    signals = some_signals(np.random.default_rng(1234), 100)
    models: dict[str, Recognizer] = {}
    print(f"labels that repeat the last without a pause: {merged_repeats(signals):.1%}")
    print(f"{'':22s}label error  with beam  frames per label  delay in frames")
    for kind in KINDS:
        for seed in range(seeds):
            model, _ = train(kind, units, updates, seed)
            models.setdefault(kind, model)
            error, with_beam, peaks, delay = score(model, signals)
            print(f"{kind:22s}{error:11.1%} {with_beam:10.1%} {peaks:17.2f} {delay:16.2f}")
    return lambda: draw(models, signals)


if __name__ == "__main__":
    main()
