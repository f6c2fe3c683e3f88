"""What scan computes against PyTorch: its layers, and cells that are loops written in PyTorch.

Values, the gradients of every leaf, and the gradients of those, from random cotangents. Both modes
of the layers run here; test_recurrent.py has every option of the layers, in the default mode.
"""

import numpy as np
import pytest
from recurrent_cells import CASES

import tinygrad_rnn
from tinygrad_rnn import nn
from tinygrad_rnn.scan import scan

torch = pytest.importorskip("torch")

# PyTorch says that this layer runs on its plain code, not on oneDNN.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")

CELLS = {case.name: case for case in CASES}
T, B, D, H, P, LAYERS = 6, 3, 7, 5, 2, 3
# Largest difference, in units of the largest value of the array if that is above 1.
TOLERANCES = {"float64": 1e-11, "float32": 2e-5}
OPTIONS = {
    "RNN tanh": ("RNN", {"nonlinearity": "tanh"}),
    "RNN relu": ("RNN", {"nonlinearity": "relu"}),
    "LSTM": ("LSTM", {}),
    "LSTM projected": ("LSTM", {"proj_size": P}),
    "GRU": ("GRU", {}),
}
dtypes = pytest.mark.parametrize("dtype", TOLERANCES)


def flat(value):
    """The tensors in a tuple of tuples."""
    return [part for item in value for part in flat(item)] if isinstance(value, tuple) else [value]


def derivatives(library, outputs, leaves):
    """The outputs, the gradients of a random projection of them, and those of one of these."""
    draw = np.random.default_rng(6).standard_normal
    ys, found = flat(outputs), []
    for _ in range(2):
        found += ys
        values = [y.detach().numpy() for y in ys]
        cotangents = [
            library.tensor(draw(a.shape).astype(a.dtype), requires_grad=True) for a in values
        ]
        ys = library.autograd.grad(
            ys, leaves, cotangents, create_graph=True, materialize_grads=True
        )
        leaves = [*leaves, *cotangents]
    return [*found, *ys]


def assert_agree(ours, theirs, dtype):
    for place, (y, expected) in enumerate(zip(ours, theirs, strict=True)):
        a, b = y.detach().numpy(), expected.detach().numpy()
        assert (a.shape, a.dtype) == (b.shape, b.dtype), place
        atol = TOLERANCES[dtype] * max(1.0, np.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=str(place))


# The layers.


@dtypes
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("mode", ["scan", "unroll"])
@pytest.mark.parametrize("name", OPTIONS)
def test_layers(name, mode, bidirectional, batch_first, dtype):
    kind, options = OPTIONS[name]
    options = options | {"bidirectional": bidirectional, "batch_first": batch_first}
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(D, H, LAYERS, **options, dtype=getattr(torch, dtype))
    ours = getattr(nn, kind)(D, H, LAYERS, **options, dtype=dtype, mode=mode)
    ours.load_state_dict(theirs.state_dict())

    draw = np.random.default_rng(5).standard_normal
    rows = LAYERS * (1 + bidirectional)
    sizes = [options.get("proj_size", H), H] if kind == "LSTM" else [H]
    shapes = [(B, T, D) if batch_first else (T, B, D), *((rows, B, size) for size in sizes)]
    values = [draw(shape).astype(dtype) for shape in shapes]
    found = []
    for library, layer in ((tinygrad_rnn, ours), (torch, theirs)):
        x, *states = [library.tensor(value, requires_grad=True) for value in values]
        outputs = layer(x, tuple(states) if len(states) > 1 else states[0])
        found.append(derivatives(library, outputs, [x, *states, *layer.parameters()]))
    assert_agree(*found, dtype)


# Cells of one's own, as loops. What they are called with is in the table of recurrent_cells.py.


def loop(step, xs, state, reverse):
    """(outputs, last state), the outputs in the order of xs."""
    ys = {}
    for t in reversed(range(len(xs))) if reverse else range(len(xs)):
        ys[t], state = step(xs[t], state)
    return torch.stack([ys[t] for t in range(len(xs))]), state


def peephole_lstm(W, U, b, p_i, p_f, p_o):
    W_i, W_f, W_g, W_o = W.chunk(4)
    U_i, U_f, U_g, U_o = U.chunk(4)
    b_i, b_f, b_g, b_o = b.chunk(4)

    def step(x, state):
        h, c = state
        i = torch.sigmoid(x @ W_i.T + h @ U_i.T + c * p_i + b_i)
        f = torch.sigmoid(x @ W_f.T + h @ U_f.T + c * p_f + b_f)
        g = torch.tanh(x @ W_g.T + h @ U_g.T + b_g)
        c = f * c + i * g
        o = torch.sigmoid(x @ W_o.T + h @ U_o.T + c * p_o + b_o)
        h = o * torch.tanh(c)
        return h, (h, c)

    return step


def min_gru(W_z, b_z, W_h, b_h):
    def step(x, h):
        z = torch.sigmoid(torch.addmm(b_z, x, W_z.T))
        h = torch.lerp(h, torch.addmm(b_h, x, W_h.T), z)
        return h, h

    return step


LOOPS = {"LSTM peephole": peephole_lstm, "minGRU": min_gru}


@dtypes
@pytest.mark.parametrize("checkpoint", [None, 2])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize(("name", "cell"), LOOPS.items(), ids=LOOPS)
def test_cells_of_ones_own(name, cell, reverse, checkpoint, dtype):
    xs, h0, weights = CELLS[name].leaves(dtype)
    outputs = scan(CELLS[name].cell(*weights), xs, h0, reverse=reverse, checkpoint=checkpoint)
    leaves = flat((xs, h0, weights))
    ours = derivatives(tinygrad_rnn, outputs, leaves)

    twins = [torch.tensor(x.detach().numpy(), requires_grad=True) for x in leaves]
    states = twins[1 : 1 + len(flat(h0))]
    state = tuple(states) if len(states) > 1 else states[0]
    outputs = loop(cell(*twins[1 + len(states) :]), twins[0], state, reverse)
    assert_agree(ours, derivatives(torch, outputs, twins), dtype)
