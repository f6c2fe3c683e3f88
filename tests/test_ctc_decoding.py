"""The decoders of examples/ctc_decoding.py, against all labellings and their probabilities."""

import itertools
import math

import numpy as np
import pytest
from ctc_decoding import best_path, prefix_beam_search
from test_ctc import collapsed, drawn, padded, probabilities

import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.creation import tensor

pytestmark = pytest.mark.usefixtures("device")

ALL = 10**6


def test_the_best_path_collapsed():
    rows = drawn(6, 3, seed=5)
    for blank in range(3):
        best = max(
            itertools.product(range(3), repeat=6),
            key=lambda path: math.prod(rows[range(6), path]),
        )
        assert best_path(tensor(np.log(rows)), blank) == collapsed(best, blank)
    assert best_path(tensor(np.eye(4)[[1, 1, 0, 1, 2, 2, 3, 0]])) == (1, 1, 2, 3)


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_search_that_drops_nothing_finds_every_labelling_and_its_probability(frames, blank):
    rows = drawn(frames, 3, seed=frames)
    found = prefix_beam_search(tensor(np.log(rows)), ALL, blank)
    expected = probabilities(rows, blank)
    assert len(found) == len(expected)
    for labelling, log_p in found:
        assert math.exp(log_p) == pytest.approx(expected[labelling], rel=1e-12)
    assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)


def test_the_most_probable_path_need_not_give_the_most_probable_labelling():
    """Blank twice has 0.36; but 1 has three paths, 0.16 + 0.24 + 0.24."""
    log_probs = tensor(np.log([[0.6, 0.4], [0.6, 0.4]]))
    assert best_path(log_probs) == ()
    (best, log_p), *_ = prefix_beam_search(log_probs, 2)
    assert best == (1,)
    assert math.exp(log_p) == pytest.approx(0.64)


def test_a_narrow_search_gives_lower_bounds_of_what_the_loss_gives():
    log_probs = tensor(np.log(drawn(30, 6, seed=1)))
    exact = {}
    for beam in (1, 4, 32):
        found = prefix_beam_search(log_probs, beam)
        assert len(found) == beam
        for labelling, log_p in found:
            loss = F.ctc_loss(log_probs, padded([labelling])[0], [30], [len(labelling)], 0, "sum")
            exact[beam] = max(exact.get(beam, -math.inf), -loss.item())
            assert log_p <= -loss.item() + 1e-9
    assert exact[1] <= exact[4] <= exact[32]


def test_equal_labellings_come_in_the_order_of_their_labels():
    found = prefix_beam_search(tensor(np.log(np.full((1, 4), 0.25))), 3)
    assert [labelling for labelling, _ in found] == [(), (1,), (2,)]


def test_a_beam_is_at_least_one():
    with pytest.raises(ValueError, match="beam must be at least 1, got 0"):
        prefix_beam_search(tensor(np.zeros((1, 2))), 0)
