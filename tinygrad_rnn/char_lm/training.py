"""How is a character model trained, and how does a stopped training go on as if it had not stopped?

By truncated backpropagation through time: the text runs past in contiguous lanes, and the state is
carried from window to window, detached. A `Training` is all that a run depends on; with equal
settings and an equal text two runs are equal, bit for bit, however often they were stopped. What is
shown, and which files are written, is the business of `cli/train.py`. Read `model.py` and
`utils/data/bptt.py` before this file.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn import backend, random
from tinygrad_rnn.char_lm.baselines import Baselines, baselines
from tinygrad_rnn.char_lm.model import CharLM
from tinygrad_rnn.char_lm.text import TextError, Vocabulary
from tinygrad_rnn.io import FileFormatError, load, load_checkpoint, save_checkpoint
from tinygrad_rnn.modes import no_grad
from tinygrad_rnn.nn.functional import cross_entropy
from tinygrad_rnn.nn.utils import clip_grad_norm_
from tinygrad_rnn.optim import Adam
from tinygrad_rnn.optim.lr_scheduler import LambdaLR
from tinygrad_rnn.scan import trees
from tinygrad_rnn.tensor import Tensor
from tinygrad_rnn.utils.data import BPTTBatcher

REPORT_EVERY = 10  # steps
LONGEST_VALIDATION_GAP = 500  # steps
HELD_OUT = 1 / 20  # of the text, its end
LARGEST_HELD_OUT = 100_000  # characters
SHORTEST_VALIDATION_LANE = 500  # characters
MOST_VALIDATION_LANES = 64
WARM_UP = 1 / 20  # of all steps


class TrainingError(RuntimeError):
    """A training cannot go on; the message says why and what to try, in one line."""


@dataclass(frozen=True)
class Settings:
    """What a run is. text: path of a UTF-8 file, or None for the source of the standard library."""

    text: str | None = None
    cell: str = "lstm"
    layers: int = 1
    hidden: int = 256
    embed: int = 64
    dropout: float = 0.0
    batch: int = 32
    seq: int = 64
    steps: int = 2000
    lr: float = 6e-3
    clip: float = 1.0
    seed: int = 0

    @property
    def validate_every(self) -> int:
        """Steps from one validation to the next."""
        return max(1, min(self.steps // 10, LONGEST_VALIDATION_GAP))

    def rate_factor(self, step: int) -> float:
        """The learning rate in units of `lr`: up in a line, then down along a cosine to 0."""
        rising = max(1, round(WARM_UP * self.steps))
        if step < rising:
            return (step + 1) / rising
        passed = min(1.0, (step - rising) / max(1, self.steps - rising))
        return (1 + math.cos(math.pi * passed)) / 2


class Row(NamedTuple):
    """A line of the log: means over the steps since the line before; losses in nats/character."""

    step: int
    characters: int  # trained on so far
    training_loss: float
    validation_loss: float | None
    gradient_norm: float  # before clipping
    learning_rate: float  # of the last step


class Training:
    """A character model on its way through a text.

    Attributes: `model`, `vocabulary`, `baselines`; `step`, the steps taken; `rows`, the log so far.
    device: where it trains; the default device unless given.
    Raises TextError for a text too short for one window, RuntimeError for a device that is missing.
    """

    def __init__(
        self, settings: Settings, text: str, device: str | backend.device | None = None
    ) -> None:
        self.settings = settings
        self.device = _device(device)
        backend.library(self.device)
        held_out = max(1, min(int(HELD_OUT * len(text)), LARGEST_HELD_OUT))
        training_text = text[: len(text) - held_out]
        _check_length(len(training_text), settings)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()
        self.vocabulary = Vocabulary.of(training_text)

        tokens = self.vocabulary.encode(text)
        tokens, rest = tokens[: len(training_text)], tokens[len(training_text) - 1 :]
        self.batcher = self._lanes(tokens, settings.batch, drop_last=True)
        lanes = min(max(1, held_out // SHORTEST_VALIDATION_LANE), MOST_VALIDATION_LANES)
        self.held_out = self._lanes(rest, lanes, drop_last=False)
        used = held_out // lanes * lanes  # the characters that validation scores
        self.baselines: Baselines = baselines(
            tokens, rest[:used], rest[1 : used + 1], len(self.vocabulary)
        )

        random.manual_seed(settings.seed)
        self.model = CharLM(
            len(self.vocabulary),
            settings.cell,
            settings.layers,
            settings.hidden,
            settings.embed,
            settings.dropout,
        ).to(self.device)
        self.optimizer = Adam(self.model.parameters(), lr=settings.lr)
        self.schedule = LambdaLR(self.optimizer, settings.rate_factor)
        self.step = 0
        self.rows: list[Row] = []
        self._state: Any = None  # of the recurrent layer, after the last window
        self._unreported: list[tuple[Any, Any]] = []  # (loss, gradient norm) since the last row
        self._windows = self._endless()

    def _lanes(self, tokens: Any, lanes: int, drop_last: bool) -> BPTTBatcher:
        stream = Tensor(tokens, device=self.device)
        return BPTTBatcher(stream, lanes, self.settings.seq, drop_last)

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from self.batcher

    @property
    def finished(self) -> bool:
        """Whether all steps have been taken."""
        return self.step >= self.settings.steps

    def advance(self) -> Row | None:
        """Take one step; every so often validate, and give a row for the log.

        Raises TrainingError when a row would report a loss or gradient that is not a finite number.
        """
        rate = self.schedule.get_last_lr()[0]
        loss, norm = self._train_on_next_window()
        self.step += 1
        self._unreported.append((loss, norm))
        validates = self.step % self.settings.validate_every == 0 or self.finished
        if self.step % REPORT_EVERY and not validates:
            return None
        row = Row(
            self.step,
            self.step * self.settings.batch * self.settings.seq,
            _mean(loss for loss, _ in self._unreported),
            self.validation_loss() if validates else None,
            _mean(norm for _, norm in self._unreported),
            rate,
        )
        self._check_finite(row.training_loss, row.gradient_norm, row.validation_loss or 0.0)
        self._unreported.clear()
        self.rows.append(row)
        return row

    def _train_on_next_window(self) -> tuple[Tensor, Tensor]:
        """One update of the weights: (loss, norm of the gradient), still on the device."""
        inputs, targets = next(self._windows)  # (T, B) each
        if self.batcher.starts_epoch:
            self._state = None
        logits, state = self.model(inputs, self._state)  # (T, B, V)
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        norm = clip_grad_norm_(self.model.parameters(), self.settings.clip or math.inf)
        self.optimizer.step()
        self.schedule.step()
        self._state = trees.rebuild(state, [h.detach() for h in trees.leaves(state)])
        return loss.detach(), norm

    @no_grad()
    def validation_loss(self) -> float:
        """The mean loss on the held-out text, in nats per character, from zero states."""
        self.model.eval()
        losses, count, state = [], 0, None
        for inputs, targets in self.held_out:
            logits, state = self.model(inputs, state)
            logits, targets = logits.flatten(0, 1), targets.flatten()
            losses.append(cross_entropy(logits, targets, reduction="sum"))
            count += targets.numel()
        self.model.train()
        return sum(loss.item() for loss in losses) / count  # a GPU is waited for once, here

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint, which replaces the one at `path` in one step or not at all.

        Raises TrainingError, and leaves the old one, if a weight is not a finite number.
        """
        finite = all(bool(p.detach().isfinite().all()) for p in self.model.parameters())
        self._check_finite(0.0 if finite else math.nan)
        run = {
            "settings": asdict(self.settings),
            "symbols": self.vocabulary.symbols,
            "fingerprint": self.fingerprint,
            "step": self.step,
            "rows": np.array(
                [[math.nan if x is None else x for x in row] for row in self.rows], np.float64
            ).reshape(-1, len(Row._fields)),
            "state": self._state,
            "unreported": [(float(loss), float(norm)) for loss, norm in self._unreported],
        }
        save_checkpoint(
            path,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.schedule,
            loader=self.batcher,
            extra={"char_lm": run},
        )

    def load(self, path: str | os.PathLike[str]) -> None:
        """Continue where the checkpoint was written. TrainingError if the text is another one."""
        if read_run(path)["fingerprint"] != self.fingerprint:
            name = self.settings.text or "the source of the standard library"
            raise TrainingError(f"{name} has changed since the run in {path} began")
        run = load_checkpoint(
            path,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.schedule,
            loader=self.batcher,
        )["char_lm"]
        self.step = run["step"]
        self.rows = [_row(values) for values in run["rows"].tolist()]
        self._unreported = run["unreported"]
        state = run["state"]
        if state is not None:
            state = trees.rebuild(state, [h.to(self.device) for h in trees.leaves(state)])
        self._state = state

    def _check_finite(self, *values: float) -> None:
        for value in values:
            if not math.isfinite(value):
                raise TrainingError(
                    f"step {self.step}: the loss is {value}, so training has diverged; "
                    f"try a smaller --lr (it was {self.settings.lr:g})"
                )


def read_run(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a checkpoint says about its run: settings, symbols, fingerprint, step and more.

    Raises FileNotFoundError, and FileFormatError for a file that is no checkpoint of `Training`.
    """
    checkpoint = load(path)
    extra = checkpoint.get("extra") if isinstance(checkpoint, dict) else None
    run = extra.get("char_lm") if isinstance(extra, dict) else None
    names = {field.name for field in fields(Settings)}
    if not isinstance(run, dict) or set(run.get("settings", ())) != names:
        raise FileFormatError(f"{path} is not a checkpoint of tinygrad-rnn train")
    return {**run, "settings": Settings(**run["settings"])}


def load_model(
    path: str | os.PathLike[str], device: str | backend.device | None = None
) -> tuple[CharLM, Vocabulary]:
    """A trained model in evaluation mode, and its vocabulary. Raises as `read_run` does.

    device: where to put it; the default device unless given.
    """
    run = read_run(path)
    vocabulary, settings = Vocabulary(run["symbols"]), run["settings"]
    model = CharLM(
        len(vocabulary), settings.cell, settings.layers, settings.hidden, settings.embed
    ).to(_device(device))
    load_checkpoint(path, model=model, rng=False)
    model.eval()
    return model, vocabulary


def _device(device: str | backend.device | None) -> backend.device:
    return backend.get_default_device() if device is None else backend.device(device)


def _row(values: list[float]) -> Row:
    step, characters, training, validation, norm, rate = values
    known = None if math.isnan(validation) else validation
    return Row(int(step), int(characters), training, known, norm, rate)


def _mean(values: Iterable[Any]) -> float:
    found = [float(value) for value in values]
    return math.fsum(found) / len(found)


def _check_length(size: int, settings: Settings) -> None:
    """Raise TextError if the training text has no window for every lane."""
    batch, seq = settings.batch, settings.seq
    needed = batch * seq + 1
    if size >= needed:
        return
    advice = "use a longer text"
    if size > seq:
        advice += f" or, for example, --batch {(size - 1) // seq} --seq {seq}"
    elif size > 1:
        advice += f" or, for example, --batch 1 --seq {size - 1}"
    raise TextError(
        f"the text is too short: {size} characters to train on, but --batch {batch} sequences of "
        f"--seq {seq} need {needed}; {advice}"
    )
