"""What Tensors can do: operators and methods with PyTorch's names, one primitive each.

This is the border between PyTorch's conventions (dim from either end, None for all axes, keepdim)
and the primitives' (axes counted from the end, always named). A method is also the function of the
same name in the package: `tinygrad_rnn.tanh` is `Operators.tanh`.

`Operators` is built up in the order of the files: conversions, arithmetic, shapes, positions,
reductions, and here what multiplies matrices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tinygrad_rnn.ops import linear
from tinygrad_rnn.ops.operators.functions import cat, einsum, matmul, stack, where
from tinygrad_rnn.ops.operators.reductions import Reductions
from tinygrad_rnn.ops.primitive import describe

if TYPE_CHECKING:
    from typing_extensions import Self


class Operators(Reductions):
    """Operators and methods over primitives, for whatever kind of Tracer inherits them."""

    __slots__ = ()

    def __matmul__(self, other: Any) -> Self:
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> Self:
        return matmul(other, self)

    def matmul(self, other: Any) -> Self:
        """y = x @ other, with NumPy's meaning for vectors and for leading axes."""
        return matmul(self, other)

    def mm(self, other: Any) -> Self:
        """y = x @ other for two matrices."""
        return _product("mm", self, other, 2)

    def bmm(self, other: Any) -> Self:
        """y[b] = x[b] @ other[b]:  (B, N, M), (B, M, P) -> (B, N, P)."""
        return _product("bmm", self, other, 3)

    def addmm(self, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Self:
        """y = beta · x + alpha · mat1 @ mat2 for two matrices; x is broadcast."""
        product = _product("addmm", mat1, mat2, 2)
        return (self if beta == 1 else beta * self) + (product if alpha == 1 else alpha * product)

    def mv(self, vector: Any) -> Self:
        """y = x @ vector:  (N, M), (M,) -> (N,)."""
        if self.ndim != 2 or vector.ndim != 1:
            raise RuntimeError(
                f"mv: expected a matrix and a vector, got {describe(self)}, {describe(vector)}"
            )
        return matmul(self, vector)

    def dot(self, other: Any) -> Self:
        """The inner product of two vectors."""
        if self.ndim != 1 or other.ndim != 1:
            raise RuntimeError(
                f"dot: expected two vectors, got {describe(self)}, {describe(other)}"
            )
        return matmul(self, other)

    def outer(self, other: Any) -> Self:
        """y[i, j] = x[i] · other[j]."""
        if self.ndim != 1 or other.ndim != 1:
            raise RuntimeError(
                f"outer: expected two vectors, got {describe(self)}, {describe(other)}"
            )
        return self.unsqueeze(-1) * other


def _product(name: str, a: Any, b: Any, ndim: int) -> Any:
    if a.ndim != ndim or b.ndim != ndim:
        raise RuntimeError(
            f"{name}: expected two tensors of {ndim} axes, got {describe(a)}, {describe(b)}"
        )
    if a.shape[:-2] != b.shape[:-2]:
        raise RuntimeError(f"{name}: {describe(a)} and {describe(b)} differ in their leading axis")
    return linear.matmul(a, b)
