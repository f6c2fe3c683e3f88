"""Chapter 7: a GRU is a merged LSTM, its step lies between two states, and z says what lasts."""

import gru_interpolation
import numpy as np
import pytest
from click.testing import CliRunner

import tinygrad_rnn as torch
from tinygrad_rnn import nn
from tinygrad_rnn.scan import scan


@pytest.fixture
def gru():
    torch.manual_seed(4)
    return nn.GRU(5, 7)


@pytest.fixture
def xs():
    torch.manual_seed(5)
    return 3 * torch.randn(20, 2, 5)


def test_an_lstm_with_merged_gates_is_a_gru(gru, xs):
    h_0 = torch.randn(2, 7)
    merged, h = scan(gru_interpolation.MergedLSTM(gru), xs, h_0)
    hs, h_n = gru(xs, h_0.unsqueeze(0))
    np.testing.assert_allclose(merged.detach().numpy(), hs.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(h.detach().numpy(), h_n[0].detach().numpy(), atol=1e-6)


def test_every_new_state_lies_between_the_old_one_and_the_candidate(gru, xs):
    steps = gru_interpolation.walk(gru, xs)
    np.testing.assert_allclose(
        steps.after.detach().numpy(), gru(xs)[0].detach().numpy(), atol=1e-6
    )  # it is this GRU that is taken apart
    low = torch.minimum(steps.before, steps.candidate) - 1e-6
    high = torch.maximum(steps.before, steps.candidate) + 1e-6
    assert ((low <= steps.after) & (steps.after <= high)).all()
    share = (steps.candidate - steps.after) / (steps.candidate - steps.before)
    np.testing.assert_allclose(share.detach().numpy(), steps.z.detach().numpy(), atol=1e-2)


@pytest.mark.parametrize("z", [0.3, 0.9, 0.99])
def test_after_t_steps_z_to_the_t_is_left(z):
    np.testing.assert_allclose(gru_interpolation.lasting(z, 20), z ** np.arange(1, 21), rtol=1e-4)


def test_an_update_gate_of_one_keeps_the_state_and_of_zero_drops_it(gru, xs):
    h_0 = torch.randn(1, 2, 7)
    kept = gru_interpolation.hold(gru, 1)(xs, h_0)[1].detach().numpy()
    np.testing.assert_allclose(kept, h_0.numpy(), atol=1e-5)  # n + z (h - n) rounds
    dropped = gru_interpolation.walk(gru_interpolation.hold(gru, 0), xs)
    assert (dropped.after == dropped.candidate).all()


def test_a_trained_gru_moves_at_symbols_and_rests_in_noise_though_it_writes_anew():
    torch.manual_seed(0)
    model, shares = gru_interpolation.train(units=32, updates=250)
    assert np.mean(shares[-20:]) > 0.95
    use = gru_interpolation.use_of_the_state(model)
    assert use["a symbol"].moved > 3 * use["noise only"].moved
    assert use["noise only"].written > 0.5

    fresh = gru_interpolation.use_of_the_state(gru_interpolation.Recall(32))
    assert fresh["a symbol"].moved < 3 * fresh["noise only"].moved  # it was learnt


def test_the_command_runs_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "gru.svg"
    options = ["--units", "4", "--updates", "2", "--figure", str(figure)]
    shown = CliRunner().invoke(gru_interpolation.main, options, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert figure.exists()
