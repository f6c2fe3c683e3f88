"""Kernels of the test double: CUDA's C++ compiled by g++, run on the host.

The text is the one that a GPU would get; only the words that g++ does not know are defined. Threads
run one after the other. Where they wait for each other (`__syncthreads`, shuffles within a warp)
they are fibers, of which a warp runs as far as it comes, so that a missing wait is found; so are
the threads of a cluster's blocks. With `pytest --ptx` NVIDIA's compiler reads the text first, and
what it makes of it is run (ptx.py). As CuPy, a call does not look at the types that the text
declares, so the double does: a Python int is 8 bytes, a Python float a double.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from strict_double import cuda, nvrtc, ptx
from strict_double.array import ndarray
from strict_double.driver import Function

HOST = """\
#define ON_THE_HOST
#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
struct Index { unsigned x, y, z; };
static Index blockDim, gridDim;
typedef unsigned short half_bits;
static inline float from_half(half_bits x) {
  _Float16 y;
  __builtin_memcpy(&y, &x, 2);
  return (float)y;
}
static inline half_bits to_half(float x) {
  _Float16 y = (_Float16)x;
  half_bits z;
  __builtin_memcpy(&z, &y, 2);
  return z;
}
"""
_FUNCTIONS = """\
static inline float {name}({floats}) {{ return __builtin_{name}f({given}); }}
static inline double {name}({doubles}) {{ return __builtin_{name}({given}); }}
"""
_OF_ONE = (
    *("tanh", "exp", "expm1", "log", "log1p", "sin", "cos"),
    *("sqrt", "erf", "fabs", "floor", "ceil", "rint"),
)
for _name in _OF_ONE:
    HOST += _FUNCTIONS.format(name=_name, floats="float x", doubles="double x", given="x")
for _name in ("pow", "fmod", "fmax", "fmin"):
    HOST += _FUNCTIONS.format(
        name=_name, floats="float x, float y", doubles="double x, double y", given="x, y"
    )
for _name in ("isinf", "isfinite"):
    HOST += f"static inline bool {_name}(float x) {{ return __builtin_{_name}(x); }}\n"
    HOST += f"static inline bool {_name}(double x) {{ return __builtin_{_name}(x); }}\n"

# One thread after the other.
ALONE = "static Index threadIdx, blockIdx;\n"
RUN_ALONE = """
extern "C" void run_on_the_host(unsigned blocks, unsigned threads, unsigned{declared}) {{
  gridDim = {{blocks, 1, 1}};
  blockDim = {{threads, 1, 1}};
  for (unsigned b = 0; b < blocks; b++)
    for (unsigned t = 0; t < threads; t++) {{
      blockIdx = {{b, 0, 0}};
      threadIdx = {{t, 0, 0}};
      {name}({given});
    }}
}}
"""

# The threads of a block, or of a cluster of blocks, as fibers.
TOGETHER = """\
#include <cstdlib>
#include <cstring>
#include <ucontext.h>
#define __shared__ static
static const unsigned STACK = 1 << 16, MOST = 1 << 13;
struct Fiber { ucontext_t context; char* stack; bool done; unsigned arrived; };
struct Barrier { unsigned count, generation; };
struct Four;
static Fiber fibers[MOST];
static Barrier of_cluster, of_blocks[16], of_warps[MOST / 32];
static double passed[MOST];
static ucontext_t scheduler;
static unsigned current, first_block, cluster, clusters, bytes_of_block, progress;
static char* memory_of_block[16];
static char refusal[200];  // why a launch stops
#define threadIdx (Index{current % blockDim.x, 0, 0})
#define blockIdx (Index{first_block + current / blockDim.x, 0, 0})
static void arrive_at(Barrier& barrier, unsigned size) {
  fibers[current].arrived = barrier.generation;
  progress++;
  if (++barrier.count == size) {
    barrier.count = 0;
    barrier.generation++;
  }
}
static void wait_at(Barrier& barrier) {
  while (barrier.generation == fibers[current].arrived)
    swapcontext(&fibers[current].context, &scheduler);
}
static void meet_at(Barrier& barrier, unsigned size) {
  arrive_at(barrier, size);
  wait_at(barrier);
}
static void __syncthreads() { meet_at(of_blocks[current / blockDim.x], blockDim.x); }
template <typename T> static T __shfl_xor_sync(unsigned, T x, int distance) {
  passed[current] = x;
  meet_at(of_warps[current / 32], 32);
  const T y = (T)passed[current ^ (unsigned)distance];
  meet_at(of_warps[current / 32], 32);
  return y;
}
static unsigned rank_of_block() { return current / blockDim.x; }
static Four* shared_memory() { return (Four*)memory_of_block[rank_of_block()]; }
static void arrive() { arrive_at(of_cluster, cluster * blockDim.x); }
static void wait_for_all() { wait_at(of_cluster); }
static void hand(float* to, unsigned block, float x) {
  *(float*)(memory_of_block[block] + ((char*)to - memory_of_block[rank_of_block()])) = x;
}
"""
RUN_TOGETHER = """
{globals}
static void fiber() {{
  {name}({held});
  fibers[current].done = true;
  progress++;
  swapcontext(&fibers[current].context, &scheduler);
}}
extern "C" const char* run_on_the_host(
    unsigned blocks, unsigned threads, unsigned shared{declared}) {{
  gridDim = {{blocks, 1, 1}};
  blockDim = {{threads, 1, 1}};
  cluster = {cluster};
  strcpy(refusal, "");
  bytes_of_block = shared;
  {holding}
  for (first_block = 0; first_block < blocks; first_block += cluster) {{
    const unsigned all = cluster * threads, warps = (all + 31) / 32;
    clusters++;
    for (unsigned b = 0; b < cluster; b++) {{
      memory_of_block[b] = (char*)aligned_alloc(16, (shared + 15) / 16 * 16);
      memset(memory_of_block[b], 0xff, shared);  // not a number
    }}
    for (unsigned t = 0; t < all; t++) {{
      Fiber& f = fibers[t];
      if (!f.stack) f.stack = (char*)malloc(STACK);
      f.done = false;
      getcontext(&f.context);
      f.context.uc_stack.ss_sp = f.stack;
      f.context.uc_stack.ss_size = STACK;
      makecontext(&f.context, fiber, 0);
    }}
    for (unsigned left = all, turn = 0, idle = 0; left; turn++) {{
      const unsigned before_turn = progress;
      // One warp runs as far as it comes while the others wait, another one every turn.
      const unsigned start = (turn * 7 + turn / warps) % warps * 32;
      for (unsigned before = ~progress; before != progress;) {{
        before = progress;
        for (unsigned k = 0; k < 32; k++) {{
          current = start + (turn % 2 ? 31 - k : k);
          if (current < all && !fibers[current].done)
            swapcontext(&scheduler, &fibers[current].context);
          if (*refusal) return refusal;
        }}
      }}
      idle = progress == before_turn ? idle + 1 : 0;
      if (idle > warps * warps) return "the threads wait for each other forever";
      left = 0;
      for (unsigned t = 0; t < all; t++) left += !fibers[t].done;
    }}
    for (unsigned b = 0; b < cluster; b++) {{
      memset(memory_of_block[b], 0, shared);  // else who gets it next finds what is not a number
      free(memory_of_block[b]);
    }}
  }}
  for (unsigned t = 0; t < cluster * threads; t++) {{
    free(fibers[t].stack);
    fibers[t].stack = nullptr;
  }}
  return refusal;
}}
"""
_KINDS = {  # of parameters: ctypes' type, and what a call may give
    "i64": (ctypes.c_int64, int),
    "long long": (ctypes.c_int64, int),
    "unsigned long long": (ctypes.c_uint64, int | np.uint64),
    "u64": (ctypes.c_uint64, int | np.uint64),
    "int": (ctypes.c_int32, np.int32),
    "unsigned": (ctypes.c_uint32, np.uint32),
    "u32": (ctypes.c_uint32, np.uint32),
    "double": (ctypes.c_double, float),
    "float": (ctypes.c_float, np.float32),
}
_folder = None
as_ptx = False  # whether NVIDIA's compiler comes first: `pytest --ptx`


def has_compiler():
    """Whether kernels can be compiled on this machine."""
    return shutil.which("g++") is not None


def compiled(text):
    """The library of a text that g++ has compiled; once for each text."""
    global _folder
    if _folder is None:
        _folder = tempfile.TemporaryDirectory(prefix="kernels-")
    path = Path(_folder.name) / hashlib.sha256(text.encode()).hexdigest()
    source, library = path.with_suffix(".cpp"), path.with_suffix(".so")
    if not library.exists():
        source.write_text(text)
        # No fused multiply-adds: a GPU has them, but differences from NumPy would then be found in
        # every bit, and none of them would tell anything.
        flags = ["-O1", "-shared", "-fPIC", "-w", "-ffp-contract=off"]
        command = ["g++", *flags, str(source), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"g++ does not compile this kernel:\n{done.stderr}\n{text}")
    return ctypes.CDLL(str(library))


class RawKernel:
    """One kernel of a text, by its name."""

    def __init__(
        self, code, name, options=(), backend="nvrtc", translate_cucomplex=False, *, jitify=False
    ):
        self.code = code
        self.name = name

    @functools.cached_property
    def kernel(self):
        return Function()

    @property
    def max_dynamic_shared_size_bytes(self):
        return self.kernel.shared

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size):
        self.kernel.shared = size

    @functools.cached_property
    def _launcher(self):
        cluster = re.search(r"__cluster_dims__\((\d+)", self.code)
        together = as_ptx or "__syncthreads" in self.code or cluster is not None
        code = ptx.translated(nvrtc.compiled("compute_90", self.code)[0]) if as_ptx else self.code
        names, types = self._parameters(code)
        parameters = [f"{kind} {name}" for kind, name in zip(types, names, strict=True)]
        runner = (RUN_TOGETHER if together else RUN_ALONE).format(
            name=self.name,
            declared="".join(f", {text}" for text in parameters),
            given=", ".join(names),
            globals="\n".join(f"static {x} g_{y};" for x, y in zip(types, names, strict=True)),
            held=", ".join(f"g_{name}" for name in names),
            holding=" ".join(f"g_{name} = {name};" for name in names),
            cluster=cluster[1] if cluster else 1,
        )
        text = HOST + (TOGETHER if together else ALONE) + code + runner
        function = compiled(text).run_on_the_host
        kinds = [re.sub(r"\bconst\b", "", text).strip() for text in self._parameters(self.code)[1]]
        types = [ctypes.c_void_p if "*" in kind else _KINDS[kind][0] for kind in kinds]
        function.argtypes = [*[ctypes.c_uint32] * 3, *types]
        function.restype = ctypes.c_char_p if together else None
        function.errcheck = _raise_refusal
        return function, kinds

    def _parameters(self, code):
        """The names and the types of what a text says that the kernel takes."""
        pattern = rf"__global__\s+void\s+(?:__\w+__\([^)]*\)\s+)*{self.name}\s*\(([^)]*)\)"
        found = re.search(pattern, code)
        if not found:
            raise cuda.CUDARuntimeError(f"named symbol not found: {self.name}")
        texts = [" ".join(text.split()) for text in found[1].split(",") if text.strip()]
        names = [re.search(r"\w+$", text)[0] for text in texts]
        return names, [text[: -len(name)].strip() for text, name in zip(texts, names, strict=True)]

    def __call__(self, grid, block, args, *, shared_mem=0):
        function, kinds = self._launcher
        if len(args) != len(kinds):
            raise TypeError(f"{self.name} takes {len(kinds)} arguments, got {len(args)}")
        values = [_value(x, kind) for x, kind in zip(args, kinds, strict=True)]
        if shared_mem > min(self.max_dynamic_shared_size_bytes, 227 << 10):
            raise cuda.CUDARuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        cluster = re.search(r"__cluster_dims__\((\d+)", self.code)
        if cluster and int(cluster[1]) > 8 and not self.kernel.any_cluster_size:
            raise cuda.CUDARuntimeError("CUDA_ERROR_INVALID_CLUSTER_SIZE: cluster misconfiguration")
        cuda.launch(function, *grid, *block, shared_mem, *values)

    def compile(self, log_stream=None):
        self._launcher  # noqa: B018


class RawModule:
    """A text with several kernels."""

    def __init__(self, *, code, options=(), backend="nvrtc"):
        self.code = code

    def get_function(self, name):
        return RawKernel(self.code, name)


def _raise_refusal(refusal, function, args):
    if refusal:
        raise cuda.CUDARuntimeError(refusal.decode())


def _value(x, kind):
    """An argument as the host's function takes it; TypeError where a GPU would read rubbish."""
    if "*" in kind:
        if type(x) is ndarray:
            return x.data.ptr
        if isinstance(x, int):
            return x
        raise TypeError(f"{type(x)} for a {kind}: expected an array or an address")
    wanted = _KINDS[kind][1]
    if not isinstance(x, wanted):
        raise TypeError(f"{type(x)} for a {kind}: the GPU would read other bytes than meant")
    return x if isinstance(x, int | float) else x.item()
