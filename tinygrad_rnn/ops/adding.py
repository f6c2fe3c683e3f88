"""How are values added at repeated positions on a GPU, so that every run gives the same sums?

CuPy's `add.at` adds atomically, in whatever order the threads come. Its `add.reduceat` subtracts
running sums, which loses digits, and lets a NaN spread to all later rows. So positions are sorted,
stably, and one thread for each row and column adds up the values of that row in the order in which
they came: `np.add.at`'s order, and its sums. NumPy itself is not used here; see `indexing.py`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tinygrad_rnn.backend import Array

#: The kernel. It is also C++, and so can be run without a GPU; `value` is to be defined above it.
SOURCE = r"""
// sorted: the rows to add to, in order. source: where in x the values for each of them are.
extern "C" __global__ void add_in_order(
    value* y, long long rows, long long width,
    const long long* sorted, const long long* source, const value* x, long long count
) {
    long long thread = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    long long first = thread / width, column = thread % width;
    if (first >= count) return;
    long long row = sorted[first];
    if (row < 0 || row >= rows) return;
    if (first > 0 && sorted[first - 1] == row) return;  // an earlier thread adds up this row
    // Where the row ends, in steps that double and then halve: known beforehand, so that the loads
    // of the sum need not wait for one another.
    long long last = first, step = 1;
    for (; last + step < count && sorted[last + step] == row; step *= 2) last += step;
    for (; step > 0; step /= 2)
        if (last + step < count && sorted[last + step] == row) last += step;
    value sum = y[row * width + column];
    #pragma unroll 8
    for (long long k = first; k <= last; k++)
        sum += x[source[k] * width + column];
    y[row * width + column] = sum;
}
"""

_THREADS = 128  # in a block
_C_NAMES = {np.float32: "float", np.float64: "double", np.int64: "long long"}


def add_in_order(xp: Any, y: Array, places: Array, x: Array) -> None:
    """y[places[k]] += x[k], for k = 0, 1, … in this order, on a GPU.

    y: (rows, …), C-contiguous; places: (count,) integers; x: (count, …). Places that are not
    from 0 to rows - 1 are left out. float16 is added up in float32, and rounded once.
    """
    if not x.size:
        return
    dtype: Any = {"float16": np.float32, "float32": np.float32, "float64": np.float64}.get(
        y.dtype.name, np.int64
    )
    total, x = y.astype(dtype, copy=False), xp.ascontiguousarray(x.astype(dtype, copy=False))
    places = places.astype(np.int64, copy=False)
    source = xp.argsort(places, kind="stable")
    arguments = (total, len(y), x.size // len(x), places[source], source, x, len(x))
    _kernel(xp, dtype)((-(-x.size // _THREADS),), (_THREADS,), arguments)
    if total is not y:
        xp.copyto(y, total, casting="unsafe")


@functools.cache
def _kernel(xp: Any, dtype: Any) -> Any:
    """The kernel for values of a dtype, which is compiled when it first runs."""
    return xp.RawKernel(f"typedef {_C_NAMES[dtype]} value;\n{SOURCE}", "add_in_order")
