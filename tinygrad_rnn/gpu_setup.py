"""Can this machine compute on a GPU, and if not, what was found and what is to be done?

A GPU needs three things: CuPy, a driver that is new enough for it, and the GPU itself. Each may be
missing, and CuPy may also be broken or installed twice; most of this shows only in the middle of
the first array. `look` collects the facts without failing, and `advice` is what they say. Who asks:
`backend.py`, when a GPU is wanted and cannot be had, and `tinygrad-rnn doctor`.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

OLDEST = 12000  # the CUDA version below which CuPy 14 has no package


class GpuSetup(NamedTuple):
    """What there is to compute on a GPU with.

    packages: name and version of each installed package that brings CuPy: one of them is right.
    library: CuPy, or None if it cannot be imported.
    driver: the newest CUDA version that the driver runs, 13000 for 13.0; 0 without a driver.
    runtime: the CUDA version that CuPy was made for; 0 if unknown.
    gpus: how many CuPy can use.
    error: why CuPy could not be imported, or why it could not count the GPUs.
    visible: CUDA_VISIBLE_DEVICES, which hides GPUs from a process; None if not set.
    """

    packages: tuple[tuple[str, str], ...]
    library: Any
    driver: int
    runtime: int
    gpus: int
    error: Exception | None
    visible: str | None


def driver_version() -> int:
    """The newest CUDA version that the NVIDIA driver runs, 13000 for 13.0; 0 without a driver."""
    version = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        driver.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return 0
    return version.value


def installed() -> list[tuple[str, str]]:
    """Name and version of every package that Python finds."""
    from importlib import metadata

    return [(each.name, each.version) for each in metadata.distributions()]


def look(
    load: Callable[[str], Any] = importlib.import_module,
    distributions: Callable[[], Iterable[tuple[str, str]]] = installed,
    driver: Callable[[], int] = driver_version,
    environment: Mapping[str, str] = os.environ,
) -> GpuSetup:
    """What this machine has; the arguments are where to look for it."""
    brings = ("cupy-cuda", "cupy-rocm", "amd-cupy")
    packages = {
        (name.lower(), version)
        for name, version in distributions()
        if name.lower() == "cupy" or name.lower().startswith(brings)
    }
    library, runtime, gpus, error = None, 0, 0, None
    try:
        library = load("cupy")
        runtime = library.cuda.runtime.runtimeGetVersion()
        gpus = library.cuda.runtime.getDeviceCount()
    except Exception as failure:  # libraries of the system fail in many ways
        error = failure
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    return GpuSetup(tuple(sorted(packages)), library, driver(), runtime, gpus, error, visible)


def version_text(version: int) -> str:
    """12040 as 12.4."""
    return f"{version // 1000}.{version % 1000 // 10}"


def conflict(setup: GpuSetup) -> str:
    """What is wrong with the packages, and what to do; empty if there is at most one."""
    if len(setup.packages) < 2:
        return ""
    return (
        f"{len(setup.packages)} packages that bring CuPy are installed ({_listed(setup)}), and "
        f"each overwrites files of the others: {_uninstall(setup)}, then {install(setup)}"
    )


def advice(setup: GpuSetup) -> str:
    """Why no GPU can be used, and what to do, to follow the name of a device; empty if one can."""
    if setup.gpus:
        return ""
    if setup.library is None:
        return f"needs CuPy, which {_not_imported(setup)}"
    if conflict(setup):
        return f"cannot be used: {conflict(setup)}"
    if not setup.driver:
        return (
            "needs a GPU and its driver: CuPy is installed, but there is no NVIDIA driver on this "
            "machine. Install the driver, or compute on device 'cpu'"
        )
    if setup.driver // 1000 < setup.runtime // 1000:
        older = f", or: {_uninstall(setup)}, then {install(setup)}"
        return (
            f"needs a newer driver: this one runs CUDA up to {version_text(setup.driver)}, and "
            f"CuPy ({_listed(setup)}) was made for {version_text(setup.runtime)}. Update the "
            f"driver{older if setup.driver >= OLDEST else ''}"
        )
    hidden = "" if setup.visible is None else f" (CUDA_VISIBLE_DEVICES is {setup.visible!r})"
    found = "" if setup.error is None else f", {cause(setup.error)}"
    return f"needs a GPU, and the driver shows none{hidden}{found}. Compute on device 'cpu'"


def install(setup: GpuSetup) -> str:
    """The command that installs the CuPy for this driver, or else the one that is there already."""
    here = [number for number in (12, 13) if f"cupy-cuda{number}x" in dict(setup.packages)]
    fitting = [min(setup.driver // 1000, 13)] if setup.driver >= OLDEST else here
    if len(fitting) == 1:
        return f"pip install 'tinygrad_rnn[cuda{fitting[0]}]'"
    return "pip install 'tinygrad_rnn[cuda12]' (or [cuda13], as nvidia-smi shows)"


def cause(error: Exception) -> str:
    """An error in one line: the one at its root, for CuPy wraps a page of advice around it."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return f"{type(error).__name__}: {textwrap.shorten(str(error), 200, placeholder=' …')}"


def _not_imported(setup: GpuSetup) -> str:
    """How it is that CuPy is not there, and what to do."""
    error = setup.error
    if not setup.packages and isinstance(error, ModuleNotFoundError) and error.name == "cupy":
        return f"is not installed; {install(setup)}"
    broken = "cannot be imported" if error is None else f"cannot be imported ({cause(error)})"
    if not setup.packages:
        return f"{broken}; {install(setup)}"
    again = f"{_uninstall(setup)}, then {install(setup)}"
    return f"{broken}, though {_listed(setup)} is installed; {conflict(setup) or again}"


def _listed(setup: GpuSetup) -> str:
    """The packages with their versions."""
    return ", ".join(f"{name} {version}" for name, version in setup.packages) or "no package"


def _uninstall(setup: GpuSetup) -> str:
    """The command that removes every CuPy."""
    return f"pip uninstall {' '.join(name for name, _ in setup.packages)}"
