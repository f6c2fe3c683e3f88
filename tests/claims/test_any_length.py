"""Chapter 1: weights are shared over time, and a net that has learnt the rule takes any length."""

import any_length
import pytest

import tinygrad_rnn as torch


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    return any_length.train(units=8, updates=1500)


def test_what_was_learnt_on_ten_bits_holds_for_a_thousand(trained):
    model, losses = trained
    assert losses[-1] < 0.05
    assert any_length.accuracies(model)[1000] > 0.99


def test_an_untrained_net_runs_at_any_length_too_and_guesses():
    torch.manual_seed(0)
    found = any_length.accuracies(any_length.Parity(8), batch=1000)
    assert set(found) == set(any_length.LENGTHS)
    assert found[1000] == pytest.approx(0.5, abs=0.06)


def test_the_number_of_weights_does_not_depend_on_the_length():
    recurrent, feed_forward = zip(
        *(any_length.weights_needed(T, 8) for T in (1, 1000)), strict=True
    )
    assert recurrent[0] == recurrent[1] == 8 * 1 + 8 * 8 + 8 + 8 + 8 + 1
    assert feed_forward[1] - feed_forward[0] == 8 * 999


def test_the_gradient_of_the_shared_weight_is_the_sum_over_the_steps():
    torch.manual_seed(1)
    shared, of_copies = any_length.gradient_per_step(any_length.Parity(8))
    assert torch.allclose(shared, of_copies.sum(0), rtol=1e-4, atol=1e-8)
    assert of_copies[0].abs().max() == 0  # the first step reads h_0 = 0
    assert all(gradient.abs().max() > 1e-6 for gradient in of_copies[1:])
