"""What methods say when they refuse, and what PyTorch cannot be asked about.

That methods and functions compute what PyTorch computes: see tests/parity/test_operators.py.
"""

import copy
import re

import numpy as np
import pytest
from arrays import host, on_device, share_memory

import tinygrad_rnn as torch
from tinygrad_rnn.autograd import check_grads, grad
from tinygrad_rnn.ops.operators import Operators
from tinygrad_rnn.tensor import Tensor

pytestmark = pytest.mark.usefixtures("device")

# Each message names the operation, what came, and what was expected or what to do.
MESSAGES = {
    "add": (
        lambda x: x + torch.ones(2, 2),
        RuntimeError,
        "add: (2, 3) float32 and (2, 2) float32 do not broadcast: sizes 3 and 2 differ and neither "
        "is 1",
    ),
    "where": (
        lambda x: torch.where(x > 0, x, torch.ones(4)),
        RuntimeError,
        "where: (2, 3) bool and (2, 3) float32 and (4,) float32 do not broadcast: sizes 3 and 3 "
        "and 4 differ",
    ),
    "matmul": (
        lambda x: x @ torch.ones(5, 3),
        RuntimeError,
        "matmul: (2, 3) @ (5, 3): inner sizes differ (3, 5); the second operand is stored (5, 3): "
        "did you forget .T?",
    ),
    "matmul of any sizes": (
        lambda x: x @ torch.ones(5, 7),
        RuntimeError,
        "matmul: (2, 3) @ (5, 7): inner sizes differ (3, 5)",
    ),
    "matmul with a number": (lambda x: x @ torch.tensor(2.0), RuntimeError, "use * for a scalar"),
    "mm": (
        lambda x: x.mm(x[0]),
        RuntimeError,
        "mm: expected two tensors of 2 axes, got (2, 3) float32, (3,) float32",
    ),
    "mv": (lambda x: x.mv(x), RuntimeError, "mv: expected a matrix and a vector, got (2, 3)"),
    "dot": (lambda x: x.dot(x), RuntimeError, "dot: expected two vectors, got (2, 3) float32"),
    "einsum operands": (
        lambda x: torch.einsum("ij,jk->ik", x),
        RuntimeError,
        "einsum: 'ij,jk->ik' names 2 operands, got 1",
    ),
    "einsum axes": (
        lambda x: torch.einsum("ijk->i", x),
        RuntimeError,
        "einsum: 'ijk' in 'ijk->i' does not fit (2, 3) float32",
    ),
    "dim": (lambda x: x.sum(2), IndexError, "dim 2 is out of range: expected -2 to 1 for 2 axes"),
    "dim twice": (lambda x: x.mean((0, -2)), RuntimeError, "dim (0, -2) names an axis twice"),
    "mean": (
        lambda x: x.long().mean(),
        RuntimeError,
        "mean: expected floating-point values, got (2, 3) int64; use .float().mean()",
    ),
    "amax": (
        lambda x: x[:0].amax(),
        RuntimeError,
        "amax: no values to choose from in (0, 3) float32",
    ),
    "argmax": (
        lambda x: x[:0].argmax(0),
        IndexError,
        "argmax: axis 0 of (0, 3) float32 has no values",
    ),
    "topk": (lambda x: x.topk(4), RuntimeError, "topk: k = 4 is not between 0 and the axis's 3"),
    "clamp": (lambda x: x.clamp(), RuntimeError, "clamp: at least one of min and max"),
    "div": (
        lambda x: x.div(2, rounding_mode="up"),
        RuntimeError,
        "div: rounding_mode is None, 'floor' or 'trunc', not 'up'",
    ),
    "reshape": (
        lambda x: x.reshape(4, -1),
        RuntimeError,
        "reshape: (2, 3) float32 holds 6 values, which do not fit (4, -1)",
    ),
    "flatten": (lambda x: x.flatten(1, 0), RuntimeError, "start_dim 1 comes after end_dim 0"),
    "permute": (
        lambda x: x.permute(0, 0),
        RuntimeError,
        "permute: (0, 0) is not a permutation of the 2 axes",
    ),
    "movedim": (lambda x: x.movedim((0, 1), 0), RuntimeError, "(0, 1) to 0 are not as many axes"),
    "t": (lambda x: x[None].t(), RuntimeError, "t: expected at most 2 axes, got (1, 2, 3)"),
    "expand": (
        lambda x: x.expand(2, 4),
        RuntimeError,
        "expand: (2, 3) float32 cannot be expanded to (2, 4): only axes of size 1 can",
    ),
    "sum_to_size": (
        lambda x: x.sum_to_size(2, 2),
        RuntimeError,
        "sum_to_size: (2, 3) float32 was not broadcast from (2, 2)",
    ),
    "repeat": (
        lambda x: x.repeat(2),
        RuntimeError,
        "repeat: (2, 3) float32 needs at least 2 repeat counts",
    ),
    "tril": (lambda x: x[0].tril(), RuntimeError, "expected at least 2 axes, got (3,) float32"),
    "split": (
        lambda x: x.split([1, 1], 1),
        RuntimeError,
        "split: sizes (1, 1) do not add up to the axis's 3",
    ),
    "split a number": (
        lambda x: x.sum().split(1),
        RuntimeError,
        "split: a tensor without axes cannot be cut",
    ),
    "chunk": (lambda x: x.chunk(0), RuntimeError, "the number of chunks must be positive, got 0"),
    "unbind": (
        lambda x: x.sum().unbind(),
        IndexError,
        "unbind: a tensor without axes has no parts",
    ),
    "iter": (lambda x: list(x.sum()), TypeError, "a tensor without axes cannot be iterated over"),
    "narrow": (
        lambda x: x.narrow(1, 2, 2),
        RuntimeError,
        "narrow: start 2 and length 2 do not fit the axis's 3 values",
    ),
    "cat": (
        lambda x: torch.cat([x, torch.ones(3, 2)]),
        RuntimeError,
        "concatenate((2, 3) float32, (3, 2) float32): ",
    ),
    "cat of nothing": (lambda x: torch.cat([]), ValueError, "cat: expected at least one tensor"),
    "stack": (
        lambda x: torch.stack([x, x[0]]),
        RuntimeError,
        "stack((2, 3) float32, (3,) float32): ",
    ),
    "index": (lambda x: x[2], IndexError, "getitem((2, 3) float32): "),
    "gather of floats": (
        lambda x: x.gather(1, x),
        RuntimeError,
        "gather: indices must be integers, not float32",
    ),
    "gather axes": (
        lambda x: x.gather(1, torch.tensor([0])),
        RuntimeError,
        "gather: (2, 3) float32 and index (1,) int64 differ in axes",
    ),
    "gather sizes": (
        lambda x: x.gather(1, torch.zeros(3, 1, dtype=torch.int64)),
        RuntimeError,
        "gather: index (3, 1) int64 is larger than (2, 3) float32 along an axis other than dim 1",
    ),
    "scatter_add": (
        lambda x: x.scatter_add(1, torch.tensor([[0, 1]]), torch.ones(1, 1)),
        RuntimeError,
        "scatter_add: into (2, 3) float32, index (1, 2) int64 and src (1, 1) float32 do not fit",
    ),
    "masked_fill": (
        lambda x: x.masked_fill(torch.tensor([0, 1, 1]), 0.0),
        RuntimeError,
        "masked_fill: the mask must be bool, not int64",
    ),
    "where of numbers": (
        lambda x: torch.where(x, x, 0.0),
        RuntimeError,
        "where: the condition must be bool, not float32",
    ),
    "setitem": (
        lambda x: x.__setitem__(0, torch.ones(2)),
        RuntimeError,
        "setitem: (2, 3) float32: ",
    ),
    "another type": (
        lambda x: x + None,
        TypeError,
        "expected a Tensor, an array or a number, got NoneType",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(name):
    call, kind, message = MESSAGES[name]
    with pytest.raises(kind, match=re.escape(message)) as raised:
        call(torch.ones(2, 3))
    assert type(raised.value) is kind


OUTSIDE = {
    "gather: indices from 0 to 3 do not fit an axis of 3 values": lambda x: x.gather(
        1, torch.tensor([[0, 3]])
    ),
    "index_select: indices from -1 to 0 do not fit an axis of 2 values": lambda x: x.index_select(
        0, torch.tensor([0, -1])
    ),
}


@pytest.mark.parametrize("message", OUTSIDE)
def test_an_index_that_lies_outside(message, device):
    """The host says so. A GPU would have to be waited for: there it reads as NaN."""
    if device == "cpu":
        with pytest.raises(RuntimeError, match=re.escape(message)):
            OUTSIDE[message](torch.ones(2, 3))
    else:
        read = OUTSIDE[message](torch.ones(2, 3))
        inside, outside = host(read).reshape(2, -1)
        assert (inside == 1).all()
        assert np.isnan(outside).all()


def test_the_cause_of_a_refusal_is_numpys_error():
    with pytest.raises(RuntimeError) as raised:
        torch.ones(2) + torch.ones(3)
    assert isinstance(raised.value.__cause__, ValueError)


# --- operands that are not Tensors -------------------------------------------------------------


def test_numpy_scalars_are_numbers_and_widen_nothing():
    """A float64 from NumPy would make float64 of a whole backward pass."""
    x = torch.ones(3, requires_grad=True)
    for y in (x * np.float64(2), np.float64(2) * x, x / np.int64(2), x ** np.float64(2), np.pi - x):
        assert type(y) is Tensor
        assert y.dtype == torch.float32
        (g,) = grad(y.sum(), x)
        assert g.dtype == torch.float32


def test_arrays_are_operands():
    x = torch.ones(3, requires_grad=True)
    array = on_device(np.arange(3, dtype=np.float32))
    for y in (x * array, array * x, array + x, array - x, array / x, x @ array, array @ x):
        assert type(y) is Tensor
        assert y.requires_grad
    assert (array * x).tolist() == [0, 1, 2]
    assert (array < x).tolist() == [True, False, False]
    assert torch.where(array > 0, x, 0).tolist() == [0, 1, 1]
    assert x.detach()[array > 0].tolist() == [1, 1]


def test_sizes_and_dims_may_be_numpy_integers():
    x = torch.ones(2, 3)
    assert x.reshape(np.int64(3), -1).shape == (3, 2)
    assert x.sum(np.int64(0)).shape == (3,)
    assert x.unsqueeze(np.int64(0)).shape == (1, 2, 3)
    assert x[np.int64(1)].shape == (3,)
    assert [part.shape for part in x.split(np.int64(2), np.int64(1))] == [(2, 2), (2, 1)]


def test_the_widest_floating_operand_gives_the_dtype():
    half, single, double, whole, truth = (
        torch.ones(2, dtype=dtype)
        for dtype in (torch.float16, torch.float32, torch.float64, torch.int64, torch.bool)
    )
    assert (half + single).dtype == torch.float32
    assert (single + double).dtype == torch.float64
    assert (half * whole).dtype == torch.float16
    assert (single / whole).dtype == torch.float32
    assert (truth * half).dtype == torch.float16
    assert (whole / whole).dtype == torch.float32
    assert (truth / 2).dtype == torch.float32
    assert (whole * 0.5).dtype == torch.float32
    assert torch.where(truth, single, double).dtype == torch.float64
    assert torch.cat([whole, half]).dtype == torch.float16


def test_gradients_come_back_in_the_dtype_of_each_operand():
    x = torch.ones(2, requires_grad=True)
    y = torch.ones(2, dtype=torch.float64, requires_grad=True)
    for z in (x * y, y - x, torch.where(x > 0, x, y), torch.cat([x, y]), torch.maximum(x, y)):
        gx, gy = grad(z.sum(), (x, y), create_graph=True)
        assert (z.dtype, gx.dtype, gy.dtype) == (torch.float64, torch.float32, torch.float64)


def test_what_is_not_differentiable_requires_no_gradient():
    x = torch.tensor([1.5, 0.5], requires_grad=True)
    for y in (x.long(), x.bool(), x > 1, x.argmax(), x.sort().indices, x.isnan(), x.any()):
        assert not y.requires_grad
    for y in (x.double(), x.half(), x.floor(), x.sign(), x // 1):
        assert y.requires_grad


# --- no row in PyTorch -------------------------------------------------------------------------


def test_assignment_in_a_loop_is_a_recurrence():
    """y[t] = y[t-1] · v, which PyTorch refuses to differentiate, equals the stacked states."""

    def assigned(x, v):
        y = x * 1
        for t in range(1, 4):
            y[t] = y[t - 1] * v + y[t]
        return y

    def stacked(x, v):
        states = [x[0]]
        for t in range(1, 4):
            states.append(states[-1] * v + x[t])
        return torch.stack(states)

    rng = np.random.default_rng(0)
    x, v = torch.tensor(rng.normal(size=(4, 3))), torch.tensor(rng.normal(size=3))
    np.testing.assert_array_equal(host(assigned(x, v)), host(stacked(x, v)))
    check_grads(assigned, (x, v), order=2)
    for found, expected in zip(*(gradients_of(f, x, v) for f in (assigned, stacked)), strict=True):
        np.testing.assert_allclose(host(found), host(expected), rtol=1e-12)


def gradients_of(function, *xs):
    xs = [x.detach().clone().requires_grad_() for x in xs]
    y = function(*xs)
    return grad(y, xs, torch.tensor(np.cos(np.arange(y.numel())).reshape(y.shape)))


def test_assignment_leaves_earlier_uses_alone():
    """What was computed from the old value is differentiated at the old value."""
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * 1
    before = y * y
    y[0] = 10.0
    (before.sum() + y.sum()).backward()
    assert x.grad.tolist() == [2, 5, 7]


def test_negative_steps():
    x = torch.arange(6.0).reshape(2, 3).requires_grad_()
    y = x[::-1, ::-2]
    assert y.tolist() == [[5, 3], [2, 0]]
    (g,) = grad((y * torch.tensor([1.0, 2.0])).sum(), x)
    assert g.tolist() == [[2, 0, 1], [2, 0, 1]]


def test_views_share_memory():
    x = torch.zeros(2, 3)
    for view in (x.T, x[0], x.reshape(3, 2), x.unsqueeze(0), x.split(1)[0], x.unbind(1)[0], x.data):
        assert share_memory(view, x)
    assert not share_memory(x.clone(), x)


def test_single_elements_are_views():
    """NumPy's own would be copies."""
    x = torch.zeros(3)
    for part in (x[0], x[2], *x.unbind(), torch.zeros(3).unbind()[0]):
        part.add_(1)
    assert x.tolist() == [2, 1, 2]
    w = torch.ones(1, requires_grad=True)
    y = x[0] * w
    x.fill_(7)
    with pytest.raises(RuntimeError, match="changed by fill_"):
        y.backward()


def test_an_expanded_tensor_is_not_written():
    """NumPy would refuse by itself; on a GPU one write would change several elements."""
    x = torch.zeros(1, 3)
    for write in (
        lambda y: y.add_(1),
        lambda y: y.fill_(1),
        lambda y: y.copy_(torch.ones(4, 3)),
        lambda y: y.__setitem__(0, 1.0),
    ):
        with pytest.raises(RuntimeError, match=r"share a place in memory.*clone\(\)"):
            write(x.expand(4, 3))
    assert x.tolist() == [[0, 0, 0]]


def test_values_and_indices_by_name_and_by_position():
    found = torch.tensor([3.0, 1.0, 2.0]).sort()
    values, indices = found
    assert found.values is values
    assert found.indices is indices
    assert (values.tolist(), indices.tolist()) == ([1, 2, 3], [1, 2, 0])


def test_equal_values_keep_their_order():
    x = torch.tensor([1, 0, 1, 0, 1])
    assert x.argsort().tolist() == [1, 3, 0, 2, 4]
    assert x.argsort(descending=True).tolist() == [0, 2, 4, 1, 3]
    assert x.topk(2).indices.tolist() == [0, 2]
    assert x.topk(2, largest=False).indices.tolist() == [1, 3]


def test_norms_and_deviations_of_equal_values_have_gradient_0():
    """The true derivative is infinite; NaN there would spoil a whole training run."""
    for function in (
        lambda x: x.norm(),
        lambda x: x.norm(3),
        lambda x: x.norm(dim=-1).sum(),
        lambda x: x.std(),
    ):
        x = torch.zeros(2, 3, requires_grad=True)
        y = function(x)
        assert y.item() == 0
        assert grad(y, x)[0].tolist() == np.zeros((2, 3)).tolist()


def test_softmax_of_large_values_adds_up_to_1():
    x = torch.tensor([[1e4, 1e4, 0.0], [3e4, 3e4 - 1, 0.0]])
    np.testing.assert_allclose(host(x.softmax(-1).sum(-1)), 1, rtol=1e-6)
    np.testing.assert_allclose(host(x.log_softmax(-1).exp()), host(x.softmax(-1)), rtol=1e-6)


def test_unbind_is_the_way_to_loop_over_time():
    """One node for all steps, where x[t] makes one for each."""
    x = torch.ones(5, 2, requires_grad=True)
    assert len({row.grad_fn for row in x}) == 1
    assert len({x[t].grad_fn for t in range(5)}) == 5


def test_operators_refuse_to_be_an_array_silently():
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"detach\(\)"):
        np.asarray(x)
    with pytest.raises(RuntimeError, match="ambiguous"):
        bool(torch.ones(2) > 0)


def test_hash_is_identity_although_equality_is_elementwise():
    x, y = torch.ones(2), torch.ones(2)
    assert len({x, y, x}) == 2
    assert {x: "x"}[x] == "x"


def test_copies():
    x = torch.ones(2, requires_grad=True)
    twin = copy.deepcopy(x)
    assert twin.requires_grad
    assert not share_memory(twin, x)
    with pytest.raises(RuntimeError, match="only leaf tensors"):
        copy.deepcopy(x * 2)


def test_every_method_is_documented_and_every_package_function_is_one():
    """`torch.tanh(x)` is `x.tanh()`: the package has no second text of it."""
    names = [name for name in dir(Operators) if not name.startswith("_")]
    methods = {name: getattr(Operators, name) for name in names}
    for name, method in methods.items():
        assert method.__doc__, name
    shared = [name for name in methods if getattr(torch, name, None) is methods[name]]
    assert len(shared) > 90
