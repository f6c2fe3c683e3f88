"""Chapter 3: two ways to the gradients of "hello", and why it needs a memory."""

import hello
import numpy as np
import pytest
from click.testing import CliRunner

import tinygrad_rnn as torch


@pytest.mark.parametrize("units", [1, 3, 8])
def test_by_hand_and_by_graph_agree(units):
    weights = hello.some_weights(units, seed=units)
    (loss, hand), (same_loss, graph) = hello.by_hand(weights), hello.by_graph(weights)
    assert loss == pytest.approx(same_loss, rel=1e-12)
    for name, one, other in zip(hello.Weights._fields, hand, graph, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-15, err_msg=name)
        assert np.abs(one).max() > 1e-4


@pytest.mark.parametrize("name", hello.Weights._fields)
def test_and_both_with_differences_of_the_loss(name):
    weights = hello.some_weights(3)
    gradient = getattr(hello.by_hand(weights)[1], name)
    direction = np.random.default_rng(1).standard_normal(gradient.shape)
    up, down = (
        hello.by_hand(weights._replace(**{name: getattr(weights, name) + step * direction}))[0]
        for step in (1e-6, -1e-6)
    )
    assert (up - down) / 2e-6 == pytest.approx((gradient * direction).sum(), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_with_memory_it_says_ello_and_without_it_cannot(seed):
    torch.manual_seed(seed)
    run = hello.train(units=3, updates=300)
    assert run.says == "ello"
    assert run.losses[-1] < 0.05
    forgetful = hello.train(units=3, updates=300, remembers=False)
    assert forgetful.says != "ello"
    least = np.log(2) / 2
    assert min(forgetful.losses) >= least - 1e-6
    assert forgetful.losses[-1] == pytest.approx(least, abs=0.03)


def test_the_command_runs_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "figure.svg"
    shown = CliRunner().invoke(
        hello.main, ["--updates", "2", "--figure", str(figure)], catch_exceptions=False
    )
    assert shown.exit_code == 0, shown.output
    assert figure.exists()
