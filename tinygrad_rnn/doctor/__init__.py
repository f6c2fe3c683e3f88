"""Is everything here that the library computes with, and does it compute right?

`findings.py` reads what is installed; `checks.py` are computations whose results are known from
elsewhere; `self_test.py` runs them on a device. `tinygrad-rnn doctor` prints both. Why a GPU cannot
be used is worked out in `gpu_setup.py`.
"""

from tinygrad_rnn.doctor.checks import CHECKS, Check
from tinygrad_rnn.doctor.findings import Finding, findings, recurrences, usable_devices
from tinygrad_rnn.doctor.self_test import Outcome, self_test

__all__ = [
    "CHECKS",
    "Check",
    "Finding",
    "Outcome",
    "findings",
    "recurrences",
    "self_test",
    "usable_devices",
]
