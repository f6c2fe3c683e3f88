"""Tensor: an array that records what is computed from it, and backward from the result.

A recorded result knows its edge: the `Node` that made it (`graph.py`), and which output it is.
Operations on Tensors all arrive in `Tensor.trace`; operators and methods are in
`ops/operators/`, and functions that make tensors from data in `creation.py`.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn import backend, printing, random
from tinygrad_rnn.autodiff import Edge, source
from tinygrad_rnn.backend import Array, DTypeLike, namespace
from tinygrad_rnn.graph import Hooks, Node, RemovableHandle, pull_back, watch_forward, writes
from tinygrad_rnn.modes import current, set_grad_enabled
from tinygrad_rnn.ops.elementwise import cast
from tinygrad_rnn.ops.indexing import assignable
from tinygrad_rnn.ops.operators import Operators
from tinygrad_rnn.ops.operators.arguments import checked_index, sizes_of, sizes_to_make
from tinygrad_rnn.ops.primitive import Primitive, Tracer, describe
from tinygrad_rnn.ops.shape import from_end
from tinygrad_rnn.random import Generator


class Tensor(Operators):
    """An array that records what is computed from it.

    array: the NumPy or CuPy array.  grad: the gradient that backward accumulated here, or None.
    requires_grad: whether operations on this tensor are recorded.
    `Tensor(array)` wraps an array without a copy, and keeps its dtype. `Tensor([1, 2])` takes
    Python numbers to the default floating dtype. `Tensor(3, 4)` has that size, and zeros, as from
    `empty`, until values are written.
    Use `tinygrad_rnn.tensor(data)` to copy, and to keep integers as they are.
    """

    __slots__ = ("__dict__", "__weakref__", "_edge", "array", "grad", "hooks", "requires_grad")
    __array_ufunc__ = None  # `ndarray * tensor` then calls Tensor.__rmul__

    array: Array
    grad: Tensor | None
    requires_grad: bool
    hooks: dict[int, Hooks] | None  # of a leaf; a recorded tensor's are its node's
    _edge: (
        Edge | None
    )  # the node that made it, or (node, index) if that made several; None for a leaf

    def __init__(
        self,
        *data: Any,
        dtype: DTypeLike = None,
        device: str | backend.device | None = None,
        requires_grad: bool = False,
    ) -> None:
        array = _array_of(data, dtype)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"Tensor: cannot hold {array.dtype} values (got {describe(data[0])})")
        if dtype is not None and array.dtype != np.dtype(dtype):
            array = array.astype(dtype)
        self.array = array if device is None else backend.to_device(array, device)
        self.grad = None
        self.hooks = None
        self._edge = None
        self.requires_grad = False
        if requires_grad:
            self.requires_grad_()

    # What an operation on Tensors does: compute, and record if a gradient may be asked for.

    def trace(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        """Compute the primitive on the operands' arrays, and record it unless nothing needs it."""
        arrays: list[Any] = []
        edges: list[Edge | None] = []
        needed, bit = 0, 1  # a bit for each operand that needs a cotangent
        dtype, one_dtype = self.array.dtype, True
        for operand in args:
            if isinstance(operand, Tensor):
                array = operand.array
                arrays.append(array)
                if array.dtype is not dtype:
                    one_dtype = False
                if operand.requires_grad:
                    edges.append(operand if operand._edge is None else operand._edge)
                    needed |= bit
                else:
                    edges.append(None)
            elif isinstance(operand, Tracer):
                return operand.trace(primitive, args, params)
            else:
                arrays.append(operand if type(operand) is float else _literal(operand))
                edges.append(None)
            bit += bit
        xp = np if type(self.array) is np.ndarray else namespace(self.array)
        try:
            result = primitive.evaluate(xp, *arrays, **params)
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            raise primitive.explain(error, arrays) from error
        outputs = result if type(result) is list else [result]
        if not (one_dtype and outputs and outputs[0].dtype is dtype) and _must_convert(
            primitive, outputs, arrays, edges
        ):
            return primitive(*_in_one_dtype(primitive, args, arrays), **params)
        if current.watching:
            watch_forward(primitive, arrays, outputs)
        node: Edge | None = None
        if needed and current.recording and primitive.differentiable:
            node = Node(primitive, arrays, outputs, params, edges, needed | bit)
        if outputs is not result:
            return wrap(result, node)
        if node is None or node.arity == 1:
            return [wrap(output, node) for output in outputs]
        return [wrap(output, (node, index)) for index, output in enumerate(outputs)]

    # What it is.

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type, as NumPy's dtype object."""
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.array.ndim

    @property
    def device(self) -> backend.device:
        """Where the array lives."""
        return backend.device_of(self.array)

    @property
    def is_cuda(self) -> bool:
        """Whether the array lives on a GPU."""
        return self.device.type == "cuda"

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor. Backward leaves `.grad` on leaves."""
        return self._edge is None

    @property
    def grad_fn(self) -> Node | None:
        """The node that made this tensor; None for a leaf."""
        return None if self._edge is None else source(self._edge)

    def is_floating_point(self) -> bool:
        """Whether the elements are floating-point numbers: only those can require gradients."""
        return bool(self.array.dtype.kind == "f")

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len: a tensor without axes has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        text = printing.text_of(self.array, prefix="tensor(")
        if self.dtype not in (np.float32, np.int64, np.bool_):
            text += f", dtype={self.dtype}"
        if self.is_cuda:
            text += f", device='{self.device}'"
        if self._edge is not None:
            text += f", grad_fn=<{source(self._edge).name()}>"
        elif self.requires_grad:
            text += ", requires_grad=True"
        return f"tensor({text})"

    def __bool__(self) -> bool:
        if self.array.size != 1:
            raise RuntimeError(
                f"bool: the truth of a tensor of {self.array.size} values is ambiguous; "
                "use .any() or .all()"
            )
        return bool(self.array.reshape(()))

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iub" or self.array.size != 1:
            raise TypeError(f"only a tensor of one integer can be an index, not {describe(self)}")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if not self.ndim else format(str(self), spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A leaf with its own memory; a recorded tensor cannot be copied without its graph."""
        if not self.is_leaf:
            raise RuntimeError(
                "deepcopy: only leaf tensors can be copied; this one was made by "
                f"'{source(self._edge).name()}'. Copy tensor.detach(), or use clone()"  # type: ignore[index]
            )
        twin: Any = object.__new__(type(self))
        memo[id(self)] = twin
        twin.array = self.array.copy()
        twin.grad = None if self.grad is None else self.grad.detach().clone()
        twin.hooks = None
        twin._edge, twin.requires_grad = None, self.requires_grad
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("tensors are not pickled; use tinygrad_rnn.save, which writes safetensors")

    # Out of the library.

    def numpy(self) -> np.ndarray[Any, Any]:
        """The values as a NumPy array on the host, sharing memory if they are there already.

        Raises RuntimeError if the tensor requires a gradient: use `.detach().numpy()`.
        """
        if self.requires_grad:
            raise RuntimeError(
                "numpy: this tensor requires a gradient, which NumPy would not record; "
                "use tensor.detach().numpy()"
            )
        return backend.to_numpy(self.array)

    def item(self) -> Any:
        """The only value, as a Python number."""
        if self.array.size != 1:
            raise RuntimeError(
                f"item: a tensor of shape {self.shape} has {self.array.size} values, not one; "
                "use .tolist()"
            )
        return self.array.item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self.array.tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    # Other tensors of this dtype on this device.

    def new_tensor(
        self,
        data: Any,
        *,
        dtype: DTypeLike = None,
        device: str | backend.device | None = None,
        requires_grad: bool = False,
    ) -> Tensor:
        """A leaf with a copy of the data; of this tensor's dtype and device unless given."""
        return Tensor(
            np.array(data.detach().cpu() if isinstance(data, Tensor) else data),
            dtype=self.dtype if dtype is None else dtype,
            device=self.device if device is None else device,
            requires_grad=requires_grad,
        )

    def new_full(self, size: Sequence[int], fill_value: float, **options: Any) -> Tensor:
        """One value at every place. The options are those of `new_tensor`."""
        return self.new_tensor(np.full(sizes_to_make((size,)), fill_value), **options)

    def new_zeros(self, *size: Any, **options: Any) -> Tensor:
        """Zeros. The options are those of `new_tensor`."""
        return self.new_full(sizes_of(size), 0, **options)

    def new_ones(self, *size: Any, **options: Any) -> Tensor:
        """Ones. The options are those of `new_tensor`."""
        return self.new_full(sizes_of(size), 1, **options)

    def new_empty(self, *size: Any, **options: Any) -> Tensor:
        """Zeros, whose values are still to be written. The options are those of `new_tensor`."""
        return self.new_zeros(*size, **options)

    def new(self, *size: Any) -> Tensor:
        """As new_empty, by its name before PyTorch 0.4."""
        return self.new_empty(*size)

    # The graph.

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask for (or stop asking for) a gradient with respect to this leaf."""
        if requires_grad and self.dtype.kind != "f":
            raise RuntimeError(
                f"requires_grad: only floating-point tensors can have gradients, not {self.dtype}"
            )
        if not requires_grad and not self.is_leaf:
            raise RuntimeError(
                "requires_grad: only leaf tensors can stop requiring gradients; use .detach()"
            )
        self.requires_grad = bool(requires_grad)
        return self

    def detach(self) -> Tensor:
        """The same values, sharing memory, cut off from the graph: no gradient flows past here."""
        return wrap(self.array, None)

    @property
    def data(self) -> Tensor:
        """The same values, sharing memory, without the graph. Assigning replaces the values."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"data: expected a Tensor, got {type(value).__name__}")
        self.array = value.array

    def detach_(self) -> Tensor:
        """Cut this tensor itself off from the graph that made it."""
        self._edge, self.requires_grad = None, False
        return self

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Tensor | Sequence[Tensor] | None = None,
    ) -> None:
        """Add d(self)/d(leaf), contracted with `gradient`, to `.grad` of every leaf in the graph.

        gradient: the cotangent of this tensor, of its shape; may be left out for a single value.
        retain_graph: keep the values for another backward; default: as create_graph.
        create_graph: record the backward pass itself, so that gradients can be differentiated.
        inputs: accumulate into these tensors only.
        """
        backward([self], [gradient], retain_graph, create_graph, inputs)

    def retain_grad(self) -> None:
        """Have backward leave `.grad` on this tensor although it is not a leaf."""
        if not self.requires_grad:
            raise RuntimeError("retain_grad: this tensor does not require a gradient")
        if self._edge is None or "_retained" in self.__dict__:
            return
        this = weakref.ref(self)

        def keep(g: Tensor) -> None:
            tensor = this()
            if tensor is not None:
                tensor._accumulate(g.clone())

        self.__dict__["_retained"] = self.register_hook(keep).id

    @property
    def retains_grad(self) -> bool:
        """Whether backward leaves `.grad` here although this is not a leaf."""
        return "_retained" in self.__dict__

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call `hook(grad)` whenever this tensor's gradient has been computed.

        What it returns, if not None, replaces the gradient from there on.
        """
        if not self.requires_grad:
            raise RuntimeError("register_hook: this tensor does not require a gradient")
        holder = self if self._edge is None else source(self._edge)
        index = self._edge[1] if type(self._edge) is tuple else 0
        if holder.hooks is None:
            holder.hooks = {}
        hooks = holder.hooks.setdefault(index, {})
        handle = RemovableHandle(hooks, hook)
        retained = self.__dict__.get("_retained", -1)
        if retained in hooks:  # stays last: `.grad` is what the other hooks have made of it
            hooks[retained] = hooks.pop(retained)
        return handle

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Call `hook(tensor)` whenever backward has added to `.grad` of this leaf."""
        if not self.requires_grad or not self.is_leaf:
            raise RuntimeError(
                "register_post_accumulate_grad_hook: expected a leaf that requires a gradient"
            )
        return RemovableHandle(self.__dict__.setdefault("_after_accumulation", {}), hook)

    def _accumulate(self, g: Tensor) -> None:
        """Add to `.grad`, which keeps this tensor's dtype; never into memory that others see."""
        if g.dtype != self.dtype:
            g = g.to(self.dtype)
        if self.grad is None:
            self.grad = g
        else:
            with set_grad_enabled(g.requires_grad or self.grad.requires_grad):
                self.grad = self.grad + g
        hooks = self.__dict__.get("_after_accumulation")
        if hooks:
            with set_grad_enabled(g.requires_grad):
                for hook in list(hooks.values()):
                    hook(self)

    # Changing values in place.

    def mark_written(self, writer: str = "an in-place operation") -> None:
        """Say that `.array` was written from outside: backward then notices a stale value."""
        writes.note(self.array, writer)

    def in_place(
        self, name: str, write: Callable[[Any, Array], None], operand: Any = None
    ) -> Tensor:
        """Run `write(xp, array)`, which changes the values, if no recorded gradient forbids it.

        operand: what is written, if it may be a Tensor: its gradient would be lost.
        """
        if current.recording and self.requires_grad:
            kind = "a leaf that requires a gradient" if self.is_leaf else "part of a recorded graph"
            raise RuntimeError(
                f"{name}: this tensor is {kind}; change it under no_grad(), or write "
                "x = x + y instead of changing x in place"
            )
        if current.recording and isinstance(operand, Tensor) and operand.requires_grad:
            raise RuntimeError(
                f"{name}: the values written require a gradient, which would be lost here; write "
                "x = x + y instead of changing x in place, or change it under no_grad()"
            )
        write(namespace(self.array), self.array)
        writes.note(self.array, name)
        return self

    def _arithmetic(self, name: str, ufunc: str, other: Any) -> Tensor:
        """x = ufunc(x, other) in place; x keeps its dtype."""
        value = other.array if isinstance(other, Tensor) else _literal(other)

        def write(xp: Any, array: Array) -> None:
            try:
                getattr(xp, ufunc)(array, value, out=array, casting="same_kind")
            except (ValueError, TypeError) as error:
                kind = TypeError if type(error) is TypeError else RuntimeError
                operands = f"{describe(array)}, {describe(value)}"
                raise kind(f"{name}({operands}): {error}") from error

        return self.in_place(name, write, other)

    def add_(self, other: Any, *, alpha: float = 1) -> Tensor:
        """x = x + alpha · other, in place."""
        return self._arithmetic("add_", "add", other if alpha == 1 else other * alpha)

    def sub_(self, other: Any, *, alpha: float = 1) -> Tensor:
        """x = x - alpha · other, in place."""
        return self._arithmetic("sub_", "subtract", other if alpha == 1 else other * alpha)

    def mul_(self, other: Any) -> Tensor:
        """x = x · other, in place."""
        return self._arithmetic("mul_", "multiply", other)

    def div_(self, other: Any) -> Tensor:
        """x = x / other, in place."""
        return self._arithmetic("div_", "divide", other)

    def pow_(self, exponent: Any) -> Tensor:
        """x = x to the power of exponent, in place."""
        return self._arithmetic("pow_", "power", exponent)

    def addcmul_(self, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
        """x = x + value · a · b, in place."""
        return self.add_(a * b, alpha=value)

    def addcdiv_(self, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
        """x = x + value · a / b, in place."""
        return self.add_(a / b, alpha=value)

    def lerp_(self, end: Tensor, weight: float) -> Tensor:
        """x = x + weight · (end - x), in place."""
        return self.add_(end - self, alpha=weight)

    def clamp_(self, min: float | None = None, max: float | None = None) -> Tensor:
        """X = x brought into [min, max], in place."""
        return self.in_place("clamp_", lambda xp, x: xp.clip(x, min, max, out=x))

    def neg_(self) -> Tensor:
        """x = -x, in place."""
        return self.in_place("neg_", lambda xp, x: xp.negative(x, out=x))

    def fill_(self, value: Any) -> Tensor:
        """Every value becomes `value`."""
        number = value.item() if isinstance(value, Tensor) else value
        return self.in_place("fill_", lambda xp, x: x.fill(number), value)

    def zero_(self) -> Tensor:
        """Every value becomes 0."""
        return self.fill_(0)

    def copy_(self, source: Any) -> Tensor:
        """The values of `source`, broadcast to this shape and cast to this dtype, in place."""
        array = source.array if isinstance(source, Tensor) else np.asarray(source)
        if np.broadcast_shapes(array.shape, self.shape) != self.shape:
            raise RuntimeError(f"copy_: {describe(array)} does not fit into {describe(self)}")
        moved = backend.to_device(array, self.device)
        return self.in_place("copy_", lambda xp, x: xp.copyto(x, moved, casting="unsafe"), source)

    def masked_fill_(self, mask: Tensor, value: Any) -> Tensor:
        """`value` where mask, in place."""
        number = value.item() if isinstance(value, Tensor) else value
        return self.in_place(
            "masked_fill_", lambda xp, x: xp.copyto(x, number, where=mask.array), value
        )

    def scatter_(self, dim: int, index: Tensor, src: Any) -> Tensor:
        """x[…, index[…, k, …], …] = src[…, k, …] along an axis, or a number everywhere there.

        As an assignment, it may be recorded. Of values for one place, one is kept: do not rely on
        which.
        """
        if isinstance(src, Tensor):
            if src.ndim != index.ndim or any(map(operator.gt, index.shape, src.shape)):
                raise RuntimeError(
                    f"scatter_: src {describe(src)} does not cover index {describe(index)}"
                )
            src = src[tuple(map(slice, index.shape))]
        self[self._places_along(dim, index, "scatter_")] = src
        return self

    def index_fill_(self, dim: int, index: Tensor, value: Any) -> Tensor:
        """`value` at the listed indices of an axis, in place. As an assignment, may be recorded."""
        axis = from_end(dim, self.ndim)
        rows = checked_index(index, self.shape[axis], "index_fill_")
        after = (slice(None),) * (-1 - axis)
        part = (..., rows, *after)
        self[part] = value
        return self

    def uniform_(
        self, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None
    ) -> Tensor:
        """Values drawn uniformly from [a, b), in place."""
        source = generator or random.generator()
        return self.copy_(source.uniform(self.shape, a, b, self.dtype))

    def normal_(
        self, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
    ) -> Tensor:
        """Values drawn from the normal distribution, in place."""
        source = generator or random.generator()
        return self.copy_(source.normal(self.shape, mean, std, self.dtype))

    def bernoulli_(self, p: float = 0.5, *, generator: Generator | None = None) -> Tensor:
        """1 with chance p, else 0, in place."""
        source = generator or random.generator()
        return self.copy_(source.uniform(self.shape) < p)

    def __iadd__(self, other: Any) -> Tensor:
        return self + other if self._recorded_with(other) else self.add_(other)

    def __isub__(self, other: Any) -> Tensor:
        return self - other if self._recorded_with(other) else self.sub_(other)

    def __imul__(self, other: Any) -> Tensor:
        return self * other if self._recorded_with(other) else self.mul_(other)

    def __itruediv__(self, other: Any) -> Tensor:
        return self / other if self._recorded_with(other) else self.div_(other)

    def _recorded_with(self, other: Any) -> bool:
        """Whether x += other must make a new node (the name x then means that) and not write."""
        recorded = not self.is_leaf and self.requires_grad
        wants = isinstance(other, Tensor) and other.requires_grad and not self.requires_grad
        return current.recording and (recorded or wants)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write `value` at `index`.

        While a gradient is recorded, this tensor becomes a new node and the values that backward
        needs stay as they were; a leaf that requires a gradient cannot be written so.
        """
        index = self._plain_index(index)
        wants_gradient = isinstance(value, Tensor) and value.requires_grad
        if current.recording and (self.requires_grad or wants_gradient):
            if self.is_leaf and self.requires_grad:
                raise RuntimeError(
                    "setitem: this tensor is a leaf that requires a gradient; write under "
                    "no_grad(), or write into a clone()"
                )
            self._become(self._put(index, value))
            return
        value = assignable(value.array if isinstance(value, Tensor) else value)
        try:
            self.array[index] = value
        except (ValueError, IndexError, TypeError) as error:
            kind = type(error) if type(error) in (IndexError, TypeError) else RuntimeError
            raise kind(f"setitem: {describe(self.array)}: {error}") from error
        writes.note(self.array, "assignment to an index")

    def _become(self, other: Tensor) -> None:
        """Turn into another recorded tensor: what was recorded with the old value keeps it."""
        self.array, self._edge = other.array, other._edge
        self.requires_grad = other.requires_grad


def wrap(array: Any, edge: Edge | None) -> Tensor:
    """A Tensor around an operation's result (an array, or a NumPy scalar from a reduction)."""
    made = object.__new__(Tensor)
    made.array = array if type(array) is np.ndarray else _as_array(array)
    made.grad = made.hooks = None
    made._edge = edge
    made.requires_grad = edge is not None
    return made


def _array_of(data: tuple[Any, ...], dtype: DTypeLike) -> Array:
    """What `Tensor(*data)` is to hold: an array as it is, numbers as an array, zeros for sizes."""
    wanted = backend.get_default_dtype() if dtype is None else dtype
    if all(isinstance(size, int) and not isinstance(size, bool) for size in data):
        return np.zeros(sizes_to_make(data) if data else 0, wanted)
    if len(data) != 1:
        raise TypeError(
            f"Tensor: expected an array, a list of numbers, or sizes one by one, got {data}; "
            "dtype, device and requires_grad are named: Tensor(array, dtype=…)"
        )
    value = data[0].array if isinstance(data[0], Tensor) else data[0]
    if backend.is_array(value):
        return value
    array = np.asarray(value)
    has_precision = isinstance(value, np.generic) or array.dtype.kind not in "biuf"
    return array if has_precision else array.astype(wanted)


def _as_array(value: Any) -> Array:
    return value if backend.is_array(value) else np.asarray(value)


def _literal(operand: Any) -> Any:
    """A constant operand: numbers stay Python numbers, which do not widen a float32 result."""
    if isinstance(operand, np.generic):
        return operand.item()
    if isinstance(operand, bool | int | float) or backend.is_array(operand):
        return operand
    raise TypeError(f"expected a Tensor, an array or a number, got {type(operand).__name__}")


def _must_convert(
    primitive: Primitive, outputs: list[Any], arrays: list[Any], edges: list[Edge | None]
) -> bool:
    """Whether operands of several dtypes met and must be brought to one before computing.

    Two cases: NumPy computed integers or truth values in a float of its own choice; or an operand
    that needs a gradient was widened, and its gradient must come back in its own dtype.
    """
    if not (primitive.one_dtype and outputs and outputs[0].dtype.kind == "f"):
        return False
    dtype = outputs[0].dtype
    if any(
        edge is not None and array.dtype != dtype for array, edge in zip(arrays, edges, strict=True)
    ):
        return True
    met = [x.dtype for x, enters in zip(arrays, _enter(primitive, arrays), strict=True) if enters]
    common = _common_dtype(met)
    return dtype != common and any(each != common for each in met)


def _in_one_dtype(primitive: Primitive, args: tuple[Any, ...], arrays: list[Any]) -> list[Any]:
    """The operands, those that enter the result's values cast to one floating dtype."""
    enters = _enter(primitive, arrays)
    dtype = _common_dtype([x.dtype for x, enter in zip(arrays, enters, strict=True) if enter])
    return [
        cast(arg, dtype=dtype, source=array.dtype) if enter and array.dtype != dtype else arg
        for arg, array, enter in zip(args, arrays, enters, strict=True)
    ]


def _enter(primitive: Primitive, arrays: list[Any]) -> list[bool]:
    """Whether each operand is an array whose values enter the result's: no index, no condition."""
    rules = primitive.rules or [True] * len(arrays)
    return [rule is not None and backend.is_array(x) for rule, x in zip(rules, arrays, strict=True)]


def _common_dtype(dtypes: list[np.dtype[Any]]) -> np.dtype[Any]:
    """The widest floating dtype; integers do not widen it, and alone give the default one."""
    floats = [dtype for dtype in dtypes if dtype.kind == "f"]
    return np.result_type(*floats) if floats else backend.get_default_dtype()


# --- backward ------------------------------------------------------------------------------------


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Add the gradient of the tensors, summed, to `.grad` of the leaves. See `Tensor.backward`."""
    targets = None if inputs is None else _as_tuple(inputs)
    wanted = None if targets is None else [_edge_of(tensor, "backward") for tensor in targets]
    cotangents = pull_back(
        _seeds(tensors, grad_tensors, "backward"),
        None if wanted is None else set(wanted),
        wrap,
        create_graph if retain_graph is None else retain_graph,
        create_graph,
    )
    if targets is not None and wanted is not None:
        receivers = [(tensor, edge) for tensor, edge in zip(targets, wanted, strict=True)]
    else:
        receivers = [(leaf, leaf) for leaf in cotangents]
    for tensor, edge in receivers:
        if edge in cotangents:
            tensor._accumulate(cotangents[edge])


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """d(sum of outputs)/d(input), contracted with grad_outputs, for each input.

    inputs: leaves or recorded tensors.
    allow_unused: give None for an input that the outputs do not depend on, instead of an error.
    materialize_grads: give zeros for it (this allows unused inputs).
    only_inputs, is_grads_batched: in PyTorch's places; only their defaults exist here.
    Raises RuntimeError for an input that does not require a gradient or is unused.
    """
    if not only_inputs or is_grads_batched:
        raise NotImplementedError("grad: only_inputs=False and is_grads_batched=True do not exist")
    targets = _as_tuple(inputs)
    edges = [_edge_of(tensor, "grad") for tensor in targets]
    cotangents = pull_back(
        _seeds(outputs, grad_outputs, "grad"),
        set(edges),
        wrap,
        create_graph if retain_graph is None else retain_graph,
        create_graph,
    )
    found: list[Tensor | None] = []
    for place, (tensor, edge) in enumerate(zip(targets, edges, strict=True)):
        g = cotangents.get(edge)
        if g is None and not (allow_unused or materialize_grads):
            raise RuntimeError(
                f"grad: the outputs do not depend on inputs[{place}] ({describe(tensor)}); "
                "pass allow_unused=True to get None for it"
            )
        if g is None and materialize_grads:
            g = wrap(namespace(tensor.array).zeros_like(tensor.array), None)
        found.append(g if g is None or g.dtype == tensor.dtype else g.to(tensor.dtype))
    return tuple(found)


def _as_tuple(tensors: Any) -> tuple[Any, ...]:
    return (tensors,) if tensors is None or isinstance(tensors, Tensor) else tuple(tensors)


def _edge_of(tensor: Tensor, caller: str) -> Edge:
    """Where cotangents of a tensor arrive."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{caller}: expected Tensors, got {type(tensor).__name__}")
    if not tensor.requires_grad:
        raise RuntimeError(
            f"{caller}: a tensor of {describe(tensor)} does not require a gradient and was not "
            "made from one that does; was it detached, or computed under no_grad()?"
        )
    return tensor if tensor._edge is None else tensor._edge


def _seeds(tensors: Any, gradients: Any, caller: str) -> dict[Edge, Tensor]:
    """The cotangents that backward starts from, by edge."""
    roots, given = _as_tuple(tensors), _as_tuple(gradients)
    if len(given) == 1 and given[0] is None:
        given = (None,) * len(roots)
    if len(given) != len(roots):
        raise RuntimeError(f"{caller}: {len(roots)} tensors but {len(given)} gradients")
    seeds: dict[Edge, Tensor] = {}
    for root, gradient in zip(roots, given, strict=True):
        edge, seed = _edge_of(root, caller), _seed(root, gradient, caller)
        seeds[edge] = seeds[edge] + seed if edge in seeds else seed
    return seeds


def _seed(tensor: Tensor, gradient: Tensor | None, caller: str) -> Tensor:
    """The cotangent that backward starts from."""
    if gradient is None:
        if tensor.array.size != 1:
            raise RuntimeError(
                f"{caller}: the gradient can be left out only for a single value, not for "
                f"{describe(tensor)}; pass a tensor of that shape, or reduce with .sum()"
            )
        return wrap(namespace(tensor.array).ones_like(tensor.array), None)
    if not isinstance(gradient, Tensor):
        raise TypeError(f"{caller}: the gradient must be a Tensor, got {type(gradient).__name__}")
    if gradient.shape != tensor.shape:
        raise RuntimeError(
            f"{caller}: the gradient has shape {gradient.shape}, the tensor {tensor.shape}"
        )
    return gradient if gradient.dtype == tensor.dtype else gradient.to(tensor.dtype)
