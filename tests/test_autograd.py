"""backward, grad, hooks, recording modes, dtypes, and the derivatives of functions.

Numbers are derived by hand; `tests/parity/test_autograd.py` compares with PyTorch.
"""

import threading

import numpy as np
import pytest
from arrays import host, on_device

import tinygrad_rnn as tg
from tinygrad_rnn import autograd
from tinygrad_rnn.autograd import enable_grad, functional, no_grad, set_grad_enabled

pytestmark = pytest.mark.usefixtures("device")

rng = np.random.default_rng(11)


def leaf(*shape, dtype=np.float64):
    return tg.tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True)


def value(x):
    return x.detach().numpy()


@pytest.fixture(autouse=True)
def _recording_again():
    yield
    set_grad_enabled(True)  # a failed test shall not make others fail


# What backward accumulates, and where.


def test_backward_adds_to_grad():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    assert x.grad.tolist() == [2, 4]
    (x * 3).sum().backward()
    assert x.grad.tolist() == [5, 7]


def test_gradient_argument():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    (x * x).backward(tg.tensor([1.0, 10.0]))
    assert x.grad.tolist() == [2, 40]
    y = x * x
    with pytest.raises(RuntimeError, match=r"can be left out only for a single value.*\(2,\)"):
        y.backward()
    with pytest.raises(RuntimeError, match=r"shape \(3,\), the tensor \(2,\)"):
        y.backward(tg.ones(3))
    with pytest.raises(TypeError, match="must be a Tensor, got ndarray"):
        y.backward(np.ones(2))


def test_a_tensor_that_needs_no_gradient_has_no_backward():
    with pytest.raises(RuntimeError, match=r"does not require a gradient.*no_grad"):
        tg.ones(1).backward()
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        leaf(1).detach().backward()
    with pytest.raises(TypeError, match="expected Tensors, got float"):
        autograd.backward([1.0])


def test_backward_of_a_leaf_itself():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    x.backward(tg.tensor([3.0, 4.0]))
    assert x.grad.tolist() == [3, 4]


def test_several_roots():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    autograd.backward([y.sum(), (x * x).sum()])
    assert x.grad.tolist() == [4, 6]
    x.grad = None
    y = x * 2
    autograd.backward([y, y], [tg.ones(2), tg.tensor([1.0, 10.0])])  # one root twice
    assert x.grad.tolist() == [4, 22]
    with pytest.raises(RuntimeError, match="2 tensors but 1 gradients"):
        autograd.backward([x * 1, x * 1], [tg.ones(2)])


def test_diamonds_and_one_tensor_used_several_times():
    x = tg.tensor(3.0, requires_grad=True)
    a = x * x
    b, c = a * 2, a * a
    (b * c + a + x).backward()  # 2x⁶ + x² + x
    assert x.grad.item() == 12 * 3**5 + 2 * 3 + 1
    x.grad = None
    (x * x * x + x / x + (x - x)).backward()
    assert x.grad.item() == 27


def test_a_ladder_of_diamonds_is_walked_once_per_node():
    """2¹⁰⁰ paths; walking paths instead of nodes would never end."""
    x = tg.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(100):
        y = y * 0.5 + y * 0.5
    y.backward()
    assert x.grad.item() == 1


def test_only_leaves_get_grad():
    x = leaf(2)
    y = x * 2
    y.sum().backward()
    assert x.grad is not None
    assert y.grad is None
    assert x.is_leaf
    assert not y.is_leaf


def test_outputs_that_nothing_used():
    x = tg.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)
    _, middle, _ = x.unbind(1)
    (middle * tg.tensor([1.0, 10.0])).sum().backward()
    assert x.grad.tolist() == [[0, 1, 0], [0, 10, 0]]
    x.grad = None
    values, _ = x.sort(dim=1, descending=True)
    first, *_ = values.chunk(3, dim=1)
    first.sum().backward()
    assert x.grad.tolist() == [[0, 0, 1], [0, 0, 1]]


def test_constants_get_no_gradient():
    x, constant = leaf(3), tg.ones(3, dtype=tg.float64)
    (x * constant).sum().backward()
    assert constant.grad is None
    assert x.grad.tolist() == [1, 1, 1]


# inputs=, grad().


def test_backward_into_chosen_inputs():
    x, w = leaf(2), leaf(2)
    y = x * w
    z = (y * y).sum()
    z.backward(inputs=[x], retain_graph=True)
    assert w.grad is None
    np.testing.assert_allclose(x.grad.numpy(), value(2 * y * w))
    z.backward(inputs=y)  # a tensor that is not a leaf
    np.testing.assert_allclose(y.grad.numpy(), value(2 * y))
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        (x * x).sum().backward(inputs=[tg.ones(2)])


def test_grad_of_leaves_and_of_intermediate_tensors():
    x, w = leaf(3), leaf(3)
    h = x * w
    y = h.tanh()
    gh, gx, gy = autograd.grad(y.sum(), [h, x, y])
    slope = 1 - value(y) ** 2
    np.testing.assert_allclose(gh.numpy(), slope)
    np.testing.assert_allclose(gx.numpy(), slope * value(w))
    np.testing.assert_allclose(gy.numpy(), np.ones(3))
    assert x.grad is None
    assert w.grad is None
    assert h.grad is None


def test_grad_with_one_input_gives_a_tuple():
    x = tg.tensor(2.0, requires_grad=True)
    result = autograd.grad(x * x, x)
    assert isinstance(result, tuple)
    assert result[0].item() == 4


def test_grad_outputs():
    x = leaf(3)
    (g,) = autograd.grad([x * 2, x * x], x, [tg.ones(3, dtype=tg.float64), x.detach()])
    np.testing.assert_allclose(g.numpy(), 2 + 2 * value(x) ** 2)
    y = (x * 2).sum()
    (g,) = autograd.grad([y, x * x], [x], [None, tg.ones(3, dtype=tg.float64)])
    np.testing.assert_allclose(g.numpy(), 2 + 2 * value(x))


def test_unused_inputs():
    x, other = leaf(2), leaf(3)
    with pytest.raises(RuntimeError, match=r"do not depend on inputs\[1\].*allow_unused=True"):
        autograd.grad((x * x).sum(), [x, other])
    assert autograd.grad((x * x).sum(), [x, other], allow_unused=True)[1] is None
    zeros = autograd.grad((x * x).sum(), [x, other], materialize_grads=True)[1]
    assert zeros.tolist() == [0, 0, 0]
    assert zeros.dtype == other.dtype
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        autograd.grad((x * x).sum(), other.detach())


def test_grad_does_not_walk_what_does_not_lead_to_the_inputs():
    calls = []

    class Watch(autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            calls.append("walked")
            return g

    x, w = leaf(2), leaf(2)
    y = (Watch.apply(w) * x).sum()
    autograd.grad(y, x, retain_graph=True)
    assert not calls
    autograd.grad(y, w)
    assert calls == ["walked"]


# retain_graph, create_graph.


def test_retain_graph():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [6, 12]
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()


def test_adding_keeps_no_values_and_may_be_walked_again():
    x, y = tg.tensor([1.0, 2.0], requires_grad=True), tg.tensor(3.0, requires_grad=True)
    z = (x + y - 1).reshape(2, 1).sum()
    z.backward()
    z.backward()
    assert x.grad.tolist() == [2, 2]
    assert y.grad.item() == 4


def test_create_graph_keeps_the_graph():
    x = tg.tensor(2.0, requires_grad=True)
    y = x**3
    (first,) = autograd.grad(y, x, create_graph=True)
    (second,) = autograd.grad(first, x, create_graph=True)
    (third,) = autograd.grad(second, x)
    assert [first.item(), second.item(), third.item()] == [12, 12, 6]
    y.backward()
    assert x.grad.item() == 12


def test_create_graph_false_gives_gradients_without_a_graph():
    x = leaf(2)
    (g,) = autograd.grad((x**3).sum(), x)
    assert not g.requires_grad
    (x**3).sum().backward()
    assert not x.grad.requires_grad


def test_gradient_penalty():
    """The gradient of a gradient's norm, accumulated into .grad with create_graph."""
    x, w = leaf(5, 3), leaf(3, 1)
    (g,) = autograd.grad((x @ w).tanh().sum(), x, create_graph=True)
    penalty = (g.norm(dim=1) - 1).square().mean()
    penalty.backward()
    assert autograd.gradcheck(
        lambda w: (
            (autograd.grad((x @ w).tanh().sum(), x, create_graph=True)[0].norm(dim=1) - 1).square()
        ).mean(),
        w,
    )
    assert w.grad.shape == (3, 1)


def test_create_graph_under_no_grad_and_backward_under_no_grad():
    x = tg.tensor(2.0, requires_grad=True)
    y = x**3
    with no_grad():
        y.backward(retain_graph=True)
        (first,) = autograd.grad(y, x, create_graph=True)
        assert not tg.is_grad_enabled()
    assert x.grad.item() == 12
    assert autograd.grad(first, x)[0].item() == 12


# .grad is memory of its own.


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_of_different_leaves_do_not_share_memory(create_graph):
    x, y = leaf(3), leaf(3)
    seed = tg.ones(3, dtype=tg.float64)
    (x + y).backward(seed, create_graph=create_graph)
    with no_grad():
        x.grad.mul_(5)
    assert x.grad.tolist() == [5, 5, 5]
    assert y.grad.tolist() == [1, 1, 1]
    assert seed.tolist() == [1, 1, 1]


def test_backward_starts_from_a_gradient_on_the_same_device(device):
    if device == "cpu":
        pytest.skip("there is no other device")
    x, g = leaf(3), tg.ones(3, dtype=tg.float64, device="cpu")
    for start in (x.sin().backward, lambda g: autograd.grad(x.sin(), x, g)):
        with pytest.raises(RuntimeError, match=r"the tensor, .* is on cuda:0, and its gradient, "):
            start(g)


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_do_not_share_memory_with_arrays_of_the_user(create_graph):
    array = on_device(np.array([1.0, 2.0, 3.0]))
    x = leaf(3)
    x.backward(tg.Tensor(array), create_graph=create_graph)
    (x * tg.ones(3, dtype=tg.float64)).backward(tg.Tensor(array), create_graph=create_graph)
    with no_grad():
        x.grad.zero_()
    assert array.tolist() == [1, 2, 3]
    x.grad = None
    x.backward(tg.Tensor(array), create_graph=create_graph)
    array[:] = 0
    assert x.grad.tolist() == [1, 2, 3]


def test_the_gradient_of_a_broadcast_can_be_written():
    x = leaf(3)
    x.sum().backward()
    x.grad.mul_(2)
    assert x.grad.tolist() == [2, 2, 2]


def test_retained_gradients_do_not_share_memory():
    x, y = leaf(3) * 1, leaf(3) * 1
    x.retain_grad()
    y.retain_grad()
    (x + y).sum().backward()
    x.grad.mul_(7)
    assert y.grad.tolist() == [1, 1, 1]


def test_an_earlier_grad_that_was_kept_does_not_change():
    x = leaf(2)
    x.sum().backward()
    kept = x.grad
    before = kept.tolist()
    x.sum().backward()
    assert x.grad.tolist() == [2, 2]
    assert kept.tolist() in (before, [2, 2])  # PyTorch adds in place; a new tensor is as good


# Hooks.


@pytest.mark.parametrize("create_graph", [False, True])
def test_hooks_see_and_replace_gradients(create_graph):
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    h = x * 3
    seen = []
    h.register_hook(lambda g: seen.append(g.tolist()))
    h.register_hook(lambda g: g * 10)
    h.register_hook(lambda g: seen.append(g.tolist()))
    (h * h).sum().backward(create_graph=create_graph)
    assert seen == [[6, 12], [60, 120]]
    assert x.grad.tolist() == [180, 360]


@pytest.mark.parametrize("create_graph", [False, True])
def test_hooks_on_leaves_run_once_per_backward_on_the_whole_gradient(create_graph):
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    seen = []

    def hook(g):
        seen.append(g.tolist())
        return g + 1

    x.register_hook(hook)
    (x * x + x).sum().backward(create_graph=create_graph)
    assert seen == [[3, 5]]
    assert x.grad.tolist() == [4, 6]
    (x * 2).sum().backward()
    assert seen[1] == [2, 2]  # not what had been accumulated


def test_hooks_can_be_removed():
    x = tg.tensor([1.0], requires_grad=True)
    h = x * 2
    for tensor in (x, h):
        handle = tensor.register_hook(lambda g: g * 100)
        handle.remove()
        handle.remove()
    with h.register_hook(lambda g: g * 100):
        pass
    h.sum().backward()
    assert x.grad.tolist() == [2]


def test_hooks_after_accumulation_see_the_sum():
    x = tg.tensor([1.0], requires_grad=True)
    seen = []
    handle = x.register_post_accumulate_grad_hook(lambda leaf: seen.append(leaf.grad.tolist()))
    (x * 2).sum().backward()
    (x * 3 + x * 4).sum().backward()
    handle.remove()
    x.sum().backward()
    assert seen == [[2], [9]]
    x.register_post_accumulate_grad_hook(lambda leaf: leaf.sub_(leaf.grad).grad.zero_())
    x.sum().backward()  # a step of gradient descent, without no_grad
    assert (x.tolist(), x.grad.tolist()) == ([-10], [0])
    for other in (x * 2, tg.tensor([1.0])):
        with pytest.raises(RuntimeError, match="expected a leaf that requires a gradient"):
            other.register_post_accumulate_grad_hook(print)


def test_a_hook_may_remove_itself():
    x = tg.tensor([1.0], requires_grad=True)
    calls = []

    def once(g):
        calls.append(1)
        handle.remove()

    handle = x.register_hook(once)
    x.sum().backward()
    x.sum().backward()
    assert calls == [1]


def test_hooks_act_in_grad_on_the_way_and_at_the_inputs():
    x = tg.tensor(1.0, requires_grad=True)
    h = x * 2
    y = h * 3
    h.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g * 100)
    gh, gx = autograd.grad(y, [h, x], retain_graph=True)
    assert gh.item() == 30
    assert gx.item() == 30 * 2 * 100
    assert autograd.grad(y, h)[0].item() == 30


def test_hooks_on_one_output_of_several():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    a, b = x.unbind()
    b.register_hook(lambda g: g * 10)
    (a * 2 + b * 3).backward()
    assert x.grad.tolist() == [2, 30]


def test_hooks_need_a_tensor_that_requires_a_gradient():
    with pytest.raises(RuntimeError, match=r"register_hook: .* does not require"):
        tg.ones(1).register_hook(print)
    with pytest.raises(RuntimeError, match=r"retain_grad: .* does not require"):
        tg.ones(1).retain_grad()


@pytest.mark.parametrize("create_graph", [False, True])
def test_what_a_hook_returns_must_fit(create_graph):
    x = leaf(3, dtype=np.float32)
    for tensor in (x, x * 1):
        for hook, error, message in (
            (
                lambda g: g.sum(),
                RuntimeError,
                r"returned \(\) float32 in place of .* \(3,\) float32",
            ),
            (lambda g: g.double(), RuntimeError, r"returned \(3,\) float64 in place of"),
            (lambda g: 2.0, TypeError, r"must return a Tensor or None, not 2\.0"),
            (lambda g: g.detach().numpy(), TypeError, "must return a Tensor or None"),
        ):
            handle = tensor.register_hook(hook)
            with pytest.raises(error, match=f"hook '<lambda>' {message}"):
                tensor.sum().backward(create_graph=create_graph)
            handle.remove()


def test_an_error_in_a_hook_reaches_the_caller():
    x = leaf(2)

    def fail(g):
        raise ZeroDivisionError

    handle = x.register_hook(fail)
    with pytest.raises(ZeroDivisionError):
        x.sum().backward()
    handle.remove()
    assert tg.is_grad_enabled()
    x.sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_retain_grad():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    h = x * 2
    assert not h.retains_grad
    h.retain_grad()
    h.retain_grad()
    assert h.retains_grad
    y = (h * h).sum()
    y.backward(retain_graph=True)
    assert h.grad.tolist() == [4, 8]
    y.backward()
    assert h.grad.tolist() == [8, 16]
    x.retain_grad()  # a leaf keeps its gradient anyway
    assert x.grad.tolist() == [16, 32]


def test_retain_grad_sees_what_hooks_made_of_it_in_any_order():
    x = tg.tensor(1.0, requires_grad=True)
    h = x * 2
    h.register_hook(lambda g: g * 10)
    h.retain_grad()
    h.register_hook(lambda g: g + 1)
    h.backward()
    assert h.grad.item() == 11
    assert x.grad.item() == 22


# Leaves, detach, requires_grad.


def test_detach_stops_gradients_and_shares_memory():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    d = (x * 2).detach()
    assert d.is_leaf
    assert not d.requires_grad
    (d * x).sum().backward()
    assert x.grad.tolist() == [2, 4]
    shared = x.detach()
    with no_grad():
        shared[0] = 5.0
    assert x.tolist() == [5, 2]


def test_requires_grad_of_a_later_leaf():
    x = tg.ones(2)
    y = x * 2
    x.requires_grad_()
    assert not y.requires_grad
    with pytest.raises(RuntimeError, match="only floating-point tensors"):
        tg.ones(2, dtype=tg.int64).requires_grad_()
    with pytest.raises(RuntimeError, match=r"only leaf tensors.*detach"):
        (x * 2).requires_grad_(False)


def test_in_place_update_of_a_leaf_is_seen_by_the_next_forward():
    w = tg.tensor([2.0], requires_grad=True)
    (w * w).sum().backward()
    with no_grad():
        w -= 0.25 * w.grad
    assert w.is_leaf
    assert w.requires_grad
    assert w.tolist() == [1]
    w.grad = None
    (w * w).sum().backward()
    assert w.grad.tolist() == [2]


# Recording modes.


def test_no_grad_as_a_context_manager():
    x = leaf(2)
    with no_grad():
        assert not tg.is_grad_enabled()
        assert not (x * 2).requires_grad
        with enable_grad():
            assert (x * 2).requires_grad
            with no_grad():
                assert not (x * 2).requires_grad
            assert tg.is_grad_enabled()
        assert not tg.is_grad_enabled()
    assert tg.is_grad_enabled()


def test_one_no_grad_entered_twice():
    mode = no_grad()
    with mode, enable_grad(), mode:
        assert not tg.is_grad_enabled()
    assert tg.is_grad_enabled()


def test_modes_are_restored_after_an_exception():
    for mode in (no_grad, lambda: set_grad_enabled(False)):
        with pytest.raises(KeyError), mode():
            raise KeyError
        assert tg.is_grad_enabled()


@pytest.mark.parametrize(
    "decorator", [lambda: no_grad, lambda: no_grad(), lambda: set_grad_enabled(False)]
)
def test_no_grad_as_a_decorator(decorator):
    @decorator()
    def evaluate(x, *, scale=1):
        """Its own text."""
        return x * scale, tg.is_grad_enabled()

    assert tg.is_grad_enabled()
    y, enabled = evaluate(leaf(2), scale=3)
    assert not y.requires_grad
    assert not enabled
    assert tg.is_grad_enabled()
    assert evaluate.__name__ == "evaluate"
    assert evaluate.__doc__ == "Its own text."


def test_decorated_recursion():
    @no_grad()
    def down(n):
        assert not tg.is_grad_enabled()
        return 0 if n == 0 else 1 + down(n - 1)

    assert down(5) == 5
    assert tg.is_grad_enabled()


def test_decorated_generators_hold_the_mode_only_while_they_run():
    @no_grad()
    def steps(n):
        for k in range(n):
            assert not tg.is_grad_enabled()
            sent = yield k
            assert sent in (None, "hello")
        return "done"

    generator = steps(2)
    assert next(generator) == 0
    assert tg.is_grad_enabled()
    assert generator.send("hello") == 1
    assert tg.is_grad_enabled()
    with pytest.raises(StopIteration, match="done"):
        next(generator)
    assert tg.is_grad_enabled()


def test_decorated_generators_receive_exceptions_and_close():
    events = []

    @no_grad()
    def guarded():
        try:
            try:
                yield 1
            except KeyError:
                events.append(("caught", tg.is_grad_enabled()))
                yield 2
        finally:
            events.append(("closed", tg.is_grad_enabled()))

    generator = guarded()
    assert next(generator) == 1
    assert generator.throw(KeyError) == 2
    assert tg.is_grad_enabled()
    generator.close()
    assert events == [("caught", False), ("closed", False)]
    assert tg.is_grad_enabled()


def test_set_grad_enabled():
    x = leaf(2)
    for flag in (True, False):
        with set_grad_enabled(flag):
            assert (x * 2).requires_grad is flag
        assert tg.is_grad_enabled()
    try:
        set_grad_enabled(False)
        assert not tg.is_grad_enabled()
    finally:
        set_grad_enabled(True)
    assert tg.is_grad_enabled()


def test_modes_belong_to_their_thread():
    x = leaf(2)
    inside, checked = threading.Event(), threading.Event()
    found = {}

    def other():
        with no_grad():
            inside.set()
            checked.wait(10)
            found["other"] = (x * 2).requires_grad

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    found["main"] = (x * 2).requires_grad
    with no_grad():
        fresh = threading.Thread(target=lambda: found.update(fresh=tg.is_grad_enabled()))
        fresh.start()
        fresh.join()
    checked.set()
    thread.join()
    assert found == {"main": True, "other": False, "fresh": True}


# dtypes.


def test_integers_meet_float32():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    integers = tg.tensor([3, 4])
    for y in (x * integers, integers * x, x + integers, integers / x, x**integers):
        assert y.dtype == np.float32
    (x * integers).sum().backward()
    assert x.grad.dtype == np.float32
    assert x.grad.tolist() == [3, 4]


def test_division_of_integers_is_float32():
    y = tg.tensor([3, 4]) / tg.tensor([2, 2])
    assert y.dtype == np.float32
    assert y.tolist() == [1.5, 2]
    assert (tg.tensor([3, 4]) / 2).dtype == np.float32
    assert (1 / tg.tensor([2])).dtype == np.float32


@pytest.mark.parametrize("scalar", [2, 2.0, np.float64(2), np.float32(2), np.int64(2), True])
def test_scalars_do_not_widen(scalar):
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    for y in (x * scalar, scalar * x, x + scalar, scalar - x, x / scalar, x**scalar):
        assert isinstance(y, tg.Tensor)
        assert y.dtype == np.float32
        (g,) = autograd.grad(y.sum(), x)
        assert g.dtype == np.float32


def test_mixed_precision_gradients_come_back_in_each_leafs_dtype():
    x, w = leaf(4, 3, dtype=np.float32), leaf(3, 2)
    y = x @ w
    assert y.dtype == np.float64
    y.sum().backward()
    assert x.grad.dtype == np.float32
    assert w.grad.dtype == np.float64
    np.testing.assert_allclose(w.grad.numpy(), value(x).sum(0)[:, None].repeat(2, 1), rtol=1e-6)
    for create_graph in (False, True):
        gx, gw = autograd.grad((x @ w).tanh().sum(), [x, w], create_graph=create_graph)
        assert (gx.dtype, gw.dtype) == (np.float32, np.float64)


@pytest.mark.parametrize("combine", ["cat", "stack", "where"])
def test_mixed_precision_in_operations_of_several_tensors(combine):
    x, w = leaf(3, dtype=np.float32), leaf(3)
    if combine == "where":
        y = tg.where(tg.tensor([True, False, True]), x, w)
    else:
        y = getattr(tg, combine)([x, w])
    assert y.dtype == np.float64
    (y * y).sum().backward()
    assert x.grad.dtype == np.float32
    assert w.grad.dtype == np.float64


def test_casts_are_differentiable():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    y = x.double() * 3
    assert y.dtype == np.float64
    y.sum().backward()
    assert x.grad.dtype == np.float32
    assert not x.long().requires_grad


def test_the_seed_takes_the_tensors_dtype():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    (x * 2).backward(tg.ones(2, dtype=tg.float64))
    assert x.grad.dtype == np.float32


# A branch that was not taken gives no NaN.


def test_where_blocks_nan_of_the_dead_branch():
    x = tg.tensor([-1.0, 0.0, 4.0], requires_grad=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        y = tg.where(x > 0, x.sqrt() * 3, tg.zeros_like(x))
        assert y.tolist() == [0, 0, 6]
        clean = tg.where(x > 0, x, tg.ones_like(x)).sqrt().sum()
    clean.backward()
    np.testing.assert_allclose(x.grad.numpy(), [0, 0, 0.25])


def test_an_infinite_cotangent_does_not_reach_the_dead_branch():
    x, w = leaf(3), leaf(3)
    y = tg.where(tg.tensor([True, False, True]), x, w)
    y.backward(tg.tensor([np.inf, np.nan, 1.0], dtype=tg.float64))
    assert x.grad.tolist() == [np.inf, 0, 1]
    assert np.isnan(w.grad.numpy()[1])
    assert w.grad.numpy()[[0, 2]].tolist() == [0, 0]
    x.grad = None
    masked = x.masked_fill(tg.tensor([False, True, False]), 0.0)
    masked.backward(tg.tensor([1.0, np.nan, 2.0], dtype=tg.float64))
    assert x.grad.tolist() == [1, 0, 2]


# Derivatives of functions.


def rosenbrock(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def rosenbrock_hessian(x):
    """By hand."""
    n = len(x)
    h = np.zeros((n, n))
    for k in range(n - 1):
        h[k, k] += 1200 * x[k] ** 2 - 400 * x[k + 1] + 2
        h[k + 1, k + 1] += 200
        h[k, k + 1] = h[k + 1, k] = -400 * x[k]
    return h


def test_hessian_and_its_products():
    x, v = leaf(5), rng.standard_normal(5)
    expected = rosenbrock_hessian(value(x))
    np.testing.assert_allclose(functional.hessian(rosenbrock, x).numpy(), expected, atol=1e-10)
    for product in (functional.hvp, functional.vhp):
        y, hv = product(rosenbrock, x, tg.tensor(v))
        assert y.item() == pytest.approx(rosenbrock(x).item())
        np.testing.assert_allclose(hv.numpy(), expected @ v)
        assert not hv.requires_grad
    assert x.grad is None


def test_hessian_of_several_inputs():
    x, y = leaf(2), leaf(3)
    blocks = functional.hessian(lambda x, y: (x.sum() ** 2) * (y**3).sum(), (x, y))
    sx, yy = value(x).sum(), value(y)
    np.testing.assert_allclose(blocks[0][0].numpy(), np.full((2, 2), 2 * (yy**3).sum()))
    np.testing.assert_allclose(blocks[0][1].numpy(), np.tile(6 * sx * yy**2, (2, 1)))
    np.testing.assert_allclose(blocks[1][0].numpy(), blocks[0][1].numpy().T)
    np.testing.assert_allclose(blocks[1][1].numpy(), np.diag(sx**2 * 6 * yy), atol=1e-12)


def test_jacobian_forms():
    x, w = leaf(3), leaf(2, 3)
    one = functional.jacobian(lambda x: x * x, x)
    np.testing.assert_allclose(one.numpy(), np.diag(2 * value(x)))
    in_tuple = functional.jacobian(lambda x: x * x, (x,))
    assert isinstance(in_tuple, tuple)
    np.testing.assert_allclose(in_tuple[0].numpy(), one.numpy())
    both = functional.jacobian(lambda w, x: (w @ x, (w * w).sum()), (w, x))
    assert [[block.shape for block in row] for row in both] == [
        [(2, 2, 3), (2, 3)],
        [(2, 3), (3,)],
    ]
    np.testing.assert_allclose(both[0][1].numpy(), value(w))
    np.testing.assert_allclose(both[1][0].numpy(), 2 * value(w))
    assert not host(both[1][1]).any()


def test_jacobian_of_nothing_and_of_transposed_outputs():
    assert functional.jacobian(lambda x: x[:0], leaf(3)).shape == (0, 3)
    assert functional.jacobian(lambda x: x * 2, leaf(0)).shape == (0, 0)
    x = leaf(2, 3)
    jacobian = functional.jacobian(lambda x: x.T * 1, x).numpy()
    for i, j, k, m in np.ndindex(3, 2, 2, 3):
        assert jacobian[i, j, k, m] == (i == m and j == k)


def test_jvp_and_vjp_are_products_with_the_jacobian():
    x, w = leaf(3), leaf(4, 3)

    def f(x, w):
        return (w @ x).tanh(), (w * w).sum(1)

    jacobian = functional.jacobian(f, (x, w))
    vx, vw = rng.standard_normal(3), rng.standard_normal((4, 3))
    outputs, moved = functional.jvp(f, (x, w), (tg.tensor(vx), tg.tensor(vw)))
    for k in range(2):
        jx, jw = (block.numpy().reshape(4, -1) for block in jacobian[k])
        np.testing.assert_allclose(moved[k].numpy(), jx @ vx + jw @ vw.ravel())
        np.testing.assert_allclose(outputs[k].numpy(), value(f(x, w)[k]))
    u = [rng.standard_normal(4), rng.standard_normal(4)]
    _, pulled = functional.vjp(f, (x, w), (tg.tensor(u[0]), tg.tensor(u[1])))
    for k, x_or_w in enumerate((x, w)):
        expected = sum(u[i] @ jacobian[i][k].numpy().reshape(4, -1) for i in range(2))
        np.testing.assert_allclose(pulled[k].numpy().ravel(), expected, atol=1e-14)
        assert pulled[k].shape == x_or_w.shape


def test_v_may_be_left_out_for_a_single_value():
    x = tg.tensor(3.0, requires_grad=True)
    assert functional.jvp(lambda x: x * x, x)[1].item() == 6
    assert functional.vjp(lambda x: x * x, x)[1].item() == 6
    assert functional.hvp(lambda x: x**3, x)[1].item() == 18
    with pytest.raises(RuntimeError, match="vjp: v can be left out only if the outputs"):
        functional.vjp(lambda x: x * tg.ones(2), x)
    with pytest.raises(RuntimeError, match="jvp: v can be left out only if the inputs"):
        functional.jvp(lambda x: x * 2, leaf(2))
    with pytest.raises(RuntimeError, match=r"v has the shapes \[\(3,\)\], the inputs \[\(2,\)\]"):
        functional.jvp(lambda x: x * 2, leaf(2), tg.ones(3))


def test_functional_results_with_create_graph_can_be_differentiated():
    x, v = leaf(4), tg.tensor(rng.standard_normal(4))
    w = leaf(4)
    assert autograd.gradcheck(
        lambda w, x: functional.jvp(lambda x: (w * x).tanh(), x, v, create_graph=True)[1], (w, x)
    )
    assert autograd.gradcheck(
        lambda w, x: functional.vjp(lambda x: (w * x).tanh(), x, v, create_graph=True)[1], (w, x)
    )
    assert autograd.gradcheck(
        lambda w, x: functional.hvp(lambda x: (w * x**4).sum(), x, v, create_graph=True)[1], (w, x)
    )
    assert autograd.gradcheck(
        lambda w, x: functional.jacobian(lambda x: (w * x).tanh(), x, create_graph=True), (w, x)
    )


def test_functional_under_no_grad_and_with_inputs_that_need_no_gradient():
    with no_grad():
        jacobian = functional.jacobian(lambda x: x * x, tg.tensor([1.0, 2.0]))
    assert jacobian.tolist() == [[2, 0], [0, 4]]
    assert not jacobian.requires_grad


def test_strict_refuses_independence():
    x, y = leaf(2), leaf(3)
    for derive in (functional.jacobian, functional.vjp):
        with pytest.raises(RuntimeError, match=r"does not depend on inputs\[1\].*strict=True"):
            derive(lambda x, y: x.sum(), (x, y), strict=True)
    constant = functional.jacobian(lambda x: tg.ones(2), x)
    assert constant.tolist() == [[0, 0], [0, 0]]
    _, (gx, gy) = functional.vjp(lambda x, y: x.sum(), (x, y))
    assert gx.tolist() == [1, 1]
    assert gy.tolist() == [0, 0, 0]
    linear = functional.hessian(lambda x: x.sum(), x)
    assert linear.tolist() == [[0, 0], [0, 0]]


def test_functional_refuses_what_it_cannot_differentiate():
    with pytest.raises(TypeError, match=r"jacobian: the inputs must be a Tensor.*got float"):
        functional.jacobian(lambda x: x, 1.0)
    with pytest.raises(TypeError, match=r"jacobian: the outputs must be a Tensor.*got float"):
        functional.jacobian(lambda x: x.sum().item(), leaf(2))
    with pytest.raises(RuntimeError, match=r"hessian: func must return a single value.*\(2,\)"):
        functional.hessian(lambda x: x * 2, leaf(2))
