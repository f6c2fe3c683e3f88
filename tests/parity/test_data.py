"""The same loaders, samplers, splits and collations as PyTorch, except for the random bits."""

from __future__ import annotations

import warnings
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import torch.utils.data as theirs  # noqa: E402

import tinygrad_rnn as tg  # noqa: E402
import tinygrad_rnn.utils.data as ours  # noqa: E402

Pair = namedtuple("Pair", ["x", "y"])


def plain(value):
    """Containers as they are, tensors of either library as (dtype, shape, values)."""
    if isinstance(value, torch.Tensor | tg.Tensor):
        return str(value.dtype).removeprefix("torch."), tuple(value.shape), value.tolist()
    if isinstance(value, dict):
        return type(value).__name__, {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, [plain(item) for item in value]
    return value


LEAVES = {
    "tensor": lambda library, i: library.tensor([[1.0 * i, 2.0]]),
    "int tensor": lambda library, i: library.tensor(i),
    "array": lambda library, i: np.full((2, 1), i, np.float64),
    "numpy scalar": lambda library, i: np.float32(i),
    "int": lambda library, i: i,
    "bool": lambda library, i: i % 2 == 0,
    "float": lambda library, i: i / 2,
    "string": lambda library, i: f"row {i}",
    "bytes": lambda library, i: bytes([i]),
    "tuple": lambda library, i: (i, "a"),
    "list": lambda library, i: [i, 0.5],
    "namedtuple": lambda library, i: Pair(i, (i, i)),
    "dict": lambda library, i: {"a": i, "b": {"c": [i]}},
}


@pytest.mark.parametrize("leaf", LEAVES)
def test_collate_and_convert(leaf):
    mine, its = ([LEAVES[leaf](library, i) for i in range(3)] for library in (tg, torch))
    assert plain(ours.default_collate(mine)) == plain(theirs.default_collate(its))
    assert plain(ours.default_convert(mine[1])) == plain(theirs.default_convert(its[1]))


@given(size=st.integers(1, 13), batch_size=st.integers(1, 5), drop_last=st.booleans())
@settings(deadline=None, max_examples=25)
def test_unshuffled_batches(size, batch_size, drop_last):
    def loader(library, data):
        features = library.arange(2 * size).reshape(size, 2)
        dataset = data.TensorDataset(features, library.arange(size))
        return data.DataLoader(dataset, batch_size, drop_last=drop_last)

    mine, its = loader(tg, ours), loader(torch, theirs)
    assert len(mine) == len(its)
    assert [plain(batch) for batch in mine] == [plain(batch) for batch in its]


@given(
    size=st.integers(1, 40),
    weights=st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(sum),
)
@settings(deadline=None, max_examples=40)
def test_split_lengths(size, weights):
    fractions = [weight / sum(weights) for weight in weights]

    def lengths(data):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return [len(part) for part in data.random_split(range(size), fractions)]
            except ValueError:  # fractions whose floating-point sum is above 1
                return "refused"

    assert lengths(ours) == lengths(theirs)


@pytest.mark.parametrize(
    "arguments",
    [
        {"sampler": [0], "shuffle": True},
        {"batch_sampler": [[0]], "batch_size": 2},
        {"batch_sampler": [[0]], "drop_last": True},
        {"batch_size": None, "drop_last": True},
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"drop_last": 1},
    ],
)
def test_errors_of_the_same_type(arguments):
    for data in (ours, theirs):
        with pytest.raises(ValueError):  # noqa: PT011 - the texts differ
            data.DataLoader(range(3), **arguments)


def test_sampler_lengths_and_repeats():
    for num_samples in (3, 5, 12):
        mine, its = (
            data.RandomSampler(range(5), num_samples=num_samples) for data in (ours, theirs)
        )
        assert len(list(mine)) == len(list(its)) == len(mine) == len(its)


def test_the_loader_has_pytorchs_argument_order():
    import inspect

    mine = list(inspect.signature(ours.DataLoader).parameters)
    its = list(inspect.signature(theirs.DataLoader).parameters)
    assert mine[:9] == its[:9]
