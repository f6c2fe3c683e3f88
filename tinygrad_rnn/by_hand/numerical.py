"""How can a slope be measured without a derivation? By differences, or by a complex step.

Both ask only for the function itself, so they share no error with a derivation or a graph. Needs no
other file.
"""

from __future__ import annotations

from collections.abc import Callable

from tinygrad_rnn.by_hand.cell import Array

STEP = 1e-5
COMPLEX_STEP = 1e-30


def central_difference(
    f: Callable[[Array], float], a: Array, v: Array, step: float = STEP
) -> float:
    """(f(a + εv) - f(a - εv)) / 2ε, the slope of f at a along v, to about 1e-10 of f in float64.

    The error is ε² f''' / 6 from the step and 1e-16 f / ε from rounding; ε = 1e-5 is near the best
    of both.

    >>> import numpy as np
    >>> f = lambda a: float((a**3).sum())
    >>> abs(central_difference(f, np.array([2.0, 1.0]), np.array([1.0, 0.0])) - 12) < 1e-8
    True
    """
    return (f(a + step * v) - f(a - step * v)) / (2 * step)


def complex_step(f: Callable[[Array], complex], a: Array, v: Array) -> float:
    """Im f(a + iεv) / ε, the slope of f at a along v, to rounding error (Squire & Trapp 1998).

    For analytic f, f(a + iε) = f(a) + iε f'(a) - ε² f''(a)/2 - …: the imaginary part holds the
    slope and nothing is subtracted, so ε may be 1e-30. f has to take complex arrays.

    >>> import numpy as np
    >>> complex_step(lambda a: complex((a**3).sum()), np.array([2.0, 1.0]), np.array([1.0, 0.0]))
    12.0
    """
    return f(a + 1j * COMPLEX_STEP * v).imag / COMPLEX_STEP
