"""Chapter 4: BPTT is the chain rule on the unrolled net; what truncation cuts is exactly zero."""

import numpy as np
import pytest
import through_time
from click.testing import CliRunner

import tinygrad_rnn as torch
from tinygrad_rnn import nn


def test_by_hand_by_graph_and_by_differences_agree():
    given = through_time.some_weights()
    hand = through_time.by_hand(**given)
    assert np.abs(given["h_0"]).min() > 0
    for name, one, two, three in zip(
        hand._fields,
        hand,
        through_time.by_graph(**given),
        through_time.by_differences(**given),
        strict=True,
    ):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-14, err_msg=name)
        np.testing.assert_allclose(one, three, rtol=1e-6, atol=1e-8, err_msg=name)


def test_shares_of_steps_add_up_to_the_gradient():
    """The share of each distance by hand: h_{t-1}ᵀ da_t of a loss on the last state."""
    torch.manual_seed(0)
    rnn = nn.RNN(4, 6)
    torch.manual_seed(1)
    found = through_time.shares(rnn, 8)
    torch.manual_seed(1)
    xs, h_0 = torch.randn(8, 1, 4), torch.randn(1, 6)
    W_x, W_h, b_x, b_h = (weight.detach().numpy() for weight in rnn.all_weights[0])
    hs = [h_0.numpy()]
    for x in xs.numpy():
        hs.append(np.tanh(x @ W_x.T + b_x + hs[-1] @ W_h.T + b_h))
    dh, expected = np.ones((1, 6)), []
    for t in range(8, 0, -1):
        da = dh * (1 - hs[t] ** 2)
        expected.append(np.linalg.norm(da.T @ hs[t - 1]))
        dh = da @ W_h
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_gradient_across_a_cut_is_exactly_zero():
    torch.manual_seed(0)
    model, xs = through_time.Echo(), torch.randn(8, 2, 1, requires_grad=True)
    h = model(xs[:4])[1]
    inside, _ = model(xs[4:], h)
    across, _ = model(xs[4:], h.detach())
    (whole,) = torch.autograd.grad(inside[-1].sum(), [xs], retain_graph=True)
    (cut,) = torch.autograd.grad(across[-1].sum(), [xs])
    assert (whole[:4] != 0).all()
    assert (cut[:4] == 0).all()
    assert torch.equal(cut[4:], whole[4:])


def test_a_window_longer_than_the_lag_learns_and_a_shorter_one_need_not():
    torch.manual_seed(0)
    assert through_time.train_truncated(8, lag=6, updates=400) > 0.95
    assert through_time.train_truncated(2, lag=6, updates=400) < 0.8


def test_a_window_shorter_than_the_lag_can_learn_all_the_same():
    torch.manual_seed(0)
    assert through_time.train_truncated(1, lag=4, updates=300) > 0.75


def test_something_is_learnt_without_any_gradient_through_time():
    torch.manual_seed(0)
    share = through_time.train_truncated(8, lag=3, updates=250, recurrence=False)
    assert share > 0.55  # of 8,000 answers; guessing would be within 0.02 of one half


def test_memory_is_linear_in_the_number_of_steps():
    (_, _, short), (_, _, long) = through_time.cost((20, 80))
    assert long / short == pytest.approx(4, rel=0.1)


def test_the_command_runs_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "figure.svg"
    options = ["--updates", "10", "--seeds", "1", "--figure", str(figure)]
    shown = CliRunner().invoke(through_time.main, options, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert figure.exists()
