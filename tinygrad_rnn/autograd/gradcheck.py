"""Are these gradients right? They are compared with finite differences.

`gradcheck` compares whole Jacobians, element by element, or in fast mode their products with random
vectors; `gradgradcheck` does so for the gradient of the gradient. `check_grads` is the cheapest:
one random direction per argument and order, for functions without hidden state.
All want float64: central differences with a step of 1e-6 leave about ten digits of it, and none of
float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tinygrad_rnn import backend
from tinygrad_rnn.autograd.tree import leaves, rebuilt
from tinygrad_rnn.creation import zeros_like
from tinygrad_rnn.modes import enable_grad
from tinygrad_rnn.ops.primitive import describe
from tinygrad_rnn.random import Generator
from tinygrad_rnn.tensor import Tensor, grad

#: Tensors with the names that messages call them by.
Named: TypeAlias = list[tuple[str, Tensor]]
Matrix: TypeAlias = np.ndarray[Any, Any]


class GradcheckError(RuntimeError):
    """A check found something wrong; the message says what."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    fast_mode: bool = False,
) -> bool:
    """Whether |analytical - numerical| <= atol + rtol · |numerical| for all of func's Jacobians.

    inputs: a Tensor, or a tuple of Tensors, other values, and tuples of them: func(*inputs). Those
        that require gradients are checked. Numerically, each of their values is changed in place by
        ±eps and put back, so func may also reach them otherwise, as a layer does its parameters.
    func: returns a Tensor or a tuple of Tensors and of tuples of them.
    raise_exception: raise GradcheckError instead of returning False.
    nondet_tol: how much two calls with the same inputs may differ.
    check_undefined_grad: also check that backward takes the cotangent None, of an output that
        nothing used, as zeros.
    fast_mode: compare vᵀ J u for random u, v: two calls of func for each input instead of two
        for each value. A failure is then looked at value by value.
    Raises ValueError if no input requires a gradient, RuntimeError for one whose elements share
    memory; warns about inputs that are not float64.

    >>> import tinygrad_rnn as torch
    >>> gradcheck(torch.sin, torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True))
    True
    """
    args = _args(inputs)
    checked = _requiring_grad("gradcheck", leaves(args, "inputs"), "inputs")
    comparison = _Comparison("gradcheck", lambda: func(*args), checked, eps, atol, rtol, nondet_tol)
    return _outcome(comparison, check_undefined_grad, fast_mode, raise_exception)


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    fast_mode: bool = False,
) -> bool:
    """`gradcheck` of func's gradients, as functions of the inputs and of the cotangents.

    grad_outputs: a cotangent for each differentiable output; drawn at random if left out.
    The other arguments are those of `gradcheck`.
    """
    args = _args(inputs)
    checked = _requiring_grad("gradgradcheck", leaves(args, "inputs"), "inputs")
    xs = [x for _, x in checked]
    with enable_grad():
        outputs = leaves(_args(func(*args)), "outputs")
        ys = [y for _, y in _requiring_grad("gradgradcheck", outputs, "outputs of func")]
    if grad_outputs is None:
        draw = Generator(0)
        given = [_drawn(draw, y).requires_grad_() for y in ys]
    else:
        given = [g for _, g in leaves(_args(grad_outputs), "grad_outputs")]
    cotangents = [(f"grad_outputs[{place}]", g) for place, g in enumerate(given)]

    def gradients() -> tuple[Tensor | None, ...]:
        ys = [y for _, y in leaves(_args(func(*args)), "outputs") if y.requires_grad]
        return grad(ys, xs, given, create_graph=True, allow_unused=True)

    comparison = _Comparison(
        "gradgradcheck",
        gradients,
        checked + [(name, g) for name, g in cotangents if g.requires_grad],
        eps,
        atol,
        rtol,
        nondet_tol,
        output_name="gradients",
    )
    return _outcome(comparison, check_undefined_grad, fast_mode, raise_exception)


def check_grads(
    f: Callable[..., Any],
    args: Any,
    order: int = 2,
    *,
    eps: float = 1e-6,
    atol: float = 1e-6,
    rtol: float = 1e-6,
) -> None:
    """Check f's VJP, then the VJP of that VJP, and so on up to `order`.

    For each argument, along a random direction u of it and a random cotangent v of all outputs,
    ⟨v, J u⟩ from central differences is compared with ⟨Jᵀv, u⟩ from backward. The next order does
    the same to the function (x, v) ↦ Jᵀv.
    f: a function of its arguments alone, f(*args), of Tensors and tuples of Tensors. All floating-
        point Tensors among the arguments are checked, on copies; whether they require gradients
        does not matter.
    Raises GradcheckError on disagreement, ValueError if there is no floating-point argument.
    Source: the check of Autograd (Maclaurin, Duvenaud and Adams, 2015), which is also JAX's.
    """
    arguments = _args(args)
    named = [(name, x) for name, x in leaves(arguments, "args") if x.is_floating_point()]
    if not named:
        raise ValueError("check_grads: no floating-point Tensor among the arguments")
    _warn_unless_double("check_grads", named)

    def flat(*xs: Tensor) -> list[Tensor]:
        replaced = iter(xs)
        everything = iter(
            [next(replaced) if x.is_floating_point() else x for _, x in leaves(arguments, "args")]
        )
        outputs = _args(f(*rebuilt(arguments, everything)))
        return [y for _, y in leaves(outputs, "outputs") if y.is_floating_point()]

    with enable_grad():
        _check_directions(flat, named, 1, order, Generator(0), (eps, atol, rtol))


# Along random directions.


def _check_directions(
    f: Callable[..., Sequence[Tensor]],
    named: Named,
    order: int,
    last: int,
    draw: Generator,
    tolerances: tuple[float, float, float],
) -> None:
    """One order of check_grads, and by recursion the later ones."""
    eps, atol, rtol = tolerances
    names, xs = [name for name, _ in named], [x for _, x in named]
    vs = [_drawn(draw, y) for y in f(*_fresh(xs))]

    def pulled(*xs_and_vs: Tensor, create_graph: bool = True) -> list[Tensor]:
        """Jᵀv at x."""
        at = xs_and_vs[: len(xs)]
        pairs = zip(f(*at), xs_and_vs[len(xs) :], strict=True)
        used = [(y, v) for y, v in pairs if y.requires_grad]
        if not used:
            return [zeros_like(x) for x in at]
        ys, gs = zip(*used, strict=True)
        found = grad(ys, at, gs, create_graph=create_graph, materialize_grads=True)
        return [g for g in found if g is not None]

    gradients = pulled(*_fresh([*xs, *vs]), create_graph=False)
    for place, (name, x) in enumerate(zip(names, xs, strict=True)):
        g = gradients[place]
        if g.shape != x.shape or g.dtype != x.dtype:
            raise GradcheckError(
                f"check_grads: order {order}: the gradient of {name} is {describe(g)}, and {name} "
                f"itself {describe(x)}"
            )
        u = _drawn(draw, x)
        ahead, behind = (
            f(*_fresh([*xs[:place], x + u * step, *xs[place + 1 :]]))
            for step in (eps / 2, -eps / 2)
        )
        rise = [a - b for a, b in zip(ahead, behind, strict=True)]
        numerical = sum(map(_inner, vs, rise)) / eps
        analytical = _inner(g, u)
        if not abs(analytical - numerical) <= atol + rtol * abs(numerical):
            raise GradcheckError(
                f"check_grads: order {order}: wrong gradient of {name} ({describe(x)}): along a "
                f"random direction, analytical {analytical:.10g}, numerical {numerical:.10g}"
            )
    if order < last:
        cotangents = [(f"the cotangent of output {k} (order {order})", v) for k, v in enumerate(vs)]
        _check_directions(
            pulled,
            list(zip(names, xs, strict=True)) + cotangents,
            order + 1,
            last,
            draw,
            tolerances,
        )


def _fresh(xs: Sequence[Tensor]) -> list[Tensor]:
    """The same values as leaves, each the start of a graph."""
    return [x.detach().requires_grad_() for x in xs]


def _inner(a: Tensor, b: Tensor) -> float:
    return float((backend.to_numpy(a.array) * backend.to_numpy(b.array)).sum())


def _drawn(draw: Generator, like: Tensor) -> Tensor:
    """A random vector with another tensor's shape, dtype and device."""
    return Tensor(draw.normal(like.shape, dtype=like.dtype), device=like.device)


# Jacobians.


@dataclass
class _Comparison:
    """What is being compared: the outputs of `call` as functions of the tensors in `inputs`."""

    caller: str
    call: Callable[[], Any]
    inputs: Named
    eps: float
    atol: float
    rtol: float
    nondet_tol: float
    output_name: str = "outputs"

    def outputs(self) -> Named:
        """The floating-point outputs, recorded."""
        with enable_grad():
            found = leaves(_args(self.call()), self.output_name)
            return [(name, y) for name, y in found if y.is_floating_point()]

    def values(self) -> list[Matrix]:
        """The values of the outputs."""
        return [backend.to_numpy(y.array).copy() for _, y in self.outputs()]

    def pulled(self, y: Tensor, v: Tensor) -> list[Tensor]:
        """vᵀJ for each input; zeros where y does not depend on it."""
        xs = [x for _, x in self.inputs]
        if not y.requires_grad:
            return [zeros_like(x) for x in xs]
        found = grad(y, xs, v, retain_graph=True, materialize_grads=True)
        return [g for g in found if g is not None]

    # Before anything is compared.

    def prepare(self) -> None:
        """Refuse what finite differences cannot judge: see the messages."""
        _warn_unless_double(self.caller, self.inputs)
        for name, x in self.inputs:
            steps = zip(x.array.strides, x.shape, strict=True)
            if x.numel() and any(step == 0 and size > 1 for step, size in steps):
                raise RuntimeError(
                    f"{self.caller}: {name} has elements that share one place in memory (was it "
                    "made by expand?), so they cannot be changed one at a time; pass a clone()"
                )
        first, second = self.outputs(), self.values()
        if not first:
            raise ValueError(f"{self.caller}: func returned no floating-point Tensor")
        for (name, y), again in zip(first, second, strict=True):
            self._same(f"{name} of two calls with the same inputs", [y], [Tensor(again)])
        draw = Generator(1)
        for name, y in first:
            v = _drawn(draw, y)
            self._same(
                f"the gradients of {name} in two backward passes",
                self.pulled(y, v),
                self.pulled(y, v),
            )

    def _same(self, what: str, some: list[Tensor], others: list[Tensor]) -> None:
        for a, b in zip(some, others, strict=True):
            difference = np.abs(backend.to_numpy(a.array) - backend.to_numpy(b.array))
            if difference.size and difference.max() > self.nondet_tol:
                raise GradcheckError(
                    f"{self.caller}: func is not deterministic: {what} differ by up to "
                    f"{difference.max():.3g}. Draw random numbers (dropout) outside of func, or "
                    "from a generator seeded inside it; or allow the difference with nondet_tol"
                )

    # Value by value.

    def full(self) -> None:
        """Compare every element of every Jacobian."""
        analytical = [self._analytical(y) for _, y in self.outputs()]
        numerical = [self._numerical(x) for _, x in self.inputs]
        for i, (output, _) in enumerate(self.outputs()):
            for j, (name, _) in enumerate(self.inputs):
                self._compare(output, name, analytical[i][j], numerical[j][i])

    def _analytical(self, y: Tensor) -> list[Matrix]:
        """The Jacobian of one output with respect to each input, (values of y, values of x)."""
        jacobians = [np.zeros((y.numel(), x.numel())) for _, x in self.inputs]
        for row in range(y.numel()):
            one = zeros_like(y)
            one.array[np.unravel_index(row, y.shape)] = 1
            for jacobian, g in zip(jacobians, self.pulled(y, one), strict=True):
                jacobian[row] = backend.to_numpy(g.array).reshape(-1)
        return jacobians

    def _numerical(self, x: Tensor) -> list[Matrix]:
        """The Jacobian of each output with respect to one input, by central differences."""
        columns: list[list[Matrix]] = []
        for place in np.ndindex(x.shape):
            one = np.zeros(x.shape)
            one[place] = 1
            columns.append(self._moved(x, one))
        if not columns:
            return [np.zeros((y.size, 0)) for y in self.values()]
        return [np.stack(column, axis=1) for column in zip(*columns, strict=True)]

    def _moved(self, x: Tensor, direction: Matrix) -> list[Matrix]:
        """(func(x + eps·u) - func(x - eps·u)) / 2 eps for each output, flat; x is put back."""
        before = x.array.copy()
        step = backend.to_device(np.asarray(direction * self.eps, x.dtype), x.device)
        moved: list[list[Matrix]] = []
        try:
            for signed in (step, -step):
                x.array[...] = before + signed
                x.mark_written(self.caller)
                moved.append(self.values())
        finally:
            x.array[...] = before
            x.mark_written(self.caller)
        return [
            ((after - earlier) / (2 * self.eps)).reshape(-1)
            for after, earlier in zip(*moved, strict=True)
        ]

    def _compare(self, output: str, name: str, analytical: Matrix, numerical: Matrix) -> None:
        allowed = self.atol + self.rtol * np.abs(numerical)
        wrong = ~(np.abs(analytical - numerical) <= allowed)  # so that nan is wrong
        if not wrong.any():
            return
        excess = np.where(wrong, np.nan_to_num(np.abs(analytical - numerical), nan=np.inf), -1)
        row, column = np.unravel_index(int(excess.argmax()), excess.shape)
        shapes = {n: x.shape for n, x in [*self.inputs, *self.outputs()]}
        at_y = tuple(map(int, np.unravel_index(row, shapes[output])))
        at_x = tuple(map(int, np.unravel_index(column, shapes[name])))
        raise GradcheckError(
            f"{self.caller}: Jacobian mismatch for {output} with respect to {name}: {wrong.sum()} "
            f"of {wrong.size} elements are wrong, the worst d {output}{list(at_y)} / d {name}"
            f"{list(at_x)}: analytical {analytical[row, column]:.8g}, numerical "
            f"{numerical[row, column]:.8g}\n"
            f"analytical (a row for each value of {output}):\n{_shown(analytical)}\n"
            f"numerical:\n{_shown(numerical)}"
        )

    # Along random directions.

    def fast(self) -> None:
        """Compare vᵀJu for random vectors; look value by value where it is wrong."""
        draw = Generator(2)
        outputs = self.outputs()
        vs = [_drawn(draw, y) for _, y in outputs]
        analytical = [self.pulled(y, v) for (_, y), v in zip(outputs, vs, strict=True)]
        for j, (name, x) in enumerate(self.inputs):
            u = _drawn(draw, x)
            moved = self._moved(x, backend.to_numpy(u.array))
            for i, (output, _) in enumerate(outputs):
                v = backend.to_numpy(vs[i].array).reshape(-1)
                numerical, product = float(moved[i] @ v), _inner(analytical[i][j], u)
                # atol is meant for one element of J; here |u| and |v| weigh and add them up.
                spread = float(np.abs(v).sum() * np.abs(backend.to_numpy(u.array)).sum())
                if not abs(product - numerical) <= self.atol * spread + self.rtol * abs(numerical):
                    self.full()
                    raise GradcheckError(
                        f"{self.caller}: Jacobian mismatch for {output} with respect to {name}: "
                        f"along random directions, analytical {product:.8g}, numerical "
                        f"{numerical:.8g}, although each element is within its tolerance"
                    )

    # Cotangents that are None.

    def undefined(self) -> None:
        """Check that an unused output's cotangent, None, means the same as zeros."""
        outputs = [(name, y) for name, y in self.outputs() if y.requires_grad]
        draw = Generator(3)
        xs = [x for _, x in self.inputs]
        for place, (name, y) in enumerate(outputs if len(outputs) > 1 else []):
            gs = [zeros_like(other) for _, other in outputs]
            gs[place] = _drawn(draw, y)
            alone = self.pulled(y, gs[place])
            together = grad(
                [other for _, other in outputs], xs, gs, retain_graph=True, materialize_grads=True
            )
            for (input_name, _), a, b in zip(self.inputs, alone, together, strict=True):
                if b is None or not np.allclose(
                    backend.to_numpy(a.array), backend.to_numpy(b.array), self.rtol, self.atol
                ):
                    raise GradcheckError(
                        f"{self.caller}: the gradient of {input_name} changes when the cotangents "
                        f"of the outputs other than {name} are zeros instead of None; backward "
                        "must take None as zeros"
                    )


def _outcome(
    comparison: _Comparison, check_undefined_grad: bool, fast_mode: bool, raise_exception: bool
) -> bool:
    """Run the checks; True, or False or an error as asked for."""
    try:
        comparison.prepare()
        if fast_mode:
            comparison.fast()
        else:
            comparison.full()
        if check_undefined_grad:
            comparison.undefined()
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _args(inputs: Any) -> tuple[Any, ...]:
    return tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)


def _requiring_grad(caller: str, named: Iterable[tuple[str, Tensor]], what: str) -> Named:
    """The tensors among those named that require gradients; an error if there are none."""
    found = [(name, x) for name, x in named if x.requires_grad]
    if not found:
        raise ValueError(f"{caller}: none of the {what} requires a gradient: nothing to check")
    return found


def _warn_unless_double(caller: str, named: Named) -> None:
    for name, x in named:
        if x.dtype != np.float64:
            warnings.warn(
                f"{caller}: {name} is {x.dtype}, too coarse for finite differences; the check will "
                "probably fail. Use float64",
                UserWarning,
                stacklevel=4,
            )


def _shown(matrix: Matrix) -> str:
    return np.array2string(matrix, precision=6, threshold=200)
