"""Modules against PyTorch's: outputs, gradients, state, text, defaults, hooks, training."""

import inspect
import re

import numpy as np
import pytest

from tinygrad_rnn import nn, random, tensor
from tinygrad_rnn.nn.utils import (
    clip_grad_norm_,
    get_total_norm,
    parameters_to_vector,
)

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("device")

TOLERANCE = {np.float64: 1e-10, np.float32: 2e-5}


class Ours:
    """One side of a comparison; `Theirs` is the other."""

    nn = nn
    dtype = staticmethod(lambda dtype: dtype)
    tensor = staticmethod(lambda array: tensor(np.asarray(array)))


class Theirs:
    nn = torch.nn
    dtype = staticmethod(lambda dtype: getattr(torch, np.dtype(dtype).name))
    tensor = staticmethod(lambda array: torch.from_numpy(np.asarray(array)))


def _numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def _classes(*shape, classes=5):
    return np.random.default_rng(1).integers(0, classes, shape)


def _uniform(*shape):
    return np.random.default_rng(2).uniform(0.1, 0.9, shape)


# name: (maker of the module from a package's nn, arrays to call it with)
MODULES = {
    "Linear": (lambda nn, t: nn.Linear(3, 4), [_numbers(2, 5, 3)]),
    "Linear no bias": (lambda nn, t: nn.Linear(3, 4, bias=False), [_numbers(5, 3)]),
    "Identity": (lambda nn, t: nn.Identity(), [_numbers(5, 3)]),
    "Embedding": (lambda nn, t: nn.Embedding(5, 3), [_classes(4, 2)]),
    "Embedding padding": (lambda nn, t: nn.Embedding(5, 3, padding_idx=2), [_classes(4, 2)]),
    "LayerNorm": (lambda nn, t: nn.LayerNorm(3), [_numbers(5, 3)]),
    "LayerNorm 2-d": (lambda nn, t: nn.LayerNorm((4, 3), eps=0.1, bias=False), [_numbers(5, 4, 3)]),
    "LayerNorm plain": (lambda nn, t: nn.LayerNorm(3, elementwise_affine=False), [_numbers(5, 3)]),
    "Dropout 0": (lambda nn, t: nn.Dropout(0.0), [_numbers(5, 3)]),
    "Tanh": (lambda nn, t: nn.Tanh(), [_numbers(5, 3)]),
    "Sigmoid": (lambda nn, t: nn.Sigmoid(), [_numbers(5, 3)]),
    "ReLU": (lambda nn, t: nn.ReLU(), [_numbers(5, 3)]),
    "LeakyReLU": (lambda nn, t: nn.LeakyReLU(0.2), [_numbers(5, 3)]),
    "GELU": (lambda nn, t: nn.GELU(), [_numbers(5, 3)]),
    "GELU tanh": (lambda nn, t: nn.GELU("tanh"), [_numbers(5, 3)]),
    "SiLU": (lambda nn, t: nn.SiLU(), [_numbers(5, 3)]),
    "Softplus": (lambda nn, t: nn.Softplus(2.0, 1.0), [_numbers(5, 3)]),
    "Hardtanh": (lambda nn, t: nn.Hardtanh(-0.5, 0.7), [_numbers(5, 3)]),
    "Softmax": (lambda nn, t: nn.Softmax(0), [_numbers(5, 3)]),
    "LogSoftmax": (lambda nn, t: nn.LogSoftmax(dim=-1), [_numbers(5, 3)]),
    "Sequential": (
        lambda nn, t: nn.Sequential(
            nn.Linear(3, 4), nn.LayerNorm(4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2))
        ),
        [_numbers(5, 3)],
    ),
    "MSELoss": (lambda nn, t: nn.MSELoss(), [_numbers(5, 3), _numbers(5, 3, seed=1)]),
    "L1Loss": (lambda nn, t: nn.L1Loss(reduction="sum"), [_numbers(5, 3), _numbers(5, 3, seed=1)]),
    "HuberLoss": (lambda nn, t: nn.HuberLoss(delta=0.5), [_numbers(5, 3), _numbers(5, 3, seed=1)]),
    "SmoothL1Loss": (
        lambda nn, t: nn.SmoothL1Loss(reduction="none", beta=0.5),
        [_numbers(5, 3), _numbers(5, 3, seed=1)],
    ),
    "CrossEntropyLoss": (lambda nn, t: nn.CrossEntropyLoss(), [_numbers(7, 5), _classes(7)]),
    "CrossEntropyLoss options": (
        lambda nn, t: nn.CrossEntropyLoss(
            t(_uniform(5)), ignore_index=2, label_smoothing=0.1, reduction="sum"
        ),
        [_numbers(7, 5, 3), _classes(7, 3)],
    ),
    "NLLLoss": (
        lambda nn, t: nn.NLLLoss(t(_uniform(5)), ignore_index=2),
        [_numbers(7, 5), _classes(7)],
    ),
    "BCELoss": (lambda nn, t: nn.BCELoss(t(_uniform(3))), [_uniform(4, 3), _uniform(4, 3)[::-1]]),
    "BCEWithLogitsLoss": (
        lambda nn, t: nn.BCEWithLogitsLoss(t(_uniform(3)), pos_weight=t(_uniform(3))),
        [_numbers(4, 3), _uniform(4, 3)],
    ),
    "KLDivLoss": (
        lambda nn, t: nn.KLDivLoss(reduction="batchmean", log_target=True),
        [_numbers(4, 3), _numbers(4, 3, seed=1)],
    ),
}  # fmt: skip


def _made(side, name):
    make, arrays = MODULES[name]
    return make(side.nn, side.tensor), arrays


def _run(side, module, arrays, dtype):
    module = module.to(side.dtype(dtype))
    inputs = []
    for array in arrays:
        array = np.ascontiguousarray(array)
        if array.dtype.kind == "f":
            inputs.append(side.tensor(array.astype(dtype)).requires_grad_())
        else:
            inputs.append(side.tensor(array))
    y = module(*inputs)
    y.backward(side.tensor(_numbers(*y.shape, seed=9)).to(side.dtype(dtype)))
    floats = [x for x in inputs if x.requires_grad]
    gradients = [t.grad.numpy() for t in [*floats, *module.parameters()]]
    return y.detach().numpy(), gradients


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", MODULES)
def test_outputs_and_gradients_with_pytorchs_state(name, dtype):
    mine, arrays = _made(Ours, name)
    other, _ = _made(Theirs, name)
    assert repr(mine.load_state_dict(other.state_dict())) == "<All keys matched successfully>"
    y, gradients = _run(Ours, mine, arrays, dtype)
    y_torch, gradients_torch = _run(Theirs, other, arrays, dtype)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, y_torch, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    for g, g_torch in zip(gradients, gradients_torch, strict=True):
        assert g.dtype == dtype
        np.testing.assert_allclose(g, g_torch, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("name", MODULES)
def test_state_goes_back_to_pytorch_under_equal_names(name):
    mine, _ = _made(Ours, name)
    other, _ = _made(Theirs, name)
    state = {
        key: torch.from_numpy(value.numpy().copy()) for key, value in mine.state_dict().items()
    }
    assert list(state) == list(other.state_dict())
    other.load_state_dict(state)
    for key, value in other.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), mine.state_dict()[key].numpy())


@pytest.mark.parametrize("name", MODULES)
def test_text_is_pytorchs(name):
    ours, theirs = (repr(_made(side, name)[0]) for side in (Ours, Theirs))
    if "bias" not in repr(torch.nn.LayerNorm(1)):  # newer versions of PyTorch name it
        ours = re.sub(r"(LayerNorm\(.*), bias=\w+", r"\1", ours)
    assert ours == theirs


def _containers(nn):
    return [
        nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Tanh())]),
        nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.ModuleList()}),
        nn.Sequential(),
    ]


def test_containers_text_and_state():
    for mine, other in zip(_containers(nn), _containers(torch.nn), strict=True):
        assert repr(mine) == repr(other)
        assert list(mine.state_dict()) == list(other.state_dict())


DEPRECATED = {"size_average", "reduce", "min_value", "max_value"}
IGNORED = {"args", "kwargs"}  # what Tanh and Sigmoid accept in PyTorch without a use for it
OWN = {name for name in nn.__all__ if "Attention" in name}  # PyTorch has others
LEFT_OUT = {
    "Embedding": {"max_norm", "norm_type", "scale_grad_by_freq", "sparse", "_freeze"},
}


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name in nn.__all__
        if inspect.isclass(getattr(nn, name))
        and name not in ("Module", "Parameter", "Sequential", "Identity", *OWN)
        and not issubclass(getattr(torch.nn, name), (torch.nn.RNNBase, torch.nn.RNNCellBase))
        and "Module" not in name
        and "Parameter" not in name
    ),
)
def test_constructors_take_pytorchs_arguments_with_its_defaults(name):
    mine = inspect.signature(getattr(nn, name)).parameters
    other = inspect.signature(getattr(torch.nn, name)).parameters
    expected = [p for p in other if p not in DEPRECATED | IGNORED | LEFT_OUT.get(name, set())]
    positional = [p for p in mine if mine[p].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert positional == expected[: len(positional)]
    assert set(mine) == set(expected)
    for parameter in expected:
        default = other[parameter].default
        if name in ("Softmax", "LogSoftmax"):
            default = inspect.Parameter.empty  # the implicit choice of an axis is deprecated
        assert mine[parameter].default == default or mine[parameter].default is default


def test_initial_values_have_pytorchs_distribution():
    random.manual_seed(0)
    torch.manual_seed(0)
    for make in (
        lambda nn: nn.Linear(30, 20000).weight,
        lambda nn: nn.Linear(30, 20000).bias,
        lambda nn: nn.Embedding(300, 200).weight,
    ):
        mine, other = make(nn).detach().numpy(), make(torch.nn).detach().numpy()
        quantiles = np.linspace(0.01, 0.99, 25)
        np.testing.assert_allclose(
            np.quantile(mine, quantiles), np.quantile(other, quantiles), atol=0.05 * other.std()
        )


@pytest.mark.parametrize(
    ("nonlinearity", "param"),
    [("linear", None), ("conv2d", None), ("sigmoid", None), ("tanh", None), ("relu", None),
     ("leaky_relu", None), ("leaky_relu", 0.3), ("selu", None)],
)  # fmt: skip
def test_gains(nonlinearity, param):
    assert nn.init.calculate_gain(nonlinearity, param) == torch.nn.init.calculate_gain(
        nonlinearity, param
    )


@pytest.mark.parametrize("norm_type", [1, 2, 3.5, float("inf")])
@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_clip_grad_norm(norm_type, max_norm):
    gradients = [_numbers(3, 4), _numbers(5, seed=1), _numbers(1, 2, 3, seed=2)]
    mine = [nn.Parameter(tensor(np.zeros(g.shape))) for g in gradients]
    other = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in gradients]
    for p, q, g in zip(mine, other, gradients, strict=True):
        p.grad, q.grad = tensor(g.copy()), torch.from_numpy(g.copy())
    norm = clip_grad_norm_(mine, max_norm, norm_type)
    norm_torch = torch.nn.utils.clip_grad_norm_(other, max_norm, norm_type)
    np.testing.assert_allclose(norm.item(), norm_torch.item(), rtol=1e-12)
    for p, q in zip(mine, other, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12)
    again = get_total_norm([p.grad for p in mine], norm_type)
    assert again.item() <= max(max_norm, norm.item())


def test_parameters_to_vector():
    mine, other = _made(Ours, "Sequential")[0], _made(Theirs, "Sequential")[0]
    mine.load_state_dict(other.state_dict())
    np.testing.assert_array_equal(
        parameters_to_vector(mine.parameters()).detach().numpy(),
        torch.nn.utils.parameters_to_vector(other.parameters()).detach().numpy(),
    )


def _hooked(side):
    """The gradients that the hooks of a small network see and change, as nested lists."""
    net = side.nn.Sequential(side.nn.Linear(3, 4), side.nn.Tanh(), side.nn.Linear(4, 2))
    net = net.to(side.dtype(np.float64))
    net.load_state_dict(
        {
            name: side.tensor(_numbers(*value.shape, seed=k))
            for k, (name, value) in enumerate(net.state_dict().items())
        }
    )
    seen = []
    note = lambda module, gi, go: seen.append(
        [type(module).__name__, *(None if g is None else g.tolist() for g in (*gi, *go))]
    )
    for module in net:
        module.register_full_backward_hook(note)
    net[1].register_full_backward_hook(lambda module, gi, go: (gi[0] * 2,))
    net.register_forward_pre_hook(lambda module, args: (args[0] * 3,))
    net[0].register_forward_hook(lambda module, args, y: y + 1)
    x = side.tensor(_numbers(5, 3)).requires_grad_()
    y = net(x)
    y.backward(side.tensor(_numbers(5, 2, seed=8)))
    return y.detach().numpy(), [x.grad.numpy(), *(p.grad.numpy() for p in net.parameters())], seen


def test_hooks():
    y, gradients, seen = _hooked(Ours)
    y_torch, gradients_torch, seen_torch = _hooked(Theirs)
    np.testing.assert_allclose(y, y_torch, rtol=1e-12)
    for g, g_torch in zip(gradients, gradients_torch, strict=True):
        np.testing.assert_allclose(g, g_torch, rtol=1e-12)
    assert [name for name, *_ in seen] == [name for name, *_ in seen_torch]
    for (_, *values), (_, *values_torch) in zip(seen, seen_torch, strict=True):
        for value, value_torch in zip(values, values_torch, strict=True):
            np.testing.assert_allclose(value, value_torch, rtol=1e-12, atol=1e-14)


def test_backward_hook_without_input_gradients():
    for side in (Ours, Theirs):
        seen = []
        layer = side.nn.Linear(3, 2)
        layer.register_full_backward_hook(lambda m, gi, go, seen=seen: seen.append((gi, go)))
        y = layer(side.tensor(_numbers(4, 3).astype(np.float32)))
        with pytest.warns(UserWarning, match="no inputs require gradients"):
            y.sum().backward()
        [(grad_input, grad_output)] = seen
        assert grad_input == (None,)
        assert grad_output[0].tolist() == [[1.0, 1.0]] * 4


LOADING = {
    "strict": ({"0.weight": (2, 2), "x": (1,)}, True),
    "lenient": ({"0.weight": (2, 3), "x": (1,)}, False),
    "lenient size": ({"0.weight": (2, 2)}, False),
    "scalar": ({"0.weight": (2, 3), "0.bias": ()}, True),
}


@pytest.mark.parametrize("name", LOADING)
def test_loading_says_what_pytorch_says(name):
    shapes, strict = LOADING[name]
    answers = []
    for side in (Ours, Theirs):
        net = side.nn.Sequential(side.nn.Linear(3, 2), side.nn.ReLU())
        state = {key: side.tensor(np.zeros(shape, np.float32)) for key, shape in shapes.items()}
        try:
            keys = net.load_state_dict(state, strict=strict)
            answers.append((list(keys.missing_keys), list(keys.unexpected_keys)))
        except RuntimeError as error:
            answers.append(str(error))
    mine, other = answers
    if isinstance(other, str):
        for size, ours in [
            ("[2, 3]", "(2, 3)"),
            ("[2, 2]", "(2, 2)"),
            ("[2]", "(2,)"),
            ("[]", "()"),
        ]:
            other = other.replace(f"torch.Size({size})", ours)
    assert mine == other


def test_loading_what_numpy_cannot_hold():
    with pytest.raises(RuntimeError, match=r'named "weight", an exception occurred: .*BFloat16'):
        nn.Linear(2, 1).load_state_dict(torch.nn.Linear(2, 1, dtype=torch.bfloat16).state_dict())


def test_training_follows_pytorch():
    """Gradient descent on a small classifier: the same losses, step by step."""
    x, target = _numbers(16, 4), _classes(16, classes=3)
    curves = []
    start = None
    for side in (Theirs, Ours):
        net = side.nn.Sequential(
            side.nn.Linear(4, 8), side.nn.LayerNorm(8), side.nn.GELU(), side.nn.Linear(8, 3)
        ).to(side.dtype(np.float64))
        start = start or {k: v.numpy().copy() for k, v in net.state_dict().items()}
        net.load_state_dict({k: side.tensor(v.copy()) for k, v in start.items()})
        loss_of, losses = side.nn.CrossEntropyLoss(label_smoothing=0.05), []
        for _ in range(20):
            net.zero_grad()
            loss = loss_of(net(side.tensor(x)), side.tensor(target))
            loss.backward()
            for p in net.parameters():
                p.data = p.data - 0.5 * p.grad
            losses.append(loss.item())
        curves.append(losses)
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-9)
    assert curves[1][-1] < 0.6 * curves[1][0]
