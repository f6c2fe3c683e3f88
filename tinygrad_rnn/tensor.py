"""Tensor: an array that records what is computed from it, and backward from the result.

A recorded result knows its edge: the `Node` that made it (`graph.py`), and which output it is.
Operations on Tensors all arrive in `Tensor.trace`; operators and methods are in
`ops/operators/`, in-place methods in `writing.py`, rules for mixed dtypes in `promotion.py`, and
functions that make tensors from data in `creation.py`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy import ndarray

from tinygrad_rnn import backend, printing
from tinygrad_rnn.autodiff import Edge, source
from tinygrad_rnn.backend import Array, DTypeLike, namespace
from tinygrad_rnn.graph import Hooks, Node, RemovableHandle, pull_back
from tinygrad_rnn.modes import current, set_grad_enabled
from tinygrad_rnn.ops.devices import check_operands, check_output, require_one_device
from tinygrad_rnn.ops.operators.arguments import sizes_of, sizes_to_make
from tinygrad_rnn.ops.primitive import Primitive, Tracer, describe
from tinygrad_rnn.promotion import in_one_dtype, literal, must_convert
from tinygrad_rnn.writing import Writable


class Tensor(Writable):
    """An array that records what is computed from it.

    array: the NumPy or CuPy array.  grad: the gradient that backward accumulated here, or None.
    requires_grad: whether operations on this tensor are recorded.
    `Tensor(array)` wraps an array without a copy, and keeps its dtype. `Tensor([1, 2])` takes
    Python numbers to the default floating dtype. `Tensor(3, 4)` has that size, and zeros, as from
    `empty`, until values are written. An array stays on its device; numbers go to the default one.
    Use `tinygrad_rnn.tensor(data)` to copy, and to keep integers as they are.
    """

    __slots__ = ("__dict__", "__weakref__", "grad", "hooks")
    __array_ufunc__ = None  # `ndarray * tensor` then calls Tensor.__rmul__

    grad: Tensor | None
    hooks: dict[int, Hooks] | None  # of a leaf; a recorded tensor's are its node's

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
                arrays.append(operand if type(operand) is float else literal(operand))
                edges.append(None)
            bit += bit
        if type(self.array) is ndarray:
            xp = np
        else:
            xp = namespace(self.array)
            check_operands(primitive, arrays)  # a kernel would take an address of the host as it is
        watches = current.watches
        if watches:
            for watch in watches:
                watch.before(primitive, args)
        try:
            result = primitive.evaluate(xp, *arrays, **params)
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            check_operands(primitive, arrays)
            if xp is not np:
                check_output(primitive, self.array, None)
            raise primitive.explain(error, arrays) from error
        if type(result) is ndarray:
            outputs = [result]
        else:
            outputs = result if type(result) is list else [result]
            if xp is np and len(arrays) > 1:  # another operand's library may have computed it
                check_operands(primitive, arrays)
            elif xp is not np and outputs:
                check_output(primitive, self.array, outputs[0])
        if not (one_dtype and outputs and outputs[0].dtype is dtype) and must_convert(
            primitive, outputs, arrays, edges
        ):
            return primitive(*in_one_dtype(primitive, args, arrays), **params)
        node: Edge | None = None
        if needed and current.recording and primitive.differentiable:
            node = Node(primitive, arrays, outputs, params, edges, needed | bit)
        made: Any
        if outputs is not result:
            made = wrap(result, node)
        elif node is None or node.arity == 1:
            made = [wrap(output, node) for output in outputs]
        else:
            made = [
                wrap(output, (node, index) if output.dtype.kind == "f" else None)
                for index, output in enumerate(outputs)
            ]
        if watches:
            for watch in watches:
                watch.after(primitive, args, params, made)
        return made

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
        return bool(self.array.item())

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

        This is the border: the values of a GPU are copied, once all that they depend on has been
        computed. (PyTorch has one write `.cpu().numpy()`.)
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
        wanted = self.dtype if dtype is None else np.dtype(dtype)
        shares = wanted == self.dtype and not self.is_cuda
        if copy is False and not shares:
            raise ValueError(
                f"__array__: a tensor of {self.dtype} on {self.device} cannot become a NumPy array "
                f"of {wanted} without a copy"
            )
        return self.numpy().astype(wanted, copy=bool(copy) and shares)

    def __dlpack__(self, **options: Any) -> Any:
        """The memory as a DLPack capsule, which other libraries take in without a copy."""
        self._check_shareable()
        if any(stride < 0 for stride in self.array.strides):  # PyTorch would end the process
            raise BufferError(
                "__dlpack__: a view that runs backwards cannot be shared with every library; "
                "use tensor.clone()"
            )
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """The kind of device, in DLPack's numbers, and which one of that kind."""
        return self.array.__dlpack_device__()  # type: ignore[no-any-return]

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Where on the GPU the values are, for Numba and others; only on a GPU."""
        if not self.is_cuda:
            raise AttributeError("__cuda_array_interface__: this tensor is on the CPU")
        self._check_shareable()
        return self.array.__cuda_array_interface__  # type: ignore[no-any-return]

    def _check_shareable(self) -> None:
        """Raise BufferError if another library would compute with this and lose the gradient."""
        if self.requires_grad:
            raise BufferError(
                "this tensor requires a gradient, which another library would not record; share "
                "tensor.detach()"
            )

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
        array = data.array if isinstance(data, Tensor) else data
        return Tensor(
            array.copy() if backend.is_array(array) else np.array(array),
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


def wrap(array: Any, edge: Edge | None) -> Tensor:
    """A Tensor around an operation's result (an array, or a NumPy scalar from a reduction)."""
    made = object.__new__(Tensor)
    made.array = array if type(array) is ndarray else _as_array(array)
    made.grad = made.hooks = None
    made._edge = edge
    made.requires_grad = edge is not None
    return made


def _array_of(data: tuple[Any, ...], dtype: DTypeLike) -> Array:
    """What `Tensor(*data)` is to hold: an array as it is, numbers as an array, zeros for sizes."""
    wanted = backend.get_default_dtype() if dtype is None else dtype
    if all(isinstance(size, int) and not isinstance(size, bool) for size in data):
        sizes = sizes_to_make(data) if data else (0,)
        return backend.filled(sizes, 0, wanted, backend.get_default_device())
    if len(data) != 1:
        raise TypeError(
            f"Tensor: expected an array, a list of numbers, or sizes one by one, got {data}; "
            "dtype, device and requires_grad are named: Tensor(array, dtype=…)"
        )
    value = data[0].array if isinstance(data[0], Tensor) else data[0]
    if backend.is_array(value):
        return value
    array = np.asarray(value)
    if not isinstance(value, np.generic) and array.dtype.kind in "biuf":
        array = array.astype(wanted)  # Python numbers have no precision of their own
    return backend.to_device(array, backend.get_default_device())


def _as_array(value: Any) -> Array:
    return value if backend.is_array(value) else np.asarray(value)


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
    return (tensors,) if tensors is None or isinstance(tensors, Tracer) else tuple(tensors)


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
    require_one_device(caller, (tensor, gradient), ("the tensor", "its gradient"))
    return gradient if gradient.dtype == tensor.dtype else gradient.to(tensor.dtype)
