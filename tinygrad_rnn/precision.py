"""How exact are products of float32 matrices on a GPU?

"highest": as float32, the default. "high" and "medium": as TF32, where the factors are rounded to
10 bits and the sums stay float32: several times faster on GPUs since 2020 (NVIDIA, "TF32", A100
whitepaper, 2020). On the CPU it makes no difference. The names are PyTorch's.
"""

from __future__ import annotations

import sys
from typing import Any

_precision = "highest"
_FULL, _TF32 = 0, 7  # the array library's numbers for "as the dtype says" and TF32


def get_float32_matmul_precision() -> str:
    """As set: "highest" (full float32), "high" or "medium" (TF32)."""
    return _precision


def set_float32_matmul_precision(precision: str) -> None:
    """Choose how exact products of float32 matrices are on a GPU; see above.

    Raises ValueError for another word.
    """
    global _precision
    if precision not in ("highest", "high", "medium"):
        raise ValueError(
            f"set_float32_matmul_precision: {precision!r}; expected 'highest', 'high' or 'medium'"
        )
    _precision = precision
