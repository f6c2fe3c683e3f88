"""Packed sequences against PyTorch's: the functions, the layers to second order, and the errors."""

import numpy as np
import pytest

import tinygrad_rnn
from tinygrad_rnn import nn
from tinygrad_rnn.nn.utils import rnn as our_rnn

torch = pytest.importorskip("torch")
their_rnn = torch.nn.utils.rnn

# PyTorch says that this layer runs on its plain code, not on oneDNN.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")

B, D, H, P, LAYERS = 5, 3, 4, 2, 3
SORTED, UNSORTED = [7, 5, 5, 2, 1], [5, 1, 7, 2, 5]
TOLERANCES = {"float64": 1e-11, "float32": 2e-5}
KINDS = [
    ("RNN", {"nonlinearity": "tanh"}),
    ("RNN", {"nonlinearity": "relu"}),
    ("LSTM", {}),
    ("LSTM", {"proj_size": P}),
    ("GRU", {}),
]
BOTH = [(torch, their_rnn), (tinygrad_rnn, our_rnn)]


def values(*shape, dtype="float64", seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def array(x):
    return x.detach().numpy()


def fields(packed):
    """The fields as NumPy arrays, or None."""
    return [None if x is None else array(x) for x in packed]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("total_length", [None, 9])
@pytest.mark.parametrize(
    ("lengths", "enforce_sorted"), [(SORTED, True), (SORTED, False), (UNSORTED, False)]
)
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
def test_packing_and_padding(lengths, enforce_sorted, batch_first, total_length, dtype):
    x = (9 * values(*((B, 8) if batch_first else (8, B)), D, 2)).astype(dtype)
    found = []
    for library, rnn in BOTH:
        packed = rnn.pack_padded_sequence(library.tensor(x), lengths, batch_first, enforce_sorted)
        padded, counts = rnn.pad_packed_sequence(packed, not batch_first, -2.0, total_length)
        alone = rnn.unpack_sequence(packed)
        again = rnn.pack_sequence(alone, enforce_sorted)
        found.append([*fields(packed), array(padded), array(counts), *map(array, alone)])
        found[-1] += [*fields(again)]
    for theirs, ours in zip(*found, strict=True):
        if theirs is None:
            assert ours is None
            continue
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def derivatives(library, outputs, leaves):
    """The outputs, the gradients of a random projection of them, and those of one of these."""
    ys, found = list(outputs), []
    for seed in (6, 7):
        found += ys
        cotangents = [
            library.tensor(
                values(*y.shape, dtype=array(y).dtype, seed=seed + k), requires_grad=True
            )
            for k, y in enumerate(ys)
        ]
        ys = library.autograd.grad(
            ys, leaves, cotangents, create_graph=True, materialize_grads=True
        )
        leaves = [*leaves, *cotangents]
    return [*found, *ys]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("lengths", "enforce_sorted"), [(SORTED, True), (UNSORTED, False)])
@pytest.mark.parametrize("mode", ["scan", "unroll"])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_layers(kind, options, mode, lengths, enforce_sorted, bidirectional, bias, dtype):
    options = options | {"bidirectional": bidirectional, "bias": bias}
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(D, H, LAYERS, **options, dtype=getattr(torch, dtype))
    ours = getattr(nn, kind)(D, H, LAYERS, **options, dtype=dtype, mode=mode)
    ours.load_state_dict(theirs.state_dict())
    sizes = [options.get("proj_size") or H, H] if kind == "LSTM" else [H]
    rows = LAYERS * (1 + bidirectional)
    found = []
    for (library, rnn), layer in zip(BOTH, (theirs, ours), strict=True):
        x, *state = (
            library.tensor(values(*shape, dtype=dtype), requires_grad=True)
            for shape in [(7, B, D), *((rows, B, size) for size in sizes)]
        )
        packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
        output, final = layer(packed, tuple(state) if kind == "LSTM" else state[0])
        results = [output.data, *(final if kind == "LSTM" else [final])]
        assert output.sorted_indices is packed.sorted_indices
        assert output.batch_sizes is packed.batch_sizes
        found.append(derivatives(library, results, [x, *state, *layer.parameters()]))
    for place, (theirs, ours) in enumerate(zip(*found, strict=True)):
        a, b = array(ours), array(theirs)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), place
        atol = TOLERANCES[dtype] * max(1.0, np.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=str(place))


def pack(lengths, *shape, **options):
    """A call that packs ones of a shape, in either library."""
    return lambda library, rnn: rnn.pack_padded_sequence(library.ones(shape), lengths, **options)


@pytest.mark.parametrize(
    "call",
    [
        pack([4, 3], 4, 3, 2),
        pack([4, 3, 0], 4, 3, 2),
        pack([4, 3, -1], 4, 3, 2),
        pack([2, 3, 1], 4, 3, 2),
        pack([[4], [3], [1]], 4, 3, 2),
        pack([1, 1, 1], 0, 3, 2),
        pack([], 4, 0, 2),
        lambda library, rnn: rnn.pack_sequence([]),
        lambda library, rnn: rnn.pack_sequence([library.ones(2), library.ones(3)]),
        lambda library, rnn: rnn.pack_sequence([library.ones(2), library.ones(0)]),
        lambda library, rnn: rnn.pad_packed_sequence(
            rnn.pack_sequence([library.ones(3)]), total_length=2
        ),
        lambda library, rnn: library.nn.GRU(2, 3)(
            rnn.pack_sequence([library.ones(4, 2)]), library.zeros(1, 3)
        ),
        lambda library, rnn: library.nn.RNN(2, 3)(rnn.pack_sequence([library.ones(4, 2, 2)])),
        lambda library, rnn: library.nn.GRU(2, 3)(rnn.pack_sequence([library.ones(4, 3)])),
    ],
)
def test_errors_are_of_the_same_type(call):
    raised = []
    for library, rnn in BOTH:
        with pytest.raises((RuntimeError, ValueError)) as caught:
            call(library, rnn)
        raised.append(type(caught.value))
    assert raised[0] is raised[1]
