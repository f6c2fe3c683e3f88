"""What `tinygrad-rnn doctor` finds and advises, on machines that are made up and on this CPU.

What it computes is tested in test_self_test.py, and on two GPUs in test_cuda.py.
"""

import ctypes
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from tinygrad_rnn import gpu_setup
from tinygrad_rnn.cli import main
from tinygrad_rnn.doctor import CHECKS, findings, recurrences, usable_devices
from tinygrad_rnn.gpu_setup import advice, conflict, look
from tinygrad_rnn.scan.cuda import cublas
from tinygrad_rnn.scan.cuda.clusters import Room
from tinygrad_rnn.scan.cuda.plan import LAUNCHES, ONE_KERNEL, refusals

CUDA12, CUDA13 = ("cupy-cuda12x", "14.2.0"), ("cupy-cuda13x", "14.2.0")


class InsufficientDriver(RuntimeError):
    """What CuPy's runtime raises if the driver is missing or too old."""


def cupy(gpus=1, runtime=13000, error=None, **parts):
    """A module that answers what a look at CuPy asks, with so many GPUs or an error."""

    def count():
        if error is not None:
            raise error
        return gpus

    properties = {"name": b"Made up", "totalGlobalMem": 3 << 30, "major": 9, "minor": 0}
    answers = SimpleNamespace(
        runtimeGetVersion=lambda: runtime,
        getDeviceCount=count,
        getDeviceProperties=lambda _index: properties,
    )
    return SimpleNamespace(cuda=SimpleNamespace(runtime=answers, **parts))


def machine(library, packages=(CUDA13,), driver=13000, **environment):
    """What is found where importing CuPy gives `library`, or raises it."""

    def load(name):
        assert name == "cupy"
        if isinstance(library, Exception):
            raise library
        return library

    others = [("numpy", "2.4.0"), ("cuda-pathfinder", "1.0"), ("cupyx-tools", "1")]
    return look(load, lambda: [*others, *packages], lambda: driver, environment)


def wrapped():
    """CuPy's import error: a page, with the cause behind it."""
    error = ImportError("=====\nFailed to import CuPy.\nIf you installed …\n=====")
    error.__cause__ = ImportError("libnvrtc.so.13: cannot open shared object file")
    return error


ABSENT = ModuleNotFoundError("No module named 'cupy'", name="cupy")
NO_DRIVER = cupy(error=InsufficientDriver("cudaErrorInsufficientDriver"))


@pytest.mark.parametrize(
    ("setup", "expected"),
    [
        (
            machine(ABSENT, packages=[], driver=0),
            "needs CuPy, which is not installed; pip install 'tinygrad_rnn[cuda12]' (or [cuda13], "
            "as nvidia-smi shows)",
        ),
        (
            machine(ABSENT, packages=[], driver=12040),
            "needs CuPy, which is not installed; pip install 'tinygrad_rnn[cuda12]'",
        ),
        (
            machine(ABSENT, packages=[], driver=14000),  # a later driver runs what is for CUDA 13
            "needs CuPy, which is not installed; pip install 'tinygrad_rnn[cuda13]'",
        ),
        (
            machine(ModuleNotFoundError("No module named 'cuda'", name="cuda")),
            "needs CuPy, which cannot be imported (ModuleNotFoundError: No module named 'cuda'), "
            "though cupy-cuda13x 14.2.0 is installed; pip uninstall cupy-cuda13x, then pip install "
            "'tinygrad_rnn[cuda13]'",
        ),
        (
            machine(wrapped(), packages=[CUDA12], driver=0),
            "needs CuPy, which cannot be imported (ImportError: libnvrtc.so.13: cannot open shared "
            "object file), though cupy-cuda12x 14.2.0 is installed; pip uninstall cupy-cuda12x, "
            "then pip install 'tinygrad_rnn[cuda12]'",
        ),
        (
            machine(OSError("bad ELF header"), packages=[]),
            "needs CuPy, which cannot be imported (OSError: bad ELF header); "
            "pip install 'tinygrad_rnn[cuda13]'",
        ),
        (
            machine(wrapped(), packages=[CUDA13, CUDA12]),
            "needs CuPy, which cannot be imported (ImportError: libnvrtc.so.13: cannot open shared "
            "object file), though cupy-cuda12x 14.2.0, cupy-cuda13x 14.2.0 is installed; 2 "
            "packages that bring CuPy are installed (cupy-cuda12x 14.2.0, cupy-cuda13x 14.2.0), "
            "and each overwrites files of the others: pip uninstall cupy-cuda12x cupy-cuda13x, "
            "then pip install 'tinygrad_rnn[cuda13]'",
        ),
        (
            machine(NO_DRIVER, driver=0),
            "needs a GPU and its driver: CuPy is installed, but there is no NVIDIA driver on this "
            "machine. Install the driver, or compute on device 'cpu'",
        ),
        (
            machine(NO_DRIVER, driver=12040),
            "needs a newer driver: this one runs CUDA up to 12.4, and CuPy (cupy-cuda13x 14.2.0) "
            "was made for 13.0. Update the driver, or: pip uninstall cupy-cuda13x, then pip "
            "install 'tinygrad_rnn[cuda12]'",
        ),
        (
            machine(NO_DRIVER, driver=11080),
            "needs a newer driver: this one runs CUDA up to 11.8, and CuPy (cupy-cuda13x 14.2.0) "
            "was made for 13.0. Update the driver",
        ),
        (
            machine(cupy(gpus=0), CUDA_VISIBLE_DEVICES=""),
            "needs a GPU, and the driver shows none (CUDA_VISIBLE_DEVICES is ''). Compute on "
            "device 'cpu'",
        ),
        (
            machine(cupy(error=RuntimeError("cudaErrorNoDevice"))),
            "needs a GPU, and the driver shows none, RuntimeError: cudaErrorNoDevice. Compute on "
            "device 'cpu'",
        ),
        (machine(cupy(gpus=2)), ""),
    ],
)
def test_advice_says_what_was_found_and_what_to_do(setup, expected):
    assert advice(setup) == expected


def test_two_packages_are_a_conflict_also_where_a_gpu_computes():
    assert "each overwrites files of the others" in conflict(machine(cupy(), [CUDA12, CUDA13]))
    assert conflict(machine(cupy(), [CUDA12])) == ""
    assert conflict(machine(cupy(), [("CuPy", "14.0"), ("amd-cupy", "14.0")]))


def test_the_driver_is_asked_by_its_own_library(monkeypatch):
    assert isinstance(gpu_setup.driver_version(), int)

    class Driver:
        def cuDriverGetVersion(self, place):
            ctypes.cast(place, ctypes.POINTER(ctypes.c_int))[0] = 12080

    monkeypatch.setattr(ctypes, "CDLL", lambda _name: Driver())
    assert gpu_setup.driver_version() == 12080

    def missing(_name):
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert gpu_setup.driver_version() == 0


def texts(setup, **environment):
    return {each.part: each for each in findings(setup, "1.2.3", environment)}


def test_findings_of_a_machine_with_a_gpu():
    found = texts(machine(cupy(gpus=2, nvrtc=1, cublas=2)), OMP_NUM_THREADS="3")
    assert found["tinygrad_rnn"].text.startswith("1.2.3, in ")
    assert found["NumPy"].text.startswith(f"{np.__version__}, BLAS ")
    assert found["NumPy"].text.endswith("(OMP_NUM_THREADS=3)")
    assert found["CuPy"] == ("CuPy", "cupy-cuda13x 14.2.0", "")
    assert found["NVIDIA driver"].text == "for CUDA up to 13.0"
    assert found["CUDA"] == ("CUDA", "13.0, NVRTC found, cuBLAS found", "")
    assert found["cuda:1"].text == "Made up, 3.0 GiB, compute capability 9.0"
    assert "GPUs" not in found
    assert found["default device"].text == "cpu (TINYGRAD_RNN_DEVICE is not set)"


def test_findings_of_what_is_missing():
    class Cuda:
        runtime = cupy(gpus=0, runtime=12090).cuda.runtime
        nvrtc = None

        @property
        def cublas(self):
            raise ImportError("libcublas.so.12 not found")

    setup = machine(SimpleNamespace(cuda=Cuda()), [CUDA12], driver=12090)
    found = texts(setup, TINYGRAD_RNN_DEVICE="cuda:x")
    assert found["CUDA"].text == "12.9, NVRTC found, cuBLAS not found"
    assert found["CUDA"].advice == (
        "cuBLAS: ImportError: libcublas.so.12 not found. Both come with "
        "pip install 'tinygrad_rnn[cuda12]'"
    )
    assert found["GPUs"].advice == f"device 'cuda' {advice(setup)}"
    assert "'cuda:x' is not a device" in found["default device"].advice


def test_a_part_that_cannot_be_read_is_a_finding(monkeypatch):
    monkeypatch.setattr(np, "show_config", lambda mode: {}["nothing"])
    assert "cannot be read (KeyError: 'nothing')" in texts(machine(ABSENT))["NumPy"].text


def test_how_recurrences_run(monkeypatch, on_the_double):
    monkeypatch.delenv("TINYGRAD_RNN_CUDA_LOOP", raising=False)
    monkeypatch.setattr(cublas, "load", lambda: object())
    assert recurrences().text == (
        "one kernel for all steps where that fits "
        "(clusters at one time: 66 of 2, 33 of 4, 16 of 8, 8 of 16 blocks), else CUDA graphs"
    )
    with monkeypatch.context() as patch:
        module = sys.modules["tinygrad_rnn.doctor.findings"]  # which a function hides
        patch.setattr(module, "room", lambda xp, device: Room({1: 80}, 99 << 10))
        assert "where that fits (no clusters of blocks), else" in recurrences().text
    monkeypatch.setitem(refusals, ONE_KERNEL, "one kernel: RuntimeError: no cluster")
    assert recurrences()[1:] == ("CUDA graphs", "one kernel: RuntimeError: no cluster")
    monkeypatch.setitem(refusals, LAUNCHES, "launches: RuntimeError: no capture")
    assert recurrences()[1:] == (
        "kernels launched one by one",
        "launches: RuntimeError: no capture",
    )
    monkeypatch.setattr(cublas, "load", lambda: None)
    assert recurrences().text == "products by CuPy, one by one"
    monkeypatch.setenv("TINYGRAD_RNN_CUDA_LOOP", "interpret")
    assert recurrences().text == "interpret, as TINYGRAD_RNN_CUDA_LOOP says"


def test_usable_devices():
    assert usable_devices(machine(ABSENT)) == ["cpu"]
    assert usable_devices(machine(cupy(gpus=2))) == ["cpu", "cuda:0", "cuda:1"]


# --- the command ---------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(main, ["doctor", *arguments])


def test_the_command_on_the_cpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delenv("TINYGRAD_RNN_DEVICE", raising=False)
    result = run()
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("Python          3.")
    assert sum(line.startswith("ok    cpu ") for line in lines) == len(CHECKS)
    assert lines[-1] == "Everything is right on cpu."


def test_the_command_without_a_test(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    result = run("--no-self-test")
    assert result.exit_code == 0
    assert "NumPy " in result.output
    assert "ok " not in result.output


def test_the_command_for_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    result = run("--device", "cuda")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1].startswith(
        "Nothing to test: device 'cuda:0' needs CuPy, which"
    )
    wrong = run("--device", "gpu")
    assert wrong.exit_code == 2
    assert "'gpu' is not a device" in wrong.output
