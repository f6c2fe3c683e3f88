"""Chapter 12: translating dates, and sentences; what attention adds to one vector.

    python examples/translation.py [--dates 1] [--seeds 1] [--updates 400] [--units 64]
    python examples/translation.py --pairs FILE [--updates 1000] [--units 128]

An encoder-decoder translates dates in many forms, one or several in a text, to ISO form: with the
source in one vector, and with additive and with dot-product attention. Or it translates sentences,
from a file of pairs. Read encoder_decoder.py (the model), dates.py and sentence_pairs.py (what is
translated) first. It takes half a minute for one date and one seed, and some minutes for a few
thousand sentences.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import click
import dates
import numpy as np
from dates import BETWEEN, ISO_PLACES, PARTS
from encoder_decoder import END, Translator, decode, loss_on, training, translate, vocabularies
from experiment import panels, program, progress, write_record
from sentence_pairs import Pair, chrf, hold_out, nearest, read_pairs

import tinygrad_rnn as torch
from tinygrad_rnn.decoding import beam_search

#: What is compared: arguments of a Translator.
KINDS: dict[str, dict[str, str]] = {
    "one vector": {},
    "read forwards": {"reading": "forwards"},
    "read backwards": {"reading": "backwards"},
    "additive attention": {"attention": "additive"},
    "dot attention": {"attention": "dot"},
}
SAMPLES = 10  # about so many translations are shown
MAIN = ("one vector", "additive attention", "dot attention")


# Dates.


class Learnt(NamedTuple):
    """What a Translator of some kind learnt about dates."""

    kind: str
    learning: list[tuple[int, float]]  # (updates, share of held-out dates that are right)
    by_dates: list[float]  # the same in the end, for texts of 1, 2, 3, ... dates


def share_right(model: Translator, pairs: list[Pair]) -> float:
    """The share of the dates that are translated without a mistake, each in its place."""
    right = count = 0
    sources, targets = zip(*pairs, strict=True)
    for target, found in zip(targets, translate(model, sources), strict=True):
        wanted = target.split(BETWEEN)
        said = model.target.decode(found.tokens).split(BETWEEN)
        right += sum(a == b for a, b in zip(said, wanted, strict=False))
        count += len(wanted)
    return right / count


def learn(
    kind: str, units: int, updates: int, most: int = 1, batch: int = 32
) -> tuple[Translator, Learnt]:
    """A Translator of texts of 1 to `most` dates, and how well it does on days that are held out.

    In the end it is also asked about texts of two dates more than in training.
    """
    model = Translator(*vocabularies(dates.some_pairs(1000, 2)), units, **KINDS[kind])
    batches = (dates.some_pairs(batch, 1 + update % most) for update in range(updates))
    often, learning = max(1, updates // 10), []
    for update, _ in enumerate(training(model, batches, updates), start=1):
        if update % often == 0:
            asked = dates.some_pairs(200 // most, most, held_out=True)
            learning.append((update, share_right(model, asked)))
    counts = range(1, most + 3)
    asked = [dates.some_pairs(400 // count, count, held_out=True) for count in counts]
    return model, Learnt(kind, learning, [share_right(model, pairs) for pairs in asked])


@torch.no_grad()
def looks(model: Translator, source: str) -> tuple[str, np.ndarray]:
    """The translation of a text, and where the decoder looked: (characters written, source's)."""
    (found,) = translate(model, [source])
    text = model.target.decode(found.tokens)
    before = torch.tensor(model.target.encode(END + text[:-1]))
    _, weights = model([source], before.unsqueeze(1))
    return text, weights[:, 0, : len(source)].numpy()


@torch.no_grad()
def looks_by_part(model: Translator, count: int = 200) -> np.ndarray:
    """How much of the attention lies on which part of the source: (3, 4) shares.

    Row by row: while the year, the month, the day are written. The columns are PARTS.
    """
    chosen = dates.some_dates(count, held_out=True)
    written = dates.write_some(chosen)
    iso = [torch.tensor(model.target.encode(END + date.isoformat())[:-1]) for date in chosen]
    _, weights = model([text for text, _ in written], torch.stack(iso, 1))
    weights = weights.numpy()  # (T, B, S)
    shares = np.zeros((3, 4))
    for b, (_, parts) in enumerate(written):
        here = np.array(parts) == np.array(PARTS)[:, None]  # (4, S)
        by_step = weights[:, b, : len(parts)] @ here.T  # (T, 4)
        for row, place in enumerate(ISO_PLACES.values()):
            shares[row] += by_step[place].mean(0) / count
    return shares


@torch.no_grad()
def right_without(model: Translator, hidden: str, count: int = 200) -> list[float]:
    """Shares of dates whose year, month, day are right if the decoder may not look at a part."""
    chosen = dates.some_dates(count, held_out=True)
    written = dates.write_some(chosen)
    s, memory = model.read([text for text, _ in written])
    shown = np.zeros(memory.mask.shape, bool)  # (B, S)
    for row, (_, parts) in enumerate(written):
        shown[row, : len(parts)] = np.array(parts) != hidden
    found = decode(model, s, memory._replace(mask=torch.tensor(shown)), longest=20)
    texts = [model.target.decode(each.tokens) for each in found]
    return [
        float(
            np.mean([a[place] == b.isoformat()[place] for a, b in zip(texts, chosen, strict=True)])
        )
        for place in ISO_PLACES.values()
    ]


class Beam(NamedTuple):
    """How good translations by a beam search of some width are, and how probable."""

    beam: int
    right: float  # share of texts with a translation that is right
    chrf: float  # mean over texts, of the best against the translations that are right
    length: float  # characters, mean
    log_prob: float  # nats, mean
    better: float  # share of texts whose translation is more probable than the one of greedy search
    worse: float  # less probable


def beams(model: Translator, wanted: dict[str, list[str]], widths: Iterable[int]) -> list[Beam]:
    """Translations by beam search, held against those that count as right."""
    sources = list(wanted)
    first = np.array([each.log_prob for each in translate(model, sources)])
    rows = []
    for width in widths:
        best = [several[0] for several in translate(model, sources, beam_search, beam=width)]
        texts = [model.target.decode(each.tokens) for each in best]
        log_probs = np.array([each.log_prob for each in best])
        pairs = [(text, wanted[source]) for source, text in zip(sources, texts, strict=True)]
        quality = [max(chrf(text, truth) for truth in truths) for text, truths in pairs]
        rows.append(
            Beam(
                width,
                right=float(np.mean([text in truths for text, truths in pairs])),
                chrf=float(np.mean(quality)),
                length=float(np.mean([len(text) for text in texts])),
                log_prob=float(log_probs.mean()),
                better=float(np.mean(log_probs > first + 1e-4)),
                worse=float(np.mean(log_probs < first - 1e-4)),
            )
        )
    return rows


# Sentences.


class Sentences(NamedTuple):
    """What a Translator of some kind learnt from a file of sentence pairs."""

    kind: str
    losses: list[tuple[int, float, float]]  # (updates, training, held out), nats per character
    beams: list[Beam]  # on the sentences held out, the first of them greedy
    samples: list[tuple[str, str, str]]  # (sentence, what greedy search says, a translation)


def learn_sentences(
    kind: str,
    pairs: list[Pair],
    held_out: dict[str, list[str]],
    units: int,
    updates: int,
    batch: int = 64,
) -> Sentences:
    """Train on the pairs; see how the held-out sentences are translated."""
    unseen = [(source, target) for source, several in held_out.items() for target in several]
    model = Translator(*vocabularies(pairs), units, **KINDS[kind])
    batches = (
        [pairs[k] for k in torch.randint(0, len(pairs), (batch,)).tolist()] for _ in range(updates)
    )
    often, recent, losses = max(1, updates // 10), [], []
    for update, loss in enumerate(training(model, batches, updates), start=1):
        recent.append(loss)
        if update % often == 0:
            with torch.no_grad():
                learnt, held = np.mean(torch.stack(recent).tolist()), loss_on(model, unseen)
                losses.append((update, float(learnt), held.item()))
            recent.clear()
    asked = list(held_out)[:: -(-len(held_out) // SAMPLES)]
    said = [model.target.decode(found.tokens) for found in translate(model, asked)]
    samples = [
        (source, text, held_out[source][0]) for source, text in zip(asked, said, strict=True)
    ]
    return Sentences(kind, losses, beams(model, held_out, (1, 4, 16)), samples)


def from_memory(pairs: list[Pair], held_out: dict[str, list[str]]) -> float:
    """The mean chrF of saying the translation of the nearest known sentence."""
    quality = [
        max(chrf(nearest(pairs, source), truth) for truth in truths)
        for source, truths in progress(held_out.items(), "nearest sentences")
    ]
    return float(np.mean(quality))


# Figures.

STYLES = {
    "one vector": {"color": "dimgray"},
    "read forwards": {"color": "dimgray", "linestyle": "--"},
    "read backwards": {"color": "dimgray", "linestyle": ":"},
    "additive attention": {"color": "tab:blue"},
    "dot attention": {"color": "tab:orange"},
}


def draw_learning(found: list[Learnt], axes: Any) -> None:
    """The share of right dates over training, a line for each run."""
    for each in found:
        updates, shares = zip(*each.learning, strict=True)
        axes.plot(updates, shares, **STYLES[each.kind], label=each.kind)
    axes.set(xlabel="updates", ylabel="share of unseen dates right", ylim=(-0.03, 1.03))
    _legend(axes)


def draw_lengths(found: list[Learnt], axes: Any) -> None:
    """The share of right dates by the number of dates in a text, a line for each run."""
    for each in found:
        counts = range(1, len(each.by_dates) + 1)
        axes.plot(counts, each.by_dates, **STYLES[each.kind], marker="o", label=each.kind)
    axes.axvspan(0.8, counts[-1] - 1.8, color="tab:green", alpha=0.12, label="in training")
    axes.set(xlabel="dates in the text", ylabel="share of unseen dates right", ylim=(-0.03, 1.03))
    axes.set_xticks(counts)
    _legend(axes)


def _legend(axes: Any) -> None:
    """Each label once."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    axes.legend(once.values(), once.keys(), frameon=False, fontsize="small")


def draw_look(model: Translator, source: str, axes: Any) -> Any:
    """Where the decoder looked, for every character that it wrote. The picture, for a scale."""
    written, weights = looks(model, source)
    picture = axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    characters = [{" ": "␣"}.get(character, character) for character in source]
    axes.set_xticks(range(len(source)), characters, family="DejaVu Sans Mono", fontsize=9)
    axes.set_yticks(range(len(written)), list(written), family="DejaVu Sans Mono", fontsize=9)
    axes.set(xlabel="read", ylabel="written")
    axes.tick_params(length=0)
    axes.grid(False)
    return picture


def draw_looks(models: dict[str, Translator], sources: list[str]) -> Any:
    """Where each model looked while it translated each source."""
    figure, axes = panels(len(models), len(sources), width=10, height=3.2)
    for row, (kind, model) in zip(np.reshape(axes, (len(models), -1)), models.items(), strict=True):
        for ax, source in zip(row, sources, strict=True):
            picture = draw_look(model, source, ax)
            ax.set_title(kind, fontsize=10, loc="left")
    figure.colorbar(picture, ax=figure.axes, aspect=40, pad=0.01, label="weight")
    return figure


def draw(found: list[Learnt], models: dict[str, Translator]) -> Any:
    """How fast each kind learnt, what becomes of it in longer texts, and where it looked."""
    figure, (above, below) = panels(rows=2, columns=2, width=9)
    draw_learning(found, above[0])
    draw_lengths(found, above[1])
    for ax, kind in zip(below, ("additive attention", "dot attention"), strict=True):
        if kind in models:
            draw_look(models[kind], "Tuesday, 3 March 1998", ax)
            ax.set_title(kind, fontsize=10, loc="left")
        else:
            ax.set_axis_off()
    return figure


def draw_sentences(found: list[Sentences], nearest_chrf: float) -> Any:
    """Losses over training, and the quality of held-out translations by the width of the beam."""
    figure, (left, right) = panels(columns=2, width=9, height=3.4)
    for each in found:
        updates, training, held_out = zip(*each.losses, strict=True)
        style = STYLES[each.kind]
        left.plot(updates, training, **style, label=each.kind)
        left.plot(updates, held_out, **{**style, "linestyle": "--"})
        widths, quality = zip(*((row.beam, row.chrf) for row in each.beams), strict=True)
        right.plot(range(len(widths)), quality, **style, marker="o", label=each.kind)
    left.plot([], [], "--", color="black", label="the same, held out")
    left.set(xlabel="updates", ylabel="loss, nats per character")
    left.set_ylim(bottom=0)
    right.axhline(nearest_chrf, color="black", linestyle=":", label="nearest known sentence")
    right.set_xticks(range(len(widths)), widths)
    right.set(xlabel="beam (1: greedy)", ylabel="chrF of held-out sentences")
    right.set_ylim(0, 1.6 * max(nearest_chrf, *right.get_ylim()))
    for axes in (left, right):
        axes.legend(frameon=False, fontsize="small")
    return figure


# The command.


def translate_dates(
    kinds: Iterable[str], most: int, seeds: int, units: int, updates: int
) -> tuple[list[Learnt], dict[str, Translator]]:
    """Train every kind with every seed, print what they learnt; and the last model of each kind."""
    found, models = [], {}
    counts = "  ".join(f"{count:4}" for count in range(1, most + 3))
    print(f"share of unseen dates right, in texts of    {counts} dates")
    for kind in kinds:
        for number in range(1, seeds + 1):  # one generator goes on from run to run
            models[kind], learnt = learn(kind, units, updates, most)
            found.append(learnt)
            shares = "  ".join(f"{share:4.0%}" for share in learnt.by_dates)
            print(f"{kind:18}, run {number}, {updates:5} updates       {shares}", flush=True)
    return found, models


def translate_sentences(
    path: Path, kinds: Iterable[str], units: int, updates: int
) -> tuple[list[Sentences], float]:
    """Train on a file of pairs, print how its held-out sentences are translated."""
    pairs, held_out = hold_out(read_pairs(path))
    print(f"{len(pairs)} pairs to learn from, {len(held_out)} sentences held out")
    known = from_memory(pairs, held_out)
    print(f"nearest known sentence                            chrF {known:.3f}")
    found = []
    for kind in kinds:
        found.append(learn_sentences(kind, pairs, held_out, units, updates))
        _, training, unseen = found[-1].losses[-1]
        print(f"{kind}: loss {training:.3f}, held out {unseen:.3f} nats per character")
        for row in found[-1].beams:
            print(
                f"  beam {row.beam:2}: right {row.right:5.1%}, chrF {row.chrf:.3f}, "
                f"{row.length:.1f} characters, log P {row.log_prob:.2f}",
                flush=True,
            )
    for source, text, truth in found[-1].samples:
        print(f"{source} -> {text} ({truth})")
    return found, known


@program
@click.option("--dates", "most", type=click.IntRange(min=1), help="Of a text in training, at most.")
@click.option("--pairs", type=click.Path(path_type=Path), help="Sentences, in place of dates.")
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--units", type=click.IntRange(min=2), help="[default: 64; of sentences 128]")
@click.option("--updates", type=click.IntRange(min=1), help="[default: 400; of sentences 1000]")
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Only of this kind."
)
@click.option("--write", "keep", is_flag=True, help="Keep what was found in docs/results/.")
def main(
    most: int | None,
    pairs: Path | None,
    seeds: int,
    units: int | None,
    updates: int | None,
    kinds: tuple[str, ...],
    keep: bool,
) -> Callable[[], Any]:
    """Learn to translate dates, or the sentences of a file."""
    if units is not None and units % 2:
        raise click.BadParameter(
            f"--units {units}: half of them read backwards; give an even number"
        )
    command, kinds = shlex.join(["python", *sys.argv]), kinds or MAIN
    if pairs is not None:
        if most is not None:
            raise click.BadParameter("--dates and --pairs: give one or the other")
        sentences, known = translate_sentences(pairs, kinds, units or 128, updates or 1000)
        if keep:
            results = {"found": [each._asdict() for each in sentences], "nearest": known}
            print(write_record(f"translation_{pairs.stem}", command, results))
        return lambda: draw_sentences(sentences, known)

    most, units, updates = most or 1, units or 64, updates or 400
    found, models = translate_dates(kinds, most, seeds, units, updates)
    if keep:
        name = f"translation_{most}_dates_{units}_units_{updates}_updates"
        print(write_record(name, command, [each._asdict() for each in found]))
    return lambda: draw(found, models)


if __name__ == "__main__":
    main()
