"""Every learning-rate schedule against PyTorch's, step by step."""

import inspect
import warnings

import numpy as np
import pytest

from tinygrad_rnn import optim
from tinygrad_rnn.tensor import Tensor

torch = pytest.importorskip("torch")

STEPS = 50


def bump(t):
    """A schedule with kinks."""
    return 0.1 + (t % 7) / (1 + t // 5)


CASES = [
    ("LambdaLR", {"lr_lambda": bump}),
    ("LambdaLR", {"lr_lambda": [bump, lambda t: 0.95**t]}),
    ("StepLR", {"step_size": 7}),
    ("StepLR", {"step_size": 1, "gamma": 0.9}),
    ("MultiStepLR", {"milestones": [30, 4, 9, 9], "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [0, 3]}),
    ("ExponentialLR", {"gamma": 0.93}),
    ("CosineAnnealingLR", {"T_max": 50}),
    ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.003}),
    ("ConstantLR", {}),
    ("ConstantLR", {"factor": 0.2, "total_iters": 12}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.01, "end_factor": 0.7, "total_iters": 21}),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 30}),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": 50}),
    ("OneCycleLR", {"max_lr": [0.3, 0.1], "epochs": 5, "steps_per_epoch": 10, "pct_start": 0.13}),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": 51, "anneal_strategy": "linear"}),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": 60, "three_phase": True}),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": 60, "div_factor": 3.0, "final_div_factor": 7.0}),
    (
        "OneCycleLR",
        {
            "max_lr": 0.3,
            "total_steps": 53,
            "base_momentum": [0.5, 0.6],
            "max_momentum": 0.8,
            "anneal_strategy": "linear",
            "three_phase": True,
        },
    ),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": 50, "cycle_momentum": False}),
    ("OneCycleLR", {"max_lr": 0.3, "total_steps": 50, "pct_start": 0.0}),
]


def optimizers(name="SGD", **options):
    """Ours and PyTorch's, each with two groups of different rates."""
    a, b = (Tensor(np.ones(2), requires_grad=True) for _ in range(2))
    c, d = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    ours = getattr(optim, name)([{"params": [a], "lr": 0.5}, {"params": [b]}], lr=0.02, **options)
    theirs = getattr(torch.optim, name)(
        [{"params": [c], "lr": 0.5}, {"params": [d]}], lr=0.02, **options
    )
    return ours, theirs


def schedule_of(library, name, optimizer, **options):
    return getattr(library.lr_scheduler, name)(optimizer, **options)


def assert_equal(ours, theirs, *schedules):
    for group, reference in zip(ours.param_groups, theirs.param_groups, strict=True):
        for option in ("lr", "momentum", "betas"):
            if option in reference:
                np.testing.assert_allclose(
                    group[option], reference[option], rtol=1e-12, atol=1e-16, err_msg=option
                )
    if schedules:
        ours, theirs = schedules
        np.testing.assert_allclose(ours.get_last_lr(), theirs.get_last_lr(), rtol=1e-12, atol=1e-16)
        assert ours.last_epoch == theirs.last_epoch


def step(*steppables):
    for steppable in steppables:
        steppable.step()


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_fifty_steps_equal_pytorch(name, options, kind):
    ours, theirs = optimizers(kind)
    schedule = schedule_of(optim, name, ours, **options)
    reference = schedule_of(torch.optim, name, theirs, **options)
    for _ in range(STEPS):
        assert_equal(ours, theirs, schedule, reference)
        step(ours, theirs, schedule, reference)
    assert_equal(ours, theirs, schedule, reference)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_continuing_with_last_epoch_equals_pytorch(name, options):
    """A schedule made anew over an optimizer whose state was loaded, as PyTorch allows."""
    ours, theirs = optimizers()
    pair = [schedule_of(optim, name, ours, **options)]
    pair.append(schedule_of(torch.optim, name, theirs, **options))
    for _ in range(13):
        step(ours, theirs, *pair)
    fresh, reference = optimizers()
    fresh.load_state_dict(ours.state_dict())
    reference.load_state_dict(theirs.state_dict())
    last = pair[0].last_epoch
    pair = [schedule_of(optim, name, fresh, **options, last_epoch=last)]
    pair.append(schedule_of(torch.optim, name, reference, **options, last_epoch=last))
    for _ in range(20):
        assert_equal(fresh, reference, *pair)
        step(fresh, reference, *pair)


@pytest.mark.parametrize(("name", "options"), [case for case in CASES if case[0] != "LambdaLR"])
def test_two_schedules_on_one_optimizer_equal_pytorch(name, options):
    """The second one multiplies what the first one set."""
    ours, theirs = optimizers()
    pair = [schedule_of(optim, "ExponentialLR", ours, gamma=0.97)]
    pair.append(schedule_of(torch.optim, "ExponentialLR", theirs, gamma=0.97))
    pair.append(schedule_of(optim, name, ours, **options))
    pair.append(schedule_of(torch.optim, name, theirs, **options))
    for _ in range(STEPS):
        assert_equal(ours, theirs)
        step(ours, theirs, *pair)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_deprecated_epoch_equals_pytorch(name, options):
    ours, theirs = optimizers()
    pair = [schedule_of(optim, name, ours, **options)]
    pair.append(schedule_of(torch.optim, name, theirs, **options))
    step(ours, theirs)
    for epoch in (1, 5, 6, 20, 3):
        for schedule in pair:
            with pytest.warns(UserWarning, match="epoch"):
                schedule.step(epoch)
        assert_equal(ours, theirs, *pair)


SEQUENCES = [
    (
        [("LinearLR", {"start_factor": 0.1, "total_iters": 8}), ("ExponentialLR", {"gamma": 0.9})],
        [8],
    ),
    (
        [
            ("LinearLR", {"start_factor": 0.1, "total_iters": 5}),
            ("CosineAnnealingLR", {"T_max": 30, "eta_min": 1e-3}),
        ],
        [5],
    ),
    (
        [
            ("ConstantLR", {"factor": 0.1, "total_iters": 40}),
            ("StepLR", {"step_size": 3}),
            ("MultiStepLR", {"milestones": [0, 4], "gamma": 0.5}),
        ],
        [6, 20],
    ),
    ([("StepLR", {"step_size": 2}), ("ConstantLR", {}), ("LinearLR", {})], [10, 11]),
    ([("LambdaLR", {"lr_lambda": bump}), ("ExponentialLR", {"gamma": 0.9})], [15]),
    ([("ExponentialLR", {"gamma": 0.9}), ("LinearLR", {})], [0]),
    ([("ExponentialLR", {"gamma": 0.9})], []),
]


@pytest.mark.parametrize(("schedules", "milestones"), SEQUENCES)
def test_sequences_equal_pytorch(schedules, milestones):
    ours, theirs = optimizers()
    pair = [
        library.lr_scheduler.SequentialLR(
            optimizer,
            [schedule_of(library, name, optimizer, **options) for name, options in schedules],
            milestones,
        )
        for library, optimizer in ((optim, ours), (torch.optim, theirs))
    ]
    for _ in range(STEPS):
        assert_equal(ours, theirs, *pair)
        step(ours, theirs, *pair)


PLATEAUS = [
    {},
    {"patience": 0, "factor": 0.5},
    {"patience": 2, "cooldown": 3, "factor": 0.7},
    {"patience": 1, "threshold": 0.3},
    {"patience": 1, "threshold": 0.1, "threshold_mode": "abs"},
    {"patience": 1, "mode": "max"},
    {"patience": 1, "mode": "max", "threshold": 0.1, "threshold_mode": "abs"},
    {"patience": 1, "min_lr": 0.01},
    {"patience": 1, "min_lr": [0.1, 0.001]},
    {"patience": 1, "eps": 0.005},
]


@pytest.mark.parametrize("options", PLATEAUS)
def test_plateaus_equal_pytorch(options):
    ours, theirs = optimizers()
    schedule = schedule_of(optim, "ReduceLROnPlateau", ours, **options)
    reference = schedule_of(torch.optim, "ReduceLROnPlateau", theirs, **options)
    rng = np.random.default_rng(0)
    for t in range(STEPS):
        metric = 2.0 ** -(t / 8) + 0.3 * rng.normal() if t % 11 else float("nan")
        schedule.step(Tensor(np.array(metric)))
        reference.step(metric)
        assert_equal(ours, theirs, schedule, reference)
        for attribute in ("best", "num_bad_epochs", "cooldown_counter", "in_cooldown"):
            assert getattr(schedule, attribute) == getattr(reference, attribute)


@pytest.mark.parametrize("name", [*dict(CASES), "ReduceLROnPlateau", "SequentialLR", "LRScheduler"])
def test_arguments_and_defaults_equal_pytorch(name):
    ours, theirs = (
        inspect.signature(getattr(library.lr_scheduler, name).__init__).parameters
        for library in (optim, torch.optim)
    )
    assert [(p.name, p.default) for p in ours.values()] == [
        (p.name, p.default) for p in theirs.values()
    ]


INVALID = [
    ("LambdaLR", {"lr_lambda": [bump]}),
    ("ConstantLR", {"factor": 1.5}),
    ("LinearLR", {"start_factor": 0.0}),
    ("LinearLR", {"end_factor": -0.1}),
    ("ReduceLROnPlateau", {"factor": 1.0}),
    ("ReduceLROnPlateau", {"mode": "least"}),
    ("ReduceLROnPlateau", {"threshold_mode": "relative"}),
    ("ReduceLROnPlateau", {"min_lr": [0.1]}),
    ("OneCycleLR", {"max_lr": 0.1}),
    ("OneCycleLR", {"max_lr": [0.1], "total_steps": 9}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 0}),
    ("OneCycleLR", {"max_lr": 0.1, "epochs": -1, "steps_per_epoch": 3}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 9, "pct_start": 2.0}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 9, "anneal_strategy": "square"}),
    ("SequentialLR", {"schedulers": [], "milestones": []}),
]


@pytest.mark.parametrize(("name", "options"), INVALID)
def test_invalid_arguments_raise_as_in_pytorch(name, options):
    ours, theirs = optimizers()
    with pytest.raises(ValueError):  # noqa: PT011 - the messages differ
        schedule_of(torch.optim, name, theirs, **options)
    with pytest.raises(ValueError):  # noqa: PT011
        schedule_of(optim, name, ours, **options)


def test_the_order_warning_comes_when_pytorch_warns():
    for stepped in (False, True):
        for library, optimizer in zip((optim, torch.optim), optimizers(), strict=True):
            schedule = schedule_of(library, "ExponentialLR", optimizer, gamma=0.9)
            if stepped:
                optimizer.step()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                step(schedule, schedule)
            messages = [str(warning.message) for warning in caught]
            expected = "Detected call of `lr_scheduler.step()` before `optimizer.step()`"
            assert [message.startswith(expected) for message in messages] == [True] * (not stepped)
