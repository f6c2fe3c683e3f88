"""The C texts of the primitives: compiled by g++ they give NumPy's values; by NVRTC they compile.

What a kernel computes on a GPU is this text. Here it runs on the host, on ordinary values and on
those where C and NumPy part ways: NaN, infinities, zeros, negative divisors.
"""

import re

import numpy as np
import pytest
import strict_double
from persistent_loops import LARGER
from recurrent_cells import CASES
from strict_double import nvrtc
from strict_double.compiled import RawKernel, has_compiler
from test_scan_cuda import pulled_back

import tinygrad_rnn as torch
from tinygrad_rnn.autograd import tree
from tinygrad_rnn.ops import elementwise as e
from tinygrad_rnn.ops.elementwise import Elementwise
from tinygrad_rnn.program import Trace
from tinygrad_rnn.scan import scan
from tinygrad_rnn.scan.cuda import Plan, launches
from tinygrad_rnn.scan.cuda.launches import NAME, _compiled
from tinygrad_rnn.scan.cuda.source import THREADS, Operand, can_be_written, kernel_source
from tinygrad_rnn.scan.scan import trace_step

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 7.0, -7.0, np.inf, -np.inf, np.nan]
DTYPES = ["float32", "float64", "float16"]
# In units of the last place. The functions of NumPy, of a C library and of a GPU round differently.
PLACES = 8
# Parameters of those that have some, and operands: how many, or their dtypes.
PARAMS = {
    "clip": {"low": -0.7, "high": 0.9},
    "cast": {"dtype": np.dtype("float64"), "source": np.dtype("float32")},
    "discretize": {"dtype": np.dtype("int32")},
}
TRUTHS = {"logical_and", "logical_or", "logical_not"}
WHOLE = {"bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not"}
EVERY = sorted(
    (x for x in vars(e).values() if isinstance(x, Elementwise) and x.cuda is not None),
    key=lambda x: x.name,
)


@pytest.fixture
def raw_kernel():
    """What compiles a text for the host, and runs it."""
    if not has_compiler():
        pytest.skip("no g++")
    return RawKernel


def operands(primitive, dtype):
    """Arrays on which a primitive is compared: every special value meets every other."""
    count = (
        primitive.evaluate.__code__.co_argcount if hasattr(primitive.evaluate, "__code__") else 1
    )
    rng = np.random.default_rng(3)
    ordinary = rng.standard_normal(12)
    x = np.concatenate([np.repeat(SPECIAL, len(SPECIAL)), ordinary])
    y = np.concatenate([np.tile(SPECIAL, len(SPECIAL)), rng.standard_normal(12)])
    condition = rng.random(len(x)) < 0.5
    if primitive is e.where:
        return [condition, x.astype(dtype), y.astype(dtype)]
    if primitive.name in WHOLE:
        return [np.arange(-3, 4) * 37, np.arange(7) * 5][: 1 if primitive is e.bitwise_not else 2]
    if primitive in (e.discretize,):
        return [np.array([0.0, -0.5, 1.5, 2.0, -3.7], dtype)]
    count = 2 if primitive in TWO else 1
    return [a.astype(dtype) for a in (x, y)][:count]


TWO = {
    *(e.add, e.subtract, e.multiply, e.divide, e.power, e.maximum, e.minimum),
    *(e.floor_divide, e.remainder, e.equal, e.not_equal, e.less, e.less_equal, e.greater),
    *(e.greater_equal, e.logical_and, e.logical_or, e.bitwise_and, e.bitwise_or, e.bitwise_xor),
}


def kernel(primitive, arrays, params):
    """The text of a kernel of one equation, and what it stores."""
    trace = Trace()
    inputs = [trace.input(x) for x in arrays]
    y = primitive(*inputs, **params)
    (equation,) = trace.equations
    y.equation = equation
    assert can_be_written(equation)
    shape = arrays[0].shape
    stride = (1,) * len(shape)
    loads = {x: Operand(x.dtype, stride) for x in inputs}
    return kernel_source(NAME, shape, [equation], loads, [(y, Operand(y.dtype, stride))]), y


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("primitive", EVERY, ids=lambda x: x.name)
def test_a_text_computes_what_numpy_computes(primitive, dtype, raw_kernel):
    arrays = operands(primitive, dtype)
    params = dict(PARAMS.get(primitive.name, {}))
    if "source" in params:
        params["source"] = np.dtype(dtype)
    text, y = kernel(primitive, arrays, params)
    with np.errstate(all="ignore"):
        wanted = primitive.evaluate(np, *arrays, **params)
    found = np.empty(wanted.shape, wanted.dtype)
    assert (y.shape, y.dtype) == (wanted.shape, wanted.dtype)
    addresses = [x.ctypes.data for x in (*arrays, found)]
    raw_kernel(text, NAME)((-(-found.size // THREADS),), (THREADS,), (*addresses, found.size))
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(found, wanted)
        return
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    inexact = np.finfo(wanted.dtype).eps * PLACES
    np.testing.assert_allclose(found, wanted, rtol=inexact, atol=np.finfo(wanted.dtype).tiny)


def test_every_elementwise_primitive_has_a_text_or_says_why_not():
    without = {x.name for x in vars(e).values() if isinstance(x, Elementwise) and x.cuda is None}
    assert without == {"transfer"}  # from device to device: there is nothing to compute


def test_what_lies_where(raw_kernel):
    """Parts, transposes, broadcast operands, a store into a part; more than one block."""
    rng = np.random.default_rng(0)
    B, H = 7, 45
    whole, bias, column = rng.random((B, 3 * H)), rng.random(H), rng.random((B, 1))
    turned, out = rng.random((H, B)), np.full((B, 2 * H), np.nan)
    trace = Trace()
    a, b, c, d = (
        trace.input(x, None, s)
        for x, s in zip((whole, bias, column, turned), ((B, H), (H,), (B, 1), (B, H)), strict=True)
    )
    y = (a + b) * c - d
    loads = {
        a: Operand(a.dtype, (3 * H, 1)),
        b: Operand(b.dtype, (0, 1)),
        c: Operand(c.dtype, (1, 0)),
        d: Operand(d.dtype, (1, B)),
    }
    text = kernel_source(NAME, (B, H), trace.equations, loads, [(y, Operand(y.dtype, (2 * H, 1)))])
    size = whole.itemsize
    addresses = [
        whole.ctypes.data + H * size,
        bias.ctypes.data,
        column.ctypes.data,
        turned.ctypes.data,
        out.ctypes.data + H * size,
    ]
    raw_kernel(text, NAME)((-(-B * H // THREADS),), (THREADS,), (*addresses, B * H))
    np.testing.assert_allclose(out[:, H:], (whole[:, H : 2 * H] + bias) * column - turned.T)
    assert np.isnan(out[:, :H]).all()


def test_indices_are_as_wide_as_they_must_be():
    x = Trace().input(np.zeros((2, 2), "float32"))
    near, far = Operand(x.dtype, (1 << 10, 1)), Operand(x.dtype, (1 << 16, 1))
    for operand, rows, wanted in [
        (near, 1 << 16, "const int at"),
        (far, 1 << 16, "const i64 at"),  # it reaches beyond 2^31
        (near, 1 << 22, "const i64 at"),  # there are 2^32
    ]:
        assert wanted in kernel_source(NAME, (rows, 1 << 10), [], {x: operand}, [(x, operand)])


# --- compiled as for a GPU ------------------------------------------------------------------------


def compiled_for(architecture, text):
    """The PTX of a text, of whose values none is kept elsewhere for lack of registers."""
    code, log = nvrtc.compiled(architecture, text)
    assert "0 bytes spill stores" in log, f"{log}\n{text}"
    return code


needs_nvrtc = pytest.mark.skipif(
    nvrtc.library() is None, reason="the wheel nvidia-cuda-nvrtc is not there"
)


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_texts_compile_for_a_gpu(dtype, architecture):
    for primitive in EVERY:
        params = dict(PARAMS.get(primitive.name, {}))
        if "source" in params:
            params["source"] = np.dtype(dtype)
        text, _ = kernel(primitive, operands(primitive, dtype), params)
        compiled_for(architecture, text)


@pytest.fixture
def kernel_texts(monkeypatch):
    """The texts of the kernels that are compiled."""
    texts = []

    class Noting(RawKernel):
        def __init__(self, code, *args, **kwargs):
            texts.append(code)
            super().__init__(code, *args, **kwargs)

    monkeypatch.setattr(strict_double, "RawKernel", Noting)
    monkeypatch.setenv("TINYGRAD_RNN_CUDA_LOOP", "persistent")
    _compiled.cache_clear()
    yield texts
    _compiled.cache_clear()


@needs_nvrtc
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_kernels_of_the_cells_compile_for_a_gpu(case, dtype, on_the_double, kernel_texts):
    """All that a training step launches, forward and backward."""
    xs, h0, weights = case.leaves(dtype)
    outputs = scan(case.cell(*weights), xs, h0)
    ys = [y for _, y in tree.leaves(outputs, "") if y.requires_grad]
    sources = [x for _, x in tree.leaves((xs, h0, weights), "") if x.requires_grad]
    torch.autograd.grad(ys, sources, [y.detach() for y in ys], allow_unused=True)
    assert kernel_texts
    for text in (text for text in kernel_texts if re.search(rf"void .*\b{NAME}\(", text)):
        code = compiled_for("sm_90", text)
        assert dtype == "float64" or ".f64" not in code  # 64 times as slow


SIZES = [
    (name, H)
    for name in ("LSTM", "GRU", "LSTM peephole", "RNN tanh", "MGU", "GRU reset before")
    for H in (128, 256, 384)
    if (name, H) != ("GRU reset before", 384)  # which keeps 16 numbers elsewhere
]


@needs_nvrtc
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("name", "H"), [*SIZES, ("GRU", 512), ("RNN tanh", 512)])
def test_a_kernel_for_a_whole_loop_fits_in_registers(
    name, H, dtype, on_the_double, kernel_texts, monkeypatch
):
    """Forward and backward, at sizes that layers have. The loops are bound, and not run."""
    monkeypatch.setattr(launches, "room", lambda xp, device: LARGER)
    (case,) = (case for case in CASES if case.name == name)
    xs, h0, weights = case.leaves(dtype, T=1, B=64, H=H)
    step = trace_step(case.cell(*weights), xs, h0).program()
    for program in (step, pulled_back(step)):
        plan = Plan(program)

        def array(x, plan=plan):
            place = plan.place(x)
            return place.of(strict_double.empty(place.storage.shape, place.storage.dtype))

        tile = plan.tile(strict_double)
        launches.bind_loop(plan.persistent, tile, array, lambda x: 1 << 20, 2)
    assert len(kernel_texts) == 2
    for text in kernel_texts:
        code = compiled_for("sm_90", text)
        assert "barrier.cluster" in code
        assert ".f64" not in code
