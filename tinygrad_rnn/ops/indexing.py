"""Reading and writing at positions: getitem/place, take/add_rows, gather/scatter_add, put.

The adjoint of reading is adding to zeros at the same positions, and repeated positions must add up.
Sums over repeated rows are ordered by a stable sort, so the result is the same on every run.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinygrad_rnn.backend import namespace
from tinygrad_rnn.ops.broadcasting import sum_to
from tinygrad_rnn.ops.primitive import Primitive, shape_of

_BASIC = (int, slice, type(None), type(Ellipsis))


def is_basic(index: Any) -> bool:
    """Whether an index selects a view, each element at most once (no index arrays, no masks)."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(isinstance(part, _BASIC) and not isinstance(part, bool) for part in parts)


def _place(xp: Any, g: Any, *, shape: tuple[int, ...], index: Any) -> Any:
    y = xp.zeros(shape, g.dtype)
    if is_basic(index) or getattr(index, "dtype", None) == np.bool_:  # each place at most once
        y[index] = g
    else:
        xp.add.at(y, index, g)
    return y


#: y = x[index], with NumPy's meaning of basic, advanced and boolean indices.
getitem = Primitive(
    "getitem",
    lambda xp, x, *, index: x[index],
    lambda g, _y, x_shape, *, index: place(g, shape=shape_of(x_shape), index=index),
)
#: y = zeros of `shape` with x added at `index`.
place: Primitive = Primitive(
    "place", _place, lambda g, _y, _x, *, shape, index: getitem(g, index=index)
)


def _put(xp: Any, x: Any, value: Any, *, index: Any) -> Any:
    y = x.copy()
    y[index] = assignable(value)
    return y


def assignable(value: Any) -> Any:
    """A value to assign; a single element without its axes, so that it fits a single place."""
    return value.reshape(()) if getattr(value, "size", 0) == 1 else value


def _put_value_rule(g: Any, _y: Any, _x: Any, value_shape: Any, *, index: Any) -> Any:
    shape = shape_of(value_shape)
    read = getitem(g, index=index)
    lead = len(shape) - len(read.shape)
    if lead > 0:  # leading axes of size 1, which assignment ignores
        read = read.reshape((1,) * lead + read.shape)
    return read if read.shape == shape else sum_to(read, shape=shape)


#: y = a copy of x with `value` written at `index`: assignment without touching x.
put: Primitive = Primitive(
    "put",
    _put,
    lambda g, _y, _x, _value, *, index: put(g, 0, index=index),
    _put_value_rule,
)

#: y = table[indices], rows of a table: (N, …)[indices] -> (*indices.shape, …). An embedding lookup.
take = Primitive(
    "take",
    lambda xp, table, indices: xp.take(table, indices, axis=0),
    lambda g, _y, table_shape, indices: add_rows(g, indices, rows=shape_of(table_shape)[0]),
    None,
)


def _add_rows(xp: Any, x: Any, indices: Any, *, rows: int) -> Any:
    width = x.shape[indices.ndim :]
    y = xp.zeros((rows, *width), x.dtype)
    flat, x = indices.reshape(-1), x.reshape(indices.size, *width)
    flat = xp.where(flat < 0, flat + rows, flat)
    if not flat.size:
        return y
    order = xp.argsort(flat, kind="stable")
    row, x = flat[order], x[order]
    starts = xp.flatnonzero(xp.concatenate((xp.ones(1, bool), xp.diff(row) != 0)))
    if xp is not np:
        y[row[starts]] = xp.add.reduceat(x, starts, axis=0)
        return y
    # NumPy's reduceat walks down column after column, 2 to 15 times slower than a sum per row.
    y[row[starts]] = x[starts]
    stops = np.append(starts[1:], len(x))
    several = stops - starts > 1
    for start, stop in zip(starts[several].tolist(), stops[several].tolist(), strict=True):
        np.add.reduce(x[start:stop], axis=0, out=y[row[start], ...])
    return y


#: y = zeros of N `rows`, with the rows of x added at `indices`: (*indices.shape, …) -> (N, …).
add_rows: Primitive = Primitive(
    "add_rows",
    _add_rows,
    lambda g, _y, _x, indices, *, rows: take(g, indices),
    None,
)


def places_along(xp: Any, index: Any, axis: int) -> tuple[Any, ...]:
    """The positions that an index along an axis means, as one index array for each axis."""
    places = [xp.asarray(place) for place in np.ogrid[tuple(map(slice, index.shape))]]
    places[axis] = index
    return tuple(places)


#: y[…, k, …] = x[…, index[…, k, …], …] along an axis; along the others, x may be longer.
gather = Primitive(
    "gather",
    lambda xp, x, index, *, axis: x[places_along(xp, index, axis)],
    lambda g, _y, x_shape, index, *, axis: scatter_add(
        _zeros(g, shape_of(x_shape)), index, g, axis=axis
    ),
    None,
)


def _zeros(like: Any, shape: tuple[int, ...]) -> Any:
    return namespace(getattr(like, "array", like)).zeros(shape, like.dtype)


def _scatter_add(xp: Any, x: Any, index: Any, source: Any, *, axis: int) -> Any:
    y = x.copy()
    places = places_along(xp, index, axis)
    if index.shape[axis] == 1:  # no position can repeat
        y[places] += source
    else:
        xp.add.at(y, places, source)
    return y


#: y = x with source[…, k, …] added at position index[…, k, …] of an axis; x may be longer.
scatter_add: Primitive = Primitive(
    "scatter_add",
    _scatter_add,
    lambda g, _y, _x, _index, _source, *, axis: g,
    None,
    lambda g, _y, _x, index, _source, *, axis: gather(g, index, axis=axis),
)

#: The indices of the non-zero values, a row for each: (count, ndim).
nonzero = Primitive("nonzero", lambda xp, x: xp.argwhere(x))
