"""How tests bring arrays to the device under test, and results back to the host to be compared.

Only for tests that run on several devices (the fixture `device` in `conftest.py`). A test that
makes its tensors with `tinygrad_rnn.tensor`, `randn` and so on needs `host` only.
"""

import numpy as np

from tinygrad_rnn.backend import get_default_device, is_array, to_device, to_numpy
from tinygrad_rnn.tensor import Tensor


def on_device(value):
    """A NumPy array (or what makes one) as an array of the device under test."""
    return to_device(np.asarray(value), get_default_device())


def host(value):
    """A Tensor or an array of any device as a NumPy array; of a list or tuple, each part.

    >>> host([Tensor([1.0, 2.0]), 3])
    [array([1., 2.], dtype=float32), 3]
    """
    if isinstance(value, list | tuple):
        return type(value)([host(part) for part in value])
    if isinstance(value, Tensor):
        value = value.array
    return to_numpy(value) if is_array(value) else value
