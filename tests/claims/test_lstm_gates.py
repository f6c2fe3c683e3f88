"""Chapter 6: what the moves of an LSTM step are, and what becomes of the past with a gate shut."""

import lstm_gates
import numpy as np
import pytest
from click.testing import CliRunner

import tinygrad_rnn as torch
from tinygrad_rnn import nn


@pytest.fixture
def lstm():
    torch.manual_seed(3)
    return nn.LSTM(5, 7)


@pytest.fixture
def xs():
    return torch.randn(30, 1, 5)


def test_the_four_moves_are_an_lstm(lstm, xs):
    c = torch.randn(1, 7)
    output, (_, c_n) = lstm(xs, (torch.zeros(1, 1, 7), c.unsqueeze(0)))
    steps = lstm_gates.walk(lstm, xs, c)
    np.testing.assert_allclose(steps.h.detach().numpy(), output.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(steps.c[-1].detach().numpy(), c_n[0].detach().numpy(), atol=1e-6)


def test_a_forced_gate_is_exactly_shut_or_open(lstm, xs):
    steps = lstm_gates.walk(lstm_gates.force(lstm, forget=1, input=0, output=0), xs * 100)
    assert (steps.forget == 1).all()
    assert (steps.input == 0).all()
    assert (steps.output == 0).all()
    assert (lstm_gates.walk(lstm, xs).forget < 1).all()  # the original is as it was


def test_without_the_forget_gate_the_cell_is_gone_and_the_past_is_not(lstm, xs):
    found = lstm_gates.influence(lstm_gates.force(lstm, forget=0), xs)
    assert (found["c_0"] == 0).all()
    assert found["x_1"][1] > 1e-4  # by way of h


def test_without_forget_and_output_gate_the_past_is_gone(lstm, xs):
    found = lstm_gates.influence(lstm_gates.force(lstm, forget=0, output=0), xs)
    assert found["x_1"][0] > 1e-4
    assert (found["x_1"][1:] == 0).all()


def test_a_closed_input_gate_keeps_the_cell_only_if_the_forget_gate_is_open(lstm, xs):
    c = torch.randn(1, 7)
    kept = lstm_gates.walk(lstm_gates.force(lstm, input=0, forget=1), xs, c).c
    assert (kept == c).all()
    faded = lstm_gates.walk(lstm_gates.force(lstm, input=0), xs, c).c[-1]
    assert faded.abs().max() < 0.01 * c.abs().max()

    found = lstm_gates.influence(lstm_gates.force(lstm, input=0, forget=1), xs)
    np.testing.assert_allclose(found["c_0"], 1, rtol=1e-6)


def test_features_of_a_text():
    text = 'a = f("b c"'
    found = lstm_gates.features(text)
    marks = {name: "".join(str(int(x)) for x in values) for name, values in found.items()}
    assert marks["inside brackets"] == "00000111111"
    assert marks["inside quotes"] == "00000011110"
    assert marks["inside a word"] == "10001001010"


def test_the_command_learns_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    text = tmp_path / "text.txt"
    text.write_text('print("hello", [1, 2])\n' * 3000, encoding="utf-8")
    figure = tmp_path / "gates.svg"
    options = ["--text", str(text), "--units", "16", "--updates", "60", "--figure", str(figure)]
    shown = CliRunner().invoke(lstm_gates.main, options, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert float(shown.output.split()[1]) < 1.5  # ln(19 symbols) = 2.9 before
    assert figure.read_text(encoding="utf-8").startswith("<?xml")
