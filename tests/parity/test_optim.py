"""Every optimizer against PyTorch's, parameter by parameter and step by step."""

import inspect

import numpy as np
import pytest

import tinygrad_rnn
from tinygrad_rnn import optim
from tinygrad_rnn.tensor import Tensor

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("device")

STEPS = 50
SHAPES = [(), (1,), (3, 5), (7,), (2, 3, 4), (0, 3), (1, 9)]

CASES = [
    ("SGD", {}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.03}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.03}),
    ("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.03}),
    ("SGD", {"lr": 0.1, "momentum": 0.8, "maximize": True, "weight_decay": 0.03}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}),
    ("Adam", {"lr": 0.1, "betas": (0.0, 0.5), "weight_decay": 0.03}),
    ("Adam", {"lr": 0.1, "betas": (0.8, 0.6), "amsgrad": True}),
    ("Adam", {"lr": 0.1, "amsgrad": True, "maximize": True, "weight_decay": 0.03}),
    ("Adam", {"lr": 0.1, "decoupled_weight_decay": True, "weight_decay": 0.03}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.3, "amsgrad": True}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.3, "maximize": True}),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.8, "eps": 1e-3, "weight_decay": 0.03}),
    ("RMSprop", {"alpha": 0.8, "centered": True}),
    ("RMSprop", {"alpha": 0.8, "momentum": 0.7}),
    ("RMSprop", {"centered": True, "momentum": 0.7, "maximize": True, "weight_decay": 0.03}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.05, "weight_decay": 0.03, "eps": 1e-3}),
    ("Adagrad", {"lr": 0.1, "initial_accumulator_value": 0.5, "maximize": True}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.7, "eps": 1e-3, "weight_decay": 0.03}),
    ("Adadelta", {"maximize": True}),
    ("ASGD", {}),
    ("ASGD", {"lr": 0.1, "lambd": 0.02, "alpha": 0.6, "t0": 10, "weight_decay": 0.03}),
    ("ASGD", {"lr": 0.1, "lambd": 0.02, "t0": 0, "maximize": True}),
]
NAMES = ["-".join([name, *(f"{k}={v}" for k, v in options.items())]) for name, options in CASES]
MOST_OPTIONS = [case for case in CASES if len(case[1]) >= 3]

# Of the largest element, or of 1, the scale of the initial values: some parameters cross zero.
TOLERANCE = {np.float64: 1e-14, np.float32: 1e-6}


def assert_close(actual, expected, dtype):
    expected = expected.detach().numpy()
    scale = np.abs(expected).max(initial=1)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.fixture(params=[np.float64, np.float32], ids=["float64", "float32"])
def dtype(request):
    """The dtype under test; also PyTorch's default, in which its ASGD keeps η and μ."""
    earlier = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if request.param is np.float64 else torch.float32)
    yield request.param
    torch.set_default_dtype(earlier)


class Pair:
    """The same parameters in two groups, under our optimizer and under PyTorch's."""

    def __init__(self, name, options, dtype, seed=0):
        self.rng = np.random.default_rng(seed)
        values = [self.rng.normal(size=shape).astype(dtype) for shape in SHAPES]
        self.ours = [tinygrad_rnn.tensor(np.array(value), requires_grad=True) for value in values]
        self.theirs = [torch.tensor(value, requires_grad=True) for value in values]
        second = {"lr": 0.037, "weight_decay": 0.01}
        self.optimizer, self.reference = (
            kind(
                [{"params": params[:3]}, {"params": params[3:], **second}],
                **options,
            )
            for kind, params in (
                (getattr(optim, name), self.ours),
                (getattr(torch.optim, name), self.theirs),
            )
        )

    def step(self, number):
        """Give both the same gradients, None for some, and let them step."""
        for index, (p, q) in enumerate(zip(self.ours, self.theirs, strict=True)):
            g = self.rng.normal(size=p.shape).astype(p.dtype)
            skipped = (number + index) % 4 == 0
            p.grad = None if skipped else tinygrad_rnn.tensor(np.array(g))
            q.grad = None if skipped else torch.tensor(g)
        self.optimizer.step()
        self.reference.step()

    def assert_equal(self, dtype):
        for p, q in zip(self.ours, self.theirs, strict=True):
            assert p.dtype == dtype
            assert_close(p.detach().numpy(), q, dtype)


@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_fifty_steps_equal_pytorch(name, options, dtype):
    pair = Pair(name, options, dtype)
    for number in range(STEPS):
        pair.step(number)
        pair.assert_equal(dtype)


@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_options_and_state_names_equal_pytorch(name, options, dtype):
    pair = Pair(name, options, dtype)
    for number in range(3):
        pair.step(number)
    ours, theirs = pair.optimizer.state_dict(), pair.reference.state_dict()
    implementation = {"foreach", "fused", "capturable", "differentiable"}  # how, not what
    for group, reference in zip(ours["param_groups"], theirs["param_groups"], strict=True):
        assert group == {k: v for k, v in reference.items() if k not in implementation}
    assert ours["state"].keys() == theirs["state"].keys()
    for index, entries in ours["state"].items():
        assert entries.keys() == theirs["state"][index].keys()
        for entry, value in entries.items():
            assert_close(np.asarray(value), theirs["state"][index][entry], dtype)


@pytest.mark.parametrize(("name", "options"), MOST_OPTIONS)
def test_pytorchs_saved_state_continues_here(name, options, dtype):
    pair = Pair(name, options, dtype)
    for number in range(10):
        pair.step(number)
    pair.optimizer = getattr(optim, name)([{"params": pair.ours[:3]}, {"params": pair.ours[3:]}])
    pair.optimizer.load_state_dict(pair.reference.state_dict())
    for number in range(10, 20):
        pair.step(number)
        pair.assert_equal(dtype)


@pytest.mark.parametrize(("name", "options"), MOST_OPTIONS)
def test_our_saved_state_continues_in_pytorch(name, options, dtype):
    pair = Pair(name, options, dtype)
    for number in range(10):
        pair.step(number)
    saved = pair.optimizer.state_dict()
    for entries in saved["state"].values():
        for entry, value in entries.items():
            entries[entry] = torch.tensor(value.numpy() if isinstance(value, Tensor) else value)
    pair.reference = getattr(torch.optim, name)(
        [{"params": pair.theirs[:3]}, {"params": pair.theirs[3:]}]
    )
    pair.reference.load_state_dict(
        {
            **saved,
            "param_groups": [
                {**fresh, **group}
                for fresh, group in zip(
                    pair.reference.state_dict()["param_groups"], saved["param_groups"], strict=True
                )
            ],
        }
    )
    for number in range(10, 20):
        pair.step(number)
        pair.assert_equal(dtype)


def test_adams_state_loaded_by_adamw_is_decoupled_as_in_pytorch(dtype):
    pair = Pair("Adam", {"lr": 0.1, "weight_decay": 0.3}, dtype)
    for number in range(5):
        pair.step(number)
    saved, pair.optimizer = pair.optimizer.state_dict(), optim.AdamW(pair.optimizer.param_groups)
    pair.optimizer.load_state_dict(saved)
    saved, pair.reference = (
        pair.reference.state_dict(),
        torch.optim.AdamW([{"params": pair.theirs[:3]}, {"params": pair.theirs[3:]}]),
    )
    pair.reference.load_state_dict(saved)
    for number in range(5, 10):
        pair.step(number)
        pair.assert_equal(dtype)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "ASGD"])
def test_defaults_and_argument_order_equal_pytorch(name):
    """The arguments that both know come in the same order and have the same defaults."""
    ours = inspect.signature(getattr(optim, name).__init__).parameters
    theirs = inspect.signature(getattr(torch.optim, name).__init__).parameters
    shared = [argument for argument in theirs if argument in ours]
    assert [argument for argument in ours if argument in shared and argument != "maximize"] == [
        argument for argument in shared if argument != "maximize"
    ]
    for argument in shared:
        assert ours[argument].default == theirs[argument].default, argument


INVALID = [
    ("SGD", {"lr": -0.1}),
    ("SGD", {"momentum": -0.5}),
    ("SGD", {"weight_decay": -0.5}),
    ("SGD", {"nesterov": True}),
    ("SGD", {"nesterov": True, "momentum": 0.5, "dampening": 0.5}),
    ("Adam", {"lr": -1.0}),
    ("Adam", {"betas": (1.0, 0.5)}),
    ("Adam", {"betas": (0.5, -0.1)}),
    ("Adam", {"eps": -1.0}),
    ("AdamW", {"weight_decay": -1.0}),
    ("RMSprop", {"alpha": -1.0}),
    ("RMSprop", {"momentum": -1.0}),
    ("Adagrad", {"lr_decay": -0.5}),
    ("Adagrad", {"initial_accumulator_value": -0.5}),
    ("Adadelta", {"rho": 1.1}),
    ("ASGD", {"weight_decay": -0.5}),
]


@pytest.mark.parametrize(("name", "options"), INVALID)
def test_invalid_options_raise_as_in_pytorch(name, options):
    with pytest.raises(ValueError):  # noqa: PT011 - the messages differ
        getattr(torch.optim, name)([torch.zeros(2, requires_grad=True)], **options)
    with pytest.raises(ValueError, match=name):
        getattr(optim, name)([tinygrad_rnn.tensor(np.zeros(2), requires_grad=True)], **options)
