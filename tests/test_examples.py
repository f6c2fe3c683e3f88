"""Every example runs, at its smallest, on every device; and one learns what it says it learns.

What the programs of the chapters find out is tested in claims/, on the host, and what char_lm.py
learns in test_readme.py.
"""

import importlib.util
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from tinygrad_rnn import backend

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

#: Without a figure, and without click: what one would write first.
PLAIN = ("char_lm", "custom_cell")

#: The smallest form of each program.
RUNS = [
    ("any_length", "--seeds 1 --units 2 --updates 1"),
    ("char_lm", "short.txt"),
    ("custom_cell", "--steps 2"),
    ("deep_and_bidirectional", "--parameters 200 --bit-updates 1 --move-updates 50"),
    ("forecasting", "--seeds 1 --units 2 --updates 1"),
    ("gru_against_lstm", "--task counting --seeds 1 --updates 1"),
    ("gru_against_lstm", "--task text --seeds 1 --updates 1"),
    ("gru_interpolation", "--units 2 --updates 1"),
    ("hangul", "--text text.txt --units 2 --epochs 1"),
    ("hello", "--units 2 --updates 2"),
    ("in_and_out", "--units 2 --updates 1"),
    ("language_models", "--text text.txt --epochs 1 --units 2 --words 10"),
    ("long_lags", "--task adding --lag 4 --updates 1"),
    ("long_lags", "--task copy --lag 4 --updates 1"),
    ("lstm_gates", "--text long.txt --units 2 --updates 1"),
    ("polyphonic_music", "--data music.npz --draws 1 --seeds 1 --epochs 1"),
    ("scheduled_sampling", "--text text.txt --seeds 1 --epochs 1 --units 2 --updates 1"),
    ("speech_labels", "--seeds 1 --units 2 --updates 1"),
    ("through_time", "--lag 1 --updates 10 --seeds 1"),
    ("translation", "--kind 'dot attention' --units 2 --updates 1"),
    ("translation", "--kind 'additive attention' --pairs pairs.tsv --units 2 --updates 1"),
    ("vanishing_gradients", "--steps 2 --updates 20 --seeds 1"),
]


def run(monkeypatch, name, *arguments):
    """Run a program as Python does, with these arguments."""
    path = EXAMPLES / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:  # what click ends with
        return end.code
    return 0


@pytest.fixture
def some_files(tmp_path, monkeypatch):
    """A folder to run in, with the texts, pairs and music that RUNS names."""
    monkeypatch.chdir(tmp_path)
    line = "여기 있는 {} 글에서 a line has letters.\n"
    texts = {"short": 6, "text": 100, "long": 1200}
    for name, lines in texts.items():
        Path(f"{name}.txt").write_text("".join(map(line.format, range(lines))), "utf-8")
    pairs = [f"go {number}\tva {number:x}\n" for number in range(20)]
    Path("pairs.tsv").write_text("".join(pairs), "utf-8")
    rolls = np.random.default_rng(0).integers(0, 2, (5, 88), np.uint8)
    parts = ("train", "valid", "test")
    music = {f"{part}_roll": rolls for part in parts} | {f"{part}_len": [2, 3] for part in parts}
    np.savez("music.npz", **music)


@pytest.mark.usefixtures("some_files")
@pytest.mark.parametrize(("name", "arguments"), RUNS, ids=[" ".join(each) for each in RUNS])
def test_an_example_runs_on_every_device(name, arguments, device, monkeypatch, capsys):
    backend.set_default_device("cpu")  # the option alone must do
    figure = [] if name in PLAIN else ["--figure", "figure.svg"]
    assert run(monkeypatch, name, *shlex.split(arguments), "--device", device, *figure) == 0
    assert capsys.readouterr().out
    assert backend.get_default_device() == device
    if figure and importlib.util.find_spec("matplotlib"):
        assert "<svg" in Path("figure.svg").read_text("utf-8")


def test_no_example_is_left_out():
    programs = {
        path.stem
        for path in EXAMPLES.glob("*.py")
        if path.stem in PLAIN or '__name__ == "__main__"' in path.read_text("utf-8")
    }
    assert {name for name, _ in RUNS} == programs


@pytest.fixture
def no_gpu(monkeypatch):
    """A machine without CuPy, whatever this one has."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    yield
    backend.set_default_device(None)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("how", ["option", "environment"])
@pytest.mark.parametrize("name", [*PLAIN, "hello"])
def test_without_a_gpu_there_is_one_line_that_says_what_to_install(name, how, monkeypatch, capsys):
    arguments = []
    if how == "option":
        arguments = ["--device", "cuda"]
    else:
        monkeypatch.setenv("TINYGRAD_RNN_DEVICE", "cuda")
    assert run(monkeypatch, name, *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"{name}.py: ")
    assert "needs CuPy" in shown.err
    assert "pip install" in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.usefixtures("no_gpu")
def test_the_option_is_stronger_than_the_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYGRAD_RNN_DEVICE", "cuda")
    assert run(monkeypatch, "hello", "--updates", "2", "--device", "cpu") == 0


@pytest.mark.usefixtures("some_files")
@pytest.mark.parametrize("name", ["language_models", "lstm_gates", "scheduled_sampling"])
def test_a_text_that_is_too_short_is_an_error_of_one_line(name, monkeypatch, capsys):
    assert run(monkeypatch, name, "--text", "short.txt", "--device", "cpu") == 2
    assert re.fullmatch(rf"{name}.py: .*\d+ characters.*\n", capsys.readouterr().err)


def test_the_custom_cell_learns_to_add(monkeypatch, capsys):
    assert run(monkeypatch, "custom_cell", "--steps", "10", "--device", "cpu") == 0
    shown = capsys.readouterr().out
    guess, *errors = (float(error) for error in re.findall(r"squared error (\d\.\d+)", shown))
    assert guess == round(1 / 6, 4)
    assert max(errors[-2:]) < guess / 10
