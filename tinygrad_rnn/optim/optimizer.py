"""The base of every optimizer: what is updated, with which options, and what is remembered.

An optimizer reads `param.grad` and writes into `param.array`; no other code of the package writes
into a parameter. This file holds the parameter groups, the state and its saving and loading. The
update rules are array equations, one file per family: read `sgd.py` after this one.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, ClassVar

import numpy as np

from tinygrad_rnn.backend import Array, device_of, namespace
from tinygrad_rnn.modes import enable_grad
from tinygrad_rnn.ops.devices import require_one_device
from tinygrad_rnn.tensor import Tensor

Options = dict[str, Any]
State = dict[str, Any]
Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Options]


class Optimizer:
    """θ ← update(θ, ∂loss/∂θ, state, options), for every parameter θ of every group.

    A subclass passes its default options to `__init__` and defines `update` (or, like a subclass
    of PyTorch's `Optimizer`, a whole `step` of its own).

    params: an iterable of parameters, of (name, parameter) pairs such as
        `model.named_parameters()`, or of dicts `{"params": [...], "lr": 0.1, ...}`, the parameter
        groups, whose options take precedence over the defaults.
    defaults: the options of a group that does not name them.

    Attributes:
        param_groups: list of dicts, each `{"params": [...], option: value, ...}`. Options may be
            changed between steps.
        state: parameter → dict of what the update rule remembers. Arrays are Tensors of the
            parameter's shape, dtype and device; counters are Python numbers.
        steps_taken: how many times `step` has been called on this object.

    Raises TypeError for params that are one Tensor, a set, or not Tensors; ValueError for an empty
    list, a non-leaf tensor, a parameter in two groups, or an option out of range.
    """

    scalar_state: ClassVar[tuple[str, ...]] = ("step",)  # entries of a state that are numbers

    def __init__(self, params: Params, defaults: Options) -> None:
        name = type(self).__name__
        if isinstance(params, Tensor):
            raise TypeError(f"{name}: params is one Tensor; expected an iterable, as in [weight]")
        if isinstance(params, set | frozenset):
            raise TypeError(_unordered(name))
        self.defaults = python_numbers(defaults)
        self.check_options(self.defaults)
        self.state: defaultdict[Tensor, State] = defaultdict(dict)
        self.param_groups: list[Options] = []
        self.steps_taken = 0
        entries: list[Any] = list(params)
        if not entries:
            raise ValueError(
                f"{name}: optimizer got an empty parameter list (a generator is empty once used)"
            )
        groups = entries if isinstance(entries[0], dict) else [{"params": entries}]
        for group in groups:
            self.add_param_group(group)

    def update(self, p: Array, g: Array, state: State, options: Options) -> None:
        """Write the next value into the array `p`.

        p, g: arrays of one shape; the gradient `g` is negated if the group maximizes, and must not
            be written into.
        state: the parameter's own dict, empty at its first step.
        options: the group's options, as Python numbers.
        """
        raise NotImplementedError(f"{type(self).__name__} must define update() or step()")

    def check_options(self, options: Options) -> None:
        """Raise ValueError if an option is out of range; called for the defaults and each group."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; one whose `grad` is None is left alone.

        What is remembered of a parameter follows it to another device or dtype.
        closure: if given, called first, with gradients enabled; it should zero the gradients,
            compute the loss, call `backward` and return the loss.
        Returns what the closure returned, or None. Raises ValueError or RuntimeError for a gradient
        of another shape, or on another device, than its parameter's.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        self.steps_taken += 1
        name = type(self).__name__
        for group in self.param_groups:
            options = python_numbers(group)
            for place, param in enumerate(group["params"]):
                if param.grad is None:
                    continue
                p, g = param.array, param.grad.array
                if device_of(p) is not device_of(g):
                    names = self._name_of(group, place), "its gradient"
                    require_one_device(f"{name}.step", (p, g), names)
                if g.shape != p.shape:
                    raise ValueError(
                        f"{name}: a parameter of shape {p.shape} has a grad of shape {g.shape}; "
                        "assign a grad of the parameter's own shape"
                    )
                self.update(p, -g if options.get("maximize") else g, self.state[param], options)
                param.mark_written(f"{name}.step()")
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients: set them to None, or fill them with zeros.

        With None the next `step` skips a parameter that took no part in the loss; with zeros it
        updates it, by its momentum and weight decay.
        """
        for group in self.param_groups:
            for param in group["params"]:
                if set_to_none or param.grad is None:
                    param.grad = None
                else:  # in a new array: the old one may be shared with the graph
                    param.grad = Tensor(namespace(param.array).zeros_like(param.array))

    def add_param_group(self, param_group: Options) -> None:
        """Append one group of parameters, `{"params": [...], option: value, ...}`.

        Warns, as PyTorch does, of a parameter that occurs twice in the group: it would be updated
        twice in each step.
        """
        name = type(self).__name__
        if not isinstance(param_group, dict):
            raise TypeError(f"{name}: param_group must be a dict, got {type(param_group).__name__}")
        if "params" not in param_group:
            raise ValueError(f'{name}: the parameter group has no "params", only {[*param_group]}')
        params, labels = self._separated(param_group["params"])
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(
                    f"{name}: optimizer can only optimize Tensors, got a {type(param).__name__}"
                )
            if not param.is_leaf:
                raise ValueError(
                    f"{name}: can't optimize a non-leaf Tensor (shape {param.shape}): it was "
                    "computed from another one, which is the parameter to pass"
                )
        group = {**self.defaults, **python_numbers(param_group), "params": params}
        if labels:
            group["param_names"] = labels
        if any(("param_names" in group) != ("param_names" in other) for other in self.param_groups):
            raise ValueError(f"{name}: either all parameter groups are named or none is")
        self.check_options(group)

        identities = {id(param) for param in params}
        if len(identities) != len(params):
            warnings.warn(
                f"{name}: the parameter group contains duplicate parameters; "
                "each occurrence is updated in every step",
                stacklevel=3,
            )
        for other in self.param_groups:
            if not identities.isdisjoint(id(param) for param in other["params"]):
                raise ValueError(f"{name}: some parameters appear in more than one parameter group")
        self.param_groups.append(group)

    def state_dict(self) -> dict[str, Any]:
        """`{"state": {index: {...}}, "param_groups": [{..., "params": [index, ...]}, ...]}`.

        A parameter's index is its position in the concatenation of the groups. This is PyTorch's
        format, with Python numbers for the counters. Unlike PyTorch's the tensors are copies, so
        the dict stays as it is while training goes on.
        """
        index_of: dict[int, int] = {}
        groups = []
        start = 0
        for group in self.param_groups:
            for index, param in enumerate(group["params"], start):
                index_of.setdefault(id(param), index)
            start += len(group["params"])
            groups.append({**group, "params": [index_of[id(param)] for param in group["params"]]})
        state = {
            index_of[id(param)]: {
                name: value.detach().clone() if isinstance(value, Tensor) else value
                for name, value in entries.items()
            }
            for param, entries in self.state.items()
            if entries
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`; the next steps are the ones the saved optimizer would take.

        Parameters are matched by position. Values may be Tensors, arrays or numbers; they are
        copied to the device and dtype of their parameter. The saved options replace the present
        ones. Raises ValueError, and changes nothing, if the groups or the shapes differ.
        """
        name = type(self).__name__
        saved_groups = state_dict["param_groups"]
        if len(saved_groups) != len(self.param_groups):
            raise ValueError(
                f"{name}.load_state_dict: {len(saved_groups)} parameter groups were saved, "
                f"the optimizer has {len(self.param_groups)}"
            )
        param_of: dict[int, Tensor] = {}
        for number, (group, saved) in enumerate(zip(self.param_groups, saved_groups, strict=True)):
            if len(group["params"]) != len(saved["params"]):
                raise ValueError(
                    f"{name}.load_state_dict: group {number} was saved with {len(saved['params'])} "
                    f"parameters, the optimizer's has {len(group['params'])}"
                )
            param_of.update(zip(saved["params"], group["params"], strict=True))

        state: defaultdict[Tensor, State] = defaultdict(dict)
        for index, entries in state_dict["state"].items():
            if index not in param_of:
                raise ValueError(
                    f"{name}.load_state_dict: state of parameter {index!r}, which no group has"
                )
            for entry, value in entries.items():
                if value is not None:
                    state[param_of[index]][entry] = self._loaded(
                        index, entry, value, param_of[index]
                    )
        self.state = state
        self.param_groups = [
            {**group, **saved, "params": group["params"]}
            for group, saved in zip(self.param_groups, saved_groups, strict=True)
        ]

    def _separated(self, params: Any) -> tuple[list[Any], list[str]]:
        """The parameters and their names, from what a group has under "params"."""
        name = type(self).__name__
        if isinstance(params, set | frozenset):
            raise TypeError(_unordered(name))
        entries = [params] if isinstance(params, Tensor) else list(params)
        named = [entry for entry in entries if isinstance(entry, tuple)]
        if not named:
            return entries, []
        if len(named) != len(entries):
            raise ValueError(f"{name}: {len(named)} of {len(entries)} parameters are named")
        return [param for _, param in named], [label for label, _ in named]

    def _name_of(self, group: Options, place: int) -> str:
        """What messages call a parameter."""
        if "param_names" in group:
            return f"parameter {group['param_names'][place]!r}"
        number = next(k for k, other in enumerate(self.param_groups) if other is group)
        return f"parameter {place} of group {number}"

    def _loaded(self, index: int, entry: str, value: Any, param: Tensor) -> Any:
        """A copy of a saved value, as this optimizer keeps it beside `param`."""
        if entry in self.scalar_state:
            return _python_number(value)
        if not hasattr(value, "shape"):  # what a subclass keeps besides arrays
            return deepcopy(value)
        if not isinstance(value, Tensor):
            value = Tensor(np.asarray(value))
        if value.shape != param.shape:
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: {entry} of parameter {index} has shape "
                f"{value.shape}, the parameter has {param.shape}; give the parameters in the order "
                "they were saved in"
            )
        return value.detach().to(device=param.device, dtype=param.dtype).clone()

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def accumulator(state: State, name: str, p: Array, value: float = 0.0) -> Array:
    """The array `state[name]`, which starts as an array like `p` filled with `value`.

    It follows a parameter that has moved to another device or dtype.
    """
    if name not in state:
        state[name] = Tensor(namespace(p).full_like(p, value))
    array = state[name].array
    if array.dtype != p.dtype or device_of(array) is not device_of(p):
        state[name] = state[name].to(device_of(p), p.dtype)
    return state[name].array


def check_at_least_zero(optimizer: Optimizer, options: Options, *names: str) -> None:
    """Raise ValueError unless each of the named options is a number ≥ 0 (NaN is not)."""
    for name in names:
        if not options[name] >= 0:
            raise ValueError(
                f"{type(optimizer).__name__}: invalid {name}: {options[name]}; expected at least 0"
            )


def python_numbers(group: Options) -> Options:
    """The options of a group, with NumPy scalars and one-element Tensors as Python numbers.

    Beside a Python float a float32 array stays float32; beside an `np.float64` (the learning rate
    someone computed with `np.cos`) it becomes float64 (NEP 50).
    """
    return {name: _python_number(value) for name, value in group.items() if name != "params"}


def _python_number(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_python_number(item) for item in value)
    return value.item() if hasattr(value, "item") else value


def _unordered(name: str) -> str:
    return f"{name}: parameters came in a set, whose order changes between runs; pass a list"
