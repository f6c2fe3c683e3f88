"""The first programs that people see: the code in the README runs, its commands exist, and the
example learns.
"""

import random
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import tinygrad_rnn
from tinygrad_rnn.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_blocks_run_in_order(capsys):
    try:
        tinygrad_rnn.zeros(1).to("cuda")
        present = "cuda"
    except RuntimeError:
        present = "cpu"
    tinygrad_rnn.manual_seed(0)
    names = {}
    for block in blocks("python"):
        exec(block.replace('"cuda"', f'"{present}"'), names)
    assert names["loss"].item() < 1e-3
    assert "ok: all agree" in capsys.readouterr().out


def test_the_model_has_twelve_lines():
    assert len(blocks("python")[0].splitlines()) == 12


@pytest.mark.parametrize("command", re.findall(r"`(tinygrad-rnn [^`]+)`", README))
def test_the_commands_exist(command):
    _, name, *options = shlex.split(command)
    shown = CliRunner().invoke(main, [name, "--help"]).stdout
    assert shown.startswith(f"Usage: main {name}")
    for option in options:
        assert not option.startswith("--") or option in shown


def test_the_example_learns_its_text_by_heart(monkeypatch, capsys):
    path = ROOT / "examples" / "char_lm.py"
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    shown = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"loss (\d+\.\d+) nats", shown)]
    assert losses[0] > 1.5
    assert losses[-1] < 0.3
    written = shown.rpartition("per character\n")[2]
    assert share_quoted(written, path.read_text(encoding="utf-8")) > 0.6


def share_quoted(written, source, run=15):
    """The share of characters in runs of at least `run` that stand in the source just like that.

    Not whole lines, of which 300 characters hold few: any rounding may change what is drawn next.
    """
    quoted = set()
    for start in range(len(written) - run + 1):
        if written[start : start + run] in source:
            quoted.update(range(start, start + run))
    return len(quoted) / len(written)


def test_what_was_not_learnt_is_not_quoted():
    source = (ROOT / "examples" / "char_lm.py").read_text(encoding="utf-8")
    assert share_quoted("".join(random.Random(0).choices(source, k=300)), source) == 0
    assert share_quoted("#" * 20 + source[100:180], source) == 0.8
