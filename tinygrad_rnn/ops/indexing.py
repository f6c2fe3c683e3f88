"""Reading and writing at positions: getitem/place, take/add_rows, gather/scatter_add, put.

The adjoint of reading is adding to zeros at the same positions, and repeated positions must add up,
in an order of our own, so that every run gives the same sums (on a GPU: `adding.py`). Of several
values that are written to one place, the last stays, on a GPU as in NumPy, and it alone has a
gradient.
What lies outside is an IndexError. A GPU would have to be waited for before it could be raised, so
there it reads as NaN, which has no way to pass unseen; of integers, which have none, it is raised.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinygrad_rnn.backend import Array, is_array, namespace
from tinygrad_rnn.ops.adding import add_in_order
from tinygrad_rnn.ops.broadcasting import sum_to
from tinygrad_rnn.ops.elementwise import where
from tinygrad_rnn.ops.primitive import Primitive, shape_of, zeros_beside

BASIC = (int, slice, type(None), type(Ellipsis))


def is_basic(index: Any) -> bool:
    """Whether an index selects a view, each element at most once (no index arrays, no masks)."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(isinstance(part, BASIC) and not isinstance(part, bool) for part in parts)


def _getitem(xp: Any, x: Any, *, index: Any) -> Any:
    if xp is np or is_basic(index):
        y = x[index]
        if isinstance(y, np.generic):  # of NumPy's, a copy; an element in place is a view
            y = x[(*index, ...) if isinstance(index, tuple) else (index, ...)]
        return y
    index, outside = _inside(xp, x.shape, index)
    return _spoilt(xp, x[index], outside)


def _inside(xp: Any, shape: tuple[int, ...], index: Any) -> tuple[Any, Array | None]:
    """An index with 0 for all that lies outside of the shape, and whether anything does."""
    parts = index if isinstance(index, tuple) else (index,)
    axes = [part.ndim if _is_mask(part) else int(not _names_no_axis(part)) for part in parts]
    axis, inside, outside = 0, [], None
    for part, count in zip(parts, axes, strict=True):
        if is_array(part) and not _is_mask(part):
            part, wrong = _in_range(xp, part, shape[axis])
            outside = wrong.any() if outside is None else outside | wrong.any()
        inside.append(part)
        axis += len(shape) - sum(axes) if part is Ellipsis else count
    return tuple(inside), outside


def _in_range(xp: Any, index: Array, size: int) -> tuple[Array, Array]:
    """Integers with 0 for those that are not from -size to size - 1, and which these are."""
    index = index.astype(np.int64, copy=False)  # in which every size can be compared
    wrong = (index < -size) | (index >= size)
    return xp.where(wrong, 0, index), wrong


def _is_mask(part: Any) -> bool:
    return is_array(part) and part.dtype == np.bool_


def _names_no_axis(part: Any) -> bool:
    return part is None or part is Ellipsis or isinstance(part, bool)


def _spoilt(xp: Any, y: Array, outside: Array | None) -> Array:
    """What a GPU read or wrote, with NaN where an index lay outside; IndexError for integers."""
    if outside is None:
        return y
    if y.dtype.kind == "f":
        return xp.where(outside, math.nan, y)
    if outside.any().item():
        raise IndexError("an index lies outside of the array")
    return y


def _place(xp: Any, g: Any, *, shape: tuple[int, ...], index: Any) -> Any:
    if is_array(index) and not _is_mask(index) and len(shape) > 1:  # whole rows
        return _add_rows(xp, g, index, rows=shape[0])
    y = xp.zeros(shape, g.dtype)
    if is_basic(index) or _is_mask(index):  # each place at most once
        y[index] = g
    elif xp is np:
        np.add.at(y, index, g)
    else:
        index, _ = _inside(xp, shape, index)
        _add_at(xp, y, index, g)
    return y


def _add_at(xp: Any, y: Array, index: Any, x: Array) -> None:
    """y[index] += x on a GPU, where values for the same place add up in order."""
    places = xp.arange(y.size).reshape(y.shape)[index]
    add_in_order(xp, y.reshape(-1), places.reshape(-1), x.reshape(-1))


#: y = x[index], with NumPy's meaning of basic, advanced and boolean indices.
getitem = Primitive(
    "getitem",
    _getitem,
    lambda g, _y, x_shape, *, index: place(g, shape=shape_of(x_shape), index=index),
)
#: y = zeros of `shape` with x added at `index`.
place: Primitive = Primitive(
    "place", _place, lambda g, _y, _x, *, shape, index: getitem(g, index=index)
)


def _put(xp: Any, x: Any, value: Any, *, index: Any) -> Any:
    y = x.copy()
    assign(xp, y, index, value)
    return y


def assign(xp: Any, x: Array, index: Any, value: Any) -> None:
    """x[index] = value, in place."""
    if getattr(value, "size", 0) == 1:
        value = value.reshape(())  # a single element fits a single place, whatever its axes
    if xp is np or is_basic(index):
        x[index] = value
        return
    index, outside = _inside(xp, x.shape, index)
    if getattr(value, "size", 1) > 1 and _may_repeat(index):
        value = _settled(xp, value, *_last_writers(xp, x.shape, index))
    x[index] = value
    if outside is not None:
        x[...] = _spoilt(xp, x, outside)


def _may_repeat(index: Any) -> bool:
    """Whether an index can name a place more than once."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, list) or (is_array(part) and not _is_mask(part)) for part in parts)


def _last_writers(xp: Any, shape: tuple[int, ...], index: Any) -> tuple[Array, tuple[int, ...]]:
    """Of all that is written at an index, the number of the one that stays where it is written.

    Numbered, in order, are elements, or whole rows if the index only names some of those; and the
    shape of each. shape: of the array that is written into.
    """
    parts = index if isinstance(index, tuple) else (index,)
    named = len(parts) if all(_may_repeat(part) for part in parts) else len(shape)
    places = xp.arange(math.prod(shape[:named])).reshape(shape[:named])[index]
    flat = places.reshape(-1)
    order = xp.argsort(flat, kind="stable")
    last = order[xp.searchsorted(flat[order], flat, side="right") - 1]
    return last.reshape(places.shape), shape[named:]


def _settled(xp: Any, value: Array, last: Array, row: tuple[int, ...]) -> Array:
    """What is written, with the one that stays in place of all that do not."""
    shape = (*last.shape, *row)
    value = value.reshape(value.shape[max(0, value.ndim - len(shape)) :])  # axes of 1 in front
    return xp.broadcast_to(value, shape).reshape(last.size, *row)[last]


def _put_value_rule(g: Any, _y: Any, x_shape: Any, value_shape: Any, *, index: Any) -> Any:
    shape = shape_of(value_shape)
    read = getitem(g, index=index)
    if _may_repeat(index):
        read = _where_it_stays(read, shape_of(x_shape), index)
    lead = len(shape) - len(read.shape)
    if lead > 0:  # leading axes of size 1, which assignment ignores
        read = read.reshape((1,) * lead + read.shape)
    return read if read.shape == shape else sum_to(read, shape=shape)


def _where_it_stays(read: Any, shape: tuple[int, ...], index: Any) -> Any:
    """What is read at an index, with zeros where something else was written later."""
    parts = index if isinstance(index, tuple) else (index,)
    xp = namespace(*(part for part in parts if is_array(part)))
    last, row = _last_writers(xp, shape, index)
    stays = last == xp.arange(last.size).reshape(last.shape)
    return where(stays.reshape(last.shape + (1,) * len(row)), read, 0)


#: y = a copy of x with `value` written at `index`: assignment without touching x.
put: Primitive = Primitive(
    "put",
    _put,
    lambda g, _y, _x, _value, *, index: put(g, 0, index=index),
    _put_value_rule,
)


def _take(xp: Any, table: Any, indices: Any) -> Any:
    if xp is np:
        return np.take(table, indices, axis=0)
    indices, outside = _in_range(xp, indices, len(table))
    y = xp.take(table, indices, axis=0)
    return _spoilt(xp, y, outside.reshape(indices.shape + (1,) * (table.ndim - 1)))


#: y = table[indices], rows of a table: (N, …)[indices] -> (*indices.shape, …). An embedding lookup.
take = Primitive(
    "take",
    _take,
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
    if xp is not np:
        add_in_order(xp, y, flat, x)
        return y
    order = np.argsort(flat, kind="stable")
    row, x = flat[order], x[order]
    starts = np.flatnonzero(np.concatenate((np.ones(1, bool), np.diff(row) != 0)))
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
    places = [
        xp.arange(size).reshape((-1,) + (1,) * after)
        for after, size in zip(reversed(range(index.ndim)), index.shape, strict=True)
    ]
    places[axis] = index
    return tuple(places)


def _gather(xp: Any, x: Any, index: Any, *, axis: int) -> Any:
    if xp is np:
        return x[places_along(np, index, axis)]
    index, outside = _in_range(xp, index, x.shape[axis])
    return _spoilt(xp, x[places_along(xp, index, axis)], outside)


#: y[…, k, …] = x[…, index[…, k, …], …] along an axis; along the others, x may be longer.
gather = Primitive(
    "gather",
    _gather,
    lambda g, _y, x_shape, index, *, axis: scatter_add(
        zeros_beside(g, shape_of(x_shape)), index, g, axis=axis
    ),
    None,
)


def _scatter_add(xp: Any, x: Any, index: Any, source: Any, *, axis: int) -> Any:
    y = x.copy()
    places = places_along(xp, index, axis)
    outside = None
    if xp is not np:
        places, outside = _inside(xp, y.shape, places)
    if index.shape[axis] == 1:  # no position can repeat
        y[places] += source
    elif xp is np:
        np.add.at(y, places, source)
    else:
        _add_at(xp, y, places, source)
    return _spoilt(xp, y, outside)


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
