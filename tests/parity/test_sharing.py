"""Memory shared with PyTorch's tensors, on the CPU: DLPack both ways."""

import numpy as np
import pytest

import tinygrad_rnn

torch = pytest.importorskip("torch")

DTYPES = ["float32", "float64", "float16", "int64", "int32", "uint8", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_pytorch_reads_and_writes_our_memory(dtype):
    values = (np.random.default_rng(0).standard_normal((3, 4)) * 9).astype(dtype)
    ours = tinygrad_rnn.tensor(values)
    for x in (ours, ours.T, ours[:, ::2], ours[1], ours[0, 0], ours[:0]):
        theirs = torch.from_dlpack(x)
        assert tuple(theirs.shape) == x.shape
        assert str(theirs.dtype) == f"torch.{dtype}"
        assert theirs.numpy().tobytes() == x.numpy().tobytes()
    torch.from_dlpack(ours).zero_()
    assert not ours.numpy().any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_we_read_and_write_pytorchs_memory(dtype):
    values = (np.random.default_rng(0).standard_normal((3, 4)) * 9).astype(dtype)
    theirs = torch.from_numpy(values.copy())
    for make in (tinygrad_rnn.from_dlpack, tinygrad_rnn.as_tensor, tinygrad_rnn.asarray):
        for x in (theirs, theirs.T, theirs[:, ::2], theirs[1], theirs[0, 0], theirs[:0]):
            ours = make(x)
            assert (ours.shape, ours.dtype) == (tuple(x.shape), dtype)
            assert ours.numpy().tobytes() == x.numpy().tobytes()
    tinygrad_rnn.tensor(theirs).zero_()  # a copy
    assert theirs.numpy().tobytes() == values.tobytes()
    tinygrad_rnn.from_dlpack(theirs).zero_()
    assert not theirs.numpy().any()


def test_what_cannot_be_shared_is_refused_by_both_sides():
    with pytest.raises(BufferError, match=r"share tensor\.detach"):
        torch.from_dlpack(tinygrad_rnn.ones(2, requires_grad=True))
    with pytest.raises(BufferError, match="require gradient"):
        tinygrad_rnn.from_dlpack(torch.ones(2, requires_grad=True))
    with pytest.raises(BufferError, match="runs backwards"):  # PyTorch would end the process
        torch.from_dlpack(tinygrad_rnn.from_numpy(np.arange(6)[::-1]))
    with pytest.raises(TypeError, match=r"a Tensor of torch\.bfloat16 cannot be shared"):
        tinygrad_rnn.as_tensor(torch.ones(2, dtype=torch.bfloat16))
