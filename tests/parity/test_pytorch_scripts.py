"""The programs of tests/test_pytorch_scripts.py, run with PyTorch too: the losses must be equal."""

import runpy
from pathlib import Path

import numpy as np
import pytest

import tinygrad_rnn

torch = pytest.importorskip("torch")

SCRIPTS = runpy.run_path(str(Path(__file__).parent.parent / "test_pytorch_scripts.py"))


@pytest.mark.parametrize("name", SCRIPTS["PROGRAMS"])
def test_the_same_losses(name):
    run, program = SCRIPTS["run"], SCRIPTS["PROGRAMS"][name]
    np.testing.assert_allclose(
        run(program, tinygrad_rnn), run(program, torch), rtol=2e-5, atol=2e-5
    )
