"""What must come out of a computation, on whatever device? Results that are known from elsewhere.

Each check computes something with Tensors on a device and yields what it found beside the truth,
which is worked out on the host by NumPy alone: by a formula, by the derivations of `by_hand/`, or
by a complex step, f'(x) = Im f(x + ih) / h, which differentiates without calculus (Squire and
Trapp, "Using complex variables to estimate derivatives of real functions", 1998).
`self_test.py` runs the checks and judges them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinygrad_rnn import backend, creation, nn, optim, random
from tinygrad_rnn.by_hand import GRU, LSTM, RNN, stacked
from tinygrad_rnn.by_hand.cell import Cell
from tinygrad_rnn.nn.functional import cross_entropy, embedding
from tinygrad_rnn.ops.operators import cat, where
from tinygrad_rnn.scan import scan
from tinygrad_rnn.tensor import Tensor

#: A name, what was found on the device, and the truth on the host.
Comparison: TypeAlias = tuple[str, Tensor, Any]

STEP = 1e-30  # of the complex step: squared, it is nothing beside 1


class Check(NamedTuple):
    """A computation, and how far from the truth it may end, relative to the largest value."""

    name: str
    run: Callable[[backend.device], Iterator[Comparison]]
    tolerance: float


def _numbers(seed: int, *shape: int) -> Any:
    """Numbers to compute with, the same on every machine."""
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape)


def _leaf(values: Any, device: backend.device, dtype: Any = np.float64) -> Tensor:
    """A Tensor of the values on a device, which requires a gradient."""
    return creation.tensor(values, dtype=dtype, device=device, requires_grad=True)


def _gradient(tensor: Tensor) -> Tensor:
    """The gradient that backward has left."""
    assert tensor.grad is not None
    return tensor.grad


# --- the checks ----------------------------------------------------------------------------------


def there_and_back(device: backend.device) -> Iterator[Comparison]:
    """What is moved to the device and back has the same bits."""
    for dtype in (np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_):
        values = (_numbers(1, 4, 5) * 3).astype(dtype)[:, ::2]
        yield np.dtype(dtype).name, creation.tensor(values, device=device), values


def functions(device: backend.device) -> Iterator[Comparison]:
    """Values and derivatives of elementwise functions, against a complex step."""
    x = np.abs(_numbers(2, 3, 7)) + 0.1
    cases: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        "exp": (Tensor.exp, np.exp),
        "log": (Tensor.log, np.log),
        "tanh": (Tensor.tanh, np.tanh),
        "sin": (Tensor.sin, np.sin),
        "sqrt": (Tensor.sqrt, np.sqrt),
        "sigmoid": (Tensor.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
        "x ** 3 / (1 + x)": (lambda x: x**3 / (1 + x), lambda x: x**3 / (1 + x)),
    }
    for name, (ours, numpys) in cases.items():
        t = _leaf(x, device)
        y = ours(t)
        y.sum().backward()
        yield name, y, numpys(x)
        yield f"{name}'", _gradient(t), numpys(x + 1j * STEP).imag / STEP


def products(device: backend.device) -> Iterator[Comparison]:
    """Y = (A B)·C summed: dA = C Bᵀ and dB = Aᵀ C."""
    a, b, c = _numbers(3, 5, 4), _numbers(4, 4, 6), _numbers(5, 5, 6)
    ta, tb = _leaf(a, device), _leaf(b, device)
    y = (ta @ tb) * creation.tensor(c, device=device)
    y.sum().backward()
    yield "A B", y, (a @ b) * c
    yield "dA", _gradient(ta), c @ b.T
    yield "dB", _gradient(tb), a.T @ c


def look_ups(device: backend.device) -> Iterator[Comparison]:
    """Rows of a table, some of them twice, and their gradient; choices and joins."""
    table, rows, weights = _numbers(6, 6, 3), np.array([[4, 0, 4], [5, 4, 0]]), _numbers(7, 2, 3, 3)
    t = _leaf(table, device)
    y = embedding(creation.tensor(rows, device=device), t)
    (y * creation.tensor(weights, device=device)).sum().backward()
    one_hot = np.eye(6)[rows.ravel()]  # (6, 6)
    yield "rows", y, table[rows]
    yield "their gradient", _gradient(t), one_hot.T @ weights.reshape(6, 3)
    x = creation.tensor(table, device=device)
    yield "where", where(x > 0, x, -x), np.abs(table)
    yield "cat", cat([x, x[1:3]], 0), np.concatenate([table, table[1:3]])


def losses(device: backend.device) -> Iterator[Comparison]:
    """The cross entropy of logits, whose gradient is (softmax - one-hot) / B."""
    logits, targets = _numbers(8, 5, 4), np.array([3, 0, 0, 2, 1])
    t = _leaf(logits, device)
    loss = cross_entropy(t, creation.tensor(targets, device=device))
    loss.backward()
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    yield "loss", loss, -np.log(softmax[np.arange(5), targets]).mean()
    yield "gradient", _gradient(t), (softmax - np.eye(4)[targets]) / 5


def recurrent_layer(layer: str, dtype: str) -> Callable[[backend.device], Iterator[Comparison]]:
    """The check of a layer, two deep and in both directions, against the derivation by hand."""
    cells: dict[str, Cell] = {"RNN": RNN(), "LSTM": LSTM(), "GRU": GRU()}
    kind, cell = getattr(nn, layer), cells[layer]

    def run(device: backend.device) -> Iterator[Comparison]:
        model = kind(3, 4, num_layers=2, bidirectional=True, dtype=np.dtype(dtype), device=device)
        yield from _as_by_hand(model, cell, device, np.dtype(dtype))

    return run


def _as_by_hand(
    model: nn.Module, cell: Cell, device: backend.device, dtype: Any
) -> Iterator[Comparison]:
    """Outputs and gradients of a layer, of a loss that weighs every output and final state."""
    values = {
        name: 0.4 * _numbers(10 + k, *weight.shape)
        for k, (name, weight) in enumerate(model.named_parameters())
    }
    model.load_state_dict(values)
    x, states = _numbers(40, 5, 2, 3), tuple(_numbers(41 + k, 4, 2, 4) for k in range(2))
    states = states[: len(cell.states)]
    output, final, saved = stacked.forward(cell, values, x, states)
    weights = [_numbers(50 + k, *y.shape) for k, y in enumerate((output, *final))]
    gradients, dx, dstates = stacked.backward(cell, values, saved, weights[0], tuple(weights[1:]))

    for run in ("first run", "second run", "third run"):  # a GPU's first is not like later ones
        model.zero_grad()
        tx = _leaf(x, device, dtype)
        ts = tuple(_leaf(state, device, dtype) for state in states)
        found, last = model(tx, ts if len(ts) > 1 else ts[0])
        ends = last if isinstance(last, tuple) else (last,)
        total = creation.zeros(1, dtype=dtype, device=device)
        for y, weight in zip((found, *ends), weights, strict=True):
            total = total + (y * creation.tensor(weight, dtype=dtype, device=device)).sum()
        total.sum().backward()
        yield f"output of the {run}", found, output
        yield f"dx of the {run}", _gradient(tx), dx
        for name, state, tensor in zip(cell.states, dstates, ts, strict=True):
            yield f"d{name} of the {run}", _gradient(tensor), state
        for name, weight in model.named_parameters():
            yield f"d{name} of the {run}", _gradient(weight), gradients[name]


def own_cell(device: backend.device) -> Iterator[Comparison]:
    """`scan` of a cell that no layer has (a minimal gated unit), against a complex step.

    Zhou et al., "Minimal gated unit for recurrent neural networks", 2016.
    """
    w, u, xs, h0 = _numbers(60, 3, 8), _numbers(61, 4, 8), _numbers(62, 6, 2, 3), _numbers(63, 2, 4)

    def by_numpy(w: Any, u: Any) -> Any:
        """The last state, step by step."""
        h = h0
        for x in xs:
            f = 1 / (1 + np.exp(-(x @ w[:, :4] + h @ u[:, :4])))
            h = (1 - f) * h + f * np.tanh(x @ w[:, 4:] + (f * h) @ u[:, 4:])
        return h

    tw, tu = _leaf(w, device), _leaf(u, device)

    def cell(x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        f = (x @ tw[:, :4] + h @ tu[:, :4]).sigmoid()
        h = (1 - f) * h + f * (x @ tw[:, 4:] + (f * h) @ tu[:, 4:]).tanh()
        return h, h

    start = creation.tensor(h0, device=device)
    _, last = scan(cell, creation.tensor(xs, device=device), start)
    last.sum().backward()
    yield "last state", last, by_numpy(w, u)
    for name, t, values in (("dw", tw, w), ("du", tu, u)):
        truth = np.empty_like(values)
        for place in np.ndindex(values.shape):
            moved = values.astype(complex)
            moved[place] += 1j * STEP
            end = by_numpy(moved, u) if name == "dw" else by_numpy(w, moved)
            truth[place] = end.sum().imag / STEP
        yield name, _gradient(t), truth


def training(device: backend.device) -> Iterator[Comparison]:
    """Three steps of Adam on half the squared length of a vector, whose gradient is itself."""
    theta = _numbers(70, 5)
    p = _leaf(theta, device)
    optimizer = optim.Adam([p], lr=0.1)
    m, v = np.zeros(5), np.zeros(5)
    for t in (1, 2, 3):
        optimizer.zero_grad()
        (p.square().sum() / 2).backward()
        optimizer.step()
        m, v = 0.9 * m + 0.1 * theta, 0.999 * v + 0.001 * theta**2
        theta = theta - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        yield f"step {t}", p.detach().clone(), theta


def random_numbers(device: backend.device) -> Iterator[Comparison]:
    """A seed gives NumPy's own bits."""
    ours, numpys = random.Generator(7), np.random.Generator(np.random.Philox(7))
    for dtype in (np.float32, np.float64, np.float32):
        found = creation.rand(3, 5, generator=ours, dtype=dtype, device=device)
        yield np.dtype(dtype).name, found, numpys.random((3, 5), dtype)


CHECKS: tuple[Check, ...] = (
    Check("to the device and back", there_and_back, 0),
    Check("elementwise functions", functions, 1e-12),
    Check("products of matrices", products, 1e-12),
    Check("look-ups and choices", look_ups, 1e-12),
    Check("cross entropy", losses, 1e-12),
    *(
        Check(f"{layer}, {dtype}", recurrent_layer(layer, dtype), tolerance)
        for layer in ("RNN", "LSTM", "GRU")
        for dtype, tolerance in (("float64", 1e-10), ("float32", 1e-4))
    ),
    Check("scan of another cell", own_cell, 1e-10),
    Check("three steps of Adam", training, 1e-12),
    Check("random numbers", random_numbers, 0),
)
