"""Does a device compute right? Every check is run there, and nothing stops the others.

Read `checks.py` first.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from tinygrad_rnn import backend, cuda, random
from tinygrad_rnn.doctor.checks import CHECKS, Check
from tinygrad_rnn.gpu_setup import cause


class Outcome(NamedTuple):
    """How a check went. seconds: what it took, with the compiling of kernels.

    error: the largest difference from the truth, relative to the truth's largest value.
    problem: what was wrong; empty if nothing was.
    """

    device: str
    check: str
    seconds: float
    error: float
    problem: str

    @property
    def passed(self) -> bool:
        """Whether the device computed right."""
        return not self.problem

    def __str__(self) -> str:
        verdict = "ok  " if self.passed else "FAIL"
        said = self.problem or f"within {self.error:.0e}"
        if self.passed and self.error == 0:
            said = "exact"
        return f"{verdict}  {self.device:<7} {self.check:<24} {self.seconds:6.2f} s  {said}"


def self_test(devices: Iterable[str], checks: Iterable[Check] = CHECKS) -> Iterator[Outcome]:
    """The outcome of every check on every device, one after the other, as they come."""
    for name in devices:
        for check in checks:
            yield _outcome(check, backend.device(name))


def _outcome(check: Check, device: backend.device) -> Outcome:
    start = time.perf_counter()
    worst, problem = 0.0, ""
    chosen = contextlib.nullcontext() if device.type == "cpu" else cuda.device(device)
    drawn = random.generator().get_state()  # layers draw weights, which are nobody's business
    try:
        with chosen, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, found, truth in check.run(device):
                error = _difference(found.detach().numpy(), np.asarray(truth))
                worst = max(worst, error)
                if not (error <= check.tolerance or problem):  # NaN is not
                    problem = (
                        f"{name} is wrong by {error:.1e} of its largest value, and may be by "
                        f"{check.tolerance:.0e}"
                    )
    except Exception as error:  # the doctor says what happens, whatever it is
        problem = cause(error)
    finally:
        random.generator().set_state(drawn)
    return Outcome(str(device), check.name, time.perf_counter() - start, worst, problem)


def _difference(found: np.ndarray, truth: np.ndarray) -> float:  # type: ignore[type-arg]
    """The largest difference, relative to the largest value; infinite for another shape."""
    if found.shape != truth.shape:
        return float("inf")
    difference = np.abs(found.astype(np.float64) - truth.astype(np.float64))
    return float(difference.max() / np.abs(truth.astype(np.float64)).max())
