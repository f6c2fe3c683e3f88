"""In another dtype or on another device: `to` and its shorthands.

These methods have the names of Python's types (float, int, bool), as PyTorch's have. They stand
apart so that in the other files those names mean the types.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import numpy as np

from tinygrad_rnn import backend
from tinygrad_rnn.backend import DTypeLike
from tinygrad_rnn.ops import elementwise
from tinygrad_rnn.ops.primitive import Tracer

if TYPE_CHECKING:
    from typing_extensions import Self


class Conversions(Tracer):
    """What changes how or where values are stored. Gradients come back as the operand was."""

    __slots__ = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        raise NotImplementedError

    @property
    def device(self) -> backend.device:
        """Where the values live."""
        raise NotImplementedError

    def to(self, *args: Any, dtype: DTypeLike = None, device: Any = None, **_: Any) -> Self:
        """In another dtype, on another device, or as another tensor is; itself if it is so."""
        for arg in args:
            if isinstance(arg, Conversions):
                dtype, device = arg.dtype, arg.device
            elif arg is None or isinstance(arg, builtins.bool):  # non_blocking, by its place
                continue
            elif isinstance(arg, backend.device | builtins.int) or (
                isinstance(arg, str) and arg.partition(":")[0] in ("cpu", "cuda")
            ):
                device = arg
            else:
                dtype = arg
        x = self
        if device is not None:
            source, wanted_device = x.device, backend.device(device)
            if wanted_device != source:
                backend.library(wanted_device)  # raises, and says why, if there is none
                x = elementwise.transfer(x, device=wanted_device, source=source)
        if dtype is not None and np.dtype(dtype) != x.dtype:
            wanted = np.dtype(dtype)
            if wanted.kind == "f":
                x = elementwise.cast(x, dtype=wanted, source=x.dtype)
            else:
                x = elementwise.discretize(x, dtype=wanted)
        return x

    def type(self, dtype: DTypeLike) -> Self:
        """In another dtype."""
        return self.to(dtype=dtype)

    def type_as(self, other: Any) -> Self:
        """In the dtype of other."""
        return self.to(dtype=other.dtype)

    def float(self) -> Self:
        """In float32."""
        return self.to(dtype=np.float32)

    def double(self) -> Self:
        """In float64."""
        return self.to(dtype=np.float64)

    def half(self) -> Self:
        """In float16."""
        return self.to(dtype=np.float16)

    def long(self) -> Self:
        """In int64, towards zero."""
        return self.to(dtype=np.int64)

    def int(self) -> Self:
        """In int32, towards zero."""
        return self.to(dtype=np.int32)

    def bool(self) -> Self:
        """Whether each value is non-zero."""
        return self.to(dtype=np.bool_)

    def cpu(self) -> Self:
        """On the host."""
        return self.to(device="cpu")

    def cuda(self, device: Any = None) -> Self:
        """On the GPU that computes, or on the one named."""
        return self.to(device="cuda" if device is None else device)
