"""Operations that move values without changing them: reshape, transpose, join and cut.

Each rule is the operation that moves them back; the adjoint pairs are reshape/reshape,
transpose/transpose, flip/flip, concatenate/split and stack/unstack. Axes are counted from the end
(stored negative): an operation then means the same when a time axis is put in front.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from tinygrad_rnn.ops.primitive import Primitive, shape_of, zeros_beside

#: y = x with the same values in another shape; a view where memory allows.
reshape: Primitive = Primitive(
    "reshape",
    lambda xp, x, *, shape: x.reshape(shape),
    lambda g, _y, x_shape, *, shape: reshape(g, shape=shape_of(x_shape)),
)


def _transpose(xp: Any, x: Any, *, axes: tuple[int, ...]) -> Any:
    if axes == (-1, -2):  # a matrix, on the path of every backward of matmul
        return x.swapaxes(-1, -2)
    lead = x.ndim - len(axes)
    return x.transpose((*range(lead), *(x.ndim + axis for axis in axes)))


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes `axes`; both count from the end."""
    n = len(axes)
    back = [0] * n
    for place, axis in enumerate(axes):
        back[axis + n] = place - n
    return tuple(back)


#: y = x with its last len(axes) axes permuted: axes[k] says which axis comes to place k.
transpose: Primitive = Primitive(
    "transpose", _transpose, lambda g, _y, _x, *, axes: transpose(g, axes=_inverse(axes))
)

#: y = x with the order along the axes reversed; a view.
flip: Primitive = Primitive(
    "flip", lambda xp, x, *, axes: xp.flip(x, axes), lambda g, _y, _x, *, axes: flip(g, axes=axes)
)


def _split(xp: Any, x: Any, *, sizes: tuple[int, ...], axis: int) -> Any:
    parts, start = [], 0
    after = (slice(None),) * (-1 - axis)
    for size in sizes:
        part = (..., slice(start, start + size), *after)
        parts.append(x[part])
        start += size
    return parts


#: y₁, …, yₙ = consecutive parts of x, of the given sizes, along an axis; views.
split = Primitive(
    "split",
    _split,
    lambda gs, shapes, _x, *, sizes, axis: concatenate(*_with_zeros(gs, shapes), axis=axis),
)

#: y = the operands joined along an existing axis.
concatenate: Primitive = Primitive(
    "concatenate",
    lambda xp, *xs, axis: xp.concatenate(xs, axis=axis),
    joint_rule=lambda g, _y, *shapes, axis: _as_list(
        split(g, sizes=tuple(shape_of(x)[axis] for x in shapes), axis=axis)
    ),
)


def _unstack(xp: Any, x: Any, *, axis: int) -> list[Any]:
    first = x if axis == -x.ndim else xp.moveaxis(x, axis, 0)
    return list(first) if x.ndim > 1 else [first[k, ...] for k in range(len(first))]


#: y₁, …, yₙ = x at each index of an axis; views. The way to loop over time: the adjoint of n
#: outputs is one stack, where that of n times x[t] would fill n arrays of x's size.
unstack = Primitive(
    "unstack",
    _unstack,
    lambda gs, shapes, _x, *, axis: stack(*_with_zeros(gs, shapes), axis=axis),
)

#: y = the operands side by side along a new axis.
stack: Primitive = Primitive(
    "stack",
    lambda xp, *xs, axis: xp.stack(xs, axis=axis),
    joint_rule=lambda g, _y, *_shapes, axis: _as_list(unstack(g, axis=axis)),
)


def _with_zeros(gs: Any, shapes: Any) -> Sequence[Any]:
    """The cotangents, with zeros for the outputs that nothing used."""
    if not isinstance(gs, list):  # a split into one part
        return [gs]
    for unused in gs:
        if unused is None:
            break
    else:
        return gs
    known = next(g for g in gs if g is not None)
    return [
        zeros_beside(known, shape_of(shape)) if g is None else g
        for g, shape in zip(gs, shapes, strict=True)
    ]


def _as_list(outputs: Any) -> list[Any]:
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def _pad(xp: Any, x: Any, *, widths: tuple[tuple[int, int], ...], value: float) -> Any:
    lead = ((0, 0),) * (x.ndim - len(widths))
    return xp.pad(x, lead + widths, constant_values=value) if widths else x


def _unpad(xp: Any, x: Any, *, widths: tuple[tuple[int, int], ...]) -> Any:
    sizes = x.shape[x.ndim - len(widths) :]
    inner = [slice(low, n - high) for (low, high), n in zip(widths, sizes, strict=True)]
    return x[tuple([..., *inner])]


#: y = x with `value` put before and after it along its last len(widths) axes.
pad = Primitive("pad", _pad, lambda g, _y, _x, *, widths, value: unpad(g, widths=widths))
#: y = x without the margins that `pad` puts.
unpad: Primitive = Primitive(
    "unpad", _unpad, lambda g, _y, _x, *, widths: pad(g, widths=widths, value=0)
)


def permutation(ndim: int, *axes: int) -> tuple[int, ...]:
    """Axes as users give them (from either end) as a permutation counted from the end.

    Raises IndexError for an axis out of range and RuntimeError for a repeated or a missing one.
    """
    counted = tuple(from_end(axis, ndim) for axis in axes)
    if sorted(counted) != list(range(-ndim, 0)):
        raise RuntimeError(f"permute: {axes} is not a permutation of the {ndim} axes of the tensor")
    return counted


def from_end(axis: int, ndim: int, what: str = "dim") -> int:
    """An axis counted from the end. Raises IndexError if the tensor does not have it."""
    reach = max(ndim, 1)
    axis = operator.index(axis)
    if not -reach <= axis < reach:
        raise IndexError(
            f"{what} {axis} is out of range: expected {-reach} to {reach - 1} for {ndim} axes"
        )
    return axis - reach if axis >= 0 else axis
