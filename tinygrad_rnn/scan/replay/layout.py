"""How do the values of NumPy's executor lie in memory?

Values of two axes (batch, features) are stored with the batch innermost: features then lie in
blocks, so a gate is contiguous, and the matrix products of small batches run up to twice as fast
(docs/adr/0010).
"""

from __future__ import annotations

from typing import Any

import numpy as np


def allocate(lead: tuple[int, ...], shape: tuple[int, ...], dtype: Any) -> Any:
    """Memory for values of a shape, `lead` times: zeros, seen as (*lead, *shape)."""
    if len(shape) == 2:
        return np.zeros((*lead, shape[1], shape[0]), dtype).swapaxes(-1, -2)
    return np.zeros((*lead, *shape), dtype)
