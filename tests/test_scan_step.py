"""Single operations in a step: scan is unroll wherever in the step the operation stands.

Before the state (it sees x alone), on the way from state to state, after it (only the output sees
it), or both of the latter: scan computes these in different ways. The operations are methods and
functions as users write them; what they are made of is tested in test_ops.py and test_lifting.py.
"""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from arrays import on_device
from test_scan_equality import assert_agree, derivatives

import tinygrad_rnn as torch
from tinygrad_rnn import nn
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.scan import scan, unroll

pytestmark = pytest.mark.usefixtures("device")

T, B, H = 4, 2, 3


def leaf(*shape, dtype="float64", seed=0):
    draw = 0.8 * np.random.default_rng([seed, *shape]).standard_normal(shape)
    return torch.tensor(draw.astype(dtype), requires_grad=True)


MASK = torch.tensor([[True, False, True], [False, False, True]])
C = SimpleNamespace()  # what the cells close over


@pytest.fixture(scope="module", autouse=True)
def _constants(device):
    """The tensors of C, made on the device."""
    layers = nn.Linear(H, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)
    C.module = nn.Sequential(*layers).double()
    C.W, C.b, C.stack, C.table = leaf(H, H), leaf(H), leaf(B, H, H), leaf(H, 4)
    C.mask, C.row = MASK.to(device), torch.tensor([True, False])
    C.places = torch.tensor([[2, 0], [1, 1]])


def rank(u):
    """Integers that depend on the values: 0 to H - 1."""
    return u.detach().argsort(-1)


def loop_over(u):
    total = 0.0
    for column in u.unbind(-1):
        total = (total + column).tanh()
    return total


# What a step may do with a value u of shape (B, H).
OPERATIONS = {
    # arithmetic
    "number - u": lambda u: 1 - u,
    "number / u": lambda u: 1 / (u * u + 1),
    "number ** u": lambda u: 2**u,
    "u ** number": lambda u: u**3,
    "u ** u": lambda u: (u.abs() + 0.5) ** u,
    "u % number": lambda u: u % 0.7,
    "u // number": lambda u: u // 0.3,
    "abs": lambda u: abs(u),
    "maximum": lambda u: torch.maximum(u, C.W[0]),
    "minimum": lambda u: u.minimum(-u * 2),
    "clamp": lambda u: u.clamp(-0.5, 0.4),
    "lerp": lambda u: u.lerp(C.b, 0.25),
    "round": lambda u: u + u.round(),
    "exp, log": lambda u: (u.exp() + 1).log() + u.expm1() + (u * u).log1p(),
    "sqrt": lambda u: (u * u + 1).sqrt() + (u * u + 1).rsqrt(),
    "sin, cos": lambda u: u.sin() * u.cos(),
    "gelu": lambda u: F.gelu(u) + F.gelu(u, approximate="tanh"),
    "softplus": lambda u: F.softplus(u, beta=2.0) + F.silu(u),
    "leaky_relu": lambda u: F.leaky_relu(u) + u.relu(),
    "detach": lambda u: u * u.detach(),
    "clone": lambda u: u.clone() * u,
    "numbers and u": lambda u: (u * 0 + 2) * math.pi - (-u) / 3,
    # conditions
    "where": lambda u: torch.where(u > 0, u * u, C.W[1]),
    "where numbers": lambda u: torch.where(u > 0, 1.0, 0.25) * u,
    "where masks": lambda u: torch.where(C.mask, u, 0.0) + torch.where(~C.mask, C.b, u),
    "masked_fill": lambda u: u.masked_fill(u < 0, -1.0).masked_fill(C.mask, 0.5),
    "comparisons": lambda u: (u >= 0) & ~(u == 0) | (u != C.b) ^ (u <= 1),
    "logical": lambda u: u.logical_and(C.mask).logical_or(u > 1).logical_not(),
    "isnan": lambda u: (u / 0).isnan() | (u / 0).isinf(),
    "any, all": lambda u: (u > 0).any(-1) & (u > -1).all(),
    # products
    "matmul": lambda u: u @ C.W + C.W[0],
    "matmul of rows": lambda u: u[0] @ C.W,
    "matmul to a column": lambda u: u @ C.b,
    "dot": lambda u: u[0] @ u[1],
    "matmul from the left": lambda u: C.W @ u.T,
    "matmul with a stack": lambda u: (u.unsqueeze(1) @ C.stack).squeeze(1),
    "matmul of a stack": lambda u: C.stack @ u.unsqueeze(-1),
    "matmul with itself": lambda u: u.T @ u,
    "matmul of rank 3": lambda u: torch.stack([u, u * 2]) @ C.W,
    "outer": lambda u: torch.outer(u[0], u[1]),
    "linear": lambda u: F.linear(u, C.W, C.b),
    "einsum": lambda u: torch.einsum("bi,ij->bj", u, C.W),
    "einsum pairs": lambda u: torch.einsum("bi,bj->bij", u, u),
    "einsum of three": lambda u: torch.einsum("bi,bij,bj->b", u, C.stack, u * 2),
    "einsum ...": lambda u: torch.einsum("...i,ij->...", u, C.W),
    "einsum diagonal": lambda u: torch.einsum("bii,bi->b", C.stack, u),
    # reductions
    "sum": lambda u: u.sum() + u.sum(0) + u.sum(-1, keepdim=True),
    "mean": lambda u: u.mean() + u.mean(0) * u.mean(1, keepdim=True),
    "var": lambda u: u.var(-1) + u.std(-1, unbiased=False),
    "norm": lambda u: u.norm() + u.norm(1, dim=-1),
    "amax": lambda u: u.amax(-1) + u.amin(),
    "max": lambda u: u.max(-1).values * u.min(0).values.sum(),
    "prod": lambda u: u.prod(-1) + u.prod(),
    "logsumexp": lambda u: u.logsumexp(-1) + u.logsumexp((0, 1)),
    "logsumexp keepdim": lambda u: u - u.logsumexp(0, keepdim=True),
    "logsumexp of -inf": lambda u: u.where(C.row[:, None], -math.inf).logsumexp(1).exp() + u[:, 0],
    "softmax": lambda u: u.softmax(-1) + F.softmax(u, 0),
    "log_softmax": lambda u: u.log_softmax(1),
    "cumsum": lambda u: u.cumsum(-1) * u.cumsum(0),
    "layer_norm": lambda u: F.layer_norm(u, (H,), C.W[0], C.b),
    "cross_entropy": lambda u: F.cross_entropy(u, torch.tensor([2, 0]), reduction="none"),
    "mse_loss": lambda u: F.mse_loss(u, C.W[:2]),
    # positions
    "argmax": lambda u: u.argmax(-1) + u.argmin(),
    "sort": lambda u: u.sort(-1, descending=True).values,
    "topk": lambda u: u.topk(2).values,
    "gather": lambda u: u.gather(1, rank(u)) * u.gather(1, C.places)[:, :1],
    "scatter_add": lambda u: u.scatter_add(1, rank(u), u * u),
    "one_hot": lambda u: F.one_hot(rank(u), H) * u.unsqueeze(-1),
    "embedding": lambda u: F.embedding(rank(u), C.table, padding_idx=0),
    "index_select": lambda u: u.index_select(1, C.places[0]),
    "slices": lambda u: u[:, 1:] * u[..., :-1] + u[0, ::-1][1:],
    "integers": lambda u: u[0] * u[-1, 2] + u[1, None],
    "index arrays": lambda u: u[[1, 0, 1]] + u[[0, 1, 0], [2, 2, 1]].unsqueeze(-1),
    "index of a column": lambda u: u[:, [2, 0]] + u[0, [0, 1]] + u[C.places[1] - 1, :2],
    "mask": lambda u: u[C.mask] * u[C.row].sum(),
    "narrow": lambda u: u.narrow(-1, 1, 2) + u.select(1, 0).unsqueeze(-1),
    "tril": lambda u: (u.T @ u).tril() + (u.T @ u).triu(1),
    "a slice": lambda u: u[:, 1:2],
    "a row": lambda u: u[:1],
    # shapes
    "cat": lambda u: torch.cat([u, C.W, u * 2], 0),
    "cat along the last": lambda u: torch.cat([u[:, :1], C.W[:2], u.tanh()], -1),
    "stack": lambda u: torch.stack([u, C.W[:2], u], -1),
    "split": lambda u: u.split([1, 2], -1)[1] * u.chunk(2, 0)[0][:, 1:],
    "a part": lambda u: u.split([1, 2], -1)[1],
    "turned": lambda u: u.T,
    "spread": lambda u: u[:, :1].expand(B, H),
    "unbind": loop_over,
    "reshape": lambda u: u.reshape(-1).cumsum(0) + u.view(H, B).T.flatten(),
    "unflatten": lambda u: u.flatten().unflatten(0, (H, B)) @ u,
    "permute": lambda u: C.stack.permute(2, 0, 1) * u + u.T.unsqueeze(-1),
    "expand": lambda u: u.unsqueeze(0).expand(4, -1, -1) * u[:1].expand(B, H),
    "squeeze": lambda u: u[:, :1].squeeze() + u[None].squeeze(0).T,
    "repeat": lambda u: u.repeat(2, 2) + u.repeat_interleave(2, -1).tile(2, 1),
    "flip": lambda u: u.flip(0) * u.flip(-1) + u.flip(0, 1),
    "roll": lambda u: u.roll(1, -1) + u.roll(1),
    "pad": lambda u: F.pad(u, (1, 0, 0, 2)) + F.pad(u, (0, 1, 1, 1), value=2.0),
    # dtypes
    "integers and back": lambda u: (u * 3).long().double() * u,
    "float32 and back": lambda u: u.float().double() * u,
    "a number without axes": lambda u: u * C.b[0] + u.sum(),
    "bitwise": lambda u: (u * 9).long() & 5 | (u > 0).long() ^ 3,
    # modules
    "module": lambda u: C.module(u),
}


def pressed(y):
    """A number made of all values of y."""
    weights = torch.tensor(np.cos(np.arange(math.prod(y.shape))).reshape(y.shape))
    return (y.double() * weights).sum()


def before(f):
    def cell(x, h):
        y = f(x)
        return y, (h * 0.5 + x * pressed(y)).tanh()

    return cell


def between(f):
    def cell(x, h):
        y = f(h)
        return h, (h * 0.5 + x * pressed(y)).tanh()

    return cell


def after(f):
    def cell(x, h):
        h = (h * 0.5 + x).tanh()
        return f(h), h

    return cell


def beside(f):
    """The next state, which the output keeps, is seen as y on the way to another state."""

    def cell(x, state):
        h, total = state
        h = (h * 0.5 + x).tanh()
        y = f(h)
        return (y, h), (h, (total * 0.5 + pressed(y)).tanh())

    return cell


def assert_scan_is_unroll(cell, xs, h0, *constants, **options):
    leaves = (xs, h0, *constants)
    torch.manual_seed(0)
    actual = derivatives(scan(cell, xs, h0, **options), *leaves)
    torch.manual_seed(0)
    assert_agree(actual, derivatives(unroll(cell, xs, h0, **options), *leaves))


@pytest.mark.double_every(5)
@pytest.mark.parametrize("where", [before, between, after, beside])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name, where):
    constants = C.W, C.b, C.stack, C.table, *C.module.parameters()
    cell, reverse = where(OPERATIONS[name]), len(name) % 2 == 0
    h0 = (leaf(B, H), leaf()) if where is beside else leaf(B, H)
    assert_scan_is_unroll(cell, leaf(T, B, H), h0, *constants, reverse=reverse)


# States of other shapes and dtypes.

STATES = {
    "a vector": (lambda x, h: (h @ C.W, (h @ C.W + x[0]).tanh()), leaf(H)),
    "a number": (lambda x, h: (h * x, (h * x.sum()).tanh()), leaf()),
    "three axes": (lambda x, h: (h[0], (h @ C.W + x).tanh() @ C.stack), leaf(B, B, H)),
    "as it was, transposed": (lambda x, h: (h, (h.T @ h + C.W).tanh()), leaf(H, H)),
    "split and merged": (
        lambda x, h: (h[0], (h.reshape(4, H)[1:] + x[0]).reshape(H, H).tanh()[:2, :2].repeat(1, 3)),
        leaf(2, 6),
    ),
    "float32": (lambda x, h: (h, (h @ C.W.float() + x.float()).tanh()), leaf(B, H, dtype="f4")),
    "float32, output float64": (
        lambda x, h: (h * x, (h + x.float()).tanh()),
        leaf(B, H, dtype="float32"),
    ),
    "float64 by float32": (lambda x, h: (h, (h * C.b.float() + x).tanh()), leaf(B, H)),
    "float64 by a number of float32": (
        lambda x, h: (h * C.b[0].float(), (h + x * C.b[1].float()).tanh()),
        leaf(B, H),
    ),
    "integers": (lambda x, h: (h * x, h * 3 // 2 + 1), torch.tensor([[1, 2, 3]])),
    "integers of 32 bits": (lambda x, h: (x * h, -h), torch.tensor([1, 2, 3], dtype=torch.int32)),
    "truth values": (lambda x, h: (torch.where(h, x, 0.0), h ^ (x > 0)), MASK),
    "a counter in use": (
        lambda x, s: (s[0], ((s[0] + x * (s[1] % 2)).tanh(), s[1] + 1)),
        (leaf(B, H), torch.tensor(0)),
    ),
    "a key of random bits": (
        lambda x, s: (s[0] * (s[1] & 1), ((s[0] + x).tanh(), s[1] * 1103515245 + 12345)),
        (leaf(B, H), torch.tensor([7, 8, 9])),
    ),
    "states that change places": (
        lambda x, s: (s[0] * s[1], (s[1], (s[0] + x).tanh(), s[2])),
        (leaf(B, H), leaf(B, H, seed=1), leaf(B, H, seed=2)),
    ),
    "a state from outside": (lambda x, h: (h + x, C.W[:2] * 1), leaf(B, H)),
    "a state that is x": (lambda x, h: (h * x, x), leaf(B, H)),
    "an output that is h": (lambda x, h: (h, h), leaf(B, H)),
    "an output from outside": (lambda x, h: (C.W, (h + x).tanh()), leaf(B, H)),
    "an output twice": (lambda x, h: ((h, h, x, x), (h + x).tanh()), leaf(B, H)),
    "a state twice": (
        lambda x, s: (s[0] * s[1], ((s[0] + x).tanh(),) * 2),
        (leaf(B, H), leaf(B, H, seed=1)),
    ),
    "no output": (lambda x, h: ((), (h + x).tanh()), leaf(B, H)),
    "no state": (lambda x, h: (x * C.b, ()), ()),
    "random numbers": (
        lambda x, h: (h, (h * torch.rand(B, H, dtype=torch.float64) + x).tanh() * torch.randn(1)),
        leaf(B, H),
    ),
}


@pytest.mark.double_every(3)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("checkpoint", [None, 3])
@pytest.mark.parametrize("name", STATES)
def test_states(name, checkpoint, reverse):
    cell, h0 = STATES[name]
    xs, h0 = leaf(T, B, H), on_device(h0)

    def results(recurrence, **options):
        torch.manual_seed(0)
        outputs = recurrence(cell, xs, h0, reverse=reverse, **options)
        return derivatives(outputs, xs, h0, C.W, C.b, C.stack)

    assert_agree(results(scan, checkpoint=checkpoint), results(unroll), FLOAT32.get(name))


#: A tolerance for those that compute in float32.
FLOAT32 = {name: 1e-5 for name in STATES if "float32" in name}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logsumexp_of_what_is_not_finite_or_not_there(dtype):
    rows = [[-math.inf] * 2, [math.inf, 0], [1e4, 1e4], [math.nan, 1], [-math.inf, 3], [-1e38] * 2]
    xs, h0 = torch.tensor([rows, rows[::-1]]).to(dtype), torch.zeros(6, 1).to(dtype)

    def cell(x, h):
        return ((x + h).logsumexp(-1), h[:, :0].logsumexp(1), (h + 1).long().logsumexp(1)), h + 1

    (by_scan, _), (by_unroll, _) = (run(cell, xs, h0) for run in (scan, unroll))
    for found, expected in zip(by_scan, by_unroll, strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)
        assert found.dtype == expected.dtype


def test_a_state_of_float16():
    """Held against float64: each recurrence rounds its sums in an order of its own."""
    leaves = [leaf(*shape, dtype="float16") for shape in [(T, B, H), (B, H), (H,)]]

    def run(recurrence, xs, h0, w):
        def cell(x, h):
            h = (h * w + x).tanh()
            return h * 2, h

        return derivatives(recurrence(cell, xs, h0), xs, h0, w)

    expected = run(unroll, *(x.detach().double().requires_grad_() for x in leaves))
    found = run(scan, *leaves)
    assert {y.dtype for y in found.values()} == {torch.float16}
    assert_agree({name: y.double() for name, y in found.items()}, expected, tolerance=2e-3)


def test_results_have_memory_of_their_own(xp):
    """Written in place, one result changes no other, nor an input: as those of unroll."""

    def cell(x, h):
        z = torch.cat([h, x], -1)
        return (h, h, x, z, z[:, :2], z.T, z.reshape(-1), h * 1), (h + x).tanh()

    xs, h0 = leaf(T, B, H).detach(), leaf(B, H).detach()
    for recurrence in (unroll, scan):
        ys, h = recurrence(cell, xs, h0)
        arrays = [x.array for x in (*ys, h, xs, h0)]
        for a, b in itertools.combinations(arrays, 2):
            assert not xp.may_share_memory(a, b), recurrence.__name__
