"""Hangul by syllables and by letters: taken apart, put together, and compared per character."""

import math
import random
import unicodedata

import hangul
import pytest
from click.testing import CliRunner
from hangul import to_jamo, to_syllables

import tinygrad_rnn as torch
from tinygrad_rnn.char_lm import UNKNOWN

ALL = "".join(map(chr, range(0xAC00, 0xD7A4)))


def test_every_syllable_comes_apart_as_unicode_says_and_together_again():
    assert len(ALL) == hangul.SYLLABLES
    assert to_jamo(ALL) == unicodedata.normalize("NFD", ALL)
    assert to_syllables(to_jamo(ALL)) == ALL


def test_the_letters_have_the_names_that_one_expects():
    names = [unicodedata.name(letter) for letter in to_jamo("한그")]
    assert [name.removeprefix("HANGUL ") for name in names] == [
        *("CHOSEONG HIEUH", "JUNGSEONG A", "JONGSEONG NIEUN"),
        *("CHOSEONG KIYEOK", "JUNGSEONG EU"),
    ]


def test_what_is_no_syllable_stays_as_it_is():
    text = "ㅋㅋ 2026년, 안녕! OK\n"
    assert to_syllables(to_jamo(text)) == text
    initial, medial, final = to_jamo("한")
    alone = final + initial + initial + medial + medial
    assert to_syllables(alone) == final + initial + "하" + medial
    assert len(hangul.STRAY.findall(to_syllables(alone))) == 3


def test_held_out_lines_are_every_tenth_and_none_that_is_learnt():
    lines = [f"{k}\n" for k in range(1, 22)]
    expected = ("".join(line for line in lines if int(line) % 10), "10\n20\n")
    assert hangul.parts("".join(lines)) == expected
    assert hangul.parts("".join(lines) + "10\n7\n" * 9) == expected


def test_what_letters_cost_adds_up_to_what_syllables_cost():
    random.seed(0)
    training, held_out = ("".join(random.choices("가나다라", k=k)) for k in (4000, 1000))
    by_syllables = hangul.reading(training, held_out, str)
    by_letters = hangul.reading(training, held_out, to_jamo)
    assert len(by_letters.held_out) - 1 == 2 * (len(by_syllables.held_out) - 1)
    # ln 4 for a syllable is ln 4 for its first letter and nothing for the second, which is ㅏ.
    assert by_syllables.per_character(math.log(4)) == pytest.approx(math.log(4))
    assert by_letters.per_character(math.log(4) / 2) == pytest.approx(math.log(4))


def test_a_syllable_that_training_does_not_have_is_paid_for():
    read = hangul.reading("가나가나", "나각나", str)
    assert read.symbols == UNKNOWN + "가나"
    assert read.held_out.tolist() == [2, 2, 0, 2]
    assert read.per_character(0.5) == pytest.approx((3 * 0.5 + math.log(11172)) / 3)


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    training, held_out = hangul.parts(hangul.SENTENCES)
    return {
        kind: [hangul.examine(training, held_out, kind, units=64, epochs=20) for _ in range(2)]
        for kind in hangul.KINDS
    }


def test_with_few_sentences_letters_are_learnt_better_than_syllables(found):
    syllables = min(each.nats for each in found["syllables"])
    assert max(each.nats for each in found["jamo"]) < syllables - 0.3


def test_the_network_of_letters_learns_to_put_them_where_they_belong(found):
    torch.manual_seed(0)
    training, held_out = hangul.parts(hangul.SENTENCES)
    hardly_trained = hangul.examine(training, held_out, "jamo", units=64, epochs=1)
    assert hardly_trained.stray > 0.2
    assert max(each.stray for each in found["jamo"]) < 0.06


def test_only_letters_can_write_a_syllable_that_was_never_read(found):
    assert all(each.new == 0 for each in found["syllables"])
    assert all(each.new > 0.01 for each in found["jamo"])


def test_the_command_reads_a_table_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    table = tmp_path / "table.csv"
    lines = hangul.SENTENCES.splitlines()
    rows = [f'"{q}",{a},0\n' for q, a in zip(lines[::2], lines[1::2], strict=True)]
    table.write_text("Q,A,label\n" + "".join(rows), encoding="utf-8")
    assert hangul.read_korean(table) == hangul.SENTENCES
    figure = tmp_path / "figure.svg"
    options = f"--text {table} --units 8 --epochs 1 --figure {figure}"
    shown = CliRunner().invoke(hangul.main, options.split(), catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert "jamo: GRU" in shown.output
    assert figure.read_text(encoding="utf-8").startswith("<?xml")
