"""Chapter 11: a model fed with its own symbols; what scheduled sampling asks for, and its price."""

import math

import numpy as np
import pytest
import scheduled_sampling
from click.testing import CliRunner
from language_models import LANES, WINDOW, LanguageModel, corpora, docstrings, train
from ngrams import NGrams
from scheduled_sampling import doubles, inverse_sigmoid, partly_own, scheduled

import tinygrad_rnn as torch
from tinygrad_rnn.utils.data import BPTTBatcher


@pytest.fixture
def sure():
    """A model that draws what it thinks likeliest, and an arbitrary state of it."""
    torch.manual_seed(0)
    model = LanguageModel(9, units=6)
    with torch.no_grad():
        model.output.weight.mul_(1e4)
    return model, torch.randn(1, 50, 6)


def test_what_is_drawn_is_drawn_from_what_was_fed_before(sure):
    model, state = sure
    symbols = torch.randint(0, 9, (7, 50))
    fed = partly_own(model, symbols, state, share=0)
    guesses = model(fed, state)[0].argmax(-1)
    assert (fed[0] == symbols[0]).all()
    assert (fed[1:] == guesses[:-1]).all()


def test_the_share_is_the_share_of_true_symbols(sure):
    model, state = sure
    with torch.no_grad():
        model.output.bias.fill_(-1e9)
        model.output.bias[:1].fill_(1e9)  # always draws 0
    fed = partly_own(model, torch.ones(200, 50, dtype=torch.int64), state, share=0.3)
    assert fed[1:].float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert (partly_own(model, fed, state, share=1) == fed).all()


def test_the_inverse_sigmoid_falls_from_one_to_zero_and_is_half_at_k_ln_k():
    share = inverse_sigmoid(1000)
    assert share(0) == pytest.approx(1, abs=0.01)
    assert share(round(100 * math.log(100))) == pytest.approx(0.5, abs=0.005)
    assert share(1000) < 0.01
    assert inverse_sigmoid(1000, least=0.75)(1000) == 0.75


def test_words_of_equal_letters_are_learnt_by_teacher_forcing_and_unlearnt_by_the_schedule():
    updates = 400
    torch.manual_seed(0)
    assert doubles(lambda update: 1.0, updates)[-1] > 0.97
    found = np.array(doubles(inverse_sigmoid(updates), updates))
    assert found.max() > 0.9
    assert found[-50:].mean() < 0.35
    epsilon = np.array([inverse_sigmoid(updates)(update) for update in range(updates)])
    predicted = epsilon + (1 - epsilon) / scheduled_sampling.LETTERS
    assert np.abs(found - predicted)[100:].mean() < 0.05
    assert max(doubles(lambda update: 0.0, updates)) < 0.4  # its own letters alone teach nothing


@pytest.fixture(scope="module")
def findings():
    text = corpora(docstrings()[:60_000], words=1)["characters"]
    judge = NGrams(4, tuple(text.training.tolist()), len(text.symbols))
    updates = 3 * len(BPTTBatcher(text.training, LANES, WINDOW))
    found = {}
    for name, schedule in (("forced", lambda _: 1.0), ("scheduled", inverse_sigmoid(updates))):
        torch.manual_seed(0)
        model = train(text.training, len(text.symbols), 32, epochs=3, feed=scheduled(schedule))
        found[name] = scheduled_sampling.examine(model, text, judge)
    return found


def test_own_symbols_cost_a_forced_model_more_and_a_scheduled_one_less(findings):
    cost = {name: found.fed[-1] - found.fed[0] for name, found in findings.items()}
    assert cost["forced"] > 0.5
    assert cost["scheduled"] < cost["forced"] / 2


def test_the_schedule_down_to_zero_spoils_the_loss_and_the_writing(findings):
    forced, schedule = findings["forced"], findings["scheduled"]
    assert schedule.loss > forced.loss + 0.2
    assert np.mean(schedule.written) > np.mean(forced.written) + 0.3


def test_the_judge_finds_no_growing_damage_with_the_distance(findings):
    written = np.array(findings["forced"].written)
    assert written[-32:].mean() < written[:32].mean() + 0.3


def test_the_command_trains_both_ways_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "figure.svg"
    options = f"--characters 12000 --units 8 --seeds 1 --epochs 1 --updates 20 --figure {figure}"
    shown = CliRunner().invoke(scheduled_sampling.main, options.split(), catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("scheduled, down to 0") == 2
    assert figure.read_text(encoding="utf-8").startswith("<?xml")
