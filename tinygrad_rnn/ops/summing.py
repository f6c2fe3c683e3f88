"""How are many rows added up on a GPU?

As for the gradient of a bias: (T, B, 4H) to (4H,). CuPy's sum along leading axes runs one block of
threads for 32 columns, which leaves most of a GPU idle. Here many blocks add up a share of the rows
each, and then one adds up the shares, in an order that depends on the shape alone.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from tinygrad_rnn.backend import Array
from tinygrad_rnn.ops import float16

#: The kernel. `stored` is the type in memory, `value` that of sums; LOADED makes one of the other.
SOURCE = r"""
// x: (rows, columns). y: (shares, columns), the sums of `share` rows each; less in the last.
extern "C" __global__ void sum_rows(
    const stored* x, value* y, long long rows, long long columns, long long share
) {
    long long wide = (columns + blockDim.x - 1) / blockDim.x;
    long long column = blockIdx.x % wide * blockDim.x + threadIdx.x, part = blockIdx.x / wide;
    if (column >= columns) return;
    long long last = (part + 1) * share < rows ? (part + 1) * share : rows;
    value sum = 0;
    #pragma unroll 8
    for (long long k = part * share; k < last; k++) sum += LOADED(x[k * columns + column]);
    y[part * columns + column] = sum;
}
"""
_HALF = f"{float16.SOURCE}typedef half_bits stored;\n#define LOADED(x) from_half(x)\n"
_PLAIN = "typedef value stored;\n#define LOADED(x) (x)\n"

_THREADS = 64  # in a block
_BLOCKS = 1024  # several for each multiprocessor of a large GPU
_MOST_SHARES = 256  # which are added up one after the other
_LEAST_ROWS, _LEAST_SHARE, _LEAST_COLUMNS = 512, 32, 32


def sum_of_leading(xp: Any, x: Array, lead: int) -> Array:
    """x summed over its first `lead` axes."""
    rows, columns = math.prod(x.shape[:lead]), math.prod(x.shape[lead:])
    worth_it = rows >= _LEAST_ROWS and columns >= _LEAST_COLUMNS
    if xp is np or not worth_it or x.dtype.kind != "f" or not x.flags.c_contiguous:
        return x.sum(axis=tuple(range(lead)) if lead > 1 else 0)
    dtype: Any = np.float64 if x.dtype == np.float64 else np.float32
    wide = -(-columns // _THREADS)
    most = min(max(_BLOCKS // wide, 1), _MOST_SHARES)
    share = max(-(-rows // most), _LEAST_SHARE)
    shares = -(-rows // share)
    parts, total = xp.empty((shares, columns), dtype), xp.empty(x.shape[lead:], dtype)
    _kernel(xp, x.dtype)((wide * shares,), (_THREADS,), (x, parts, rows, columns, share))
    _kernel(xp, np.dtype(dtype))((wide,), (_THREADS,), (parts, total, shares, columns, shares))
    return total.astype(x.dtype, copy=False)


@functools.cache
def _kernel(xp: Any, dtype: Any) -> Any:
    """The kernel for values of a dtype, which is compiled when it first runs."""
    value = "double" if dtype == np.float64 else "float"
    kinds = _HALF if dtype == np.float16 else _PLAIN
    return xp.RawKernel(f"typedef {value} value;\n{kinds}{SOURCE}", "sum_rows")
