"""The semantics of autograd against PyTorch: the same program, run in both.

A program takes the library as its argument and returns what it saw, in plain Python values. Errors
are compared by their type. What the engine does differently on purpose is at the end.
"""

import copy
import warnings

import numpy as np
import pytest

import tinygrad_rnn as tg

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("device")

PROGRAMS = {}


def program(function):
    PROGRAMS[function.__name__] = function
    return function


def error(call):
    """The type of what is raised."""
    try:
        call()
    except Exception as raised:
        return type(raised).__name__
    return None


def plain(seen):
    """Tensors as lists, dtypes as names, the rest as it is."""
    if hasattr(seen, "tolist"):
        return seen.detach().tolist()
    if isinstance(seen, torch.dtype | np.dtype):
        return str(seen).removeprefix("torch.")
    if isinstance(seen, dict):
        return {key: plain(part) for key, part in seen.items()}
    if isinstance(seen, list | tuple):
        return [plain(part) for part in seen]
    return seen


def assert_same(ours, theirs):
    if isinstance(theirs, list):
        assert isinstance(ours, list)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    elif isinstance(theirs, float):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)
    else:
        assert ours == theirs


def value(t, *shape, seed=0, dtype=np.float64, grad=True):
    """The same numbers in both libraries."""
    drawn = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    x = t.tensor(drawn)
    return x.requires_grad_() if grad else x


# Graphs, leaves and what backward leaves behind.


@program
def accumulation(t):
    x = t.tensor([1.0, 2.0], requires_grad=True)
    seen = [x.grad]
    for _ in range(3):
        (x * x).sum().backward()
        seen.append(x.grad.tolist())
    x.grad = None
    (x * 3).backward(t.tensor([1.0, 10.0]))
    return [*seen, x.grad, x.grad.requires_grad]


@program
def leaves(t):
    x = t.tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    z = y.detach()
    with t.no_grad():
        n = x * 2
    w = t.tensor([1.0])
    v = x.clone()
    tensors = [x, y, z, n, w, v, w * w, x.data]
    return [(s.is_leaf, s.requires_grad, s.grad_fn is None) for s in tensors]


@program
def several_roots_and_chosen_inputs(t):
    x, w = value(t, 3), value(t, 3, seed=1)
    h = x * w
    a, b = h.sum(), (h * h).sum()
    t.autograd.backward([a, b, h], [None, None, t.ones(3, dtype=t.float64)], retain_graph=True)
    first = [x.grad.tolist(), w.grad.tolist()]
    b.backward(inputs=[w])
    return [first, x.grad, w.grad]


@program
def diamonds_and_reuse(t):
    x = value(t, 4)
    a = x.tanh()
    b = a * a + a
    c = b / (a * a + 1) - a
    (c * b + x * c).sum().backward()
    return x.grad


@program
def unused_outputs(t):
    x = value(t, 4, 3)
    first, second = x.split(2)
    values, indices = second.sort(dim=1)
    (values[:, 0] * 2).sum().backward()
    return [x.grad, indices, indices.requires_grad, first.requires_grad]


@program
def gradients_of_intermediate_tensors(t):
    x, w, unused = value(t, 3), value(t, 3, seed=1), value(t, 2, seed=2)
    h = (x * w).tanh()
    y = (h * h).sum()
    grads = t.autograd.grad(y, [h, w, unused], allow_unused=True, retain_graph=True)
    zeros = t.autograd.grad(y, [unused, x], materialize_grads=True)
    return [grads, zeros, x.grad, h.grad if h.retains_grad else None]


@program
def grad_outputs(t):
    x = value(t, 3)
    v = value(t, 3, seed=1, grad=False)
    return t.autograd.grad([x.sin(), (x * x).sum()], x, [v, None])


@program
def retained_gradients_and_hooks(t):
    x = value(t, 3)
    log = []
    h = x * 2
    h.retain_grad()
    h.register_hook(lambda g: log.append(("first", g.tolist())))
    h.register_hook(lambda g: g * 3)
    h.register_hook(lambda g: log.append(("third", g.tolist())))
    x.register_hook(lambda g: g - 1)
    y = (h * h).sum()
    y.backward(retain_graph=True)
    once = [x.grad.tolist(), h.grad.tolist(), h.retains_grad, x.retains_grad]
    y.backward()
    return [log, once, x.grad, h.grad]


@program
def removed_hooks(t):
    x = value(t, 3)
    y = x * 2
    handles = [s.register_hook(lambda g: g * 100) for s in (x, y)]
    for handle in handles:
        handle.remove()
    y.sum().backward()
    return x.grad


@program
def higher_derivatives(t):
    x = value(t, 4)
    y = (x.sin() * x.exp() / (1 + x * x)).sum()
    seen = []
    for _ in range(4):
        (y,) = t.autograd.grad(y.sum(), x, create_graph=True)
        seen.append(y.tolist())
    return seen


@program
def gradient_penalty(t):
    x, w, b = value(t, 5, 3), value(t, 3, 4, seed=1), value(t, 4, seed=2)
    y = ((x @ w + b).tanh() ** 2).sum()
    (g,) = t.autograd.grad(y, x, create_graph=True)
    loss = ((g.pow(2).sum(1) + 1e-3).sqrt() - 1).pow(2).mean() + y
    loss.backward()
    return [g, loss, x.grad, w.grad, b.grad]


@program
def backward_twice_through_sums(t):
    x = value(t, 3)
    y = (x + 1 - x.reshape(3, 1)).sum()
    y.backward()
    y.backward()
    return x.grad


@program
def modes(t):
    x = value(t, 2)
    seen = [t.is_grad_enabled()]

    @t.no_grad()
    def off(x):
        return x * 2

    @t.enable_grad()
    def on(x):
        return x * 2

    @t.no_grad()
    def steps():
        yield t.is_grad_enabled()
        yield (x * 2).requires_grad

    with t.no_grad():
        seen += [t.is_grad_enabled(), (x * 2).requires_grad, on(x).requires_grad]
        with t.set_grad_enabled(True):
            seen.append((x * 2).requires_grad)
    seen += [off(x).requires_grad, list(steps()), t.is_grad_enabled()]
    t.set_grad_enabled(False)
    seen.append(t.is_grad_enabled())
    t.set_grad_enabled(True)
    return seen


@program
def detach_shares_memory(t):
    x = value(t, 3)
    d = x.detach()
    with t.no_grad():
        d.mul_(2)
        x.data.add_(1)
    return [x, d, d.requires_grad]


@program
def leaf_updated_under_no_grad(t):
    w = value(t, 3)
    for _ in range(5):
        (w * w).sum().backward()
        with t.no_grad():
            w -= 0.1 * w.grad
            w.grad.zero_()
    return [w, w.is_leaf, w.requires_grad]


@program
def assignment(t):
    x, v = value(t, 4, 3), value(t, 2, seed=1)
    y = x * 2
    y[1:3, 0] = v
    y[0] = 0.0
    y[:, 2] = y[:, 1].exp() + y[:, 0]
    out = t.zeros(2, 4, dtype=t.float64)
    out[0] = y.sum(1)
    out[1] = out[0] * 3
    (out * out).sum().backward()
    return [y, out, x.grad, v.grad, out.requires_grad]


@program
def augmented_assignment(t):
    x, v = value(t, 3), value(t, 3, seed=1)
    h = x * 2
    h += v
    h *= v
    h -= 1.0
    h /= 3.0
    total = t.zeros((), dtype=t.float64)
    for _ in range(3):
        total += (h * h).sum()
    total.backward()
    return [h, total, x.grad, v.grad]


@program
def nan_of_a_branch_not_taken(t):
    x = t.tensor([-1.0, 0.0, 4.0], requires_grad=True)
    safe = t.where(x > 0, x, t.ones_like(x)).sqrt()
    t.where(x > 0, safe, t.zeros_like(x)).sum().backward()
    return x.grad


# dtypes.


@program
def result_dtypes(t):
    tensors = [
        t.tensor([True]),
        t.tensor([1]),
        t.tensor([1], dtype=t.int32),
        t.tensor([1.0]),
        t.tensor([1.0], dtype=t.float64),
    ]
    scalars = [True, 2, 2.0]
    binary = [
        lambda x, y: x + y,
        lambda x, y: x * y,
        lambda x, y: x / y,
        lambda x, y: x < y,
        lambda x, y: t.where(t.tensor([True]), x, y),
    ]
    seen = [[(f(x, y)).dtype for x in tensors for y in tensors] for f in binary]
    seen += [[(f(x, y)).dtype for x in tensors for y in scalars] for f in binary[:4]]
    seen += [[(f(y, x)).dtype for x in tensors[1:] for y in scalars] for f in binary[:4]]
    return seen


@program
def dtypes_of_unary_results(t):
    integers, floats = t.tensor([[1, 2]]), t.tensor([[1.0, 2.0]])
    return [
        integers.sum().dtype,
        t.tensor([True, False]).sum().dtype,
        integers.exp().dtype,
        integers.sqrt().dtype,
        integers.sigmoid().dtype,
        integers.cumsum(0).dtype,
        integers.prod().dtype,
        floats.argmax().dtype,
        (floats > 1).dtype,
        (integers**2).dtype,
        (-integers).dtype,
        integers.float().mean().dtype,
    ]


@program
def gradient_dtypes(t):
    x, w = value(t, 3, dtype=np.float32), value(t, 3, seed=1)
    (x * w + x.double().sin()).sum().backward()
    y = value(t, 3, dtype=np.float32)
    (y * t.tensor([1, 2, 3])).sum().backward()
    return [x.grad.dtype, w.grad.dtype, y.grad.dtype, x.grad, w.grad, y.grad]


@program
def casts(t):
    x = value(t, 3, dtype=np.float32)
    return [
        (y.dtype, y.requires_grad)
        for y in (x.double(), x.long(), x.bool(), x.to(t.float64).float(), x.int())
    ]


# Errors.


@program
def errors(t):
    x, w = value(t, 3), value(t, 3, seed=1)
    y = (x * x).sum()
    y.backward()
    h = x * 2
    stale = x * w
    with t.no_grad():
        w.mul_(2)
    return {
        "not a single value": error(lambda: (x * 2).backward()),
        "shape of the gradient": error(lambda: (x * 2).backward(t.ones(2))),
        "no gradient required": error(lambda: t.ones(1).backward()),
        "detached": error(lambda: h.detach().sum().backward()),
        "twice": error(y.backward),
        "unused": error(lambda: t.autograd.grad((x * 2).sum(), w)),
        "not required": error(lambda: t.autograd.grad((x * 2).sum(), t.ones(1))),
        "stale": error(lambda: stale.sum().backward()),
        "integer": error(lambda: t.tensor([1], requires_grad=True)),
        "integer later": error(lambda: t.tensor([1]).requires_grad_()),
        "not a leaf": error(lambda: h.requires_grad_(False)),
        "leaf in place": error(lambda: x.add_(1)),
        "leaf +=": error(lambda: x.__iadd__(1)),
        "leaf assignment": error(lambda: x.__setitem__(0, 1.0)),
        "numpy": error(x.numpy),
        "deepcopy": error(lambda: copy.deepcopy(h)),
        "hook": error(lambda: t.ones(1).register_hook(print)),
        "retain_grad": error(lambda: t.ones(1).retain_grad()),
        "truth": error(lambda: bool(x)),
        "item": error(lambda: x.item()),
        "numbers of gradients": error(lambda: t.autograd.backward([h, h], [t.ones(3)])),
    }


# Function.


def functions(t):
    Function = t.autograd.Function

    class Cube(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 3 * x**2 * g

    class Pair(Function):
        """Two results, one number among the arguments, a result without gradient."""

        @staticmethod
        def forward(ctx, x, scale, y):
            signs = x.sign()
            ctx.scale = scale
            ctx.mark_non_differentiable(signs)
            product = x * y
            ctx.save_for_backward(x, y, product)
            return product, x * scale + y, signs

        @staticmethod
        def backward(ctx, g, h, _):
            _, y, product = ctx.saved_tensors
            return g * y + h * ctx.scale, None, g * product / y + h

    class Context(Function):
        @staticmethod
        def forward(x, w):
            return x @ w

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, g):
            x, w = ctx.saved_tensors
            gx = g @ w.T if ctx.needs_input_grad[0] else None
            gw = x.T @ g if ctx.needs_input_grad[1] else None
            return gx, gw

    return Cube, Pair, Context


@program
def custom_functions(t):
    Cube, Pair, Context = functions(t)
    x, y, w = value(t, 2, 3), value(t, 2, 3, seed=1), value(t, 3, 4, seed=2)
    a, b, signs = Pair.apply(Cube.apply(x), 2.0, y)
    z = Context.apply(a * b, w)
    (gx,) = t.autograd.grad((z * z).sum(), x, create_graph=True)
    second = t.autograd.grad((gx * gx).sum(), [x, y, w])
    (Pair.apply(x, 3.0, y)[1] + Context.apply(x.detach(), w).sum()).sum().backward()
    return [
        a,
        b,
        signs,
        signs.requires_grad,
        a.requires_grad,
        z,
        gx,
        second,
        x.grad,
        y.grad,
        w.grad,
    ]


@program
def custom_function_contexts(t):
    seen = []

    class Look(t.autograd.Function):
        @staticmethod
        def forward(ctx, x, n, y, materialize):
            seen.append((x.requires_grad, t.is_grad_enabled()))
            ctx.set_materialize_grads(materialize)
            return x * n, y * n

        @staticmethod
        def backward(ctx, g, h):
            seen.append((ctx.needs_input_grad, None if h is None else h.tolist()))
            return g * 2, None, None, None

    for materialize in (True, False):
        x = value(t, 2)
        a, b = Look.apply(x, 3, x.detach(), materialize)
        seen.append((a.requires_grad, b.requires_grad, a.grad_fn is b.grad_fn))
        a.sum().backward()
        seen.append(x.grad.tolist())
    with t.no_grad():
        seen.append(Look.apply(x, 3, x, True)[0].requires_grad)
    return seen


@program
def custom_function_gradients_that_fit_and_do_not(t):
    def returning(*gradients):
        class Returns(t.autograd.Function):
            @staticmethod
            def forward(ctx, x, y):
                return x * 1

            @staticmethod
            def backward(ctx, g):
                return gradients

        x = value(t, 3, dtype=np.float32)
        raised = error(lambda: Returns.apply(x, 1).sum().backward())
        return [raised, x.grad, None if x.grad is None else x.grad.dtype]

    return [
        returning(t.ones(3), None),
        returning(t.ones(3), None, None),
        returning(t.ones(2, 3), None),
        returning(t.ones(3, dtype=t.float64), None),
        returning(None, None),
        returning(t.ones(3)),
        returning(t.ones(3), None, t.ones(3)),
        returning(t.ones(2), None),
        returning(t.ones(3), t.ones(3)),
        returning(1.0, None),
    ]


@program
def once_differentiable(t):
    class Square(t.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @t.autograd.function.once_differentiable
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 2 * x * g

    x, w = value(t, 3), value(t, 3, seed=1)
    (g,) = t.autograd.grad((Square.apply(x) * w).sum(), x, create_graph=True)
    return [g, g.requires_grad, error(lambda: g.sum().backward())]


# Derivatives of functions.


@program
def functional(t):
    F = t.autograd.functional
    x, w = value(t, 3), value(t, 2, 3, seed=1)
    vx, vw = value(t, 3, seed=2, grad=False), value(t, 2, 3, seed=3, grad=False)
    u, s = value(t, 2, seed=4, grad=False), value(t, seed=5, grad=False)

    def f(x, w):
        return (w @ x).tanh(), (w * w).sum() * x.sum()

    def energy(x, w):
        return ((w @ x).tanh() ** 2).sum() + (x**3).sum()

    results = [
        F.vjp(f, (x, w), (u, s)),
        F.jvp(f, (x, w), (vx, vw)),
        F.jacobian(f, (x, w)),
        F.jacobian(lambda x: x.sin(), x),
        F.hessian(energy, (x, w)),
        F.hessian(lambda x: energy(x, w), x),
        F.hvp(energy, (x, w), (vx, vw)),
        F.vhp(energy, (x, w), (vx, vw)),
    ]
    created = F.hvp(lambda x: energy(x, w), x, vx, create_graph=True)[1]
    created.sum().backward()
    strict = [
        error(lambda: F.jacobian(lambda x, w: x * 2, (x, w), strict=True)),
        error(lambda: F.vjp(lambda x: t.ones(1), x, strict=True)),
        error(lambda: F.hessian(lambda x: x * 2, x)),
        error(lambda: F.vjp(lambda x: x * 2, x)),
        error(lambda: F.jvp(lambda x: x * 2, x, t.ones(2))),
    ]
    return [results, x.grad, w.grad, strict]


@program
def checks(t):
    gradcheck, gradgradcheck = t.autograd.gradcheck, t.autograd.gradgradcheck
    if not callable(gradcheck):
        gradcheck, gradgradcheck = gradcheck.gradcheck, gradcheck.gradgradcheck

    class Wrong(t.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * x.cos() * 1.1

    x, w = value(t, 2, 3), value(t, 3, seed=1)
    seen = []
    for fast_mode in (False, True):
        seen += [
            gradcheck(lambda x, w: (x * w).tanh(), (x, w), fast_mode=fast_mode),
            gradgradcheck(lambda x, w: (x * w).tanh(), (x, w), fast_mode=fast_mode),
            gradcheck(Wrong.apply, (x,), fast_mode=fast_mode, raise_exception=False),
            error(lambda: gradcheck(Wrong.apply, (x,), fast_mode=fast_mode)),  # noqa: B023
        ]
    expanded = value(t, 1).expand(3)
    seen += [
        error(lambda: gradcheck(lambda x: x * 2, (x.detach(),))),
        error(lambda: gradcheck(lambda x: x * 2, (expanded,))),
    ]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gradcheck(lambda x: x * 2, (value(t, 2, dtype=np.float32),), eps=1e-2)
    return [*seen, [warning.category.__name__ for warning in caught]]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_same_program_sees_the_same(name):
    assert_same(plain(PROGRAMS[name](tg)), plain(PROGRAMS[name](torch)))


# Graphs drawn at random.

UNARY = ["tanh", "sigmoid", "exp", "sin", "square", "neg", "abs", "cos", "relu"]


def random_graph(t, seed):
    """A loss made of two matrices by a dozen operations, its gradients and those of their norm."""
    draw = np.random.default_rng(seed)
    leaves = [
        value(t, 3, 3, seed=seed + 1),
        value(t, 3, 1, seed=seed + 2),
        value(t, 3, seed=seed + 3),
    ]
    values = list(leaves)
    for _ in range(12):
        a, b = (values[k] for k in draw.integers(len(values), size=2))
        kind = draw.integers(8)
        if kind < 3:
            y = getattr(a, UNARY[draw.integers(len(UNARY))])()
        elif kind == 3:
            y = a * b
        elif kind == 4:
            y = a + b
        elif kind == 5:
            y = a / (b * b + 1)
        elif kind == 6:
            y = a.sum(0, keepdim=True) * b if draw.integers(2) else a.mean(-1, keepdim=True) - b
        else:
            y = leaves[0] @ (a + leaves[0])
        values.append((y * 0.5).tanh() if draw.integers(2) else y / (1 + (y * y).sum().sqrt()))
    loss = sum((v * v).sum() for v in values[-4:]) + (values[0] * values[-1]).sum()
    loss.backward(retain_graph=True)
    first = t.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
    second = t.autograd.grad(sum((g * g).sum() for g in first), leaves, materialize_grads=True)
    return [loss, first, second, [leaf.grad for leaf in leaves]]


@pytest.mark.parametrize("seed", range(0, 400, 10))
def test_random_graphs(seed):
    assert_same(plain(random_graph(tg, seed)), plain(random_graph(torch, seed)))


# On purpose different.


def test_in_place_methods_on_recorded_tensors_raise_where_pytorch_records_them():
    """The record is never mutated here; `h = h * 2` says the same."""
    assert error(lambda: (value(torch, 3) * 2).mul_(2)) is None
    assert error(lambda: (value(tg, 3) * 2).mul_(2)) == "RuntimeError"


def test_a_mutated_index_raises_in_both():
    for t in (tg, torch):
        x, index = value(t, 3), t.tensor([0, 1])
        y = x[index].sum()
        index.add_(1)
        assert error(y.backward) == "RuntimeError"
