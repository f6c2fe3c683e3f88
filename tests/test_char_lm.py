"""The character model: text, vocabulary, baselines, streaming, training, resuming."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tinygrad_rnn import load, no_grad, tensor
from tinygrad_rnn.char_lm import (
    UNKNOWN,
    CharLM,
    PromptError,
    Settings,
    TextError,
    Training,
    TrainingError,
    Vocabulary,
    baselines,
    generate,
    load_model,
    python_text,
    read_run,
    read_text,
)
from tinygrad_rnn.io import FileFormatError
from tinygrad_rnn.random import Generator

pytestmark = pytest.mark.usefixtures("device")

KOREAN = "나랏말싸미 듕귁에 달아 문자와로 서르 사맛디 아니할쎄\n"
TEXT = "the quick brown fox jumps over the lazy dog, and it runs away again.\n" * 40
TINY = Settings(layers=1, hidden=7, embed=5, batch=3, seq=8, steps=25, lr=1e-2)


# --- text ---------------------------------------------------------------------------------------


def test_a_file_is_read_without_byte_order_mark_and_with_plain_line_ends(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n" + KOREAN.encode())
    assert read_text(path) == "one\ntwo\nthree\n" + KOREAN


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"ab" + "안녕".encode("euc-kr"), "not UTF-8: byte 0xbe at position 2"),
        (b"ends in the middle \xec\x95", "not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_cause(tmp_path, content, message):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TextError, match=message) as caught:
        read_text(path)
    assert str(path) in str(caught.value)
    with pytest.raises(TextError):
        read_text(tmp_path)  # a folder


def test_the_default_text_is_python_and_always_the_same():
    text = python_text()
    assert text == python_text()
    assert text.count("\ndef ") > 500
    assert len(text) <= 4_000_000
    assert python_text(1000) == text[:1000]


def test_the_default_text_needs_the_source_of_the_standard_library(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(TextError, match="use --text"):
        python_text()
    (tmp_path / "_sysconfigdata_linux.py").write_text("secret = 1")
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9")
    (tmp_path / "b.py").write_text("b = 2\n")
    (tmp_path / "a.py").write_text("a = 1\n")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "c.py").write_text("c = 3\n")
    assert python_text() == "a = 1\nb = 2\n"


def test_a_vocabulary_gives_back_what_it_was_made_of():
    vocabulary = Vocabulary.of(KOREAN)
    numbers = vocabulary.encode(KOREAN)
    assert vocabulary.decode(numbers) == KOREAN
    assert numbers.min() == 1
    assert len(vocabulary) == len(set(KOREAN)) + 1
    assert vocabulary.symbols[1:] == "".join(sorted(set(KOREAN)))


def test_characters_that_were_not_seen_or_are_rare_become_unknown():
    common = "ab" * 100_000
    vocabulary = Vocabulary.of(common + "r" + "ss")
    assert vocabulary.symbols == UNKNOWN + "ab"  # 1 and 2 in 200,003 are less than 1 in 100,000
    assert vocabulary.encode("abrs\U0001f600" + UNKNOWN).tolist() == [1, 2, 0, 0, 0, 0]
    assert Vocabulary.of(common + "sss").symbols == UNKNOWN + "abs"
    assert "a" in vocabulary
    assert "r" not in vocabulary
    assert UNKNOWN not in vocabulary


def test_a_vocabulary_keeps_the_most_frequent_characters():
    often = "".join(map(chr, range(0x4E00, 0x4E00 + 4095)))
    seldom = "".join(map(chr, range(0x3400, 0x3400 + 500)))
    vocabulary = Vocabulary.of(often * 3 + seldom)
    assert len(vocabulary) == 4096
    assert vocabulary.symbols == UNKNOWN + often


@pytest.mark.parametrize("symbols", ["ab", "", UNKNOWN + "aa"])
def test_symbols_that_are_no_vocabulary(symbols):
    with pytest.raises(ValueError, match="begin with UNKNOWN"):
        Vocabulary(symbols)


# --- baselines ----------------------------------------------------------------------------------


def test_the_baselines_by_hand():
    # Training text 0 1 0 1 0 2: n(0) = 3, n(1) = 2, n(2) = 1; pairs 01 10 01 10 02.
    training = np.array([0, 1, 0, 1, 0, 2])
    unigram = [4 / 9, 3 / 9, 2 / 9]  # (n + 1) / (6 + 3)
    bigram = {
        (0, 1): (2 + 2 * unigram[1]) / (3 + 2),  # 0 was followed three times, by two symbols
        (1, 1): (0 + 1 * unigram[1]) / (2 + 1),  # 1 was followed twice, always by 0
        (2, 0): unigram[0],  # 2 was never followed
    }
    inputs, targets = np.array([0, 1, 2]), np.array([1, 1, 0])
    found = baselines(training, inputs, targets, 3)
    assert found.unigram == pytest.approx(-sum(map(math.log, (3 / 9, 3 / 9, 4 / 9))) / 3)
    assert found.bigram == pytest.approx(-sum(map(math.log, bigram.values())) / 3)


def test_the_bigram_chances_sum_to_one():
    training = np.random.default_rng(0).integers(0, 7, 60)
    for before in range(9):  # the last two never occurred
        chances = [
            math.exp(-baselines(training, np.array([before]), np.array([after]), 9).bigram)
            for after in range(9)
        ]
        assert sum(chances) == pytest.approx(1)


# --- model and sampling -------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 3])
def test_streaming_computes_what_forward_computes(cell, layers):
    model = CharLM(11, cell, layers, hidden=6, embed=4, dropout=0.5).double().eval()
    tokens = [3, 0, 10, 7, 7]
    with no_grad():
        logits, _ = model(tensor(tokens)[:, None])
        step, state = model.streaming()
        for place, token in enumerate(tokens):
            streamed, state = step(token, state)
            np.testing.assert_allclose(streamed.numpy(), logits.numpy()[place, 0], rtol=1e-12)


def _model_with_logits(logits):
    """A model that thinks the same of every character, whatever came before."""
    model = CharLM(len(logits), hidden=3, embed=2).eval()
    with no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.output.bias.copy_(tensor(logits))
    return model


def test_characters_are_drawn_with_the_chances_of_the_model():
    logits = [9.0, 0.0, 1.0, 2.0]  # the first is UNKNOWN's
    model, vocabulary = _model_with_logits(logits), Vocabulary(UNKNOWN + "abc")
    text = "".join(generate(model, vocabulary, "a", 3000, 0.5, Generator(3)))
    weights = np.exp(np.array(logits[1:]) / 0.5)
    expected = 3000 * weights / weights.sum()
    seen = np.array([text.count(character) for character in "abc"])
    chi_squared = float(((seen - expected) ** 2 / expected).sum())
    assert chi_squared < 13.8  # 2 degrees of freedom: 1 in 1000 by chance, and the seed is fixed
    assert UNKNOWN not in text


def test_temperature_zero_takes_the_likeliest():
    model, vocabulary = _model_with_logits([9.0, 0.0, 1.0, 2.0]), Vocabulary(UNKNOWN + "abc")
    assert "".join(generate(model, vocabulary, "", 5, 0)) == "ccccc"


def test_tiny_temperatures_do_not_overflow():
    model, vocabulary = _model_with_logits([9.0, 0.0, 1.0, 2.0]), Vocabulary(UNKNOWN + "abc")
    assert "".join(generate(model, vocabulary, "", 5, 1e-30)) == "ccccc"


def test_equal_seeds_write_equal_texts():
    model, vocabulary = CharLM(5, hidden=6).eval(), Vocabulary(UNKNOWN + "abcd")
    texts = ["".join(generate(model, vocabulary, "ab", 40, 1.0, Generator(s))) for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_prompt_with_an_unknown_character_is_refused():
    model, vocabulary = CharLM(3, hidden=6).eval(), Vocabulary(UNKNOWN + "ab")
    for prompt in ("abé", "ab" + UNKNOWN):
        with pytest.raises(PromptError, match="character 3"):
            next(generate(model, vocabulary, prompt, 1))


# --- training -----------------------------------------------------------------------------------


def _trained(training, steps=None):
    while not training.finished and training.step != steps:
        training.advance()
    return training


def _assert_same(a, b):
    assert a.rows == b.rows
    for (name, p), (_, q) in zip(
        a.model.named_parameters(), b.model.named_parameters(), strict=True
    ):
        assert p.array.tobytes() == q.array.tobytes(), name


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_periodic_text_is_learnt(cell):
    settings = Settings(cell=cell, hidden=16, embed=8, batch=4, seq=12, steps=150, lr=2e-2)
    training = _trained(Training(settings, "abcaacbd" * 200))
    assert training.baselines.bigram > 0.5
    assert training.rows[-1].validation_loss < 0.05
    training.model.eval()
    text = "".join(generate(training.model, training.vocabulary, "abcaacbd", 16, 0))
    assert text == "abcaacbd" * 2


# In the middle of an epoch and of a row of the log; after an epoch's last window; in the next.
@pytest.mark.parametrize("stop", [13, 36, 37])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_stopped_training_goes_on_bit_for_bit(tmp_path, cell, stop):
    settings = replace(TINY, cell=cell, layers=2, dropout=0.2, steps=45, batch=9)
    straight = _trained(Training(settings, TEXT))
    assert len(straight.batcher) == 36
    first = _trained(Training(settings, TEXT), stop)
    first.save(tmp_path / "checkpoint")
    second = Training(replace(settings), TEXT)
    second.load(tmp_path / "checkpoint")
    assert second.step == stop
    _assert_same(_trained(second), straight)


def test_rows_hold_the_means_since_the_row_before():
    training = Training(replace(TINY, steps=20), TEXT)
    losses = []
    train_on_next_window = training._train_on_next_window

    def watched():
        loss, norm = train_on_next_window()
        losses.append(loss.item())
        return loss, norm

    training._train_on_next_window = watched
    _trained(training)
    assert [row.step for row in training.rows] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    for row in training.rows:
        assert row.training_loss == pytest.approx(np.mean(losses[row.step - 2 : row.step]))
        assert row.characters == row.step * 3 * 8
    assert training.rows[0].learning_rate == 1e-2  # the warm-up is one step long
    assert 0 < training.rows[-1].learning_rate < 1e-3


def test_validation_is_the_loss_on_the_end_of_the_text():
    training = Training(replace(TINY, batch=1), TEXT)
    held_out = len(TEXT) // 20
    tokens = training.vocabulary.encode(TEXT[-held_out - 1 :])
    with no_grad():
        logits, _ = training.model(tensor(tokens[:-1, None]))
        expected = -logits.log_softmax(-1).numpy()[range(held_out), 0, tokens[1:]].mean()
    assert training.validation_loss() == pytest.approx(expected, rel=1e-5)


def test_validation_changes_nothing():
    settings = replace(TINY, dropout=0.3)
    left_alone = _trained(Training(settings, TEXT), 5)
    watched = Training(settings, TEXT)
    while watched.step < 5:
        watched.validation_loss()
        watched.advance()
    _assert_same(watched, left_alone)


def test_more_steps_can_be_added(tmp_path):
    training = _trained(Training(TINY, TEXT))
    training.save(tmp_path / "checkpoint")
    longer = Training(replace(TINY, steps=40), TEXT)
    longer.load(tmp_path / "checkpoint")
    assert not longer.finished
    _trained(longer)
    assert longer.rows[: len(training.rows)] == training.rows
    assert longer.rows[-1].step == 40
    assert longer.rows[-3].learning_rate > 0


def test_a_changed_text_is_noticed(tmp_path):
    Training(TINY, TEXT).save(tmp_path / "checkpoint")
    with pytest.raises(TrainingError, match="has changed"):
        Training(TINY, TEXT + "!").load(tmp_path / "checkpoint")


@pytest.mark.parametrize("text", ["a", "ab"])
def test_a_text_of_next_to_nothing_is_refused(text):
    with pytest.raises(TextError, match=r"use a longer text$"):
        Training(TINY, text)


@pytest.mark.parametrize("size", [3, 9, 30, 100])
def test_a_short_text_is_refused_and_the_advice_works(size):
    settings = replace(TINY, batch=16, seq=10)
    with pytest.raises(TextError, match="too short") as caught:
        Training(settings, TEXT[:size])
    words = str(caught.value).split()
    advised = {name: int(words[words.index(f"--{name}", -4) + 1]) for name in ("batch", "seq")}
    Training(replace(settings, **advised, steps=1), TEXT[:size]).advance()


def test_a_diverged_training_stops_and_keeps_the_checkpoint(tmp_path):
    path = tmp_path / "checkpoint"
    training = Training(replace(TINY, lr=1e38, clip=0), TEXT)
    training.save(path)
    before = path.read_bytes()
    with pytest.raises(TrainingError, match="smaller --lr"), np.errstate(all="ignore"):
        _trained(training)
    with pytest.raises(TrainingError, match="smaller --lr"):
        training.save(path)
    assert path.read_bytes() == before


def test_a_model_can_be_loaded_alone(tmp_path):
    training = _trained(Training(replace(TINY, dropout=0.3), TEXT), 3)
    training.save(tmp_path / "checkpoint")
    model, vocabulary = load_model(tmp_path / "checkpoint")
    assert not model.training
    assert vocabulary.symbols == training.vocabulary.symbols
    assert read_run(tmp_path / "checkpoint")["settings"] == training.settings
    for name, saved in load(tmp_path / "checkpoint")["model"].items():
        assert (model.state_dict()[name].numpy() == saved.numpy()).all()


def test_foreign_files_are_no_checkpoints(tmp_path):
    from tinygrad_rnn.io import save, save_checkpoint

    save({"weight": tensor([1.0])}, tmp_path / "weights")
    save_checkpoint(tmp_path / "other", model=CharLM(3, hidden=2))
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").touch()
    for name in ("weights", "other", "text", "empty"):
        with pytest.raises(FileFormatError, match=name):
            read_run(tmp_path / name)


def test_settings_say_when_to_validate():
    assert Settings(steps=5).validate_every == 1
    assert Settings(steps=200).validate_every == 20
    assert Settings(steps=100_000).validate_every == 500
