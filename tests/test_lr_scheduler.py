"""The schedules by their closed forms; their warnings, errors, saving and loading."""

import json
import math
import warnings

import numpy as np
import pytest

from tinygrad_rnn.creation import tensor
from tinygrad_rnn.optim import SGD, Adagrad, Adam, Optimizer
from tinygrad_rnn.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

pytestmark = pytest.mark.usefixtures("device")


def make(kind=SGD, lrs=(0.5,), **options):
    params = [tensor(np.ones(2), requires_grad=True) for _ in lrs]
    return kind([{"params": [p], "lr": lr} for p, lr in zip(params, lrs, strict=True)], **options)


def run(schedule, steps):
    """The rate of the first group before each step and after the last."""
    seen = [schedule.get_last_lr()[0]]
    for _ in range(steps):
        schedule.optimizer.step()
        schedule.step()
        assert schedule.get_last_lr() == [group["lr"] for group in schedule.optimizer.param_groups]
        seen.append(schedule.get_last_lr()[0])
    return seen


CLOSED_FORMS = [
    (lambda o: LambdaLR(o, lambda t: 1 / (1 + t)), lambda t: 0.5 / (1 + t)),
    (lambda o: StepLR(o, 3, gamma=0.5), lambda t: 0.5 * 0.5 ** (t // 3)),
    (lambda o: MultiStepLR(o, [5, 2]), lambda t: 0.5 * 0.1 ** ((t >= 2) + (t >= 5))),
    (lambda o: ExponentialLR(o, 0.9), lambda t: 0.5 * 0.9**t),
    (lambda o: ConstantLR(o, 0.25, 4), lambda t: 0.125 if t < 4 else 0.5),
    (lambda o: ConstantLR(o, 0.0, 4), lambda t: 0.0 if t < 4 else 0.5),
    (lambda o: LinearLR(o, 0.2, 1.0, 8), lambda t: 0.5 * (0.2 + 0.1 * min(t, 8))),
    (
        lambda o: CosineAnnealingLR(o, 5, eta_min=0.1),
        lambda t: 0.1 + 0.4 * (1 + math.cos(math.pi * t / 5)) / 2,
    ),
]


@pytest.mark.parametrize(("make_schedule", "closed_form"), CLOSED_FORMS)
def test_closed_forms(make_schedule, closed_form):
    assert run(make_schedule(make()), 25) == pytest.approx([closed_form(t) for t in range(26)])


def test_one_cycle_by_hand():
    """Up in 4 steps from 1 / 4 to 1, down in the other 5 to 1 / 16; momentum the other way."""
    schedule = OneCycleLR(
        make(momentum=0.9),
        max_lr=1.0,
        total_steps=10,
        pct_start=0.5,
        anneal_strategy="linear",
        div_factor=4.0,
        final_div_factor=4.0,
        base_momentum=0.5,
        max_momentum=0.9,
    )
    momenta = [schedule.optimizer.param_groups[0]["momentum"]]
    rates = [schedule.get_last_lr()[0]]
    for _ in range(9):
        rates += run(schedule, 1)[1:]
        momenta.append(schedule.optimizer.param_groups[0]["momentum"])
    fall = (1 - 1 / 16) / 5
    assert rates == pytest.approx(
        [0.25, 0.4375, 0.625, 0.8125, 1.0, *(1 - fall * t for t in range(1, 6))]
    )
    assert momenta == pytest.approx(
        [0.9, 0.8, 0.7, 0.6, 0.5, *(0.5 + 0.08 * t for t in range(1, 6))]
    )


def test_one_cycle_with_cosine_is_halfway_in_the_middle_of_a_phase():
    schedule = OneCycleLR(make(Adam), 1.0, total_steps=9, pct_start=5 / 9, div_factor=2.0)
    assert run(schedule, 2)[2] == pytest.approx(0.75)
    assert schedule.optimizer.param_groups[0]["betas"] == pytest.approx((0.9, 0.999))


def test_one_cycle_whose_rise_takes_no_step_starts_at_the_top():
    """PyTorch divides by the length of the phase, which is 0 here."""
    schedule = OneCycleLR(make(momentum=0.9), 1.0, total_steps=10, pct_start=0.1)
    assert run(schedule, 9)[::9] == pytest.approx([1.0, 1.0 / 25 / 1e4])


def test_one_cycle_ends():
    schedule = OneCycleLR(make(momentum=0.9), 1.0, total_steps=4)
    run(schedule, 4)
    with pytest.raises(ValueError, match=r"Tried to step 5 times.*total steps is 4"):
        run(schedule, 1)


def test_one_cycle_needs_a_momentum_to_cycle():
    with pytest.raises(ValueError, match="Adagrad has neither"):
        OneCycleLR(make(Adagrad), 1.0, total_steps=4)
    OneCycleLR(make(Adagrad), 1.0, total_steps=4, cycle_momentum=False)


def test_sequence_begins_each_schedule_from_the_first_rate():
    optimizer = make()
    warm_up = LinearLR(optimizer, 0.25, total_iters=3)
    decay = ExponentialLR(optimizer, 0.5)
    schedule = SequentialLR(optimizer, [warm_up, decay], milestones=[4])
    assert run(schedule, 6) == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.25, 0.125])


def test_sequences_nest():
    optimizer = make()
    inner = SequentialLR(
        optimizer, [ConstantLR(optimizer, 0.5, 99), ConstantLR(optimizer, 0.25, 99)], [2]
    )
    schedule = SequentialLR(optimizer, [ConstantLR(optimizer, 0.1, 99), inner], [3])
    assert run(schedule, 6) == pytest.approx([0.05] * 3 + [0.25] * 2 + [0.125] * 2)


def test_two_schedules_multiply():
    optimizer = make()
    steps, decay = StepLR(optimizer, 2), ExponentialLR(optimizer, 0.5)
    for _ in range(3):
        optimizer.step()
        steps.step()
        decay.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * 0.1 * 0.5**3)


def test_a_rate_changed_by_hand_is_kept():
    optimizer = make()
    schedule = StepLR(optimizer, 10)
    optimizer.param_groups[0]["lr"] = 0.125
    assert run(schedule, 3)[1:] == [0.125] * 3


def test_every_group_follows_from_its_own_rate():
    schedule = ExponentialLR(make(lrs=(0.5, 2.0)), 0.5)
    run(schedule, 2)
    assert schedule.get_last_lr() == [0.125, 0.5]


def test_rates_stay_python_floats():
    """An np.float64 rate would widen float32 parameters."""
    schedule = LambdaLR(make(), lambda t: np.cos(t))
    run(schedule, 2)
    assert [type(lr) for lr in schedule.get_last_lr()] == [float]
    assert type(schedule.optimizer.param_groups[0]["lr"]) is float


# --- the plateau ---------------------------------------------------------------------------------


def plateau(metrics, **options):
    schedule = ReduceLROnPlateau(make(lrs=(1.0,)), factor=0.5, **options)
    rates = []
    for metric in metrics:
        schedule.step(metric)
        rates += schedule.get_last_lr()
    return rates


def test_plateau_waits_for_patience():
    assert plateau([3, 2, 2, 2, 2, 1, 1], patience=2) == [1, 1, 1, 1, 0.5, 0.5, 0.5]


def test_plateau_cools_down():
    assert plateau([1] * 6, patience=0, cooldown=2) == [1, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_plateau_threshold():
    """10 % better than 10 is less than 9; better by 0.1 is less than 9.9."""
    assert plateau([10, 9.5], patience=0, threshold=0.1) == [1, 0.5]
    assert plateau([10, 9.5], patience=0, threshold=0.1, threshold_mode="abs") == [1, 1]
    assert plateau([10, 10.5], patience=0, threshold=0.1, mode="max") == [1, 0.5]
    assert plateau([10, 11.5], patience=0, threshold=0.1, mode="max") == [1, 1]


def test_plateau_has_a_floor_and_ignores_tiny_reductions():
    assert plateau([1] * 4, patience=0, min_lr=0.3) == [1, 0.5, 0.3, 0.3]
    assert plateau([1] * 3, patience=0, eps=0.3) == [1, 0.5, 0.5]


def test_plateau_takes_a_nan_for_no_improvement():
    assert plateau([1, math.nan], patience=0) == [1, 0.5]


def test_plateau_with_a_floor_per_group_notices_a_new_group():
    optimizer = make(lrs=(1.0, 1.0))
    schedule = ReduceLROnPlateau(optimizer, patience=0, min_lr=[0.1, 0.2])
    optimizer.add_param_group({"params": [tensor(np.ones(1), requires_grad=True)]})
    schedule.step(1.0)
    with pytest.raises(ValueError, match="min_lr has 2 values, the optimizer has 3 groups"):
        schedule.step(1.0)


# --- warnings and errors -------------------------------------------------------------------------


def test_warning_when_the_schedule_steps_before_the_optimizer():
    optimizer = make()
    schedule = StepLR(optimizer, 3)
    with pytest.warns(UserWarning, match=r"`lr_scheduler.step\(\)` before `optimizer.step\(\)`"):
        schedule.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule.step()  # once is enough


def test_a_sequence_warns_once():
    optimizer = make()
    schedule = SequentialLR(optimizer, [StepLR(optimizer, 3), StepLR(optimizer, 3)], [9])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        schedule.step()
        schedule.step()
    assert len(caught) == 1


def test_no_order_warning_for_an_optimizer_with_its_own_step():
    class Own(Optimizer):
        def step(self, closure=None):
            pass

    schedule = StepLR(make(Own, defaults={}), 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule.step()


def test_the_deprecated_epoch_is_the_number_of_steps():
    schedule = ExponentialLR(make(), 0.5)
    run(schedule, 4)
    with pytest.warns(UserWarning, match="epoch argument .* is deprecated"):
        schedule.step(2)
    assert (schedule.get_last_lr(), schedule.last_epoch) == ([0.125], 2)


def test_errors():
    optimizer = make()
    for kind, arguments in ((ExponentialLR, (0.5,)), (LambdaLR, (float,)), (OneCycleLR, (1.0, 5))):
        with pytest.raises(TypeError, match="list is not an Optimizer"):
            kind([], *arguments)
    with pytest.raises(KeyError, match=r"'initial_lr' is not specified in param_groups\[0\]"):
        ExponentialLR(optimizer, 0.5, last_epoch=3)
    with pytest.raises(NotImplementedError, match=r"LRScheduler must define get_lr"):
        LRScheduler(optimizer)
    with pytest.raises(ValueError, match="lr_lambda has 2 values, the optimizer has 1 groups"):
        LambdaLR(optimizer, [float, float])
    with pytest.raises(ValueError, match="start_factor 0; expected more than 0"):
        LinearLR(optimizer, 0)
    with pytest.raises(ValueError, match="mode 'least'; expected 'min' or 'max'"):
        ReduceLROnPlateau(optimizer, "least")


def test_errors_of_sequences():
    optimizer, other = make(), make()
    good = ExponentialLR(optimizer, 0.5)
    with pytest.raises(ValueError, match="got no scheduler"):
        SequentialLR(optimizer, [], [])
    with pytest.raises(ValueError, match="1 schedulers and 1 milestones"):
        SequentialLR(optimizer, [good], [3])
    with pytest.raises(ValueError, match="ExponentialLR at index 1 has another optimizer"):
        SequentialLR(optimizer, [good, ExponentialLR(other, 0.5)], [3])
    with pytest.raises(ValueError, match="ReduceLROnPlateau at index 1 is not supported"):
        SequentialLR(optimizer, [good, ReduceLROnPlateau(optimizer)], [3])
    with pytest.raises(TypeError, match="float at index 1 is not a scheduler"):
        SequentialLR(optimizer, [good, 0.5], [3])
    with pytest.raises(ValueError, match="continue a sequence with load_state_dict"):
        SequentialLR(optimizer, [good], [], last_epoch=3)


def test_a_group_added_later_needs_a_new_schedule():
    optimizer = make()
    schedule = LambdaLR(optimizer, lambda t: 1.0)
    optimizer.add_param_group({"params": [tensor(np.ones(1), requires_grad=True)]})
    optimizer.step()
    with pytest.raises(ValueError, match="made for 1 parameter groups, the optimizer now has 2"):
        schedule.step()


def test_a_subclass_defines_get_lr():
    class Noam(LRScheduler):
        def get_lr(self):
            t = self.last_epoch + 1
            return [base_lr * min(t**-0.5, t * 4**-1.5) for base_lr in self.base_lrs]

    assert run(Noam(make()), 8) == pytest.approx([0.5 * min(t**-0.5, t / 8) for t in range(1, 10)])


def test_a_subclass_may_override_step():
    """As in PyTorch, the constructor's first step is the overridden one."""

    class Counting(ExponentialLR):
        count = 0

        def step(self, epoch=None):
            self.count += 1
            super().step(epoch)

    schedule = Counting(make(), 0.5)
    assert (schedule.count, run(schedule, 2)) == (1, [0.5, 0.25, 0.125])


# --- saving and loading --------------------------------------------------------------------------


class Halving:
    """A callable object, whose attributes belong to the state."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, t):
        return self.factor**t


SCHEDULES = {
    "LambdaLR": lambda o: LambdaLR(o, Halving(0.5)),
    "StepLR": lambda o: StepLR(o, 3),
    "MultiStepLR": lambda o: MultiStepLR(o, [2, 7, 7, 8]),
    "ExponentialLR": lambda o: ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: CosineAnnealingLR(o, 4),
    "ConstantLR": lambda o: ConstantLR(o, 0.3, 8),
    "LinearLR": lambda o: LinearLR(o, 0.1, 1.0, 9),
    "OneCycleLR": lambda o: OneCycleLR(o, 1.0, total_steps=20, three_phase=True),
    "SequentialLR": lambda o: SequentialLR(
        o, [LinearLR(o, 0.1, 1.0, 4), CosineAnnealingLR(o, 9)], [4]
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("before", [0, 3, 6])
def test_training_continues_bit_for_bit(name, before):
    """Also through JSON, which a checkpoint is written in."""
    schedule = SCHEDULES[name](make(momentum=0.9))
    run(schedule, before)
    saved = json.loads(
        json.dumps([schedule.state_dict(), schedule.optimizer.state_dict()["param_groups"]])
    )
    successor = SCHEDULES[name](make(lrs=(7.0,), momentum=0.1))
    successor.load_state_dict(saved[0])
    successor.optimizer.load_state_dict({"state": {}, "param_groups": saved[1]})
    assert run(successor, 10) == run(schedule, 10)
    for option in ("lr", "momentum"):
        assert (
            successor.optimizer.param_groups[0][option]
            == schedule.optimizer.param_groups[0][option]
        )


def test_plateau_continues():
    metrics = [3, 2, 2.5, 2, 1, 1, 1, 1, 1, 1]
    schedule = ReduceLROnPlateau(make(), patience=1, cooldown=1)
    for metric in metrics[:4]:
        schedule.step(metric)
    saved = json.loads(json.dumps(schedule.state_dict()))
    successor = ReduceLROnPlateau(make(lrs=schedule.get_last_lr()), mode="max")
    successor.load_state_dict(saved)
    for metric in metrics[4:]:
        schedule.step(metric)
        successor.step(metric)
        assert successor.get_last_lr() == schedule.get_last_lr()


def test_functions_are_not_saved():
    schedule = LambdaLR(make(lrs=(1.0, 1.0)), [lambda t: 1.0, Halving(0.25)])
    assert schedule.state_dict()["lr_lambdas"] == [None, {"factor": 0.25}]
    successor = LambdaLR(make(lrs=(1.0, 1.0)), [lambda t: 0.5, Halving(0.75)])
    successor.load_state_dict(schedule.state_dict())
    run(successor, 1)
    assert successor.get_last_lr() == [0.5, 0.25]
