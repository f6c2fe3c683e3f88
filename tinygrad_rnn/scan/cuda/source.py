"""What does a run of elementwise equations look like as one CUDA kernel?

`kernel_source` writes it: a thread for each element, which loads what the equations read, computes
them in registers from the primitives' own C expressions (`ops/elementwise.py`), and stores what is
wanted in memory. Where an operand lies is written into the text as strides, so views, parts of a
split and broadcast biases cost nothing. Nothing here needs a GPU: the tests compile the same text
for the CPU, and compare its values with NumPy's.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn.ops import elementwise as e
from tinygrad_rnn.ops import float16
from tinygrad_rnn.ops.elementwise import Elementwise
from tinygrad_rnn.program import Equation, Var

#: How a dtype is called in the text, and in which type its values are computed.
_NAMES = {
    "float16": ("half_bits", "float"),
    "float32": ("float", "float"),
    "float64": ("double", "double"),
    "bool": ("bool", "bool"),
    "uint8": ("u8", "u8"),
    "int32": ("int", "int"),
    "int64": ("i64", "i64"),
}

#: What every kernel begins with.
PRELUDE = f"""\
typedef long long i64;
typedef unsigned char u8;
{float16.SOURCE}"""

#: Elementwise operations on integers that C leaves undefined, or does in another way than NumPy.
_FLOATS_ONLY = {
    e.absolute,
    e.ceil,
    e.clip,
    e.divide,
    e.floor,
    e.floor_divide,
    e.isfinite,
    e.isinf,
    e.isnan,
    e.power,
    e.remainder,
    e.round,
    e.sign,
}
_TRUTHS = {
    e.equal,
    e.not_equal,
    e.less,
    e.less_equal,
    e.greater,
    e.greater_equal,
    e.logical_and,
    e.logical_or,
    e.logical_not,
    e.isnan,
    e.isinf,
    e.isfinite,
}
_OPERANDS = {1: ("x",), 2: ("x", "y"), 3: ("c", "x", "y")}
THREADS = 128  # of a block


class Operand(NamedTuple):
    """A value in memory, as a kernel sees it.

    strides: how many elements further the next one lies along each axis of the kernel; 0 where the
        value is broadcast.
    """

    dtype: Any
    strides: tuple[int, ...]


def can_be_written(equation: Equation) -> bool:
    """Whether an equation has a text: an elementwise one, on dtypes that C computes as NumPy."""
    primitive = equation.primitive
    if not isinstance(primitive, Elementwise) or primitive.cuda is None:
        return False
    values = [*equation.variables, *equation.outputs]
    if any(str(x.dtype) not in _NAMES for x in values):
        return False
    return _computing_dtype(equation).kind == "f" or primitive not in _FLOATS_ONLY


def kernel_source(
    name: str,
    shape: Sequence[int],
    equations: Sequence[Equation],
    loads: Mapping[Var, Operand],
    stores: Sequence[tuple[Var, Operand]],
) -> str:
    """The text of a kernel; its arguments are the loads' addresses, the stores', and `count`.

    shape: of what is computed. The size of its first axis does not enter the text: `count`, the
    number of all elements, says it at each launch.
    """
    index = index_type(shape, [*loads.values(), *(place for _, place in stores)])
    names = {x: f"x{number}" for number, x in enumerate(loads)}
    computed = [x for equation in equations for x in equation.outputs]
    names.update((x, f"v{number}") for number, x in enumerate(computed))
    lines = [
        f'extern "C" __global__ void {name}({parameters(loads, stores)}) {{',
        f"  const {index} at = blockIdx.x * ({index})blockDim.x + threadIdx.x;",
        "  if (at >= count) return;",
        *index_lines(shape, index),
    ]
    for number, (x, operand) in enumerate(loads.items()):
        value = loaded(f"a{number}[{offset(operand.strides, shape)}]", operand.dtype)
        lines.append(f"  const {computed_type(operand.dtype)} {names[x]} = {value};")
    for equation in equations:
        (y,) = equation.outputs
        lines.append(
            f"  const {computed_type(y.dtype)} {names[y]} = {expression(equation, names)};"
        )
    for number, (x, operand) in enumerate(stores):
        value = converted(names[x], x.dtype, operand.dtype)
        lines.append(f"  b{number}[{offset(operand.strides, shape)}] = {value};")
    return "\n".join([PRELUDE, *lines, "}", ""])


def parameters(loads: Mapping[Var, Operand], stores: Sequence[tuple[Var, Operand]]) -> str:
    """The parameters of a kernel: addresses of what it reads, of what it writes, and a number."""
    texts = [f"const {stored_type(x.dtype)}* a{k}" for k, x in enumerate(loads.values())]
    texts += [f"{stored_type(place.dtype)}* b{k}" for k, (_, place) in enumerate(stores)]
    return ", ".join([*texts, "i64 count"])


def index_type(shape: Sequence[int], operands: Sequence[Operand]) -> str:
    """The type of indices: 32 bits where they are enough, which a GPU divides faster."""
    reach = max(
        sum(abs(stride) * (size - 1) for stride, size in zip(x.strides, shape, strict=True))
        for x in operands
    )
    return "int" if max(reach, math.prod(shape)) < 2**31 - 1024 else "i64"


def index_lines(shape: Sequence[int], index: str) -> list[str]:
    """The index along each axis, from the number of the element."""
    lines, rest = [], "at"
    for axis in range(len(shape) - 1, 0, -1):
        lines.append(f"  const {index} i{axis} = {rest} % {shape[axis]};")
        rest = f"({rest} / {shape[axis]})"
    return [*lines, f"  const {index} i0 = {rest};"] if shape else lines


def offset(strides: Sequence[int], shape: Sequence[int]) -> str:
    """Where an element is, counted in elements."""
    terms = [
        f"i{axis}" if stride == 1 else f"i{axis} * {stride}"
        for axis, stride in enumerate(strides)
        if stride and shape[axis] != 1
    ]
    return " + ".join(terms) or "0"


def stored_type(dtype: Any) -> str:
    """The type of values of a dtype in memory."""
    return _NAMES[str(dtype)][0]


def computed_type(dtype: Any) -> str:
    """The type in which values of a dtype are computed."""
    return _NAMES[str(dtype)][1]


def loaded(text: str, dtype: Any) -> str:
    """A value in memory, as it is computed with."""
    return f"from_half({text})" if dtype == np.float16 else text


def converted(text: str, source: Any, wanted: Any) -> str:
    """A value as it is stored."""
    if wanted == np.float16:
        return f"to_half({text})"
    return text if source == wanted else f"({stored_type(wanted)})({text})"


def _computing_dtype(equation: Equation) -> np.dtype[Any]:
    """The dtype that an equation's operands are brought to."""
    (y,) = equation.outputs
    if equation.primitive is e.where:
        return y.dtype
    if equation.primitive in (e.cast, e.discretize):
        return equation.variables[0].dtype
    if equation.primitive not in _TRUTHS:
        return y.dtype
    # Python numbers do not widen the arrays that they meet (NEP 50), but a float is a float.
    numbers = [x for x in equation.inputs if type(x) is not Var]
    return np.result_type(*(x.dtype for x in equation.variables), *numbers)


def expression(equation: Equation, names: Mapping[Var, str]) -> str:
    """The C text of an equation, with the names of its operands and its numbers filled in."""
    (y,) = equation.outputs
    dtype = _computing_dtype(equation)
    kind = computed_type(dtype)
    found: dict[str, str] = {"T": kind}
    for letter, x in zip(_OPERANDS[len(equation.inputs)], equation.inputs, strict=True):
        wanted = np.dtype(bool) if letter == "c" else dtype
        found[letter] = _value(x, wanted, names)
    for letter, number in equation.params.items():
        if isinstance(number, int | float) or number is None:
            unbounded = -math.inf if letter == "low" else math.inf
            found[letter] = _value(unbounded if number is None else number, dtype, names)
    assert equation.primitive.cuda is not None
    text = re.sub(r"\b[A-Za-z]\w*\b", lambda m: found.get(m[0], m[0]), equation.primitive.cuda)
    if y.dtype == np.float16 and equation.primitive not in (e.detach, e.copy):
        return f"from_half(to_half({text}))"  # as rounded as if it had been in memory
    return text if dtype == y.dtype else f"({computed_type(y.dtype)})({text})"


def _value(x: Any, dtype: np.dtype[Any], names: Mapping[Var, str]) -> str:
    """An operand in the dtype in which it is computed with."""
    kind = computed_type(dtype)
    if type(x) is Var:
        return names[x] if computed_type(x.dtype) == kind else f"(({kind}){names[x]})"
    if dtype.kind != "f":
        return f"({kind}){int(x)}"
    return _float_text(float(x), kind)


@functools.cache
def _float_text(x: float, kind: str) -> str:
    """A number in C, rounded once, by the compiler."""
    if math.isnan(x):
        return f"({kind})(0.0 / 0.0)"
    if math.isinf(x):
        return f"({kind})({'-' if x < 0 else ''}1.0 / 0.0)"
    return f"({kind}){x!r}"
