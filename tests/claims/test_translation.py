"""Chapter 12: attention learns what one vector does not, and looks where what it writes stands."""

import datetime
import doctest
import math

import dates
import encoder_decoder
import numpy as np
import pytest
import sentence_pairs
import translation
from click.testing import CliRunner
from encoder_decoder import Translator, loss_on, translate

import tinygrad_rnn as torch
from tinygrad_rnn.char_lm import TextError
from tinygrad_rnn.decoding import beam_search, greedy

# How datetime reads the forms of dates.py.
READ = {
    "{weekday}, {day} {month} {year}": "%A, %d %B %Y",
    "{month} {day}, {year}": "%B %d, %Y",
    "the {nth} of {month} {year}": None,  # it knows no 3rd
    "{wd} {day} {mon} {year}": "%a %d %b %Y",
    "{mon} {day} {year}": "%b %d %Y",
    "{day} {mon} '{yy}": "%d %b '%y",
    "{dd}.{mm}.{year}": "%d.%m.%Y",
    "{day}.{m}.{yy}": "%d.%m.%y",
    "{dd}/{mm}/{yy}": "%d/%m/%y",
    "{year}/{m}/{day}": "%Y/%m/%d",
}


@pytest.fixture(scope="module")
def learnt():
    """A model without and one with attention, trained alike, and what they learnt."""
    torch.manual_seed(0)
    return {kind: translation.learn(kind, 64, 250) for kind in ("one vector", "dot attention")}


@pytest.fixture(params=translation.KINDS)
def untrained(request):
    torch.manual_seed(1)
    vocabularies = encoder_decoder.vocabularies(dates.some_pairs(300))
    return Translator(*vocabularies, 8, **translation.KINDS[request.param])


def test_attention_learns_faster_than_one_vector(learnt):
    right = {kind: found.by_dates[0] for kind, (_, found) in learnt.items()}
    assert right["dot attention"] > 0.7
    assert right["one vector"] < 0.3


def test_attention_lies_on_the_part_that_is_written(learnt):
    shares = translation.looks_by_part(learnt["dot attention"][0])
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    assert (shares.argmax(1) == [0, 1, 2]).all()
    assert shares.diagonal().min() > 0.45
    torch.manual_seed(0)
    vocabularies = encoder_decoder.vocabularies(dates.some_pairs(300))
    other = translation.looks_by_part(Translator(*vocabularies, 64, "dot"))
    assert other.diagonal().max() < 0.45  # of an untrained net: about the share of characters


def test_what_may_not_be_looked_at_is_not_known(learnt):
    model, _ = learnt["dot attention"]
    year, month, day = np.array([translation.right_without(model, p) for p in dates.PARTS[:3]])
    all_parts = np.array(translation.right_without(model, "nothing"))
    assert all_parts.min() > 0.7
    assert year[0] < 0.2
    assert month[1] < 0.4
    assert day[2] < 0.4
    assert month[0] > 0.8
    assert day[0] > 0.8


def test_a_wide_beam_finds_more_probable_translations(learnt):
    model, _ = learnt["one vector"]
    wanted = {source: [target] for source, target in dates.some_pairs(100, held_out=True)}
    one, four = translation.beams(model, wanted, (1, 4))
    assert one.better == one.worse == 0
    assert four.log_prob > one.log_prob + 0.01
    assert four.better > 5 * four.worse


def test_one_vector_is_all_that_the_decoder_gets():
    torch.manual_seed(1)
    model = Translator(*encoder_decoder.vocabularies(dates.some_pairs(300)), 8)
    _, memory = model.read(["3.3.98", "Tuesday, 3 March 1998"])
    assert memory.keys.keys.shape == (2, 1, 8)
    _, weights = translation.looks(model, "3.3.98")
    assert (weights == 1).all()


def test_the_loss_of_a_batch_is_that_of_its_texts_one_by_one(untrained):
    pairs = [("3.3.98", "1998-03-03"), ("Tuesday, 3 March 1998; 4/12/77", "1998"), ("1", "")]
    lengths = [len(target) + 1 for _, target in pairs]
    alone = [loss_on(untrained, [pair]).item() for pair in pairs]
    assert loss_on(untrained, pairs).item() == pytest.approx(
        np.average(alone, weights=lengths), rel=1e-5
    )
    assert loss_on(untrained, pairs).item() == pytest.approx(
        math.log(len(untrained.target)), rel=0.15
    )


@pytest.mark.parametrize("search", [greedy, beam_search])
def test_searches_write_the_same_with_and_without_padding_and_score_as_training_does(
    untrained, search
):
    sources = ["3.3.98", "Tuesday, 3 March 1998", "12 aug 2004"]
    found = translate(untrained, sources, search)
    for source, several in zip(sources, found, strict=True):
        best = several if search is greedy else several[0]
        end = untrained.target.symbols.index("\n")
        s, memory = untrained.read([source])
        (alone,) = encoder_decoder.decode(untrained, s, memory, 10 + 2 * len(sources[1]), search)
        alone = alone if search is greedy else alone[0]
        assert alone.tokens == best.tokens
        assert alone.log_prob == pytest.approx(best.log_prob, rel=1e-4)
        written = [end, *best.tokens, *([end] if best.finished else [])]
        log_probs, _ = untrained([source], torch.tensor(written[:-1]).unsqueeze(1))
        total = sum(log_probs[t, 0, token].item() for t, token in enumerate(written[1:]))
        assert best.log_prob == pytest.approx(total, rel=1e-4)


def test_backwards_is_the_source_reversed():
    torch.manual_seed(1)
    vocabularies = encoder_decoder.vocabularies(dates.some_pairs(300))
    forwards, backwards = (
        Translator(*vocabularies, 8, reading=reading) for reading in ("forwards", "backwards")
    )
    backwards.load_state_dict(forwards.state_dict())
    pair = ("Tuesday, 3 March 1998", "1998-03-03")
    assert loss_on(forwards, [pair]).item() != loss_on(backwards, [pair]).item()
    turned = (pair[0][::-1], pair[1])
    assert loss_on(forwards, [turned]).item() == loss_on(backwards, [pair]).item()


@pytest.mark.parametrize("form", dates.FORMS)
def test_dates_are_what_datetime_reads_in_them(form):
    for number in range(0, dates.DAYS, 397):
        date = datetime.date.fromordinal(dates.FIRST + number)
        text, parts = dates.write(date, form)
        if READ[form]:
            read = datetime.datetime.strptime(text, READ[form]).date()
            same = read.year % 100 == date.year % 100 if "%y" in READ[form] else read == date
            assert same, text
            assert (read.month, read.day) == (date.month, date.day)
        assert len(parts) == len(text)
        told = {
            part: "".join(c for c, p in zip(text, parts, strict=True) if p == part)
            for part in dates.PARTS
        }
        assert told["year"] in (str(date.year), f"{date.year % 100:02}")
        assert int(told["day"].rstrip("stndrh")) == date.day
        names = (dates.MONTHS[date.month - 1], dates.MONTHS[date.month - 1][:3])
        assert told["month"] in names or int(told["month"]) == date.month


def test_ordinal_endings():
    endings = [dates.write(datetime.date(1998, 1, day), "{nth}").text for day in range(1, 32)]
    for day, wanted in ((1, "1st"), (2, "2nd"), (3, "3rd"), (11, "11th"), (12, "12th")):
        assert endings[day - 1] == wanted
    assert endings[12:] == [
        *(f"{day}th" for day in range(13, 21)),
        *("21st", "22nd", "23rd", *(f"{day}th" for day in range(24, 31)), "31st"),
    ]


def test_no_held_out_day_is_in_training():
    torch.manual_seed(0)
    for held_out in (False, True):
        pairs = dates.some_pairs(300, dates=2, held_out=held_out)
        found = [datetime.date.fromisoformat(day) for _, days in pairs for day in days.split("; ")]
        assert len(set(found)) > 300
        assert {(day.toordinal() - dates.FIRST) % 10 == 0 for day in found} == {held_out}
        assert {day.year // 10 for day in found} == set(range(195, 205))


def test_sentences_are_held_out_with_all_their_translations():
    pairs = [(f"{k // 2}", f"{k}") for k in range(60)]
    known, held_out = sentence_pairs.hold_out(pairs)
    assert held_out == {"9": ["18", "19"], "19": ["38", "39"], "29": ["58", "59"]}
    assert len(known) == 54
    assert not {source for source, _ in known} & set(held_out)


def test_pairs_are_read_and_lines_that_are_none_are_named(tmp_path):
    path = tmp_path / "pairs.tsv"
    lines = [f"a{k}\tb\u00a0{k}\tsomebody" for k in range(12)]
    path.write_text("\n".join([*lines, f"{'x' * 99}\ty"]), encoding="utf-8")
    assert sentence_pairs.read_pairs(path) == [(f"a{k}", f"b {k}") for k in range(12)]
    path.write_text("\n".join([*lines, "alone"]), encoding="utf-8")
    with pytest.raises(TextError, match="line 13: two columns"):
        sentence_pairs.read_pairs(path)
    path.write_text("a\tb\n", encoding="utf-8")
    with pytest.raises(TextError, match="fewer than 10 sentences"):
        sentence_pairs.read_pairs(path)


def test_chrf_by_hand():
    # abcd against abce: of 4, 3, 2, 1 n-grams are 3, 2, 1, 0 in both, so P = R = F.
    share = (3 / 4 + 2 / 3 + 1 / 2 + 0) / 4
    assert sentence_pairs.chrf("a bcd", "abc e") == pytest.approx(share)
    # Twice the truth: all of it is said (R = 1), and as much again.
    precision = (4 / 8 + 3 / 7 + 2 / 6 + 1 / 5) / 4
    assert sentence_pairs.chrf("abcdabcd", "abcd") == pytest.approx(
        5 * precision / (4 * precision + 1)
    )
    assert sentence_pairs.chrf("", "abc") == 0


@pytest.mark.parametrize("module", [dates, sentence_pairs])
def test_the_examples_in_docstrings(module):
    failed, tried = doctest.testmod(module)
    assert (failed, tried > 0) == (0, True)


def test_the_nearest_sentence():
    pairs = [("the cat", "le chat"), ("the dog", "le chien"), ("a cow", "une vache")]
    assert sentence_pairs.nearest(pairs, "a dog") == "le chien"


def test_the_command_translates_dates_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "translation.svg"
    options = ["--kind", "one vector", "--kind", "dot attention", "--updates", "1"]
    options += ["--units", "4", "--figure", str(figure)]
    shown = CliRunner().invoke(translation.main, options, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("run 1") == 2
    assert figure.read_text(encoding="utf-8").startswith("<?xml")


def test_the_command_translates_sentences_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    pairs, figure = tmp_path / "pairs.tsv", tmp_path / "translation.svg"
    pairs.write_text("".join(f"I see {k}.\tJe vois {k}.\n" for k in range(40)), encoding="utf-8")
    options = ["--pairs", str(pairs), "--updates", "3", "--units", "8", "--figure", str(figure)]
    shown = CliRunner().invoke(translation.main, options, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert "36 pairs to learn from, 4 sentences held out" in shown.output
    assert shown.output.count("beam 16") == 3
    assert figure.read_text(encoding="utf-8").startswith("<?xml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--units", "7"], "give an even number"),
        (["--pairs", "a", "--dates", "2"], "one or the other"),
        (["--pairs", "missing.tsv"], "missing.tsv"),
    ],
)
def test_wrong_options_give_one_line(options, message):
    shown = CliRunner().invoke(translation.main, options)
    assert shown.exit_code == 2
    assert message in shown.output
    assert shown.output.count("\n") == 1
