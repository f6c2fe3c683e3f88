"""How exact are products of float32 matrices on a GPU?

"highest": as float32, the default. "high" and "medium": as TF32, where the factors are rounded to
10 bits and the sums stay float32: several times faster on GPUs since 2020 (NVIDIA, "TF32", A100
whitepaper, 2020). On the CPU it makes no difference. The names are PyTorch's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_precision = "highest"
_AS_THE_DTYPE_SAYS, _TF32 = 1, 7  # of cupy._core._routines_linalg, COMPUTE_TYPE_...
_told: dict[int, str] = {}  # what each array library was told, by its identity


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


def tell(xp: Any) -> None:
    """Have the array library of a GPU multiply float32 matrices as was chosen."""
    if _told.get(id(xp)) != _precision:
        _told[id(xp)] = _precision
        kind = _AS_THE_DTYPE_SAYS if _precision == "highest" else _TF32
        xp._core.set_compute_type(np.float32, kind)
