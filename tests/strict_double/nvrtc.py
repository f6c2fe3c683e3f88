"""NVIDIA's run-time compiler, from the wheel nvidia-cuda-nvrtc: it needs no GPU."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from pathlib import Path


@functools.cache
def library():
    """The compiler's library; None where the wheel is not installed."""
    if importlib.util.find_spec("nvidia") is None:
        return None
    found = [
        path
        for folder in importlib.util.find_spec("nvidia").submodule_search_locations
        for path in sorted(Path(folder).glob("**/libnvrtc.so*"))
    ]
    return ctypes.CDLL(str(found[0])) if found else None


def compiled(architecture, text):
    """A text compiled with the options that CuPy gives: its PTX, and what the compiler logs.

    For a GPU, as sm_90, machine code is made too, and registers are counted; for a virtual one, as
    compute_90, PTX alone.
    """
    nvrtc, program = library(), ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernel", 0, None, None)
    options = ["--std=c++17", "-ftz=true", "--ptxas-options=-v", f"-arch={architecture}"]
    given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    status = nvrtc.nvrtcCompileProgram(program, len(options), given)
    log = _told(program, "ProgramLog")
    ptx = "" if status else _told(program, "PTX")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if status:
        raise RuntimeError(f"NVRTC does not compile this kernel:\n{log}\n{text}")
    return ptx, log


def _told(program, what):
    size = ctypes.c_size_t()
    getattr(library(), f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(library(), f"nvrtcGet{what}")(program, buffer)
    return buffer.value.decode()
