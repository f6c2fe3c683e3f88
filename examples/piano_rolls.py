"""Music as piano rolls: what chapter 15 reads, how its losses count, and what counting alone knows.

A piece is a table of 0 and 1: a row for every step of time, a column for each of the 88 keys of a
piano. Here are the data sets, batches whose padding does not count, and the floor: a model of each
key by itself, which a network has to beat before it has learnt any music. The networks are in
polyphonic_music.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

import tinygrad_rnn as torch
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.io import FileFormatError
from tinygrad_rnn.nn.utils.rnn import pad_sequence

KEYS = 88  # of a piano, from A0 to C8; middle C is key 39
PARTS = ("train", "valid", "test")


class Music(NamedTuple):
    """Pieces to learn from, to stop by, and to be scored on: arrays (T, KEYS) of 0 and 1."""

    name: str
    train: list[np.ndarray]
    valid: list[np.ndarray]
    test: list[np.ndarray]


def read_music(path: Path) -> Music:
    """The pieces of an .npz file: for each part, PART_roll (steps, KEYS) and PART_len (pieces,).

    All pieces of a part stand one below the other in its roll; PART_len says how long each is.
    """
    wanted = [f"{part}_{kind}" for part in PARTS for kind in ("roll", "len")]
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[name] for name in wanted]
    except (KeyError, ValueError) as error:
        names = ", ".join(wanted)
        raise FileFormatError(f"{path}: {error}; music is an .npz file with {names}") from None
    pieces = []
    for part, roll, lengths in zip(PARTS, arrays[::2], arrays[1::2], strict=True):
        if roll.shape != (lengths.sum(), KEYS) or not np.isin(roll, (0, 1)).all():
            raise FileFormatError(
                f"{path}: {part}_roll is {roll.shape}; expected {(int(lengths.sum()), KEYS)}, as "
                f"many steps as {part}_len sums up to, and only 0 and 1 in it"
            )
        if len(lengths) == 0 or lengths.min() < 2:
            raise FileFormatError(f"{path}: {part} needs pieces, each of at least 2 steps")
        pieces.append(np.split(roll, np.cumsum(lengths)[:-1]))
    return Music(path.stem, *pieces)


def cut(pieces: list[np.ndarray], longest: int) -> list[np.ndarray]:
    """The pieces; those of more than `longest` steps in as few equal parts as it takes."""
    return [
        part for piece in pieces for part in np.array_split(piece, math.ceil(len(piece) / longest))
    ]


CHORDS = {"I": (0, 4, 7), "IV": (5, 9, 0), "V": (7, 11, 2), "vi": (9, 0, 4)}  # above the tonic
FOLLOWERS = {"I": ("IV", "V", "vi"), "IV": ("I", "V"), "V": ("I", "vi"), "vi": ("IV", "V")}
BEATS = 4  # steps that a chord lasts


def chorales(pieces: int = 64) -> Music:
    """Four voices in slow chords, by chance, but the same at every call: `pieces` to learn from.

    A chord lasts four steps, then comes one that may follow it, in one of three keys. To know when,
    one has to count; to know what, one has to know the chord and the key. So there is something to
    learn beyond what each key of the piano does by itself.
    """
    rng = np.random.default_rng(0)
    sizes = (pieces, max(1, pieces // 4), max(1, pieces // 2))
    return Music("generated", *([_chorale(rng) for _ in range(size)] for size in sizes))


def _chorale(rng: np.random.Generator) -> np.ndarray:
    """One piece (T, KEYS). Its first chord is cut short, so that the beat has to be heard."""
    tonic, chord = rng.choice((3, 8, 10)), "I"
    home = np.array([22, 31, 38, 44])  # of bass, tenor, alto and soprano
    steps = []
    for _ in range(rng.integers(6, 13)):
        tones = np.array([key for key in range(KEYS) if (key - tonic) % 12 in CHORDS[chord]])
        wanted = home + rng.integers(-3, 4, size=4)
        step = np.zeros(KEYS, np.uint8)
        step[tones[np.abs(np.subtract.outer(wanted, tones)).argmin(1)]] = 1  # the nearest tones
        steps += [step] * BEATS
        chord = rng.choice(FOLLOWERS[chord])
    return np.array(steps[rng.integers(BEATS) :])


class Batch(NamedTuple):
    """Pieces side by side: what is heard at each step, and what is played at the next.

    The first step of a piece is given, and no model has to guess it.
    """

    heard: torch.Tensor  # (T, B, KEYS), 0 after the end of a piece
    played: torch.Tensor  # (T, B, KEYS)
    lengths: torch.Tensor  # (B,): the steps of each piece that are to be guessed
    real: torch.Tensor  # (T, B): 1 where there is such a step, 0 after the end


def batch(pieces: list[np.ndarray]) -> Batch:
    """Some pieces, the short ones filled up with silence."""
    keys = pad_sequence([torch.tensor(piece).float() for piece in pieces])
    lengths = torch.tensor([len(piece) - 1 for piece in pieces])
    real = torch.arange(len(keys) - 1).unsqueeze(-1) < lengths
    return Batch(keys[:-1], keys[1:], lengths, real.float())


def batches(pieces: list[np.ndarray], size: int) -> list[Batch]:
    """All pieces, `size` at a time, those of like length together."""
    ordered = sorted(pieces, key=len)
    return [batch(ordered[start : start + size]) for start in range(0, len(ordered), size)]


def nats(logits: torch.Tensor, of: Batch) -> torch.Tensor:
    """-log p of what is played at each step, summed over the keys: (T, B), 0 after the end."""
    by_key = F.binary_cross_entropy_with_logits(logits, of.played, reduction="none")
    return by_key.sum(-1) * of.real


class Loss(NamedTuple):
    """Nats per time step: the mean over all steps, and the mean over pieces of each one's mean."""

    steps: float
    pieces: float


#: What was heard, (T, B, KEYS), to logits of what comes next.
Model = Callable[[torch.Tensor], torch.Tensor]


@torch.no_grad()
def loss_on(model: Model, pieces: list[Batch]) -> Loss:
    """How badly a model guesses."""
    total = np.concatenate([nats(model(each.heard), each).sum(0).numpy() for each in pieces])
    length = np.concatenate([each.lengths.numpy() for each in pieces])
    return Loss(float(total.sum() / length.sum()), float((total / length).mean()))


class EachKeyByItself:
    """p(a key sounds), given whether it sounded a step ago: a Markov chain for every key.

    Counted in pieces, with half a step added to each count. Without `past` it looks at nothing.
    """

    def __init__(self, pieces: list[np.ndarray], past: bool = True) -> None:
        before = np.concatenate([piece[:-1] for piece in pieces]).astype(float) * past
        now = np.concatenate([piece[1:] for piece in pieces]).astype(float)
        self.past = past
        self.after_silence = _log_odds(now, 1 - before)
        self.after_sound = _log_odds(now, before)

    def __call__(self, heard: torch.Tensor) -> torch.Tensor:
        """(T, B, KEYS) of what was heard -> logits of what comes next."""
        return torch.where(heard * self.past > 0, self.after_sound, self.after_silence)


def _log_odds(now: np.ndarray, counted: np.ndarray) -> torch.Tensor:
    """log(p / (1 - p)) that each key sounds, (KEYS,), from the steps where `counted` is 1."""
    on, off = (now * counted).sum(0), ((1 - now) * counted).sum(0)
    return torch.tensor(np.log(on + 0.5) - np.log(off + 0.5)).float()
