"""Methods and functions with PyTorch's names, against PyTorch: the same call in both libraries.

A row of a table is a call f(torch, *tensors), where `torch` is PyTorch or this package, and how its
operands are drawn. Values, dtypes, gradients and second gradients must be the same.
"""

import math
import zlib

import numpy as np
import pytest

import tinygrad_rnn
import tinygrad_rnn.nn.functional

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("device")

TOLERANCE = {"float64": 1e-12, "float32": 1e-6}


# --- operands: each a function of a random generator ---------------------------------------------


def real(*shape):
    return lambda rng: rng.normal(size=shape)


def positive(*shape):
    return lambda rng: rng.uniform(0.5, 2, shape)


def nonzero(*shape):
    return lambda rng: rng.uniform(0.3, 2, shape) * rng.choice([-1, 1], shape)


def spaced(*shape):
    """No two values equal, none close to an integer or a half."""
    n = math.prod(shape)
    return lambda rng: (rng.permutation(n) - n // 2 + rng.uniform(0.2, 0.4, n)).reshape(shape)


def whole(*shape, low=-5, high=6):
    return lambda rng: rng.integers(low, high, shape)


def truth(*shape):
    return lambda rng: rng.random(shape) < 0.5


def given(values):
    return lambda rng: np.array(values)


x34, x234 = real(3, 4), real(2, 3, 4)

ARITHMETIC = {
    "add": (lambda t, x, y: x + y, x34, real(4)),
    "add number": (lambda t, x: 2 + x + 1.5, x34),
    "add alpha": (lambda t, x, y: t.add(x, y, alpha=0.3), x34, real(3, 1)),
    "sub": (lambda t, x, y: x - y, real(3, 1), real(1, 4)),
    "sub number": (lambda t, x: 2 - x - 1.5, x34),
    "sub alpha": (lambda t, x, y: x.sub(y, alpha=2), x34, x34),
    "mul": (lambda t, x, y: x * y, x234, real(3, 1)),
    "mul number": (lambda t, x: 2 * x * 1.5, x34),
    "mul itself": (lambda t, x: x * x * x, x34),
    "div": (lambda t, x, y: x / y, x34, nonzero(3, 1)),
    "div number": (lambda t, x: 2 / x / 1.5, nonzero(3, 4)),
    "div floor": (lambda t, x, y: t.div(x, y, rounding_mode="floor"), spaced(5), nonzero(5)),
    "div trunc": (lambda t, x, y: t.div(x, y, rounding_mode="trunc"), spaced(5), nonzero(5)),
    "floordiv": (lambda t, x: (x.detach() // 2, 7 // x.detach()), spaced(3, 4)),
    "mod": (lambda t, x, y: x % y, spaced(7), positive(7)),
    "mod number": (lambda t, x: (x % 3, x % -3), spaced(3, 4)),
    "remainder": (lambda t, x: t.remainder(x, 2.5), spaced(7)),
    "neg": (lambda t, x: (-x, t.neg(x)), x34),
    "pos": (lambda t, x: +x, x34),
    "abs": (lambda t, x: (abs(x), x.abs()), nonzero(3, 4)),
    "abs at 0": (lambda t, x: x.abs(), given([0.0, -0.0, 1.0])),
    "pow": (lambda t, x, y: x**y, positive(3, 4), real(4)),
    "pow 2": (lambda t, x: x**2, x34),
    "pow 3": (lambda t, x: x**3, x34),
    "pow -1": (lambda t, x: x**-1, nonzero(3, 4)),
    "pow -2.5": (lambda t, x: t.pow(x, -2.5), positive(3, 4)),
    "pow 0": (lambda t, x: x**0, given([0.0, 2.0, -1.0])),
    "pow 1": (lambda t, x: x**1, given([0.0, 2.0, -1.0])),
    "pow 0.5 of 0": (lambda t, x: x**2.0, given([0.0, 2.0, -1.0])),
    "pow of a number": (lambda t, x: (2**x, t.pow(0.5, x)), x34),
    "square": (lambda t, x: t.square(x), x34),
    "sqrt": (lambda t, x: (x.sqrt(), x.rsqrt(), x.reciprocal()), positive(3, 4)),
    "maximum": (lambda t, x, y: (t.maximum(x, y), t.minimum(x, y)), x34, real(3, 1)),
    "maximum of equals": (
        lambda t, x, y: (t.maximum(x, y), t.minimum(x, y)), given([1.0, 2]), given([1.0, 3])
    ),
    "lerp": (lambda t, x, y: t.lerp(x, y, 0.3), x34, x34),
    "lerp tensor": (lambda t, x, y, w: t.lerp(x, y, w), x34, x34, x34),
    "clamp": (lambda t, x: x.clamp(-1, 1), spaced(3, 4)),
    "clamp min": (lambda t, x: x.clamp(min=0.5), spaced(3, 4)),
    "clamp max": (lambda t, x: t.clamp(x, max=0.5), spaced(3, 4)),
    "clamp at its bounds": (lambda t, x: t.clip(x, -1, 1), given([-1.0, 1.0, 0, 2])),
    "clamp crossed": (lambda t, x: x.clamp(2, -2), spaced(5)),
    "clamp tensors": (lambda t, x, a, b: x.clamp(a, b), spaced(3, 4), real(4), positive(3, 1)),
    "clamp tensor min": (lambda t, x, a: t.clamp(x, min=a), x34, x34),
    "clamp tensor max": (lambda t, x, a: t.clamp(x, max=a), x34, x34),
    "clamp tensors at bounds": (
        lambda t, x, a, b: x.clamp(a, b), given([1.0, 2, 3]), given([1.0, 0, 0]), given([5.0, 5, 3])
    ),
}  # fmt: skip

FUNCTIONS = {
    "exp": (lambda t, x: (x.exp(), t.expm1(x)), x34),
    "log": (lambda t, x: (x.log(), t.log1p(x), t.log2(x), x.log10()), positive(3, 4)),
    "sin cos": (lambda t, x: (t.sin(x), x.cos()), x34),
    "tanh": (lambda t, x: t.tanh(x), x34),
    "sigmoid": (lambda t, x: t.sigmoid(x), x34),
    "relu": (lambda t, x: t.relu(x), given([-1.0, 0.0, 2.0])),
    "softplus": (lambda t, x: t.nn.functional.softplus(x), x34),
    "erf": (lambda t, x: t.erf(x), x34),
    "sign": (lambda t, x: (x.sign(), t.floor(x), t.ceil(x), x.round()), spaced(3, 4)),
    "round half to even": (lambda t, x: x.round(), given([0.5, 1.5, -0.5, -2.5, 2.5])),
    "comparisons": (
        lambda t, x, y: (x == y, x != y, x < y, x <= y, x > y, x >= y), whole(3, 4), whole(4)
    ),
    "comparisons with numbers": (lambda t, x: (x == 1, x < 0.5, x.ne(2), t.ge(x, 0)), whole(3, 4)),
    "comparisons with others": (
        lambda t, x: (x == None, x != None, x == "x", x == [1]),  # noqa: E711
        x34,
    ),
    "logic": (
        lambda t, a, b: (a & b, a | b, a ^ b, ~a, t.logical_and(a, b), a.logical_or(b)),
        truth(9), truth(9),
    ),
    "logic with a truth": (lambda t, a: (True & a, False | a, True ^ a, a & True), truth(4)),
    "bits": (lambda t, a, b: (a & b, a | b, a ^ b, ~a, 3 & a), whole(9), whole(9)),
    "logical not": (lambda t, x: (t.logical_not(x), x.logical_not()), whole(9, low=0, high=2)),
    "strange": (
        lambda t, x: (t.isnan(x), t.isinf(x), t.isfinite(x), x.isnan()),
        given([1.0, np.nan, np.inf, -np.inf]),
    ),
    "equal": (lambda t, x: (x.equal(x + 0), x.equal(x + 1), x.equal(x[:1])), x34),
    "allclose": (
        lambda t, x: (x.allclose(x + 1e-9), x.allclose(x + 1), x.allclose(x + 1, atol=2)), x34
    ),
}  # fmt: skip

LINEAR = {
    "matmul": (lambda t, a, b: a @ b, x34, real(4, 2)),
    "matmul vector vector": (lambda t, a, b: t.matmul(a, b), real(4), real(4)),
    "matmul vector matrix": (lambda t, a, b: a @ b, real(3), x34),
    "matmul matrix vector": (lambda t, a, b: a @ b, x34, real(4)),
    "matmul batch matrix": (lambda t, a, b: a @ b, x234, real(4, 5)),
    "matmul batch vector": (lambda t, a, b: a.matmul(b), x234, real(4)),
    "matmul vector batch": (lambda t, a, b: a @ b, real(3), x234),
    "matmul matrix batch": (lambda t, a, b: a @ b, real(5, 3), x234),
    "matmul batches": (lambda t, a, b: a @ b, real(2, 1, 3, 4), real(5, 4, 2)),
    "matmul transposed": (lambda t, a, b: a.T @ b.mT, x34, real(5, 3)),
    "matmul of nothing": (lambda t, a, b: a @ b, real(2, 3, 0), real(0, 4)),
    "matmul to nothing": (lambda t, a, b: a @ b, real(2, 0, 4), real(4, 3)),
    "mm bmm mv": (
        lambda t, a, b, v: (t.mm(a, b), a.mv(v), t.bmm(a[None], b[None])), x34, real(4, 2), real(4)
    ),
    "dot outer": (lambda t, a, b: (t.dot(a, b), t.outer(a, b)), real(4), real(4)),
    "einsum product": (lambda t, a, b: t.einsum("ij,jk->ik", a, b), x34, real(4, 2)),
    "einsum implicit": (lambda t, a, b: t.einsum("ij,jk", a, b), x34, real(4, 2)),
    "einsum implicit order": (lambda t, a: t.einsum("ba", a), x34),
    "einsum spaces": (lambda t, a, b: t.einsum(" b t d , h d -> b t h ", a, b), x234, real(5, 4)),
    "einsum trace": (lambda t, a: t.einsum("ii", a), real(3, 3)),
    "einsum diagonal": (lambda t, a: t.einsum("ii->i", a), real(3, 3)),
    "einsum batch diagonal": (lambda t, a: t.einsum("bii->bi", a), real(2, 3, 3)),
    "einsum far diagonal": (lambda t, a: t.einsum("iji->ji", a), real(3, 2, 3)),
    "einsum sum": (lambda t, a: t.einsum("ij->", a), x34),
    "einsum lost label": (lambda t, a, b: t.einsum("ij,k->i", a, b), x34, real(2)),
    "einsum outer": (lambda t, a, b: t.einsum("i,j->ji", a, b), real(3), real(4)),
    "einsum ellipsis": (lambda t, a, b: t.einsum("...ij,...jk->...ik", a, b), x234, real(4, 2)),
    "einsum ellipsis at the end": (lambda t, a: t.einsum("i...->...i", a), x234),
    "einsum ellipsis implicit": (lambda t, a, b: t.einsum("...i,ij", a, b), x234, real(4, 2)),
    "einsum ellipsis summed": (lambda t, a: t.einsum("...i->i", a), x234),
    "einsum ellipses of two lengths": (
        lambda t, a, b: t.einsum("...i,...i->...", a, b), real(2, 3, 4), real(3, 4)
    ),
    "einsum ellipsis broadcast": (
        lambda t, a, b: t.einsum("...i,...i->...", a, b), real(1, 4), real(3, 4)
    ),
    "einsum label broadcast": (
        lambda t, a, b: (t.einsum("ij,ij->ij", a, b), t.einsum("ij,ij->j", a, b)),
        real(1, 4), real(3, 4),
    ),
    "einsum of size 0": (lambda t, a, b: t.einsum("ij,jk->ik", a, b), real(3, 0), real(0, 2)),
    "einsum three": (
        lambda t, a, b, c: t.einsum("bi,ij,bj->b", a, b, c), x34, real(4, 5), real(3, 5)
    ),
    "einsum list": (lambda t, a, b: t.einsum("ij,j->i", [a, b]), x34, real(4)),
    "addmm": (
        lambda t, x, a, b: (t.addmm(x, a, b), x.addmm(a, b, beta=0.5, alpha=-2)),
        real(2), x34, real(4, 2),
    ),
    "einsum same operand twice": (lambda t, a: t.einsum("ij,kj->ik", a, a), x34),
}  # fmt: skip

REDUCTIONS = {
    "sum": (lambda t, x: (x.sum(), t.sum(x, 0), x.sum(-1, keepdim=True)), x234),
    "sum dims": (lambda t, x: (x.sum((0, -1)), x.sum([1, 2], keepdim=True)), x234),
    "sum dtype": (lambda t, x: x.sum(dtype=t.float64), x34),
    "sum of nothing": (lambda t, x: (x.sum(), x.sum(0), x.sum(1)), real(3, 0)),
    "mean": (lambda t, x: (x.mean(), x.mean(1), t.mean(x, (0, 2), keepdim=True)), x234),
    "mean dtype": (lambda t, x: x.mean(dtype=t.float64), whole(5)),
    "amax": (lambda t, x: (t.amax(x, (0, 1)), x.amin(-1, keepdim=True)), x234),
    "amax of equals": (lambda t, x: (x.amax(1), x.amin(1)), given([[1.0, 2, 2], [3, 3, 3]])),
    "max": (lambda t, x: (x.max(), t.min(x)), x234),
    "max of equals": (lambda t, x: (x.max(), x.min()), given([1.0, 3, 3, 1])),
    "max dim": (lambda t, x: (*x.max(1), *t.min(x, -1, keepdim=True)), x234),
    "max dim fields": (lambda t, x: (x.max(0).values, x.min(dim=0).indices), x234),
    "max dim of equals": (lambda t, x: (*x.max(1), *x.min(1)), given([[1.0, 2, 2], [3, 3, 3]])),
    "max of two": (lambda t, x, y: (t.max(x, y), x.min(y)), x34, real(4)),
    "argmax": (
        lambda t, x: (x.argmax(), t.argmin(x), x.argmax(1), x.argmin(-1, keepdim=True)), x234
    ),
    "argmax of equals": (lambda t, x: (x.argmax(1), x.argmin(1)), given([[2, 1, 2], [1, 1, 1]])),
    "prod": (lambda t, x: (x.prod(), x.prod(1), t.prod(x, -1, keepdim=True)), x234),
    "prod with a zero": (lambda t, x: x.prod(), given([2.0, 0, 3])),
    "prod with two zeros": (lambda t, x: x.prod(1), given([[2.0, 0, 0, 1], [0, 1, 2, 3]])),
    "prod of odd counts": (lambda t, x: (x.prod(0), x.prod(1)), real(7, 5)),
    "prod of nothing": (lambda t, x: (x.prod(), x.prod(0), x.prod(1)), real(3, 0)),
    "prod of one": (lambda t, x: (x.prod(), x.prod(0)), real(1)),
    "var": (lambda t, x: (x.var(), t.var(x, 0), x.var((0, 2), keepdim=True)), x234),
    "var biased": (
        lambda t, x: (x.var(unbiased=False), x.var(1, False), x.var(1, correction=0)),
        x234,
    ),
    "var correction": (lambda t, x: (x.var(0, correction=2), x.std(0, correction=0)), x34),
    "std": (lambda t, x: (x.std(), t.std(x, 1), x.std(-1, unbiased=False, keepdim=True)), x234),
    "norm": (lambda t, x: (x.norm(), t.norm(x, dim=1), x.norm(2, -1, keepdim=True)), x234),
    "norm p": (lambda t, x: (x.norm(1), x.norm(3, 0), x.norm(p=2.5, dim=(0, 1))), nonzero(2, 3, 4)),
    "norm inf": (lambda t, x: (x.norm(math.inf), x.norm(-math.inf, 1), x.norm(0, 1)), spaced(3, 4)),
    "norm fro": (lambda t, x: x.norm("fro"), x34),
    "logsumexp": (lambda t, x: (x.logsumexp(1), t.logsumexp(x, (0, 2), keepdim=True)), x234),
    "softmax": (lambda t, x: (x.softmax(1), t.softmax(x, -1), t.softmax(x, dim=0)), x234),
    "log_softmax": (lambda t, x: (x.log_softmax(-1), t.log_softmax(x, dim=0)), x234),
    "cumsum": (lambda t, x: (x.cumsum(0), t.cumsum(x, -1), x.cumsum(dim=1)), x234),
    "argsort": (lambda t, x: (x.argsort(), t.argsort(x, 0, descending=True)), spaced(3, 4)),
    "sort": (
        lambda t, x: (*x.sort(), *t.sort(x, 0, descending=True), x.sort(1).values),
        spaced(3, 4),
    ),
    "sort of equals": (
        lambda t, x: (*t.sort(x, stable=True), *t.sort(x, descending=True, stable=True)),
        given([2.0, 1, 2, 1, 2]),
    ),
    "topk": (lambda t, x: (*x.topk(2), *t.topk(x, 3, 0, largest=False), *x.topk(0)), spaced(3, 4)),
    "topk sorted": (lambda t, x: x.topk(2, dim=-1, largest=True, sorted=True).values, spaced(5)),
    "any all": (
        lambda t, x: (x.any(), x.all(), t.any(x, 1), x.all(0, keepdim=True), t.all(x)),
        whole(3, 4, low=0, high=2),
    ),
    "of one number": (
        lambda t, x: (x.sum(0), x.mean(-1), *x.max(0), x.argmax(0), x.argmin(-1), x.cumsum(0),
                      *x.sort(), x.argsort(), x.softmax(0), x.logsumexp(0), x.prod(0), x.amax(0),
                      x.norm(), x.var(unbiased=False)),
        real(),
    ),
    "of one value": (
        lambda t, x: (x.sum(), x.mean(0), *x.max(0), x.cumsum(0), *x.sort(), x.softmax(0)),
        real(1),
    ),
}  # fmt: skip

SHAPE = {
    "reshape": (lambda t, x: (x.reshape(4, 6), x.reshape(-1, 2), t.reshape(x, (6, -1))), x234),
    "reshape of nothing": (lambda t, x: (x.reshape(-1), x.reshape(0, 5)), real(2, 0)),
    "view": (lambda t, x: (x.view(12, 2), x.view(-1), x.view((2, -1)), x.view_as(x)), x234),
    "reshape_as": (lambda t, x, y: x.reshape_as(y), x34, real(6, 2)),
    "flatten": (lambda t, x: (x.flatten(), x.flatten(1), t.flatten(x, 0, 1)), x234),
    "flatten a number": (lambda t, x: x.flatten(), real()),
    "unflatten": (lambda t, x: (x.unflatten(1, (2, 3)), t.unflatten(x, -1, (-1, 3))), real(2, 6)),
    "squeeze": (
        lambda t, x: (x.squeeze(), x.squeeze(0), t.squeeze(x, 1), x.squeeze(-1), x.squeeze((0, 1))),
        real(1, 3, 1),
    ),
    "unsqueeze": (lambda t, x: (x.unsqueeze(0), x.unsqueeze(-1), t.unsqueeze(x, 1)), x34),
    "transpose": (lambda t, x: (x.transpose(0, 1), t.transpose(x, -1, 0), x.swapaxes(1, 2)), x234),
    "T": (lambda t, x: (x.T, x.mT, x.t(), t.t(x[0])), x34),
    "permute": (
        lambda t, x: (x.permute(2, 0, 1), t.permute(x, (-1, 0, 1)), x.permute([1, 0, 2])),
        x234,
    ),
    "permute by name": (lambda t, x: t.permute(x, dims=(2, 1, 0)), x234),
    "movedim": (lambda t, x: (x.movedim(0, 2), t.moveaxis(x, -1, 0), x.movedim(0, -2)), x234),
    "movedim several": (
        lambda t, x: (x.movedim((0, 1), (1, 2)), t.movedim(x, (2, 0), (0, 1))),
        x234,
    ),
    "expand": (lambda t, x: (x.expand(3, 4), x.expand(2, -1, 4), x.expand((5, 3, 4))), real(3, 1)),
    "expand_as": (lambda t, x, y: (x.expand_as(y), t.broadcast_to(x, (2, 3, 4))), real(3, 1), x234),
    "expand to nothing": (lambda t, x: x.expand(0, 3), real(1, 3)),
    "sum_to_size": (
        lambda t, x: (x.sum_to_size(3, 1), x.sum_to_size(1), x.sum_to_size(2, 1, 4)),
        x234,
    ),
    "repeat": (lambda t, x: (x.repeat(2, 1), x.repeat(2, 1, 3), x.repeat((0, 2))), x34),
    "tile": (lambda t, x: (t.tile(x, (2,)), x.tile(2, 3), x.tile((2, 1, 1))), x34),
    "repeat_interleave": (
        lambda t, x: (x.repeat_interleave(2), t.repeat_interleave(x, 3, dim=1)), x34
    ),
    "flip": (lambda t, x: (x.flip(0), x.flip(0, -1), t.flip(x, [1]), x.flip((0, 1))), x34),
    "flip by name": (lambda t, x: (x.flip(dims=(0,)), t.flip(x, dims=[0, 1])), x34),
    "roll": (
        lambda t, x: (x.roll(1, 0), t.roll(x, -2, dims=-1), x.roll((1, 2), (0, 1)), x.roll(5)),
        x34,
    ),
    "cat": (lambda t, x, y: (t.cat([x, y]), t.cat((x, y, x), dim=-2)), x34, real(2, 4)),
    "cat of one": (lambda t, x: t.cat([x], 1), x34),
    "cat with nothing": (lambda t, x: t.cat([t.tensor([], dtype=x.dtype), x]), x34),
    "cat of nothings": (lambda t, x: t.cat([x, x]), real(0)),
    "stack": (
        lambda t, x, y: (t.stack([x, y]), t.stack((x, y), 1), t.stack([x, y], dim=-1)),
        x34, x34,
    ),
    "split": (lambda t, x: (*x.split(2, 1), *t.split(x, 1), *x.split([1, 3], dim=-1)), x34),
    "split unused": (lambda t, x: x.split(2, 1)[1], x34),
    "chunk": (lambda t, x: (*x.chunk(2, 1), *t.chunk(x, 2), *x.chunk(5, -1)), real(5, 4)),
    "chunk nothing": (lambda t, x: x.chunk(3), real(0, 2)),
    "unbind": (lambda t, x: (*x.unbind(), *t.unbind(x, -1)), x34),
    "unbind unused": (lambda t, x: x.unbind(1)[2], x34),
    "iterate": (lambda t, x: [row * k for k, row in enumerate(x)], x34),
    "narrow": (lambda t, x: (x.narrow(0, 1, 2), t.narrow(x, -1, 0, 3), x.narrow(1, -2, 2)), x34),
    "select": (lambda t, x: (x.select(0, 1), t.select(x, -1, -1)), x34),
    "sizes": (
        lambda t, x: (tuple(x.shape), tuple(x.size()), x.size(-1), x.dim(), x.numel(), len(x)),
        x34,
    ),
    "tril triu": (
        lambda t, x: (x.tril(), t.triu(x), x.tril(1), x.triu(-1), t.triu(x, diagonal=2)), x234
    ),
    "triu of infinities": (lambda t, x: (x.triu(1), x.tril(-1)), given(np.full((3, 3), -np.inf))),
    "clone contiguous": (lambda t, x: (x.clone(), x.contiguous(), t.clone(x)), x34),
}  # fmt: skip

rows = given([2, 0, 2, -1])
INDEXING = {
    "integer": (lambda t, x: (x[1], x[-1], x[1, 2], x[1][2]), x34),
    "slices": (lambda t, x: (x[1:], x[:, 1:3], x[::2, -3:-1], x[0:0], x[..., 1], x[:2, ...]), x34),
    "None": (lambda t, x: (x[None], x[:, None], x[..., None], x[None, 1, None, :2]), x34),
    "full": (lambda t, x: (x[...], x[:], x[()]), x34),
    "of a number": (lambda t, x: (x[()], x[...], x[None]), real()),
    "list": (lambda t, x: (x[[0, 2, 0]], x[:, [1, 1]], x[[0, 1], [2, 3]], x[[]]), x34),
    "tensor": (lambda t, x, k: (x[k], x[:, k], x[k, k], x[k, 1], x[k, None]), real(3, 3), rows),
    "tensor of two axes": (lambda t, x, k: x[k], x34, given([[0, 1], [1, 1], [2, 0]])),
    "tensor of no axes": (lambda t, x, k: (x[k], x[:, k]), x34, given(2)),
    "tensors that broadcast": (
        lambda t, x, a, b: (x[a, b], x[:, a, b], x[a, :, b]), real(3, 4, 5), given([[0], [2]]),
        given([1, 1, 3]),
    ),
    "mask": (lambda t, x, m: (x[m], x[~m]), x34, truth(3, 4)),
    "mask of rows": (lambda t, x, m: (x[m], x[m, 1:]), x34, given([True, False, True])),
    "mask of columns": (lambda t, x, m: x[:, m], x34, given([True, False, True, False])),
    "mask of nothing": (lambda t, x: x[x > 100], x34),
    "list of truths": (lambda t, x: x[[True, False, True]], x34),
    "index_select": (
        lambda t, x, k: (x.index_select(0, k), t.index_select(x, 1, k), x.index_select(-1, k[:0])),
        real(3, 3), given([2, 0, 2]),
    ),
    "gather": (
        lambda t, x, k: (x.gather(1, k), t.gather(x, dim=0, index=k[:, :2])), real(3, 4),
        given([[2, 0, 2], [1, 1, 1], [0, 2, 1]]),
    ),
    "gather smaller": (
        lambda t, x, k: (x.gather(2, k), x.gather(0, k)),
        x234, given([[[1, 0, 1]]]),
    ),
    "gather longer": (lambda t, x, k: x.gather(0, k), real(2, 3), given([[0, 1, 0]] * 5)),
    "gather nothing": (lambda t, x, k: x.gather(1, k), x34, whole(3, 0)),
    "gather a number": (lambda t, x, k: x.gather(0, k), real(), given(0)),
    "scatter_add": (
        lambda t, x, k, y: (x.scatter_add(1, k, y), t.scatter_add(x, 0, k[:, :2], y[:, :2])),
        real(3, 4),
        given([[2, 0, 2], [1, 1, 1], [0, 2, 1]]), real(3, 3),
    ),
    "masked_fill": (
        lambda t, x, m: (x.masked_fill(m, -1), x.masked_fill(m[0], 2.5), x.masked_fill(~m, -1e9)),
        x34, truth(3, 4),
    ),
    "masked_fill with a tensor": (lambda t, x, m, v: x.masked_fill(m, v), x34, truth(3, 4), real()),
    "masked_fill of integers": (lambda t, x, m: x.masked_fill(m, 7), whole(3, 4), truth(3, 4)),
    "masked_select": (
        lambda t, x, m: (x.masked_select(m), t.masked_select(x, m)),
        x34, truth(3, 4),
    ),
    "where": (
        lambda t, m, x, y: (t.where(m, x, y), x.where(m, y), t.where(m, x, 0), t.where(m, 1.5, y)),
        truth(3, 4), x34, real(4),
    ),
    "where of numbers": (
        lambda t, m: (t.where(m, 1.0, 0.0), t.where(m, 1, 0), t.where(m, 1, 0.5)),
        truth(5),
    ),
}  # fmt: skip


def written(write):
    """A call that writes into a clone of its first operand, and gives it."""

    def call(t, x, *others):
        y = x * 1
        write(y, *others)
        return y

    return call


def set_item(index):
    return written(lambda y, value: y.__setitem__(index, value))


ASSIGNMENT = {
    "row": (set_item(1), x34, real(4)),
    "number to a row": (written(lambda y: y.__setitem__(1, 2.5)), x34),
    "one value to one place": (set_item((1, 2)), x34, real()),
    "vector of one to one place": (set_item((1, 2)), x34, real(1)),
    "slice": (set_item((slice(None), slice(1, 3))), x34, real(3, 2)),
    "broadcast": (set_item((slice(None), slice(1, 3))), x34, real(3, 1)),
    "leading axes of size 1": (set_item(slice(0, 2)), x34, real(1, 1, 2, 4)),
    "ellipsis": (set_item(...), x34, real(4)),
    "list": (set_item([0, 2]), x34, real(2, 4)),
    "tensor": (written(lambda y, k, v: y.__setitem__(k, v)), x34, given([2, 0]), real(4)),
    "mask": (
        written(lambda y, m, v: y.__setitem__(m, v)),
        x34, given([True, False, True]), real(4),
    ),
    "mask from itself": (written(lambda y: y.__setitem__(y > 0, 0.0)), x34),
    "into a constant": (
        lambda t, x: written(lambda y, v: y.__setitem__(0, v))(t, t.zeros(2, 3, dtype=x.dtype), x),
        real(3),
    ),
    "scatter_": (
        written(lambda y, k, v: (y.scatter_(1, k, v), y.scatter_(0, k[:1, :1] * 0, v.detach()))),
        x34, given([[3, 0], [1, 2]]), real(2, 2),
    ),
    "scatter_ of a number": (
        written(lambda y, k: y.scatter_(0, k, 1.0)), real(3, 2), given([[2, 0], [2, 1]])
    ),
    "index_fill_": (
        written(lambda y, k: (y.index_fill_(1, k, 0.5), y.index_fill_(0, k[:1], -1.0))),
        x34, given([2, 0]),
    ),
    "twice": (written(lambda y, v: (y.__setitem__(0, v), y.__setitem__(0, v * 2))), x34, real(4)),
    "augmented row": (written(lambda y, v: y.__setitem__(1, y[1] + v)), x34, real(4)),
}  # fmt: skip

INTEGERS = {
    "arithmetic": (
        lambda t, x, y: (x + y, x - y, x * y, x / y, x // y, x % y, -x, abs(x), x**2, x + 1, 3 - x),
        whole(9), whole(9, low=1),
    ),
    "with floating numbers": (
        lambda t, x: (x + 0.5, x * 2.0, x / 2, 1 / (x + 10), x**0.5, 2.0 - x), whole(5, low=0)
    ),
    "division with a negative divisor": (lambda t, x: (x // -2, x % -3), whole(9)),
    "division rounded": (
        lambda t, x, y: (t.div(x, y, rounding_mode="floor"), t.div(x, y, rounding_mode="trunc")),
        whole(20), given([-3, 2] * 10),
    ),
    "with a floating tensor": (
        lambda t, x, y: (x * y, y - x, y / x, t.maximum(y, y)),
        whole(5, low=1), real(5),
    ),
    "nonzero": (lambda t, x: (t.nonzero(x), *x.nonzero(as_tuple=True)), whole(4, 5, low=0, high=2)),
    "nonzero of none": (lambda t, x: (x.nonzero(), (x * 0)[0].nonzero()), whole(2, 0)),
    "nonzero number": (lambda t, x: (x.nonzero(), (x * 0).nonzero()), given(3)),
    "unique": (
        lambda t, x: (x.unique(), *t.unique(x, return_inverse=True, return_counts=True)),
        whole(4, 5),
    ),
    "counts of unique": (lambda t, x: t.unique(x, return_counts=True), whole(9)),
    "new": (
        lambda t, x: (
            x.new_zeros(2, 3), x.new_ones((2,)), x.new_full((2, 1), 3), x.new_tensor([1.5, 2]),
            x.new_zeros(1, dtype=t.float64), x.new(3, 2).zero_(),
        ),
        whole(2),
    ),
    "limits": (
        lambda t, x: (t.iinfo(x.dtype).max, float(t.finfo(t.float32).min), t.is_floating_point(x)),
        whole(1),
    ),
    "equal": (
        lambda t, x: (t.equal(x, x + 0), t.equal(x, x[:1]), t.allclose(x, x + 0), t.numel(x)),
        whole(5),
    ),
    "functions": (
        lambda t, x: (x.exp(), x.sqrt(), x.log(), x.sin(), x.tanh(), x.sigmoid(), x.erf()),
        whole(5, low=1),
    ),
    "functions that stay whole": (
        lambda t, x: (x.relu(), x.sign(), x.abs(), x.square(), x.clamp(-1, 2), x.floor()), whole(9)
    ),
    "clamp to floating bounds": (lambda t, x: x.clamp(-0.5, 1.5), whole(9)),
    "reductions": (
        lambda t, x: (x.sum(), x.sum(0), x.prod(1), x.cumsum(1), x.amax(0), x.max(), *x.max(1)),
        whole(3, 4, low=-3, high=3),
    ),
    "of truths": (
        lambda t, a: (a.sum(), a.sum(1), a.prod(), a.cumsum(0), a * 2, a * 0.5, a + a, a.float(),
                      a.long() - 1, a.any(), a.max(), a / 2),
        truth(3, 4),
    ),
    "truths with floating numbers": (
        lambda t, a, x: (a * x, x + a, t.where(a, x, a * 1)),
        truth(4), real(4),
    ),
    "shape": (
        lambda t, x: (x.reshape(4, 3), x.T, x.flip(0), t.cat([x, x]), x.repeat(1, 2)),
        whole(3, 4),
    ),
    "cat of several kinds": (lambda t, x, y: t.cat([x, y]), whole(3), real(3)),
    "stack of several kinds": (lambda t, x, y: t.stack([x, y]), whole(3), real(3)),
    "conversions": (
        lambda t, x: (x.float(), x.double(), x.long(), x.int(), x.bool(), x.half(), x.to(t.int8),
                      x.type(t.float64), x.type_as(x.double())),
        spaced(5),
    ),
    "matmul": (lambda t, x, y: (x @ y, t.einsum("ij,jk->k", x, y)), whole(2, 3), whole(3, 4)),
    "sort": (
        lambda t, x: (*x.sort(stable=True), x.argsort(descending=True, stable=True)),
        whole(9),
    ),
}  # fmt: skip

LARGE = given([[1e4, 1e4], [-1e4, 1e4], [-np.inf, 2], [-np.inf, -1e4]])

EXTREMES = {
    "sigmoid": (lambda t, x: t.sigmoid(x), given([-1e4, -100.0, 0, 100, 1e4, np.inf, -np.inf])),
    "softplus": (
        lambda t, x: t.nn.functional.softplus(x), given([-1e4, -100.0, 0, 100, 1e4, -np.inf])
    ),
    "tanh": (lambda t, x: t.tanh(x), given([-1e4, 1e4, np.inf, -np.inf])),
    "logsumexp": (lambda t, x: (x.logsumexp(1), x.logsumexp(0)), LARGE),
    "softmax": (lambda t, x: (x.softmax(1), x.softmax(0)), LARGE),
    "log_softmax": (lambda t, x: x.log_softmax(1), LARGE),
    "exp log": (lambda t, x: (x.exp(), x.log(), x.sqrt()), given([0.0, 1e4, np.inf])),
    "division by 0": (lambda t, x: (x / 0, 1 / x, x % 2), given([0.0, 1, -1])),
    "max": (lambda t, x: (x.max(), *x.max(1), x.amax(1)), given([[1.0, np.inf], [-np.inf, 2]])),
    "sort": (lambda t, x: (*x.sort(), *x.sort(descending=True)), given([1.0, -np.inf, np.inf])),
    "clamp": (lambda t, x: (x.clamp(-1, 1), x.relu()), given([np.inf, -np.inf])),
    "norm of zeros": (
        lambda t, x: (x.norm(), x.norm(dim=1), x.norm(1), x.norm(3, 1)), given([[0.0, 0], [3, 4]])
    ),
    "std of equals": (lambda t, x: x.std(1), given([[2.0, 2, 2], [1, 2, 4]])),
    "pow of 0": (lambda t, x: (x**0.5, x**-1, x**0), given([0.0, 4])),
    "pow of tensors at 0": (lambda t, x, y: x**y, given([0.0, 0, 0, 3]), given([0.0, 1, 2, 0])),
}  # fmt: skip

NAN = given([[1.0, np.nan], [-np.inf, 2]])
NOT_NUMBERS = {
    "functions": (lambda t, x: (x.sigmoid(), x.tanh(), x.relu(), x.exp(), x.log(), x.sqrt()), NAN),
    "softplus": (lambda t, x: t.nn.functional.softplus(x), NAN),
    "softmax": (lambda t, x: (x.softmax(1), x.log_softmax(1), x.logsumexp(1)), NAN),
    "softmax without a chance": (lambda t, x: (x.softmax(0), x.logsumexp(0)), given([-np.inf] * 2)),
    "reductions": (lambda t, x: (x.sum(), x.mean(1), x.prod(0), x.var(), x.norm()), NAN),
    "extrema": (lambda t, x: (x.max(), *x.max(1), x.amin(0), x.argmax(), x.argmin(1)), NAN),
    "order": (lambda t, x: (*x.sort(), *x.sort(0, descending=True)), NAN),
    "clamp": (lambda t, x: (x.clamp(-1, 1), t.maximum(x, x.T), t.minimum(x, x.T)), NAN),
    "comparisons": (lambda t, x: (x == x, x < 1, x > 1, x != x), NAN),
    "mean of nothing": (lambda t, x: x.mean(), real(0)),
}  # fmt: skip

# What PyTorch refuses, with the same type of error. `tests/test_operators.py` reads the texts.
REFUSED = {
    "add": lambda t, x: x + t.ones(2, 2),
    "matmul": lambda t, x: x @ x,
    "matmul with a number": lambda t, x: x @ t.tensor(1.0),
    "mm": lambda t, x: x.mm(x[0]),
    "bmm": lambda t, x: x.bmm(x),
    "bmm of other batches": lambda t, x: t.ones(1, 2, 3).bmm(t.ones(2, 3, 2)),
    "mv": lambda t, x: x.mv(x),
    "dot": lambda t, x: x.dot(x),
    "outer": lambda t, x: x.outer(x),
    "einsum with too few": lambda t, x: t.einsum("ij,jk->ik", x),
    "einsum with too many axes": lambda t, x: t.einsum("ijk->i", x),
    "einsum sizes": lambda t, x: t.einsum("ij,ij->i", x, x.T),
    "einsum output": lambda t, x: t.einsum("ij->k", x),
    "gather below 0": lambda t, x: x.gather(1, t.tensor([[-1]])),
    "gather beyond": lambda t, x: x.gather(1, t.tensor([[3]])),
    "gather by floats": lambda t, x: x.gather(1, t.tensor([[1.0]])),
    "gather by fewer axes": lambda t, x: x.gather(1, t.tensor([1])),
    "gather too long": lambda t, x: x.gather(1, t.zeros(3, 1, dtype=t.int64)),
    "index_select below 0": lambda t, x: x.index_select(1, t.tensor([-1])),
    "index_select by floats": lambda t, x: x.index_select(1, t.tensor([1.0])),
    "index_select of two axes": lambda t, x: x.index_select(1, t.tensor([[1]])),
    "scatter_ below 0": lambda t, x: x.scatter_(1, t.tensor([[-1]]), 1.0),
    "scatter_ of too little": lambda t, x: x.scatter_(1, t.tensor([[0, 0]]), t.ones(1, 1)),
    "scatter_ of too much": lambda t, x: x.scatter_(1, t.zeros(3, 1).long(), 1.0),
    "addmm of vectors": lambda t, x: t.addmm(x, x[0], x[1]),
    "scatter_add below 0": lambda t, x: x.scatter_add(1, t.tensor([[-1]]), t.ones(1, 1)),
    "scatter_add of too little": lambda t, x: x.scatter_add(1, t.tensor([[0, 0]]), t.ones(1, 1)),
    "scatter_add of other floats": lambda t, x: x.scatter_add(
        1, t.tensor([[0]]), t.ones(1, 1).double()
    ),
    "cat sizes": lambda t, x: t.cat([x, t.ones(3, 2)]),
    "cat axes": lambda t, x: t.cat([x, x[0]]),
    "cat dim": lambda t, x: t.cat([x, x], 2),
    "cat of nothing": lambda t, x: t.cat([]),
    "stack": lambda t, x: t.stack([x, x[0]]),
    "stack of nothing": lambda t, x: t.stack([]),
    "sum dim": lambda t, x: x.sum(2),
    "sum dim twice": lambda t, x: x.sum((0, 0)),
    "mean of integers": lambda t, x: x.long().mean(),
    "softmax dim": lambda t, x: x.softmax(3),
    "cumsum dim": lambda t, x: x.cumsum(2),
    "prod dim": lambda t, x: x.prod(2),
    "norm dim": lambda t, x: x.norm(dim=3),
    "sort dim": lambda t, x: x.sort(2),
    "topk": lambda t, x: x.topk(4),
    "topk dim": lambda t, x: x.topk(1, 3),
    "max of nothing": lambda t, x: x[:0].max(),
    "max of nothing along an axis": lambda t, x: x[:0].max(0),
    "argmax of nothing along an axis": lambda t, x: x[:0].argmax(0),
    "clamp": lambda t, x: x.clamp(),
    "div": lambda t, x: x.div(2, rounding_mode="up"),
    "reshape": lambda t, x: x.reshape(4, 2),
    "reshape twice -1": lambda t, x: x.reshape(-1, -1),
    "reshape -1": lambda t, x: x.reshape(-1, 4),
    "view": lambda t, x: x.view(4, 2),
    "flatten": lambda t, x: x.flatten(1, 0),
    "unflatten": lambda t, x: x.unflatten(1, (2, 2)),
    "permute twice": lambda t, x: x.permute(0, 0),
    "permute too few": lambda t, x: x.permute(0),
    "transpose": lambda t, x: x.transpose(0, 2),
    "t": lambda t, x: x[None].t(),
    "mT": lambda t, x: x[0].mT,
    "movedim": lambda t, x: x.movedim(0, 2),
    "movedim twice": lambda t, x: x.movedim((0, 0), (0, 1)),
    "expand": lambda t, x: x.expand(2, 4),
    "expand to fewer axes": lambda t, x: x.expand(3),
    "expand by -1": lambda t, x: x.expand(-1, 2, 3),
    "sum_to_size": lambda t, x: x.sum_to_size(2, 2),
    "squeeze": lambda t, x: x.squeeze(2),
    "unsqueeze": lambda t, x: x.unsqueeze(3),
    "repeat": lambda t, x: x.repeat(2),
    "flip": lambda t, x: x.flip(2),
    "flip twice": lambda t, x: x.flip((0, 0)),
    "roll": lambda t, x: x.roll(1, 2),
    "tril": lambda t, x: x[0].tril(),
    "split sizes": lambda t, x: x.split([1, 1], 1),
    "split by 0": lambda t, x: x.split(0, 1),
    "split a number": lambda t, x: t.tensor(1.0).split(1),
    "chunk": lambda t, x: x.chunk(0),
    "chunk a number": lambda t, x: t.tensor(1.0).chunk(1),
    "unbind a number": lambda t, x: t.tensor(1.0).unbind(),
    "iterate over a number": lambda t, x: list(t.tensor(1.0)),
    "length of a number": lambda t, x: len(t.tensor(1.0)),
    "narrow": lambda t, x: x.narrow(1, 2, 2),
    "narrow below 0": lambda t, x: x.narrow(1, 0, -1),
    "select": lambda t, x: x.select(1, 3),
    "index": lambda t, x: x[2],
    "index below": lambda t, x: x[-3],
    "too many indices": lambda t, x: x[0, 0, 0],
    "index in a tensor": lambda t, x: x[t.tensor([2])],
    "floats as index": lambda t, x: x[t.tensor([1.0])],
    "float as index": lambda t, x: x[1.0],
    "mask": lambda t, x: x[t.tensor([True, False, True])],
    "masked_fill": lambda t, x: x.masked_fill(t.tensor([1, 0, 0]), 0.0),
    "where": lambda t, x: t.where(t.tensor([1, 0, 0]), x, x),
    "where sizes": lambda t, x: t.where(t.tensor([True, False]), x, x),
    "assigned sizes": lambda t, x: x.__setitem__(0, t.ones(2)),
    "assigned index": lambda t, x: x.__setitem__(5, 0.0),
    "in-place sizes": lambda t, x: x.add_(t.ones(2, 2)),
    "in-place dtype": lambda t, x: x.long().div_(2),
    "integers to negative powers": lambda t, x: x.long() ** -1,
    "None": lambda t, x: x + None,
    "str": lambda t, x: "a" * x,
    "item": lambda t, x: x.item(),
    "truth": lambda t, x: bool(x),
}

TABLES = {
    "arithmetic": ARITHMETIC,
    "function": FUNCTIONS,
    "linear": LINEAR,
    "reduction": REDUCTIONS,
    "shape": SHAPE,
    "index": INDEXING,
    "assign": ASSIGNMENT,
    "integer": INTEGERS,
    "extreme": EXTREMES,
    "not a number": NOT_NUMBERS,
}
CASES = {
    f"{table}: {name}": case for table, cases in TABLES.items() for name, case in cases.items()
}


# --- the comparison ------------------------------------------------------------------------------


def as_list(result):
    return list(result) if isinstance(result, list | tuple) else [result]


def arrays_for(name, dtype):
    _, *operands = CASES[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    arrays = [np.asarray(draw(rng)) for draw in operands]
    return [x.astype(dtype) if x.dtype.kind == "f" else x for x in arrays]


def theirs(arrays):
    return [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]


def ours(arrays):
    return [tinygrad_rnn.tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]


def assert_close(actual, expected):
    """The same shape, dtype and NaNs, and values as close as the largest of them allows."""
    assert tuple(actual.shape) == tuple(expected.shape)
    assert f"torch.{actual.dtype}" == str(expected.dtype)
    values, wanted = actual.detach().numpy(), expected.detach().numpy(force=True)
    tolerance = TOLERANCE.get(str(values.dtype), 0)
    scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=1) if tolerance else 0
    np.testing.assert_allclose(values, wanted, rtol=0, atol=tolerance * scale)


def gradients(library, outputs, inputs, seed):
    """The gradients of the outputs along random cotangents, and these; zeros if there are none."""
    rng = np.random.default_rng(seed)
    drawn = [rng.normal(size=tuple(y.shape)) for y in outputs]
    used = [
        (y, library.tensor(v, dtype=y.dtype, requires_grad=True))
        for y, v in zip(outputs, drawn, strict=True)
        if getattr(y, "requires_grad", False)
    ]
    if not used:
        return [library.zeros_like(x) for x in inputs], []
    ys, vs = zip(*used, strict=True)
    gs = library.autograd.grad(ys, inputs, vs, create_graph=True, materialize_grads=True)
    return list(gs), list(vs)


def needing(xs):
    return [x for x in xs if x.requires_grad]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name, dtype):
    call = CASES[name][0]
    arrays = arrays_for(name, dtype)
    xs, their_xs = ours(arrays), theirs(arrays)
    ys, their_ys = as_list(call(tinygrad_rnn, *xs)), as_list(call(torch, *their_xs))
    assert len(ys) == len(their_ys)
    for y, their_y in zip(ys, their_ys, strict=True):
        if isinstance(their_y, torch.Tensor):
            assert_close(y, their_y)
            assert y.requires_grad == their_y.requires_grad
        else:
            assert type(y) is type(their_y)
            assert y == their_y
    if name.startswith("not a number") or not needing(xs):
        return
    floats = [y for y in ys if hasattr(y, "shape")]
    their_floats = [y for y in their_ys if hasattr(y, "shape")]
    gs, vs = gradients(tinygrad_rnn, floats, needing(xs), 0)
    their_gs, their_vs = gradients(torch, their_floats, needing(their_xs), 0)
    for g, their_g in zip(gs, their_gs, strict=True):
        assert_close(g, their_g)
    if name.startswith("extreme"):  # where PyTorch's second derivatives may be NaN
        return
    second, _ = gradients(tinygrad_rnn, gs, [*needing(xs), *vs], 1)
    their_second, _ = gradients(torch, their_gs, [*needing(their_xs), *their_vs], 1)
    for g, their_g in zip(second, their_second, strict=True):
        assert_close(g, their_g)


# What the host finds in the values of an index. A GPU is not waited for: there it reads as NaN.
BY_VALUE = {
    *("gather below 0", "gather beyond", "index_select below 0", "index in a tensor"),
    *("scatter_ below 0", "scatter_add below 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, device):
    """Both raise, and ours no other type of error."""
    values = np.arange(6.0).reshape(2, 3).astype(np.float32)
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - whatever PyTorch raises
        REFUSED[name](torch, torch.tensor(values))
    if device != "cpu" and name in BY_VALUE:
        assert REFUSED[name](tinygrad_rnn, tinygrad_rnn.tensor(values)).isnan().any()
        return
    with pytest.raises(theirs.type) as raised:
        REFUSED[name](tinygrad_rnn, tinygrad_rnn.tensor(values))
    assert raised.type is theirs.type
