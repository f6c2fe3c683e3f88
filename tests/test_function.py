"""autograd.Function: operations with a derivative of their own."""

import gc
import math
import weakref

import numpy as np
import pytest
from arrays import host

import tinygrad_rnn as tg
from tinygrad_rnn.autograd import Function, backward, enable_grad, grad, gradcheck, gradgradcheck
from tinygrad_rnn.autograd.function import once_differentiable

pytestmark = pytest.mark.usefixtures("device")

rng = np.random.default_rng(5)


def leaf(*shape, dtype=np.float64):
    return tg.tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True)


class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 3 * x * x


class Exp(Function):
    """Saves its result."""

    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y


class Rotate(Function):
    """(x, y) turned by an angle, a plain number among the arguments."""

    @staticmethod
    def forward(ctx, x, y, angle):
        ctx.angle = angle
        c, s = math.cos(angle), math.sin(angle)
        return x * c - y * s, x * s + y * c

    @staticmethod
    def backward(ctx, gx, gy):
        c, s = math.cos(ctx.angle), math.sin(ctx.angle)
        return gx * c + gy * s, gy * c - gx * s, None


# Values, gradients, gradients of gradients.


@pytest.mark.parametrize("function", [Cube, Exp])
def test_first_and_second_derivatives(function):
    x = leaf(3, 5)
    assert gradcheck(function.apply, x)
    assert gradgradcheck(function.apply, x)


def test_third_derivative():
    x = leaf(4)
    first = grad(Cube.apply(x).sum(), x, create_graph=True)[0]
    second = grad(first.sum(), x, create_graph=True)[0]
    (third,) = grad(second.sum(), x)
    np.testing.assert_allclose(second.detach().numpy(), 6 * x.detach().numpy())
    np.testing.assert_allclose(third.numpy(), np.full(4, 6.0))


def test_several_outputs_and_a_number_among_the_arguments():
    x, y = leaf(3), leaf(3)
    assert gradcheck(Rotate.apply, (x, y, 0.7))
    assert gradgradcheck(Rotate.apply, (x, y, 0.7))
    a, b = Rotate.apply(x, y, math.pi / 2)
    np.testing.assert_allclose(a.detach().numpy(), -y.detach().numpy(), atol=1e-15)
    np.testing.assert_allclose(b.detach().numpy(), x.detach().numpy(), atol=1e-15)


def test_a_tuple_of_one_stays_a_tuple():
    class Doubled(Function):
        @staticmethod
        def forward(ctx, x):
            return (x * 2,)

        @staticmethod
        def backward(ctx, g):
            return g * 2

    (y,) = Doubled.apply(leaf(2))
    assert y.requires_grad


def test_the_node_carries_the_functions_name():
    y = Cube.apply(leaf(2))
    assert y.grad_fn.name() == "Cube"
    assert not y.is_leaf


def test_backward_as_used_in_a_chain():
    x = leaf(2, 3)
    (Cube.apply(x.tanh()) * 2).sum().backward()
    t = np.tanh(x.detach().numpy())
    np.testing.assert_allclose(x.grad.numpy(), 6 * t * t * (1 - t * t))


def test_forward_is_not_recorded_and_backward_only_with_create_graph():
    seen = {}

    class Look(Function):
        @staticmethod
        def forward(ctx, x):
            seen["forward"] = tg.is_grad_enabled()
            return x * 2

        @staticmethod
        def backward(ctx, g):
            seen["backward"] = (tg.is_grad_enabled(), type(g))
            return g * 2

    x = leaf(2)
    Look.apply(x).sum().backward()
    assert seen == {"forward": False, "backward": (False, tg.Tensor)}
    grad(Look.apply(x).sum(), x, create_graph=True)
    assert seen["backward"] == (True, tg.Tensor)


def test_under_no_grad_nothing_is_recorded_or_kept():
    x = leaf(2)
    with tg.no_grad():
        y = Cube.apply(x)
    assert not y.requires_grad
    assert y.grad_fn is None
    assert not Cube.apply(x.detach()).requires_grad


# setup_context.


class Scaled(Function):
    @staticmethod
    def forward(x, factor):
        return x * factor, x + factor

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, factor = inputs
        assert isinstance(output, tuple)
        ctx.save_for_backward(x, factor)

    @staticmethod
    def backward(ctx, g_product, g_sum):
        x, factor = ctx.saved_tensors
        return g_product * factor + g_sum, (g_product * x + g_sum).sum()


def test_setup_context():
    x, factor = leaf(3), leaf()
    assert gradcheck(Scaled.apply, (x, factor))
    assert gradgradcheck(Scaled.apply, (x, factor))


# What forward returns.


class Top(Function):
    """The largest value and where it is; the place has no derivative, nor has `marked`."""

    @staticmethod
    def forward(ctx, x):
        place = x.argmax()
        marked = x * 0 + 1
        ctx.mark_non_differentiable(place, marked)
        ctx.save_for_backward(place)
        ctx.shape = x.shape
        return x.max(), place, marked

    @staticmethod
    def backward(ctx, g, g_place, g_marked):
        assert g_place.shape == ()
        assert not host(g_place).any()
        assert not host(g_marked).any()
        gx = tg.zeros(ctx.shape, dtype=g.dtype)
        gx[ctx.saved_tensors[0]] = g
        return gx


def test_mark_non_differentiable():
    x = tg.tensor([1.0, 5.0, 2.0], requires_grad=True)
    y, place, marked = Top.apply(x)
    assert y.requires_grad
    assert not place.requires_grad
    assert not marked.requires_grad
    y.backward()
    assert x.grad.tolist() == [0, 1, 0]


def test_integer_results_never_require_gradients():
    class Both(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1, x.long(), "label"

        @staticmethod
        def backward(ctx, g, g_long, g_label):
            assert g_label is None
            return g

    y, integers, label = Both.apply(leaf(3))
    assert y.requires_grad
    assert not integers.requires_grad
    assert label == "label"
    y.sum().backward()


def test_returning_an_argument_itself_makes_a_new_tensor():
    class Reverse(Function):
        """The identity that turns gradients round."""

        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return -g

    x = leaf(3)
    y = Reverse.apply(x)
    assert y is not x
    assert x.is_leaf
    y.sum().backward()
    assert x.grad.tolist() == [-1, -1, -1]


def test_a_list_of_results_is_refused():
    class Lists(Function):
        @staticmethod
        def forward(ctx, x):
            return [x, x]

    with pytest.raises(TypeError, match=r"Lists\.forward returned a list; return a tuple"):
        Lists.apply(leaf(2))


# Cotangents that are not there.


def test_unused_results_get_zeros_or_none():
    seen = {}

    def two(materialize):
        class Two(Function):
            @staticmethod
            def forward(ctx, x):
                ctx.set_materialize_grads(materialize)
                return x * 1, (x * 2).float()

            @staticmethod
            def backward(ctx, g, h):
                seen["h"] = h
                return g

        return Two

    x = leaf(2, 3)
    two(True).apply(x)[0].sum().backward()
    assert seen["h"].shape == (2, 3)
    assert seen["h"].dtype == np.float32
    assert not seen["h"].any()
    two(False).apply(x)[0].sum().backward()
    assert seen["h"] is None


def test_none_gradients():
    class First(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x + y

        @staticmethod
        def backward(ctx, g):
            return g, None

    x, y = leaf(2), leaf(2)
    First.apply(x, y).sum().backward()
    assert x.grad.tolist() == [1, 1]
    assert y.grad is None
    assert grad(First.apply(x, y).sum(), (x, y), allow_unused=True)[1] is None


def test_needs_input_grad_follows_requires_grad():
    seen = []

    class Product(Function):
        @staticmethod
        def forward(ctx, x, y, power):
            ctx.save_for_backward(x, y)
            return x * y

        @staticmethod
        def backward(ctx, g):
            seen.append(ctx.needs_input_grad)
            x, y = ctx.saved_tensors
            return g * y, g * x, None

    x, y = leaf(2), leaf(2)
    Product.apply(x, y.detach(), 3).sum().backward()
    Product.apply(x.detach(), y, 3).sum().backward()
    assert seen == [(True, False, False), (False, True, False)]
    # A gradient that is given although nobody asked for it does no harm.
    np.testing.assert_array_equal(x.grad.numpy(), y.detach().numpy())


def test_only_what_leads_to_the_wanted_inputs_is_followed():
    class Product(Function):
        @staticmethod
        def forward(ctx, x, y):
            ctx.save_for_backward(x, y)
            return x * y

        @staticmethod
        def backward(ctx, g):
            x, y = ctx.saved_tensors
            return g * y, g * x

    x, y = leaf(2), leaf(2)
    (gx,) = grad(Product.apply(x, y).sum(), x)
    np.testing.assert_array_equal(gx.numpy(), y.detach().numpy())
    assert y.grad is None


# Gradients that do not fit.


def returning(*gradients):
    class Returns(Function):
        @staticmethod
        def forward(ctx, x, y):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return gradients

    return Returns


@pytest.mark.parametrize(
    ("gradients", "message"),
    [
        (lambda one: (one,), r"Returns\.backward returned 1 gradients, but forward has 2 arg"),
        (lambda one: (one, None, one), r"Returns\.backward returned 3 gradients"),
        (lambda one: (one[:2], None), r"argument 0 has shape \(2,\), the argument \(3,\)"),
        (lambda one: (one[:1], None), r"argument 0 has shape \(1,\), the argument \(3,\)"),
        (lambda one: (one, one), r"Returns\.backward: the gradient of argument 1 must be None"),
        (lambda one: (1.0, None), r"argument 0 must be a Tensor or None, got float"),
        (lambda one: (one.numpy(), None), r"must be a Tensor or None, got ndarray"),
    ],
)
@pytest.mark.parametrize("create_graph", [False, True])
def test_wrong_gradients_are_named(gradients, message, create_graph):
    x = leaf(3)
    y = returning(*gradients(tg.ones(3))).apply(x, "not a tensor").sum()
    with pytest.raises(RuntimeError, match=message):
        y.backward(create_graph=create_graph)


def test_a_gradient_on_another_device_is_named(device):
    if device == "cpu":
        pytest.skip("there is no other device")
    y = returning(tg.ones(3, device="cpu"), None).apply(leaf(3), "not a tensor").sum()
    with pytest.raises(RuntimeError, match="argument 0 is on cpu, the argument on cuda:0"):
        y.backward()


def test_surplus_nones_are_accepted():
    x = leaf(3)
    returning(tg.ones(3), None, None, None).apply(x, 2).sum().backward()
    assert x.grad.tolist() == [1, 1, 1]


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_come_in_the_arguments_dtype_and_shape(create_graph):
    """As in PyTorch, a gradient that broadcasting made larger is summed, and cast."""

    class Plus(Function):
        @staticmethod
        def forward(ctx, x, bias):
            return x + bias

        @staticmethod
        def backward(ctx, g):
            return g.double(), g.double()

    x, bias = leaf(4, 3, dtype=np.float32), leaf(3, dtype=np.float32)
    h = x * 1
    seen = []
    h.register_hook(lambda g: seen.append(g.dtype))
    Plus.apply(h, bias).sum().backward(create_graph=create_graph)
    assert seen == [np.float32]
    assert x.grad.dtype == bias.grad.dtype == np.float32
    assert bias.grad.tolist() == [4, 4, 4]


def test_a_function_without_forward_or_backward_says_so():
    class Nothing(Function):
        pass

    class NoBackward(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

    with pytest.raises(NotImplementedError, match="static method forward"):
        Nothing.apply(leaf(1))
    with pytest.raises(NotImplementedError, match="static method backward"):
        NoBackward.apply(leaf(1)).sum().backward()


# What is saved.


def test_saved_tensors_keep_their_places_and_none():
    class Three(Function):
        @staticmethod
        def forward(ctx, x, y):
            inner = x.tanh()
            out = inner * y
            ctx.save_for_backward(out, None, inner, y, x)
            return out

        @staticmethod
        def backward(ctx, g):
            out, nothing, inner, y, x = ctx.saved_tensors
            assert nothing is None
            np.testing.assert_array_equal(inner.detach().numpy(), x.detach().tanh().numpy())
            np.testing.assert_array_equal((inner * y).detach().numpy(), out.detach().numpy())
            return g * y * (1 - inner * inner), g * inner

    x, y = leaf(3), leaf(3)
    assert gradcheck(Three.apply, (x, y))


def test_saved_tensors_are_tensors_only_and_readable_only_in_backward():
    class SavesNumbers(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(3.0)
            return x

    with pytest.raises(TypeError, match="save_for_backward: expected Tensors or None, got float"):
        SavesNumbers.apply(leaf(1))

    kept = []

    class Keeps(Cube):
        @staticmethod
        def forward(ctx, x):
            kept.append(ctx)
            return Cube.forward(ctx, x)

    Keeps.apply(leaf(1)).backward()
    with pytest.raises(RuntimeError, match="only inside backward"):
        _ = kept[0].saved_tensors


def test_a_saved_closure_tensor_is_differentiated_twice():
    """A tensor that is neither argument nor result keeps its place in the graph."""
    weight = leaf(3)

    class Weighted(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(weight)
            return x * weight

        @staticmethod
        def backward(ctx, g):
            (w,) = ctx.saved_tensors
            return g * w * w

    x = leaf(3)
    (gx,) = grad(Weighted.apply(x).sum(), x, create_graph=True)
    (gw,) = grad(gx.sum(), weight)
    np.testing.assert_allclose(gw.numpy(), 2 * weight.detach().numpy())


def test_saved_values_are_released_and_a_second_backward_raises():
    x = leaf(3)
    y = Exp.apply(x)
    y.sum().backward()
    with pytest.raises(RuntimeError, match=r"'y', made by 'Exp'.*retain_graph=True"):
        y.sum().backward()
    y = Exp.apply(x)
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 3 * np.exp(x.detach().numpy()))


def test_a_value_that_only_the_function_saved_is_free_after_backward():
    arrays = []

    class Inner(Function):
        @staticmethod
        def forward(ctx, x):
            inner = x.tanh()
            arrays.append(weakref.ref(inner.array))
            ctx.save_for_backward(inner)
            return inner * 2

        @staticmethod
        def backward(ctx, g):
            (inner,) = ctx.saved_tensors
            return 2 * g * (1 - inner * inner)

    y = Inner.apply(leaf(3))
    assert arrays[0]() is not None
    y.sum().backward()
    assert arrays[0]() is None
    with tg.no_grad():
        y = Inner.apply(leaf(3))
    assert arrays[1]() is None


def test_a_function_that_saves_nothing_may_be_walked_twice():
    x, y = leaf(2), leaf(2)
    out = Rotate.apply(x, y, 0.0)[0].sum()
    out.backward()
    out.backward()
    assert x.grad.tolist() == [2, 2]


@pytest.mark.parametrize("function", [Cube, Exp])
def test_changing_a_saved_tensor_raises(function):
    x = leaf(3)
    y = function.apply(x)
    with tg.no_grad():
        (x if function is Cube else y).mul_(2)
    with pytest.raises(RuntimeError, match=f"of '{function.__name__}'.*changed by mul_"):
        y.sum().backward()


def test_changing_a_tensor_that_was_not_saved_does_no_harm():
    x = leaf(3)
    y = Exp.apply(x)
    expected = np.exp(x.detach().numpy())
    with tg.no_grad():
        x.mul_(2)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), expected)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("function", [Cube, Exp])
def test_no_reference_cycle(function, create_graph):
    """The graph dies with its end, without the garbage collector, also after a backward."""
    gc.collect()
    gc.disable()
    try:
        x = leaf(3)
        y = function.apply(x)
        node, array = weakref.ref(y.grad_fn), weakref.ref(y.array)
        gradients = grad(y.sum(), x, create_graph=create_graph)
        del y, gradients
        assert node() is None
        assert array() is None
    finally:
        gc.enable()


def test_hooks_and_retain_grad_on_results():
    x = leaf(3)
    y = Cube.apply(x)
    y.retain_grad()
    y.register_hook(lambda g: g * 10)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 30 * x.detach().numpy() ** 2)
    assert y.grad.tolist() == [10, 10, 10]


# once_differentiable.


class Sine(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        assert not tg.is_grad_enabled()
        (x,) = ctx.saved_tensors
        return tg.tensor(g.detach().numpy() * np.cos(x.detach().numpy()))


def test_once_differentiable():
    x = leaf(3)
    assert gradcheck(Sine.apply, x)
    (gx,) = grad(Sine.apply(x).sum(), x, create_graph=True)
    np.testing.assert_allclose(gx.detach().numpy(), np.cos(x.detach().numpy()))
    with pytest.raises(RuntimeError, match=r"Sine\.backward is marked @once_differentiable"):
        gx.sum().backward()
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradgradcheck(Sine.apply, x)


def test_once_differentiable_leaves_the_rest_of_the_graph_alone():
    x, w = leaf(3), leaf(3)
    (gx,) = grad((Sine.apply(x) * w).sum() + (x * x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad(gx.sum(), w)  # through the cotangent
    y = leaf(3)
    (gy,) = grad((Sine.apply(x) * w).sum() + (y**3).sum(), y, create_graph=True)
    (second,) = grad(gy.sum(), y)
    np.testing.assert_allclose(second.numpy(), 6 * y.detach().numpy())


# Backward inside backward.


class Checkpoint(Function):
    """Keeps only the input of `run`, and runs it again in backward: memory for time."""

    @staticmethod
    def forward(ctx, run, x):
        ctx.run = run
        ctx.save_for_backward(x)
        return run(x)

    @staticmethod
    def backward(ctx, g):
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with enable_grad():
            y = ctx.run(x)
        backward(y, g)
        return None, x.grad


def test_checkpointing_runs_forward_again_inside_backward():
    w = leaf(4, 4)

    def run(x):
        return ((x @ w).tanh() @ w).sigmoid()

    x = leaf(2, 4)
    (run(run(x)) ** 2).sum().backward()
    expected_x, expected_w = x.grad.numpy(), w.grad.numpy()
    x.grad = w.grad = None
    (Checkpoint.apply(run, Checkpoint.apply(run, x)) ** 2).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), expected_x, rtol=1e-12)
    np.testing.assert_allclose(w.grad.numpy(), expected_w, rtol=1e-12)
