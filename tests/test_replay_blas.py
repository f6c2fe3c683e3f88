"""out += a @ b through NumPy's own BLAS: every order in memory, edge sizes, and without it."""

import itertools

import numpy as np
import pytest

from tinygrad_rnn.scan.replay import blas


def stored(values, order):
    """The values in rows, in columns, or as part of something larger."""
    if order == "part of rows":
        whole = np.zeros((values.shape[0], values.shape[1] + 3), values.dtype)
        whole[:, 2 : 2 + values.shape[1]] = values
        return whole[:, 2 : 2 + values.shape[1]]
    if order == "every second":
        whole = np.zeros((values.shape[0], 2 * values.shape[1]), values.dtype)
        whole[:, ::2] = values
        return whole[:, ::2]
    return np.array(values, order=order)


ORDERS = ("C", "F", "part of rows", "every second")
SIZES = [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1), (0, 4, 5), (3, 0, 5)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("found", [True, False], ids=["BLAS", "no BLAS"])
def test_the_product_is_added(dtype, size, found, monkeypatch):
    if not found:
        monkeypatch.setattr(blas, "gemm", lambda dtype: None)
    rows, inner, columns = size
    draw = np.random.default_rng(0).integers
    a, b, c = (
        draw(-8, 8, shape).astype(dtype)
        for shape in ((rows, inner), (inner, columns), (rows, columns))
    )
    for orders in itertools.product(ORDERS, repeat=3):
        left, right, out = map(stored, (a, b, c), orders)
        function, arguments = blas.adding(left, right, out, {})
        function(*arguments)
        np.testing.assert_array_equal(out, c + a @ b, err_msg=str(orders))


def test_blas_is_found_in_numpy_wheels():
    """Without it everything works, a little slower; this says on which machines that is so."""
    if not any(
        "openblas" in str(lib) for lib in np.show_config("dicts")["Build Dependencies"].values()
    ):
        pytest.skip("NumPy was built with another BLAS")
    assert blas.gemm(np.dtype("float32")) is not None
    assert blas.gemm(np.dtype("float64")) is not None
    assert blas.gemm(np.dtype("float16")) is None
