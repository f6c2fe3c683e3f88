"""`tinygrad-rnn train`, `sample` and `diagnose` on every device: what they say does not change.

What each of them does is tested on the host, in test_cli.py and test_cli_diagnose.py.
"""

import re
import shlex
from pathlib import Path

import pytest
from command_line import TEXT, tinygrad

from tinygrad_rnn import backend
from tinygrad_rnn.char_lm import Settings, Training, load_model

TINY = shlex.split("train --text korean.txt --hidden 7 --embed 5 --batch 3 --seq 8")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a text. The default device is the host: the option alone must do."""
    monkeypatch.chdir(tmp_path)
    Path("korean.txt").write_text(TEXT, "utf-8")
    yield
    backend.set_default_device(None)


@pytest.fixture
def train(device):
    """Train on the device under test."""
    backend.set_default_device("cpu")
    return lambda *options: tinygrad(*TINY, "--device", device, *options).output


def losses(shown):
    """The validation losses of a run, to three places."""
    return [float(loss) for loss in re.findall(r"step \d+: validation loss (\d\.\d+)", shown)]


@pytest.mark.parametrize("options", [["--cell", "rnn"], ["--layers", "2", "--dropout", "0.2"]])
def test_a_run_loses_what_it_loses_on_the_host(options, train, device):
    there = train("--steps", 10, "--out", "there", *options)
    here = tinygrad(*TINY, "--steps", 10, "--out", "here", *options).output
    assert f"on {backend.device(device)}" in there
    assert len(losses(there)) == 10
    assert losses(there) == pytest.approx(losses(here), abs=2e-3)


def test_a_stopped_run_goes_on_bit_for_bit(device):
    settings = Settings(hidden=7, embed=5, batch=3, seq=8, steps=6, layers=2, dropout=0.5)

    def run(start, stop):
        training = Training(settings, TEXT, device)
        if start:
            training.load("checkpoint.safetensors")
        while training.step < stop:
            training.advance()
        training.save("checkpoint.safetensors")
        return training

    straight = run(0, 6)
    run(0, 3)
    resumed = run(3, 6)
    assert straight.rows == resumed.rows
    for one, other in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert one.device == other.device == backend.device(device)
        assert one.detach().cpu().numpy().tobytes() == other.detach().cpu().numpy().tobytes()


def test_a_model_of_one_device_writes_the_same_on_another(train, device):
    train("--steps", 3, "--out", "run")
    model, _ = load_model("run/checkpoint.safetensors", device)
    assert {parameter.device for parameter in model.parameters()} == {backend.device(device)}
    sample = ("sample", "--checkpoint", "run", "--prompt", "the ", "--length", 20, "--seed", 0)
    there = tinygrad(*sample, "--device", device).output
    assert there == tinygrad(*sample).output


DIAGNOSES = ["flow", "nan", "summary", "profile --runs 1", "graph --out a.svg"]


@pytest.mark.parametrize("command", [*DIAGNOSES, "graph --step 1 --out a.svg"])
def test_diagnose_looks_at_a_model_on_the_device(command, train, device):
    train("--steps", 1, "--out", "run")
    name, *options = command.split()
    shown = tinygrad("diagnose", name, "run", *options, "--device", device).output
    assert shown.startswith("run/checkpoint.safetensors, reading")
