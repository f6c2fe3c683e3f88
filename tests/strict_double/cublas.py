"""cuBLAS of the test double: the functions that scan/cuda/cublas.py calls, by NumPy.

They get what cuBLAS would get: addresses, sizes, distances between columns, numbers of types. What
cuBLAS would refuse is a status other than 0.
"""

from __future__ import annotations

import ctypes

import numpy as np

from strict_double import cuda

SUCCESS, INVALID_VALUE, NOT_SUPPORTED = 0, 7, 15
_DTYPES = {0: np.float32, 1: np.float64, 2: np.float16}
_COMPUTE = {0: (68, 77), 1: (70,), 2: (68,)}  # what each type may be computed in


class Library:
    """As ctypes would give it. `products` counts the calls by their number of compute type."""

    def __init__(self):
        self.products = {}
        self.stream = None
        self.workspace = None

    def cublasCreate_v2(self, handle):
        handle._obj.value = 1
        return SUCCESS

    def cublasSetStream_v2(self, handle, stream):
        self.stream = stream.value or 0
        self.workspace = None  # as cuBLAS: setting the stream takes the workspace away
        return SUCCESS

    def cublasSetWorkspace_v2(self, handle, memory, size):
        self.workspace = memory.value
        return SUCCESS

    def cublasGemmEx(self, *args):
        """One product: as of a batch, without the distances between its matrices."""
        head, left, right = args[:7], args[7:10], args[10:13]
        beta, out, tail = args[13], args[14:17], args[17:]
        none, one = ctypes.c_longlong(0), ctypes.c_int(1)
        return self.cublasGemmStridedBatchedEx(
            *(*head, *left, none, *right, none, beta, *out, none, one, *tail)
        )

    def cublasGemmStridedBatchedEx(
        self,
        handle,
        left_form,
        right_form,
        m,
        n,
        k,
        alpha,
        left,
        left_type,
        left_distance,
        left_apart,
        right,
        right_type,
        right_distance,
        right_apart,
        beta,
        out,
        out_type,
        out_distance,
        out_apart,
        count,
        compute,
        algorithm,
    ):
        m, n, k = m.value, n.value, k.value
        if self.stream != cuda.get_current_stream().ptr:
            return INVALID_VALUE  # cuBLAS would compute on another stream than everybody else
        if self.workspace is None:
            return NOT_SUPPORTED  # it would allocate, which a graph must not
        kind = left_type.value
        if {right_type.value, out_type.value} != {kind} or compute.value not in _COMPUTE[kind]:
            return NOT_SUPPORTED
        sizes = ((m, k), (k, n))
        forms = left_form.value, right_form.value
        for (rows, columns), form, distance in zip(
            sizes, forms, (left_distance.value, right_distance.value), strict=True
        ):
            if distance < max(1, columns if form else rows):
                return INVALID_VALUE
        if out_distance.value < max(1, m):
            return INVALID_VALUE
        if count.value > 1 and abs(out_apart.value) < (n - 1) * out_distance.value + m:
            return INVALID_VALUE  # the results overlap
        dtype = np.dtype(_DTYPES[kind])
        factor, keep = alpha._obj.value, beta._obj.value
        self.products[compute.value] = self.products.get(compute.value, 0) + 1
        for number in range(count.value):
            places = (
                (left, left_apart, *sizes[0], forms[0], left_distance),
                (right, right_apart, *sizes[1], forms[1], right_distance),
                (out, out_apart, m, n, 0, out_distance),
            )
            a, b, c = (
                _matrix(
                    start.value + number * apart.value * dtype.itemsize,
                    *(rows, columns, form, distance.value, dtype),
                )
                for start, apart, rows, columns, form, distance in places
            )
            cuda.launch(_multiply, a, b, c, factor, keep)
        return SUCCESS


@np.errstate(all="ignore")  # a GPU warns of nothing
def _multiply(a, b, c, factor, keep):
    wide = np.float32 if c.dtype == np.float16 else c.dtype
    product = factor * (a.astype(wide) @ b.astype(wide))
    c[...] = (product + keep * c if keep else product).astype(c.dtype)


def _matrix(address, rows, columns, transposed, distance, dtype):
    """The memory as a matrix of rows × columns: by columns, or by rows if transposed."""
    lines, width = (rows, columns) if transposed else (columns, rows)
    count = (lines - 1) * distance + width
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
    flat = np.frombuffer(memory, dtype)
    by_lines = np.lib.stride_tricks.as_strided(
        flat, (lines, width), (distance * dtype.itemsize, dtype.itemsize)
    )
    return by_lines if transposed else by_lines.T
