"""Module: registration, order, state, modes, hooks and text."""

import copy
import gc
import weakref

import numpy as np
import pytest
from arrays import host

import tinygrad_rnn as torch
from tinygrad_rnn import nn
from tinygrad_rnn.autograd import grad
from tinygrad_rnn.tensor import Tensor

pytestmark = pytest.mark.usefixtures("device")


class Net(nn.Module):
    """Parameters, buffers and children, one child shared, one weight tied."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(np.ones(2)))
        self.first = nn.Linear(2, 3)
        self.register_buffer("count", torch.tensor(np.array(0)))
        self.register_buffer("mask", torch.tensor(np.ones(3)), persistent=False)
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
        self.again = self.first
        self.last = nn.Linear(3, 3)
        self.last.weight = self.inner[0].weight

    def forward(self, x, shift=0.0):
        return self.last(self.inner(self.first(x * self.scale))) + shift


NAMES = [
    "scale",
    "first.weight",
    "first.bias",
    "inner.0.weight",
    "inner.0.bias",
    "last.bias",
]


def _x(*shape):
    return torch.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def test_names_come_in_the_order_of_registration_and_shared_ones_once():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [id(p) for p in net.parameters()] == [id(net.get_parameter(n)) for n in NAMES]
    everything = [name for name, _ in net.named_parameters(remove_duplicate=False)]
    assert everything == [*NAMES[:5], "again.weight", "again.bias", "last.weight", "last.bias"]
    assert [name for name, _ in net.named_parameters(recurse=False)] == ["scale"]
    assert next(net.named_parameters(prefix="net"))[0] == "net.scale"
    assert [name for name, _ in net.named_buffers()] == ["count", "mask"]
    assert [name for name, _ in net.named_children()] == ["first", "inner", "last"]
    names = ["", "first", "inner", "inner.0", "inner.1", "last"]
    assert [name for name, _ in net.named_modules()] == names
    assert len(list(net.children())) == 3
    assert len(list(net.modules())) == 6


def test_state_dict_shares_arrays_and_leaves_out_non_persistent_buffers():
    net = Net()
    state = net.state_dict()
    assert list(state) == [
        "scale", "count", "first.weight", "first.bias", "inner.0.weight", "inner.0.bias",
        "again.weight", "again.bias", "last.weight", "last.bias",
    ]  # fmt: skip
    assert state["first.weight"].array is net.first.weight.array
    assert not state["first.weight"].requires_grad
    assert net.state_dict(keep_vars=True)["first.weight"] is net.first.weight
    assert "model.scale" in net.state_dict(prefix="model.")


def test_loading_writes_into_the_same_parameters():
    net, other = Net(), Net()
    parameters, arrays = list(net.parameters()), [p.array for p in net.parameters()]
    keys = net.load_state_dict(other.state_dict())
    assert repr(keys) == "<All keys matched successfully>"
    assert [p is q for p, q in zip(net.parameters(), parameters, strict=True)] == [True] * 6
    assert [p.array is a for p, a in zip(net.parameters(), arrays, strict=True)] == [True] * 6
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(host(p), host(q))
    assert net.first.weight.requires_grad


def test_loading_takes_numpy_arrays_and_converts_their_dtype():
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": np.array([[1.5, 2.5]]), "bias": np.array([3])})
    assert layer.weight.dtype == np.float32
    np.testing.assert_array_equal(host(layer.weight), [[1.5, 2.5]])
    np.testing.assert_array_equal(host(layer.bias), [3])


def test_strict_loading_lists_everything_wrong_and_writes_nothing():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = {name: tensor.numpy().copy() for name, tensor in net.state_dict().items()}
    state = dict(net.state_dict())
    del state["0.bias"], state["1.bias"]
    state["0.weight"] = np.zeros((2, 3))
    state["1.weight"] = np.zeros((3, 3))
    state["extra"] = np.zeros(1)
    with pytest.raises(RuntimeError) as error:
        net.load_state_dict(state)
    assert str(error.value) == (
        "Error(s) in loading state_dict for Sequential:\n"
        '\tMissing key(s) in state_dict: "0.bias", "1.bias". \n'
        '\tUnexpected key(s) in state_dict: "extra". \n'
        "\tsize mismatch for 1.weight: copying a param with shape (3, 3) from checkpoint, "
        "the shape in current model is (1, 2)."
    )
    for name, tensor in net.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name])


def test_lenient_loading_reports_names_but_not_sizes():
    layer = nn.Linear(3, 2)
    keys = layer.load_state_dict({"weight": np.zeros((2, 3)), "b": np.zeros(2)}, strict=False)
    assert keys.missing_keys == ["bias"]
    assert keys.unexpected_keys == ["b"]
    assert not host(layer.weight).any()
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        layer.load_state_dict({"weight": np.zeros((3, 3))}, strict=False)


def test_loading_what_is_no_state():
    layer = nn.Linear(3, 2)
    with pytest.raises(TypeError, match="dict-like, got <class 'list'>"):
        layer.load_state_dict([1])
    with pytest.raises(RuntimeError, match=r'named "bias".*received <class \'list\'>'):
        layer.load_state_dict({"weight": np.zeros((2, 3)), "bias": [0.0, 0.0]})


def test_assignment_moves_a_name_between_the_tables():
    net = nn.Module()
    net.x = 3
    assert net.x == 3
    net.x = nn.Parameter(torch.tensor(np.zeros(2)))
    assert "x" not in net.__dict__
    assert [name for name, _ in net.named_parameters()] == ["x"]
    net.x = nn.Tanh()
    assert not list(net.parameters())
    assert isinstance(net.x, nn.Tanh)
    net.x = None
    assert net.x is None
    assert not list(net.children())
    del net.x
    with pytest.raises(AttributeError, match="'Module' object has no attribute 'x'"):
        net.x  # noqa: B018 - the access is the test


def test_replacing_a_parameter_keeps_its_place():
    layer = nn.Linear(2, 3)
    layer.weight = nn.Parameter(torch.tensor(np.zeros((3, 2))))
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_a_buffer_takes_tensors_and_stays_a_buffer():
    net = Net()
    net.count = torch.tensor(np.array(7))
    assert net.state_dict()["count"].item() == 7
    net.count = None
    assert "count" not in net.state_dict()
    with pytest.raises(TypeError, match="as buffer 'count'"):
        net.count = 3
    del net.mask
    assert [name for name, _ in net.named_buffers()] == []


def test_wrong_assignments():
    layer = nn.Linear(2, 3)
    with pytest.raises(TypeError, match="cannot assign 'Tensor' as parameter 'weight'"):
        layer.weight = torch.tensor(np.zeros((3, 2)))
    net = nn.Sequential(layer)
    with pytest.raises(TypeError, match="as module '0'"):
        setattr(net, "0", 3)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (lambda: nn.Parameter(torch.tensor(np.zeros(1))), "cannot assign parameter before"),
        (lambda: nn.Linear(1, 1), "cannot assign module before"),
    ],
)
def test_forgetting_super_init_is_named(part, message):
    class Forgetful(nn.Module):
        def __init__(self):
            self.part = part()

    with pytest.raises(AttributeError, match=message):
        Forgetful()


def test_using_a_module_without_super_init_is_named():
    class Forgetful(nn.Module):
        def __init__(self):
            pass

    with pytest.raises(AttributeError, match=r"Forgetful.__init__ call super\(\).__init__\(\)"):
        Forgetful()(1)


def test_registration_errors():
    net = Net()
    with pytest.raises(KeyError, match="contain"):
        net.register_parameter("a.b", None)
    with pytest.raises(KeyError, match="contain"):
        setattr(net, "a.b", nn.Tanh())
    with pytest.raises(KeyError, match="empty string"):
        net.register_buffer("", None)
    with pytest.raises(KeyError, match="'forward' already exists"):
        net.register_module("forward", nn.Tanh())
    with pytest.raises(TypeError, match="should be a string"):
        net.register_parameter(3, None)
    with pytest.raises(TypeError, match="'Tensor' object to parameter 'p'"):
        net.register_parameter("p", torch.tensor(np.zeros(1)))
    with pytest.raises(TypeError, match="'int' object to buffer 'p'"):
        net.register_buffer("p", 3)
    with pytest.raises(TypeError, match="int is not a Module subclass"):
        net.add_module("p", 3)


def test_members_by_dotted_name():
    net = Net()
    assert net.get_submodule("inner.0") is net.inner[0]
    assert net.get_submodule("") is net
    assert net.get_parameter("inner.0.bias") is net.inner[0].bias
    assert net.get_buffer("count") is net.count
    with pytest.raises(AttributeError, match="Net has no attribute `nothing`"):
        net.get_submodule("nothing.0")
    with pytest.raises(AttributeError, match=r"`scale` is not an nn\.Module"):
        net.get_submodule("scale")
    with pytest.raises(AttributeError, match=r"`in_features` is not an nn\.Parameter"):
        net.get_parameter("first.in_features")
    with pytest.raises(AttributeError, match="`weight` is not a buffer"):
        net.get_buffer("first.weight")


def test_modes_and_freezing():
    net = Net()
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    net.train()
    assert all(module.training for module in net.modules())
    with pytest.raises(ValueError, match="boolean"):
        net.train("yes")
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())


def test_apply_visits_children_first():
    seen = []
    Net().apply(lambda module: seen.append(type(module).__name__))
    assert seen == ["Linear", "Linear", "Tanh", "Sequential", "Linear", "Net"]


def test_zero_grad():
    net = Net()
    net(_x(4, 2)).sum().backward()
    assert net.scale.grad.numpy().any()
    net.zero_grad(set_to_none=False)
    assert not net.scale.grad.numpy().any()
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_conversion_keeps_the_objects_and_their_gradients():
    net = Net()
    net(_x(4, 2)).sum().backward()
    parameters = list(net.parameters())
    assert net.double() is net
    assert [id(p) for p in net.parameters()] == [id(p) for p in parameters]
    assert all(p.dtype == p.grad.dtype == np.float64 for p in parameters)
    assert net.last.weight is net.inner[0].weight
    assert net.count.dtype == np.int64
    assert net.mask.dtype == np.float64
    net.float()
    assert all(p.dtype == np.float32 and p.is_leaf and p.requires_grad for p in parameters)
    net.to("cpu", np.float64)
    assert net.scale.dtype == np.float64
    net.to(_x(1))
    assert net.scale.dtype == np.float32
    net.to(dtype=np.float64).cpu()
    assert net.mask.dtype == np.float64
    with pytest.raises(TypeError, match="floating point dtypes, but got desired dtype=int64"):
        net.to(np.int64)


def test_deepcopy_is_independent_and_keeps_ties():
    net = Net()
    twin = copy.deepcopy(net)
    assert [name for name, _ in twin.named_parameters()] == NAMES
    assert twin.last.weight is twin.inner[0].weight
    assert twin.again is twin.first
    assert type(twin.first.weight) is nn.Parameter
    assert twin.first.weight.requires_grad
    x = _x(4, 2)
    np.testing.assert_array_equal(twin(x).detach().numpy(), net(x).detach().numpy())
    nn.init.zeros_(twin.first.weight)
    assert host(net.first.weight).any()


def test_missing_forward_is_named():
    with pytest.raises(NotImplementedError, match=r'Module \[Module\] is missing .* "forward"'):
        nn.Module()(1)


def test_forward_hooks_run_in_order_and_can_be_removed():
    layer, calls = nn.Identity(), []
    layer.register_forward_pre_hook(lambda m, args: calls.append("pre"))
    handle = layer.register_forward_hook(lambda m, args, y: calls.append("second"))
    layer.register_forward_hook(lambda m, args, y: calls.append("first"), prepend=True)
    layer(1)
    assert calls == ["pre", "first", "second"]
    handle.remove()
    handle.remove()
    layer(1)
    assert calls == ["pre", "first", "second", "pre", "first"]
    with layer.register_forward_hook(lambda m, args, y: calls.append("within")):
        layer(1)
    layer(1)
    assert calls.count("within") == 1


def test_forward_hooks_replace_arguments_and_outputs():
    net = Net()
    x = _x(4, 2)
    plain = net(x).detach().numpy()
    net.register_forward_pre_hook(lambda m, args: args[0] * 0)
    net.register_forward_pre_hook(
        lambda m, args, kwargs: ((x,), {"shift": kwargs["shift"] + 1}), with_kwargs=True
    )
    net.register_forward_hook(lambda m, args, kwargs, y: y * kwargs["shift"], with_kwargs=True)
    np.testing.assert_allclose(
        net(_x(1, 2), shift=2.0).detach().numpy(), (plain + 3) * 3, rtol=1e-5
    )
    net.register_forward_pre_hook(lambda m, args, kwargs: args, with_kwargs=True)
    with pytest.raises(RuntimeError, match="new_args, new_kwargs"):
        net(x, shift=1.0)


def test_backward_hook_sees_and_replaces_gradients():
    layer = nn.Linear(2, 3).double()
    seen = []

    def hook(module, grad_input, grad_output):
        seen.append((module, grad_input, grad_output))
        return (grad_input[0] * 10,)

    handle = layer.register_full_backward_hook(hook)
    x = torch.tensor(np.random.default_rng(0).standard_normal((4, 2))).requires_grad_()
    g = torch.tensor(np.random.default_rng(1).standard_normal((4, 3)))
    layer(x).backward(g)
    [(module, grad_input, grad_output)] = seen
    assert module is layer
    np.testing.assert_array_equal(grad_output[0].numpy(), g.numpy())
    expected = g.numpy() @ layer.weight.detach().numpy()
    np.testing.assert_allclose(grad_input[0].numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), 10 * expected, rtol=1e-12)
    np.testing.assert_allclose(layer.bias.grad.numpy(), g.numpy().sum(0), rtol=1e-12)
    handle.remove()
    layer(x).sum().backward()
    assert len(seen) == 1


def test_backward_hook_without_input_gradients_and_with_several_values():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor(np.array([2.0])))

        def forward(self, a, b, label):
            return a * self.w, b, label

    pair, seen = Pair(), []
    pair.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)))
    a, b = torch.tensor(np.array([3.0])), torch.tensor(np.array([5.0])).requires_grad_()
    y, z, label = pair(a, b, "name")
    assert label == "name"
    (y + z * 2).sum().backward()
    [(grad_input, grad_output)] = seen
    assert [g if g is None else g.item() for g in grad_input] == [None, 2.0, None]
    assert [g if g is None else g.item() for g in grad_output] == [1.0, 2.0, None]
    seen.clear()
    y, _, _ = pair(a, a, "name")
    with pytest.warns(UserWarning, match="no inputs require gradients"):
        y.sum().backward()
    assert [g for g in seen[0][0]] == [None, None, None]
    assert seen[0][1][0].item() == 1.0


def test_backward_hook_of_the_wrong_length():
    layer = nn.Tanh()
    layer.register_full_backward_hook(lambda m, gi, go: (None, None))
    x = _x(3).requires_grad_()
    with pytest.raises(RuntimeError, match="got 2, but expected 1"):
        layer(x).sum().backward()


def test_backward_hook_leaves_double_backward_intact():
    layer = nn.Tanh()
    layer.register_full_backward_hook(lambda m, gi, go: None)
    x = torch.tensor(np.array([0.3])).requires_grad_()
    layer(x).sum().backward(create_graph=True)
    first = x.grad
    x.grad = None
    first.sum().backward()
    t = np.tanh(0.3)
    np.testing.assert_allclose(x.grad.numpy(), [-2 * t * (1 - t * t)], rtol=1e-12)


def test_backward_hooks_make_no_cycle():
    """The graph of a call, recorded backward included, dies with its result."""
    layer = nn.Linear(2, 2)
    layer.register_full_backward_hook(lambda m, gi, go: None)
    x = _x(3, 2).requires_grad_()
    gc.collect()
    gc.disable()
    try:
        y = layer(x).tanh()
        (g,) = grad(y.sum(), [x], create_graph=True)
        watched = [weakref.ref(y), weakref.ref(g)]
        nodes = [weakref.ref(y.grad_fn), weakref.ref(g.grad_fn)]
        del y, g
        assert [ref() for ref in watched + nodes] == [None] * 4
    finally:
        gc.enable()


def test_text():
    assert repr(Net()) == (
        "Net(\n"
        "  (first): Linear(in_features=2, out_features=3, bias=True)\n"
        "  (inner): Sequential(\n"
        "    (0): Linear(in_features=3, out_features=3, bias=True)\n"
        "    (1): Tanh()\n"
        "  )\n"
        "  (again): Linear(in_features=2, out_features=3, bias=True)\n"
        "  (last): Linear(in_features=3, out_features=3, bias=True)\n"
        ")"
    )
    assert "first" in dir(Net())
    assert "scale" in dir(Net())


def test_parameter(device):
    data = torch.tensor(np.zeros(2))
    p = nn.Parameter(data)
    assert p.array is data.array
    assert p.requires_grad
    assert p.is_leaf
    assert isinstance(p, Tensor)
    assert type(p * 2) is Tensor
    where = "" if device == "cpu" else "device='cuda:0', "
    text = f"Parameter containing:\ntensor([1.], {where}requires_grad=True)"
    assert repr(nn.Parameter([1.0])) == text
    assert not nn.Parameter(data, requires_grad=False).requires_grad
