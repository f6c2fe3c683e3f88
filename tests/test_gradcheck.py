"""gradcheck, gradgradcheck and check_grads: they pass what is right and fail what is wrong.

Every wrong gradient here is planted in a Function of the test's own.
"""

import math
import re
import warnings
from typing import NamedTuple

import numpy as np
import pytest

import tinygrad_rnn as tg
from tinygrad_rnn.autograd import (
    Function,
    GradcheckError,
    check_grads,
    grad,
    gradcheck,
    gradgradcheck,
)

pytestmark = pytest.mark.usefixtures("device")

rng = np.random.default_rng(31)


def leaf(*shape, dtype=np.float64):
    return tg.tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True)


def planted(forward, backward):
    """A function of one tensor with this forward and this backward(g, x)."""

    class Planted(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx, g):
            return backward(g, *ctx.saved_tensors)

    return Planted.apply


right_tanh = planted(lambda x: x.tanh(), lambda g, x: g * (1 - x.tanh() ** 2))
wrong_tanh = planted(lambda x: x.tanh(), lambda g, x: g * (1 - x.tanh()))


def sin_wrong_at_one_element(factor):
    """The gradient is right but for a factor at [1, 0]."""

    def backward(g, x):
        y = g * x.cos()
        y[1, 0] = y[1, 0] * factor
        return y

    return planted(lambda x: x.sin(), backward)


# Right itself, but the gradient computed from it is not: cos is cut off from its derivative.
wrong_second = planted(lambda x: x.sin(), lambda g, x: g * x.detach().cos())

MODES = [False, True]


# What is right passes.


@pytest.mark.parametrize("fast_mode", MODES)
def test_right_gradients_pass(fast_mode):
    x, w = leaf(3, 4), leaf(4, 2)

    def f(x, w):
        return (x @ w).tanh(), (x * x).sum(), w.T * 2

    assert gradcheck(f, (x, w), fast_mode=fast_mode) is True
    assert gradgradcheck(f, (x, w), fast_mode=fast_mode) is True
    check_grads(f, (x, w), order=3)


@pytest.mark.parametrize("fast_mode", MODES)
def test_scalars_empty_tensors_and_memory_orders(fast_mode):
    for x in (leaf(), leaf(0), leaf(2, 0, 3), leaf(1, 1)):
        assert gradcheck(lambda x: x.sin() * 2, x, fast_mode=fast_mode)
        assert gradgradcheck(lambda x: x.sin() * x, x, fast_mode=fast_mode)
        check_grads(lambda x: x.sin() * x, (x,))
    turned = leaf(3, 4).detach().T.requires_grad_()
    assert gradcheck(lambda x: x.T @ x, turned, fast_mode=fast_mode)
    strided = leaf(4, 6).detach()[:, ::2].requires_grad_()
    assert gradcheck(lambda x: x.sin(), strided, fast_mode=fast_mode)


def test_values_are_put_back_exactly():
    x = leaf(3, 3)
    before = x.detach().numpy().copy()
    gradcheck(lambda x: x.exp(), x)
    gradgradcheck(lambda x: x.exp(), x, fast_mode=True)
    check_grads(lambda x: x.exp(), (x,))
    np.testing.assert_array_equal(x.detach().numpy(), before)
    assert x.grad is None
    with pytest.raises(ZeroDivisionError):
        gradcheck(lambda x: 1 / 0 if (x.detach().numpy() != before).any() else x * 2, x)
    np.testing.assert_array_equal(x.detach().numpy(), before)


def test_non_leaf_inputs():
    x = leaf(3) * 2
    assert gradcheck(lambda x: x.sin(), x)
    assert gradgradcheck(lambda x: x.sin(), x)


def test_parameters_reached_otherwise_than_by_the_arguments():
    """As a layer reaches its weights."""
    w, x = leaf(3, 3), leaf(2, 3)
    assert gradcheck(lambda w_, x: (x @ w).tanh(), (w, x))
    assert gradgradcheck(lambda w_, x: (x @ w).tanh(), (w, x))


def test_inputs_without_gradient_and_other_values_are_passed_on():
    x, index = leaf(4), tg.tensor([2, 0])
    assert gradcheck(lambda x, i, k, flag: x[i] * k if flag else x, (x, index, 3, True))
    constant = tg.tensor(rng.standard_normal(4))
    assert gradcheck(lambda x, c: x * c, (x, constant))


class State(NamedTuple):
    h: tg.Tensor
    c: tg.Tensor


def cell(x, state):
    """A recurrent cell: tuples in, tuples out."""
    c = state.c * 0.5 + x.tanh() * state.h.sigmoid()
    return c * 2, State(h=c.tanh(), c=c)


@pytest.mark.parametrize("fast_mode", MODES)
def test_trees_of_tensors(fast_mode):
    inputs = (leaf(2, 3), State(leaf(2, 3), leaf(2, 3)))
    assert gradcheck(cell, inputs, fast_mode=fast_mode)
    assert gradgradcheck(cell, inputs, fast_mode=fast_mode)
    check_grads(cell, inputs)
    check_grads(
        lambda d: {"y": d["a"] * d["b"][0], "n": 3}, ({"a": leaf(2), "b": [leaf(2), None]},)
    )


def test_names_in_trees():
    def f(x, state):
        return x * 2, (state[0] * 1, [wrong_tanh(state[1])])

    inputs = (leaf(2), (leaf(2), leaf(2)))
    with pytest.raises(
        GradcheckError, match=r"for outputs\[1\]\[1\]\[0\] with respect to inputs\[1\]\[1\]"
    ):
        gradcheck(f, inputs)
    with pytest.raises(GradcheckError, match=r"order 1: wrong gradient of args\[1\]\[1\]"):
        check_grads(f, inputs)


def test_outputs_that_do_not_depend_on_the_inputs():
    x, w = leaf(2), leaf(3)
    assert gradcheck(lambda x, w: (x * 2, w * 2, tg.ones(2, dtype=tg.float64)), (x, w))
    assert gradcheck(lambda x, w: x.sum(), (x, w))
    check_grads(lambda x, w: (x.sum(), tg.ones(2, dtype=tg.float64)), (x, w))
    assert gradgradcheck(lambda x, w: (x * 3, w.sin()), (x, w))


def test_integer_outputs_are_passed_over():
    assert gradcheck(lambda x: x.sort(), leaf(5))
    check_grads(lambda x: x.sort(), (leaf(5),))


# What is wrong fails, and the message says where.


@pytest.mark.parametrize("fast_mode", MODES)
def test_wrong_gradients_fail(fast_mode):
    x = leaf(2, 3)
    with pytest.raises(
        GradcheckError, match=r"Jacobian mismatch for outputs\[0\] with respect to inputs\[0\]"
    ):
        gradcheck(wrong_tanh, x, fast_mode=fast_mode)
    assert gradcheck(wrong_tanh, x, fast_mode=fast_mode, raise_exception=False) is False
    with pytest.raises(GradcheckError, match=r"order 1: wrong gradient of args\[0\]"):
        check_grads(wrong_tanh, x)


@pytest.mark.parametrize(("fast_mode", "factor"), [(False, 1 + 1 / 60), (True, 3.0)])
def test_one_wrong_element_is_pointed_out(fast_mode, factor):
    x = tg.tensor(np.full((2, 3), 0.3), requires_grad=True)
    with pytest.raises(GradcheckError) as caught:
        gradcheck(sin_wrong_at_one_element(factor), x, fast_mode=fast_mode)
    message = str(caught.value)
    found = re.search(
        r"1 of 36 elements are wrong, the worst d outputs\[0\]\[1, 0\] / d inputs\[0\]\[1, 0\]: "
        r"analytical ([\d.]+), numerical ([\d.]+)",
        message,
    )
    assert found
    assert float(found[1]) == pytest.approx(math.cos(0.3) * factor)
    assert float(found[2]) == pytest.approx(math.cos(0.3))
    assert "numerical:\n[[" in message


def test_fast_mode_says_when_only_the_sum_of_small_errors_is_wrong():
    """Slopes of either sign cancel along a direction; their errors, each within rtol, do not."""
    signs = tg.tensor(np.resize([1.0, -1.0], 8))
    slightly = planted(lambda x: x * signs, lambda g, x: g * (signs + 0.9e-2))
    x = leaf(8)
    assert gradcheck(slightly, x, rtol=1e-2)
    with pytest.raises(GradcheckError, match="although each element is within its tolerance"):
        gradcheck(slightly, x, rtol=1e-2, fast_mode=True)


@pytest.mark.parametrize("fast_mode", MODES)
def test_wrong_second_derivatives_fail_in_gradgradcheck(fast_mode):
    x = leaf(3)
    assert gradcheck(wrong_second, x, fast_mode=fast_mode)
    with pytest.raises(
        GradcheckError,
        match=r"gradgradcheck: .* for gradients\[0\] with respect to inputs\[0\]",
    ):
        gradgradcheck(wrong_second, x, fast_mode=fast_mode)
    assert gradgradcheck(wrong_second, x, fast_mode=fast_mode, raise_exception=False) is False
    check_grads(wrong_second, x, order=1)
    with pytest.raises(GradcheckError, match=r"order 2: wrong gradient of args\[0\]"):
        check_grads(wrong_second, x, order=2)


@pytest.mark.parametrize("fast_mode", MODES)
def test_gradients_that_are_not_linear_in_the_cotangent_fail_in_gradgradcheck(fast_mode):
    scale = planted(lambda x: x * 3, lambda g, x: g * 3 + (g.detach() - 1))
    x = leaf(3)
    g = tg.ones(3, dtype=tg.float64, requires_grad=True)
    with pytest.raises(GradcheckError, match=r"with respect to grad_outputs\[0\]"):
        gradgradcheck(scale, x, g, fast_mode=fast_mode)
    with pytest.raises(GradcheckError, match="cotangent of output 0"):
        check_grads(planted(lambda x: x * 3, lambda g, x: g.detach() * 3), x)


def test_grad_outputs_of_the_user():
    x = leaf(2)
    g = tg.tensor(rng.standard_normal(2), requires_grad=True)
    assert gradgradcheck(lambda x: x.sin(), x, g)
    assert gradgradcheck(lambda x: (x.sin(), x.cos()), (x,), (g, g.detach().clone()))


@pytest.mark.parametrize("fast_mode", MODES)
def test_a_detached_output_fails(fast_mode):
    with pytest.raises(GradcheckError, match="analytical"):
        gradcheck(lambda x: (x * 2).detach(), leaf(2), fast_mode=fast_mode)
    with pytest.raises(GradcheckError, match="analytical 0"):
        check_grads(lambda x: x.detach() * 2, leaf(2))


@pytest.mark.parametrize("fast_mode", MODES)
def test_nan_gradients_fail(fast_mode):
    bad = planted(lambda x: x * 2, lambda g, x: g * math.nan)
    with pytest.raises(GradcheckError, match="nan"):
        gradcheck(bad, leaf(2), fast_mode=fast_mode)
    with pytest.raises(GradcheckError, match="nan"):
        check_grads(bad, leaf(2))


def test_wrong_shapes_and_dtypes_fail_in_check_grads():
    """A rule of the engine, unlike a Function, could return them."""
    x = leaf(3)

    def cast_on_the_way(x):
        return x.float().double() * 2

    with pytest.raises(GradcheckError):  # float32 is too coarse for the comparison
        check_grads(cast_on_the_way, x)


# Refusals before anything is compared.


def test_inputs_must_require_gradients():
    for check in (gradcheck, gradgradcheck):
        with pytest.raises(ValueError, match=f"{check.__name__}: none of the inputs requires"):
            check(lambda x: x * 2, tg.ones(2, dtype=tg.float64))
    with pytest.raises(ValueError, match="check_grads: no floating-point Tensor"):
        check_grads(lambda x: x * 2, tg.tensor([1, 2]))
    check_grads(lambda x: x * 2, tg.ones(2, dtype=tg.float64))  # asks for no requires_grad


def test_func_must_return_floating_point_tensors():
    with pytest.raises(ValueError, match="returned no floating-point Tensor"):
        gradcheck(lambda x: x.argmax(), leaf(3))
    with pytest.raises(ValueError, match="none of the outputs of func requires a gradient"):
        gradgradcheck(lambda x: x.detach(), leaf(3))


def test_float32_inputs_are_warned_about():
    x = leaf(2, dtype=np.float32)
    with pytest.warns(UserWarning, match=r"gradcheck: inputs\[0\] is float32, too coarse"):
        gradcheck(lambda x: x * 2, x, eps=1e-2)
    with pytest.warns(UserWarning, match=r"check_grads: args\[0\] is float32"):
        check_grads(lambda x: x * 2, x, eps=1e-1, atol=1e-4, rtol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradcheck(lambda x, w: x * w, (leaf(2), x.detach()))


def test_overlapping_memory_is_refused():
    x = leaf(1).expand(3)
    with pytest.raises(RuntimeError, match=r"inputs\[0\] has elements that share.*clone\(\)"):
        gradcheck(lambda x: x * 2, x, raise_exception=False)
    assert gradcheck(lambda x: x * 2, x.clone())
    check_grads(lambda x: x * 2, x)  # works on copies


def test_random_functions_are_refused():
    x = leaf(3)
    with pytest.raises(GradcheckError, match=r"not deterministic: outputs\[0\] of two calls.*drop"):
        gradcheck(lambda x: x * tg.rand(3, dtype=tg.float64), x)
    assert gradcheck(lambda x: x * (1 + 1e-9 * tg.rand(3)), x, nondet_tol=1e-7)

    def seeded(x):
        return x * tg.rand(3, generator=tg.Generator(7))

    assert gradcheck(seeded, x)


def test_a_random_backward_is_refused():
    noisy = planted(lambda x: x * 2, lambda g, x: g * 2 + 1e-8 * tg.randn(3))
    with pytest.raises(GradcheckError, match=r"gradients of outputs\[0\] in two backward passes"):
        gradcheck(noisy, leaf(3))
    assert gradcheck(noisy, leaf(3), nondet_tol=1e-6)


class ForgetsNone(Function):
    """Two results; backward takes a missing cotangent for ones."""

    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        return x * 2, x * 3

    @staticmethod
    def backward(ctx, g, h):
        if g is None:
            g = h * 0  # right
        if h is None:
            h = g * 0 + 1  # wrong
        return g * 2 + h * 3


def test_check_undefined_grad():
    class Consistent(ForgetsNone):
        """Wrong in the same way for zeros, so the full comparison sees nothing of it."""

        @staticmethod
        def backward(ctx, g, h):
            undefined = h is None
            gx = g * 2 if h is None else (h * 3 if g is None else g * 2 + h * 3)
            return gx if undefined or g is None else gx + 1e-2

    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        gradcheck(ForgetsNone.apply, leaf(2))
    with pytest.raises(GradcheckError, match=r"zeros instead of None"):
        gradcheck(Consistent.apply, leaf(2))
    assert gradcheck(Consistent.apply, leaf(2), check_undefined_grad=False)


# check_grads on its own.


def test_orders_beyond_the_second():
    wrong_third = planted(
        lambda x: x**4,
        lambda g, x: g * planted(lambda x: 4 * x**3, lambda g, x: g * 12 * x.detach() ** 2)(x),
    )
    x = leaf(3)
    check_grads(wrong_third, x, order=2)
    with pytest.raises(GradcheckError, match="order 3: wrong gradient of"):
        check_grads(wrong_third, x, order=3)


def test_the_same_directions_every_time():
    """A failure repeats, and the default generator is left alone."""
    tg.manual_seed(3)
    state = tg.get_rng_state().tolist()
    x = leaf(4)
    messages = []
    for _ in range(2):
        with pytest.raises(GradcheckError) as caught:
            check_grads(wrong_tanh, x)
        messages.append(str(caught.value))
    gradcheck(lambda x: x * 2, x, fast_mode=True)
    gradgradcheck(lambda x: x * 2, x)
    assert messages[0] == messages[1]
    assert tg.get_rng_state().tolist() == state


def test_recorded_and_unrecorded_rules_are_both_used():
    """Order 1 reads the rules with arrays, order 2 with Tensors."""
    seen = []

    class Looks(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx, g):
            seen.append(tg.is_grad_enabled())
            (x,) = ctx.saved_tensors
            return g * x.cos()

    check_grads(Looks.apply, leaf(2), order=1)
    assert set(seen) == {False}
    seen.clear()
    check_grads(Looks.apply, leaf(2), order=2)
    assert set(seen) == {False, True}


def test_it_works_under_no_grad_and_leaves_no_gradients():
    x = leaf(3)
    with tg.no_grad():
        check_grads(lambda x: x.sin(), x)
        assert gradcheck(lambda x: x.sin(), x)
    assert x.grad is None


def test_an_argument_that_is_a_kink_is_caught():
    """relu at 0: half the slope numerically, none or all analytically."""
    with pytest.raises(GradcheckError):
        check_grads(lambda x: x.relu(), tg.zeros(3, dtype=tg.float64))


def test_functions_that_use_gradients_themselves():
    def slope(x):
        (g,) = grad((x**3).sum(), x, create_graph=True)
        return g

    assert gradcheck(slope, leaf(3))
    assert gradgradcheck(slope, leaf(3))
    check_grads(slope, leaf(3))
