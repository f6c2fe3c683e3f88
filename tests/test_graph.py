"""The record: what it keeps and for how long, how deep it may be, what writing into arrays does.

Memory is observed with weak references to arrays while the garbage collector is off, so a value
that only a reference cycle keeps alive counts as leaked.
"""

import gc
import threading
import weakref

import numpy as np
import pytest
from arrays import host, on_device

import tinygrad_rnn as tg
from tinygrad_rnn import autograd
from tinygrad_rnn.autograd import no_grad

pytestmark = pytest.mark.usefixtures("device")

rng = np.random.default_rng(23)


def leaf(*shape, dtype=np.float64):
    return tg.tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True)


def value(x):
    return x.detach().numpy().copy()


@pytest.fixture
def no_gc():
    """Only reference counts free memory."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# Depth.

STEPS = 50_000


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_deep_chain_goes_forward_backward_and_out_of_scope(create_graph):
    x = tg.tensor([1.0], requires_grad=True)
    y = x
    for _ in range(STEPS // 2):
        y = y * 1.0 + 0.0001
    (g,) = autograd.grad(y.sum(), x, create_graph=create_graph)
    assert g.tolist() == [1]
    del y, g
    gc.collect()


def test_a_deep_recurrence_with_a_weight():
    w = tg.tensor(0.5, requires_grad=True, dtype=tg.float64)
    h = tg.tensor(0.0, dtype=tg.float64)
    for _ in range(STEPS // 3):
        h = (w * h + 1).tanh()
    h.backward()
    # At the fixed point h = tanh(w h + 1): dh/dw = s h / (1 - s w) with s = 1 - h².
    s = 1 - h.item() ** 2
    assert w.grad.item() == pytest.approx(s * h.item() / (1 - s * 0.5), rel=1e-9)


def test_a_deep_graph_that_backward_never_walked_dies_too():
    y = leaf(1)
    for _ in range(STEPS):
        y = y + 1.0
    del y
    gc.collect()


# What is kept.


def test_operands_that_no_rule_reads_are_not_kept(no_gc):
    x = leaf(4)
    big = tg.ones(4, dtype=tg.float64)
    array = weakref.ref(big.array)
    y = x * 1.0 + big
    del big
    assert array() is None
    y.sum().backward()
    assert x.grad.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "operation",
    [
        lambda a: a + 1.0,
        lambda a: a - 1.0,
        lambda a: 3.0 * a,
        lambda a: a.reshape(2, 2) + 1.0,
        lambda a: a.sum(),
        lambda a: a.mean(),
        lambda a: a.cumsum(0),
        lambda a: tg.cat([a, a]),
        lambda a: tg.stack([a, a]),
        lambda a: a[tg.tensor([1, 2])],
        lambda a: a.flip(0) * 2.0,
        lambda a: -a,
        lambda a: a.tanh(),  # reads its result only
        lambda a: a.exp(),
        lambda a: a.sigmoid(),
    ],
)
def test_linear_operations_and_those_that_read_only_their_result_keep_no_operand(operation, no_gc):
    a = leaf(4) * 1.0
    array = weakref.ref(a.array)
    y = operation(a)
    del a
    assert array() is None
    y.sum().backward()


def test_only_the_factor_that_is_needed_is_kept(no_gc):
    """d(x · w)/dx needs w, not x."""
    w = leaf(4)
    x = tg.ones(4, dtype=tg.float64)
    y = w * x
    kept = weakref.ref(x.array)
    del x
    assert kept() is not None
    del y
    assert kept() is None
    product = w * 2.0
    constant = tg.ones(4, dtype=tg.float64)
    y = product * constant
    array = weakref.ref(product.array)
    del product
    assert array() is None
    del y


def test_a_graph_dies_with_its_end(no_gc):
    w = leaf(3, 3)
    h = leaf(2, 3)
    arrays, nodes = [], []
    for _ in range(10):
        h = ((h @ w).tanh() * 0.5).sigmoid()
        a, b = h.chunk(2, dim=1)
        h = tg.cat([b, a], dim=1)
        arrays.append(weakref.ref(h.array))
        nodes.append(weakref.ref(h.grad_fn))
    assert all(node() is not None for node in nodes)
    del h, a, b
    assert all(array() is None for array in arrays)
    assert all(node() is None for node in nodes)


@pytest.mark.parametrize("how", ["backward", "grad", "create_graph", "retain_graph"])
def test_a_graph_dies_with_its_end_after_a_backward(how, no_gc):
    w, x = leaf(3, 3), leaf(2, 3)
    h = (x @ w).tanh() @ w
    h.retain_grad()
    h.register_hook(lambda g: g * 1.0)
    node, array = weakref.ref(h.grad_fn), weakref.ref(h.array)
    loss = (h * h).sum()
    if how == "backward":
        loss.backward()
    elif how == "grad":
        autograd.grad(loss, [w, h])
    elif how == "create_graph":
        first = autograd.grad(loss, w, create_graph=True)[0]
        first.square().sum().backward()
        del first
    else:
        loss.backward(retain_graph=True)
    w.grad = None
    del loss, h
    assert node() is None
    assert array() is None


def test_a_failed_operation_leaves_nothing_behind(no_gc):
    x = leaf(3)
    h = x * 2
    array = weakref.ref(h.array)
    with pytest.raises(RuntimeError):
        _ = h @ tg.ones(4, 4, dtype=tg.float64)
    del h
    assert array() is None


# What backward releases, and when.


def test_values_are_released_during_backward(no_gc):
    """When the cotangent of an early step arrives, the values of all later steps are gone."""
    x = leaf(1000)
    h, arrays, early = x, [], None
    for step in range(10):
        h = h.tanh()
        arrays.append(weakref.ref(h.array))
        if step == 1:
            early = h
    loss = (h * h).sum()
    del h
    alive = []
    early.register_hook(lambda g: alive.append([array() is not None for array in arrays]))
    assert all(array() is not None for array in arrays)
    loss.backward()
    # Step 1 is `early` itself. Step 2, whose rule has just run, may still be in the walk's hands.
    assert alive[0][3:] == [False] * 7
    assert not any(array() is not None for array in arrays[2:])


def test_retain_graph_keeps_them(no_gc):
    x = leaf(10)
    h = x.tanh()
    array = weakref.ref(h.array)
    loss = h.sum()
    del h
    loss.backward(retain_graph=True)
    assert array() is not None
    loss.backward()
    assert array() is None


def test_cotangents_are_released_during_backward(no_gc):
    x = leaf(1000)
    seen = []
    h = x
    for _ in range(5):
        h = h * 2.0
        h.register_hook(lambda g: seen.append(weakref.ref(g.array)))
    h = h.sum()
    alive = []
    x.register_hook(lambda g: alive.append(sum(r() is not None for r in seen)))
    h.backward()
    assert len(seen) == 5
    assert alive[0] <= 1


# A second backward through a released graph.


def test_the_kept_state_of_a_loop_is_named():
    w = leaf(3, 3)
    h = tg.zeros(2, 3, dtype=tg.float64)
    with pytest.raises(RuntimeError, match=r"'h', made by 'tanh'.*h = h\.detach\(\)"):  # noqa: PT012
        for _ in range(2):
            h = (h @ w + 1).tanh()
            h.sum().backward()


def test_the_kept_state_is_named_through_a_function_of_the_package():
    """The loss is computed by a call; the state is a tuple's part, and an attribute."""

    class Model:
        def __init__(self):
            self.w = leaf(3, 3)
            self.state = (tg.zeros(1, 3, dtype=tg.float64), None)

        def step(self):
            self.state = ((self.state[0] @ self.w + 1).tanh(), None)
            return self.state[0].sum()

        def train(self):
            for _ in range(2):
                self.step().backward()

    with pytest.raises(RuntimeError, match=r"'self\.state', made by 'tanh'.*detach"):
        Model().train()


def test_a_detached_state_makes_no_trouble():
    w = leaf(3, 3)
    h = tg.zeros(2, 3, dtype=tg.float64)
    for _ in range(3):
        h = (h.detach() @ w + 1).tanh()
        h.sum().backward()


def test_the_same_loss_twice_is_told_about_retain_graph():
    loss = leaf(3).tanh().sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="retain_graph=True to the first backward"):
        loss.backward()


def test_a_released_graph_inside_a_function_that_runs_backward_itself():
    """The message is found also while a recorded backward is under way."""
    z = leaf(3)
    inner = z.tanh()
    inner.sum().backward()

    class Nested(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 1

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            autograd.grad(inner.sum(), z)
            return g * x

    x = leaf(3)
    with pytest.raises(RuntimeError, match="an earlier backward has released"):
        autograd.grad(Nested.apply(x).sum(), x, create_graph=True)


# Writing into arrays: a stale value raises, wherever the write went through.

UNDER_NO_GRAD = {
    "add_": lambda t: t.add_(1.0),
    "sub_": lambda t: t.sub_(1.0),
    "mul_": lambda t: t.mul_(2.0),
    "div_": lambda t: t.div_(2.0),
    "pow_": lambda t: t.pow_(2.0),
    "addcmul_": lambda t: t.addcmul_(tg.ones_like(t), tg.ones_like(t), value=2.0),
    "addcdiv_": lambda t: t.addcdiv_(tg.ones_like(t), tg.ones_like(t), value=2.0),
    "lerp_": lambda t: t.lerp_(tg.ones_like(t), 0.5),
    "clamp_": lambda t: t.clamp_(0.0, 0.1),
    "neg_": lambda t: t.neg_(),
    "fill_": lambda t: t.fill_(3.0),
    "zero_": lambda t: t.zero_(),
    "copy_": lambda t: t.copy_(tg.ones_like(t)),
    "masked_fill_": lambda t: t.masked_fill_(t > 0, 9.0),
    "scatter_": lambda t: t.scatter_(0, tg.zeros_like(t, dtype=tg.int64), 9.0),
    "index_fill_": lambda t: t.index_fill_(0, tg.tensor([0]), 9.0),
    "uniform_": lambda t: t.uniform_(),
    "normal_": lambda t: t.normal_(),
    "bernoulli_": lambda t: t.bernoulli_(),
    "+=": lambda t: t.__iadd__(1.0),
    "-=": lambda t: t.__isub__(1.0),
    "*=": lambda t: t.__imul__(2.0),
    "/=": lambda t: t.__itruediv__(2.0),
    "[...] =": lambda t: t.__setitem__(0, 9.0),
    "row": lambda t: t[0].fill_(9.0),
    "view": lambda t: t.view(-1).mul_(2.0),
    "transpose": lambda t: t.T.mul_(2.0),
    "detach": lambda t: t.detach().mul_(2.0),
    "data": lambda t: t.data.mul_(2.0),
}


def test_every_in_place_method_is_tried():
    methods = {
        name
        for name in dir(tg.Tensor)
        if name.endswith("_") and not name.startswith("_") and name not in ("requires_grad_",)
    }
    assert methods - {"detach_"} <= set(UNDER_NO_GRAD)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", UNDER_NO_GRAD)
def test_a_changed_operand_raises(name, create_graph):
    x, w = leaf(3, 4), leaf(3, 4)
    y = x * w
    with no_grad():
        UNDER_NO_GRAD[name](w)
    with pytest.raises(
        RuntimeError, match=r"operand 1 of 'multiply', \(3, 4\) float64, was changed"
    ):
        autograd.grad(y.sum(), x, create_graph=create_graph)


@pytest.mark.parametrize("name", ["mul_", "fill_", "+=", "[...] =", "view"])
def test_a_changed_result_raises(name):
    y = leaf(3, 4).tanh()
    with no_grad():
        UNDER_NO_GRAD[name](y)
    with pytest.raises(RuntimeError, match="result 0 of 'tanh'"):
        y.sum().backward()


def test_the_message_names_the_writer_and_what_to_do():
    x = leaf(3)
    y = x * x
    with no_grad():
        x.mul_(2)
    with pytest.raises(
        RuntimeError,
        match=r"backward: operand 0 of 'multiply', \(3,\) float64, was changed by mul_ after",
    ):
        y.sum().backward()


def test_a_write_to_the_array_counts_when_it_is_announced():
    x = leaf(3)
    y = x * x
    x.array[:] = 7
    x.mark_written("my own code")
    with pytest.raises(RuntimeError, match="changed by my own code"):
        y.sum().backward()


def test_a_write_through_the_original_array_counts_for_views_of_it():
    base = leaf(4, 4)
    y = (base[1] * base[2]).sum()
    with no_grad():
        base[1, 2] = 5.0
    with pytest.raises(RuntimeError, match="operand 0 of 'multiply'"):
        y.backward()


def test_an_index_that_changed_raises(device):
    x, index = leaf(4), tg.tensor([0, 1, 1])
    for y in (x[index], x.index_select(0, index), x.gather(0, index)):
        index.copy_(tg.tensor([0, 1, 1]))
        y = y.sum()
    reads = [lambda: x[index], lambda: x.index_select(0, index), lambda: x.gather(0, index)]
    for read in reads if device == "cpu" else reads[:1]:  # a GPU keeps a checked copy of the others
        y = read().sum()
        index.add_(1)
        with pytest.raises(RuntimeError, match="changed by add_"):
            y.backward()
        index.sub_(1)
    mask = tg.tensor([True, False, True, False])
    y = x[mask].sum()
    mask.fill_(True)
    with pytest.raises(RuntimeError, match="changed by fill_"):
        y.backward()
    mask = tg.tensor([True, False, True, False])
    y = x.masked_fill(mask, 0.0).sum()
    mask.fill_(True)
    with pytest.raises(RuntimeError, match="changed by fill_"):
        y.backward()


def test_an_optimizer_step_between_forward_and_backward_raises():
    w, x = leaf(3, 3), leaf(2, 3)
    optimizer = tg.optim.SGD([w], lr=0.1)
    (x @ w).sum().backward()
    loss = (x @ w).tanh().sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match=r"of 'matmul'.*changed by .*detach"):
        loss.backward()


def test_a_state_kept_across_an_optimizer_step_raises_about_detach():
    """retain_graph does not help when the weights have moved: PyTorch's famous in-place error."""
    w = leaf(3, 3)
    optimizer = tg.optim.SGD([w], lr=0.1)
    h = tg.zeros(2, 3, dtype=tg.float64)
    with pytest.raises(RuntimeError, match=r"changed by .*h = h\.detach\(\)"):  # noqa: PT012
        for _ in range(3):
            h = (h @ w + 1).tanh()
            h.sum().backward(retain_graph=True)
            optimizer.step()


def test_a_hook_that_writes_while_backward_is_under_way():
    x, w = leaf(3), leaf(3)
    h = x * w
    y = (h * 2.0).sum()

    def write(g):
        with no_grad():
            w.mul_(5)

    h.register_hook(write)
    with pytest.raises(RuntimeError, match="changed by mul_"):
        y.backward()


# No false alarms.


def test_what_no_rule_reads_may_change():
    x, bias = leaf(4, 3), leaf(3)
    y = (x + bias).tanh().sum()
    with no_grad():
        bias.add_(1)
        x.mul_(3)
    y.backward()
    assert bias.grad is not None


def test_a_write_before_use_does_no_harm():
    x = leaf(3)
    with no_grad():
        x.mul_(2)
    (x * x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * value(x))


def test_reused_memory_is_not_taken_for_a_changed_array():
    """A write to an array that is gone says nothing about a new one at the same address."""
    x = leaf(1000)
    for _ in range(50):
        scratch = tg.zeros(1000, dtype=tg.float64)
        scratch.add_(1)
        del scratch
        y = x * tg.ones(1000, dtype=tg.float64)
        y = (y * y).sum()
        y.backward()


def test_writing_to_another_part_of_memory_does_no_harm():
    x, other = leaf(3), leaf(3)
    y = (x * x).sum()
    with no_grad():
        other.mul_(2)
        value(x)[:] = 0
    y.backward()


def test_a_changed_value_does_no_harm_where_no_gradient_goes():
    x, w = leaf(3), leaf(3)
    loss = (x * w.detach() + (w * w).tanh()).sum()
    with no_grad():
        x.mul_(2)  # only the rule for the other factor would read it
        w.mul_(2)
    with pytest.raises(RuntimeError, match="operand 1 of 'multiply'"):
        autograd.grad(loss, x)
    x, w = leaf(3), leaf(3)
    loss = (x * 2 + (w * w).tanh()).sum()
    with no_grad():
        w.mul_(2)
    autograd.grad(loss, x)  # does not pass by w * w


# In-place operations on recorded tensors.


def test_in_place_methods_on_recorded_tensors_and_leaves_are_refused():
    x = leaf(3)
    for t, kind in ((x, "a leaf that requires a gradient"), (x * 2, "part of a recorded graph")):
        before = value(t)
        with pytest.raises(RuntimeError, match=f"mul_: this tensor is {kind}"):
            t.mul_(2)
        with pytest.raises(RuntimeError, match=kind):
            t.zero_()
        np.testing.assert_array_equal(value(t), before)
    with pytest.raises(RuntimeError, match="leaf"):
        x += 1.0


@pytest.mark.parametrize(
    ("operate", "slope"),
    [
        (lambda h, w: h.__iadd__(w), (1, 1)),
        (lambda h, w: h.__isub__(w), (1, -1)),
        (lambda h, w: h.__imul__(w), None),
        (lambda h, w: h.__itruediv__(w), None),
    ],
)
def test_augmented_assignment_to_a_recorded_tensor_makes_a_new_one(operate, slope):
    x, w = leaf(3), leaf(3)
    first = x.tanh()
    h = operate(first, w)
    np.testing.assert_allclose(first.detach().numpy(), np.tanh(value(x)))
    assert autograd.gradcheck(lambda x, w: operate(x.tanh(), w), (x, w))
    if slope:
        gx, gw = autograd.grad(h.sum(), [x, w])
        np.testing.assert_allclose(gx.numpy(), slope[0] * (1 - np.tanh(value(x)) ** 2))
        np.testing.assert_allclose(gw.numpy(), np.full(3, slope[1]))


def test_augmented_assignment_collects_a_loss():
    w = leaf(3)
    total = tg.tensor(0.0, dtype=tg.float64)
    for k in range(4):
        total += (w * k).sum()
    total.backward()
    np.testing.assert_allclose(w.grad.numpy(), np.full(3, 6.0))


@pytest.mark.parametrize(
    "write",
    [
        lambda t, w: t.add_(w),
        lambda t, w: t.mul_(w),
        lambda t, w: t.sub_(w, alpha=2.0),
        lambda t, w: t.addcmul_(w, w),
        lambda t, w: t.lerp_(w, 0.5),
        lambda t, w: t.copy_(w),
        lambda t, w: t.fill_(w.sum()),
        lambda t, w: t.masked_fill_(t > 0, w.sum()),
    ],
)
def test_a_gradient_is_never_lost_in_an_in_place_method(write):
    """Writing a recorded value into a plain tensor either is recorded or raises."""
    w, t = leaf(3), tg.ones(3, dtype=tg.float64)
    try:
        write(t, w)
    except RuntimeError as error:
        assert "no_grad" in str(error)  # noqa: PT017
        assert t.tolist() == [1, 1, 1]
    else:
        assert t.requires_grad
    with no_grad():
        write(t, w)
    assert not t.requires_grad


# Assignment to an index.


def test_assignment_of_a_recorded_value():
    w = leaf(3)
    out = tg.zeros(2, 3, dtype=tg.float64)
    plain = out.array
    out[0] = w * 2
    out[1] = w * 3
    assert out.requires_grad
    assert not host(plain).any()  # the old value is kept as it was
    (out * tg.tensor([[1.0], [10.0]], dtype=tg.float64)).sum().backward()
    assert w.grad.tolist() == [32, 32, 32]


def test_assignment_into_a_recorded_tensor_cuts_the_old_values_gradient():
    x, w = leaf(4), leaf(2)
    y = x * 2
    before = y.tanh()
    y[1:3] = w
    loss = (y * y).sum() + before.sum()
    gx, gw = autograd.grad(loss, [x, w])
    old = 2 * value(x)
    expected = 2 * (1 - np.tanh(old) ** 2)  # through `before`, which saw the old values
    expected[[0, 3]] += 8 * value(x)[[0, 3]]
    np.testing.assert_allclose(gx.numpy(), expected)
    np.testing.assert_allclose(gw.numpy(), 2 * value(w))


@pytest.mark.parametrize(
    "index",
    [
        0,
        (slice(None), 1),
        (Ellipsis, -1),
        (slice(None), slice(0, 4, 2)),
        (np.array([2, 0]), np.array([1, 3])),
        [1, 0],
        (None, 1),
    ],
    ids=str,
)
def test_assignment_is_checked_by_finite_differences(index):
    x, index = leaf(3, 4), on_device(index)
    part = x.detach()[index]

    def assign(x, v):
        y = x * 1.5
        y[index] = v
        return y * y

    for v in (leaf(*part.shape), leaf(*part.shape[1:]), leaf()):
        assert autograd.gradcheck(assign, (x, v))
        assert autograd.gradgradcheck(assign, (x, v))


def test_assignment_under_a_mask():
    x, v = leaf(5), leaf()
    mask = tg.tensor([True, False, True, True, False])

    def assign(x, v):
        y = x * 1.5
        y[mask] = v
        return y * y

    assert autograd.gradcheck(assign, (x, v))


def test_a_value_that_is_part_of_the_tensor_itself():
    x = leaf(4)
    y = x * 1.0
    y[0] = y[3] * y[2]
    y[1:3] = y[0:2]  # overlapping
    (g,) = autograd.grad((y * tg.tensor([1.0, 10.0, 100.0, 1000.0], dtype=tg.float64)).sum(), x)
    a = value(x)
    # y = (x₂x₃, x₂x₃, x₁, x₃)
    np.testing.assert_allclose(y.detach().numpy(), [a[2] * a[3], a[2] * a[3], a[1], a[3]])
    np.testing.assert_allclose(g.numpy(), [0, 100, 11 * a[3], 11 * a[2] + 1000])


def test_assignment_to_a_leaf_that_requires_a_gradient_is_refused():
    x = leaf(3)
    with pytest.raises(RuntimeError, match=r"setitem: this tensor is a leaf.*clone\(\)"):
        x[0] = 1.0
    with no_grad():
        x[0] = 1.0
    assert x.is_leaf
    assert x.requires_grad
    assert x[0].item() == 1


def test_assignment_of_a_recorded_value_under_no_grad_is_a_plain_write():
    w, out = leaf(3), tg.zeros(3, dtype=tg.float64)
    with no_grad():
        out[:] = w
    assert not out.requires_grad
    np.testing.assert_array_equal(out.numpy(), value(w))


def test_assignment_casts_to_the_tensors_dtype_and_back():
    w = leaf(3)
    out = tg.zeros(2, 3)
    out[1] = w
    assert out.dtype == np.float32
    (out * out).sum().backward()
    assert w.grad.dtype == np.float64
    np.testing.assert_allclose(w.grad.numpy(), 2 * value(w), rtol=1e-6)


# Threads.


def test_two_threads_may_walk_graphs_of_their_own():
    w = leaf(20, 20)
    expected = {}
    found = {}

    def run(key, scale):
        x = tg.ones(5, 20, dtype=tg.float64) * scale
        for _ in range(20):
            h = x
            for _ in range(10):
                h = (h @ w * 0.1).tanh()
            found[key] = autograd.grad(h.sum(), w)[0].numpy()

    for key in range(3):
        run(key, key + 1.0)
        expected[key] = found.pop(key)
    threads = [threading.Thread(target=run, args=(key, key + 1.0)) for key in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for key in range(3):
        np.testing.assert_array_equal(found[key], expected[key])
