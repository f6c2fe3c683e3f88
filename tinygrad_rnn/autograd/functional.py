"""What is the derivative of this function here? vjp, jvp, jacobian, hessian, hvp, vhp.

Each takes a function of Tensors and a point, with PyTorch's arguments, and needs no more of the
engine than `grad`: the forward derivative (jvp) is a derivative of the backward one, which is
linear in its cotangent. Letters: y = func(x), J = dy/dx; v is a vector of the shape of x or of y.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from tinygrad_rnn.creation import ones_like, zeros_like
from tinygrad_rnn.modes import enable_grad
from tinygrad_rnn.ops.operators import stack
from tinygrad_rnn.ops.primitive import describe
from tinygrad_rnn.tensor import Tensor, grad

Tensors: TypeAlias = Tensor | tuple[Tensor, ...]


def vjp(
    func: Callable[..., Any],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """(func(x), vᵀJ): the gradient of ⟨v, func(x)⟩, in the shapes of the inputs.

    v: in the shapes of the outputs; may be left out for a single value.
    create_graph: record the result, so that it can be differentiated.
    strict: raise RuntimeError where the outputs do not depend on an input, instead of giving zeros.

    >>> import tinygrad_rnn as torch
    >>> vjp(torch.square, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 10.0]))[1]
    tensor([ 2., 40.])
    """
    with enable_grad():
        xs, outputs, ys = _evaluated("vjp", func, inputs, create_graph)
        gs = _pulled("vjp", ys, xs, _vector("vjp", v, ys, "outputs"), create_graph, strict)
    return _results(ys, outputs, create_graph), _results(gs, inputs, create_graph)


def jvp(
    func: Callable[..., Any],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """(func(x), J v): the change of the outputs as the inputs move along v.

    By two backward passes: uᵀJ is linear in u, and its derivative with respect to u along v is J v.
    v: in the shapes of the inputs; may be left out for a single value.
    create_graph, strict: as for `vjp`.
    """
    with enable_grad():
        xs, outputs, ys = _evaluated("jvp", func, inputs, create_graph)
        us = tuple(zeros_like(y).requires_grad_() for y in ys)
        pulled = _pulled("jvp", ys, xs, us, True, strict)
        vs = _vector("jvp", v, xs, "inputs")
        moved = _pulled("jvp", pulled, us, vs, create_graph, strict)
    return _results(ys, outputs, create_graph), _results(moved, outputs, create_graph)


def jacobian(
    func: Callable[..., Any], inputs: Tensors, create_graph: bool = False, strict: bool = False
) -> Any:
    """`J[i][j]` = d outputs[i] / d inputs[j], of shape (*outputs[i].shape, *inputs[j].shape).

    A Tensor for one output and one input that are not in tuples, else a tuple, or tuple of tuples.
    create_graph, strict: as for `vjp`.

    >>> import tinygrad_rnn as torch
    >>> jacobian(torch.square, torch.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    with enable_grad():
        xs, outputs, ys = _evaluated("jacobian", func, inputs, create_graph)
        blocks = [_blocks("jacobian", y, xs, create_graph, strict) for y in ys]
    return _like(outputs, [_results(row, inputs, create_graph) for row in blocks])


def hessian(
    func: Callable[..., Any], inputs: Tensors, create_graph: bool = False, strict: bool = False
) -> Any:
    """`H[i][j]` = d² func / d inputs[i] d inputs[j] of a function with a single value.

    A Tensor of shape (*x.shape, *x.shape) for one input, a tuple of tuples for a tuple of inputs.
    create_graph, strict: as for `vjp`.
    """

    def gradient(*xs: Tensor) -> Any:
        y = _single_value("hessian", func(*xs))
        return _like(inputs, _pulled("hessian", (y,), xs, (ones_like(y),), True, strict))

    return jacobian(gradient, inputs, create_graph, strict)


def vhp(
    func: Callable[..., Any],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Tensor, Any]:
    """(func(x), vᵀH) of a function with a single value: the gradient of ⟨∇func, v⟩.

    Two backward passes; H is never formed.  v: in the shapes of the inputs.
    create_graph, strict: as for `vjp`.
    """
    with enable_grad():
        xs, outputs, _ = _evaluated("vhp", func, inputs, create_graph)
        y = _single_value("vhp", outputs)
        slopes = _pulled("vhp", (y,), xs, (ones_like(y),), True, strict)
        products = _pulled("vhp", slopes, xs, _vector("vhp", v, xs, "inputs"), create_graph, strict)
    return _results((y,), y, create_graph), _results(products, inputs, create_graph)


def hvp(
    func: Callable[..., Any],
    inputs: Tensors,
    v: Tensors | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Tensor, Any]:
    """(func(x), H v) of a function with a single value.

    H is symmetric where func is twice continuously differentiable, so H v is computed as vᵀH, with
    one backward pass less. Arguments as for `vhp`.
    """
    return vhp(func, inputs, v, create_graph, strict)


def _evaluated(
    name: str, func: Callable[..., Any], inputs: Tensors, create_graph: bool
) -> tuple[tuple[Tensor, ...], Any, tuple[Tensor, ...]]:
    """(xs, outputs, ys): the tensors to differentiate by, func's outputs, and those as a tuple.

    With create_graph the xs stay tied to what the inputs were made from.
    """
    given = _tensors(name, inputs, "inputs")
    xs = tuple(
        x.view_as(x) if create_graph and x.requires_grad else x.detach().requires_grad_()
        for x in given
    )
    outputs = func(*xs)
    return xs, outputs, _tensors(name, outputs, "outputs")


def _pulled(
    name: str,
    ys: Sequence[Tensor],
    xs: Sequence[Tensor],
    gs: Sequence[Tensor],
    create_graph: bool,
    strict: bool,
    retain_graph: bool | None = None,
) -> tuple[Tensor, ...]:
    """The gradient of Σ ⟨gs, ys⟩ with respect to each x; zeros (or an error) for an unused one."""
    used = [(y, g) for y, g in zip(ys, gs, strict=True) if y.requires_grad]
    found: tuple[Tensor | None, ...] = (None,) * len(xs)
    if used:
        outputs, cotangents = zip(*used, strict=True)
        found = grad(outputs, xs, cotangents, retain_graph, create_graph, allow_unused=True)
    for place, g in enumerate(found):
        if g is None and strict:
            raise RuntimeError(
                f"{name}: the result does not depend on inputs[{place}] ({describe(xs[place])}), "
                "which strict=True forbids"
            )
    return tuple(zeros_like(x) if g is None else g for x, g in zip(xs, found, strict=True))


def _blocks(
    name: str, y: Tensor, xs: tuple[Tensor, ...], create_graph: bool, strict: bool
) -> tuple[Tensor, ...]:
    """The Jacobian of one output with respect to each input: one backward pass for each value."""
    rows: list[tuple[Tensor, ...]] = []
    for place in range(y.numel()):
        one = zeros_like(y)
        one.array[np.unravel_index(place, y.shape)] = 1
        rows.append(_pulled(name, (y,), xs, (one,), create_graph, strict, retain_graph=True))
    if not rows:
        return tuple(zeros_like(x).expand(0, *x.shape).reshape(*y.shape, *x.shape) for x in xs)
    columns = zip(*rows, strict=True)
    return tuple(
        stack(column).reshape(*y.shape, *x.shape) for column, x in zip(columns, xs, strict=True)
    )


def _vector(name: str, v: Tensors | None, like: Sequence[Tensor], what: str) -> tuple[Tensor, ...]:
    """The vector v, checked against the tensors whose shapes it must have."""
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise RuntimeError(f"{name}: v can be left out only if the {what} are a single value")
        return (ones_like(like[0]),)
    vs = _tensors(name, v, "v")
    if [w.shape for w in vs] != [x.shape for x in like]:
        raise RuntimeError(
            f"{name}: v has the shapes {[w.shape for w in vs]}, the {what} "
            f"{[x.shape for x in like]}"
        )
    return vs


def _single_value(name: str, y: Any) -> Tensor:
    if isinstance(y, tuple) and len(y) == 1:
        y = y[0]
    if not isinstance(y, Tensor) or y.numel() != 1:
        got = describe(y) if isinstance(y, Tensor) else type(y).__name__
        raise RuntimeError(f"{name}: func must return a single value, got {got}")
    return y


def _tensors(name: str, values: Any, what: str) -> tuple[Tensor, ...]:
    """One Tensor, or several in a tuple or list, as a tuple."""
    several = tuple(values) if isinstance(values, tuple | list) else (values,)
    for value in several:
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}: the {what} must be a Tensor or a tuple of Tensors, "
                f"got {type(value).__name__}"
            )
    return several


def _results(results: Sequence[Tensor], form: Any, create_graph: bool) -> Any:
    """Results as they are handed out: cut off from the graph unless that was asked for."""
    return _like(form, results if create_graph else [y.detach() for y in results])


def _like(form: Any, results: Sequence[Any]) -> Any:
    """Results as a tuple if `form` is one (or a list), else the only result."""
    return tuple(results) if isinstance(form, tuple | list) else results[0]
