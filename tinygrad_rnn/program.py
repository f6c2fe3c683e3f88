"""What does a function compute, written down as data?

`Trace` runs a function once on `Var`s, which have a shape and a dtype but no values, and writes an
`Equation` for every primitive that is applied to them. The result is a `Program`: one step of a
recurrence, which can be printed, evaluated on anything, and taken apart. Tensors that the function
closes over become inputs of the program, so any Python function can be traced.

Read `ops/primitive.py` first. What is done with programs is in `scan/`.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from tinygrad_rnn import backend
from tinygrad_rnn.autodiff import Edge
from tinygrad_rnn.graph import user_line
from tinygrad_rnn.modes import current
from tinygrad_rnn.ops.devices import require_one_device
from tinygrad_rnn.ops.elementwise import detach, transfer
from tinygrad_rnn.ops.indexing import nonzero
from tinygrad_rnn.ops.operators import Operators
from tinygrad_rnn.ops.primitive import Primitive, Tracer, describe
from tinygrad_rnn.ops.reduction import unique
from tinygrad_rnn.program_text import program_text
from tinygrad_rnn.promotion import in_one_dtype, must_convert
from tinygrad_rnn.random import Draw


class NoValueError(RuntimeError, AttributeError):
    """A cell asked for a value while its step was being written down."""


def refuse(what: str) -> NoReturn:
    """Raise NoValueError: the cell does `what`, in this line, for which it would need values."""
    raise NoValueError(
        f"scan: the cell {what} at {user_line()}\nscan runs a cell once, without values, and "
        "then repeats what it wrote down. Express it with tensors (torch.where chooses value "
        "by value), or use unroll(cell, xs, h0), which runs the cell at every step"
    )


class Var(Operators):
    """A value of a program: it has a shape and a dtype, and its values come with every run.

    equation: the one that makes it, with this as output number `index`, once it belongs to a
        Program; None for an input.
    """

    __slots__ = ("_device", "_dtype", "_shape", "equation", "index", "name", "number", "owner")
    __array_ufunc__ = None  # `ndarray * var` then calls Var.__rmul__, as for a Tensor

    def __init__(
        self,
        owner: Trace,
        shape: tuple[int, ...],
        dtype: Any,
        device: backend.device = backend.CPU,
        name: str | None = None,
    ) -> None:
        self.owner = owner
        self._shape = shape
        self._dtype = dtype
        self._device = device
        self.name = name
        self.equation: Equation | None = None
        self.index = 0
        self.number = owner.count
        owner.count += 1

    def trace(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        """Write an equation into the innermost of the traces that the operands belong to."""
        owner = self.owner
        if owner is not current.trace:  # else there is none further inside
            for arg in args:
                if type(arg) is Var and arg.owner.depth > owner.depth:
                    owner = arg.owner
        return owner.record(primitive, args, params)

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        return self._shape

    @property
    def dtype(self) -> Any:
        """The element type."""
        return self._dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._shape)

    @property
    def device(self) -> backend.device:
        """Where the values will live."""
        return self._device

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient can be asked for: of any floating value of a program, it can."""
        return bool(self._dtype.kind == "f")

    @property
    def edge(self) -> Edge:
        """Where cotangents of this value arrive (`autodiff.py`)."""
        if self.equation is None:
            return self
        return self.equation if self.equation.arity == 1 else (self.equation, self.index)

    def is_floating_point(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return self.requires_grad

    def detach(self) -> Any:
        """The same values; no gradient flows past here."""
        return detach(self)

    @property
    def data(self) -> Any:
        """As detach."""
        return detach(self)

    def __repr__(self) -> str:
        return f"Var({self.name or '?'}: {describe(self)})"

    def __len__(self) -> int:
        if not self._shape:
            raise TypeError("len: a value without axes has no length")
        return self._shape[0]

    # What needs a value, which a step that is only being written down does not have.

    def __bool__(self) -> bool:
        refuse("branches on a value of the step (if, while, and, or, not)")

    def __float__(self) -> float:
        refuse("turns a value of the step into a Python number")

    def __int__(self) -> int:
        refuse("turns a value of the step into a Python number")

    __index__ = __int__

    def item(self) -> Any:
        """Raise: there is no value yet."""
        refuse("turns a value of the step into a Python number (item)")

    def tolist(self) -> Any:
        """Raise: there is no value yet."""
        refuse("turns a value of the step into Python numbers (tolist)")

    def numpy(self) -> Any:
        """Raise: there is no value yet."""
        refuse("turns a value of the step into a NumPy array")

    def __array__(self, *_args: Any, **_kwargs: Any) -> Any:
        refuse("hands a value of the step to NumPy")

    def __setitem__(self, index: Any, value: Any) -> None:
        refuse("assigns into a value of the step; torch.where makes a new one instead")

    def backward(self, *_args: Any, **_kwargs: Any) -> None:
        """Raise: the backward pass is that of the whole sequence."""
        refuse("calls backward inside the step")

    def __format__(self, spec: str) -> str:
        if spec:
            refuse("formats a value of the step as a number")
        return repr(self)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # Python and NumPy look whether it is there
            raise AttributeError(f"Var has no attribute {name}")
        if name == "array":
            refuse("asks for the array behind a value of the step, or indexes with one")
        if name.endswith("_"):
            refuse(f"changes a value of the step in place ({name})")
        refuse(f"uses .{name}, which a value of the step does not have,")


class Equation:
    """outputs = primitive(inputs): one line of a program.

    inputs: Vars, and Python numbers.
    """

    __slots__ = ("inputs", "outputs", "params", "primitive")

    def __init__(
        self,
        primitive: Primitive,
        inputs: Sequence[Any],
        outputs: Sequence[Var],
        params: dict[str, Any],
    ) -> None:
        self.primitive = primitive
        self.inputs = inputs
        self.outputs = outputs
        self.params = params

    @property
    def arity(self) -> int:
        """The number of outputs."""
        return len(self.outputs)

    @property
    def edges(self) -> Sequence[Edge | None]:
        """Where the inputs came from; None for a number."""
        return [x.edge if type(x) is Var else None for x in self.inputs]

    @property
    def variables(self) -> list[Var]:
        """The inputs that are Vars."""
        return [x for x in self.inputs if type(x) is Var]

    def __repr__(self) -> str:
        return f"<equation {self.primitive.name}>"


class Trace:
    """A program being written: what is applied to its Vars becomes its equations.

    Equal equations are written once. A Tensor, or a Var of an enclosing trace, that meets one of
    this trace's becomes a constant input; `constants` maps it to its Var.
    As a context manager it also takes the draws of random numbers (`creation.drawn`).
    count: of the Vars so far, which are numbered.
    """

    def __init__(self) -> None:
        outer = current.trace
        self.depth: int = 0 if outer is None else outer.depth + 1
        self.equations: list[Equation] = []
        self.constants: dict[int, tuple[Any, Var]] = {}
        self.draws: list[tuple[Draw, list[Var]]] = []
        self.count = 0
        self.closed = False
        self._log: list[Hashable] = []  # inputs and equations as they came
        self._written: dict[Hashable, Any] = {}
        self._outer: list[Any] = []
        self._recording = current.recording

    def __enter__(self) -> Trace:
        self._outer.append(current.trace)
        current.trace = self
        return self

    def __exit__(self, *exc_info: object) -> None:
        current.trace = self._outer.pop()
        self.closed = True

    def input(
        self, like: Any, name: str | None = None, shape: tuple[int, ...] | None = None
    ) -> Var:
        """A new input of the dtype of `like`, and of its shape unless another is given."""
        sizes, device = tuple(like.shape) if shape is None else shape, _device(like)
        self._log.append((sizes, like.dtype, device.index))
        return Var(self, sizes, like.dtype, device, name)

    def constant(self, value: Any) -> Var:
        """The input that stands for a value from outside: a Tensor, an array, an outer Var."""
        found = self.constants.get(id(value))
        if found is None:
            if type(value) is Var and value.owner.closed:
                _refuse_old("what scan writes down")
            found = self.constants[id(value)] = (value, self.input(value))
        return found[1]

    def draw(self, draw: Draw) -> list[Var]:
        """Vars for the arrays that `draw` draws, anew at every step."""
        drawn = [Var(self, shape, dtype, draw.device, "drawn") for shape, dtype in draw.forms]
        self.draws.append((draw, drawn))
        self._log.append(("drawn", *draw.forms))
        return drawn

    def close(self) -> tuple[list[Equation], list[tuple[Any, Var]]]:
        """Write no more; hand over the equations, and the constants with their Vars.

        Nothing of them stays here, so a trace that led to nothing new goes without a collector.
        """
        found = self.equations, list(self.constants.values())
        self.closed = True
        self.equations, self.constants, self._written = [], {}, {}
        return found

    def signature(self, outputs: Iterable[Var]) -> Hashable:
        """Equal for two traces that wrote the same with these outputs; None if unknown."""
        return None if None in self._log else (*self._log, *(x.number for x in outputs))

    def record(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        """Write an equation, unless it stands there already; give its outputs.

        Under a `no_grad` that the function itself enters, no gradient flows past them.
        """
        made = self._equation(primitive, args, params)
        if current.recording or not self._recording or primitive is detach:
            return made
        return [detach(x) for x in made] if type(made) is list else detach(made)

    def _equation(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        if self.closed:
            _refuse_old(primitive.name)
        if primitive in _SHAPED_BY_VALUES:
            refuse(f"uses {primitive.name}, whose result has a shape that depends on the values,")
        inputs: list[Any] = []
        marks: list[Hashable] = []
        for arg in args:
            if type(arg) is Var and arg.owner is self:
                inputs.append(arg)
                marks.append(arg.number)
            elif isinstance(arg, Tracer) or backend.is_array(arg):
                inputs.append(self.constant(arg))
                marks.append(inputs[-1].number)
            else:
                number = arg.item() if isinstance(arg, np.generic) else arg
                inputs.append(number)
                marks.append((type(number), repr(number)))
        frozen = freeze(params) if params else ()
        key = None if frozen is None else (primitive, frozen, *marks)
        if key is not None and key in self._written:
            return self._written[key]
        place = self._place(primitive, inputs)
        forms, several, convert = _forms_of(primitive, inputs, params, frozen)
        if convert:
            stand_ins = [_ones(x) for x in inputs]
            made = primitive(*in_one_dtype(primitive, tuple(inputs), stand_ins), **params)
        else:
            outputs = [Var(self, shape, dtype, place) for shape, dtype in forms]
            self.equations.append(Equation(primitive, inputs, outputs, params))
            self._log.append(key)
            made = outputs if several else outputs[0]
        if key is not None:
            self._written[key] = made
        return made

    def _place(self, primitive: Primitive, inputs: Sequence[Any]) -> backend.device:
        """The device of an equation's inputs. Raises DeviceError if there are two."""
        if primitive is transfer:
            refuse("moves a value of the step to another device; move it with xs, h0 or the model")
        place = None
        for x in inputs:
            if type(x) is Var and x._device is not place:
                if place is not None:
                    require_one_device(f"scan: {primitive.name}", inputs, self._names(inputs))
                place = x._device
        assert place is not None  # an equation has a Var among its inputs
        return place

    def _names(self, inputs: Sequence[Any]) -> list[str]:
        """What messages call the inputs of an equation."""
        closed_over = {id(x) for _, x in self.constants.values()}
        return [
            "a tensor that the cell closes over"
            if id(x) in closed_over
            else getattr(x, "name", None) or "a value of the step"
            for x in inputs
        ]


def _refuse_old(what: str) -> NoReturn:
    raise RuntimeError(
        f"scan: {what}, at {user_line()}, gets a value of a step that scan had written down "
        "earlier: the cell let it out, by way of an attribute, a list or a global variable. What a "
        "step computes has no value outside it: return it as part of the output y or of the state "
        "h, or use unroll(cell, xs, h0)"
    )


def freeze(value: Any) -> Any:
    """A parameter as something that can be compared and hashed; None if it cannot be."""
    kind = type(value)
    if kind is dict:
        return freeze(tuple(value.items()))
    if kind is tuple or kind is list:
        parts = [freeze(part) for part in value]
        return None if None in parts else (kind, *parts)
    if kind is slice:
        return freeze((slice, value.start, value.stop, value.step))
    if kind is np.ndarray:
        return (value.shape, value.dtype.str, value.tobytes())
    if kind is float:
        return (float, value.hex())  # tells 0.0 from -0.0 and knows nan
    if value is None:
        return (None,)
    try:
        hash(value)
    except TypeError:
        return None
    return (kind, value)


#: Operations whose results cannot be written down without values.
_SHAPED_BY_VALUES = {nonzero, unique}

_forms: dict[Hashable, Any] = {}
_forms_lock = threading.Lock()


def _forms_of(
    primitive: Primitive, inputs: Sequence[Any], params: dict[str, Any], frozen: Hashable
) -> tuple[list[tuple[tuple[int, ...], Any]], bool, bool]:
    """The shapes and dtypes of the outputs, whether they are a list, and whether to convert first.

    No rule per operation: it is computed once on ones, so traced and eager cannot disagree.
    """
    key = None
    if frozen is not None:
        operands = tuple(
            (x._shape, x._dtype) if type(x) is Var else (type(x), repr(x)) for x in inputs
        )
        key = (primitive, frozen, operands)
        known = _forms.get(key)
        if known is not None:
            return known  # type: ignore[no-any-return]
    stand_ins = [_ones(x) for x in inputs]
    try:
        with np.errstate(all="ignore"):
            result = primitive.evaluate(np, *stand_ins, **_on_host(params))
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise primitive.explain(error, stand_ins) from error
    outputs = [np.asarray(y) for y in (result if type(result) is list else [result])]
    edges = [x if type(x) is Var and x.requires_grad else None for x in inputs]
    found = (
        [(y.shape, y.dtype) for y in outputs],
        type(result) is list,
        must_convert(primitive, outputs, stand_ins, edges),
    )
    if key is not None:
        with _forms_lock:
            if len(_forms) > 10_000:
                _forms.clear()
            _forms[key] = found
    return found


def _ones(x: Any) -> Any:
    """A value to compute a shape with: zeros for integers, which are also indices."""
    if type(x) is not Var:
        return x
    return np.zeros(x.shape, x.dtype) if x.dtype.kind in "iu" else np.ones(x.shape, x.dtype)


def _on_host(param: Any) -> Any:
    """A parameter as stand-ins on the host take it: in place of a GPU's array, one of its shape.

    Only of a mask, which decides the shape of what it chooses, are the values brought over.
    """
    kind = type(param)
    if kind is dict:
        return {name: _on_host(value) for name, value in param.items()}
    if kind is tuple or kind is list:
        return kind(map(_on_host, param))
    if kind is np.ndarray or not backend.is_array(param):
        return param
    return backend.to_numpy(param) if param.dtype.kind == "b" else np.zeros(param.shape, int)


def _device(value: Any) -> backend.device:
    return value.device if isinstance(value, Tracer) else backend.device_of(value)  # type: ignore[attr-defined,no-any-return]


class Program:
    """One step of a recurrence as data.

    carry, sequences, constants: the inputs. The carry comes from the step before, a sequence has
        one value for each step, a constant is the same at all steps.
    next_carry, stacked, summed: the outputs. The next step's carry; values of which the run gives
        all T, along a new first axis; values of which it gives the sum over the steps.
    equations: in order; only those that an output needs.

    Cotangents run the other way through the same three kinds: of a carry, a carry; of a sequence, a
    stack; of a constant, a sum.
    """

    def __init__(
        self,
        equations: Iterable[Equation],
        carry: Sequence[Var],
        sequences: Sequence[Var],
        constants: Sequence[Var],
        next_carry: Sequence[Var],
        stacked: Sequence[Var] = (),
        summed: Sequence[Var] = (),
    ) -> None:
        self.carry = list(carry)
        self.sequences = list(sequences)
        self.constants = list(constants)
        self.next_carry = list(next_carry)
        self.stacked = list(stacked)
        self.summed = list(summed)
        self.equations = list(equations)
        for equation in self.equations:
            for index, output in enumerate(equation.outputs):
                output.equation, output.index = equation, index
        self.equations = _needed(self.equations, self.outputs)

    @property
    def inputs(self) -> list[Var]:
        """All inputs: carry, sequences, constants."""
        return self.carry + self.sequences + self.constants

    @property
    def outputs(self) -> list[Var]:
        """All outputs: next carry, stacked, summed."""
        return self.next_carry + self.stacked + self.summed

    @property
    def variables(self) -> Iterator[Var]:
        """Every value, inputs first."""
        yield from self.inputs
        for equation in self.equations:
            yield from equation.outputs

    def with_stacked(self, stacked: Sequence[Var]) -> Program:
        """The same step with other stacked outputs."""
        return Program(
            self.equations,
            self.carry,
            self.sequences,
            self.constants,
            self.next_carry,
            stacked,
            self.summed,
        )

    def evaluate(self, values: Mapping[Var, Any]) -> dict[Var, Any]:
        """One step on given values of the inputs, of any kind: the values of all variables."""
        return evaluate(self.equations, values)

    def __str__(self) -> str:
        return program_text(self)


def evaluate(equations: Iterable[Equation], values: Mapping[Var, Any]) -> dict[Var, Any]:
    """The given values, and those that the equations compute from them."""
    known = dict(values)
    for equation in equations:
        made = equation.primitive(
            *(known[x] if type(x) is Var else x for x in equation.inputs), **equation.params
        )
        several = made if type(made) is list else [made]
        known.update(zip(equation.outputs, several, strict=True))
    return known


def _needed(equations: Iterable[Equation], outputs: Iterable[Var]) -> list[Equation]:
    """The equations that the outputs need, in order."""
    wanted = {x.equation for x in outputs}
    kept = []
    for equation in reversed(list(equations)):
        if equation in wanted:
            kept.append(equation)
            wanted.update(x.equation for x in equation.variables)
    return kept[::-1]
