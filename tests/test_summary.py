"""diagnose.summary: parameters and FLOPs against closed forms, kept bytes against measured ones.

The closed forms are written from the equations in the layers' docstrings, the bytes are measured by
tracemalloc: neither shares code with what is tested.
"""

import contextlib
import gc
import tracemalloc

import numpy as np
import pytest

import tinygrad_rnn as torch
from tinygrad_rnn import nn, ops, scan
from tinygrad_rnn.diagnose import DiagnosisError
from tinygrad_rnn.diagnose.flops import COUNTS, flops
from tinygrad_rnn.diagnose.running import following
from tinygrad_rnn.diagnose.summary import summary
from tinygrad_rnn.diagnose.table import WIDTH
from tinygrad_rnn.modes import current
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.ops.elementwise import Elementwise
from tinygrad_rnn.ops.primitive import Primitive

pytestmark = pytest.mark.usefixtures("device")

T, B, D, H = 7, 3, 5, 4


def allocated(size):
    """The bytes that an array of so many takes: on a GPU, the pool hands out multiples of 512."""
    return -(-size // 512) * 512 if torch.zeros(1).device.type == "cuda" else size


def randn(*shape, **options):
    return torch.randn(*shape, generator=torch.Generator(3), **options)


# Parameters.


def test_parameters_of_nested_modules_by_path():
    model = nn.Sequential(nn.Embedding(11, 5), nn.Sequential(nn.Linear(5, 7), nn.Tanh()))
    found = summary(model, torch.zeros(2, 3, dtype=torch.int64))
    assert {row.path: row.parameters for row in found.rows} == {
        "": 0,
        "0": 11 * 5,
        "1": 0,
        "1.0": 5 * 7 + 7,
        "1.1": 0,
    }
    assert found.parameters == 11 * 5 + 5 * 7 + 7
    assert found.parameter_bytes == 4 * found.parameters
    assert [row.type for row in found.rows] == [
        *("Sequential", "Embedding", "Sequential", "Linear", "Tanh")
    ]


class Tied(nn.Module):
    """A language model whose head has the embedding's weight."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 5)
        self.head = nn.Linear(5, 11)
        self.head.weight = self.embedding.weight
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.embedding(x))


def test_shared_parameters_count_once_and_frozen_ones_are_marked():
    model = Tied()
    model.head.bias.requires_grad_(False)
    model.unused.requires_grad_(False)
    found = summary(model, torch.zeros(2, 3, dtype=torch.int64))
    rows = {row.path: row for row in found.rows}
    assert (rows["head"].parameters, rows["head"].frozen) == (11, 11)
    assert rows["head"].shared == {"weight": "embedding.weight"}
    assert rows["embedding"].shared == {}
    assert (found.parameters, found.frozen) == (55 + 11 + 6, 11 + 6)
    assert rows["unused"].calls == 0
    text = str(found)
    assert "shared: head.weight is embedding.weight, counted there" in text
    assert "frozen" in next(line for line in text.splitlines() if "head: Linear" in line)
    assert "not run" in next(line for line in text.splitlines() if "unused: Linear" in line)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.LSTM, 4), (nn.GRU, 3)])
def test_parameters_and_flops_of_recurrent_layers(kind, gates, layers, bidirectional):
    directions = 1 + bidirectional
    wanted_parameters = wanted_flops = 0
    for layer in range(layers):
        inputs = D if layer == 0 else directions * H
        wanted_parameters += directions * gates * H * (inputs + H + 2)
        products = 2 * gates * H * (inputs + H)
        # Additions of the bias and of the two products; then what the equations say.
        elementwise = {
            nn.RNN: 2 * H + H,  # tanh
            nn.LSTM: 8 * H + 9 * H,  # three sigmoids, two tanh; f c, i g, their sum, o tanh
            nn.GRU: 6 * H + 10 * H,  # two sums and sigmoids; r n, a sum, tanh; n + z (h - n)
        }[kind]
        once = {nn.RNN: H, nn.LSTM: 4 * H, nn.GRU: 0}[kind]  # the sum of the two biases
        wanted_flops += directions * (T * B * (products + elementwise) + once)
    for mode in ("scan", "unroll"):
        layer = kind(D, H, num_layers=layers, bidirectional=bidirectional, mode=mode)
        found = summary(layer, randn(T, B, D))
        assert found.parameters == wanted_parameters
        assert found.flops == wanted_flops
        assert found.rows[0].outputs[0] == (T, B, directions * H)


# FLOPs.


def test_flops_of_simple_layers():
    assert summary(nn.Linear(D, H), randn(T, B, D)).flops == T * B * (2 * D * H + H)
    assert summary(nn.Linear(D, H, bias=False), randn(B, D)).flops == B * 2 * D * H
    assert summary(nn.Embedding(9, D), torch.zeros(T, B, dtype=torch.int64)).flops == 0
    assert summary(nn.ReLU(), randn(T, B)).flops == T * B


@pytest.mark.parametrize(
    ("primitive", "shapes", "params", "wanted"),
    [
        (ops.matmul, [(3, 4), (4, 5)], {}, 2 * 3 * 4 * 5),
        (ops.matmul, [(7, 3, 4), (4, 5)], {}, 2 * 7 * 3 * 4 * 5),
        (ops.matmul, [(7, 3, 4), (7, 4, 5)], {}, 2 * 7 * 3 * 4 * 5),
        (ops.contract, [(7, 3, 4), (7, 3, 5)], {}, 2 * 7 * 3 * 4 * 5),
        (ops.einsum, [(3, 4), (4, 5)], {"inputs": ("ij", "jk"), "output": "ik"}, 2 * 3 * 4 * 5),
        (ops.einsum, [(3,), (4,)], {"inputs": ("i", "j"), "output": "ij"}, 3 * 4),
        (ops.einsum, [(3, 4)], {"inputs": ("ij",), "output": "i"}, 3 * 4),
        (ops.add, [(3, 1), (4,)], {}, 12),
        (ops.where, [(3, 4), (3, 4), ()], {}, 12),
        (ops.copy, [(3, 4)], {}, 0),
        (ops.reshape, [(3, 4)], {"shape": (12,)}, 0),
        (ops.sum, [(3, 4)], {"axes": (-1,), "keepdims": False}, 12),
        (ops.softmax, [(3, 4)], {"axes": (-1,)}, 60),
        (ops.sum_to, [(7, 3, 4)], {"shape": (4,)}, 84),
    ],
)
def test_flops_of_one_operation(primitive, shapes, params, wanted):
    arrays = [np.ones(shape, bool if primitive is ops.where and k == 0 else float)
              for k, shape in enumerate(shapes)]  # fmt: skip
    result = primitive(*arrays, **params)
    assert flops(primitive, arrays, [result], params) == wanted


def test_every_primitive_is_counted_by_a_rule():
    known = {x for module in (ops, ops.elementwise, ops.indexing, ops.reduction, ops.shape)
             for x in vars(module).values() if isinstance(x, Primitive)}  # fmt: skip
    assert len(known) > 80
    assert {x.name for x in known if x not in COUNTS and not isinstance(x, Elementwise)} == set()


class Own(nn.Module):
    """A scan of a cell that is a module, checkpointed or not."""

    def __init__(self, checkpoint=None):
        super().__init__()
        self.cell = nn.LSTMCell(D, H, bias=False)
        self.checkpoint = checkpoint

    def forward(self, xs):
        def step(x, state):
            h, c = self.cell(x, state)
            return h * 2, (h, c)

        zeros = torch.zeros(B, H)
        return scan.scan(step, xs, (zeros, zeros), checkpoint=self.checkpoint)


@pytest.mark.parametrize("checkpoint", [None, 3])
def test_flops_of_a_scan_are_those_of_its_steps(checkpoint):
    found = summary(Own(checkpoint), randn(T, B, D))
    assert found.flops == T * B * (2 * 4 * H * (D + H) + 4 * H + 9 * H + H)
    outer, cell = found.rows
    assert (outer.flops, cell.flops, cell.in_step, cell.calls) == (found.flops, 0, True, 1)
    assert cell.inputs == [(B, D), [(B, H), (B, H)]]
    assert "in a scan" in str(found)


def test_what_a_cell_computes_without_its_step_is_computed_once():
    W = randn(D, D)

    class Scaled(nn.Module):
        def forward(self, xs):
            return scan.scan(lambda x, h: (h, x @ (2 * W) + h), xs, torch.zeros(B, D))

    assert summary(Scaled(), randn(T, B, D)).flops == D * D + T * B * (2 * D * D + D)


def test_flops_of_a_scan_in_a_scan():
    def inner(x, h):
        h = h * x  # B
        return h, h

    def outer(x, h):
        _, h = scan.scan(inner, x, h)  # over 4 steps
        return h, h + 1

    class Nested(nn.Module):
        def forward(self, xs):
            return scan.scan(outer, xs, torch.zeros(B))

    assert summary(Nested(), randn(T, 4, B)).flops == T * (4 * B + B)


# Kept bytes.


def allocated_by(model, x, forget=False):
    """Bytes of arrays that live on because of a graph, the result's own memory not being one."""
    scan.forget()
    gc.collect()
    if x.device.type == "cuda":
        model(x)  # cuBLAS gets memory once
        scan.forget()
        gc.collect()
        used = torch.cuda.memory_allocated()
        loss = model(x).sum()
        if forget:
            scan.forget()
        gc.collect()
        assert loss.requires_grad
        return torch.cuda.memory_allocated() - used
    domain = tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)
    tracemalloc.start()
    try:
        loss = model(x).sum()
        if forget:
            scan.forget()
        gc.collect()
        held = tracemalloc.take_snapshot().filter_traces([domain])
    finally:
        tracemalloc.stop()
    assert loss.requires_grad
    return sum(trace.size for trace in held.traces)


class First(nn.Module):
    """The first of a module's results."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)[0]


class Square(torch.autograd.Function):
    """Keeps its operand, and half of it as an attribute."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.half = x.array * 0.5
        return x * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g * ctx.saved_tensors[0]


class Views(nn.Module):
    """Operations that keep views, index arrays, masks, the same array several times."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(randn(60, 80))

    def forward(self, x):
        y = x @ self.weight
        a, b = y.chunk(2, -1)
        z = a * b + a.tanh()
        return Square.apply(F.dropout(z[torch.arange(150) % 50], 0.5))


MODELS = {
    "MLP": lambda: nn.Sequential(nn.Linear(60, 80), nn.Tanh(), nn.Linear(80, 70), nn.Sigmoid()),
    "views": Views,
    "unrolled LSTM": lambda: First(nn.LSTM(60, 80, mode="unroll")),
    "LSTM": lambda: First(nn.LSTM(60, 80)),
    "GRU": lambda: First(nn.GRU(60, 80, num_layers=2, bidirectional=True)),
}


class Checkpointed(nn.Module):
    """A scan that keeps little."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(60, 80)

    def forward(self, xs):
        def step(x, h):
            h = self.cell(x, h)
            return h, h

        return scan.scan(step, xs, torch.zeros(xs.shape[1], 80, dtype=xs.dtype), checkpoint=5)


def test_kept_bytes_with_checkpoints():
    """The memory of the last run is idle, and not held; it goes when it is forgotten."""
    model, x = First(Checkpointed()), randn(50, 32, 60)
    measured = allocated_by(model, x, forget=True)
    assert summary(model, x).kept == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_kept_bytes_are_those_allocated(name, dtype):
    model, x = MODELS[name]().to(dtype), randn(50, 32, 60, dtype=dtype)
    measured = allocated_by(model, x)
    scan.forget()
    found = summary(model, x)
    assert found.kept == pytest.approx(measured, rel=0.02)


def test_kept_bytes_of_a_scan_tell_its_working_memory():
    scan.forget()
    assert summary(nn.LSTM(D, H), randn(T, B, D)).working > 0
    assert summary(nn.LSTM(D, H, mode="unroll"), randn(T, B, D)).working == 0


def test_kept_by_hand():
    """tanh keeps its result, and the product its left operand, which is the same array."""
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 7))
    rows = summary(model, randn(3, 5)).rows
    assert [row.kept for row in rows] == [0, 0, allocated(4 * 3 * 6), 0]
    assert summary(model.requires_grad_(False), randn(3, 5)).kept == 0
    assert summary(nn.Tanh(), randn(3, 5)).kept == 0  # nothing wants a gradient


def test_what_inputs_were_computed_from_does_not_count():
    model, x = nn.Sequential(nn.Linear(5, 6), nn.Tanh()), randn(3, 5, requires_grad=True)
    assert summary(model, x.exp().sin()).kept == summary(model, x).kept == allocated(4 * 3 * 6)


# A run leaves no trace.


class Restless(nn.Module):
    """Changes whatever a forward pass can change."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.generator = torch.Generator(5)
        self.seen = []
        self.last = None
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("scale", torch.ones(4))
        self.fail = False

    def forward(self, x):
        with torch.no_grad():
            self.mean.mul_(0.9).add_(x.mean(0) * 0.1)
        self.steps = self.steps + 1
        self.scale.data = self.scale * 2
        self.seen.append(x)
        self.last = x
        self.train(not self.training)
        x = self.linear(F.dropout(x)) + torch.rand(4, generator=self.generator)
        x.sum().backward()
        if self.fail:
            raise ValueError("on purpose")
        return x


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_summary_changes_nothing(fail, training):
    model = Restless().train(training)
    model.fail = fail
    grad = model.linear.weight.grad = torch.ones(4, 4)
    mean, steps = model.mean, model.steps
    attributes = dict(vars(model))
    torch.manual_seed(7)
    states = torch.get_rng_state().tolist(), model.generator.get_state().tolist()
    if fail:
        with pytest.raises(ValueError, match="on purpose"):
            summary(model, randn(3, 4))
    else:
        summary(model, randn(3, 4))
    assert all(module.training is training for module in model.modules())
    assert model.linear.weight.grad is grad
    assert grad.tolist() == [[1.0] * 4] * 4
    assert model.linear.bias.grad is None
    assert model.mean is mean
    assert mean.tolist() == [0.0] * 4
    assert model.steps is steps
    assert model.scale.tolist() == [1.0] * 4
    assert model.seen == []
    assert vars(model) == attributes
    assert (torch.get_rng_state().tolist(), model.generator.get_state().tolist()) == states
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert current.watches == ()


def test_own_hooks_stay_and_run():
    model, seen = nn.Linear(4, 4), []
    handle = model.register_forward_hook(lambda *_: seen.append(1))
    summary(model, randn(3, 4))
    model(randn(3, 4))
    assert seen == [1, 1]
    handle.remove()
    model(randn(3, 4))
    assert seen == [1, 1]


def test_gradients_are_looked_at_inside_no_grad():
    with torch.no_grad():
        assert summary(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), randn(3, 4)).kept == allocated(48)


# Which module is running.


class Forgiving(nn.Module):
    """Calls a module that fails, and goes on."""

    def __init__(self):
        super().__init__()
        self.good, self.bad = nn.Linear(4, 4), nn.Sequential(nn.Linear(3, 3))

    def forward(self, x, scale=None):
        with contextlib.suppress(RuntimeError):
            self.bad(x)
        return {"y": self.good(x).tanh() * scale}


def test_a_module_that_failed_is_left_behind():
    model = Forgiving()
    with following(model) as running:
        model(randn(2, 4), scale=randn(1))
    assert [(call.path, call.inputs, call.outputs) for call in running.calls] == [
        ("good", [(2, 4)], (2, 4)),
        ("", [(2, 4), (1,)], [(2, 4)]),
    ]
    assert not any(module._forward_hooks for module in model.modules())
    rows = {row.path: row for row in summary(model, randn(2, 4), scale=randn(1)).rows}
    assert rows["bad.0"].calls == 0
    assert rows[""].flops == 16


def test_a_module_that_runs_twice():
    shared = nn.Linear(4, 4)
    rows = summary(nn.Sequential(shared, nn.Tanh(), shared), randn(3, 4)).rows
    assert [(row.path, row.calls) for row in rows] == [("", 1), ("0", 2), ("1", 1)]
    assert rows[1].flops == 2 * 3 * (2 * 16 + 4)
    assert "2 calls" in str(summary(nn.Sequential(shared, shared), randn(3, 4)))


# The table.


def test_the_table_adds_up_and_fits():
    model = nn.Sequential(Tied(), nn.LSTM(11, 1000, num_layers=2), First(nn.Identity()))
    x = torch.zeros(128, 1, dtype=torch.int64)
    found = summary(model, x)
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].split() == ["module", "input", "output", "parameters", "FLOPs", "kept", "notes"]
    total = next(line for line in lines if line.startswith("total"))
    assert f"{found.parameters:,}" in total
    assert found.parameters == sum(param.array.size for param in model.parameters())
    assert found.flops == sum(row.flops for row in found.rows)
    assert repr(found) == str(found)


def test_deep_models_with_long_names_fit_too():
    model = nn.Identity()
    for _ in range(12):
        outer = nn.Module()
        outer.add_module("a_rather_long_name", model)
        outer.forward = lambda x, inner=model: inner(x)
        model = outer
    text = str(summary(model, randn(123, 456, 7, 8)))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" in text


def test_only_modules_have_a_summary():
    with pytest.raises(DiagnosisError, match=r"expected a Module, got function.*profile"):
        summary(lambda x: x, randn(3))
