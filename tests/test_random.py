"""Random numbers: the same from the same seed on every device, and distributed as they should be.

Bounds of the statistical tests are five standard errors of the statistic; seeds are fixed.
"""

import math

import numpy as np
import pytest

import tinygrad_rnn as torch
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.random import Generator, generator
from tinygrad_rnn.scan import scan, unroll

pytestmark = pytest.mark.usefixtures("device")

N = 20_000

DRAWS = {
    "rand": lambda g: torch.rand(7, generator=g),
    "rand float64": lambda g: torch.rand(7, generator=g, dtype=torch.float64),
    "randn": lambda g: torch.randn(3, 5, generator=g),
    "randn float64": lambda g: torch.randn(3, generator=g, dtype=torch.float64),
    "randint": lambda g: torch.randint(10, (9,), generator=g),
    "randperm": lambda g: torch.randperm(9, generator=g),
    "normal": lambda g: torch.normal(torch.zeros(3), torch.ones(3), generator=g),
    "bernoulli": lambda g: torch.bernoulli(torch.full((9,), 0.5), generator=g),
    "multinomial": lambda g: torch.multinomial(torch.ones(9), 4, generator=g),
    "multinomial again": lambda g: torch.multinomial(torch.ones(9), 9, True, generator=g),
    "uniform_": lambda g: torch.empty(5).uniform_(-1, 1, generator=g),
    "normal_": lambda g: torch.empty(5).normal_(1, 2, generator=g),
    "bernoulli_": lambda g: torch.empty(9).bernoulli_(0.5, generator=g),
}


# --- seeds and states ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWS)
def test_the_same_seed_draws_the_same_bits(name):
    draw = DRAWS[name]
    first, second = draw(Generator(3)), draw(Generator(3))
    assert first.numpy().tobytes() == second.numpy().tobytes()
    assert draw(Generator(4)).tolist() != first.tolist()
    one = Generator(3)
    assert draw(one).tolist() == first.tolist()
    assert draw(one).tolist() != first.tolist()
    assert draw(one.manual_seed(3)).tolist() == first.tolist()


@pytest.mark.parametrize("name", DRAWS)
def test_manual_seed_is_that_of_the_default_generator(name):
    draw = DRAWS[name]
    assert torch.manual_seed(5) is generator()
    assert draw(None).tolist() == draw(Generator(5)).tolist()


@pytest.mark.parametrize("before", DRAWS)
def test_a_state_continues_in_the_middle_of_a_stream(before):
    """Also after an odd number of 32-bit draws, half of a 64-bit word of which is still unused."""
    g = Generator(1)
    DRAWS[before](g)
    torch.rand(1, generator=g)
    state = g.get_state()
    expected = [draw(g).tolist() for draw in DRAWS.values()]
    for other in (g, Generator(99)):
        other.set_state(state)
        assert [draw(other).tolist() for draw in DRAWS.values()] == expected
    assert g.initial_seed() == 1


def test_the_state_of_the_default_generator():
    torch.manual_seed(0)
    torch.randn(3)
    state = torch.get_rng_state()
    first = torch.randn(3).tolist()
    torch.set_rng_state(state)
    assert torch.randn(3).tolist() == first
    kept = state.tolist()
    torch.randn(3)
    assert state.tolist() == kept


@pytest.mark.parametrize("seed", [0, -1, 2**63, -(2**70), 2**127 + 1])
def test_any_integer_is_a_seed(seed):
    g = Generator().manual_seed(seed)
    assert g.initial_seed() == seed
    assert torch.rand(2, generator=g).tolist() == torch.rand(2, generator=Generator(seed)).tolist()


def test_seeds_are_told_apart():
    drawn = {torch.rand(1, generator=Generator(seed)).item() for seed in range(-20, 20)}
    assert len(drawn) == 40


@pytest.mark.parametrize(
    "state", [np.zeros(3, np.uint64), np.zeros(14, np.float32), np.zeros((2, 7))]
)
def test_only_a_state_is_a_state(state):
    with pytest.raises(ValueError, match="set_state: expected the 14 uint64 of get_state"):
        Generator().set_state(state)


def test_a_seed_of_the_operating_systems_can_be_used_again():
    before = torch.get_rng_state()
    seed = torch.seed()
    first = torch.rand(3).tolist()
    assert seed == torch.initial_seed() != Generator().seed()
    assert torch.manual_seed(seed).initial_seed() == seed
    assert torch.rand(3).tolist() == first
    torch.set_rng_state(before)


def test_generators_do_not_disturb_each_other():
    torch.manual_seed(0)
    expected = torch.randn(4).tolist()
    torch.manual_seed(0)
    torch.randn(100, generator=Generator(1))
    assert torch.randn(4).tolist() == expected


def test_the_stream_is_that_of_numpys_philox():
    """A known stream: initial weights and shuffles must not change between versions."""
    g = Generator(0)
    np.testing.assert_allclose(
        g.uniform((3,), dtype=np.float64), np.random.Generator(np.random.Philox(0)).random(3)
    )


def on_the_host(run, device):
    """What `run` gives where the default device is the host."""
    torch.set_default_device("cpu")
    try:
        return run()
    finally:
        torch.set_default_device(device)


@pytest.mark.parametrize("name", DRAWS)
def test_the_bits_and_the_state_are_those_of_the_host(name, device):
    """On a GPU numbers are drawn in another way, or elsewhere, and are the same."""
    here, there = Generator(11), Generator(11)

    def drawn(generator):
        torch.rand(3, generator=generator)
        return DRAWS[name](generator)

    found, expected = drawn(here), on_the_host(lambda: drawn(there), device)
    assert found.device == device
    assert found.dtype == expected.dtype
    assert found.numpy().tobytes() == expected.numpy().tobytes()
    assert (here.get_state() == there.get_state()).all()


@pytest.mark.parametrize("recurrence", [scan, unroll])
def test_the_masks_of_a_recurrence_are_those_of_the_host(recurrence, device):
    def cell(x, h):
        return (F.dropout(x, 0.3), torch.rand(2, dtype=torch.float64), torch.randn(1)), h

    def drawn():
        torch.manual_seed(3)
        ys, _ = recurrence(cell, torch.ones(5, 3, 3), torch.zeros(1), reverse=True)
        return [y.numpy().tobytes() for y in (*ys, F.dropout(torch.ones(7), 0.5))]

    assert drawn() == on_the_host(drawn, device)


# --- distributions -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_uniform(dtype):
    x = torch.rand(N, generator=Generator(0), dtype=dtype)
    assert x.dtype == dtype
    x = x.numpy().astype(float)
    assert x.min() >= 0
    assert x.max() < 1
    assert abs(x.mean() - 0.5) < 5 * math.sqrt(1 / 12 / N) + 2**-11
    assert abs(x.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / N)
    in_tenths = np.histogram(x, 10, (0, 1))[0]
    assert abs(in_tenths - N / 10).max() < 5 * math.sqrt(N * 0.09)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal(dtype):
    x = torch.randn(N, generator=Generator(0), dtype=dtype)
    assert x.dtype == dtype
    x = x.numpy().astype(float)
    assert abs(x.mean()) < 5 / math.sqrt(N)
    assert abs(x.var() - 1) < 5 * math.sqrt(2 / N)
    assert abs((x**4).mean() - 3) < 5 * math.sqrt(96 / N)
    assert abs((abs(x) < 1.96).mean() - 0.95) < 5 * math.sqrt(0.95 * 0.05 / N)


def test_shifted_and_scaled():
    x = torch.empty(N).uniform_(-2, 4, generator=Generator(0)).numpy()
    assert x.min() >= -2
    assert x.max() <= 4
    assert abs(x.mean() - 1) < 5 * 6 / math.sqrt(12 * N)
    x = torch.empty(N).normal_(3, 0.5, generator=Generator(0)).numpy()
    assert abs(x.mean() - 3) < 5 * 0.5 / math.sqrt(N)
    x = torch.normal(3, 0.5, (N,), generator=Generator(0)).numpy()
    assert abs(x.std() - 0.5) < 5 * 0.5 / math.sqrt(2 * N)
    means, stds = torch.tensor([-10.0, 10.0]), torch.tensor([0.1, 2.0])
    x = torch.normal(means.expand(N, 2), stds.expand(N, 2), generator=Generator(0)).numpy()
    assert (abs(x.mean(0) - means.numpy()) < 5 * stds.numpy() / math.sqrt(N)).all()
    assert (abs(x.std(0) - stds.numpy()) < 5 * stds.numpy() / math.sqrt(2 * N)).all()


def test_integers():
    x = torch.randint(-2, 5, (N,), generator=Generator(0))
    assert x.dtype == torch.int64
    counts = np.bincount(x.numpy() + 2, minlength=7)
    assert len(counts) == 7
    assert abs(counts - N / 7).max() < 5 * math.sqrt(N * 6 / 49)
    assert torch.randint(3, (4,), dtype=torch.float32).dtype == torch.float32
    assert torch.randint(high=3, size=(2, 5)).shape == (2, 5)
    assert torch.randint(3, size=(2, 5)).numpy().max() < 3


def test_permutations():
    g = Generator(0)
    drawn = np.stack([torch.randperm(5, generator=g).numpy() for _ in range(2000)])
    assert (np.sort(drawn) == np.arange(5)).all()
    for place in drawn.T:  # every number is as often at every place
        assert abs(np.bincount(place, minlength=5) - 400).max() < 5 * math.sqrt(2000 * 0.16)
    assert torch.randperm(0).tolist() == []
    assert torch.randperm(3).dtype == torch.int64


def test_bernoulli():
    chances = torch.tensor([0.0, 0.1, 0.5, 1.0])
    x = torch.bernoulli(chances.expand(N, 4), generator=Generator(0))
    assert x.dtype == torch.float32
    assert set(np.unique(x.numpy())) == {0, 1}
    found, p = x.numpy().mean(0), chances.numpy()
    assert (abs(found - p) <= 5 * np.sqrt(p * (1 - p) / N)).all()
    filled = torch.empty(N).bernoulli_(0.3, generator=Generator(0)).numpy()
    assert abs(filled.mean() - 0.3) < 5 * math.sqrt(0.21 / N)


def test_multinomial_with_replacement():
    weights = torch.tensor([[1.0, 0.0, 3.0, 6.0], [0.0, 0.0, 0.0, 2.0]])
    drawn = torch.multinomial(weights, N, replacement=True, generator=Generator(0))
    assert drawn.shape == (2, N)
    assert drawn.dtype == torch.int64
    p = np.array([0.1, 0, 0.3, 0.6])
    found = np.bincount(drawn.numpy()[0], minlength=4) / N
    assert (abs(found - p) <= 5 * np.sqrt(p * (1 - p) / N)).all()
    assert (drawn.numpy()[1] == 3).all()


def test_multinomial_without_replacement():
    """The first is drawn by weight, the second by weight among the others."""
    weights = np.array([1.0, 2, 0, 5])
    drawn = torch.multinomial(torch.tensor(weights).expand(N, 4), 2, generator=Generator(0)).numpy()
    assert (drawn[:, 0] != drawn[:, 1]).all()
    p = weights / weights.sum()
    for first in range(4):
        for second in range(4):
            chance = 0 if first == second else p[first] * p[second] / (1 - p[first])
            found = ((drawn[:, 0] == first) & (drawn[:, 1] == second)).mean()
            assert abs(found - chance) <= 5 * math.sqrt(chance * (1 - chance) / N)


def test_multinomial_shapes():
    assert torch.multinomial(torch.ones(5), 3).shape == (3,)
    assert torch.multinomial(torch.ones(2, 5), 3).shape == (2, 3)
    assert sorted(torch.multinomial(torch.ones(5), 5).tolist()) == [0, 1, 2, 3, 4]
    assert torch.multinomial(torch.ones(0, 5), 2).shape == (0, 2)


def test_draws_require_no_gradient():
    p = torch.full((3,), 0.5, requires_grad=True)
    assert not torch.bernoulli(p).requires_grad
    assert not torch.multinomial(p, 2).requires_grad
    assert not torch.normal(p, 1.0).requires_grad


# --- what is refused -----------------------------------------------------------------------------


REFUSED = {
    "bernoulli": (lambda: torch.bernoulli(torch.tensor([1.5])), r"chances must lie in \[0, 1\]"),
    "bernoulli nan": (lambda: torch.bernoulli(torch.tensor([math.nan])), "chances must lie in"),
    "multinomial below 0": (lambda: torch.multinomial(torch.tensor([-1.0, 2]), 1), "finite and >="),
    "multinomial nan": (lambda: torch.multinomial(torch.tensor([math.nan]), 1), "finite and >= 0"),
    "multinomial of zeros": (lambda: torch.multinomial(torch.zeros(2), 1), "a positive sum"),
    "multinomial of none": (lambda: torch.multinomial(torch.ones(2), 0), "cannot draw 0 samples"),
    "multinomial of too many": (
        lambda: torch.multinomial(torch.tensor([1.0, 0.0]), 2),
        "cannot draw 2 samples without replacement from 1 positive weights",
    ),
    "multinomial axes": (lambda: torch.multinomial(torch.ones(1, 1, 1), 1), "expected 1 or 2 axes"),
    "normal": (lambda: torch.normal(0.0, -1.0, (2,)), "must not be negative"),
    "normal tensor": (lambda: torch.normal(0.0, torch.tensor([1.0, -1])), "must not be negative"),
    "randint": (lambda: torch.randint(3, 3, (2,)), r"there is no integer in \[3, 3\)"),
    "randperm": (lambda: torch.randperm(-1), "negative size"),
    "rand of integers": (lambda: torch.rand(2, dtype=torch.int64), "cannot draw int64 values"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(RuntimeError, match=message):
        call()


def test_two_numbers_need_a_size():
    with pytest.raises(TypeError, match="normal: two numbers need a size"):
        torch.normal(0.0, 1.0)
    with pytest.raises(TypeError, match="randint: the size must be a sequence"):
        torch.randint(0, 3, 4)
