"""Which operation made the first NaN or Inf, at which step of which recurrence, and of what?

One run, forward and backward, in which recurrences run step by step and a watch looks at every
operation. Read that, `nan_search.py`, before this file; what is told of a value is in `finding.py`,
the advice in `nan_advice.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.autograd.anomaly import worst
from tinygrad_rnn.autograd.function import FunctionPrimitive
from tinygrad_rnn.backend import is_array
from tinygrad_rnn.diagnose.errors import checked_loss
from tinygrad_rnn.diagnose.finding import Explanation, Finding, Values, values_of
from tinygrad_rnn.diagnose.naming import modules_of
from tinygrad_rnn.diagnose.nan_advice import (
    Growth,
    advice_backward,
    advice_for_given,
    advice_forward,
)
from tinygrad_rnn.diagnose.nan_search import Found, Search, Shown
from tinygrad_rnn.diagnose.observe import Observed, Operation, Step, observing
from tinygrad_rnn.diagnose.running import arguments, following
from tinygrad_rnn.diagnose.untouched import untouched
from tinygrad_rnn.graph import newest_first
from tinygrad_rnn.modes import enable_grad
from tinygrad_rnn.nn import Module
from tinygrad_rnn.ops.primitive import describe
from tinygrad_rnn.scan import trees
from tinygrad_rnn.scan.naming import memory_of, names_by_memory
from tinygrad_rnn.tensor import Tensor, grad


def explain_nan(
    model: Callable[..., Any], x: Any, loss: Callable[[Any], Tensor] | None = None
) -> Explanation:
    """Find where loss(model(x)) or its gradient first becomes NaN or Inf.

    Args:
        model: a Module, or any function, with recurrences in it or without.
        x: its input, or a tuple of its inputs.
        loss: of what the model returns; gives a Tensor with one value. None: the model's output is
            the loss, or, if that is no single value, only the forward pass is looked at.

    "First" is in the order of computation, so backward the largest t of a forward recurrence comes
    first. A finding is a value that is worse than all it was made of: an Inf that was put in on
    purpose, such as a mask of -Inf, is none, but an overflow is, and a NaN that is made of an Inf.
    What is not finite to begin with, in x, parameters or buffers (there only NaN), is told before
    all others. There is no backward pass if the loss itself is not finite, or nothing requires a
    gradient.

    The model runs once, in the mode it is in, and is afterwards as it was, with the random numbers
    that come next still to come (`untouched.py`): a batch that failed can be explained and then be
    tried again. It takes ten to twenty times a training step, and all values stay in memory.

    Raises DiagnosisError (a ValueError) if the loss is no Tensor with one value; and what the model
    raises, unless something was found before: then it is part of the explanation.

    >>> import tinygrad_rnn as torch
    >>> def model(x):
    ...     return (x - 1).log()
    >>> found = explain_nan(model, torch.tensor([1.0, 2.0]))
    >>> found.first.place, found.first.kind
    ('forward pass, log', 'Inf')
    """
    inputs = arguments(x)
    modules = dict(modules_of(model))
    known = dict(_known(inputs, modules))
    findings = list(_given(known, modules))
    output = value = error = None
    with (
        untouched(modules.values()),
        enable_grad(),
        np.errstate(all="ignore"),
        following(model) as running,
        Search(running) as search,
    ):
        with observing(model) as search.recurrences:
            try:
                output = model(*inputs)
                value = output if loss is None else checked_loss("explain_nan", loss(output))
            except Exception as raised:  # told together with what was found, if anything was
                if not findings and not search.found:
                    raise
                error = raised
        reached = _reached("the output", output)
        reached += _reached("the loss", value) if loss is not None else []
        if isinstance(value, Tensor) and value.array.size == 1 and not worst([value]):
            reached += _gradients_reached(value, known, search.recurrences)
    names = names_by_memory(known.items())
    findings += [_told(found, search, names) for found in search.found]
    return Explanation(findings, reached, search.forward, search.backward, error)


# --- what is known beforehand ---------------------------------------------------------------------


def _known(inputs: Any, modules: dict[str, Module]) -> Iterator[tuple[str, Tensor]]:
    """The inputs and the parameters, by name."""
    yield from _tensors("input", inputs[0] if len(inputs) == 1 else inputs)
    params = {
        id(param): (f"{path}.{name}".removeprefix("."), param)
        for path, module in reversed(modules.items())
        for name, param in module.named_parameters(recurse=False)
    }
    yield from reversed(params.values())


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The Tensors in a value: input, or input[0], input[1][0], …"""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, tuple | list):
        for k, part in enumerate(value):
            yield from _tensors(f"{name}[{k}]", part)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _tensors(f"{name}[{key!r}]", part)


def _given(known: dict[str, Tensor], modules: dict[str, Module]) -> Iterator[Finding]:
    """A finding for each input or parameter that is not finite, and each buffer with a NaN."""
    params = {id(param) for module in modules.values() for param in module.parameters()}
    for name, tensor in known.items():
        values = values_of(tensor, name)
        if values.kind:
            yield _of_given("parameter" if id(tensor) in params else "input", values)
    for path, module in modules.items():
        for name, buffer in module.named_buffers(recurse=False):
            values = values_of(buffer, f"{path}.{name}".removeprefix("."))
            if values.nans:
                yield _of_given("buffer", values)


def _of_given(what: str, values: Values) -> Finding:
    advice = advice_for_given(what, values.kind)
    return Finding("given", values.kind, what, "", None, "", "", 1, "", 1, values, (), advice)


def _reached(name: str, value: Any) -> list[str]:
    """[name] if a result, or part of it, is not finite."""
    return [name] if worst(tensor for _, tensor in _tensors("", value)) else []


def _gradients_reached(
    loss: Tensor, known: dict[str, Tensor], recurrences: Sequence[Observed]
) -> list[str]:
    """Run the backward pass, and name the gradients that are not finite."""
    edges = [edge for node in newest_first([loss.grad_fn]) for edge in node.edges]
    leaves = list({id(edge): edge for edge in edges if isinstance(edge, Tensor)}.values())
    gs = grad(loss, leaves, retain_graph=True) if leaves else ()  # it may go on behind the inputs
    names = {id(tensor): name for name, tensor in known.items()}
    # Initial states may require a gradient only because they are observed.
    starts = {id(x) for observed in recurrences for x in trees.leaves(observed.start)}
    return [
        found
        for leaf, g in zip(leaves, gs, strict=True)
        if id(leaf) not in starts
        for found in _reached(
            f"the gradient of {names.get(id(leaf), f'a tensor of {describe(leaf)}')}", g
        )
    ]


# --- in words -------------------------------------------------------------------------------------


def _told(found: Found, search: Search, known: dict[Hashable, str]) -> Finding:
    """A finding, with its address and advice."""
    place, step, name = found.place, found.place.step(), found.primitive.name
    operation = _operation(step, found.made)
    names = _Names(place.observed, step, known)
    result, *operands = (names.of(shown, name) for shown in (found.result, *found.operands))
    growth = _growth(found, search)
    if found.direction == "forward":
        advice = advice_forward(name, result, operands, growth)
    else:
        is_function = isinstance(found.primitive, FunctionPrimitive)
        advice = advice_backward(name, is_function, result, operands, growth)
    return Finding(
        found.direction,
        result.kind,
        name,
        "" if place.observed is None else place.observed.name,
        place.t,
        "" if step is None else _gate(step, found),
        place.module,
        place.call,
        place.line if operation is None else operation.line,
        search.times[found.key],
        result,
        tuple(operands),
        advice,
    )


def _operation(step: Step | None, made: Sequence[Any]) -> Operation | None:
    """The operation of a step that made something."""
    if step is None or not made:
        return None
    return next((each for each in step.operations if each.outputs[0] is made[0]), None)


class _Names:
    """What the values around an operation are called."""

    def __init__(
        self, observed: Observed | None, step: Step | None, known: dict[Hashable, str]
    ) -> None:
        self._by_memory = known
        self._by_id: dict[int, str] = {}
        self._makers: dict[int, str] = {}
        if observed is not None and step is not None:
            for operation in step.operations:
                self._makers |= {id(y): operation.primitive.name for y in operation.outputs}
            self._by_id = {id(x): name for name, x in trees.named(step.x, "x")} | step.names
            before = zip(observed.state_names, trees.leaves(step.before), strict=True)
            self._by_id |= {id(x): f"{name} of the step before" for name, x in before}

    def of(self, shown: Shown, operation: str) -> Values:
        """The values, with the name that the cell or the model has for them."""
        name = self._name(shown.subject) or f"{shown.role} of {operation}"
        return shown.values._replace(name=f"gradient of {name}" if shown.is_gradient else name)

    def _name(self, subject: Any) -> str:
        """ "" for what has no name."""
        if subject is None:
            return ""
        if not isinstance(subject, Tensor) and not is_array(subject):
            return repr(subject)
        known = self._by_id.get(id(subject)) or self._by_memory.get(memory_of(subject))
        if known:
            return known
        node = getattr(subject, "grad_fn", None)
        maker = self._makers.get(id(subject)) if node is None else node.name()
        return "" if maker is None else f"result of {maker}"


def _gate(step: Step, found: Found) -> str:
    """The gate that a finding belongs to, or several, or "".

    Forward it is a gate whose operand it makes non-finite, else one among its own operands;
    backward the gate whose cotangent it is.
    """
    gates = {id(gate.value): name for name, gate in step.gates.items()}
    if found.direction == "backward":
        return gates.get(id(found.result.subject), "")
    reach, hit = {id(result) for result in found.made}, []
    for operation in step.operations:
        touched = [x for x in operation.inputs if id(x) in reach]
        made = [id(result) for result in operation.outputs]
        if touched and made[0] in gates:
            hit += [gates[made[0]]] if worst(touched) else []
        elif touched:
            reach.update(made)
    return ", ".join(hit or [gates[id(x)] for x in found.inputs if id(x) in gates])


def _growth(found: Found, search: Search) -> Growth | None:
    """How the state grew up to the step of a finding or, backward, the gradient back to it."""
    observed, position = found.place.observed, found.place.position
    if observed is None or found.result.values.kind != "Inf":
        return None
    if found.direction == "forward":
        states = observed.states[: position + 1]
        sizes = [max(values_of(x).largest for x in trees.leaves(state)) for state in states]
        return _grown("state", sizes)
    back = range(len(observed.steps) - 1, position - 1, -1)
    return _grown("gradient", [search.sizes.get((id(observed), k), 0.0) for k in back])


def _grown(what: str, sizes: Sequence[float]) -> Growth | None:
    """From the first that is not 0 to the last; None if that is no growth over several steps."""
    start = next((k for k, size in enumerate(sizes) if size > 0), len(sizes))
    steps = len(sizes) - 1 - start
    return Growth(what, sizes[start], sizes[-1], steps) if steps > 1 and sizes[-1] > 0 else None
