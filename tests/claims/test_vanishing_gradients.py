"""Chapter 5: powers of W_hh, slopes of tanh, radius and singular values, overflow, clipping."""

import numpy as np
import pytest
import vanishing_gradients
from click.testing import CliRunner

import tinygrad_rnn as torch

LINEAR, SMALL, LARGE = vanishing_gradients.KINDS


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def rate(kind, radius, steps=30):
    norms = vanishing_gradients.gradient_norms(kind, radius, steps)
    return np.exp((norms[0] - norms[-1]) / steps)


@pytest.mark.parametrize("radius", [0.5, 1.0, 1.5])
def test_without_tanh_the_radius_is_the_factor_per_step(radius):
    assert rate(LINEAR, radius) == pytest.approx(radius, rel=1e-4)


@pytest.mark.parametrize("kind", [SMALL, LARGE])
def test_below_one_it_vanishes_and_tanh_only_adds_to_that(kind):
    for radius in (0.5, 0.8):
        assert rate(kind, radius) <= radius


def test_above_one_it_need_not_explode():
    assert rate(LARGE, 1.1, steps=60) < 0.99
    assert rate(LARGE, 3.0) > 1.1
    assert rate(LARGE, 3.0) < 2.0


def test_gradients_are_those_of_the_formula():
    """The product of diag(1 - h²) W, in NumPy, for one sequence."""
    rnn = vanishing_gradients.scaled_rnn(1.2, inputs=4)
    xs, weights = torch.randn(10, 1, 4), torch.randn(1, 32)
    (flow,) = vanishing_gradients.gradient_flow(
        rnn, xs, lambda output: (weights * output[0][-1]).sum()
    )
    hs = rnn(xs)[0].detach().numpy()[:, 0]
    g, W = weights.numpy()[0], rnn.weight_hh_l0.detach().numpy()
    expected = [np.linalg.norm(g)]
    for h in hs[::-1]:
        g = (g * (1 - h**2)) @ W
        expected.append(np.linalg.norm(g))
    np.testing.assert_allclose(flow.norms("h"), expected[::-1], rtol=1e-4)


def test_a_radius_below_one_does_not_bound_fifty_steps():
    found = {
        name: (np.abs(np.linalg.eigvals(W)).max(), vanishing_gradients.norms_of_powers(W, 250))
        for name, W in vanishing_gradients.matrices_of_radius(0.9).items()
    }
    for radius, powers in found.values():
        assert radius == pytest.approx(0.9, abs=0.03)  # the chain's is hard to compute
        assert powers[-1] < powers.max()
    assert found["orthogonal"][1][50] < 0.01
    assert found["a chain of units"][1][50] > 1000


def test_relu_states_overflow_where_they_grow_and_not_where_they_shrink():
    assert 10 < vanishing_gradients.first_overflow(3, 400) < 400
    assert vanishing_gradients.first_overflow(0.9, 400) is None


def test_clipping_keeps_a_run_that_is_lost_without_it():
    lost = vanishing_gradients.train(None, updates=300)
    assert lost["lost"]
    clipped = vanishing_gradients.train(1.0, updates=300)
    assert not clipped["lost"]
    assert np.mean(clipped["losses"][-50:]) < 1 / 6


def test_a_smaller_learning_rate_does_it_too():
    assert not vanishing_gradients.train(None, updates=300, lr=0.03)["lost"]


def test_the_command_runs_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "figure.svg"
    options = ["--steps", "5", "--updates", "20", "--seeds", "1", "--figure", str(figure)]
    shown = CliRunner().invoke(vanishing_gradients.main, options, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert figure.exists()
