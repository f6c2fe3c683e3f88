"""The primitives: every operation the engine knows, each with its forward and its rules.

Read `primitive.py` (what an operation is), then the tables: `elementwise`, `linear`, `reduction`,
`shape`, `broadcasting`, `indexing`. `operators.py` gives them PyTorch's names as methods.
"""

from tinygrad_rnn.ops.broadcasting import broadcast_to, sum_to
from tinygrad_rnn.ops.elementwise import (
    absolute, add, bitwise_and, bitwise_not, bitwise_or, bitwise_xor, cast, ceil, clip, copy, cos,
    divide, equal, erf, exp, expm1, floor, floor_divide, greater, greater_equal, isfinite, isinf,
    isnan, less, less_equal, log, log1p, logical_and, logical_not, logical_or, maximum, minimum,
    multiply, negative, not_equal, power, relu, remainder, round, sigmoid, sign, sin, softplus,
    sqrt, square, subtract, tanh, transfer, where,
)
from tinygrad_rnn.ops.indexing import add_rows, gather, getitem, place, put, scatter_add, take
from tinygrad_rnn.ops.linear import contract, einsum, matmul
from tinygrad_rnn.ops.primitive import Primitive, Tracer
from tinygrad_rnn.ops.reduction import (
    all, any, argmax, argmin, argsort, cumsum, logsumexp, max, mean, min, sum,
)
from tinygrad_rnn.ops.shape import (
    concatenate, flip, pad, reshape, split, stack, transpose, unpad, unstack,
)
