"""One word moves a program to a GPU, and nothing moves by itself.

The truth of a moved program is the same program on the CPU. What GPUs are: test_cuda.py; two of
them: test_two_gpus.py; memory shared with other libraries: test_sharing.py.
"""

import copy
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from arrays import host

import tinygrad_rnn as torch
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn import backend, nn, optim
from tinygrad_rnn.nn.utils.rnn import pack_padded_sequence
from tinygrad_rnn.ops.devices import DeviceError
from tinygrad_rnn.scan import scan
from tinygrad_rnn.utils.data import DataLoader, TensorDataset

pytestmark = pytest.mark.usefixtures("gpu")


@pytest.fixture(scope="module")
def gpu(device):
    """The default device is a GPU; tensors of the other device say so."""
    if device == "cpu":
        pytest.skip("about a GPU beside the CPU")


def here(*shape):
    """Numbers on the GPU."""
    return torch.randn(*shape)


def there(*shape):
    """Numbers on the CPU."""
    return torch.randn(*shape, device="cpu")


# --- what a device is ----------------------------------------------------------------------------


def test_devices_by_name_and_number():
    assert str(torch.device("cuda")) == str(torch.device(0)) == "cuda:0"
    assert torch.device("cuda", 2) == "cuda:2"
    assert torch.device("cpu").index is None
    for wrong in ("gpu", "cuda:x", "cuda:-1", "tpu:0"):
        with pytest.raises(RuntimeError, match="expected 'cpu', 'cuda' or 'cuda:N'"):
            torch.device(wrong)


@pytest.mark.parametrize("make", [torch.zeros, torch.ones, torch.empty, torch.randn, torch.rand])
def test_tensors_are_made_on_the_default_device_or_on_the_one_named(make):
    assert make(2, 3).device == "cuda:0"
    assert make(2, 3, device="cpu").device == "cpu"
    assert make(2, 3, device="cuda").is_cuda


def test_other_makers_follow_the_default_device():
    array = np.arange(3.0)
    for x in (
        torch.tensor([1, 2]),
        torch.tensor(array),
        torch.as_tensor(array),
        torch.as_tensor([1.0]),
        torch.full((2,), 3),
        torch.arange(4),
        torch.linspace(0, 1, 3),
        torch.eye(2),
        torch.randint(5, (2,)),
        torch.randperm(3),
        torch.Tensor([1.0, 2.0]),
        torch.Tensor(2, 3),
        torch.FloatTensor([1.0]),
        torch.LongTensor(3),
    ):
        assert x.device == "cuda:0"
    # These wrap memory that is somewhere already.
    assert torch.from_numpy(array).device == torch.Tensor(array).device == "cpu"
    assert torch.tensor(torch.from_numpy(array)).device == "cpu"
    assert torch.as_tensor(torch.from_numpy(array)).device == "cpu"
    assert torch.asarray(there(2)).device == "cpu"
    like = there(2, 3)
    for x in (torch.zeros_like(like), torch.rand_like(like), like.new_zeros(2), like.new_tensor(1)):
        assert x.device == "cpu"
    assert here(2).new_tensor(array).device == "cuda:0"
    assert torch.tensor(here(2).array, device=None).device == "cuda:0"


def test_the_default_device_can_be_changed_and_goes_back():
    assert torch.get_default_device() == "cuda:0"
    try:
        torch.set_default_device("cpu")
        assert torch.zeros(2).device == "cpu"
        assert torch.tensor(torch.ones(2, device="cuda").array).device == "cuda:0"
    finally:
        torch.set_default_device("cuda")
    assert torch.zeros(2).is_cuda


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
def test_moving_keeps_every_bit(dtype):
    values = (np.random.default_rng(0).standard_normal((4, 6)) * 5).astype(dtype)
    for view in (values, values[:, ::2], values.T, values[:0], values[1, 2]):
        x = torch.from_numpy(np.asarray(view))
        moved = x.to("cuda")
        assert moved.is_cuda
        assert (moved.shape, moved.dtype) == (x.shape, x.dtype)
        for back in (moved.cpu(), moved.to("cpu"), moved.to(x)):
            assert back.device == "cpu"
            assert back.numpy().tobytes() == view.tobytes()
    assert moved.cuda() is moved.to("cuda:0") is moved.to(0) is moved
    assert x.to("cuda", torch.float64).dtype == "float64"


def test_a_move_is_recorded():
    x = there(2, 3).requires_grad_()
    y = (x.cuda() * here(2, 3)).cpu()
    y.sum().backward()
    assert y.device == x.grad.device == "cpu"
    w = here(3).requires_grad_()
    (w.cpu().square().sum()).backward()
    assert w.grad.is_cuda
    np.testing.assert_allclose(host(w.grad), 2 * host(w), rtol=1e-6)


# --- programs ------------------------------------------------------------------------------------


class Tagger(nn.Module):
    """Words, a two-layer LSTM in both directions, dropout, a choice for each step."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(11, 6, padding_idx=0)
        self.lstm = nn.LSTM(6, 5, num_layers=2, bidirectional=True, dropout=0.25)
        self.norm = nn.LayerNorm(10)
        self.out = nn.Linear(10, 4)
        self.register_buffer("scale", torch.tensor(0.5, device="cpu"))

    def forward(self, tokens):
        ys, _ = self.lstm(self.words(tokens))
        return self.out(self.norm(ys)) * self.scale


def train(device, make_optimizer, move):
    """Losses and parameters of a small training on a device; `move` says how it gets there."""
    torch.set_default_device("cpu")
    torch.set_default_dtype(torch.float64)  # rounding would be magnified from step to step
    try:
        torch.manual_seed(1)
        model = Tagger()
        draw = np.random.default_rng(2)
        tokens, tags = draw.integers(0, 11, (7, 8)), draw.integers(0, 4, (7, 8))
        data = TensorDataset(torch.tensor(tokens.T), torch.tensor(tags.T))
        model = move(model, device)
        optimizer = make_optimizer(model.parameters())
        losses = []
        for _ in range(3):
            for x, y in DataLoader(data, batch_size=4, shuffle=True):
                x, y = x.T.to(device), y.T.to(device)
                loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                losses.append(loss.item())
        return losses, [host(p.detach()) for p in model.parameters()]
    finally:
        torch.set_default_device("cuda")
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda params: optim.SGD(params, lr=0.5, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda params: optim.AdamW(params, lr=0.05, amsgrad=True),
        lambda params: optim.RMSprop(params, lr=0.01, centered=True, momentum=0.5),
        lambda params: optim.Adagrad(params, lr=0.1),
        lambda params: optim.Adadelta(params),
        lambda params: optim.ASGD(params, lr=0.1, t0=2),
    ],
    ids=["SGD", "AdamW", "RMSprop", "Adagrad", "Adadelta", "ASGD"],
)
@pytest.mark.parametrize("move", [nn.Module.to, lambda model, _: model.cuda()], ids=["to", "cuda"])
def test_a_program_trains_on_a_gpu_as_on_the_cpu(make_optimizer, move):
    on_cpu = train("cpu", make_optimizer, nn.Module.to)
    on_gpu = train("cuda", make_optimizer, move)
    np.testing.assert_allclose(on_gpu[0], on_cpu[0], rtol=1e-9)
    for a, b in zip(on_gpu[1], on_cpu[1], strict=True):
        assert a.dtype == b.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


def test_a_program_is_moved_from_outside():
    """TINYGRAD_RNN_DEVICE moves a program that names no device."""
    program = """
import numpy as np, sys
sys.path.insert(0, "tests")
import strict_double, strict_double.special
sys.modules["cupy"], sys.modules["cupyx.scipy.special"] = strict_double, strict_double.special
import tinygrad_rnn as torch
from tinygrad_rnn import nn
model = nn.GRU(3, 4)
optimizer = torch.optim.Adam(model.parameters())
batch = torch.as_tensor(np.ones((5, 2, 3), np.float32))
model(batch)[0].sum().backward()
optimizer.step()
kept = optimizer.state[model.weight_ih_l0]["exp_avg"]
print(model.weight_ih_l0.device, batch.device, kept.device)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TINYGRAD_RNN_DEVICE": "cuda"},
        capture_output=True,
        text=True,
    )
    assert ran.stdout.split() == ["cuda:0"] * 3, ran.stderr


@pytest.mark.parametrize("moved", ["cuda", "cpu"])
def test_a_model_is_moved_in_the_midst_of_training(moved):
    """Its gradients go with it at once, what the optimizer remembers at the next step."""
    start, end = ("cpu", "cuda") if moved == "cuda" else ("cuda", "cpu")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).to(start)
    stays = copy.deepcopy(model).to("cpu")
    optimizers = [optim.Adam(m.parameters(), lr=0.1) for m in (model, stays)]
    x = torch.randn(5, 3, device="cpu")
    parameters = list(model.parameters())
    for step in range(4):
        for m, optimizer in zip((model, stays), optimizers, strict=True):
            optimizer.zero_grad()
            m(x.to(next(m.parameters()))).square().mean().backward()
            if step == 2 and m is model:
                model.to(end)
                assert all(p.grad.device == p.device == end for p in model.parameters())
            optimizer.step()
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    for p, q in zip(model.parameters(), stays.parameters(), strict=True):
        assert p.device == optimizers[0].state[p]["exp_avg"].device == torch.device(end)
        np.testing.assert_allclose(host(p.detach()), host(q.detach()), rtol=1e-5, atol=1e-6)


def test_states_are_loaded_where_the_receiver_is():
    model, other = nn.GRU(3, 4).cuda(), nn.GRU(3, 4).to("cpu")
    other.load_state_dict(model.state_dict())
    assert other.weight_ih_l0.device == "cpu"
    np.testing.assert_array_equal(host(other.weight_ih_l0), host(model.weight_ih_l0))
    model.load_state_dict({name: w.numpy() for name, w in other.state_dict().items()})
    assert model.weight_ih_l0.is_cuda

    optimizer, received = optim.Adam(model.parameters()), optim.Adam(other.parameters())
    model(here(2, 1, 3))[0].sum().backward()
    optimizer.step()
    received.load_state_dict(optimizer.state_dict())
    assert received.state[other.weight_ih_l0]["exp_avg"].device == "cpu"
    np.testing.assert_array_equal(
        host(received.state[other.weight_ih_l0]["exp_avg"]),
        host(optimizer.state[model.weight_ih_l0]["exp_avg"]),
    )


def test_files_know_no_device(tmp_path):
    path = tmp_path / "x.safetensors"
    x = here(3)
    torch.save({"x": x}, path)
    assert torch.load(path)["x"].device == "cpu"
    loaded = torch.load(path, map_location="cuda")["x"]
    assert loaded.is_cuda
    np.testing.assert_array_equal(host(loaded), host(x))


def test_copy_brings_values_over():
    x = here(2, 3)
    y = there(3)
    assert x.copy_(y).is_cuda
    np.testing.assert_array_equal(host(x), np.broadcast_to(host(y), (2, 3)))
    assert y.copy_(x[0] * 2).device == "cpu"
    np.testing.assert_array_equal(host(y), host(x)[0] * 2)


# --- nothing moves by itself ---------------------------------------------------------------------

INDEX = torch.tensor([1, 0], device="cpu")
MASK = torch.tensor([True, False, True], device="cpu")
H = 4

MIXED = {
    "add": lambda: here(2, 3) + there(3),
    "add, the other way round": lambda: there(2, 3) + here(3),
    "a single number": lambda: here(2, 3) * there(),
    "a single number first": lambda: there() * here(2, 3),
    "an array of the host": lambda: here(2, 3) + np.ones(3, np.float32),
    "an array of the host first": lambda: np.ones(3, np.float32) * here(2, 3),
    "an array without axes": lambda: here(2, 3) + np.array(1.0, np.float32),
    "an array of a GPU": lambda: there(2, 3) + here(3).array,
    "matmul": lambda: here(2, 3) @ there(3, 4),
    "cat": lambda: torch.cat([there(2), here(2)]),
    "stack": lambda: torch.stack([here(2), there(2)]),
    "where, condition": lambda: torch.where(MASK, here(3), here(3)),
    "where, choice": lambda: torch.where(here(3) > 0, here(3), there(3)),
    "maximum": lambda: torch.maximum(here(3), there(3)),
    "comparison": lambda: here(3) == there(3),
    "einsum": lambda: torch.einsum("ij,j->i", here(2, 3), there(3)),
    "masked_fill": lambda: here(3).masked_fill(MASK, 0.0),
    "index": lambda: here(3)[INDEX],
    "index, the other way round": lambda: there(3)[torch.tensor([0, 1])],
    "index among slices": lambda: here(3, 4)[:, INDEX],
    "mask": lambda: here(3)[MASK],
    "an index array": lambda: here(3)[np.array([0, 1])],
    "index_select": lambda: here(3).index_select(0, INDEX),
    "gather": lambda: here(3).gather(0, INDEX),
    "scatter_add": lambda: here(3).scatter_add(0, INDEX, here(2)),
    "scatter_add, values": lambda: here(3).scatter_add(0, torch.tensor([0, 1]), there(2)),
    "add_": lambda: here(3).add_(there(3)),
    "mul_ by a single number": lambda: here(3).mul_(there()),
    "+=": lambda: here(3).__iadd__(there(3)),
    "fill_": lambda: here(3).fill_(there()),
    "masked_fill_": lambda: here(3).masked_fill_(MASK, 0.0),
    "assignment": lambda: here(3).__setitem__(0, there()),
    "assignment, index": lambda: here(3).__setitem__(INDEX, 1.0),
    "recorded assignment": lambda: here(3).requires_grad_().mul(2).__setitem__(0, there()),
    "scatter_": lambda: here(3).scatter_(0, INDEX, here(2)),
    "backward": lambda: here(3).requires_grad_().tanh().backward(there(3)),
    "total norm": lambda: nn.utils.get_total_norm([here(3), there(2)]),
    "hook": lambda: _backward_with(lambda g: g.cpu()),
    "embedding": lambda: F.embedding(INDEX, here(5, 2)),
    "mse_loss": lambda: F.mse_loss(here(2, 3), there(2, 3)),
    "cross_entropy": lambda: F.cross_entropy(here(2, 3), INDEX),
    "nll_loss": lambda: F.nll_loss(here(2, 3), INDEX),
    "binary_cross_entropy_with_logits": lambda: F.binary_cross_entropy_with_logits(
        here(3), MASK.float()
    ),
    "linear, bias": lambda: F.linear(here(2, 3), here(4, 3), there(4)),
    "layer_norm": lambda: F.layer_norm(here(2, 3), (3,), there(3)),
    "attention": lambda: nn.DotProductAttention()(here(2, 3), there(2, 4, 3)),
    "attention, mask": lambda: nn.DotProductAttention()(here(1, 3), here(1, 3, 3), mask=MASK[None]),
    "scan, state": lambda: scan(lambda x, h: (x, x + h), here(3, 2), there(2)),
    "scan, sequences": lambda: scan(
        lambda x, h: (x[0] * x[1], h), (here(3, 2), there(3, 2)), here(1)
    ),
    "scan, weights": lambda: _scan_with(there(2, 2)),
    "scan, an array": lambda: scan(lambda x, h: (x * np.ones(2), h), here(3, 2), here(2)),
    "scan, numbers drawn": lambda: scan(
        lambda x, h: (x * torch.rand(2, device="cpu"), h), here(3, 2), here(2)
    ),
}


def _backward_with(hook):
    """The backward pass of a tensor with a hook."""
    x = here(3).requires_grad_()
    x.register_hook(hook)
    (x * x).sum().backward()


def _scan_with(weight):
    """A recurrence whose cell closes over a weight."""

    def cell(x, h):
        h = (x + h @ weight).tanh()
        return h, h

    return scan(cell, here(3, 1, 2), here(1, 2))


@pytest.mark.parametrize("mixed", MIXED.values(), ids=MIXED.keys())
def test_two_devices_in_one_operation(mixed):
    with pytest.raises(RuntimeError) as caught:
        mixed()
    message = str(caught.value)
    assert type(caught.value) is DeviceError, message
    assert "is on cpu" in message
    assert "is on cuda:0" in message or "on cuda:0." in message
    assert "x.to('cuda:0') or x.to('cpu')" in message
    assert len(re.findall("float32|float64|int64|bool", message)) >= 2


def test_what_the_array_library_takes_in_silence_is_an_error_too(monkeypatch, xp):
    """CuPy itself takes some arrays of the host, as those of one number."""
    monkeypatch.setattr(xp, "multiply", lambda x, y: xp.zeros(3))
    with pytest.raises(DeviceError, match=r"multiply: operand 1 \(x\), .* operand 2 \(y\), \(\) "):
        here(3) * there()
    monkeypatch.setattr(np, "multiply", lambda x, y: xp.zeros(3))  # NumPy leaves it to CuPy
    with pytest.raises(DeviceError, match=r"multiply: operand 1 \(x\), \(\) .* operand 2 \(y\), "):
        there() * here(3)


def test_numbers_and_lists_are_no_tensors():
    x = here(3)
    y = (x * 2 + 1.5 - np.float64(1)) / np.float32(2)
    assert y.is_cuda
    assert y.dtype == "float32"
    assert x[[0, 2]].is_cuda
    assert x[[True, False, True]].shape == (2,)
    x[0] = 3
    x[[1, 2]] = 0.5
    x[1:] = [4, 5]
    assert x.tolist() == [3.0, 4.0, 5.0]


def test_the_message_says_which_is_where():
    with pytest.raises(DeviceError) as caught:
        torch.where(torch.tensor([True, False]), here(2), there(2))
    assert str(caught.value) == (
        "where: operand 1 (condition), (2,) bool, is on cuda:0, and operand 3 (y), (2,) float32, "
        "is on cpu. Nothing is moved by itself: move one of them, x.to('cuda:0') or x.to('cpu')"
    )
    with pytest.raises(DeviceError, match="Nothing is moved by itself, not even a single number: "):
        here(2) + there()


MODULES = {
    "Linear": (
        lambda: nn.Linear(3, 2),
        lambda: [there(5, 3)],
        "Linear, in matmul: input, (5, 3) float32, is on cpu, and weight, (2, 3) float32, is on "
        "cuda:0. ",
    ),
    "LSTM": (
        lambda: nn.LSTM(3, H),
        lambda: [there(5, 2, 3)],
        "LSTM, in scan: matmul: input, (5, 2, 3) float32, is on cpu, and weight_ih_l0, (16, 3) "
        "float32, is on cuda:0. ",
    ),
    "LSTM's state": (
        lambda: nn.LSTM(3, H),
        lambda: [here(5, 2, 3), (here(1, 2, H), there(1, 2, H))],
        "LSTM, in scan: multiply: input, (5, 2, 3) float32, is on cuda:0, and hx[1], (1, 2, 4) "
        "float32, is on cpu. ",
    ),
    "GRU, unrolled": (
        lambda: nn.GRU(3, H, mode="unroll"),
        lambda: [there(5, 2, 3)],
        "GRU, in matmul: input, (5, 2, 3) float32, is on cpu, and weight_ih_l0, (12, 3) float32, "
        "is on cuda:0. ",
    ),
    "packed": (
        lambda: nn.RNN(3, H),
        lambda: [pack_padded_sequence(there(5, 2, 3), [5, 2])],
        "RNN, in scan: matmul: input.data, (7, 3) float32, is on cpu, and weight_ih_l0, (4, 3) "
        "float32, is on cuda:0. ",
    ),
    "LSTMCell": (
        lambda: nn.LSTMCell(3, H),
        lambda: [here(2, 3), (there(2, H), there(2, H))],
        "hx[0], (2, 4) float32, is on cpu. ",
    ),
    "CrossEntropyLoss": (
        nn.CrossEntropyLoss,
        lambda: [here(2, 3), INDEX],
        "CrossEntropyLoss, in gather: input, (2, 3) float32, is on cuda:0, and target, (2,) int64, "
        "is on cpu. ",
    ),
    "the outermost that knows": (
        lambda: nn.Sequential(nn.Linear(3, 2), nn.Tanh()),
        lambda: [there(5, 3)],
        "Linear, in matmul: input, (5, 3) float32, is on cpu, and weight, ",
    ),
}


@pytest.mark.parametrize(("make", "inputs", "message"), MODULES.values(), ids=MODULES.keys())
def test_a_module_names_its_tensors(make, inputs, message):
    with pytest.raises(DeviceError) as caught:
        make()(*inputs())
    assert message in str(caught.value)
    assert str(caught.value).endswith("move one of them, x.to('cuda:0') or x.to('cpu')")


def test_a_module_of_any_signature_names_what_it_can():
    class Any(nn.Module):
        def forward(self, *args, **kwargs):
            return args[1] + kwargs["late"] if args else here(2) + there(2)

    with pytest.raises(DeviceError, match=r"Any, in add: args\[1\], \(2,\) .*, and late, \(2,\) "):
        Any()(1, here(2), late=there(2))
    with pytest.raises(DeviceError, match=r"^add: operand 1 \(x\), "):
        Any()()


def test_a_module_with_a_hook_names_its_tensors_too():
    layer = nn.Linear(3, 2)
    layer.register_forward_hook(lambda module, args, output: None)
    with pytest.raises(DeviceError, match="Linear, in matmul: input, "):
        layer(there(2, 3))


def test_an_optimizer_wants_gradients_where_the_parameters_are():
    p, q = here(3).requires_grad_(), here(2).requires_grad_()
    p.grad, q.grad = here(3), there(2)
    for params, name in (
        ([{"params": [p]}, {"params": [q]}], "parameter 0 of group 1"),
        ([p, q], "parameter 1 of group 0"),
        ([("first", p), ("second", q)], "parameter 'second'"),
    ):
        with pytest.raises(DeviceError) as caught:
            optim.Adam(params).step()
        assert str(caught.value).startswith(
            f"Adam.step: {name}, (2,) float32, is on cuda:0, and its gradient, (2,) float32, is on "
        )


def test_a_step_of_a_scan_moves_nothing():
    with pytest.raises(RuntimeError, match="moves a value of the step to another device"):
        scan(lambda x, h: (x.cpu(), h), here(3, 2), here(2))


def test_a_step_may_say_where_it_is():
    """A cell that asks for the device it is on gets it, and moves its own constants there."""
    weight = there(2, 2)

    def cell(x, h):
        assert x.device == h.device == "cuda:0"
        h = (x + h @ weight.to(x.device)).tanh()
        return h.to("cuda"), h

    ys, _ = scan(cell, here(3, 1, 2), here(1, 2))
    assert ys.is_cuda


def remembers(x, h):
    h = (x * h).tanh() + x[:, [1, 0]]
    return h, h


def forgets(x, h):
    """No cotangent reaches the state before: there it is zeros, of this device."""
    return h.detach() * x, (x * x).tanh()


@pytest.mark.parametrize("cell", [remembers, forgets])
def test_the_same_step_on_two_devices(cell):
    """What is worked out for one device is not run on the other."""
    x, h = there(4, 2, 2), there(2, 2)
    results = []
    for where in ("cpu", "cuda", "cpu"):
        leaves = [t.to(where).detach().requires_grad_() for t in (x, h)]
        ys, last = scan(cell, *leaves)
        total = ys.square().sum() + last.square().sum()
        first = torch.autograd.grad(total, leaves, create_graph=True, materialize_grads=True)
        squares = sum(g.square().sum() for g in first)
        second = torch.autograd.grad(squares, leaves, materialize_grads=True)
        results.append([host(t.detach()) for t in (ys, *first, *second)])
    for got in results[1:]:
        for a, b in zip(results[0], got, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


# --- where there is no GPU -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        lambda: torch.zeros(2, device="cuda"),
        lambda: there(2).cuda(),
        lambda: there(2).to("cuda"),
        lambda: nn.Linear(2, 3, device="cpu").cuda(),
        lambda: torch.set_default_device("cuda"),
        lambda: torch.tensor([1], device=0),
    ],
)
def test_whoever_asks_for_a_gpu_hears_what_is_missing(ask, monkeypatch):
    monkeypatch.setattr(backend, "_default_device", torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"^device 'cuda:0' needs CuPy, which .*pip install"):
        ask()


def test_the_environment_is_named_where_it_asks(monkeypatch):
    monkeypatch.setattr(backend, "_default_device", None)
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setenv("TINYGRAD_RNN_DEVICE", "cuda")
    with pytest.raises(RuntimeError, match=r"\(which TINYGRAD_RNN_DEVICE asks for\) needs CuPy"):
        torch.zeros(2)
    monkeypatch.setenv("TINYGRAD_RNN_DEVICE", "graphics")
    with pytest.raises(RuntimeError, match="TINYGRAD_RNN_DEVICE: device: 'graphics' is not"):
        torch.zeros(2)
    monkeypatch.setenv("TINYGRAD_RNN_DEVICE", "")
    assert torch.zeros(2).device == "cpu"


def test_a_gpu_of_another_number():
    count = torch.cuda.device_count()
    there_are = "is one GPU" if count == 1 else f"are {count} GPUs"
    with pytest.raises(RuntimeError, match=f"device 'cuda:7' does not exist: there {there_are}"):
        here(2).to("cuda:7")
    with pytest.raises(RuntimeError, match="device 'cuda:7' does not exist"):
        torch.set_default_device("cuda:7")
