"""Chapter 11: what perplexity and bits per character mean, and what temperature does to writing."""

import json
import math
import random

import experiment
import language_models
import pytest
from click.testing import CliRunner
from language_models import LanguageModel, Score, chances, corpora, corpus
from ngrams import NGrams

import tinygrad_rnn as torch


@pytest.fixture(scope="module")
def read():
    return corpora(language_models.docstrings()[:80_000], words=500)["characters"]


@pytest.fixture(scope="module")
def trained(read):
    torch.manual_seed(0)
    return language_models.train(read.training, len(read.symbols), units=64, epochs=3)


def untrained(read):
    torch.manual_seed(0)
    return LanguageModel(len(read.symbols), units=64)


@pytest.mark.parametrize("k", [2, 7, 50])
def test_guessing_among_k_equally_likely_symbols_has_perplexity_k(k):
    torch.manual_seed(0)
    model = LanguageModel(k, units=5)
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.fill_(3.0)
    loss = language_models.loss_on(model, torch.randint(0, k, (500,)))
    assert Score("uniform", "characters", loss, 0).perplexity == pytest.approx(k, rel=1e-5)


def test_ngrams_follow_the_formula():
    model = NGrams(3, "abracadabra", alphabet=6)
    p_a = (5 + 5 * (1 / 6)) / (11 + 5)  # a: 5 of 11; 5 different letters
    p_a_after_r = (2 + 1 * p_a) / (2 + 1)  # r was followed by a, twice
    p_a_after_br = (2 + 1 * p_a_after_r) / (2 + 1)
    assert model.surprises("bra", start=2) == pytest.approx([-math.log(p_a_after_br)])
    assert model.surprises("bra", start=2, n=2) == pytest.approx([-math.log(p_a_after_r)])
    assert model.surprises("bra", start=2, n=1) == pytest.approx([-math.log(p_a)])
    assert model.chance("a", "z") == pytest.approx(p_a)  # nothing is known of what follows z


@pytest.mark.parametrize("before", ["", "a", "ra", "zz", "da"])
def test_the_chances_of_an_ngram_model_sum_to_one(before):
    model = NGrams(3, "abracadabra", alphabet=6)
    assert sum(model.chance(symbol, before) for symbol in "abcdrz") == pytest.approx(1)


def test_words_and_characters_agree_in_bits_per_character_and_not_in_perplexity():
    random.seed(0)
    words = [" tick", " rock", " land", " fish", " jump", " moon", " work", " give"]
    text = "\n" + "".join(random.choices(words, k=6000))  # log2(8) bits for every five characters
    read = corpora(text, words=20)
    by_word = language_models.by_counting(read["words"], "words", longest=1)[-1]
    by_character = language_models.by_counting(read["characters"], "characters", longest=4)[-1]
    assert by_word.perplexity == pytest.approx(8, rel=0.02)
    assert by_character.perplexity < 2
    assert by_word.bits == pytest.approx(3 / 5, rel=0.02)
    assert by_character.bits == pytest.approx(3 / 5, rel=0.05)


def test_unknown_words_are_paid_for_letter_by_letter():
    training, held_out = " the cat saw the cat" * 50 + " bird bee", " the bee saw it"
    read = corpus(training, held_out, size=4, split=language_models.WORD.findall)
    assert read.symbols == [language_models.UNKNOWN, " the", " cat", " saw"]
    assert [read.symbols[k] for k in read.held_out] == [
        language_models.UNKNOWN,  # " bee", the last of training
        *(" the", language_models.UNKNOWN, " saw", language_models.UNKNOWN),
    ]
    letters = NGrams(3, "\n bird\n bee\n", alphabet=len(set(training)) + 1)
    paid = sum(letters.surprises("\n bee\n", start=1)) + sum(letters.surprises("\n it\n", start=1))
    assert read.spelling == pytest.approx(paid)
    assert read.bits_per_character(1.5) == pytest.approx((4 * 1.5 + paid) / math.log(2) / 15)


def test_a_vocabulary_of_nothing_is_no_way_to_a_small_loss():
    text = language_models.docstrings()[:40_000]
    unknown = corpora(text, words=1)["words"]
    (guess,) = language_models.by_counting(unknown, "words", longest=1)
    assert guess.loss < 0.001  # every word is UNKNOWN, and that is easy to guess
    (letters,) = language_models.by_counting(corpora(text, 1)["characters"], "characters", 1)
    assert 1 < guess.bits < letters.bits


def test_temperature_and_top_k():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    assert torch.allclose(chances(logits), logits.softmax(-1))
    halved = chances(logits, temperature=2)[0].tolist()
    assert halved[0] / halved[1] == pytest.approx(math.exp(1 / 2))
    assert chances(logits, temperature=0.01)[0].tolist() == pytest.approx([1, 0, 0, 0])
    two = chances(logits, top_k=2)[0].tolist()
    assert two[2:] == [0, 0]
    assert two[0] / two[1] == pytest.approx(math.e)
    assert sum(two) == pytest.approx(1)


def test_a_little_training_beats_pairs_of_characters(read, trained):
    bigrams = language_models.by_counting(read, "characters", longest=2)[-1].loss
    assert language_models.loss_on(trained, read.held_out) < bigrams - 0.1
    assert language_models.loss_on(untrained(read), read.held_out) > bigrams + 0.5


def test_a_low_temperature_writes_real_words_and_repeats_them(read, trained):
    torch.manual_seed(0)
    cold, *_, hot = language_models.writings(trained, read)
    assert cold.real > hot.real + 0.3
    assert cold.distinct < hot.distinct - 0.3
    without_training = language_models.writings(untrained(read), read)
    assert max(each.real for each in without_training) < cold.real - 0.3


def test_the_loss_of_one_symbol_is_that_of_its_chance(read, trained):
    tokens = read.held_out[:81]
    with torch.no_grad():
        logits, _ = trained(tokens[:80].reshape(16, 5).T)  # 16 lanes, each without a past
    p = logits.softmax(-1).numpy()
    after = tokens[1:].reshape(16, 5).T.numpy()
    by_hand = [-math.log(p[t, b, after[t, b]]) for t in range(5) for b in range(16)]
    assert language_models.loss_on(trained, tokens) == pytest.approx(sum(by_hand) / 80, rel=1e-4)


def test_a_text_that_is_too_short_is_refused_in_one_line(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("a word\nor two\n", encoding="utf-8")
    shown = CliRunner().invoke(language_models.main, ["--text", str(text)])
    assert shown.exit_code == 2
    assert "has 14 characters in 2 lines; at least 2000" in shown.output


def test_the_command_compares_draws_and_keeps(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(experiment, "RECORDS", tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("the cat saw the dog, and the dog saw it.\n" * 300, encoding="utf-8")
    figure = tmp_path / "figure.svg"
    options = f"--text {text} --units 16 --words 20 --epochs 1 --write --figure {figure}"
    shown = CliRunner().invoke(language_models.main, options.split(), catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert "GRU of words" in shown.output
    assert figure.read_text(encoding="utf-8").startswith("<?xml")
    kept = json.loads((tmp_path / "language_models.json").read_text(encoding="utf-8"))
    assert [score["model"] for score in kept["results"]["scores"]].count("GRU") == 2
