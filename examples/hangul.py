"""A Hangul character model, twice: by syllables, and by the letters (jamo) they are made of.

    python examples/hangul.py [--text FILE] [--seeds 1] [--epochs 4] [--units 128]

A text has about a thousand different syllables, which are made of 67 letters (19 initial, 21
medial, 27 final). Which are easier to learn? Both models are scored on the same held-out lines, in
nats per written character, and write some. Without --text: the chatbot's questions and answers in
`../shared/data/korean` where they are, else sixty sentences that stand in this file. Explained in
Korean in docs/ko/hangul.md. Read `language_models.py` first. It takes two minutes.
"""

from __future__ import annotations

import csv
import math
import re
import shlex
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from experiment import panels, program, write_record
from language_models import loss_on, train, write
from ngrams import NGrams

import tinygrad_rnn as torch
from tinygrad_rnn.char_lm import UNKNOWN, Vocabulary, read_text

CHATBOT = Path(__file__).resolve().parents[2] / "shared/data/korean/ChatbotData.csv"
SENTENCES = """\
아침에 일어나서 물을 한 잔 마셨다.
오늘은 하늘이 맑고 바람이 시원하다.
비가 오는 날에는 집에서 책을 읽는다.
동생은 학교에 가고 나는 도서관에 간다.
어머니가 시장에서 사과와 배를 사 오셨다.
아버지는 저녁마다 강가를 걸으신다.
봄이 오면 산에 꽃이 핀다.
여름에는 바다에서 수영을 한다.
가을이 되면 나뭇잎이 붉게 물든다.
겨울밤은 길고 눈이 소리 없이 내린다.
고양이가 창가에 앉아 밖을 바라본다.
강아지가 꼬리를 흔들며 달려온다.
친구와 함께 영화를 보고 저녁을 먹었다.
나는 커피보다 차를 더 좋아한다.
할머니께서 옛날이야기를 들려주셨다.
버스가 늦게 와서 수업에 늦었다.
선생님이 칠판에 글씨를 쓰신다.
우리는 내일 아침 일찍 떠나기로 했다.
작은 가게에서 따뜻한 빵을 샀다.
아이들이 운동장에서 공을 찬다.
이 길을 따라가면 오래된 절이 나온다.
달이 밝아서 밤길이 어둡지 않다.
편지를 쓰고 우표를 붙여 우체통에 넣었다.
누나는 피아노를 치고 나는 노래를 부른다.
물이 끓으면 면을 넣고 사 분 동안 기다린다.
시계가 멈춰서 몇 시인지 몰랐다.
기차는 들판을 지나 바다로 향했다.
어제 심은 씨앗에서 싹이 돋았다.
말은 천천히 하고 생각은 깊이 한다.
그 사람은 언제나 웃으면서 인사한다.
새 신발을 신었더니 발이 아프다.
도서관에서 빌린 책을 오늘 돌려주었다.
김치는 시간이 지나면 맛이 깊어진다.
컴퓨터를 켜고 어제 하던 일을 계속했다.
한글은 소리를 적는 글자이다.
자음과 모음이 모여 한 글자가 된다.
모르는 것은 묻고 아는 것은 나눈다.
산꼭대기에 오르니 마을이 작게 보였다.
시골집 마당에는 감나무가 한 그루 있다.
바람이 불자 문이 저절로 닫혔다.
오후에는 친구에게 전화를 걸었다.
늦은 밤까지 불을 켜고 공부했다.
배가 고파서 라면을 끓여 먹었다.
아기가 자고 있으니 조용히 말해라.
우산을 잃어버려서 비를 맞고 왔다.
가장 높은 곳에서 가장 멀리 보인다.
약속을 지키는 사람이 되고 싶다.
강물은 쉬지 않고 바다로 흘러간다.
내가 만든 배가 물 위에 떴다.
주말에는 가족과 함께 밥을 먹는다.
그림을 그리다 보면 시간이 빨리 간다.
전철 안은 사람들로 가득했다.
긴 여행을 마치고 집으로 돌아왔다.
잘 익은 수박을 반으로 갈랐다.
감기에 걸려 하루 종일 누워 있었다.
별이 많은 밤에는 소원을 빈다.
어려운 문제를 풀고 나니 기분이 좋았다.
할아버지는 신문을 읽고 나서 산책을 나가셨다.
숲속에서 새가 울고 다람쥐가 뛰어다닌다.
내일은 오늘보다 조금 더 나아질 것이다.
"""

FIRST = 0xAC00  # 가, the first of the syllables in Unicode
INITIAL, MEDIAL, FINAL = 0x1100, 0x1161, 0x11A7  # the first letters of each place; FINAL: none
INITIALS, MEDIALS, FINALS = 19, 21, 28
SYLLABLES = INITIALS * MEDIALS * FINALS  # 11172
WHOLE = re.compile("([\u1100-\u1112])([\u1161-\u1175])([\u11a8-\u11c2]?)")
STRAY = re.compile("[\u1100-\u1112\u1161-\u1175\u11a8-\u11c2]")


def to_jamo(text: str) -> str:
    """A text with every syllable taken apart into two or three letters, the rest as it is.

    >>> [f"{ord(letter):X}" for letter in to_jamo("한")]
    ['1112', '1161', '11AB']
    """
    letters = []
    for character in text:
        number = ord(character) - FIRST
        if not 0 <= number < SYLLABLES:
            letters.append(character)
            continue
        number, final = divmod(number, FINALS)
        initial, medial = divmod(number, MEDIALS)
        letters += [chr(INITIAL + initial), chr(MEDIAL + medial)]
        if final:
            letters.append(chr(FINAL + final))
    return "".join(letters)


def to_syllables(letters: str) -> str:
    """The text whose letters these are. Letters that make no syllable stay alone."""

    def joined(found: re.Match[str]) -> str:
        initial, medial = ord(found[1]) - INITIAL, ord(found[2]) - MEDIAL
        final = ord(found[3]) - FINAL if found[3] else 0
        return chr(FIRST + (initial * MEDIALS + medial) * FINALS + final)

    return WHOLE.sub(joined, letters)


class Reading(NamedTuple):
    """A text as numbered symbols, syllables or letters, and how to write it again."""

    symbols: str  # by number; UNKNOWN is the first
    training: torch.Tensor  # (N,)
    held_out: torch.Tensor  # (M + 1,), from the last symbol of training on
    unknown: int  # symbols of held_out that training does not have
    characters: int  # that held_out has, whatever its symbols are

    def per_character(self, loss: float) -> float:
        """Nats per character of the text, for a loss in nats per symbol.

        An UNKNOWN syllable is paid for as one of the 11172 that Unicode has.
        """
        nats = loss * (len(self.held_out) - 1) + self.unknown * math.log(SYLLABLES)
        return nats / self.characters


def reading(training: str, held_out: str, apart: Callable[[str], str]) -> Reading:
    """Both parts of a text, taken apart, in the symbols of the training part."""
    before, after = apart(training), apart(held_out)
    vocabulary = Vocabulary(UNKNOWN + "".join(sorted(set(before) - {UNKNOWN})))
    numbers = torch.tensor(vocabulary.encode(before + after))
    return Reading(
        vocabulary.symbols,
        numbers[: len(before)],
        numbers[len(before) - 1 :],
        (numbers[len(before) :] == 0).sum().item(),
        len(held_out),
    )


def parts(text: str) -> tuple[str, str]:
    """The lines of a text to learn from, and those held out: every tenth. A line counts once."""
    lines = list(dict.fromkeys(unicodedata.normalize("NFC", text).splitlines()))
    held_out = lines[9::10]
    del lines[9::10]
    return "\n".join(lines) + "\n", "\n".join(held_out) + "\n"


def read_korean(path: Path | None) -> str:
    """The sentences above, a text file, or the columns Q and A of a table, line by line."""
    if path is None:
        return SENTENCES
    text = read_text(path)
    if not text.startswith("Q,A"):
        return text
    return "".join(f"{row['Q']}\n{row['A']}\n" for row in csv.DictReader(text.splitlines()))


class Findings(NamedTuple):
    """What a model of one kind of symbols learnt and wrote."""

    counting: list[float]  # nats per character of n-gram models, n = 1, 2, …
    loss: float  # nats per symbol, of the network
    nats: float  # nats per character, of the network
    stray: float  # of the letters it drew, the share that are in no syllable
    new: float  # of the syllables it wrote, the share that the training text does not have
    sample: str


KINDS = {"syllables": (str, 3), "jamo": (to_jamo, 8)}  # how to take apart; longest n-gram


def examine(training: str, held_out: str, kind: str, units: int, epochs: int) -> Findings:
    """Train a network on syllables or letters; see what it says of held-out lines, and writes."""
    apart, longest = KINDS[kind]
    read = reading(training, held_out, apart)
    past, future = tuple(read.training.tolist()), tuple(read.held_out.tolist()[1:])
    counted = NGrams(longest, past, len(read.symbols))
    counting = [
        read.per_character(np.mean(counted.surprises(past[-n:] + future, start=n, n=n)))
        for n in range(1, longest + 1)
    ]
    model = train(read.training, len(read.symbols), units, epochs)
    loss = loss_on(model, read.held_out)

    drawn = write(model, torch.full((1, 32), read.symbols.index("\n")), 100, temperature=0.7)
    letters = ["".join(read.symbols[k] for k in lane) for lane in drawn.T.tolist()]
    written = to_syllables("".join(letters))
    syllables = [c for c in written if FIRST <= ord(c) < FIRST + SYLLABLES]
    return Findings(
        counting,
        loss,
        read.per_character(loss),
        stray=len(STRAY.findall(written)) / max(1, len(STRAY.findall("".join(letters)))),
        new=sum(c not in training for c in syllables) / max(1, len(syllables)),
        sample="\n".join(to_syllables(lane).partition("\n")[0] for lane in letters[:6]),
    )


def draw(found: dict[str, list[Findings]]) -> Any:
    """Nats per character: of n-grams by n, and of the networks, a line for each seed."""
    figure, axes = panels(height=3.4)
    for (kind, several), color in zip(found.items(), ("tab:orange", "tab:blue"), strict=True):
        counting = several[0].counting
        axes.plot(
            range(1, len(counting) + 1), counting, "o-", color=color, label=f"{kind}, n-grams"
        )
        for each in several:
            label = f"{kind}, GRU" if each is several[0] else None
            axes.axhline(each.nats, color=color, linestyle="--", alpha=0.7, label=label)
    axes.set(xlabel="n: symbols that an n-gram has", ylabel="nats per written character")
    axes.legend(frameon=False)
    return figure


@program
@click.option(
    "--text",
    type=click.Path(dir_okay=False, path_type=Path),
    default=CHATBOT if CHATBOT.exists() else None,
    help="A UTF-8 text, or a table (.csv) with the columns Q and A.",
)
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--epochs", type=click.IntRange(min=1), help="[default: 4; of the sixty sentences 20]"
)
@click.option("--units", default=128, show_default=True, type=click.IntRange(min=1))
@click.option("--write", "keep", is_flag=True, help="Keep the losses in docs/results/.")
def main(
    text: Path | None, seeds: int, epochs: int | None, units: int, keep: bool
) -> Callable[[], Any]:
    """Learn Korean by syllables and by letters, and write it."""
    training, held_out = parts(read_korean(text))
    epochs = epochs or (4 if text else 20)
    found = {
        kind: [examine(training, held_out, kind, units, epochs) for _ in range(seeds)]
        for kind in KINDS
    }
    for kind, several in found.items():
        print(f"{kind}: n-grams", *(f"{nats:.3f}" for nats in several[0].counting), end=" ")
        print("nats per character")
        for each in several:
            print(
                f"{kind}: GRU {each.nats:.3f} nats per character ({each.loss:.3f} per symbol); "
                f"of the syllables it writes, {each.new:.1%} are new, {each.stray:.1%} of its "
                "letters make none"
            )
        print(several[0].sample)
    if keep:
        results = {kind: [each._asdict() for each in several] for kind, several in found.items()}
        print(write_record("hangul", shlex.join(["python", *sys.argv]), results))
    return lambda: draw(found)


if __name__ == "__main__":
    main()
