"""What the tests share: how Hypothesis draws examples, and the array libraries to test on.

The examples are the same on every run and every machine, so a failure repeats. To look for new
ones: `pytest --hypothesis-profile=thorough tests/test_ops.py`.
"""

import importlib.util

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough", settings.get_profile("repeatable"), derandomize=False, max_examples=500
)
settings.load_profile("repeatable")


def _array_libraries():
    """NumPy, and CuPy where it can compute."""
    yield pytest.param(np, id="numpy")
    if importlib.util.find_spec("cupy"):
        import cupy

        if cupy.is_available():
            yield pytest.param(cupy, id="cupy", marks=pytest.mark.gpu)


@pytest.fixture(scope="session", params=_array_libraries())
def xp(request):
    """The array library to compute with."""
    return request.param
