"""How do I give an operation of my own its own derivative?

By a subclass of `Function` with a forward and a backward, both on Tensors. To the engine one call
of it is a node like any other: `FunctionPrimitive` is a primitive whose rule is the user's
backward, so retain_graph, double backward, hooks and releasing need no code here. What backward
will read is kept in the node, as values of its inputs and outputs, never in a reference cycle.
Read `ops/primitive.py` and `graph.py` first.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn import backend
from tinygrad_rnn.autodiff import Edge, output_edges
from tinygrad_rnn.backend import namespace
from tinygrad_rnn.graph import Node
from tinygrad_rnn.modes import is_grad_enabled, no_grad
from tinygrad_rnn.ops.primitive import Primitive
from tinygrad_rnn.program import Var, refuse
from tinygrad_rnn.tensor import Tensor, wrap


class FunctionCtx:
    """What one call of a Function hands from its forward to its backward.

    Tensors go through `save_for_backward`; anything else may be set as an attribute.
    needs_input_grad: for each argument of forward, whether it is a Tensor that requires a gradient.
    """

    needs_input_grad: tuple[bool, ...]

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.materialize_grads = True
        self.to_save: tuple[Tensor | None, ...] = ()
        self.non_differentiable: tuple[Tensor, ...] = ()
        self._saved: tuple[Tensor | None, ...] | None = None

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors (arguments, results or others; None is kept as None) for backward.

        Unlike an attribute, a tensor saved so is released by backward, and backward raises if it
        was changed in place in the meantime.
        """
        for tensor in tensors:
            if tensor is not None and not isinstance(tensor, Tensor):
                raise TypeError(
                    f"save_for_backward: expected Tensors or None, got {type(tensor).__name__}; "
                    "set other values as attributes of ctx"
                )
        self.to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """What save_for_backward was given. Raises RuntimeError outside of backward."""
        if self._saved is None:
            raise RuntimeError("saved_tensors: the saved tensors can be read only inside backward")
        return self._saved

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        """Say that these results have no gradient, as non-floating-point ones never have."""
        self.non_differentiable = outputs

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward gets zeros (the default) or None for a result that nothing used."""
        self.materialize_grads = value


class Function:
    """An operation with its own derivative: subclass, define forward and backward, call `apply`.

    forward(ctx, *args): computes on Tensors, unrecorded; returns a Tensor or a tuple. Or
        forward(*args) without ctx, together with setup_context(ctx, inputs, output).
    backward(ctx, *gs): one cotangent per result; returns one gradient per argument of forward,
        None where there is none to give. Written with Tensor operations, it can be differentiated
        itself, which `once_differentiable` forbids.

    >>> import tinygrad_rnn as torch
    >>> class Cube(Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x * x * x
    ...
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         (x,) = ctx.saved_tensors
    ...         return g * 3 * x * x
    >>> x = torch.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor(12.)
    """

    _primitive: FunctionPrimitive

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._primitive = FunctionPrimitive(cls)

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The operation: forward(ctx, *args), or forward(*args) beside a setup_context."""
        raise NotImplementedError("a Function needs a static method forward(ctx, *args)")

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Any) -> None:
        """Save for backward, where forward has no ctx. inputs: forward's arguments, as a tuple."""
        raise NotImplementedError

    @staticmethod
    def backward(ctx: FunctionCtx, *gs: Any) -> Any:
        """The gradient with respect to each argument of forward, given those of its results."""
        raise NotImplementedError("a Function needs a static method backward(ctx, *gs)")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run forward on the arguments, and record backward as the derivative.

        Raises RuntimeError in the step of a `scan`, whose pullback is made of known rules.
        """
        if any(type(arg) is Var for arg in args):
            refuse(
                f"applies {cls.__name__}, which has a backward of its own, to a value of the step"
            )
        needed = tuple(isinstance(arg, Tensor) and arg.requires_grad for arg in args)
        ctx = FunctionCtx(needed)
        with no_grad():
            if cls.setup_context is Function.setup_context:
                returned = cls.forward(ctx, *args)
            else:
                returned = cls.forward(*args)
                cls.setup_context(ctx, args, returned)
        if isinstance(returned, list):
            raise TypeError(f"{cls.__name__}.forward returned a list; return a tuple of Tensors")
        results = returned if isinstance(returned, tuple) else (returned,)
        edges: Sequence[Edge | None] = [None] * len(results)
        if any(needed) and is_grad_enabled():
            edges = output_edges(_record(cls._primitive, ctx, args, results))
        outputs = tuple(
            wrap(y.array, edge if _differentiable(ctx, y) else None) if isinstance(y, Tensor) else y
            for y, edge in zip(results, edges, strict=True)
        )
        ctx.to_save = ctx.non_differentiable = ()  # the node knows: no second hold on the memory
        return outputs if isinstance(returned, tuple) else outputs[0]


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a backward that must not be differentiated itself: trying to raises RuntimeError.

    Put it below @staticmethod. Inside, nothing is recorded, so NumPy code is welcome.
    """

    @functools.wraps(backward)
    def unrecorded(ctx: FunctionCtx, *gs: Any) -> Any:
        with no_grad():
            pulled = backward(ctx, *gs)
        if not is_grad_enabled():
            return pulled
        sources = [
            x for x in (*gs, *ctx.saved_tensors) if isinstance(x, Tensor) and x.requires_grad
        ]
        several = isinstance(pulled, tuple)
        guarded = tuple(
            _dead_end(g, *sources, name=backward.__qualname__) if isinstance(g, Tensor) else g
            for g in (pulled if several else (pulled,))
        )
        return guarded if several else guarded[0]

    return unrecorded


def _refuse(_g: Any, _y: Any, *_sources: Any, name: str) -> Any:
    raise RuntimeError(
        f"{name} is marked @once_differentiable: trying to differentiate its result. Write it with "
        "Tensor operations and without the mark, or do not ask for create_graph"
    )


#: y = g, computed from `sources` in a way that cannot be differentiated.
_dead_end = Primitive(
    "once_differentiable",
    lambda xp, g, *sources, name: g,
    joint_rule=_refuse,
    one_dtype=False,
)


class _Form(NamedTuple):
    """What a gradient must look like."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: backend.device


class FunctionPrimitive(Primitive):
    """A Function as the engine sees it: a primitive whose joint rule is the user's backward.

    A node of it has the params `ctx`, `saved` (where each saved tensor is: an output or an input,
    and which one) and `arguments`, `results` (their forms, None for one that is not a Tensor).
    """

    def __init__(self, function: type[Function]) -> None:
        super().__init__(function.__name__, function.apply)
        self.function = function

    def keeps(self, pattern: int) -> tuple[bool, tuple[int, ...]]:
        """All values that the node was given: `_record` gives it those that were saved."""
        return True, ()

    def pull(
        self,
        gs: Sequence[Any],
        outputs: Sequence[Any],
        inputs: Sequence[Any],
        params: dict[str, Any],
        needed: Sequence[Any],
    ) -> Sequence[Any]:
        """The gradients that the user's backward returns: arrays if the cotangents are arrays."""
        ctx = params["ctx"]
        known = next(g for g in gs if g is not None)
        recorded = isinstance(known, Tensor)
        if ctx.materialize_grads:
            xp = namespace(known.array if recorded else known)
            gs = [
                xp.zeros(form.shape, form.dtype) if g is None and form is not None else g
                for g, form in zip(gs, params["results"], strict=True)
            ]
        values = (outputs, inputs)
        ctx._saved = tuple(
            None if place is None else _as_tensor(values[place[0]][place[1]])
            for place in params["saved"]
        )
        try:
            returned = self.function.backward(ctx, *map(_as_tensor, gs))
        finally:
            ctx._saved = None  # in a recorded backward these lead to this node: no cycle may stay
        pulled = self._checked(returned, params["arguments"], needed)
        pulled += [None] * (len(inputs) - len(pulled))  # for saved tensors that were no arguments
        return pulled if recorded else [None if g is None else g.array for g in pulled]

    def _checked(
        self, returned: Any, arguments: Sequence[_Form | None], needed: Sequence[Any]
    ) -> list[Tensor | None]:
        """The gradients of the arguments, None where not needed; an error if one does not fit."""
        gradients = list(returned) if isinstance(returned, tuple | list) else [returned]
        count = len(arguments)
        if len(gradients) < count or any(g is not None for g in gradients[count:]):
            raise RuntimeError(
                f"{self.name}.backward returned {len(gradients)} gradients, but forward has "
                f"{count} arguments (one gradient for each, None where there is none)"
            )
        return [
            self._fitted(place, gradients[place], form)
            if needed[place] is not None or form is None
            else None
            for place, form in enumerate(arguments)
        ]

    def _fitted(self, place: int, g: Any, form: _Form | None) -> Tensor | None:
        """The gradient of one argument in that argument's shape and dtype."""
        if g is None:
            return None
        what = f"{self.name}.backward: the gradient of argument {place}"
        if form is None:
            raise RuntimeError(f"{what} must be None, because that argument is not a Tensor")
        if not isinstance(g, Tensor):
            raise RuntimeError(f"{what} must be a Tensor or None, got {type(g).__name__}")
        if g.shape != form.shape:
            if not _broadcasts(form.shape, g.shape):
                raise RuntimeError(f"{what} has shape {g.shape}, the argument {form.shape}")
            g = g.sum_to_size(form.shape)
        if g.device != form.device:
            raise RuntimeError(f"{what} is on {g.device}, the argument on {form.device}")
        return g.to(dtype=form.dtype)


def _record(
    primitive: FunctionPrimitive, ctx: FunctionCtx, args: tuple[Any, ...], results: tuple[Any, ...]
) -> Node:
    """The node of one call, holding the saved values.

    A saved tensor that is neither an argument nor a result becomes one more input.
    """
    inputs: list[Any] = [()] * len(args)
    edges = [_edge(arg) for arg in args]
    outputs: list[Any] = [getattr(y, "shape", ()) for y in results]
    saved: list[tuple[int, int] | None] = []
    for tensor in ctx.to_save:
        if tensor is None:
            saved.append(None)
        elif (k := _index(tensor, args)) is not None:
            inputs[k] = tensor.array
            saved.append((1, k))
        elif (k := _index(tensor, results)) is not None:
            outputs[k] = tensor.array
            saved.append((0, k))
        else:
            inputs.append(tensor.array)
            edges.append(_edge(tensor))
            saved.append((1, len(inputs) - 1))
    params = {
        "ctx": ctx,
        "saved": saved,
        "arguments": [_form(arg) for arg in args],
        "results": [_form(y) for y in results],
    }
    return Node(primitive, inputs, outputs, params, edges, pattern=0)


def _index(tensor: Tensor, values: tuple[Any, ...]) -> int | None:
    """The place of this very tensor among the values."""
    return next((k for k, value in enumerate(values) if value is tensor), None)


def _edge(value: Any) -> Edge | None:
    if not isinstance(value, Tensor) or not value.requires_grad:
        return None
    return value if value._edge is None else value._edge


def _form(value: Any) -> _Form | None:
    return _Form(value.shape, value.dtype, value.device) if isinstance(value, Tensor) else None


def _differentiable(ctx: FunctionCtx, result: Tensor) -> bool:
    return result.is_floating_point() and _index(result, ctx.non_differentiable) is None


def _as_tensor(value: Any) -> Tensor | None:
    return value if value is None or isinstance(value, Tensor) else wrap(value, None)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether broadcasting takes the one shape to the other."""
    aligned = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(n in (1, m) for n, m in aligned)
