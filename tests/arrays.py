"""How tests bring arrays to the device under test, and results back to the host to be compared.

Only for tests that run on several devices (the fixture `device` in `conftest.py`). A test that
makes its tensors with `tinygrad_rnn.tensor`, `randn` and so on needs `host` only.
"""

import pytest

from tinygrad_rnn.backend import get_default_device, is_array, namespace, to_device, to_numpy
from tinygrad_rnn.tensor import Tensor

#: For a test that is about the host: it runs there only, and says why.
host_only = pytest.mark.parametrize("device", ["cpu"], indirect=True)


def on_device(value):
    """A NumPy array, or a leaf, on the device under test; of a list, tuple or dict, each part."""
    if isinstance(value, Tensor):
        moved = value.detach().to(get_default_device())
        return moved.requires_grad_(value.requires_grad)
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


def share_memory(a, b):
    """Whether two Tensors lie on the same memory."""
    return bool(namespace(a.array).may_share_memory(a.array, b.array))
