"""The examples do what they say. (examples/char_lm.py is run by test_readme.py.)"""

import re
import runpy
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_the_custom_cell_learns_to_add(monkeypatch, capsys):
    path = EXAMPLES / "custom_cell.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--steps", "10"])
    runpy.run_path(str(path), run_name="__main__")
    shown = capsys.readouterr().out
    guess, *errors = (float(error) for error in re.findall(r"squared error (\d\.\d+)", shown))
    assert guess == round(1 / 6, 4)
    assert max(errors[-2:]) < guess / 10
