"""What is a layer, and how does a program find everything in it that is learnt, stored or moved?

A `Module` is a tree: it owns parameters (learnt), buffers (stored, not learnt) and child modules,
each in a table that `__setattr__` fills, so that `self.weight = Parameter(...)` registers it.
Everything else in this file walks that tree, always in the order of registration. A module computes
nothing by itself; linear.py, embedding.py, recurrent/ and their siblings do. Read parameter.py and
hooks.py before this file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tinygrad_rnn.graph import RemovableHandle
from tinygrad_rnn.modes import no_grad
from tinygrad_rnn.nn import hooks
from tinygrad_rnn.nn.parameter import Parameter
from tinygrad_rnn.ops.devices import DeviceError
from tinygrad_rnn.ops.operators import Operators
from tinygrad_rnn.tensor import Tensor

# The tables of a module; how its errors call an entry, and the type that one must have.
REGISTRIES = {
    "_parameters": ("parameter", "Parameter"),
    "_buffers": ("buffer", "Tensor"),
    "_modules": ("module", "Module"),
}

ModuleT = TypeVar("ModuleT", bound="Module")


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` could not match: names it lacked, and names it had no place for."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (
            f"IncompatibleKeys(missing_keys={self.missing_keys}, "
            f"unexpected_keys={self.unexpected_keys})"
        )


def _missing_forward(self: Module, *args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError(
        f'Module [{type(self).__name__}] is missing the required "forward" function'
    )


class Module:
    """The base class of every layer and model: a tree of parameters, buffers and child modules.

    A subclass calls `super().__init__()`, assigns its parts to attributes, and defines `forward`.
    Calling the module runs `forward` between its hooks.

    >>> from tinygrad_rnn.nn import Linear
    >>> class Perceptron(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden = Linear(3, 5)
    ...         self.output = Linear(5, 1)
    ...     def forward(self, x):
    ...         return self.output(self.hidden(x).tanh())
    >>> [name for name, _ in Perceptron().named_parameters()]
    ['hidden.weight', 'hidden.bias', 'output.weight', 'output.bias']
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers: set[str]
    _forward_pre_hooks: hooks.HookTable
    _forward_hooks: hooks.HookTable
    _backward_hooks: hooks.HookTable

    forward: Callable[..., Any] = _missing_forward

    def __init__(self) -> None:
        # Through __dict__, because __setattr__ below consults the tables that are made here.
        self.__dict__.update(
            training=True,
            _parameters={},
            _buffers={},
            _modules={},
            _non_persistent_buffers=set(),
            _forward_pre_hooks={},
            _forward_hooks={},
            _backward_hooks={},
        )

    def __setattr__(self, name: str, value: Any) -> None:
        tables = self.__dict__
        if isinstance(value, (Parameter, Module)):
            home = "_parameters" if isinstance(value, Parameter) else "_modules"
            self._check_initialised(home)
            for table in (tables, *(tables[r] for r in REGISTRIES if r != home)):
                table.pop(name, None)
            self._non_persistent_buffers.discard(name)
            self._check_free(home, name)
            tables[home][name] = value
            return
        for registry, (kind, expected) in REGISTRIES.items():
            if name in tables.get(registry, ()):
                if value is not None and not (kind == "buffer" and isinstance(value, Tensor)):
                    raise TypeError(
                        f"cannot assign '{_type_name(value)}' as {kind} '{name}' "
                        f"({expected} or None expected)"
                    )
                tables[registry][name] = value
                return
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        # Reached only when the ordinary lookup has failed.
        tables = self.__dict__
        for registry in REGISTRIES:
            if name in tables.get(registry, ()):
                return tables[registry][name]
        message = f"'{type(self).__name__}' object has no attribute '{name}'"
        if "_parameters" not in tables:
            message += f"; does {type(self).__name__}.__init__ call super().__init__() first?"
        raise AttributeError(message)

    def __delattr__(self, name: str) -> None:
        for registry in REGISTRIES:
            if name in self.__dict__.get(registry, ()):
                del self.__dict__[registry][name]
                self._non_persistent_buffers.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Own `param` under `name`; None reserves the name (a layer without bias, say)."""
        self._check_free("_parameters", name)
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{_type_name(param)}' object to parameter '{name}' "
                "(Parameter or None required)"
            )
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Own `tensor` under `name`: moved with the module, never learnt.

        A persistent buffer is part of `state_dict`; the others are recomputed by whoever builds the
        module (a causal mask, say).
        """
        self._check_free("_buffers", name)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{_type_name(tensor)}' object to buffer '{name}' "
                "(Tensor or None required)"
            )
        self._buffers[name] = tensor
        if not persistent:
            self._non_persistent_buffers.add(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Own `module` under `name`; the same as assigning it, for names made at run time."""
        self._check_free("_modules", name)
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{_type_name(module)} is not a Module subclass")
        self._modules[name] = module

    add_module = register_module

    def _check_initialised(self, registry: str) -> None:
        if registry not in self.__dict__:
            raise AttributeError(
                f"cannot assign {REGISTRIES[registry][0]} before Module.__init__() call; "
                f"{type(self).__name__}.__init__ must call super().__init__() first"
            )

    def _check_free(self, registry: str, name: str) -> None:
        self._check_initialised(registry)
        kind, _ = REGISTRIES[registry]
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {_type_name(name)}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if hasattr(self, name) and name not in self.__dict__[registry]:
            raise KeyError(f"attribute '{name}' already exists")

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below it, parents first, with dotted names; each module once."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                below = f"{prefix}.{name}" if prefix else name
                yield from module.named_modules(memo, below, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, parents first, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct children with their names, each child once."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The direct children, each once."""
        return (module for _, module in self.named_children())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters with dotted names; a shared one once, under its first name."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once: what an optimizer takes."""
        return (param for _, param in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """All buffers with dotted names; a shared one once, under its first name."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def _named_members(
        self, registry: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        owners = (
            self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
            if recurse
            else [(prefix, self)]
        )
        seen: set[int] = set()
        for path, owner in owners:
            for name, member in owner.__dict__[registry].items():
                if member is None or id(member) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(member))
                yield (f"{path}.{name}" if path else name), member

    def get_submodule(self, target: str) -> Module:
        """The module under the dotted name `target`; this one for the empty name."""
        module = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
            child = getattr(module, name)
            if not isinstance(child, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
            module = child
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter under the dotted name `target`."""
        owner, name = self._owner(target)
        param = owner._parameters.get(name)
        if param is None:
            raise AttributeError(f"`{name}` is not an nn.Parameter")
        return param

    def get_buffer(self, target: str) -> Tensor:
        """The buffer under the dotted name `target`."""
        owner, name = self._owner(target)
        buffer = owner._buffers.get(name)
        if buffer is None:
            raise AttributeError(f"`{name}` is not a buffer")
        return buffer

    def _owner(self, target: str) -> tuple[Module, str]:
        """The module that holds the member with dotted name `target`, and the member's own name."""
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        if not hasattr(owner, name):
            raise AttributeError(f"{type(owner).__name__} has no attribute `{name}`")
        return owner, name

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> dict[str, Tensor]:
        """Parameters and persistent buffers by dotted name, sharing the module's arrays.

        `keep_vars=True` gives the parameters themselves, otherwise they are detached. A parameter
        that two modules share appears under both names.
        """
        return {
            name: tensor if keep_vars else tensor.detach()
            for name, tensor in self._named_state(prefix)
        }

    def _named_state(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        for path, module in self.named_modules(remove_duplicate=False):
            owner = f"{prefix}{path}." if path else prefix
            for name, tensor in {**module._parameters, **module._buffers}.items():
                if tensor is not None and name not in module._non_persistent_buffers:
                    yield owner + name, tensor

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> IncompatibleKeys:
        """Copy the values of `state_dict` into this module's own arrays, on the device of these.

        The parameters stay the same objects, so an optimizer that holds them goes on working.

        Args:
            state_dict: dotted names to Tensors, NumPy arrays, or anything that NumPy can read
                through `__array__` (a `state_dict` of PyTorch on the CPU, say).
            strict: whether missing and unexpected names are an error.

        Returns:
            The names missing from `state_dict` and the names in it that the module does not have.

        Raises:
            RuntimeError: names or sizes that do not fit, all listed. Nothing has been written then;
                PyTorch has already copied what did fit.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        own = dict(self._named_state())
        keys = IncompatibleKeys(
            [name for name in own if name not in state_dict],
            [name for name in state_dict if name not in own],
        )
        errors: list[str] = []
        if strict:
            for complaint, names in zip(("Missing", "Unexpected"), keys, strict=True):
                if names:
                    listed = ", ".join(f'"{name}"' for name in names)
                    errors.append(f"{complaint} key(s) in state_dict: {listed}. ")
        values: dict[str, Any] = {}
        for name, tensor in own.items():
            if name in state_dict:
                try:
                    values[name] = _loadable(name, state_dict[name], tensor.shape)
                except ValueError as error:
                    errors.append(str(error))
        if errors:
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t"
                + "\n\t".join(errors)
            )
        with no_grad():
            for name, value in values.items():
                own[name].copy_(value)
        return keys

    def train(self: ModuleT, mode: bool = True) -> ModuleT:
        """Set the training mode (dropout on) of this module and all below it."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: ModuleT) -> ModuleT:
        """Set the evaluation mode (dropout off) of this module and all below it."""
        return self.train(False)

    def requires_grad_(self: ModuleT, requires_grad: bool = True) -> ModuleT:
        """Freeze (False) or unfreeze every parameter."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros."""
        for param in self.parameters():
            if set_to_none or param.grad is None:
                param.grad = None
            else:
                param.grad = param.grad.detach()
                param.grad.zero_()

    def apply(self: ModuleT, fn: Callable[[Module], Any]) -> ModuleT:
        """Call `fn` on every module, children before parents: the way to initialise a model."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def to(
        self: ModuleT, *args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False
    ) -> ModuleT:
        """Move to a device, convert floating-point members to a dtype, or both; in place.

        `to(device)`, `to(dtype)`, `to(device, dtype)`, `to(tensor)`. Integer buffers move but keep
        their dtype. The parameters stay the same objects. `non_blocking` is accepted and has no
        effect: copies here are synchronous.
        """
        for arg in args:
            if isinstance(arg, Tensor):
                device, dtype = arg.device, arg.dtype
            elif isinstance(arg, (np.dtype, type)):
                dtype = arg
            elif arg is not None and not isinstance(arg, bool):
                device = arg
        if dtype is not None and np.dtype(dtype).kind != "f":
            raise TypeError(
                "nn.Module.to only accepts floating point dtypes, "
                f"but got desired dtype={np.dtype(dtype)}"
            )

        def convert(tensor: Tensor) -> Tensor:
            if dtype is not None and tensor.dtype.kind == "f":
                tensor = tensor.to(dtype)
            return tensor if device is None else tensor.to(device)

        return self._convert(convert)

    def float(self: ModuleT) -> ModuleT:
        """Convert floating-point parameters and buffers to float32."""
        return self.to(np.dtype("float32"))

    def double(self: ModuleT) -> ModuleT:
        """Convert floating-point parameters and buffers to float64."""
        return self.to(np.dtype("float64"))

    def cuda(self: ModuleT, device: Any = None) -> ModuleT:
        """Move to the GPU that computes, or to the one named."""
        return self.to(device="cuda" if device is None else device)

    def cpu(self: ModuleT) -> ModuleT:
        """Move to host memory."""
        return self.to("cpu")

    def _convert(self: ModuleT, convert: Callable[[Tensor], Tensor]) -> ModuleT:
        """Replace the arrays of parameters and their gradients, and the buffers."""
        for param in self.parameters():
            grad = param.grad
            param.grad = None  # its device and dtype must be those of the parameter
            param.data = convert(param.detach())
            if grad is not None:
                param.grad = convert(grad.detach())
        for module in self.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = convert(buffer)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward`, and the hooks around it."""
        try:
            if not (self._forward_pre_hooks or self._forward_hooks or self._backward_hooks):
                return self.forward(*args, **kwargs)
            return self._call_with_hooks(args, kwargs)
        except DeviceError as error:
            if not error.named:
                error.name(type(self).__name__, self._named_tensors(args, kwargs))
            raise

    def _named_tensors(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Iterator[tuple[str, Any]]:
        """The tensors of a call, by the names of `forward`'s arguments; then all that is owned."""
        parameters = inspect.signature(self.forward).parameters.values()
        names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        for place, value in enumerate(args):
            yield from _tensors(names[place] if place < len(names) else f"args[{place}]", value)
        for name, value in kwargs.items():
            yield from _tensors(name, value)
        yield from self.named_parameters()
        yield from self.named_buffers()

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for hook in list(self._forward_pre_hooks.values()):
            args, kwargs = hook(self, args, kwargs)
        watch = hooks.BackwardHooks(self, self._backward_hooks) if self._backward_hooks else None
        if watch:
            args = watch.inputs(args)
        result = self.forward(*args, **kwargs)
        for hook in list(self._forward_hooks.values()):
            replaced = hook(self, args, kwargs, result)
            result = result if replaced is None else replaced
        return watch.outputs(result) if watch else result

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args)` before `forward`; what it returns replaces the arguments.

        With `with_kwargs`, `hook(module, args, kwargs)` returns None or `(args, kwargs)`.
        """

        def call(module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            replaced = hook(module, args, kwargs) if with_kwargs else hook(module, args)
            if replaced is None:
                return args, kwargs
            if not with_kwargs:
                return (replaced if isinstance(replaced, tuple) else (replaced,)), kwargs
            if not isinstance(replaced, tuple) or len(replaced) != 2:
                raise RuntimeError(
                    "forward pre-hook must return None or a tuple of (new_args, new_kwargs), "
                    f"but got {replaced}."
                )
            return replaced

        return hooks.register(self._forward_pre_hooks, call, prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args, output)` after `forward`; what it returns replaces the output.

        With `with_kwargs`, the call is `hook(module, args, kwargs, output)`.
        """

        def call(module: Module, args: Any, kwargs: Any, result: Any) -> Any:
            if with_kwargs:
                return hook(module, args, kwargs, result)
            return hook(module, args, result)

        return hooks.register(self._forward_hooks, call, prepend)

    def register_full_backward_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` once the inputs' gradients are known.

        Both are tuples with one entry per positional argument or output, None where there is no
        gradient. What the hook returns, if not None, replaces `grad_input`. Tensors inside nested
        structures (the state of an LSTM) are not covered, as in PyTorch.
        """
        return hooks.register(self._backward_hooks, hook, prepend)

    def extra_repr(self) -> str:
        """The constructor arguments as text, for `repr`; subclasses override it."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        children = [f"({name}): {module!r}" for name, module in self._modules.items()]
        if not children and "\n" not in extra:
            return f"{type(self).__name__}({extra})"
        return indented(type(self).__name__, ([extra] if extra else []) + children)


def _loadable(name: str, value: Any, shape: tuple[int, ...]) -> Any:
    """A value of a state dict as something that a tensor of this shape can copy from.

    Raises ValueError with a line for the list of errors.
    """
    copying = f'While copying the parameter named "{name}", '
    if not isinstance(value, Tensor):
        if not hasattr(value, "__array__"):
            raise ValueError(
                f"{copying}expected a Tensor or an array from checkpoint but received {type(value)}"
            )
        try:
            value = np.asarray(value)
        except (TypeError, ValueError, RuntimeError) as error:  # a tensor on a GPU, or of bfloat16
            raise ValueError(f"{copying}an exception occurred: {error}") from error
    if value.shape != shape:
        raise ValueError(
            f"size mismatch for {name}: copying a param with shape {value.shape} from "
            f"checkpoint, the shape in current model is {shape}."
        )
    return value


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of an argument, each with a name."""
    if isinstance(value, Operators):
        yield name, value
    elif hasattr(value, "batch_sizes"):  # a PackedSequence; the sizes stay on the host
        yield f"{name}.data", value.data
    elif isinstance(value, tuple | list):
        for place, part in enumerate(value):
            yield from _tensors(f"{name}[{place}]", part)


def indented(title: str, lines: list[str]) -> str:
    """`title(…)` with one indented line per part; `title()` without parts."""
    if not lines:
        return f"{title}()"
    body = "\n".join(lines).replace("\n", "\n  ")
    return f"{title}(\n  {body}\n)"


def _type_name(value: Any) -> str:
    return type(value).__name__
