"""What may change the values of a tensor, and who must know of it?

In-place methods change leaves and unrecorded tensors, or anything under no_grad; each write is
noted, so that backward refuses to use a stale value (`graph.py`). An assignment to an index of a
recorded tensor makes a new node instead, and the old value stays for those who read it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_rnn import backend, random
from tinygrad_rnn.autodiff import Edge
from tinygrad_rnn.backend import Array, namespace
from tinygrad_rnn.graph import writes
from tinygrad_rnn.modes import current
from tinygrad_rnn.ops.devices import require_one_device
from tinygrad_rnn.ops.indexing import assign
from tinygrad_rnn.ops.operators import Operators
from tinygrad_rnn.ops.operators.arguments import checked_index
from tinygrad_rnn.ops.primitive import describe
from tinygrad_rnn.ops.shape import from_end
from tinygrad_rnn.promotion import literal
from tinygrad_rnn.random import Generator

if TYPE_CHECKING:
    from typing_extensions import Self


class Writable(Operators):
    """An array with its place in the graph, and the methods that change it in place."""

    __slots__ = ("_edge", "array", "requires_grad")

    array: Array
    requires_grad: bool
    _edge: Edge | None  # its node, or (node, index) if that made several; None for a leaf

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor. Backward leaves `.grad` on leaves."""
        return self._edge is None

    def mark_written(self, writer: str = "an in-place operation") -> None:
        """Say that `.array` was written from outside: backward then notices a stale value."""
        writes.note(self.array, writer)

    def in_place(self, name: str, write: Callable[[Any, Array], None], operand: Any = None) -> Self:
        """Run `write(xp, array)`, which changes the values, if no recorded gradient forbids it.

        operand: what is written, if it may be a Tensor: its gradient would be lost.
        """
        if current.recording and self.requires_grad:
            kind = "a leaf that requires a gradient" if self.is_leaf else "part of a recorded graph"
            raise RuntimeError(
                f"{name}: this tensor is {kind}; change it under no_grad(), or write "
                "x = x + y instead of changing x in place"
            )
        if current.recording and isinstance(operand, Writable) and operand.requires_grad:
            raise RuntimeError(
                f"{name}: the values written require a gradient, which would be lost here; write "
                "x = x + y instead of changing x in place, or change it under no_grad()"
            )
        self._refuse_if_expanded(name)
        write(namespace(self.array), self.array)
        writes.note(self.array, name)
        return self

    def _checked(self, name: str, operand: Any) -> Any:
        """An operand of a write as an array of this device, or as a number."""
        if type(operand) is float or type(operand) is int:
            return operand
        value = operand.array if isinstance(operand, Operators) else literal(operand)  # type: ignore[attr-defined]
        if type(value) is type(self.array) is np.ndarray:
            return value
        if backend.is_array(value) and backend.device_of(value) is not self.device:
            require_one_device(name, (self, value), ("the tensor", "what is written"))
        return value

    def _refuse_if_expanded(self, name: str) -> None:
        """Raise RuntimeError if elements share a place in memory. CuPy would write them all."""
        array, strides = self.array, self.array.strides
        if 0 not in strides or not array.size:
            return
        if any(not step and size > 1 for step, size in zip(strides, array.shape, strict=True)):
            raise RuntimeError(
                f"{name}: elements of {describe(array)} share a place in memory, as expand makes "
                "them; write into a clone()"
            )

    def _arithmetic(self, name: str, ufunc: str, other: Any) -> Self:
        """x = ufunc(x, other) in place; x keeps its dtype."""
        value = self._checked(name, other)

        def write(xp: Any, array: Array) -> None:
            try:
                getattr(xp, ufunc)(array, value, out=array, casting="same_kind")
            except (ValueError, TypeError) as error:
                operands = f"{describe(array)}, {describe(value)}"
                raise RuntimeError(f"{name}({operands}): {error}") from error

        return self.in_place(name, write, other)

    def add_(self, other: Any, *, alpha: float = 1) -> Self:
        """x = x + alpha · other, in place."""
        return self._arithmetic("add_", "add", other if alpha == 1 else other * alpha)

    def sub_(self, other: Any, *, alpha: float = 1) -> Self:
        """x = x - alpha · other, in place."""
        return self._arithmetic("sub_", "subtract", other if alpha == 1 else other * alpha)

    def mul_(self, other: Any) -> Self:
        """x = x · other, in place."""
        return self._arithmetic("mul_", "multiply", other)

    def div_(self, other: Any) -> Self:
        """x = x / other, in place."""
        return self._arithmetic("div_", "divide", other)

    def pow_(self, exponent: Any) -> Self:
        """x = x to the power of exponent, in place."""
        return self._arithmetic("pow_", "power", exponent)

    def addcmul_(self, a: Writable, b: Writable, *, value: float = 1) -> Self:
        """x = x + value · a · b, in place."""
        return self.add_(a * b, alpha=value)

    def addcdiv_(self, a: Writable, b: Writable, *, value: float = 1) -> Self:
        """x = x + value · a / b, in place."""
        return self.add_(a / b, alpha=value)

    def lerp_(self, end: Writable, weight: float) -> Self:
        """x = x + weight · (end - x), in place."""
        return self.add_(end - self, alpha=weight)

    def clamp_(self, min: float | None = None, max: float | None = None) -> Self:
        """x = x brought into [min, max], in place."""
        return self.in_place("clamp_", lambda xp, x: xp.clip(x, min, max, out=x))

    def neg_(self) -> Self:
        """x = -x, in place."""
        return self.in_place("neg_", lambda xp, x: xp.negative(x, out=x))

    def fill_(self, value: Any) -> Self:
        """Every value becomes `value`, a number or a tensor without axes."""
        one = self._checked("fill_", value)
        if backend.is_array(one):  # stays where it is: a GPU need not be waited for
            return self.in_place("fill_", lambda xp, x: xp.copyto(x, one, casting="unsafe"), value)
        return self.in_place("fill_", lambda xp, x: x.fill(one), value)

    def zero_(self) -> Self:
        """Every value becomes 0."""
        return self.fill_(0)

    def copy_(self, source: Any) -> Self:
        """The values of `source`, broadcast to this shape and cast to this dtype, in place.

        They may come from another device: as in PyTorch, this is how values are moved into place.
        """
        array = source.array if isinstance(source, Writable) else source
        if not backend.is_array(array):
            array = np.asarray(array)
        if np.broadcast_shapes(array.shape, self.shape) != self.shape:
            raise RuntimeError(f"copy_: {describe(array)} does not fit into {describe(self)}")
        with backend.computing_on(self.device):
            moved = backend.to_device(array, self.device)
            copy = lambda xp, x: xp.copyto(x, moved, casting="unsafe")
            return self.in_place("copy_", copy, source)

    def masked_fill_(self, mask: Writable, value: Any) -> Self:
        """`value` where mask, in place."""
        one, where = self._checked("masked_fill_", value), self._checked("masked_fill_", mask)
        return self.in_place("masked_fill_", lambda xp, x: xp.copyto(x, one, where=where), value)

    def scatter_(self, dim: int, index: Writable, src: Any) -> Self:
        """x[…, index[…, k, …], …] = src[…, k, …] along an axis, or a number everywhere there.

        As an assignment, it may be recorded. Of several values for one place the last is kept, on
        every device, and it alone has a gradient.
        """
        if isinstance(src, Writable):
            if src.ndim != index.ndim or any(map(operator.gt, index.shape, src.shape)):
                raise RuntimeError(
                    f"scatter_: src {describe(src)} does not cover index {describe(index)}"
                )
            src = src[tuple(map(slice, index.shape))]
        self[self._places_along(dim, index, "scatter_")] = src
        return self

    def index_fill_(self, dim: int, index: Writable, value: Any) -> Self:
        """`value` at the listed indices of an axis, in place. As an assignment, may be recorded."""
        axis = from_end(dim, self.ndim)
        rows = checked_index(index, self.shape[axis], "index_fill_")
        after = (slice(None),) * (-1 - axis)
        part = (..., rows, *after)
        self[part] = value
        return self

    def uniform_(
        self, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None
    ) -> Self:
        """Values drawn uniformly from [a, b), in place."""
        source = generator or random.generator()
        return self.copy_(source.uniform(self.shape, a, b, self.dtype, self.device))

    def normal_(
        self, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
    ) -> Self:
        """Values drawn from the normal distribution, in place."""
        source = generator or random.generator()
        return self.copy_(source.normal(self.shape, mean, std, self.dtype))

    def bernoulli_(self, p: float = 0.5, *, generator: Generator | None = None) -> Self:
        """1 with chance p, else 0, in place."""
        source = generator or random.generator()
        return self.copy_(source.uniform(self.shape, device=self.device) < p)

    def __iadd__(self, other: Any) -> Self:
        return self + other if self._recorded_with(other) else self.add_(other)

    def __isub__(self, other: Any) -> Self:
        return self - other if self._recorded_with(other) else self.sub_(other)

    def __imul__(self, other: Any) -> Self:
        return self * other if self._recorded_with(other) else self.mul_(other)

    def __itruediv__(self, other: Any) -> Self:
        return self / other if self._recorded_with(other) else self.div_(other)

    def _recorded_with(self, other: Any) -> bool:
        """Whether x += other must make a new node (the name x then means that) and not write."""
        recorded = not self.is_leaf and self.requires_grad
        wants = isinstance(other, Writable) and other.requires_grad and not self.requires_grad
        return current.recording and (recorded or wants)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write `value` at `index`; of several values for one place, the last stays.

        While a gradient is recorded, this tensor becomes a new node and the values that backward
        needs stay as they were; a leaf that requires a gradient cannot be written so.
        """
        index = self._plain_index(index)
        if isinstance(value, list | tuple):
            value = backend.to_device(np.asarray(value), self.device)
        wants_gradient = isinstance(value, Writable) and value.requires_grad
        if current.recording and (self.requires_grad or wants_gradient):
            if self.is_leaf and self.requires_grad:
                raise RuntimeError(
                    "setitem: this tensor is a leaf that requires a gradient; write under "
                    "no_grad(), or write into a clone()"
                )
            self._become(self._put(index, value))
            return
        self._refuse_if_expanded("setitem")
        value = self._checked("setitem", value)
        try:
            assign(namespace(self.array), self.array, index, value)
        except (ValueError, IndexError, TypeError) as error:
            kind = type(error) if type(error) in (IndexError, TypeError) else RuntimeError
            raise kind(f"setitem: {describe(self.array)}: {error}") from error
        writes.note(self.array, "assignment to an index")

    def _become(self, other: Self) -> None:
        """Turn into another recorded tensor: what was recorded with the old value keeps it."""
        self.array, self._edge = other.array, other._edge
        self.requires_grad = other.requires_grad
