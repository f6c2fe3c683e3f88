"""In which dtype do operands of several dtypes meet? As in PyTorch, and so do their gradients.

One difference: an int64 without axes widens int32 here, as in NumPy; so integers are only divided.
"""

import itertools

import numpy as np
import pytest

import tinygrad_rnn

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("device")

FLOATS = ("float32", "float64")
DTYPES = (*FLOATS, "int64", "int32", "bool")
SHAPES = ((), (3,), (2, 3))
PAIRS = list(itertools.product(DTYPES, DTYPES))
OPERATIONS = {
    "add": lambda x, y: x + y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
}


def operand(library, shape, dtype):
    array = np.ones(shape, dtype)
    return library.tensor(array).requires_grad_(dtype in FLOATS)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        (name, first, second)
        for name in OPERATIONS
        for first, second in PAIRS
        if name == "divide" or {first, second} & set(FLOATS)
    ],
)
def test_two_operands(name, first, second):
    for shape, other in itertools.product(SHAPES, SHAPES):
        results = []
        for library in (tinygrad_rnn, torch):
            x, y = operand(library, shape, first), operand(library, other, second)
            result = OPERATIONS[name](x, y)
            dtypes = [str(result.dtype).removeprefix("torch.")]
            if result.requires_grad:
                result.sum().backward()
                dtypes += [
                    str(leaf.grad.dtype).removeprefix("torch.")
                    for leaf in (x, y)
                    if leaf.requires_grad
                ]
            results.append(dtypes)
        assert results[0] == results[1], (shape, other)
