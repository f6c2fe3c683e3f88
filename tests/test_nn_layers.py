"""Layers and containers by themselves: shapes, first values, registration, errors."""

import math
from collections import OrderedDict

import numpy as np
import pytest
from arrays import host

import tinygrad_rnn as torch
from tinygrad_rnn import nn

pytestmark = pytest.mark.usefixtures("device")


def _x(*shape):
    return torch.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def test_linear_starts_uniform_within_its_bound():
    torch.manual_seed(0)
    layer = nn.Linear(400, 300)
    for values in (layer.weight.detach().numpy(), layer.bias.detach().numpy()):
        assert np.abs(values).max() <= 1 / math.sqrt(400)
        assert np.abs(values).max() > 0.95 / math.sqrt(400)
        assert abs(values.mean()) < 0.1 / math.sqrt(400)
    torch.manual_seed(0)
    np.testing.assert_array_equal(host(nn.Linear(400, 300).weight), host(layer.weight))


def test_linear_options():
    layer = nn.Linear(3, 2, bias=False, dtype=np.float64)
    assert layer.bias is None
    assert list(layer.state_dict()) == ["weight"]
    assert layer.weight.dtype == np.float64
    assert nn.Linear(3, 2)(_x(4, 5, 3)).shape == (4, 5, 2)
    assert nn.Linear(0, 2)(torch.tensor(np.zeros((4, 0), np.float32))).shape == (4, 2)


def test_embedding_padding():
    layer = nn.Embedding(5, 3, padding_idx=-1)
    assert layer.padding_idx == 4
    assert not host(layer.weight)[4].any()
    assert host(layer.weight)[:4].all()
    with pytest.raises(ValueError, match="padding_idx"):
        nn.Embedding(5, 3, padding_idx=5)


def test_embedding_from_pretrained_shares_the_table():
    table = _x(4, 3)
    layer = nn.Embedding.from_pretrained(table, padding_idx=1)
    assert layer.weight.array is table.array
    assert not layer.weight.requires_grad
    assert layer.num_embeddings == 4
    assert layer.padding_idx == 1
    assert nn.Embedding.from_pretrained(table, freeze=False).weight.requires_grad
    with pytest.raises(ValueError, match=r"num_embeddings, embedding_dim.*\(3,\)"):
        nn.Embedding.from_pretrained(_x(3))


def test_dropout_follows_the_mode():
    layer = nn.Dropout(0.5)
    x = _x(100)
    assert layer(x).numpy().tolist() != x.numpy().tolist()
    assert layer.eval()(x) is x
    with pytest.raises(ValueError, match="between 0 and 1, but got 2"):
        nn.Dropout(2)


def test_layer_norm_parameters():
    layer = nn.LayerNorm((3, 2))
    assert layer.weight.shape == layer.bias.shape == (3, 2)
    assert host(layer.weight).all()
    assert not host(layer.bias).any()
    assert list(nn.LayerNorm(4, bias=False).state_dict()) == ["weight"]
    assert not list(nn.LayerNorm(4, elementwise_affine=False).parameters())


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.Embedding(3, 4, padding_idx=0), "Embedding(3, 4, padding_idx=0)"),
        (nn.Dropout(0.3), "Dropout(p=0.3, inplace=False)"),
        (
            nn.LayerNorm((3, 2), bias=False),
            "LayerNorm((3, 2), eps=1e-05, elementwise_affine=True, bias=False)",
        ),
        (nn.GELU("tanh"), "GELU(approximate='tanh')"),
        (nn.Softplus(), "Softplus(beta=1.0, threshold=20.0)"),
        (nn.Hardtanh(), "Hardtanh(min_val=-1.0, max_val=1.0)"),
        (nn.Softmax(dim=1), "Softmax(dim=1)"),
        (nn.LeakyReLU(), "LeakyReLU(negative_slope=0.01)"),
        (nn.ReLU(inplace=True), "ReLU(inplace=True)"),
        (nn.Identity(3, some="thing"), "Identity()"),
        (nn.CrossEntropyLoss(), "CrossEntropyLoss()"),
        (nn.Sequential(), "Sequential()"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_text(module, text):
    assert repr(module) == text


def test_loss_weights_are_buffers():
    loss = nn.CrossEntropyLoss(weight=_x(3).abs())
    assert list(loss.state_dict()) == ["weight"]
    assert not list(loss.parameters())
    assert loss.double().weight.dtype == np.float64
    assert list(nn.BCEWithLogitsLoss(pos_weight=_x(3)).state_dict()) == ["pos_weight"]
    assert nn.NLLLoss().weight is None


def test_sequential():
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    x = _x(4, 2)
    np.testing.assert_array_equal(
        net(x).detach().numpy(), net[2](net[1](net[0](x))).detach().numpy()
    )
    assert len(net) == 3
    assert net[-1] is net[2]
    head = net[:2]
    assert type(head) is nn.Sequential
    assert list(head.state_dict()) == ["0.weight", "0.bias"]
    assert list(net[1:].state_dict()) == ["2.weight", "2.bias"]
    net.append(nn.ReLU()).insert(0, nn.Identity()).extend([nn.Sigmoid()])
    assert [type(m).__name__ for m in net] == [
        "Identity", "Linear", "Tanh", "Linear", "ReLU", "Sigmoid",
    ]  # fmt: skip
    assert isinstance(net.pop(1), nn.Linear)
    del net[0]
    assert list(net.state_dict()) == ["1.weight", "1.bias"]
    net[0] = nn.GELU()
    assert isinstance(net[0], nn.GELU)
    with pytest.raises(IndexError, match="index 9 is out of range"):
        net[9]
    with pytest.raises(TypeError, match="int is not a Module subclass"):
        nn.Sequential(3)


def test_sequential_with_names():
    net = nn.Sequential(OrderedDict([("hidden", nn.Linear(2, 3)), ("squash", nn.Tanh())]))
    assert list(net.state_dict()) == ["hidden.weight", "hidden.bias"]
    assert net.hidden is net[0]
    assert isinstance(net[1:].squash, nn.Tanh)


def test_module_list():
    layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
    assert list(layers.state_dict())[::2] == ["0.weight", "1.weight", "2.weight"]
    assert len(layers[:2]) == 2
    assert layers[-1] is layers[2]
    layers += [nn.Tanh()]
    layers.insert(1, nn.ReLU())
    assert isinstance(layers[1], nn.ReLU)
    assert len(layers + [nn.Tanh()]) == 6  # noqa: RUF005 - the operator is the test
    del layers[1:3]
    assert [type(m).__name__ for m in layers] == ["Linear", "Linear", "Tanh"]
    assert repr(layers) == (
        "ModuleList(\n"
        "  (0-1): 2 x Linear(in_features=2, out_features=2, bias=True)\n"
        "  (2): Tanh()\n"
        ")"
    )
    with pytest.raises(TypeError, match="iterable, but got int"):
        nn.ModuleList(3)
    with pytest.raises(NotImplementedError, match="ModuleList"):
        layers(1)


def test_module_dict():
    layers = nn.ModuleDict({"b": nn.Linear(2, 2), "a": nn.Tanh()})
    layers["c"] = nn.ReLU()
    layers.update([("a", nn.Sigmoid())])
    assert list(layers) == list(layers.keys()) == ["b", "a", "c"]
    assert [type(m).__name__ for m in layers.values()] == ["Linear", "Sigmoid", "ReLU"]
    assert "a" in layers
    assert isinstance(layers.pop("c"), nn.ReLU)
    del layers["a"]
    assert dict(layers.items()) == {"b": layers["b"]}
    assert len(layers) == 1
    layers.clear()
    assert not len(layers)
    with pytest.raises(KeyError):
        layers["b"]


def test_parameter_list():
    values = nn.ParameterList([_x(2, 3), nn.Parameter(_x(2)), 3])
    assert [name for name, _ in values.named_parameters()] == ["0", "1"]
    assert isinstance(values[0], nn.Parameter)
    assert values[-1] == 3
    assert len(values) == 3
    values.append(_x(1))
    values += [_x(4)]
    assert [getattr(v, "shape", v) for v in values[1:]] == [(2,), 3, (1,), (4,)]
    values[1] = _x(5)
    assert values.get_parameter("1").shape == (5,)
    assert repr(values[:3]) == (
        "ParameterList(\n"
        "  (0): Parameter containing: [float32 of size 2x3]\n"
        "  (1): Parameter containing: [float32 of size 5]\n"
        "  (2): Object of type: int\n"
        ")"
    )
    with pytest.raises(IndexError, match="index 5 is out of range"):
        values[5]


def test_parameter_dict():
    values = nn.ParameterDict({"w": _x(2), "note": "text"})
    values["b"] = nn.Parameter(_x(3))
    assert [name for name, _ in values.named_parameters()] == ["w", "b"]
    assert list(values) == ["w", "note", "b"]
    assert list(values.keys()) == [key for key, _ in values.items()]
    assert len(values.values()) == 3
    assert values.pop("note") == "text"
    assert "note" not in values
    with pytest.raises(KeyError):
        values["note"]
    assert len(values) == 2
    assert "(b): Parameter containing: [float32 of size 3]" in repr(values)
