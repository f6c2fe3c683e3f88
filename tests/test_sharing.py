"""Memory shared with other libraries: DLPack both ways, `__array__`, `asarray`, on every device.

NumPy stands for the other libraries on the CPU, CuPy on a GPU, and PyTorch where it is installed.
"""

import array

import numpy as np
import pytest
from arrays import host, on_device

import tinygrad_rnn as torch
from tinygrad_rnn import backend

pytestmark = pytest.mark.usefixtures("device")

SHAPES = {
    "matrix": lambda x: x,
    "transposed": lambda x: x.T,
    "strided": lambda x: x[:, ::2],
    "row": lambda x: x[1],
    "number": lambda x: x[0, 0],
    "empty": lambda x: x[:0],
}
DTYPES = ["float32", "float64", "float16", "int64", "uint8", "bool"]


def values(dtype):
    return (np.random.default_rng(0).standard_normal((3, 4)) * 9).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("view", SHAPES.values(), ids=SHAPES.keys())
def test_dlpack_out_and_back(view, dtype, xp):
    x = view(torch.tensor(values(dtype)))
    outside = backend.from_dlpack(x)
    assert type(outside) is type(x.array)
    assert (outside.dtype, outside.shape) == (x.dtype, x.shape)
    assert x.__dlpack_device__() == ((1, 0) if xp is np else (2, 0))
    back = torch.from_dlpack(outside)
    assert back.device == x.device
    assert host(back).tobytes() == host(x).tobytes() == view(values(dtype)).tobytes()
    if x.numel():
        x.zero_()  # the same memory
        assert not host(outside).any()
        assert not host(back).any()


def test_dlpack_refuses_what_would_be_lost():
    x = torch.ones(2, requires_grad=True)
    for tensor in (x, x * 2):
        with pytest.raises(BufferError, match=r"requires a gradient.*share tensor\.detach\(\)"):
            backend.from_dlpack(tensor)
    assert host(backend.from_dlpack(x.detach())).tolist() == [1.0, 1.0]
    backwards = torch.Tensor(on_device(np.arange(4.0))[::-1])
    with pytest.raises(BufferError, match=r"runs backwards.*tensor\.clone\(\)"):
        backend.from_dlpack(backwards)
    assert host(backend.from_dlpack(backwards.clone())).tolist() == [3.0, 2.0, 1.0, 0.0]


def test_from_dlpack_takes_what_exports_and_says_so_of_others():
    with pytest.raises(TypeError, match="list does not export its values"):
        torch.from_dlpack([1.0])
    with pytest.raises(TypeError, match="cannot hold complex64 values"):
        torch.from_dlpack(np.ones(2, np.complex64))

    class Elsewhere:
        def __dlpack_device__(self):
            return (10, 0)  # ROCm

    with pytest.raises(RuntimeError, match="no Tensor lives on a device of DLPack's kind 10"):
        torch.from_dlpack(Elsewhere())

    class Odd:
        dtype = "bfloat16"

        def __dlpack_device__(self):
            return (1, 0)

        def __dlpack__(self, **_options):
            raise RuntimeError("Unsupported dtype")

    with pytest.raises(TypeError, match="a Odd of bfloat16 cannot be shared: Unsupported dtype"):
        torch.from_dlpack(Odd())


def test_an_array_of_the_host(device):
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    array = np.asarray(x)
    assert type(array) is np.ndarray
    assert array.dtype == np.float32
    assert array.tolist() == x.numpy().tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert np.shares_memory(np.asarray(x), x.numpy()) == (device == "cpu")
    assert not np.shares_memory(np.array(x, copy=True), x.numpy())
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    with pytest.raises(RuntimeError, match=r"use tensor\.detach\(\)\.numpy\(\)"):
        np.asarray(x.requires_grad_())


def test_an_array_of_the_host_without_a_copy(device):
    x = torch.ones(3)
    with pytest.raises(ValueError, match="cannot become a NumPy array of float64 without a copy"):
        np.asarray(x, dtype=np.float64, copy=False)
    if device == "cpu":
        assert np.shares_memory(np.asarray(x, copy=False), x.numpy())
    else:
        with pytest.raises(ValueError, match="on cuda:0 cannot become a NumPy array"):
            np.asarray(x, copy=False)


def test_the_interface_of_cuda_arrays(device, xp):
    x = torch.tensor(values("float32"))[:, 1:3]
    assert hasattr(x, "__cuda_array_interface__") == (device != "cpu")
    if device == "cpu":
        return
    interface = x.__cuda_array_interface__
    assert interface["shape"] == (3, 2)
    assert interface["typestr"] == "<f4"
    assert interface["data"][0] == x.array.data.ptr
    with pytest.raises(BufferError, match="requires a gradient"):
        _ = x.clone().requires_grad_().__cuda_array_interface__

    class Foreign:
        """An array of a library that has this interface and no other."""

        __cuda_array_interface__ = interface

    if xp.__name__ == "cupy":  # the double makes no arrays over given memory
        shared = torch.as_tensor(Foreign())
        assert shared.array.data.ptr == x.array.data.ptr


def test_asarray(device):
    source = on_device(values("float64"))
    x = torch.asarray(source)
    assert x.array is source
    assert x.is_leaf
    assert torch.asarray(source, copy=False).array is source
    assert torch.asarray(source, copy=True).array is not source
    assert torch.asarray(source, dtype=torch.float32).dtype == "float32"
    assert torch.asarray(source, requires_grad=True).requires_grad
    for options in ({"dtype": torch.float32}, {"device": "cuda" if device == "cpu" else "cpu"}):
        if device == "cpu" and "device" in options:
            continue  # there is no GPU
        with pytest.raises(ValueError, match="copy=False, but a tensor of this dtype"):
            torch.asarray(source, copy=False, **options)
    with pytest.raises(ValueError, match="copy=False"):
        torch.asarray([1.0, 2.0], copy=False)
    y = torch.asarray(x.clone().requires_grad_() * 2)
    assert not y.requires_grad


def test_as_tensor_of_many_kinds():
    for data, expected in (
        ([1.0, 2.0], "float32"),
        ([1, 2], "int64"),
        ((True, False), "bool"),
        (np.float64(1.5), "float64"),
        (array.array("f", [1.0, 2.0]), "float32"),
        (memoryview(b"ab"), "uint8"),
        (np.ones(2, np.float16), "float16"),
    ):
        assert torch.as_tensor(data).dtype == expected
    for data in ("text", [[1], [1, 2]], None):
        with pytest.raises((TypeError, ValueError)):
            torch.as_tensor(data)


def test_tensor_copies_what_others_export():
    source = np.arange(3.0)

    class Exporter:
        """An array of another library."""

        def __dlpack__(self, **options):
            return source.__dlpack__(**options)

        def __dlpack_device__(self):
            return source.__dlpack_device__()

    copied, shared = torch.tensor(Exporter()), torch.as_tensor(Exporter(), device="cpu")
    source[0] = 7
    assert copied.tolist() == [0.0, 1.0, 2.0]
    assert shared.tolist() == [7.0, 1.0, 2.0]
    assert copied.device == backend.get_default_device()
