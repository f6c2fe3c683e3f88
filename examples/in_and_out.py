"""Chapter 2: what goes in and what comes out, one or many, and when.

    python examples/in_and_out.py [--layer GRU] [--units 64] [--updates 300]

Five small models deal with the numbers from 0 to 99 and their names. They tell how long a name is
(one to one), write it (one to many), read it (many to one), say after every letter whether a name
has ended (many to many, aligned), and translate it from English to German (many to many, reading
first). Twenty numbers are kept out of training. It takes half a minute.
"""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import click
from experiment import panels, program, progress

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.optim import AdamW
from tinygrad_rnn.optim.lr_scheduler import CosineAnnealingLR

LETTERS = ".-abcdefghijklmnopqrstuvwxyzßöü"  # the dot is no letter: a name has ended, or not begun
LONGEST = 17  # sixteen letters, of "siebenundsiebzig", and a dot

WORDS = """
zero null, one eins, two zwei, three drei, four vier, five fünf, six sechs, seven sieben,
eight acht, nine neun, ten zehn, eleven elf, twelve zwölf, thirteen dreizehn, fourteen vierzehn,
fifteen fünfzehn, sixteen sechzehn, seventeen siebzehn, eighteen achtzehn, nineteen neunzehn,
twenty zwanzig, thirty dreißig, forty vierzig, fifty fünfzig, sixty sechzig, seventy siebzig,
eighty achtzig, ninety neunzig"""
ENGLISH, GERMAN = zip(*(pair.split() for pair in WORDS.split(",")), strict=True)


def english(number: int) -> str:
    """42 is forty-two: tens, then units."""
    tens, units = divmod(number, 10)
    if number < 20:
        return ENGLISH[number]
    return ENGLISH[18 + tens] + (f"-{ENGLISH[units]}" if units else "")


def german(number: int) -> str:
    """42 is zweiundvierzig, two and forty: units, then tens."""
    tens, units = divmod(number, 10)
    if number < 20:
        return GERMAN[number]
    return (f"{GERMAN[units].replace('eins', 'ein')}und" if units else "") + GERMAN[18 + tens]


class Reader(nn.Module):
    """Letters in: the state after each of them, and the last state."""

    def __init__(self, layer: str, units: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS), units)
        self.recurrent = getattr(nn, layer)(units, units)

    def forward(self, letters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(T, B) letters -> (T, B, units), (1, B, units)."""
        return self.recurrent(self.embedding(letters))


class Writer(nn.Module):
    """A state in, letters out. Each step reads the letter before."""

    def __init__(self, layer: str, units: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS), units)
        self.recurrent = getattr(nn, layer)(units, units)
        self.output = nn.Linear(units, len(LETTERS))

    def forward(self, state: torch.Tensor, name: torch.Tensor | None = None) -> torch.Tensor:
        """(1, B, units) -> (T, B, letters) scores. Reads the name, or its own letters."""
        letter = torch.zeros(1, state.shape[1], dtype=torch.int64)  # a dot
        if name is not None:  # all letters but the last are known: one call for all steps
            hs, _ = self.recurrent(self.embedding(torch.cat([letter, name[:-1]])), state)
            return self.output(hs)
        scores = []
        for _ in range(LONGEST):
            h, state = self.recurrent(self.embedding(letter), state)
            scores.append(self.output(h))
            letter = scores[-1].argmax(-1)
        return torch.cat(scores)


class OneToOne(nn.Module):
    """No recurrence: digits (B, 20) -> scores (B, LONGEST) for the length of the name."""

    def __init__(self, layer: str, units: int) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(20, units), nn.Linear(units, LONGEST)

    def forward(self, digits: torch.Tensor) -> torch.Tensor:
        return self.output(self.hidden(digits).tanh())


class OneToMany(nn.Module):
    """Digits (B, 20) -> scores (T, B, letters) for the letters of the name."""

    def __init__(self, layer: str, units: int) -> None:
        super().__init__()
        self.start, self.writer = nn.Linear(20, units), Writer(layer, units)

    def forward(self, digits: torch.Tensor, name: torch.Tensor | None = None) -> torch.Tensor:
        return self.writer(self.start(digits).unsqueeze(0), name)


class ManyToOne(nn.Module):
    """A name (T, B) -> scores (2, B, 10) for its two digits, after the last letter."""

    def __init__(self, layer: str, units: int) -> None:
        super().__init__()
        self.reader, self.output = Reader(layer, units), nn.Linear(units, 20)

    def forward(self, name: torch.Tensor) -> torch.Tensor:
        _, state = self.reader(name)
        return self.output(state[0]).unflatten(-1, (2, 10)).transpose(0, 1)


class Aligned(nn.Module):
    """Letters (T, B) -> scores (T, B, classes), an answer after each of them."""

    def __init__(self, layer: str, units: int, classes: int = 2) -> None:
        super().__init__()
        self.reader, self.output = Reader(layer, units), nn.Linear(units, classes)

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        hs, _ = self.reader(letters)
        return self.output(hs)


class EncoderDecoder(nn.Module):
    """A name (T, B) -> scores (T, B, letters) for another, once all of the first is read."""

    def __init__(self, layer: str, units: int) -> None:
        super().__init__()
        self.reader, self.writer = Reader(layer, units), Writer(layer, units)

    def forward(self, name: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        _, state = self.reader(name)
        return self.writer(state, other)


class Task(NamedTuple):
    """What a model reads and what it should answer, for several numbers; they lie along B."""

    inputs: tuple[torch.Tensor, ...]  # the second, if any, is the name that a Writer reads
    targets: torch.Tensor  # (B,) or (T, B) classes


def digits_of(numbers: list[int]) -> torch.Tensor:
    """(B, 2): tens and units."""
    return torch.tensor([divmod(number, 10) for number in numbers])


def one_hot_digits(numbers: list[int]) -> torch.Tensor:
    """(B, 20): the tens, and the units, each as one of ten."""
    return F.one_hot(digits_of(numbers), 10).flatten(1).float()


def to_write(names: list[str]) -> torch.Tensor:
    """(T, B) letters, with the dots behind."""
    rows = [[LETTERS.index(letter) for letter in name.ljust(LONGEST, ".")] for name in names]
    return torch.tensor(rows).T


def to_read(names: list[str]) -> torch.Tensor:
    """(T, B) letters, with the dots in front, so that the last step reads the last letter."""
    return to_write([name.rjust(LONGEST, ".") for name in names])


def length_of_name(numbers: list[int]) -> Task:
    """How many letters has the name? (The hyphen counts.)"""
    return Task((one_hot_digits(numbers),), torch.tensor([len(english(n)) for n in numbers]))


def write_name(numbers: list[int]) -> Task:
    """What is the name?"""
    names = to_write([english(number) for number in numbers])
    return Task((one_hot_digits(numbers), names), names)


def read_name(numbers: list[int]) -> Task:
    """Which number is this?"""
    return Task((to_read([english(number) for number in numbers]),), digits_of(numbers).T)


def find_ends(numbers: list[int]) -> Task:
    """Does a name end here? Names of random digits run together, one such row for each number."""
    rows, ends = [], []
    for _ in numbers:
        names = [ENGLISH[digit] for digit in torch.randint(0, 10, (LONGEST,)).tolist()]
        rows.append("".join(names)[:LONGEST])
        ends.append([place == len(name) for name in names for place in range(1, len(name) + 1)])
    return Task((to_write(rows),), torch.tensor([row[:LONGEST] for row in ends]).long().T)


def translate(numbers: list[int]) -> Task:
    """What is the name in German?"""
    names = to_write([german(number) for number in numbers])
    return Task((to_read([english(number) for number in numbers]), names), names)


def letter_by_letter(numbers: list[int]) -> Task:
    """The same in the aligned form: a German letter at the step of each English one."""
    names = to_write([german(number) for number in numbers])
    return Task((to_write([english(number) for number in numbers]),), names)


class Form(NamedTuple):
    """A model of one form, a task that has this form, and an example of it to draw."""

    model: Callable[[str, int], nn.Module]
    task: Callable[[list[int]], Task]
    inputs: str = ""  # what goes in at each step; a space for nothing
    outputs: str = ""


FORMS = {
    "one to one": Form(OneToOne, length_of_name, "7", "5"),
    "one to many": Form(OneToMany, write_name, "6  ", "six"),
    "many to one": Form(ManyToOne, read_name, "six", "  6"),
    "many to many, aligned": Form(Aligned, find_ends, "sixten", "001001"),
    "many to many, reading first": Form(EncoderDecoder, translate, "ten    ", "   zehn"),
}
LETTER_BY_LETTER = Form(functools.partial(Aligned, classes=len(LETTERS)), letter_by_letter)


def split_numbers() -> tuple[list[int], list[int]]:
    """80 numbers to learn from, and 20 unseen ones of two words; each word is in the 80 too."""
    two_words = [number for number in range(21, 100) if number % 10]
    unseen = {two_words[place] for place in torch.randperm(len(two_words))[:20].tolist()}
    return [number for number in range(100) if number not in unseen], sorted(unseen)


class Run(NamedTuple):
    """A trained model and how it got there. Losses in nats per answer; a letter is an answer."""

    model: nn.Module
    losses: list[float]  # at every update
    unseen_losses: dict[int, float]  # on the unseen examples, by update
    right: float  # the share of unseen examples without a mistake


class Guess(NamedTuple):
    """What can be had without a look at the input: of each answer, only how often it is right."""

    loss: float  # the least, on the examples to learn from
    right: float  # the share of unseen examples without a mistake


def loss_of(model: nn.Module, task: Task) -> torch.Tensor:
    """-log p of the right answer, mean over all answers."""
    return F.cross_entropy(model(*task.inputs).flatten(0, -2), task.targets.flatten())


def share_right(answers: torch.Tensor, targets: torch.Tensor) -> float:
    """The share of examples without a mistake."""
    right = answers == targets
    return (right if right.ndim == 1 else right.all(0)).float().mean().item()


def train(model: nn.Module, seen: Task, unseen: Task, updates: int, what: str = "training") -> Run:
    """Learn the seen examples, and answer the others without help."""
    optimizer = AdamW(model.parameters(), lr=0.02, weight_decay=1.0)
    schedule = CosineAnnealingLR(optimizer, updates)
    losses, unseen_losses = [], {}
    for update in progress(range(1, updates + 1), what):
        loss = loss_of(model, seen)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if update % 10 == 0:
            with torch.no_grad():
                unseen_losses[update] = loss_of(model, unseen)
    with torch.no_grad():
        answers = model(unseen.inputs[0]).argmax(-1)  # a Writer reads what it writes itself
    losses = torch.stack(losses).tolist()
    unseen_losses = {update: loss.item() for update, loss in unseen_losses.items()}
    return Run(model, losses, unseen_losses, share_right(answers, unseen.targets))


def guess(seen: Task, unseen: Task) -> Guess:
    """The best constant answers: at each place, the shares that the answers have there."""
    shares = F.one_hot(seen.targets, len(LETTERS)).float().mean(-2)  # ([T,] classes)
    loss = -(shares * shares.clamp(min=1e-9).log()).sum(-1).mean()
    return Guess(loss.item(), share_right(shares.argmax(-1).unsqueeze(-1), unseen.targets))


def least_loss_letter_by_letter(numbers: list[int]) -> float:
    """The least loss (nats) if the t-th German letter has to follow the t-th English one."""
    total = 0.0
    for t in range(LONGEST):
        following = defaultdict(Counter)  # what the t-th letter is, by the letters seen
        for number in numbers:
            read, written = english(number)[: t + 1], german(number)[t : t + 1]
            following[read][written] += 1
        for counts in following.values():
            total += sum(n * math.log(counts.total() / n) for n in counts.values())
    return total / (LONGEST * len(numbers))


def train_form(
    form: Form, numbers: tuple[list[int], list[int]], layer: str, units: int, updates: int
) -> tuple[Run, Guess]:
    """One form, trained on the first of the lists of numbers and asked about the second."""
    seen, unseen = (form.task(each) for each in numbers)
    what = form.task.__name__.replace("_", " ")
    return train(form.model(layer, units), seen, unseen, updates, what), guess(seen, unseen)


@torch.no_grad()
def translated(model: EncoderDecoder, names: list[str]) -> list[str]:
    """What the model writes for English names."""
    written = model(to_read(names)).argmax(-1).T.tolist()
    return ["".join(LETTERS[letter] for letter in name).rstrip(".") for name in written]


INPUT, STATE, OUTPUT = "#f0c060", "#c8c8c8", "#80c0f0"


def draw_form(axes: Any, form: Form) -> None:
    """A box for each input, state and output, time to the right (after Karpathy 2015)."""
    text = {"ha": "center", "va": "center", "family": "monospace", "fontsize": 9}

    def box(step: int, height: int, letter: str, color: str) -> None:
        style = {"boxstyle": "round,pad=0.25", "facecolor": color, "edgecolor": "none"}
        axes.text(step, height, letter, bbox=style, **text)

    def arrow(start: tuple[int, int], end: tuple[int, int], line: str = "-") -> None:
        style = {"arrowstyle": "->,head_width=0.2", "linestyle": line, "shrinkA": 7, "shrinkB": 7}
        axes.annotate("", end, start, arrowprops=style)

    steps = len(form.inputs)
    writes_on = form.inputs.strip() != form.inputs  # after the last input: reads its own letters
    for step, (read, written) in enumerate(zip(form.inputs, form.outputs, strict=True)):
        box(step, 1, " ", STATE)
        if step:
            arrow((step - 1, 1), (step, 1))
        if read != " ":
            box(step, 0, read, INPUT)
            arrow((step, 0), (step, 1))
        if written != " ":
            box(step, 2, written, OUTPUT)
            arrow((step, 1), (step, 2))
            if writes_on and step + 1 < steps:
                arrow((step, 2), (step + 1, 1), ":")
    middle = (steps - 1) / 2
    axes.set(xlim=(middle - 3.3, middle + 3.3), ylim=(-0.6, 2.6))
    axes.axis("off")


def draw(runs: dict[str, tuple[Run, Guess]], wrong_form: Run, least: float) -> Any:
    """The forms, and below each how the loss fell; with translation, also in the wrong form."""
    figure, (above, below) = panels(rows=2, columns=len(runs), width=9.5, height=2.3)
    for (name, (run, guessing)), drawing, curve in zip(runs.items(), above, below, strict=True):
        drawing.set_title(name.replace(", ", ",\n"), fontsize="medium")
        draw_form(drawing, FORMS[name])
        curve.axhline(
            guessing.loss, color="black", linestyle=":", label="without a look at the input"
        )
        curve.plot(run.losses, color="tab:blue", label="80 numbers to learn from")
        curve.plot(
            run.unseen_losses.keys(),
            run.unseen_losses.values(),
            color="tab:orange",
            label="20 unseen",
        )
        curve.set(xlabel="update", ylim=(0, 3), yticks=range(4))
    curve.plot(wrong_form.losses, color="tab:purple", label="to learn from, letter by letter")
    curve.axhline(least, color="tab:purple", linestyle="--", label="the least possible so")
    below[0].set_ylabel("loss (nats per answer)")
    figure.legend(
        *curve.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
    )
    return figure


@program
@click.option("--layer", default="GRU", show_default=True, type=click.Choice(["RNN", "GRU"]))
@click.option("--units", default=64, show_default=True, type=click.IntRange(min=1))
@click.option("--updates", default=300, show_default=True, type=click.IntRange(min=1))
def main(layer: str, units: int, updates: int) -> Callable[[], Any]:
    """Train a model of each form, and compare it with answers that do not depend on the input."""
    numbers = split_numbers()
    runs = {}
    print(f"{'':28} loss, of guessing   unseen right, of guessing")
    for name, form in FORMS.items():
        runs[name] = run, guessing = train_form(form, numbers, layer, units, updates)
        print(f"{name:28} {run.losses[-1]:4.2f} {guessing.loss:11.2f}", end="")
        print(f"{run.right:16.0%} {guessing.right:12.0%}")
    names = [english(number) for number in numbers[1][:5]]
    for name, written in zip(names, translated(run.model, names), strict=True):
        print(f"unseen: {name:14} {written}")
    wrong_form, _ = train_form(LETTER_BY_LETTER, numbers, layer, units, updates)
    least = least_loss_letter_by_letter(numbers[0])
    print(
        f"translation letter by letter: loss {wrong_form.losses[-1]:.2f}, at the least {least:.2f}"
    )
    return lambda: draw(runs, wrong_form, least)


if __name__ == "__main__":
    main()
