"""What is installed on this machine that the library computes with? A line for each part.

Nothing here fails: what cannot be read is a finding too. Read `gpu_setup.py` first, which finds
CuPy, the driver and the GPUs, and says what is wrong with them.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn import backend, gpu_setup
from tinygrad_rnn.gpu_setup import GpuSetup, version_text
from tinygrad_rnn.scan.cuda import cublas
from tinygrad_rnn.scan.cuda.clusters import room
from tinygrad_rnn.scan.cuda.plan import LAUNCHES, ONE_KERNEL, refusals, way

#: What limits the threads of NumPy's products, wherever it was built.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Finding(NamedTuple):
    """A part of the installation, what there is of it, and what to do if that is not good."""

    part: str
    text: str
    advice: str = ""


def findings(
    setup: GpuSetup, version: str, environment: Mapping[str, str] = os.environ
) -> Iterator[Finding]:
    """Everything that there is to know, from the interpreter to the GPUs.

    setup: what `gpu_setup.look` found.  version: of this library.
    """
    yield Finding("Python", f"{platform.python_version()}, {platform.platform()}")
    yield Finding("tinygrad_rnn", f"{version}, in {Path(backend.__file__).parent}")
    yield Finding("NumPy", f"{np.__version__}, {_tried(_blas, environment)}")
    packages = ", ".join(f"{name} {version}" for name, version in setup.packages)
    yield Finding("CuPy", packages or "not installed", gpu_setup.conflict(setup))
    driver = f"for CUDA up to {version_text(setup.driver)}" if setup.driver else "none"
    yield Finding("NVIDIA driver", driver)
    if setup.library is not None:
        yield _cuda(setup)
    for index in range(setup.gpus):
        yield Finding(f"cuda:{index}", _tried(_gpu, setup.library, index))
    if not setup.gpus:
        yield Finding("GPUs", "none", f"device 'cuda' {gpu_setup.advice(setup)}")
    yield _default_device(environment)


def recurrences() -> Finding:
    """How a GPU has run recurrences so far, and whether something is in the way of the best."""
    part = "recurrences"
    if way() not in ("persistent", "graph"):
        return Finding(part, f"{way()}, as TINYGRAD_RNN_CUDA_LOOP says")
    if cublas.load() is None:
        return Finding(part, "products by CuPy, one by one", "cuBLAS cannot be loaded by ctypes")
    if LAUNCHES in refusals:
        return Finding(part, "kernels launched one by one", refusals[LAUNCHES])
    if way() == "graph" or ONE_KERNEL in refusals:
        return Finding(part, "CUDA graphs", refusals.get(ONE_KERNEL, ""))
    fitting = f"where that fits ({_tried(_clusters)})"
    return Finding(part, f"one kernel for all steps {fitting}, else CUDA graphs")


def _clusters() -> str:
    """How many clusters of thread blocks the current GPU runs at one time."""
    xp = backend.library("cuda")
    counts = room(xp, xp.cuda.Device().id).clusters
    texts = [f"{count} of {blocks}" for blocks, count in counts.items() if count and blocks > 1]
    return f"clusters at one time: {', '.join(texts)} blocks" if texts else "no clusters of blocks"


def usable_devices(setup: GpuSetup) -> list[str]:
    """The devices that tensors can live on."""
    return ["cpu", *(f"cuda:{index}" for index in range(setup.gpus))]


def _tried(read: Callable[..., str], *sources: Any) -> str:
    """What `read` finds, or why it finds nothing."""
    try:
        return read(*sources)
    except Exception as error:  # whatever a library of the system may raise
        return f"cannot be read ({gpu_setup.cause(error)})"


def _blas(environment: Mapping[str, str]) -> str:
    """Which library NumPy's products come from, and how many threads it may use."""
    config: Any = np.show_config(mode="dicts")
    blas = config["Build Dependencies"]["blas"]
    limits = [f"{name}={environment[name]}" for name in THREAD_VARIABLES if name in environment]
    count = _threads()
    threads = f", {count} thread{'s' * (count != 1)}" if count else ""
    said = f" ({', '.join(limits)})" if limits else ""
    return f"BLAS {blas['name']} {blas.get('version', '')}{threads}{said}"


def _threads() -> int:
    """How many threads NumPy's OpenBLAS uses; 0 if it is another library, or cannot be asked."""
    library = ctypes.CDLL(np._core._multiarray_umath.__file__)  # type: ignore[attr-defined]
    for name in ("scipy_openblas_get_num_threads64_", "openblas_get_num_threads"):
        if hasattr(library, name):
            return int(getattr(library, name)())
    return 0


def _cuda(setup: GpuSetup) -> Finding:
    """CUDA, and the two parts of it that are needed: a compiler, and products of matrices."""
    runtime = version_text(setup.runtime) if setup.runtime else "unknown version"
    texts, missing = [runtime], []
    for name in ("NVRTC", "cuBLAS"):
        try:
            getattr(setup.library.cuda, name.lower())
            texts.append(f"{name} found")
        except Exception as error:  # CuPy looks for the library now, and may raise anything
            texts.append(f"{name} not found")
            missing.append(f"{name}: {gpu_setup.cause(error)}")
    advice = f"{'; '.join(missing)}. Both come with {gpu_setup.install(setup)}" if missing else ""
    return Finding("CUDA", ", ".join(texts), advice)


def _gpu(library: Any, index: int) -> str:
    """What a GPU is."""
    properties = library.cuda.runtime.getDeviceProperties(index)
    return (
        f"{properties['name'].decode()}, {properties['totalGlobalMem'] / 2**30:.1f} GiB, compute "
        f"capability {properties['major']}.{properties['minor']}"
    )


def _default_device(environment: Mapping[str, str]) -> Finding:
    """Where tensors are made if nothing is said."""
    name = environment.get("TINYGRAD_RNN_DEVICE")
    if not name:
        return Finding("default device", "cpu (TINYGRAD_RNN_DEVICE is not set)")
    text = f"{name}, as TINYGRAD_RNN_DEVICE says"
    try:
        backend.library(name)
    except RuntimeError as error:
        return Finding("default device", text, str(error))
    return Finding("default device", text)
