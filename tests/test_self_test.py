"""The doctor's self-test: right on every device, and every check of it can fail."""

import numpy as np
import pytest

import tinygrad_rnn as torch
from tinygrad_rnn import backend
from tinygrad_rnn.doctor import CHECKS, Check, self_test

pytestmark = pytest.mark.usefixtures("device")


def test_every_check_passes_on_every_device(device):
    state = torch.get_rng_state()
    for outcome in self_test([device]):
        assert outcome.passed, str(outcome)
        assert outcome.error <= 1e-4
        assert outcome.device == str(backend.device(device))
    # Whoever draws goes on as if nothing had been.
    assert torch.get_rng_state().tolist() == state.tolist()


def one_check(*comparisons, tolerance=1e-12):
    device = str(backend.get_default_device())
    (outcome,) = self_test([device], [Check("made up", lambda _device: comparisons, tolerance)])
    return outcome


def test_a_check_fails_that_is_not_right(device):
    truth = np.array([1.0, 2.0])
    right, wrong = torch.tensor(truth), torch.tensor(truth + 1)
    outcome = one_check(("x", right, truth), ("y", wrong, truth), ("z", wrong + 1, truth))
    assert not outcome.passed
    assert outcome.problem == "y is wrong by 5.0e-01 of its largest value, and may be by 1e-12"
    assert str(outcome).startswith(f"FAIL  {backend.device(device)!s:<7} made up ")
    assert not one_check(("nan", torch.tensor([np.nan, 2.0]), truth)).passed
    assert not one_check(("shape", torch.tensor([2.0]), truth)).passed
    bit = torch.tensor(np.nextafter(truth, 3))
    assert not one_check(("bits", bit, truth), tolerance=0).passed
    assert str(one_check(("bits", right, truth), tolerance=0)).endswith("exact")


def test_a_check_that_raises_is_told_in_one_line_and_the_others_go_on(device):
    def broken(_device):
        raise ValueError("first line\nsecond line")

    outcomes = list(self_test([device], [Check("broken", broken, 0), CHECKS[0]]))
    assert [each.passed for each in outcomes] == [False, True]
    assert outcomes[0].problem == "ValueError: first line second line"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_check_notices_a_wrong_truth(check, device):
    """Whatever a check compares, it compares: each truth, moved by little, is noticed."""

    compared = list(check.run(backend.device(device)))
    for number, (name, found, truth) in enumerate(compared):
        moved = np.asarray(truth).copy()
        place = np.unravel_index(np.abs(moved).argmax(), moved.shape)
        moved[place] = not moved[place] if moved.dtype == bool else moved[place] * 1.01
        moved[place] += moved.dtype.kind in "iu"
        spoilt = [*compared[:number], (name, found, moved), *compared[number + 1 :]]
        outcome = one_check(*spoilt, tolerance=check.tolerance)
        assert not outcome.passed, f"{name} notices nothing"
