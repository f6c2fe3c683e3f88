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
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple


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
    names = [name for name, _ in setup.packages]
    return (
        f"{len(names)} packages that bring CuPy are installed ({_listed(setup)}), and each "
        f"overwrites files of the others: pip uninstall {' '.join(names)}, then {_install(setup)}"
    )


def advice(setup: GpuSetup) -> str:
    """Why no GPU can be used, and what to do; empty if one can."""
    if setup.gpus:
        return ""
    if setup.library is None:
        if setup.packages:
            again = f"pip install --force-reinstall {setup.packages[0][0]}"
            broken = f"needs CuPy, which is installed ({_listed(setup)}) but cannot be imported"
            return f"{broken} ({cause(setup.error)}); {conflict(setup) or again}"
        if isinstance(setup.error, ModuleNotFoundError):
            return f"needs CuPy, which is not installed; {_install(setup)}"
        return f"needs CuPy, which cannot be imported ({cause(setup.error)}); {_install(setup)}"
    if conflict(setup):
        return f"cannot be used; {conflict(setup)}"
    if not setup.driver:
        return (
            "needs a GPU and its driver: CuPy is installed, but there is no NVIDIA driver on this "
            "machine. Install the driver, or compute on device 'cpu'"
        )
    if setup.driver // 1000 < setup.runtime // 1000:
        return (
            f"needs a newer driver: this one runs CUDA up to {version_text(setup.driver)}, and "
            f"CuPy ({_listed(setup)}) was made for {version_text(setup.runtime)}. Update the "
            f"driver, or take the CuPy that fits it: {_install(setup)}"
        )
    found = f": {cause(setup.error)}" if setup.error else ""
    hidden = "" if setup.visible is None else f" (CUDA_VISIBLE_DEVICES is {setup.visible!r})"
    return f"needs a GPU, and the driver shows none{hidden}{found}. Compute on device 'cpu'"


def _listed(setup: GpuSetup) -> str:
    """The packages with their versions."""
    return ", ".join(f"{name} {version}" for name, version in setup.packages) or "no package"


def _install(setup: GpuSetup) -> str:
    """The command that installs the CuPy for this driver."""
    if setup.driver // 1000 in (12, 13):
        return f"pip install 'tinygrad_rnn[cuda{setup.driver // 1000}]'"
    return "pip install 'tinygrad_rnn[cuda12]' (or [cuda13], as nvidia-smi shows)"


def cause(error: Exception | None) -> str:
    """An error in one line: the one at its root, for CuPy wraps a page of advice around it."""
    while error is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
