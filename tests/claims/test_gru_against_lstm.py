"""Chapter 9: what a GRU saves against an LSTM, and that neither is better at everything."""

import gru_against_lstm
import pytest
from click.testing import CliRunner
from gru_against_lstm import CELLS, TASKS, Counting, weights

import tinygrad_rnn as torch
from tinygrad_rnn import nn


@pytest.mark.parametrize(("inputs", "units"), [(1, 1), (5, 7), (64, 33)])
def test_a_gru_has_three_quarters_of_the_weights(inputs, units):
    lstm, gru = (weights(CELLS[cell](inputs, units)) for cell in ("LSTM", "GRU"))
    assert lstm == 4 * units * (inputs + units + 2)
    assert 4 * gru == 3 * lstm


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("inputs", "outputs", "size"), [(1, 1, 1000), (32, 97, 35_000)])
def test_both_have_as_many_units_as_fit(cell, inputs, outputs, size):
    def of(units):
        return weights(CELLS[cell](inputs, units)) + weights(nn.Linear(units, outputs))

    units = gru_against_lstm.units_for(cell, inputs, outputs, size)
    assert of(units) <= size < of(units + 1)


def test_times_are_of_forward_and_backward():
    layers = {name: make(4, 8) for name, make in CELLS.items()}
    found = gru_against_lstm.times(layers, steps=5, batch=2, blocks=1)
    assert set(found) == set(CELLS)
    assert all(1e-7 < seconds < 1 for seconds in found.values())
    assert all(layer.weight_hh_l0.grad is not None for layer in layers.values())


def test_the_count_is_reached_at_the_last_letter_b():
    letters, reached = Counting.examples(torch.tensor([1, 3]), steps=8)
    assert letters[:, 0, 0].tolist() == [1, -1, -1, -1, -1, -1, -1, -1]
    assert letters[:, 1, 0].tolist() == [1, 1, 1, -1, -1, -1, -1, -1]
    assert reached[:, 0, 0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1]
    assert reached[:, 1, 0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]


def test_an_lstm_of_one_unit_can_count_to_any_number():
    net = gru_against_lstm.counter()
    assert net.recurrent.hidden_size == 1
    assert Counting().score(net) == gru_against_lstm.LARGEST - gru_against_lstm.COUNTED
    letters, reached = Counting.examples(torch.tensor([3000]), steps=6003)
    assert ((net(letters) > 0).float() == reached).all()


def test_the_state_of_a_gru_stays_between_minus_one_and_one_and_that_of_an_lstm_does_not():
    torch.manual_seed(0)
    gru = nn.GRU(1, 5)
    with torch.no_grad():
        for weight in gru.parameters():
            weight.normal_(0, 10)
    xs = torch.ones(200, 1, 1)
    assert gru(xs)[0].abs().max() <= 1
    _, (_, c) = gru_against_lstm.counter().recurrent(xs)
    assert c.item() == 200


def test_both_learn_a_text_about_as_well():
    task, nothing_known = TASKS["text"](), 4.0
    torch.manual_seed(0)
    with torch.no_grad():
        assert task.score(task.net("GRU")) > nothing_known
    ends = [
        gru_against_lstm.train(task, cell, rate=0.01, updates=150, seed=0).score for cell in CELLS
    ]
    assert max(ends) < 2.5
    assert max(ends) < 1.2 * min(ends)


def test_the_gru_learns_to_add_over_a_lag_where_the_lstm_does_not():
    task = TASKS["adding"]()
    scores = {
        cell: gru_against_lstm.train(task, cell, rate=0.01, updates=600, seed=0).score
        for cell in CELLS
    }
    assert scores["GRU"] < 0.02
    assert scores["LSTM"] > 0.1


def test_the_program_runs(tmp_path):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "scores.svg"
    options = f"--task counting --seeds 2 --updates 2 --figure {figure}".split()
    result = CliRunner().invoke(gru_against_lstm.main, options, catch_exceptions=False)
    assert result.exit_code == 0
    assert "LSTM  14 units,    967 weights" in result.output
    assert figure.read_text().startswith("<?xml")


def test_the_program_names_a_task_that_is_none():
    result = CliRunner().invoke(gru_against_lstm.main, ["--task", "chess"])
    assert result.exit_code == 2
    assert "'chess'" in result.output
