"""How tests bring arrays to the device under test, and results back to the host to be compared.

Only for tests that run on several devices (the fixture `device` in `conftest.py`). A test that
makes its tensors with `tinygrad_rnn.tensor`, `randn` and so on needs `host` only.
"""

from tinygrad_rnn.backend import get_default_device, is_array, to_device, to_numpy
from tinygrad_rnn.tensor import Tensor


def on_device(value):
    """A NumPy array on the device under test; of a list, tuple or dict, each part."""
    if isinstance(value, list | tuple):
        return type(value)([on_device(part) for part in value])
    if isinstance(value, dict):
        return {name: on_device(part) for name, part in value.items()}
    return to_device(value, get_default_device()) if is_array(value) else value


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
