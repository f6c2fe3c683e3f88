"""The special functions of the test double: what the library uses of `cupyx.scipy.special`."""

from __future__ import annotations

import math

import numpy as np

from strict_double.array import array_of, wrapped

_math_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x):
    """That of a float32 is a float32, of anything else a float64."""
    dtype = np.float32 if x.dtype == np.float32 else np.float64
    return wrapped(np.asarray(_math_erf(array_of(x)), dtype))
