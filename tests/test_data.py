"""Datasets, samplers, collation, loaders: order, repeatability, resuming amid an epoch."""

from __future__ import annotations

import warnings
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_rnn import creation, random
from tinygrad_rnn.tensor import Tensor
from tinygrad_rnn.utils.data import (
    BatchSampler,
    BPTTBatcher,
    ConcatDataset,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
    default_convert,
    random_split,
)

pytestmark = pytest.mark.usefixtures("device")


class Squares(Dataset):
    """Counts what it is asked for, so that a test sees which items were fetched."""

    def __init__(self, size):
        self.size = size
        self.fetched = []

    def __getitem__(self, index):
        self.fetched.append(index)
        return index * index

    def __len__(self):
        return self.size


def seeded(seed):
    return random.Generator(seed)


def as_lists(batches):
    return [batch.tolist() for batch in batches]


# Datasets


def test_tensor_dataset_pairs_rows():
    x = np.arange(6.0, dtype=np.float32).reshape(3, 2)
    dataset = TensorDataset(creation.from_numpy(x), creation.tensor([7, 8, 9]))
    assert len(dataset) == 3
    row, label = dataset[1]
    assert row.tolist() == [2.0, 3.0]
    assert label.item() == 8


@pytest.mark.parametrize("shapes", [[(3, 2), (4,)], [(3,), ()]])
def test_tensor_dataset_refuses_unequal_sizes(shapes):
    with pytest.raises(ValueError, match="first axes"):
        TensorDataset(*(creation.zeros(*shape) for shape in shapes))


def test_tensor_dataset_refuses_what_is_no_tensor():
    with pytest.raises(TypeError, match=r"ndarray.*from_numpy"):
        TensorDataset(np.zeros(3))
    with pytest.raises(TypeError, match="at least one"):
        TensorDataset()


def test_a_bare_dataset_says_what_to_define():
    with pytest.raises(NotImplementedError, match="__getitem__"):
        Dataset()[0]
    with pytest.raises(TypeError, match="__len__"):
        len(Dataset())


def test_subset_and_concatenation():
    subset = Subset(Squares(10), [3, 1])
    assert len(subset) == 2
    assert [subset[0], subset[1]] == [9, 1]
    joined = Squares(2) + Squares(0) + Squares(3)
    assert len(joined) == 5
    assert [joined[i] for i in range(5)] == [0, 1, 0, 1, 4]
    assert [joined[-1], joined[-5]] == [4, 0]
    for index in (5, -6):
        with pytest.raises(IndexError, match="out of range for 5"):
            joined[index]
    with pytest.raises(ValueError, match="at least one"):
        ConcatDataset([])


@given(size=st.integers(1, 60), parts=st.integers(1, 5), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=30)
def test_random_split_is_a_partition(size, parts, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        splits = random_split(range(size), [1 / parts] * parts, seeded(seed))
    assert sorted(item for split in splits for item in split.indices) == list(range(size))
    assert max(map(len, splits)) - min(map(len, splits)) <= 1


def test_random_split_by_lengths_is_seeded():
    first, second = (
        [list(split.indices) for split in random_split(Squares(20), [15, 5], seeded(seed))]
        for seed in (3, 3)
    )
    assert first == second
    assert [len(part) for part in first] == [15, 5]
    assert first != [list(split.indices) for split in random_split(Squares(20), [15, 5], seeded(4))]


@pytest.mark.parametrize("lengths", [[3, 3], [11], [-1, 11], [0.5, 0.6], [2.5, 7.5], [1.5, -0.5]])
def test_random_split_refuses_lengths_that_do_not_add_up(lengths):
    with pytest.raises(ValueError, match="random_split"):
        random_split(Squares(10), lengths)


def test_random_split_warns_of_an_empty_part():
    with pytest.warns(UserWarning, match="position 1 is empty"):
        random_split(Squares(3), [0.9, 0.1])


# Samplers


def test_random_sampler_permutes_anew_in_every_epoch():
    sampler = RandomSampler(range(50), generator=seeded(0))
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert list(RandomSampler(range(50), generator=seeded(0))) == first


def test_random_sampler_follows_the_default_generator():
    random.manual_seed(5)
    first = list(RandomSampler(range(30)))
    random.manual_seed(5)
    assert list(RandomSampler(range(30))) == first


def test_random_sampler_without_a_generator_is_deaf_to_draws_during_the_epoch():
    random.manual_seed(5)
    expected = list(RandomSampler(range(30), num_samples=60))
    random.manual_seed(5)
    order = iter(RandomSampler(range(30), num_samples=60))
    drawn = []
    for index in order:
        drawn.append(index)
        creation.randn(3)
    assert drawn == expected


def test_random_sampler_num_samples():
    order = list(RandomSampler(range(4), num_samples=10, generator=seeded(0)))
    assert len(order) == 10
    assert sorted(order[:4]) == sorted(order[4:8]) == [0, 1, 2, 3]
    assert len(set(order[8:])) == 2
    with_replacement = RandomSampler(range(4), True, num_samples=200, generator=seeded(0))
    assert len(with_replacement) == 200
    assert set(with_replacement) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"replacement": 1}, TypeError),
        ({"num_samples": 0}, ValueError),
        ({"num_samples": 2.0}, ValueError),
    ],
)
def test_random_sampler_refuses(arguments, error):
    with pytest.raises(error, match="RandomSampler"):
        RandomSampler(range(3), **arguments)
    with pytest.raises(ValueError, match="empty"):
        RandomSampler(range(0))


def test_subset_random_sampler():
    sampler = SubsetRandomSampler([2, 5, 7], generator=seeded(1))
    assert len(sampler) == 3
    assert sorted(sampler) == [2, 5, 7]


@given(size=st.integers(0, 20), batch_size=st.integers(1, 7), drop_last=st.booleans())
def test_batch_sampler_cuts_the_order(size, batch_size, drop_last):
    sampler = BatchSampler(SequentialSampler(range(size)), batch_size, drop_last)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    kept = size - size % batch_size if drop_last else size
    assert [index for batch in batches for index in batch] == list(range(kept))
    assert all(len(batch) == batch_size for batch in batches[:-1])


@pytest.mark.parametrize(
    ("batch_size", "drop_last"), [(0, False), (1.0, False), (True, False), (1, 0)]
)
def test_batch_sampler_refuses(batch_size, drop_last):
    with pytest.raises(ValueError, match="BatchSampler"):
        BatchSampler(range(3), batch_size, drop_last)


# Collation


def test_collate_stacks_tensors_and_arrays():
    tensors = [creation.from_numpy(np.full((2, 3), float(i), np.float32)) for i in range(4)]
    batch = default_collate(tensors)
    assert isinstance(batch, Tensor)
    assert batch.shape == (4, 2, 3)
    assert batch.dtype == np.float32
    assert batch[3].tolist() == [[3.0] * 3] * 2
    arrays = default_collate([np.zeros((2,), np.int16), np.ones((2,), np.int16)])
    assert isinstance(arrays, Tensor)
    assert arrays.dtype == np.int16
    assert arrays.tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("items", "dtype"),
    [
        ([1, 2], np.int64),
        ([True, False], np.bool_),
        ([0.5, 1.5], np.float64),
        ([np.float32(0.5), np.float32(2)], np.float32),
        ([np.bool_(True), np.bool_(False)], np.bool_),
        ([np.int8(1), np.int8(2)], np.int8),
    ],
)
def test_collate_numbers(items, dtype):
    batch = default_collate(items)
    assert isinstance(batch, Tensor)
    assert batch.dtype == dtype
    assert batch.tolist() == [item for item in items]


Pair = namedtuple("Pair", ["x", "name"])


def test_collate_containers():
    batch = default_collate([{"pair": Pair(1, "a"), "t": (1, [2.0])}] * 3)
    assert type(batch) is dict
    assert type(batch["pair"]) is Pair
    assert batch["pair"].x.tolist() == [1, 1, 1]
    assert list(batch["pair"].name) == ["a", "a", "a"]
    assert type(batch["t"]) is list  # a tuple becomes a list, as in PyTorch
    assert type(batch["t"][1]) is list
    assert batch["t"][1][0].tolist() == [2.0, 2.0, 2.0]
    assert type(default_collate([OrderedDict(a=1)])) is OrderedDict


def test_collate_refuses():
    with pytest.raises(RuntimeError, match=r"\(2,\) at position 0 and \(3,\) at position 1.*pads"):
        default_collate([creation.zeros(2), creation.zeros(3)])
    with pytest.raises(RuntimeError, match=r"equally long, got \[1, 2\]"):
        default_collate([(1,), (1, 2)])
    with pytest.raises(TypeError, match="found set"):
        default_collate([{1}, {2}])
    with pytest.raises(TypeError, match="found an array of object"):
        default_collate([np.array([None])])


def test_convert_leaves_the_form_and_makes_tensors():
    pair = default_convert(Pair(np.ones(2), "a"))
    assert isinstance(pair.x, Tensor)
    assert pair.name == "a"
    converted = default_convert({"a": [np.int32(3), 4], "b": (np.zeros(1),)})
    assert converted["a"][0].dtype == np.int32
    assert converted["a"][1] == 4
    assert isinstance(converted["b"][0], Tensor)


# DataLoader


def test_loader_batches_in_order():
    loader = DataLoader(Squares(5), batch_size=2)
    assert len(loader) == 3
    assert as_lists(loader) == [[0, 1], [4, 9], [16]]
    assert as_lists(DataLoader(Squares(5), batch_size=2, drop_last=True)) == [[0, 1], [4, 9]]


def test_loader_without_batches_yields_items():
    items = list(DataLoader([np.zeros(2), np.ones(2)], batch_size=None))
    assert [item.tolist() for item in items] == [[0.0, 0.0], [1.0, 1.0]]


def test_loader_shuffles_every_epoch_and_repeats_for_a_seed():
    loader = DataLoader(Squares(40), 7, shuffle=True, generator=seeded(2))
    epochs = [as_lists(loader), as_lists(loader)]
    assert epochs[0] != epochs[1]
    for epoch in epochs:
        assert sorted(value for batch in epoch for value in batch) == [i * i for i in range(40)]
    again = DataLoader(Squares(40), 7, shuffle=True, generator=seeded(2))
    assert [as_lists(again), as_lists(again)] == epochs
    random.manual_seed(11)
    first = as_lists(DataLoader(Squares(40), 7, shuffle=True))
    random.manual_seed(11)
    assert as_lists(DataLoader(Squares(40), 7, shuffle=True)) == first


def test_loader_takes_samplers_and_a_collate_fn():
    loader = DataLoader(Squares(9), batch_sampler=[[1, 2], [3]], collate_fn=tuple)
    assert list(loader) == [(1, 4), (9,)]
    assert as_lists(DataLoader(Squares(9), sampler=[8, 0], batch_size=2)) == [[64, 0]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_workers": 2},
        {"sampler": [0], "shuffle": True},
        {"batch_sampler": [[0]], "batch_size": 2},
        {"batch_sampler": [[0]], "shuffle": True},
        {"batch_sampler": [[0]], "drop_last": True},
        {"batch_sampler": [[0]], "sampler": [0]},
        {"batch_size": None, "drop_last": True},
        {"batch_size": 0},
    ],
)
def test_loader_refuses(arguments):
    with pytest.raises(ValueError, match=r"DataLoader|BatchSampler"):
        DataLoader(Squares(3), **arguments)


def shuffled_loader(own_generator, replacement=False, batch_size=3):
    generator = seeded(7) if own_generator else None
    sampler = RandomSampler(range(11), replacement, generator=generator)
    return DataLoader(Squares(11), batch_size, sampler=sampler)


@pytest.mark.parametrize("own_generator", [True, False])
@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("seen", range(10))
def test_resumed_loader_goes_on_with_the_same_batches(own_generator, replacement, seen):
    """Over three epochs of four batches, with other draws from the default generator in between."""

    def batches(loader, count):
        """The next `count` batches, across epochs, each followed by a draw as dropout makes it."""
        drawn = []
        while len(drawn) < count:
            for batch in loader:
                drawn.append((batch.tolist(), creation.randn(2).tolist()))
                if len(drawn) == count:
                    break
        return drawn

    random.manual_seed(1)
    whole = batches(shuffled_loader(own_generator, replacement), 12)

    random.manual_seed(1)
    loader = shuffled_loader(own_generator, replacement)
    before = batches(loader, seen)
    state, default_state = loader.state_dict(), creation.get_rng_state()

    random.manual_seed(999)
    resumed = shuffled_loader(own_generator, replacement)
    resumed.load_state_dict(state)
    creation.set_rng_state(default_state)
    assert resumed.epoch == max(seen - 1, 0) // 4
    assert before + batches(resumed, 12 - seen) == whole


def test_resuming_does_not_fetch_what_was_seen():
    loader = DataLoader(Squares(8), 2, shuffle=True, generator=seeded(0))
    batches = iter(loader)
    next(batches), next(batches)
    resumed = DataLoader(Squares(8), 2, shuffle=True, generator=seeded(0))
    resumed.load_state_dict(loader.state_dict())
    assert as_lists(resumed) == as_lists(batches)
    assert resumed.dataset.fetched == loader.dataset.fetched[4:]


def test_state_is_kept_until_the_resumed_iteration_begins():
    loader = DataLoader(Squares(8), 2, shuffle=True, generator=seeded(0))
    next(iter(loader))
    once = DataLoader(Squares(8), 2, shuffle=True, generator=seeded(1))
    once.load_state_dict(loader.state_dict())
    twice = DataLoader(Squares(8), 2, shuffle=True, generator=seeded(2))
    twice.load_state_dict(once.state_dict())
    assert as_lists(twice) == as_lists(once)


def test_an_epoch_broken_off_before_its_first_batch_is_begun_again():
    class Fragile(Squares):
        broken = True

        def __getitem__(self, index):
            if self.broken:
                raise OSError("the disk is away")
            return super().__getitem__(index)

    loader = DataLoader(Fragile(8), 2, shuffle=True, generator=seeded(0))
    with pytest.raises(OSError, match="away"):
        next(iter(loader))
    resumed = DataLoader(Squares(8), 2, shuffle=True, generator=seeded(1))
    resumed.load_state_dict(loader.state_dict())
    uninterrupted = DataLoader(Squares(8), 2, shuffle=True, generator=seeded(0))
    assert [as_lists(resumed), as_lists(resumed)] == [
        as_lists(uninterrupted),
        as_lists(uninterrupted),
    ]


def test_a_new_iteration_without_load_begins_a_new_epoch():
    loader = DataLoader(Squares(6), 2)
    next(iter(loader))
    assert loader.position == 1
    assert as_lists(loader) == [[0, 1], [4, 9], [16, 25]]
    assert (loader.epoch, loader.position) == (1, 0)


def test_a_sampler_of_ones_own_is_resumed_through_the_default_generator():
    class Coin(Sampler):
        def __iter__(self):
            yield from creation.randint(0, 2, (20,)).tolist()

        def __len__(self):
            return 20

    def loader():
        return DataLoader(range(2), 4, sampler=Coin())

    random.manual_seed(0)
    first = loader()
    batches = iter(first)
    next(batches), next(batches)
    state = first.state_dict()
    random.manual_seed(1)
    resumed = loader()
    resumed.load_state_dict(state)
    assert as_lists(resumed) == as_lists(batches)


def test_a_sampler_without_a_length_can_be_resumed():
    class Odd(Sampler):
        def __iter__(self):
            return iter([1, 3, 5, 7])

    loader = DataLoader(Squares(8), 2, sampler=Odd())
    next(iter(loader))
    resumed = DataLoader(Squares(8), 2, sampler=Odd())
    resumed.load_state_dict(loader.state_dict())
    assert as_lists(resumed) == [[25, 49]]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda: DataLoader(Squares(9), 2, shuffle=True), "items"),
        (lambda: DataLoader(Squares(8), 3, shuffle=True), "batches"),
        (lambda: DataLoader(Squares(8), 2), "sampler"),
        (lambda: DataLoader(Squares(8), 2, shuffle=True, generator=seeded(0)), "generator"),
    ],
)
def test_loader_refuses_a_state_that_does_not_fit(other, named):
    loader = DataLoader(Squares(8), 2, shuffle=True)
    next(iter(loader))
    target = other()
    with pytest.raises(ValueError, match=f"{named}="):
        target.load_state_dict(loader.state_dict())
    assert target.position == 0
    with pytest.raises(ValueError, match="the state has no"):
        loader.load_state_dict({"epoch": 1})
    with pytest.raises(ValueError, match="past the 4 batches"):
        loader.load_state_dict({**loader.state_dict(), "position": 5})
    with pytest.raises(ValueError, match="no counts"):
        loader.load_state_dict({**loader.state_dict(), "position": -1})


# BPTTBatcher


@given(
    size=st.integers(2, 80),
    batch_size=st.integers(1, 6),
    seq_len=st.integers(1, 9),
    drop_last=st.booleans(),
)
def test_every_lane_is_a_contiguous_stretch(size, batch_size, seq_len, drop_last):
    steps = (size - 1) // batch_size
    if steps < (seq_len if drop_last else 1):
        with pytest.raises(ValueError, match="too few"):
            BPTTBatcher(np.arange(size), batch_size, seq_len, drop_last)
        return
    batcher = BPTTBatcher(np.arange(size), batch_size, seq_len, drop_last)
    windows = list(batcher)
    assert len(windows) == len(batcher)
    inputs = np.concatenate([window.numpy() for window, _ in windows])
    targets = np.concatenate([window.numpy() for _, window in windows])
    kept = steps - steps % seq_len if drop_last else steps
    expected = np.arange(batch_size) * steps + np.arange(kept)[:, None]  # (L, B)
    np.testing.assert_array_equal(inputs, expected)
    np.testing.assert_array_equal(targets, expected + 1)
    assert all(window.shape == (seq_len, batch_size) for window, _ in windows[:-1])


@pytest.mark.parametrize("make", [np.asarray, lambda x: creation.from_numpy(np.asarray(x))])
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(np.uint8, np.int64), (np.int32, np.int64), (np.int64, np.int64), (np.float32, np.float32)],
)
def test_windows_have_the_dtype_that_a_model_takes(make, dtype, expected):
    tokens = np.arange(9).astype(dtype)
    inputs, targets = next(iter(BPTTBatcher(make(tokens), 2, 3)))
    assert isinstance(inputs, Tensor)
    assert inputs.dtype == targets.dtype == expected
    assert inputs.tolist() == [[0, 4], [1, 5], [2, 6]]
    assert targets.array.flags.c_contiguous


def test_a_stream_may_be_a_memory_map(tmp_path, xp):
    np.arange(9, dtype=np.uint16).tofile(tmp_path / "tokens")
    stream = np.memmap(tmp_path / "tokens", dtype=np.uint16, mode="r")
    inputs, _ = next(iter(BPTTBatcher(stream, 2, 4)))
    assert type(inputs.array) is xp.ndarray
    assert inputs.tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_windows_do_not_share_memory_with_the_stream():
    tokens = np.arange(9)
    inputs, _ = next(iter(BPTTBatcher(tokens, 1, 4)))
    tokens[:] = 0
    assert inputs.tolist() == [[0], [1], [2], [3]]


def test_batcher_reports_the_start_of_an_epoch():
    batcher = BPTTBatcher(np.arange(21), 2, 4)
    assert not batcher.starts_epoch
    for _ in range(2):
        assert [batcher.starts_epoch for _ in batcher] == [True, False, False]
    assert batcher.epoch == 2


@pytest.mark.parametrize("seen", range(8))
def test_resumed_batcher_goes_on_with_the_same_windows(seen):
    def windows(batcher, count):
        drawn = []
        while len(drawn) < count:
            for inputs, _ in batcher:
                drawn.append((batcher.starts_epoch, inputs.tolist()))
                if len(drawn) == count:
                    break
        return drawn

    def make():
        return BPTTBatcher(np.arange(21), 2, 4)

    whole = windows(make(), 9)
    batcher = make()
    before = windows(batcher, seen)
    resumed = make()
    resumed.load_state_dict(batcher.state_dict())
    assert before + windows(resumed, 9 - seen) == whole


def test_batcher_refuses():
    for arguments in ((0, 3), (2, 0), (2.0, 3), (2, True)):
        with pytest.raises(ValueError, match="must be a positive integer"):
            BPTTBatcher(np.arange(20), *arguments)
    with pytest.raises(ValueError, match=r"one stream of shape \(N,\), got \(2, 10\)"):
        BPTTBatcher(np.zeros((2, 10)), 1, 1)
    with pytest.raises(ValueError, match="at least 41 are needed"):
        BPTTBatcher(np.arange(20), 4, 10, drop_last=True)
    state = BPTTBatcher(np.arange(20), 2, 3).state_dict()
    with pytest.raises(ValueError, match="seq_len=3"):
        BPTTBatcher(np.arange(20), 2, 4).load_state_dict(state)
    with pytest.raises(ValueError, match="no place"):
        BPTTBatcher(np.arange(20), 2, 3).load_state_dict({**state, "position": 99})
