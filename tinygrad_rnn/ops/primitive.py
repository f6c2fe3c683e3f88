"""What an operation is: how to compute it, and how to pull a cotangent back through it.

Every operation of the engine is a `Primitive`, and every call of one goes through
`Primitive.__call__`, which looks at its operands: arrays are computed; a `Tracer` decides itself.
A `Tensor` is one: it computes and records (`tensor.py`).

Rules (vector-Jacobian products) are written with primitives and operators only, so one text
serves every reading. The tables of primitives are the other files of this folder.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tinygrad_rnn.backend import is_array, library, namespace

#: rule(g, y, *operands, **params) -> the cotangent of one operand (or of all, for a joint rule).
Rule: TypeAlias = Callable[..., Any]


class Tracer:
    """A stand-in for an array that wants to know what is done with it, as a Tensor does."""

    __slots__ = ()

    def trace(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        """Apply the primitive to args, at least one of which is of this kind.

        Where a Tensor meets a Tracer of another kind, the Tensor hands over.
        """
        raise NotImplementedError


class Primitive:
    """An operation that the engine does not look inside.

    evaluate(xp, *arrays, **params): the forward computation with the array library xp.
    rules: one rule per operand, None for an operand without derivative; no rules at all for an
        operation whose result has none (comparisons, argmax). A rule gets the cotangent g, the
        output y and the operands, and gives the cotangent of its operand. An operation with
        several outputs gets tuples for g (with None for an unused output) and y.
    joint_rule: instead of rules, for a varying number of operands: gives all the cotangents.
    cuda: the scalar C expression of an elementwise operation, in the names of its operands; T is
        the type that it is computed in.
    one_dtype: whether floating operands of different dtypes are brought to one before computing;
        not for an operation that changes the dtype on purpose.

    The names of a rule's parameters say what backward must keep: an operand (or the output) called
    `_x` is not kept at all, `x_shape` is kept as its shape only, and any other name as its value.
    So the memory of a graph follows from the rules as they are written.
    """

    def __init__(
        self,
        name: str,
        evaluate: Callable[..., Any],
        *rules: Rule | None,
        joint_rule: Rule | None = None,
        cuda: str | None = None,
        one_dtype: bool = True,
    ) -> None:
        self.name = name
        self.evaluate = evaluate
        self.rules = rules
        self.joint_rule = joint_rule
        self.cuda = cuda
        self.one_dtype = one_dtype
        self.differentiable = bool(rules) or joint_rule is not None
        self._reads = [_reads(rule) for rule in rules]
        self._joint_reads = _reads(joint_rule)
        self.kept: dict[int, tuple[bool, tuple[int, ...]]] = {}  # what `keeps` has answered

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def __call__(self, *args: Any, **params: Any) -> Any:
        """Compute on arrays; let a Tracer among the operands decide what to do."""
        for operand in args:
            if isinstance(operand, Tracer):
                return operand.trace(self, args, params)
        return self.evaluate(namespace(*args), *args, **params)

    def keeps(self, pattern: int) -> tuple[bool, tuple[int, ...]]:
        """Whether backward reads the outputs' values, and the operands it does not read.

        pattern: a bit for each operand, set if its cotangent will be asked for, and above them one
            more, which tells how many operands there are.
        """
        self.kept[pattern] = self._what_rules_read(pattern)
        return self.kept[pattern]

    def _what_rules_read(self, pattern: int) -> tuple[bool, tuple[int, ...]]:
        places = range(pattern.bit_length() - 1)
        if self.joint_rule is not None:
            output, reads = self._joint_reads
            read = {place for place in places if reads[min(place, len(reads) - 1)]}
        else:
            asked = [self._reads[place] for place in places if pattern >> place & 1]
            output = any(reads_output for reads_output, _ in asked)
            read = {place for place in places if any(reads[place] for _, reads in asked)}
        return output, tuple(place for place in places if place not in read)

    def pull(
        self,
        gs: Sequence[Any],
        outputs: Sequence[Any],
        inputs: Sequence[Any],
        params: dict[str, Any],
        needed: Sequence[Any],
    ) -> Sequence[Any]:
        """The cotangents of the inputs, None where not needed.

        gs: the outputs' cotangents, None for an output that nothing used.
        outputs, inputs: values; a shape where the rules read none.
        needed: anything but None marks an input whose cotangent is wanted.
        """
        g, y = (gs[0], outputs[0]) if len(gs) == 1 else (gs, outputs)
        if self.joint_rule is not None:
            return self.joint_rule(g, y, *inputs, **params)
        return [
            None if wanted is None or rule is None else rule(g, y, *inputs, **params)
            for rule, wanted in zip(self.rules, needed)  # noqa: B905 - a rule per operand
        ]

    def explain(self, error: Exception, arrays: Sequence[Any]) -> Exception:
        """The error of a failed evaluation, with the operation and its operands named.

        Shapes that do not fit are a ValueError in NumPy and, as in PyTorch, a RuntimeError here.
        """
        operands = ", ".join(describe(array) for array in arrays)
        kind = type(error) if type(error) in (TypeError, IndexError) else RuntimeError
        return kind(f"{self.name}({operands}): {error}")


def describe(value: Any) -> str:
    """An operand as error messages show it: shape and dtype of an array, a scalar as it is."""
    if is_array(value) or isinstance(value, Tracer):
        return f"{tuple(value.shape)} {value.dtype}"
    return repr(value)


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of a value that may have been kept as its shape alone; () for a scalar."""
    if type(value) is tuple:
        return value
    return tuple(getattr(value, "shape", ()))


def library_beside(like: Any) -> Any:
    """The array library of the device where a value is, or will be."""
    return library(like.device) if isinstance(like, Tracer) else namespace(like)  # type: ignore[attr-defined]


def zeros_beside(like: Any, shape: tuple[int, ...]) -> Any:
    """An array of zeros of a value's dtype, where that value is, or will be."""
    return library_beside(like).zeros(shape, like.dtype)


def _reads(rule: Rule | None) -> tuple[bool, list[bool]]:
    """Whether a rule reads the output's value, and for each operand whether it reads that."""
    if rule is None:
        return False, []
    positional = [
        parameter.name
        for parameter in inspect.signature(rule).parameters.values()
        if parameter.kind not in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD)
    ]
    _, output, *operands = [
        not name.startswith("_") and not name.endswith(("shape", "shapes")) for name in positional
    ]
    return output, operands
