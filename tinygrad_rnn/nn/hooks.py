"""How does a module let others look at, or change, what passes through it?

The tables in which a module keeps its hooks, and the pair of identities that it wraps around its
inputs and outputs when somebody wants to see their gradients. The hooks' calling conventions are
described at `Module.register_forward_hook` and its siblings. Read autograd/function.py first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from tinygrad_rnn.autograd import Function
from tinygrad_rnn.graph import RemovableHandle
from tinygrad_rnn.modes import is_grad_enabled
from tinygrad_rnn.tensor import Tensor

# Hooks in the order in which they run, by the number that their handle knows.
HookTable = dict[int, Callable[..., Any]]


def register(table: HookTable, hook: Callable[..., Any], prepend: bool) -> RemovableHandle:
    """Put a hook at the end of the table, or at its beginning; the handle takes it out again."""
    earlier = dict(table) if prepend else {}
    handle = RemovableHandle(table, hook)
    for key in earlier:  # a dict keeps the order of insertion
        del table[key]
    table.update(earlier)
    return handle


class BackwardHooks:
    """One call of a module, seen from the backward pass.

    The identity around the outputs runs first in the backward pass and notes `grad_output`; the one
    around the inputs runs last and gives both to the hooks. When no input needs a gradient, the
    hooks run as soon as `grad_output` is known, with `grad_input` all None.
    """

    def __init__(self, module: Any, table: HookTable) -> None:
        self.module = module
        self.hooks = list(table.values())
        self.input_positions: list[int] = []
        self.input_count = 0
        self.grad_output: tuple[Tensor | None, ...] = ()

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The positional arguments, with the gradients of the Tensors among them under watch."""
        watched, self.input_positions = _watch(args, self._inputs_known)
        self.input_count = len(args)
        return watched

    def outputs(self, result: Any) -> Any:
        """The result of `forward` (a Tensor or a tuple), with its gradients under watch."""
        alone = not isinstance(result, tuple)
        results = (result,) if alone else result

        def note(gs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
            self.grad_output = _scatter(gs, positions, len(results))
            if not self.input_positions:
                warnings.warn(
                    "Full backward hook is firing when gradients are computed with respect to "
                    "module outputs since no inputs require gradients.",
                    stacklevel=2,
                )
                self._call_hooks((None,) * self.input_count)
            return gs

        watched, positions = _watch(results, note)
        if alone:
            return watched[0]
        # A named tuple is rebuilt from its fields, a plain one from the sequence.
        return type(result)(*watched) if hasattr(result, "_fields") else watched

    def _inputs_known(self, gs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        grad_input = self._call_hooks(_scatter(gs, self.input_positions, self.input_count))
        return [grad_input[position] for position in self.input_positions]

    def _call_hooks(self, grad_input: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        for hook in self.hooks:
            replaced = hook(self.module, grad_input, self.grad_output)
            if replaced is None:
                continue
            replaced = replaced if isinstance(replaced, tuple) else (replaced,)
            if len(replaced) != len(grad_input):
                raise RuntimeError(
                    "Backward hook returned an invalid number of grad_input, "
                    f"got {len(replaced)}, but expected {len(grad_input)}"
                )
            grad_input = replaced
        self.grad_output = ()  # in a recorded backward these lead back to this call: a cycle
        return grad_input


class _Watch(Function):
    """The identity, whose backward passes on what `observe` makes of all cotangents together."""

    @staticmethod
    def forward(ctx: Any, observe: Callable[..., Any], *tensors: Tensor) -> Any:
        ctx.observe = observe
        ctx.set_materialize_grads(False)
        return tensors

    @staticmethod
    def backward(ctx: Any, *gs: Tensor | None) -> Any:
        return (None, *ctx.observe(gs))


def _watch(
    values: tuple[Any, ...], observe: Callable[..., Any]
) -> tuple[tuple[Any, ...], list[int]]:
    """`values`, with Tensors that need gradients gone through `_Watch`, and their positions."""
    positions = [
        position
        for position, value in enumerate(values)
        if isinstance(value, Tensor) and value.requires_grad
    ]
    if not positions or not is_grad_enabled():
        return values, []
    watched = list(values)
    for position, tensor in zip(
        positions, _Watch.apply(observe, *(values[p] for p in positions)), strict=True
    ):
        watched[position] = tensor
    return tuple(watched), positions


def _scatter(
    gs: Sequence[Tensor | None], positions: Sequence[int], count: int
) -> tuple[Tensor | None, ...]:
    """The cotangents at their positions among `count` values, None elsewhere."""
    placed: list[Tensor | None] = [None] * count
    for position, g in zip(positions, gs, strict=True):
        placed[position] = g
    return tuple(placed)
