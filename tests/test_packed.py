"""Sequences of different lengths: packing, padding, and recurrent layers that take them packed.

The truth here is a layer run on each sequence alone, without padding or mask. Comparison with
PyTorch is in tests/parity/test_packed.py.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as torch
from tinygrad_rnn import nn
from tinygrad_rnn.autograd import gradcheck, gradgradcheck
from tinygrad_rnn.nn.recurrent import layers
from tinygrad_rnn.nn.recurrent.lengths import within_lengths
from tinygrad_rnn.nn.utils.rnn import (
    PackedSequence,
    invert_permutation,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
    unpack_sequence,
)
from tinygrad_rnn.scan import scan, trees, unroll

pytestmark = pytest.mark.usefixtures("device")

LAYERS = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu"}),
    ("LSTM", {}),
    ("LSTM", {"proj_size": 2}),
    ("GRU", {}),
]
LENGTHS = [3, 6, 1, 4, 4]  # unsorted, with a tie and a single step
D, H = 3, 5


def drawn(*shape, dtype="float64", seed=0):
    values = np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)
    return torch.tensor(values, requires_grad=True)


# Packing.


def test_packing_by_hand():
    a, b, c = torch.tensor([1, 2]), torch.tensor([3, 4, 5]), torch.tensor([6])
    packed = pack_sequence([a, b, c], enforce_sorted=False)
    assert packed.data.tolist() == [3, 1, 6, 4, 2, 5]
    assert packed.batch_sizes.tolist() == [3, 2, 1]
    assert packed.sorted_indices.tolist() == [1, 0, 2]
    assert packed.unsorted_indices.tolist() == [1, 0, 2]
    assert packed.data.dtype == packed.batch_sizes.dtype == torch.int64
    padded, lengths = pad_packed_sequence(packed, padding_value=-1)
    assert padded.tolist() == [[1, 3, 6], [2, 4, -1], [-1, 5, -1]]
    assert lengths.tolist() == [2, 3, 1]
    padded, lengths = pad_packed_sequence(packed, batch_first=True, total_length=4)
    assert padded.tolist() == [[1, 2, 0, 0], [3, 4, 5, 0], [6, 0, 0, 0]]


def test_packing_what_comes_sorted():
    packed = pack_sequence([torch.tensor([1.0, 2.0]), torch.tensor([3.0])])
    assert packed.sorted_indices is packed.unsorted_indices is None
    assert packed.data.tolist() == [1, 3, 2]
    padded, lengths = pad_packed_sequence(packed)
    assert padded.tolist() == [[1, 3], [2, 0]]
    assert lengths.tolist() == [2, 1]


def test_equal_lengths_keep_their_order():
    short_and_long = [torch.ones(1), torch.ones(2)] * 50
    order = pack_sequence(short_and_long, enforce_sorted=False).sorted_indices
    assert order.tolist() == [*range(1, 100, 2), *range(0, 100, 2)]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.booleans(), st.integers(0, 2))
def test_padding_undoes_packing(lengths, batch_first, axes):
    sequences = [drawn(n, *(2, 3)[:axes], seed=k) for k, n in enumerate(lengths)]
    padded = pad_sequence(sequences, batch_first)
    packed = pack_padded_sequence(padded, torch.tensor(lengths), batch_first, enforce_sorted=False)
    assert packed.data.shape == (sum(lengths), *(2, 3)[:axes])
    again, counts = pad_packed_sequence(packed, batch_first)
    np.testing.assert_array_equal(again.detach().numpy(), padded.detach().numpy())
    assert counts.tolist() == lengths
    parts = unpack_sequence(packed)
    for sequence, part in zip(sequences, parts, strict=True):
        np.testing.assert_array_equal(part.detach().numpy(), sequence.detach().numpy())
    cotangent = drawn(*padded.shape, seed=9).detach()
    gs = torch.autograd.grad(again, sequences, cotangent)
    rows = cotangent if batch_first else cotangent.transpose(0, 1)
    for row, g in zip(rows, gs, strict=True):
        np.testing.assert_array_equal(g.numpy(), row.numpy()[: len(g)])


def test_steps_after_the_longest_length_are_left_out():
    packed = pack_padded_sequence(drawn(6, 2, 3), [4, 1])
    assert packed.batch_sizes.tolist() == [2, 1, 1, 1]
    assert pad_packed_sequence(packed)[0].shape == (4, 2, 3)


def test_a_permutation_and_back():
    assert invert_permutation(torch.tensor([2, 0, 1])).tolist() == [1, 2, 0]
    assert invert_permutation(None) is None


def test_a_packed_sequence_in_another_dtype(device):
    packed = pack_sequence([torch.ones(2), torch.ones(3)], enforce_sorted=False)
    double = packed.double()
    assert type(double) is PackedSequence
    assert double.data.dtype == torch.float64
    assert double.batch_sizes is packed.batch_sizes
    assert double.unsorted_indices is packed.unsorted_indices
    assert packed.float() is packed.to(device) is packed
    assert packed.is_cuda == (device == "cuda")
    host = packed.cpu()
    assert [x.device for x in host if x is not None] == ["cpu"] * 4
    assert (packed.data == 1).all()


def test_a_packed_sequence_by_hand():
    packed = PackedSequence(torch.ones(3, 2), torch.tensor([2, 1]), torch.tensor([1, 0]))
    assert packed.unsorted_indices.tolist() == [1, 0]
    assert repr(packed).startswith("PackedSequence(data=tensor(")
    data, sizes, *_ = packed._replace(data=torch.zeros(3, 2))
    assert (data.sum().item(), sizes.tolist()) == (0, [2, 1])


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([3, 2], r"len\(lengths\).*equal to batch_size, but got 2 \(batch_size=3\).*batch_first"),
        ([3, 2, 0], r"greater than 0.*<= 0: \[3, 2, 0\]"),
        ([2, 3, 1], r"sorted in decreasing order.*got \[2, 3, 1\].*enforce_sorted=False"),
        ([5, 3, 1], "longest length is 5, the batch has 4 steps"),
        ([[3], [2], [1]], r"vector, an integer for each sequence, got shape \(3, 1\)"),
    ],
)
def test_lengths_that_do_not_fit(lengths, message):
    for counts in (lengths, torch.tensor(lengths)):
        with pytest.raises(RuntimeError, match=message):
            pack_padded_sequence(torch.ones(4, 3, 2), counts)


def test_packing_errors():
    with pytest.raises(TypeError, match="expected a Tensor, got list"):
        pack_padded_sequence([1.0], [1])
    with pytest.raises(RuntimeError, match=r"expected \(T, B, ...\), got \(4,\) float32"):
        pack_padded_sequence(torch.ones(4), [4])
    with pytest.raises(RuntimeError, match=r"Cannot pack empty tensors, got \(0, 3, 2\)"):
        pack_padded_sequence(torch.ones(0, 3, 2), [1, 1, 1])
    with pytest.raises(RuntimeError, match="empty list"):
        pack_sequence([])
    with pytest.raises(RuntimeError, match="sorted in decreasing order"):
        pack_sequence([torch.ones(1), torch.ones(2)])
    packed = pack_sequence([torch.ones(3), torch.ones(2)])
    with pytest.raises(ValueError, match="total_length=2 and max sequence length being 3"):
        pad_packed_sequence(packed, total_length=2)
    with pytest.raises(TypeError, match=r"expected a PackedSequence, got Tensor.*pack_padded"):
        pad_packed_sequence(torch.ones(3, 2))
    for data, sizes in ((torch.ones(4), [2, 1]), (torch.ones(3), [1, 2])):
        with pytest.raises(RuntimeError, match=r"do not fit batch_sizes.*never increase"):
            pad_packed_sequence(PackedSequence(data, torch.tensor(sizes)))


# Cells.


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("run", [scan, unroll])
def test_a_state_changes_within_the_length_only(run, reverse):
    def cell(x, state):
        total, (count,) = state
        return x * total, (total + x, (count + 1,))

    xs = torch.tensor([[1.0, 4.0, 6.0], [2.0, 5.0, 9.0], [3.0, 9.0, 9.0]])
    real = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    start = torch.tensor([10.0, 20.0, 30.0]), (torch.zeros(3, dtype=torch.int64),)
    ys, (total, (count,)) = run(within_lengths(cell), (xs, real), start, reverse=reverse)
    assert total.tolist() == [16, 29, 36]
    assert count.tolist() == [3, 2, 1]
    expected = [[15, 100, 180], [26, 100, None], [30, None, None]]
    if not reverse:
        expected = [[10, 80, 180], [22, 120, None], [39, None, None]]
    for row, wanted in zip(ys.tolist(), expected, strict=True):
        assert [y for y, w in zip(row, wanted, strict=True) if w is not None] == [
            w for w in wanted if w is not None
        ]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("run", [scan, unroll])
def test_no_state_comes_out_of_the_padding(run, reverse):
    """Not even what is not a number."""
    xs = torch.tensor([[1.0, 4.0], [2.0, np.nan]])
    real = torch.tensor([[True, True], [True, False]])
    start = torch.tensor([0.5, 0.25])
    _, h = run(within_lengths(lambda x, h: (x * h, x * h)), (xs, real), start, reverse=reverse)
    assert h.tolist() == [1, 1]


# Layers.


def one_by_one(layer, sequences, state):
    """The layer run on each sequence alone: its outputs, and the final states side by side."""
    parts = state if isinstance(state, tuple) else (state,)
    outputs, finals = [], []
    for b, sequence in enumerate(sequences):
        own = tuple(part[:, b] for part in parts)
        y, final = layer(sequence, own if isinstance(state, tuple) else own[0])
        outputs.append(y)
        finals.append(final if isinstance(final, tuple) else (final,))
    return outputs, [torch.stack(part, 1) for part in zip(*finals, strict=True)]


def initial_state(layer, batch, dtype):
    rows = layer.num_layers * (1 + layer.bidirectional)
    sizes = [layer.proj_size or H, H] if isinstance(layer, nn.LSTM) else [H]
    parts = tuple(drawn(rows, batch, size, dtype=dtype, seed=k) for k, size in enumerate(sizes))
    return parts if len(parts) > 1 else parts[0]


def flat(value):
    return list(value) if isinstance(value, tuple) else [value]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mode", ["scan", "unroll"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_layers_equal_each_sequence_alone(kind, options, bidirectional, mode, dtype):
    torch.manual_seed(0)
    options = options | {"bidirectional": bidirectional, "mode": mode, "dtype": dtype}
    layer = getattr(nn, kind)(D, H, 2, **options)
    sequences = [drawn(n, D, dtype=dtype, seed=k) for k, n in enumerate(LENGTHS)]
    state = initial_state(layer, len(LENGTHS), dtype)
    leaves = [*sequences, *flat(state), *layer.parameters()]

    expected, finals = one_by_one(layer, sequences, state)
    output, final = layer(pack_sequence(sequences, enforce_sorted=False), state)
    assert type(output) is PackedSequence
    results = [*unpack_sequence(output), *flat(final)]
    wanted = [*expected, *finals]
    cotangents = [drawn(*y.shape, dtype=dtype, seed=8).detach() for y in wanted]
    gradients = torch.autograd.grad(results, leaves, cotangents)
    wanted_gradients = torch.autograd.grad(wanted, leaves, cotangents)
    tolerance = {"float64": 1e-13, "float32": 2e-5}[dtype]
    for ours, truth in zip([*results, *gradients], [*wanted, *wanted_gradients], strict=True):
        assert ours.shape == truth.shape
        assert ours.dtype == np.dtype(dtype)
        np.testing.assert_allclose(
            ours.detach().numpy(), truth.detach().numpy(), rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_layers_without_a_state_begin_with_zeros(kind):
    layer = getattr(nn, kind)(D, H, 2, bidirectional=True)
    packed = pack_sequence([drawn(n, D, dtype="float32") for n in LENGTHS], enforce_sorted=False)
    zeros = torch.zeros(4, len(LENGTHS), H)
    given = layer(packed, (zeros, zeros) if kind == "LSTM" else zeros)
    for ours, truth in zip(trees.leaves(layer(packed)[1]), trees.leaves(given[1]), strict=True):
        np.testing.assert_array_equal(ours.detach().numpy(), truth.detach().numpy())


def test_batch_first_does_not_concern_packed_sequences():
    layer = nn.GRU(D, H, batch_first=True)
    other = nn.GRU(D, H)
    other.load_state_dict(layer.state_dict())
    packed = pack_sequence([drawn(n, D, dtype="float32") for n in LENGTHS], enforce_sorted=False)
    np.testing.assert_array_equal(
        layer(packed)[0].data.detach().numpy(), other(packed)[0].data.detach().numpy()
    )


def test_equal_lengths_need_no_mask(monkeypatch):
    """The same bits as the padded batch, because it is the same computation."""
    monkeypatch.setattr(layers, "within_lengths", None)
    layer = nn.LSTM(D, H, 2, bidirectional=True)
    xs = drawn(4, 3, D, dtype="float32")
    output, (h, c) = layer(pack_padded_sequence(xs, [4, 4, 4]))
    ys, (h_n, c_n) = layer(xs)
    for ours, truth in ((pad_packed_sequence(output)[0], ys), (h, h_n), (c, c_n)):
        np.testing.assert_array_equal(ours.detach().numpy(), truth.detach().numpy())


@pytest.mark.parametrize("mode", ["scan", "unroll"])
def test_what_the_padding_holds_does_not_matter(mode):
    layer = nn.LSTM(D, H, 2, bidirectional=True, mode=mode)
    padded = pad_sequence(
        [drawn(n, D, dtype="float32").detach() for n in LENGTHS], padding_value=np.nan
    ).requires_grad_()
    output, (h, c) = layer(pack_padded_sequence(padded, LENGTHS, enforce_sorted=False))
    (pad_packed_sequence(output)[0].square().sum() + h.sum() + c.sum()).backward()
    real = np.arange(6)[:, None] < np.array(LENGTHS)
    assert np.isfinite(padded.grad.numpy()).all()
    assert (padded.grad.numpy()[~real] == 0).all()
    assert (padded.grad.numpy()[real] != 0).all()
    assert all(np.isfinite(param.grad.numpy()).all() for param in layer.parameters())


def test_dropout_acts_between_packed_layers():
    layer = nn.GRU(D, H, 2, dropout=1.0)
    packed = pack_sequence([drawn(n, D, dtype="float32") for n in LENGTHS], enforce_sorted=False)
    blind = nn.GRU(H, H)
    blind.load_state_dict(
        {name.replace("_l1", "_l0"): w for name, w in layer.state_dict().items() if "_l1" in name}
    )
    expected, _ = blind(packed._replace(data=torch.zeros(len(packed.data), H)))
    np.testing.assert_allclose(
        layer(packed)[0].data.detach().numpy(), expected.data.detach().numpy(), atol=1e-6
    )


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_derivatives_of_packed_layers(kind):
    torch.manual_seed(0)
    layer = getattr(nn, kind)(2, 3, 2, bidirectional=True, dtype="float64")

    def run(xs, h, W):
        layer._parameters["weight_hh_l0_reverse"] = W
        state = (h, 0.5 * h) if kind == "LSTM" else h
        output, final = layer(pack_padded_sequence(xs, [2, 3], enforce_sorted=False), state)
        return (output.data, *flat(final))

    W = drawn(*layer.weight_hh_l0_reverse.shape, seed=3)
    inputs = drawn(3, 2, 2, seed=1), drawn(4, 2, 3, seed=2), W
    assert gradcheck(run, inputs)
    assert gradgradcheck(run, inputs)


def test_layer_errors():
    packed = pack_sequence([torch.ones(2, D), torch.ones(3, D)], enforce_sorted=False)
    lstm = nn.LSTM(D, H)
    with pytest.raises(RuntimeError, match=r"expected h_0 of shape \(1, 2, 5\).*got \(1, 3, 5\)"):
        lstm(packed, (torch.zeros(1, 3, H), torch.zeros(1, 2, H)))
    with pytest.raises(RuntimeError, match=r"expected h_0 of shape \(1, 2, 5\).*got \(1, 5\)"):
        lstm(packed, (torch.zeros(1, H), torch.zeros(1, H)))
    with pytest.raises(TypeError, match="must be a tuple"):
        lstm(packed, torch.zeros(1, 2, H))
    with pytest.raises(RuntimeError, match=r"packed data of shape \(steps, 3\), got \(5, 4\)"):
        lstm(packed._replace(data=torch.ones(5, 4)))
    with pytest.raises(RuntimeError, match=r"packed data of shape \(steps, 3\), got \(5,\)"):
        lstm(packed._replace(data=torch.ones(5)))
    with pytest.raises(RuntimeError, match="do not fit batch_sizes"):
        lstm(packed._replace(data=torch.ones(6, D)))
    with pytest.raises(ValueError, match="float64, the weights are float32"):
        lstm(packed.double())
