"""What the test double makes of PTX: instructions as NVIDIA describes them, and what it refuses.

Read strict_double/ptx.py first. Kernels here name their instructions themselves, as assembler in
their text. What is expected is worked out by Python's numbers, which are exact.
"""

import math
import re
import struct

import numpy as np
import pytest
import strict_double as xp
from strict_double import compiled, ptx
from test_cuda_source import needs_nvrtc

pytestmark = [
    needs_nvrtc,
    pytest.mark.skipif(not compiled.has_compiler(), reason="g++ is not there"),
    pytest.mark.usefixtures("as_ptx"),
]
KINDS = {  # the letter of an operand in assembler, the type in C, and NumPy's
    "u32": ("r", "unsigned", "uint32"),
    "s32": ("r", "int", "int32"),
    "u64": ("l", "unsigned long long", "uint64"),
    "f32": ("f", "float", "float32"),
    "f64": ("d", "double", "float64"),
}


@pytest.fixture
def as_ptx(monkeypatch):
    monkeypatch.setattr(compiled, "as_ptx", True)


def launch(text, *arrays, threads=1, blocks=1, shared=0):
    xp.RawKernel(text, "kernel")((blocks,), (threads,), arrays, shared_mem=shared)


def given_by(instruction, kinds, values):
    """What an instruction computes: of `kinds`, the first is the result's."""
    (letter, result, dtype), *operands = (KINDS[kind] for kind in kinds)
    parameters = ", ".join(f"const {kind}* x{n}" for n, (_, kind, _) in enumerate(operands))
    places = ", ".join(f"%{n}" for n in range(len(kinds)))
    inputs = ", ".join(f'"{letter}"(*x{n})' for n, (letter, _, _) in enumerate(operands))
    text = (
        f'extern "C" __global__ void kernel({result}* y, {parameters}) {{'
        f'  asm volatile("{instruction} {places};" : "={letter}"(*y) : {inputs});'
        "}"
    )
    y = xp.zeros(1, dtype)
    given = zip(values, operands, strict=True)
    launch(text, y, *(xp.asarray(np.array([x], dtype)) for x, (_, _, dtype) in given))
    return y.get()[0]


THIRD = 11184811 * 2.0**-25  # what float32 has for it
TINY = np.float32(2.0**-130)  # not as large as a normal number

WHOLE = [
    ("mul.hi.u32", "u32 u32 u32", (4000000000, 3000000000), 4000000000 * 3000000000 >> 32),
    ("mul.wide.s32", "u64 s32 s32", (-7, 3), (1 << 64) - 21),
    ("mul.hi.u64", "u64 u64 u64", (1 << 63, 12345), 12345 << 63 >> 64),
    ("mad.lo.s32", "s32 s32 s32 s32", (100000, 100000, 5), (10**10 + 5) % (1 << 32)),
    ("mad.wide.u32", "u64 u32 u32 u64", (1 << 31, 6, 9), (6 << 31) + 9),
    ("shl.b32", "u32 u32 u32", (5, 32), 0),
    ("shr.u32", "u32 u32 u32", (1 << 31, 31), 1),
    ("shr.u32", "u32 u32 u32", (1 << 31, 40), 0),
    ("shr.s32", "s32 s32 u32", (-5, 40), -1),
    ("shr.s32", "s32 s32 u32", (-5, 1), -3),
    ("bfi.b32", "u32 u32 u32 u32 u32", (0b101, 0xFFFFFFFF, 4, 3), 0xFFFFFFDF),
    ("bfi.b32", "u32 u32 u32 u32 u32", (7, 9, 0, 32), 7),
    ("prmt.b32", "u32 u32 u32 u32", (0x33221100, 0x77665584, 0x0C47), 0x00FF8477),
    ("clz.b64", "u32 u64", (1 << 40,), 23),
    ("clz.b32", "u32 u32", (0,), 32),
    ("max.s32", "s32 s32 s32", (-3, 2), 2),
    ("min.u32", "u32 u32 u32", (3000000000, 2), 2),
    ("cvt.rni.s32.f32", "s32 f32", (2.5,), 2),
    ("cvt.rzi.s32.f32", "s32 f32", (-2.9,), -2),
    ("cvt.rmi.s32.f32", "s32 f32", (-2.1,), -3),
    ("cvt.rpi.s32.f32", "s32 f32", (2.1,), 3),
    ("cvt.rzi.s32.f32", "s32 f32", (1e20,), (1 << 31) - 1),
    ("cvt.rzi.s32.f32", "s32 f32", (-math.inf,), -(1 << 31)),
    ("cvt.rzi.u32.f32", "u32 f32", (-1.0,), 0),
    ("cvt.rzi.s32.f32", "s32 f32", (math.nan,), 0),
]
FLOATS = [
    ("div.rn.f32", "f32 f32 f32", (1, 3), THIRD),
    ("add.rz.f32", "f32 f32 f32", (1, 2.0**-24 + 2.0**-30), 1),
    ("add.rn.f32", "f32 f32 f32", (1, 2.0**-24 + 2.0**-30), 1 + 2.0**-23),
    ("add.rm.f32", "f32 f32 f32", (-1, -(2.0**-30)), -1 - 2.0**-23),
    ("add.rp.f32", "f32 f32 f32", (1, 2.0**-30), 1 + 2.0**-23),
    ("fma.rn.f32", "f32 f32 f32 f32", (1 + 2.0**-12, 1 - 2.0**-12, -1), -(2.0**-24)),
    ("fma.rz.f32", "f32 f32 f32 f32", (1, 1, -(2.0**-30)), 1 - 2.0**-24),
    ("mul.rn.ftz.f32", "f32 f32 f32", (TINY, 2.0**30), 0),
    ("mul.rn.f32", "f32 f32 f32", (TINY, 2.0**30), 2.0**-100),
    ("mul.rn.ftz.f32", "f32 f32 f32", (-(2.0**-100), 2.0**-30), -0.0),
    ("add.sat.f32", "f32 f32 f32", (0.75, 0.75), 1),
    ("abs.f32", "f32 f32", (-0.0,), 0.0),
    ("neg.f32", "f32 f32", (0.0,), -0.0),
    ("copysign.f32", "f32 f32 f32", (-2, 3), -3),
    ("max.f32", "f32 f32 f32", (math.nan, 3), 3),
    ("min.f32", "f32 f32 f32", (3, math.nan), 3),
    ("cvt.rn.f32.s32", "f32 s32", (16777217,), 16777216),
    ("cvt.ftz.sat.f32.f32", "f32 f32", (-4,), 0),
    ("cvt.rni.f32.f32", "f32 f32", (3.5,), 4),
    ("cvt.rn.f32.f64", "f32 f64", (1 / 3,), THIRD),
    ("sqrt.rn.f64", "f64 f64", (2,), 2**0.5),
    ("rcp.rn.f64", "f64 f64", (3,), 1 / 3),
]


@pytest.mark.parametrize(("instruction", "kinds", "values", "wanted"), WHOLE)
def test_whole_numbers(instruction, kinds, values, wanted):
    kinds = kinds.split()
    bits = int(kinds[0][1:])
    assert int(given_by(instruction, kinds, values)) % (1 << bits) == wanted % (1 << bits)


@pytest.mark.parametrize(("instruction", "kinds", "values", "wanted"), FLOATS)
def test_floating_point_numbers(instruction, kinds, values, wanted):
    """Rounded as the instruction says, and flushed to zero; the sign of a zero counts."""
    found = float(given_by(instruction, kinds.split(), values))
    assert struct.pack("d", found) == struct.pack("d", float(wanted))


COMPARISONS = {
    "eq": (False, True, False, False),  # of less, equal, greater, and not a number
    "ne": (True, False, True, False),
    "lt": (True, False, False, False),
    "ge": (False, True, True, False),
    "neu": (True, False, True, True),
    "ltu": (True, False, False, True),
    "leu": (True, True, False, True),
    "gtu": (False, False, True, True),
    "geu": (False, True, True, True),
    "nan": (False, False, False, True),
}


@pytest.mark.parametrize("how", COMPARISONS)
def test_comparisons(how):
    text = """extern "C" __global__ void kernel(unsigned* y, const float* x) {
      asm("{ .reg .pred %%p; setp.HOW.f32 %%p, %1, %2; selp.u32 %0, 1, 0, %%p; }"
          : "=r"(y[threadIdx.x]) : "f"(x[threadIdx.x]), "f"(1.0f));
    }"""
    y = xp.zeros(4, "uint32")
    x = xp.asarray(np.array([0, 1, 2, np.nan], "float32"))
    launch(text.replace("HOW", how), y, x, threads=4)
    assert tuple(y.get()) == COMPARISONS[how]


def test_a_carry_goes_from_instruction_to_instruction():
    text = """extern "C" __global__ void kernel(unsigned* y) {
      asm("add.cc.u32 %0, %2, %2; addc.u32 %1, %3, %3;"
          : "=&r"(y[0]), "=r"(y[1]) : "r"(0x80000001u), "r"(5u));
    }"""
    y = xp.zeros(2, "uint32")
    launch(text, y)
    assert list(y.get()) == [2, 11]


@pytest.mark.parametrize(("kind", "wanted"), [("s8", 0xFFFFFF85), ("u8", 0x85)])
def test_what_is_narrower_than_its_register(kind, wanted):
    text = """extern "C" __global__ void kernel(unsigned* y, const unsigned* x) {
      asm("ld.global.KIND %0, [%1];" : "=r"(y[0]) : "l"(__cvta_generic_to_global(x)));
    }"""
    y = xp.zeros(1, "uint32")
    launch(text.replace("KIND", kind), y, xp.asarray(np.array([0x12345685], "uint32")))
    assert int(y.get()[0]) == wanted


def test_halves():
    text = """extern "C" __global__ void kernel(float* y, const float* x) {
      unsigned short bits;
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x[threadIdx.x]));
      asm("cvt.f32.f16 %0, %1;" : "=f"(y[threadIdx.x]) : "h"(bits));
    }"""
    x = np.array([0.1, -3.14159, 1e-7, 70000, np.nan], "float32")
    y = xp.zeros(5, "float32")
    launch(text, y, xp.asarray(x), threads=5)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(y.get(), x.astype("float16").astype("float32"))


# --- blocks and their memory ----------------------------------------------------------------------


ARRIVE = 'asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");'
WAIT = 'asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");'


def launch_two_blocks(lines):
    """A cluster of two blocks of two threads, with 64 bytes each; gives their first numbers."""
    text = """extern "C" __global__ void __cluster_dims__(2, 1, 1) kernel(float* first) {
      extern __shared__ float memory[];
      const unsigned at = (unsigned)__cvta_generic_to_shared(memory);
      unsigned there;
      LINES
      ARRIVE
      WAIT
      first[blockIdx.x] = memory[0];
    }"""
    first = xp.zeros(2, "float32")
    text = text.replace("LINES", lines).replace("ARRIVE", ARRIVE).replace("WAIT", WAIT)
    launch(text, first, threads=2, blocks=2, shared=64)
    return list(first.get())


def assembler(text, operands):
    """What the first thread of each block does."""
    outputs = '"=r"(there) : "r"(at)'
    return f'if (threadIdx.x == 0) asm volatile("{text}" : {outputs}, {operands} : "memory");'


def test_a_block_can_write_to_another():
    text = "mapa.shared::cluster.u32 %0, %1, %2; st.shared::cluster.f32 [%0], %3;"
    lines = assembler(text, '"r"(1 - blockIdx.x), "f"(blockIdx.x + 5.0f)')
    assert launch_two_blocks(lines) == [6, 5]


def test_threads_can_use_the_same_place_in_turn():
    """One writes, all read, another one writes; the block meets in between."""
    lines = """if (threadIdx.x == 0) memory[0] = 1;
      __syncthreads();
      const float read = memory[0];
      __syncthreads();
      if (threadIdx.x == 1) memory[0] = read + 1;"""
    assert launch_two_blocks(lines) == [2, 2]


ONE, TO_THE_THIRD_BLOCK = '"f"(1.0f)', '"r"(2), "f"(1.0f)'
REFUSED = {
    "outside of shared memory: 4 bytes at 0x40": "memory[16 + threadIdx.x] = 1;",
    "misaligned address: 4 bytes at": assembler("st.shared.f32 [%1 + 2], %2;", ONE),
    "misaligned address: 16 bytes at": assembler(
        "st.shared.v4.f32 [%1 + 8], {%2, %2, %2, %2};", ONE
    ),
    "outside of shared memory: 4 bytes at 0x2000000": assembler(
        "mapa.shared::cluster.u32 %0, %1, 1; st.shared.f32 [%0], %2;", ONE
    ),
    "outside of shared memory: 4 bytes at 0x3000000": assembler(
        "mapa.shared::cluster.u32 %0, %1, %2; st.shared::cluster.f32 [%0], %3;", TO_THE_THIRD_BLOCK
    ),
    "a shuffle without all lanes: 31, mask 0xffff": (
        "memory[0] = __shfl_xor_sync(0xffffu, 1.0f, 1);"
    ),
    "the threads wait for each other forever": "if (threadIdx.x == 0) __syncthreads();",
}


@pytest.mark.parametrize("refusal", REFUSED)
def test_what_a_gpu_would_stop_at_is_an_error(refusal):
    with pytest.raises(xp.cuda.runtime.CUDARuntimeError, match=re.escape(refusal)):
        launch_two_blocks(REFUSED[refusal])


RACES = {
    "two threads write": "memory[0] = threadIdx.x;",
    "one reads what another writes": "if (threadIdx.x) memory[0] = 1; else first[0] = memory[0];",
    "one writes what another reads": "if (threadIdx.x) first[0] = memory[0]; else memory[0] = 1;",
    "one writes what two read": "first[0] = memory[0]; if (threadIdx.x) memory[0] = 1;",
    "written after the arrival": f"{ARRIVE} if (threadIdx.x) memory[0] = 1; {WAIT}"
    " first[0] = memory[0];",
    "read before the wait": f"if (threadIdx.x) memory[0] = 1; {ARRIVE} first[0] = memory[0];"
    f" {WAIT}",
    "blocks that only meet themselves": "__syncthreads();"
    + assembler("mapa.shared::cluster.u32 %0, %1, 0; st.shared::cluster.f32 [%0], %2;", ONE),
}


@pytest.mark.parametrize("race", RACES)
def test_a_race_is_an_error_however_it_ends(race):
    with pytest.raises(xp.cuda.runtime.CUDARuntimeError, match="a race in shared memory: threads"):
        launch_two_blocks(RACES[race])


# --- what it does not know ------------------------------------------------------------------------


def test_an_instruction_that_it_does_not_have_is_an_error():
    with pytest.raises(RuntimeError, match=r"(?s)g\+\+ does not compile .*popc"):
        given_by("popc.b32", ["u32", "u32"], (7,))


def test_a_part_of_a_module_that_it_does_not_know_is_an_error():
    with pytest.raises(NotImplementedError, match=re.escape(".tex .u64 picture")):
        ptx.translated(".version 9.0 .target sm_90 .address_size 64 .tex .u64 picture;")
