"""What dtype does an operation compute in, when its operands have several?

In the widest floating dtype among them, as PyTorch: integers and Python numbers do not widen
float32, where NumPy would go to float64. Gradients then come back in each operand's own dtype,
because the operands were cast by a recorded `cast`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_rnn import backend
from tinygrad_rnn.autodiff import Edge
from tinygrad_rnn.ops.elementwise import cast
from tinygrad_rnn.ops.primitive import Primitive


def literal(operand: Any) -> Any:
    """A constant operand: numbers stay Python numbers, which do not widen a float32 result."""
    if isinstance(operand, np.generic):
        return operand.item()
    if isinstance(operand, bool | int | float) or backend.is_array(operand):
        return operand
    raise TypeError(f"expected a Tensor, an array or a number, got {type(operand).__name__}")


def must_convert(
    primitive: Primitive, outputs: list[Any], arrays: Sequence[Any], edges: Sequence[Edge | None]
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
    met = [x for x, enters in zip(arrays, _enter(primitive, arrays), strict=True) if enters]
    common = _common_dtype(met)
    return dtype != common and any(x.dtype != common for x in met)


def in_one_dtype(primitive: Primitive, args: tuple[Any, ...], arrays: list[Any]) -> list[Any]:
    """The operands, those that enter the result's values cast to one floating dtype."""
    enters = _enter(primitive, arrays)
    dtype = _common_dtype([x for x, enter in zip(arrays, enters, strict=True) if enter])
    return [
        cast(arg, dtype=dtype, source=array.dtype) if enter and array.dtype != dtype else arg
        for arg, array, enter in zip(args, arrays, enters, strict=True)
    ]


def _enter(primitive: Primitive, arrays: Sequence[Any]) -> list[bool]:
    """Whether each operand is an array whose values enter the result's: no index, no condition."""
    rules = primitive.rules or [True] * len(arrays)
    return [rule is not None and backend.is_array(x) for rule, x in zip(rules, arrays, strict=True)]


def _common_dtype(arrays: list[Any]) -> np.dtype[Any]:
    """The widest floating dtype; integers do not widen it, and alone give the default one.

    Neither does an array without axes widen those with axes: it counts as a number.
    """
    floats = [x for x in arrays if x.dtype.kind == "f"]
    deciding = [x.dtype for x in floats if x.ndim] or [x.dtype for x in floats]
    return np.result_type(*deciding) if deciding else backend.get_default_dtype()
