"""`tinygrad-rnn diagnose`: what it looks at, what it prints and writes, what can be typed wrong."""

import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from command_line import TEXT, tinygrad

import tinygrad_rnn as torch
from tinygrad_rnn import backend
from tinygrad_rnn.char_lm import load_model
from tinygrad_rnn.cli import main
from tinygrad_rnn.cli.diagnose import diagnose
from tinygrad_rnn.cli.target import resolve
from tinygrad_rnn.diagnose import gradient_flow, summary

CELL = """
from sizes import H  # a neighbour of this file
import tinygrad_rnn as torch
from tinygrad_rnn import nn
from tinygrad_rnn.scan import scan

class Leaky(nn.Module):
    def forward(self, x, h):
        h = 0.5 * h + x.tanh()
        return h, h

def example():
    cell = Leaky()
    model = lambda x, h: scan(cell, x, h)
    return model, (torch.randn(30, 2, H), torch.zeros(2, H)), lambda out: out[0].square().mean()

def no_recurrence():
    return nn.Linear(H, 1), torch.randn(2, H), torch.Tensor.mean

def two_losses():
    return nn.GRU(H, 2), torch.randn(5, 2, H), lambda out: out[0]

def pair():
    return nn.Linear(H, 1), torch.randn(2, H)

number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test in a folder of its own, with a text and a file of cells."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("korean.txt").write_text(TEXT, "utf-8")
    Path("cells").mkdir()
    Path("cells/own.py").write_text(CELL)
    Path("cells/sizes.py").write_text("H = 3\n")
    yield tmp_path
    sys.modules.pop("sizes", None)


def refused(*arguments):
    result = tinygrad(*arguments, status=2)
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("tinygrad-rnn: ")
    return result.stderr


def trained(name="run", cell="gru", text="korean.txt"):
    options = "--hidden 7 --embed 5 --batch 3 --seq 12 --steps 2"
    tinygrad("train", "--text", text, "--cell", cell, *shlex.split(options), "--out", name)


# What it looks at.


@pytest.mark.parametrize("target", ["runs/mine", "runs/mine/checkpoint.safetensors", None])
def test_a_run(target):
    trained("runs/mine", "lstm")
    shown = tinygrad("diagnose", "flow", *([target] if target else [])).stdout
    assert shown.startswith("runs/mine/checkpoint.safetensors, reading 8 x 12 characters of korean")
    assert "recurrent layer 0 forward: T = 12, B = 8, h of 7, c of 7" in shown
    assert "vanishing" in shown or "healthy" in shown


def test_what_a_run_reads():
    """Rows of the text, one behind the other; what each is to predict is one character later."""
    trained()
    looked_at = resolve("run", None, backend.CPU)
    model, vocabulary = load_model("run/checkpoint.safetensors")
    rows = [vocabulary.decode(row) for row in looked_at.x.T.tolist()]
    assert rows == [TEXT[k * 12 : (k + 1) * 12] for k in range(8)]
    logits, _ = model(looked_at.x)
    targets = vocabulary.encode(TEXT[1:97]).reshape(8, 12).T
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(targets.ravel())
    )
    assert looked_at.loss(looked_at.model(looked_at.x)).item() == pytest.approx(expected.item())
    assert not looked_at.model.training


def test_another_text_and_a_short_one():
    trained()
    Path("other.txt").write_text("run away, fox " * 30)
    assert (
        "8 x 12 characters of other.txt"
        in tinygrad("diagnose", "flow", "run", "--text", "other.txt").stdout
    )
    for text, size in (("fox " * 5, "1 x 12"), ("fox", "1 x 2")):
        Path("other.txt").write_text(text)
        assert size in tinygrad("diagnose", "flow", "run", "--text", "other.txt").stdout


def test_a_run_on_the_standard_library():
    tinygrad("train", *shlex.split("--hidden 4 --embed 3 --batch 2 --seq 6 --steps 1 --out run"))
    assert (
        "8 x 6 characters of Python's standard library"
        in tinygrad("diagnose", "flow", "run").stdout
    )


def test_a_cell_of_ones_own():
    shown = tinygrad("diagnose", "flow", "cells/own.py:example").stdout
    assert shown.startswith("cells/own.py:example\n")
    assert "cell: T = 30, B = 2, h of 3" in shown
    assert "vanishing at rate 0.5 per step" in shown


def test_the_table_is_that_of_gradient_flow():
    torch.manual_seed(5)
    looked_at = resolve("cells/own.py:example", None, backend.CPU)
    expected = str(gradient_flow(looked_at.model, looked_at.x, looked_at.loss, rows=2))
    torch.manual_seed(5)
    shown = tinygrad("diagnose", "flow", "cells/own.py:example", "--rows", 2).stdout
    assert shown.partition("\n")[2] == expected + "\n"


# The picture.


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")]
)
def test_a_picture(name, start):
    pytest.importorskip("matplotlib")
    shown = tinygrad("diagnose", "flow", "cells/own.py:example", "--out", name).stdout
    assert shown.endswith(f"{name} shows it.\n")
    assert Path(name).read_bytes().startswith(start)


def test_a_picture_is_not_overwritten_unless_asked_for():
    pytest.importorskip("matplotlib")
    Path("a.png").write_text("mine")
    command = ("diagnose", "flow", "cells/own.py:example", "--out", "a.png")
    assert "a.png exists" in refused(*command)
    assert Path("a.png").read_text() == "mine"
    tinygrad(*command, "--overwrite")
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_a_table_but_no_picture(monkeypatch):
    monkeypatch.setattr(sys.modules["tinygrad_rnn.cli.diagnose"], "can_draw", lambda: False)
    message = refused("diagnose", "flow", "cells/own.py:example", "--out", "a.png")
    assert "pip install 'tinygrad_rnn[plot]'" in message
    assert "healthy" not in message
    assert "vanishing" in tinygrad("diagnose", "flow", "cells/own.py:example").stdout


# The graph.


def test_the_graph_behind_the_loss():
    trained("runs/mine", "lstm")
    shown = tinygrad("diagnose", "graph", "--out", "graph.svg").stdout
    assert "The graph behind loss ()" in shown
    assert shown.endswith("graph.svg shows it.\n")
    drawn = Path("graph.svg").read_text("utf-8")
    for name in ("embedding.weight", "recurrent.weight_hh_l0", "loss = ", "scan, T = 12"):
        assert name in drawn
    tinygrad("diagnose", "graph", "--open-scans", "--out", "open.svg")
    assert "loop × 12" in Path("open.svg").read_text("utf-8")
    tinygrad("diagnose", "graph", "--out", "graph.dot")
    assert Path("graph.dot").read_text("utf-8").startswith("digraph {")


def test_one_step_of_a_recurrence():
    trained("run", "lstm")
    shown = tinygrad("diagnose", "graph", "run", "--step", 1, "--out", "step.svg").stdout
    assert "recurrent layer 0 forward\nSTEP  T = 12, from t = 1 to 12\n" in shown
    assert "sigmoid(" in Path("step.svg").read_text("utf-8")
    command = ("diagnose", "graph", "cells/own.py:example", "--step", 1, "--pullback")
    assert (
        "PULLBACK OF THE STEP  T = 30, from t = 30 to 1"
        in tinygrad(*command, "--out", "a.svg").stdout
    )
    assert "dx" in Path("a.svg").read_text("utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "Missing option '--out'"),
        ("--out a.png", "a picture ends in .svg, .dot"),
        ("--out nowhere/a.svg", "the folder nowhere does not exist"),
        ("--out korean.svg", "korean.svg exists; add --overwrite"),
        ("--out a.svg --pullback", "add --step 1"),
        ("--out a.svg --step 1 --no-fold", "not for a --step"),
        ("--out a.svg --step 7", "--step 7: the recurrences are 1: cell"),
        ("--out a.svg --step 0", "--step"),
    ],
)
def test_wrong_arguments_of_graph(options, message):
    Path("korean.svg").write_text("mine")
    assert message in refused("diagnose", "graph", "cells/own.py:example", *shlex.split(options))
    assert not Path("a.svg").exists()


def test_graphs_that_cannot_be_drawn():
    Path("own.py").write_text(
        "import tinygrad_rnn as torch\n"
        "def number():\n"
        "    return torch.sin, torch.ones(3), lambda out: out.sum()\n"
        "def none():\n"
        "    return torch.sin, torch.ones(3, requires_grad=True), lambda out: 3\n"
    )
    command = ("diagnose", "graph", "--out", "a.svg")
    assert "nothing is recorded" in refused(*command, "own.py:number")
    assert "loss gave int, expected a Tensor" in refused(*command, "own.py:none")
    assert "the recurrences are none" in refused(*command, "own.py:none", "--step", 1)


# NaN, summary, profile.

BAD = """
import tinygrad_rnn as torch
from tinygrad_rnn.scan import scan

def cell(x, h):
    h = h * x.log()
    return h, h

def example():
    x = torch.ones(5, 2)
    x[3] = 0.0
    return (lambda x, h: scan(cell, x, h)), (x, torch.ones(2)), lambda out: out[0].sum()
"""


def test_a_nan_is_explained_and_the_status_says_that_there_is_one():
    Path("bad.py").write_text(BAD)
    shown = tinygrad("diagnose", "nan", "bad.py:example", status=1).stdout
    assert shown.startswith("bad.py:example\nfirst non-finite value: Inf, forward pass, ")
    assert "cell, t = 4, log\nline: bad.py:6: h = h * x.log()" in shown
    assert "log of 0" in shown


def test_a_run_without_nan():
    trained("run", "lstm")
    shown = tinygrad("diagnose", "nan", "run").stdout
    assert "reading 8 x 12 characters" in shown
    assert "no non-finite value: looked at" in shown
    assert "no non-finite value" in tinygrad("diagnose", "nan", "cells/own.py:example").stdout


def test_the_summary_of_a_run():
    trained("run", "lstm")
    looked_at = resolve("run", None, backend.CPU)
    shown = tinygrad("diagnose", "summary", "run").stdout
    assert shown.partition("\n")[2] == f"{summary(looked_at.model, looked_at.x)}\n"
    assert "recurrent: LSTM" in shown


def test_the_summary_of_a_layer_and_of_what_is_no_module():
    Path("layer.py").write_text(
        "import tinygrad_rnn as torch\n"
        "def example():\n"
        "    x, h = torch.ones(5, 2, 3), torch.zeros(1, 2, 4)\n"
        "    return torch.nn.GRU(3, 4), (x, h), lambda out: out[0].sum()\n"
    )
    assert "GRU" in tinygrad("diagnose", "summary", "layer.py:example").stdout
    assert "expected a Module, got function" in refused(
        "diagnose", "summary", "cells/own.py:example"
    )


def test_a_profile_counts_the_runs():
    trained("run", "gru")
    lines = tinygrad("diagnose", "profile", "run", "--runs", 3).stdout.splitlines()
    recur = next(line for line in lines if line.startswith("  recur "))
    assert recur.split()[1] == "3"
    loop = next(line for line in lines if line.startswith("  loop "))
    assert loop.split()[1] == "36"
    assert any(line.startswith("backward") for line in lines)


def test_a_profile_of_what_has_no_gradient():
    Path("layer.py").write_text(
        "import tinygrad_rnn as torch\n"
        "def example():\n"
        "    return torch.sin, torch.ones(3), lambda out: out.sum()\n"
    )
    shown = tinygrad("diagnose", "profile", "layer.py:example").stdout
    assert "  sin " in shown
    assert "backward" not in shown
    assert "--runs" in refused("diagnose", "profile", "layer.py:example", "--runs", 0)


# What can be typed wrong.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "run: tinygrad-rnn train"),
        ("nowhere", "nowhere"),
        ("korean.txt", "korean.txt is a text file"),
        ("cells", "cells/checkpoint.safetensors"),
        ("cells/own.py", "cells/own.py:function"),
        ("cells/no.py:example", "cells/no.py: there is no such file"),
        ("cells/own.py:other", "cells/own.py has no function 'other'"),
        ("cells/own.py:number", "has no function 'number'"),
        ("cells/own.py:pair", "must return (model, x, loss)"),
        ("cells/own.py:pair", "it returned (Linear, Tensor)"),
        ("cells/own.py:H", "has no function 'H'"),
        ("cells/own.py:no_recurrence", "no recurrence ran in the model"),
        ("cells/own.py:two_losses", "loss gave a tensor of shape (5, 2, 2)"),
        ("cells/own.py:example --text korean.txt", "brings its own input"),
        ("cells/own.py:example --rows 0", "--rows"),
        ("cells/own.py:example --device tpu", "'tpu' is not a device"),
        ("cells/own.py:example surplus", "surplus"),
        ("--colour red", "No such option"),
    ],
)
def test_wrong_arguments_of_flow(options, message):
    assert message in refused("diagnose", "flow", *shlex.split(options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--out a.gif", "a picture ends in .png, .svg, .pdf"),
        ("--out nowhere/a.png", "the folder nowhere does not exist"),
        ("--out cells", "a picture ends in"),
    ],
)
def test_pictures_that_cannot_be_written(options, message):
    pytest.importorskip("matplotlib")
    command = ("diagnose", "flow", "cells/own.py:example", *shlex.split(options))
    assert message in refused(*command)


def test_texts_that_cannot_be_read():
    trained()
    Path("one.txt").write_text("x")
    assert "one.txt is too short" in refused("diagnose", "flow", "run", "--text", "one.txt")
    assert "no.txt" in refused("diagnose", "flow", "run", "--text", "no.txt")
    Path("korean.txt").unlink()
    assert "korean.txt: No such file" in refused("diagnose", "flow", "run")


def test_an_error_in_ones_own_file_keeps_its_traceback():
    Path("broken.py").write_text("def example():\n    raise KeyError('mine')\n")
    program = "from tinygrad_rnn.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", program, "diagnose", "flow", "broken.py:example"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert 'broken.py", line 2, in example' in run.stderr
    assert "KeyError: 'mine'" in run.stderr


def test_help():
    overview = tinygrad("diagnose", "--help").stdout
    assert "FILE.py:FUNCTION" in overview
    assert "diagnose" in tinygrad("--help").stdout
    for name, command in diagnose.commands.items():
        assert name in overview
        shown = tinygrad("diagnose", name, "--help").stdout
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.help, option.name
                assert option.opts[0] in shown


def test_an_unknown_subcommand():
    assert "No such command 'fly'" in refused("diagnose", "fly")


def test_the_device_is_where_a_function_makes_tensors(monkeypatch):
    asked = []
    monkeypatch.setattr(backend, "set_default_device", asked.append)
    resolve("cells/own.py:example", None, backend.CPU)
    assert asked == []
    resolve("cells/own.py:example", None, backend.device("cuda:1"))
    assert asked == [backend.device("cuda:1")]


def test_states_that_are_not_finite_are_told():
    Path("bad.py").write_text(
        "import tinygrad_rnn as torch\n"
        "def example():\n"
        "    x = torch.full((5, 1, 2), float('nan'))\n"
        "    return torch.nn.GRU(2, 3), x, lambda out: out[0].sum()\n"
    )
    with np.errstate(all="ignore"):
        shown = tinygrad("diagnose", "flow", "bad.py:example").stdout
    assert "non-finite" in shown
    assert "explain_nan" in shown


def test_without_a_subcommand_it_says_which_there_are():
    shown = CliRunner().invoke(main, ["diagnose"])
    assert shown.exit_code == 0, shown.output
    for command in ("flow", "nan", "graph", "summary", "profile"):
        assert f"tinygrad-rnn diagnose {command}" in shown.output
