"""Every primitive: its values, its gradients to second order, its dtypes, and what it keeps.

CASES has one row per primitive of `tinygrad_rnn.ops`. A row says how to draw a call (shapes and
indices by Hypothesis, values from the operation's domain, away from its kinks) and what NumPy
computes in its place. A primitive without a row fails the first test. Calls are drawn on the host,
and put on the device under test.
"""

import inspect
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from arrays import host, on_device
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_rnn import cuda, ops
from tinygrad_rnn.autograd import check_grads
from tinygrad_rnn.backend import get_default_device, library, to_device
from tinygrad_rnn.tensor import Tensor, grad

pytestmark = pytest.mark.usefixtures("device")

PRIMITIVES = {name: p for name, p in vars(ops).items() if isinstance(p, ops.Primitive)}


@dataclass(frozen=True)
class Case:
    """One row: `calls` draws (operands, params); `expected` computes the same with NumPy."""

    calls: st.SearchStrategy[tuple[list[Any], dict[str, Any]]]
    expected: Callable[..., Any]


# --- values, each from the domain of its operation -----------------------------------------------


def real(rng, shape):
    return rng.normal(size=shape)


def positive(rng, shape):
    return rng.uniform(0.5, 2, shape)


def nonzero(rng, shape):
    return rng.uniform(0.3, 2, shape) * rng.choice([-1, 1], shape)


def fraction(rng, shape):
    """0.3 to 0.7 in magnitude: no multiple of `beyond_one`."""
    return rng.uniform(0.3, 0.7, shape) * rng.choice([-1, 1], shape)


def beyond_one(rng, shape):
    return rng.uniform(1, 2, shape) * rng.choice([-1, 1], shape)


def near_integers(rng, shape):
    return rng.integers(-3, 4, shape) + rng.uniform(-0.1, 0.1, shape)


def between_integers(rng, shape):
    """Never close to `near_integers`, nor to an integer, nor to the middle of two."""
    return rng.integers(-3, 4, shape) + rng.uniform(0.2, 0.4, shape)


def distinct(rng, shape):
    """No two values closer than 0.2, in random order."""
    n = math.prod(shape)
    return (rng.permutation(n) * 0.3 + rng.uniform(0, 0.1, n) - 0.15 * n).reshape(shape)


def few(rng, shape):
    """Many ties."""
    return rng.integers(-1, 2, shape).astype(float)


def strange(rng, shape):
    return rng.choice([0.0, 1.5, -2.0, np.inf, -np.inf, np.nan], shape)


def truth(rng, shape):
    return rng.random(shape) < 0.5


def integers(rng, shape):
    return rng.integers(-8, 8, shape)


# --- calls ---------------------------------------------------------------------------------------

sizes = st.integers(0, 3)
seeds = st.integers(0, 2**32 - 1)


def shapes(min_dims=0, max_dims=3, min_side=0):
    return hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=3)


@st.composite
def elementwise_calls(draw, *domains, **params):
    """Operands of shapes that broadcast, one per domain; a parameter is a value or a strategy."""
    drawn = draw(
        hnp.mutually_broadcastable_shapes(
            num_shapes=len(domains), min_side=0, max_side=3, max_dims=3
        )
    )
    rng = np.random.default_rng(draw(seeds))
    operands = [
        domain(rng, shape) for domain, shape in zip(domains, drawn.input_shapes, strict=True)
    ]
    chosen = {
        name: draw(value) if isinstance(value, st.SearchStrategy) else value
        for name, value in params.items()
    }
    return operands, chosen


@st.composite
def bounds(draw):
    return draw(st.sampled_from([(-1.0, 1.0), (None, 1.0), (-1.0, None), (1.0, 1.0)]))


@st.composite
def clip_calls(draw):
    (x,), _ = draw(elementwise_calls(between_integers))
    low, high = draw(bounds())
    return [x], {"low": low, "high": high}


@st.composite
def reduction_calls(draw, domain, min_side=0):
    """One operand, some of its axes, with or without keeping them."""
    shape = draw(shapes(min_side=min_side))
    axes = draw(st.sets(st.integers(-len(shape), -1))) if shape else ()
    x = domain(np.random.default_rng(draw(seeds)), shape)
    return [x], {"axes": tuple(sorted(axes)), "keepdims": draw(st.booleans())}


@st.composite
def softmax_calls(draw):
    (x,), params = draw(reduction_calls(real))
    return [x], {"axes": params["axes"]}


@st.composite
def axis_calls(draw, domain, min_side=0, **params):
    """One operand and one of its axes."""
    shape = draw(shapes(min_dims=1, min_side=min_side))
    x = domain(np.random.default_rng(draw(seeds)), shape)
    chosen = {name: draw(value) for name, value in params.items()}
    return [x], {"axis": draw(st.integers(-len(shape), -1)), **chosen}


@st.composite
def single_calls(draw, domain):
    """One operand."""
    return [domain(np.random.default_rng(draw(seeds)), draw(shapes(min_side=0)))], {}


@st.composite
def matmul_calls(draw):
    """(…, I) @ (I, J), or matrices whose leading axes broadcast."""
    rng = np.random.default_rng(draw(seeds))
    if draw(st.booleans()):
        a, (b,) = draw(shapes(min_dims=1, max_dims=4)), draw(shapes(min_dims=1, max_dims=1))
        return [real(rng, a), real(rng, (a[-1], b))], {}
    drawn = draw(
        hnp.mutually_broadcastable_shapes(
            signature="(m,i),(i,j)->(m,j)", min_side=0, max_side=3, max_dims=2
        )
    )
    return [real(rng, shape) for shape in drawn.input_shapes], {}


@st.composite
def contract_calls(draw):
    lead = draw(shapes(max_dims=3))
    rng = np.random.default_rng(draw(seeds))
    return [real(rng, (*lead, draw(sizes))) for _ in range(2)], {}


@st.composite
def einsum_calls(draw):
    equation = draw(
        st.sampled_from(
            ["ij->ji", "ij->", "ab->b", "i,i->", "i,j->ij", "ij,jk->ik", "bij,bjk->bik",
             "ij,ij->i", "bi,ij,bj->b", "a,ab,b->ab", "ij,k->i"]
        )
    )  # fmt: skip
    left, output = equation.split("->")
    inputs = tuple(left.split(","))
    size = {label: draw(sizes) for label in sorted(set("".join(inputs)))}
    rng = np.random.default_rng(draw(seeds))
    shapes_ = [[draw(st.sampled_from([size[s], size[s], 1])) for s in labels] for labels in inputs]
    operands = [real(rng, shape) for shape in shapes_]
    return operands, {"inputs": inputs, "output": output}


@st.composite
def reshape_calls(draw):
    shape = draw(shapes())
    after = draw(st.sampled_from([(math.prod(shape),), shape[::-1], (1, *shape), (*shape, 1)]))
    return [real(np.random.default_rng(draw(seeds)), shape)], {"shape": after}


@st.composite
def transpose_calls(draw):
    """Permutations of all axes, or of the last few."""
    shape = draw(shapes())
    moved = draw(st.integers(0, len(shape)))
    axes = draw(st.permutations(range(-moved, 0)))
    return [real(np.random.default_rng(draw(seeds)), shape)], {"axes": tuple(axes)}


@st.composite
def flip_calls(draw):
    (x,), params = draw(reduction_calls(real))
    return [x], {"axes": params["axes"]}


@st.composite
def split_calls(draw):
    shape = list(draw(shapes(min_dims=1)))
    axis = draw(st.integers(-len(shape), -1))
    parts = draw(st.lists(sizes, min_size=1, max_size=4))
    shape[axis] = sum(parts)
    x = real(np.random.default_rng(draw(seeds)), shape)
    return [x], {"sizes": tuple(parts), "axis": axis}


@st.composite
def concatenate_calls(draw):
    shape = list(draw(shapes(min_dims=1)))
    axis = draw(st.integers(-len(shape), -1))
    rng = np.random.default_rng(draw(seeds))
    operands = []
    for size in draw(st.lists(sizes, min_size=1, max_size=4)):
        shape[axis] = size
        operands.append(real(rng, shape))
    return operands, {"axis": axis}


@st.composite
def stack_calls(draw):
    shape = draw(shapes())
    rng = np.random.default_rng(draw(seeds))
    operands = [real(rng, shape) for _ in range(draw(st.integers(1, 3)))]
    return operands, {"axis": draw(st.integers(-len(shape) - 1, -1))}


@st.composite
def widths(draw, axes):
    return tuple(draw(st.tuples(sizes, sizes)) for _ in range(axes))


@st.composite
def pad_calls(draw):
    """Margins along the last few axes."""
    shape = draw(shapes())
    margins = draw(widths(draw(st.integers(0, len(shape)))))
    x = real(np.random.default_rng(draw(seeds)), shape)
    return [x], {"widths": margins, "value": draw(st.sampled_from([0, -1.5]))}


@st.composite
def unpad_calls(draw):
    (x,), params = draw(pad_calls())
    lead = ((0, 0),) * (x.ndim - len(params["widths"]))
    shape = [
        n + low + high for n, (low, high) in zip(x.shape, lead + params["widths"], strict=True)
    ]
    return [real(np.random.default_rng(draw(seeds)), shape)], {"widths": params["widths"]}


@st.composite
def broadcast_calls(draw):
    drawn = draw(
        hnp.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=3, max_dims=3)
    )
    x = real(np.random.default_rng(draw(seeds)), drawn.input_shapes[0])
    return [x], {"shape": drawn.result_shape}


@st.composite
def sum_to_calls(draw):
    (y,), params = draw(broadcast_calls())
    x = real(np.random.default_rng(draw(seeds)), params["shape"])
    return [x], {"shape": y.shape}


@st.composite
def indices(draw, shape):
    """Every kind of index that a shape can take, also with the same position twice."""
    kinds = [hnp.basic_indices(shape, allow_newaxis=True, max_dims=5)]
    if shape:
        mask = hnp.arrays(bool, shape[: draw(st.integers(1, len(shape)))])
        kinds += [mask, st.permutations(range(shape[0])).map(np.array).map(_as_int)]
    if shape and 0 not in shape:
        kinds.append(hnp.integer_array_indices(shape))
        rows = hnp.arrays(np.int64, shapes(max_dims=2), elements=st.integers(0, shape[0] - 1))
        kinds += [rows, rows.map(lambda k: k - shape[0])]
        if len(shape) > 1:
            columns = hnp.arrays(np.int64, 3, elements=st.integers(-shape[1], shape[1] - 1))
            kinds += [
                columns.map(lambda k: (slice(None, None, -1), k)),
                columns.map(lambda k: (0, k)),
            ]
    return draw(st.one_of(kinds))


def _as_int(array):
    return array.astype(np.int64)


@st.composite
def getitem_calls(draw):
    x = real(np.random.default_rng(draw(seeds)), draw(shapes()))
    return [x], {"index": draw(indices(x.shape))}


@st.composite
def place_calls(draw):
    (x,), params = draw(getitem_calls())
    return [np.asarray(x[params["index"]])], {"shape": x.shape, **params}


@st.composite
def put_calls(draw):
    """A value of the shape that is read there, or one that broadcasts to it."""
    rng = np.random.default_rng(draw(seeds))
    x = real(rng, draw(shapes()))
    index = draw(indices(x.shape))
    read = x[index].shape
    smaller = [1 if draw(st.booleans()) else size for size in read]
    masked = isinstance(index, np.ndarray) and index.dtype.kind == "b"
    longer = read if masked else (1, *read)
    shape = draw(st.sampled_from([read, smaller, smaller[1:], (), longer]))
    return [x, real(rng, shape)], {"index": index}


@st.composite
def take_calls(draw):
    table_shape = draw(shapes(min_dims=1).filter(lambda shape: shape[0] > 0))
    n = table_shape[0]
    wanted = draw(hnp.arrays(np.int64, shapes(max_dims=2), elements=st.integers(-n, n - 1)))
    return [real(np.random.default_rng(draw(seeds)), table_shape), wanted], {}


@st.composite
def add_rows_calls(draw):
    (table, places), _ = draw(take_calls())
    x = real(np.random.default_rng(draw(seeds)), (*places.shape, *table.shape[1:]))
    return [x, places], {"rows": len(table)}


@st.composite
def gather_calls(draw):
    """Indices along an axis, more or fewer than the operand has; along the others, not more."""
    shape = list(draw(shapes(min_dims=1, min_side=1)))
    axis = draw(st.integers(-len(shape), -1))
    x = real(np.random.default_rng(draw(seeds)), shape)
    fewer = [draw(st.integers(0, size)) for size in shape]
    fewer[axis] = draw(sizes)
    index = draw(hnp.arrays(np.int64, tuple(fewer), elements=st.integers(0, shape[axis] - 1)))
    return [x, index], {"axis": axis}


@st.composite
def scatter_add_calls(draw):
    (x, index), params = draw(gather_calls())
    return [x, index, real(np.random.default_rng(draw(seeds)), index.shape)], params


# --- what NumPy computes instead -----------------------------------------------------------------


def added_at(shape, index, x):
    y = np.zeros(shape)
    np.add.at(y, index, x)
    return y


def assigned(x, value, *, index):
    y = x.copy()
    y[index] = value.item() if value.size == 1 else value
    return y


def summed_to(x, *, shape):
    """Element by element: every value of x is added at the place it was broadcast from."""
    y = np.zeros(shape)
    for place in np.ndindex(x.shape):
        source = place[x.ndim - len(shape) :]
        y[tuple(0 if n == 1 else k for k, n in zip(source, shape, strict=True))] += x[place]
    return y


def padded(x, *, widths, value):
    y = np.full(
        [n + low + high for n, (low, high) in zip(x.shape, widths, strict=True)], value, float
    )
    y[tuple(slice(low, low + n) for n, (low, _) in zip(x.shape, widths, strict=True))] = x
    return y


def all_widths(x, widths):
    return ((0, 0),) * (x.ndim - len(widths)) + widths


def gathered(x, index, *, axis):
    y = np.empty(index.shape)
    for place in np.ndindex(index.shape):
        source = list(place)
        source[axis] = index[place]
        y[place] = x[tuple(source)]
    return y


def scattered(x, index, source, *, axis):
    y = x.copy()
    for place in np.ndindex(index.shape):
        target = list(place)
        target[axis] = index[place]
        y[tuple(target)] += source[place]
    return y


def outer_products(a, b):
    return (a[..., :, None] * b[..., None, :]).sum(tuple(range(a.ndim - 1)))


def transposed(x, *, axes):
    lead = x.ndim - len(axes)
    return np.moveaxis(x, [axis + x.ndim for axis in axes], range(lead, x.ndim))


def descending_order(x, *, axis, descending):
    return np.argsort(-x if descending else x, axis=axis, kind="stable")


def indices_of_non_zeros(x):
    found = [index for index in np.ndindex(x.shape) if x[index]]
    return np.array(found, int).reshape(len(found), x.ndim)


def counted(x):
    values = sorted({*x.reshape(-1).tolist()})
    places = np.array([values.index(value) for value in x.reshape(-1).tolist()], int)
    counts = np.array([(x == value).sum() for value in values], int)
    return [np.array(values, float), places.reshape(x.shape), counts]


HERE = {"device": st.builds(get_default_device), "source": st.builds(get_default_device)}
FLOAT64 = {"dtype": np.dtype(float), "source": np.dtype(float)}

CASES = {
    # arithmetic
    "add": Case(elementwise_calls(real, real), lambda x, y: x + y),
    "subtract": Case(elementwise_calls(real, real), lambda x, y: x - y),
    "multiply": Case(elementwise_calls(real, real), lambda x, y: x * y),
    "divide": Case(elementwise_calls(real, nonzero), lambda x, y: x / y),
    "negative": Case(elementwise_calls(real), lambda x: -x),
    "power": Case(elementwise_calls(positive, real), lambda x, y: np.exp(y * np.log(x))),
    "square": Case(elementwise_calls(real), lambda x: x * x),
    "sqrt": Case(elementwise_calls(positive), lambda x: x**0.5),
    "absolute": Case(elementwise_calls(nonzero), lambda x: np.where(x < 0, -x, x)),
    "maximum": Case(elementwise_calls(near_integers, between_integers), np.fmax),
    "minimum": Case(elementwise_calls(near_integers, between_integers), np.fmin),
    "where": Case(elementwise_calls(truth, real, real), lambda c, x, y: c * x + ~c * y),
    "clip": Case(clip_calls(), lambda x, low, high: np.clip(x, low, high)),
    # exponentials, trigonometry and squashing functions
    "exp": Case(elementwise_calls(real), lambda x: math.e**x),
    "expm1": Case(elementwise_calls(real), lambda x: np.exp(x) - 1),
    "log": Case(elementwise_calls(positive), lambda x: np.log2(x) * math.log(2)),
    "log1p": Case(elementwise_calls(positive), lambda x: np.log(1 + x)),
    "sin": Case(elementwise_calls(real), lambda x: np.exp(1j * x).imag),
    "cos": Case(elementwise_calls(real), lambda x: np.exp(1j * x).real),
    "tanh": Case(elementwise_calls(real), lambda x: 1 - 2 / (np.exp(2 * x) + 1)),
    "erf": Case(elementwise_calls(real), np.vectorize(math.erf, otypes=[float])),
    "sigmoid": Case(elementwise_calls(real), lambda x: 1 / (1 + np.exp(-x))),
    "softplus": Case(elementwise_calls(real), lambda x: np.log(1 + np.exp(x))),
    "relu": Case(elementwise_calls(nonzero), lambda x: x * (x > 0)),
    # piecewise constant
    "sign": Case(elementwise_calls(nonzero), lambda x: x / abs(x)),
    "floor": Case(elementwise_calls(between_integers), lambda x: x // 1),
    "ceil": Case(elementwise_calls(between_integers), lambda x: -(-x // 1)),
    "round": Case(elementwise_calls(between_integers), lambda x: (x + 0.5) // 1),
    "remainder": Case(elementwise_calls(fraction, beyond_one), lambda x, y: x - y * (x // y)),
    # conversions
    "cast": Case(elementwise_calls(real, **FLOAT64), lambda x, **_: x),
    "discretize": Case(
        elementwise_calls(between_integers, dtype=st.sampled_from([np.int64, np.int8, np.bool_])),
        lambda x, dtype: x.astype(dtype),
    ),
    "transfer": Case(elementwise_calls(real, **HERE), lambda x, **_: x),
    "copy": Case(elementwise_calls(real), lambda x: x),
    "detach": Case(elementwise_calls(real), lambda x: x),
    # comparisons and truth values
    "equal": Case(elementwise_calls(few, few), lambda x, y: x == y),
    "not_equal": Case(elementwise_calls(few, few), lambda x, y: x != y),
    "less": Case(elementwise_calls(few, few), lambda x, y: x < y),
    "less_equal": Case(elementwise_calls(few, few), lambda x, y: x <= y),
    "greater": Case(elementwise_calls(few, few), lambda x, y: x > y),
    "greater_equal": Case(elementwise_calls(few, few), lambda x, y: x >= y),
    "floor_divide": Case(elementwise_calls(fraction, beyond_one), lambda x, y: np.floor(x / y)),
    "bitwise_and": Case(elementwise_calls(integers, integers), lambda x, y: x & y),
    "bitwise_or": Case(elementwise_calls(integers, integers), lambda x, y: x | y),
    "bitwise_xor": Case(elementwise_calls(truth, truth), lambda x, y: x != y),
    "bitwise_not": Case(elementwise_calls(integers), lambda x: -x - 1),
    "logical_and": Case(elementwise_calls(few, few), lambda x, y: (x != 0) & (y != 0)),
    "logical_or": Case(elementwise_calls(few, few), lambda x, y: (x != 0) | (y != 0)),
    "logical_not": Case(elementwise_calls(few), lambda x: x == 0),
    "isnan": Case(elementwise_calls(strange), lambda x: x != x),
    "isinf": Case(elementwise_calls(strange), lambda x: abs(x) == np.inf),
    "isfinite": Case(elementwise_calls(strange), lambda x: abs(x) < np.inf),
    # linear maps
    "matmul": Case(matmul_calls(), np.matmul),
    "contract": Case(contract_calls(), outer_products),
    "einsum": Case(
        einsum_calls(),
        lambda *xs, inputs, output: np.einsum(f"{','.join(inputs)}->{output}", *xs),
    ),
    # reductions
    "sum": Case(reduction_calls(real), lambda x, axes, keepdims: x.sum(axes, keepdims=keepdims)),
    "mean": Case(
        reduction_calls(real, min_side=1),
        lambda x, axes, keepdims: x.mean(axes, keepdims=keepdims),
    ),
    "max": Case(
        reduction_calls(distinct, min_side=1),
        lambda x, axes, keepdims: x.max(axes, keepdims=keepdims),
    ),
    "min": Case(
        reduction_calls(distinct, min_side=1),
        lambda x, axes, keepdims: x.min(axes, keepdims=keepdims),
    ),
    "logsumexp": Case(
        reduction_calls(real, min_side=1),
        lambda x, axes, keepdims: np.log(np.exp(x).sum(axes, keepdims=keepdims)),
    ),
    "softmax": Case(
        softmax_calls(), lambda x, axes: np.exp(x) / np.exp(x).sum(axes, keepdims=True)
    ),
    "log_softmax": Case(
        softmax_calls(), lambda x, axes: np.log(np.exp(x) / np.exp(x).sum(axes, keepdims=True))
    ),
    "any": Case(
        reduction_calls(few), lambda x, axes, keepdims: (x != 0).sum(axes, keepdims=keepdims) > 0
    ),
    "all": Case(
        reduction_calls(few), lambda x, axes, keepdims: (x == 0).sum(axes, keepdims=keepdims) == 0
    ),
    "cumsum": Case(axis_calls(real), lambda x, axis: np.add.accumulate(x, axis)),
    "argmax": Case(axis_calls(few, min_side=1), lambda x, axis: x.argmax(axis)),
    "argmin": Case(axis_calls(few, min_side=1), lambda x, axis: x.argmin(axis)),
    "unique": Case(single_calls(few), counted),
    "argsort": Case(axis_calls(few, descending=st.booleans()), descending_order),
    # shape
    "reshape": Case(reshape_calls(), lambda x, shape: x.reshape(shape)),
    "transpose": Case(transpose_calls(), transposed),
    "flip": Case(flip_calls(), lambda x, axes: np.flip(x, axes)),
    "split": Case(split_calls(), lambda x, sizes, axis: np.split(x, np.cumsum(sizes)[:-1], axis)),
    "concatenate": Case(concatenate_calls(), lambda *xs, axis: np.concatenate(xs, axis)),
    "unstack": Case(
        axis_calls(real, min_side=1),
        lambda x, axis: [x.take(k, axis) for k in range(x.shape[axis])],
    ),
    "stack": Case(stack_calls(), lambda *xs, axis: np.stack(xs, axis)),
    "pad": Case(
        pad_calls(), lambda x, widths, value: padded(x, widths=all_widths(x, widths), value=value)
    ),
    "unpad": Case(
        unpad_calls(),
        lambda x, widths: x[
            tuple(
                slice(low, n - high)
                for n, (low, high) in zip(x.shape, all_widths(x, widths), strict=True)
            )
        ],
    ),
    "broadcast_to": Case(broadcast_calls(), lambda x, shape: x + np.zeros(shape)),
    "sum_to": Case(sum_to_calls(), summed_to),
    # reading and writing at positions
    "getitem": Case(getitem_calls(), lambda x, index: x[index]),
    "place": Case(place_calls(), lambda x, shape, index: added_at(shape, index, x)),
    "put": Case(put_calls(), assigned),
    "take": Case(take_calls(), lambda table, wanted: table[wanted]),
    "add_rows": Case(
        add_rows_calls(),
        lambda x, places, rows: added_at((rows, *x.shape[places.ndim :]), places, x),
    ),
    "gather": Case(gather_calls(), gathered),
    "scatter_add": Case(scatter_add_calls(), scattered),
    "nonzero": Case(single_calls(few), indices_of_non_zeros),
}
DIFFERENTIABLE = [name for name, primitive in PRIMITIVES.items() if primitive.differentiable]


def test_every_primitive_has_a_row():
    assert sorted(CASES) == sorted(PRIMITIVES)


def test_every_primitive_is_exported_under_its_name():
    tables = [module for module in vars(ops).values() if inspect.ismodule(module)]
    defined = {
        (name, p.name)
        for table in tables
        for name, p in vars(table).items()
        if isinstance(p, ops.Primitive)
    }
    assert defined == {(name, name) for name in PRIMITIVES}


def as_list(result):
    return list(result) if isinstance(result, list | tuple) else [result]


def drawn(data, name):
    """Operands and parameters of a call, on the host."""
    operands, params = data.draw(CASES[name].calls)
    return [np.asarray(x) for x in operands], params


def placed(data, name):
    """The same on the device under test."""
    return on_device(drawn(data, name))


def variables(operands):
    """The operands as Tensors; those of floating-point numbers require gradients."""
    return [Tensor(x, requires_grad=x.dtype.kind == "f") for x in operands]


def cotangent(y):
    return on_device(np.cos(np.arange(math.prod(y.shape))).reshape(y.shape))


def ones(shape, dtype=np.float64):
    return Tensor(on_device(np.ones(shape, dtype)))


# --- all primitives ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRIMITIVES)
@given(data=st.data())
def test_values(name, data):
    """Arrays make arrays, Tensors make Tensors, of the values that NumPy computes."""
    xp = library(get_default_device())
    call = drawn(data, name)
    expected = as_list(CASES[name].expected(*call[0], **call[1]))
    operands, params = on_device(call)
    on_arrays = as_list(PRIMITIVES[name](*operands, **params))
    on_tensors = as_list(PRIMITIVES[name](*map(Tensor, operands), **params))
    assert len(on_arrays) == len(on_tensors) == len(expected)
    for array, tensor, wanted in zip(on_arrays, on_tensors, expected, strict=True):
        assert isinstance(array, (xp.ndarray, np.generic) if xp is np else xp.ndarray)
        assert type(tensor) is Tensor
        assert type(tensor.array) is xp.ndarray
        assert not tensor.requires_grad
        assert tensor.shape == np.shape(wanted)
        np.testing.assert_allclose(host(tensor), wanted, rtol=1e-12, atol=1e-13)
        np.testing.assert_array_equal(host(tensor), host(array))


@pytest.mark.parametrize("name", PRIMITIVES)
@given(data=st.data())
def test_operands_are_not_changed(name, data):
    operands, params = placed(data, name)
    before = [x.copy() for x in operands]
    for y in as_list(PRIMITIVES[name](*variables(operands), **params)):
        if y.requires_grad:
            y.sum().backward(retain_graph=True)
    for x, earlier in zip(host(operands), host(before), strict=True):
        np.testing.assert_array_equal(x, earlier)


@pytest.mark.parametrize("name", sorted(set(PRIMITIVES) - set(DIFFERENTIABLE)))
@given(data=st.data())
def test_results_without_derivative_require_none(name, data):
    operands, params = placed(data, name)
    for y in as_list(PRIMITIVES[name](*variables(operands), **params)):
        assert not y.requires_grad
        assert y.is_leaf


# --- those with a derivative ---------------------------------------------------------------------


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@settings(max_examples=40)
@given(data=st.data())
def test_gradients_to_second_order(name, data):
    """The rules against finite differences, and the rules of the rules too."""
    operands, params = placed(data, name)
    check_grads(lambda *xs: PRIMITIVES[name](*xs, **params), list(map(Tensor, operands)), order=2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", sorted(set(DIFFERENTIABLE) - {"cast"}))
@settings(max_examples=8)
@given(data=st.data())
def test_dtype_is_preserved(name, dtype, data):
    """Floats of one dtype give values, gradients and second gradients of that dtype."""
    operands, params = placed(data, name)
    operands = [x.astype(dtype) if x.dtype.kind == "f" else x for x in operands]
    xs = variables(operands)
    floats = [x for x in xs if x.requires_grad]
    ys = as_list(PRIMITIVES[name](*xs, **params))
    assert {y.dtype for y in ys} == {np.dtype(dtype)}
    gs = grad(ys, floats, [ones(y.shape, dtype) for y in ys], create_graph=True)
    assert [(g.shape, g.dtype) for g in gs] == [(x.shape, np.dtype(dtype)) for x in floats]
    again = [g for g in gs if g.requires_grad]
    gs = [ones(g.shape, dtype) for g in again]
    for g in grad(again, floats, gs, materialize_grads=True):
        assert g.dtype == dtype


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@given(data=st.data())
def test_first_order_on_arrays_is_the_recorded_one(name, data):
    """The rules compute the same on raw arrays (plain backward) and on Tensors (create_graph)."""
    operands, params = placed(data, name)
    xs = variables(operands)
    floats = [x for x in xs if x.requires_grad]
    ys = as_list(PRIMITIVES[name](*xs, **params))
    gs = [Tensor(cotangent(y)) for y in ys]
    recorded = grad(ys, floats, gs, create_graph=True)
    computed = grad(ys, floats, gs)
    for a, b in zip(recorded, computed, strict=True):
        np.testing.assert_array_equal(host(a), host(b))


# --- what a graph keeps --------------------------------------------------------------------------


def values_read(rule, operands):
    """Whether a rule, by the names of its parameters, reads the output, then each operand."""
    kinds = [p for p in inspect.signature(rule).parameters.values() if p.kind != p.KEYWORD_ONLY]
    names = [p.name for p in kinds for _ in range(operands if p.kind == p.VAR_POSITIONAL else 1)]
    return [not (name[0] == "_" or name.endswith(("shape", "shapes"))) for name in names[1:]]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@settings(max_examples=4)
@given(data=st.data())
def test_a_node_keeps_what_the_asked_rules_read(name, data):
    """The values that they name; of the others the shape. Whoever needs a gradient."""
    primitive = PRIMITIVES[name]
    operands, params = placed(data, name)
    floating = [k for k, x in enumerate(operands) if x.dtype.kind == "f"]
    for count in range(1, len(floating) + 1):
        for chosen in itertools.combinations(floating, count):
            xs = [Tensor(x, requires_grad=k in chosen) for k, x in enumerate(operands)]
            y = as_list(primitive(*xs, **params))[0]
            rules = [primitive.joint_rule or primitive.rules[k] for k in chosen]
            asked = [values_read(rule, len(operands)) for rule in rules]
            output_read, *reads = map(any, zip(*asked, strict=True))
            node = y.grad_fn
            assert all((type(value) is not tuple) == output_read for value in node.outputs)
            for kept, x, read in zip(node.inputs, xs, reads, strict=True):
                if read:
                    assert kept is x.array
                else:
                    assert kept == x.shape


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_rule_reads_the_values_it_names(name):
    """Another value in the place of a kept one changes some gradient: nothing is kept in vain."""
    primitive = PRIMITIVES[name]
    in_vain = {
        (place, kept)
        for place, rule in enumerate(primitive.rules or [primitive.joint_rule])
        if rule is not None
        for kept, read in enumerate(values_read(rule, len(primitive.rules) or 1))
        if read
    }

    @given(data=st.data())
    def look(data):
        operands, params = placed(data, name)
        outputs = as_list(primitive(*operands, **params))
        gs = [cotangent(y) for y in outputs]
        g, y = (gs, outputs) if len(outputs) > 1 else (gs[0], outputs[0])
        for place, kept in list(in_vain):
            rule = primitive.joint_rule or primitive.rules[place]
            values = [y, *operands]
            expected = rule(g, *values, **params)
            values[kept] = another(values[kept])
            with np.errstate(all="ignore"):
                if changed(expected, rule(g, *values, **params)):
                    in_vain.discard((place, kept))

    look()
    assert not in_vain


def another(value):
    """Not a number in place of each number, the opposite of each truth, row 0 for each index."""
    value = np.asarray(host(value))
    if value.dtype.kind == "f":
        return on_device(np.full_like(value, np.nan))
    return on_device(np.asarray(~value) if value.dtype.kind == "b" else np.zeros_like(value))


def changed(before, after):
    pairs = zip(host(as_list(before)), host(as_list(after)), strict=True)
    return any(not np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@settings(max_examples=8)
@given(data=st.data())
def test_a_double_backward_needs_no_more_than_is_kept(name, data):
    """The operands' own Tensors may be gone, and their arrays overwritten unless they are kept."""
    operands, params = placed(data, name)
    xs = variables([x.copy() for x in operands])
    ys = as_list(PRIMITIVES[name](*xs, **params))
    cotangents = [ones(y.shape).requires_grad_() for y in ys]
    floats = [x for x in xs if x.requires_grad]
    expected = [g.array.copy() for g in grad(ys, floats, cotangents, retain_graph=True)]
    for x, kept in zip(xs, ys[0].grad_fn.inputs, strict=True):
        if type(kept) is tuple:
            x.array[...] = 0
    gs = grad(ys, floats, cotangents, create_graph=True)
    for g, wanted in zip(gs, expected, strict=True):
        np.testing.assert_array_equal(host(g), host(wanted))
    again = [g for g in gs if g.requires_grad]
    grad(again, cotangents, [ones(g.shape) for g in again], materialize_grads=True)


# --- by hand -------------------------------------------------------------------------------------


def variable(values):
    return Tensor(on_device(np.array(values, float)), requires_grad=True)


def gradients(function, *values, cotangent=None):
    xs = [variable(value) for value in values]
    y = function(*xs)
    y.backward(ones(y.shape) if cotangent is None else variable(cotangent).detach())
    return [x.grad.tolist() for x in xs]


def test_ties_share_the_gradient():
    x, y = gradients(ops.maximum, [1.0, 2.0, 5.0], [3.0, 2.0, 4.0])
    assert (x, y) == ([0, 0.5, 1], [1, 0.5, 0])
    x, y = gradients(ops.minimum, [1.0, 2.0, 5.0], [3.0, 2.0, 4.0])
    assert (x, y) == ([1, 0.5, 0], [0, 0.5, 1])
    one_row = {"axes": (-1,), "keepdims": False}
    assert gradients(lambda x: ops.max(x, **one_row), [[4.0, 1, 4], [0, 0, -1]]) == [
        [[0.5, 0, 0.5], [0.5, 0.5, 0]]
    ]
    assert gradients(lambda x: ops.min(x, **one_row), [[4.0, 1, 4], [0, 0, 0]])[0][0] == [0, 1, 0]


def test_kinks_have_the_derivative_that_pytorch_chose():
    assert gradients(ops.absolute, [0.0, -0.0]) == [[0, 0]]
    assert gradients(ops.relu, [0.0, -1, 1]) == [[0, 0, 1]]
    assert gradients(ops.sign, [0.0, 2]) == [[0, 0]]
    assert gradients(lambda x: ops.clip(x, low=-1.0, high=1.0), [-1.0, 0, 1, 1.5]) == [[1, 1, 1, 0]]


def test_an_infinite_cotangent_does_not_reach_the_branch_not_taken():
    mask = on_device(np.array([True, False]))
    x, y = gradients(
        lambda x, y: ops.where(mask, x, y), [1.0, 1], [2.0, 2], cotangent=[np.inf, np.nan]
    )
    np.testing.assert_equal([x, y], [[np.inf, 0], [0, np.nan]])


def test_powers_of_zero():
    """0⁰ = 1 with derivative 0 in the base; 0ʸ has none in the exponent for y > 0."""
    base, exponent = gradients(ops.power, [0.0, 0, 0, 2], [0.0, 1, 2, 0])
    assert base == [0, 1, 0, 0]
    assert exponent == pytest.approx([0, 0, 0, math.log(2)])
    assert host(ops.power(*on_device([np.zeros(1), np.zeros(1)]))) == 1
    check_grads(lambda x, y: x**y, [variable([2.0, 0.5]), variable([0, 0])])


def test_powers_of_negative_numbers():
    assert gradients(lambda x: ops.power(x, 3), [-2.0]) == [[12]]
    assert gradients(lambda x: ops.power(x, -1), [-2.0]) == [[-0.25]]
    assert gradients(lambda x: ops.power(x, 2.0), [-2.0]) == [[-4]]
    assert gradients(lambda y: ops.power(2.0, y), [3.0])[0] == pytest.approx([8 * math.log(2)])


def test_repeated_positions_add_up():
    assert gradients(lambda x: ops.getitem(x, index=[0, 0, 2]), [1.0, 2, 3]) == [[2, 0, 1]]
    indices = on_device(np.array([[1, 1], [-1, 0]]))
    assert gradients(lambda x: ops.take(x, indices), np.zeros((3, 1))) == [[[1], [2], [1]]]
    index = on_device(np.array([[0, 0, 1]]))
    assert gradients(lambda x: ops.gather(x, index, axis=-1), [[1.0, 2]]) == [[[2, 1]]]


def test_the_last_value_for_a_position_stays():
    """And it alone has a gradient. In NumPy's order, also on a GPU, whose threads have none."""
    index = on_device(np.array([1, 0, 1, -1]))
    values = np.array([[1.0, 2], [3, 4], [5, 6], [7, 8]])
    written = ops.put(on_device(np.zeros((3, 2))), on_device(values), index=index)
    assert written.tolist() == [[3, 4], [5, 6], [7, 8]]
    x = on_device(np.zeros((3, 2)))
    assert gradients(lambda v: ops.put(x, v, index=index), values) == [
        [[0, 0], [1, 1], [1, 1], [1, 1]]
    ]


def test_an_unused_part_gets_zeros():
    x = variable(np.arange(6.0))
    first, _, last = ops.split(x, sizes=(1, 3, 2), axis=-1)
    (first * 2).sum().backward(retain_graph=True)
    assert x.grad.tolist() == [2, 0, 0, 0, 0, 0]
    last.sum().backward()
    assert x.grad.tolist() == [2, 0, 0, 0, 1, 1]
    rows = ops.unstack(variable(np.ones((3, 2))), axis=-2)
    assert grad(rows[1].sum(), rows[1])[0].tolist() == [1, 1]


def test_one_part_and_no_part():
    x = variable(np.ones((1, 2)))
    (only,) = ops.unstack(x, axis=-2)
    (whole,) = ops.split(only, sizes=(2,), axis=-1)
    whole.sum().backward()
    assert x.grad.tolist() == [[1, 1]]
    assert ops.unstack(variable(np.ones((0, 2))), axis=-2) == []


def test_cast_brings_the_cotangent_back_to_its_source():
    x = ones(3, np.float32).requires_grad_()
    y = ops.cast(x, dtype=np.dtype(np.float64), source=x.dtype)
    assert y.dtype == np.float64
    (g,) = grad(y.sum(), x, create_graph=True)
    assert g.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_arguments_overflow_nowhere(dtype):
    """Warnings are errors in these tests: nothing overflows on the way."""
    x = on_device(np.array([-1e4, -100, 0, 100, 1e4, np.inf, -np.inf], dtype))
    np.testing.assert_array_equal(host(ops.sigmoid(x)), [0, 0, 0.5, 1, 1, 1, 0])
    np.testing.assert_allclose(
        host(ops.softplus(x)), [0, 0, math.log(2), 100, 1e4, np.inf, 0], rtol=1e-6, atol=1e-40
    )
    np.testing.assert_array_equal(host(ops.tanh(x)), [-1, -1, 0, 1, 1, 1, -1])
    rows = np.array(
        [[1e4, 1e4], [-1e4, -1e4], [-np.inf, 3], [-np.inf, -np.inf], [np.inf, 0]], dtype
    )
    wanted = [1e4 + math.log(2), -1e4 + math.log(2), 3, -np.inf, np.inf]
    found = host(ops.logsumexp(on_device(rows), axes=(-1,), keepdims=False))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert found.dtype == dtype
    for function in (ops.sigmoid, ops.softplus, ops.tanh):
        assert np.isnan(host(function(on_device(np.array([np.nan], dtype))))).all()


def test_a_row_without_probability_has_no_gradient():
    rows = [[-np.inf, -np.inf], [0.0, -np.inf]]
    assert gradients(lambda x: ops.logsumexp(x, axes=(-1,), keepdims=False), rows) == [
        [[0, 0], [1, 0]]
    ]


def test_reductions_of_no_values():
    none = {"axes": (-1,), "keepdims": False}
    x = on_device(np.ones((2, 0)))
    assert ops.sum(x, **none).tolist() == [0, 0]
    assert np.isnan(host(ops.mean(x, **none))).all()
    assert ops.logsumexp(x, **none).tolist() == [-np.inf, -np.inf]
    assert gradients(lambda x: ops.sum(x, **none), host(x)) == [[[], []]]
    assert gradients(lambda x: ops.logsumexp(x, **none), host(x)) == [[[], []]]


def test_constants_do_not_stay_on_the_gpu_that_first_used_them(device):
    if device == "cpu" or cuda.device_count() < 2:
        pytest.skip("there are no two GPUs")
    for number in range(2):
        with cuda.device(number):
            y = ops.sigmoid(to_device(np.zeros(3), f"cuda:{number}"))
            assert host(y).tolist() == [0.5] * 3


def test_rows_are_added_in_one_order():
    """Sums over repeated rows are the same to the last bit, however often they are computed."""
    rng = np.random.default_rng(0)
    x, indices = rng.normal(size=(1000, 3)).astype(np.float32), rng.integers(0, 5, 1000)
    call = on_device([x, indices])
    first = host(ops.add_rows(*call, rows=5))
    assert all((host(ops.add_rows(*call, rows=5)) == first).all() for _ in range(3))
    np.testing.assert_allclose(first, added_at((5, 3), indices, x.astype(float)), rtol=1e-4)


def test_axes_counted_from_the_end_take_a_time_axis_in_front():
    """A call for one step, applied to all steps at once, is the step applied to each."""
    rng = np.random.default_rng(1)
    xs = on_device(rng.normal(size=(4, 2, 3)))
    for name, params in {
        "sum": {"axes": (-1,), "keepdims": True},
        "logsumexp": {"axes": (-2, -1), "keepdims": False},
        "cumsum": {"axis": -2},
        "transpose": {"axes": (-1, -2)},
        "flip": {"axes": (-2,)},
        "pad": {"widths": ((0, 1), (2, 0)), "value": 0},
        "argmax": {"axis": -1},
    }.items():
        step_by_step = np.stack([host(PRIMITIVES[name](x, **params)) for x in xs])
        np.testing.assert_array_equal(host(PRIMITIVES[name](xs, **params)), step_by_step)
