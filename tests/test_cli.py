"""The command line: a run from start to end, stopped and resumed, and what can be typed wrong."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
from command_line import TEXT, tinygrad

import tinygrad_rnn
from tinygrad_rnn import load
from tinygrad_rnn.char_lm import Settings, Training
from tinygrad_rnn.cli import main

TINY = shlex.split("--hidden 7 --embed 5 --batch 3 --seq 8")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test in a folder of its own, with a text."""
    monkeypatch.chdir(tmp_path)
    Path("korean.txt").write_text(TEXT, "utf-8")
    return tmp_path


def train(*arguments, status=0):
    return tinygrad("train", "--text", "korean.txt", *TINY, *arguments, status=status)


def everything_below(folder):
    return {path: path.is_file() and path.read_bytes() for path in Path(folder).rglob("*")}


def assert_same_run(a, b):
    assert Path(a, "log.csv").read_bytes() == Path(b, "log.csv").read_bytes()
    runs = [load(Path(path, "checkpoint.safetensors")) for path in (a, b)]
    for part in ("model", "optimizer"):
        weights = [tensors_of(run[part]) for run in runs]
        assert weights[0].keys() == weights[1].keys()
        for name, tensor in weights[0].items():
            assert tensor.array.tobytes() == weights[1][name].array.tobytes(), name


def tensors_of(value, path=()):
    if isinstance(value, tinygrad_rnn.Tensor):
        return {path: value}
    branches = value.items() if isinstance(value, dict) else ()
    return {
        name: tensor
        for key, branch in branches
        for name, tensor in tensors_of(branch, (*path, key)).items()
    }


# --- a run --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_run_from_training_to_writing(cell):
    shown = train("--cell", cell, "--steps", 30).stdout
    assert f"{cell.upper()} with 1 layer of 7 units" in shown
    assert shown.count("validation loss") == 11  # at every tenth of the steps, and at the end
    assert "unigram model" in shown
    assert "bigram model" in shown

    header, *lines = Path(f"runs/korean-{cell}/log.csv").read_text().splitlines()
    assert header.split(",")[:4] == ["step", "characters", "training_loss", "validation_loss"]
    rows = [line.split(",") for line in lines]
    assert [int(row[0]) for row in rows] == sorted({*range(3, 31, 3), 10, 20})
    assert [row[0] for row in rows if row[3] == ""] == ["10", "20"]
    assert all(float(row[3]) > 0 for row in rows if row[3])

    command = shlex.split(shown.splitlines()[-1])
    assert command[:2] == ["tinygrad-rnn", "sample"]
    written = tinygrad(*command[1:], "--prompt", "나랏", "--length", 50, "--seed", 1).stdout
    assert written.startswith("나랏")
    assert len(written) == len("나랏") + 50 + len("\n")
    assert tinygrad(*command[1:], "--prompt", "나랏", "--length", 50, "--seed", 1).stdout == written
    assert tinygrad("sample", "--prompt", "나랏", "--length", 50, "--seed", 2).stdout != written


def test_the_default_run_reads_the_standard_library():
    shown = tinygrad("train", *TINY, "--steps", 2).stdout
    assert "source of Python's standard library" in shown
    assert Path("runs/python-lstm/checkpoint.safetensors").exists()


def test_the_loss_curve_is_drawn_where_matplotlib_is_installed():
    pytest.importorskip("matplotlib")
    train("--steps", 3)
    assert Path("runs/korean-lstm/loss.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_there_is_a_hint(monkeypatch):
    monkeypatch.setattr("tinygrad_rnn.cli.loss_curve.can_draw", lambda: False)
    assert "matplotlib is not installed" in train("--steps", 1).stdout
    assert not Path("runs/korean-lstm/loss.png").exists()


def test_runs_without_a_name_get_new_ones():
    for _ in range(3):
        train("--steps", 1)
    assert sorted(os.listdir("runs")) == ["korean-lstm", "korean-lstm-2", "korean-lstm-3"]


# --- stopping and going on ----------------------------------------------------------------------


def stop_at(monkeypatch, step, number=signal.SIGINT):
    """Press Ctrl-C while that step is being computed."""
    advance = Training.advance

    def interrupted(training):
        if training.step + 1 == step:
            os.kill(os.getpid(), number)
        return advance(training)

    monkeypatch.setattr(Training, "advance", interrupted)


@pytest.mark.parametrize("step", [1, 14, 20])
def test_a_stopped_run_goes_on_bit_for_bit(monkeypatch, step):
    options = ("--steps", 40, "--layers", 2, "--dropout", 0.2)
    train(*options, "--out", "straight")
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        shown = train(*options, "--out", "stopped here", status=130).stdout
    assert f"Stopped after step {step} and saved" in shown
    command = shlex.split(shown.splitlines()[-1])
    assert command == ["tinygrad-rnn", "train", "--resume", "--out", "stopped here"]
    tinygrad(*command[1:])
    assert_same_run("straight", "stopped here")


def test_termination_saves_too(monkeypatch):
    stop_at(monkeypatch, 3, signal.SIGTERM)
    assert "Stopped after step 3 and saved" in train("--steps", 9, status=128 + 15).stdout


def test_signals_are_given_back(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    stop_at(monkeypatch, 3)
    train("--steps", 9, status=130)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_stops_at_once_with_the_last_checkpoint(monkeypatch):
    advance = Training.advance

    def interrupted_twice(training):
        if training.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return advance(training)

    train("--steps", 10, "--out", "straight")
    with monkeypatch.context() as patch:
        patch.setattr(Training, "advance", interrupted_twice)
        assert "from the last checkpoint" in train("--steps", 10, "--out", "a", status=130).stdout
    tinygrad("train", "--resume", "--out", "a")
    assert_same_run("straight", "a")


def test_resume_without_a_folder_takes_the_newest_run():
    train("--steps", 2, "--out", "runs/b")
    time.sleep(0.02)
    train("--steps", 3, "--out", "runs/a")
    assert "has taken all of its 3 steps" in tinygrad("train", "--resume").stdout
    assert "runs/a" in tinygrad("train", "--resume", "--steps", 4).stdout


def test_the_log_is_cut_back_to_the_checkpoint():
    train("--steps", 10)
    log = Path("runs/korean-lstm/log.csv")
    whole = log.read_bytes()
    log.write_bytes(whole + b"11,264,1.5,,0.2,0.1\n12,2")
    tinygrad("train", "--resume", "--steps", 11)
    assert log.read_bytes().startswith(whole)
    assert log.read_text().count("\n11,") == 1


def start(*arguments):
    """The real command, in a process of its own."""
    program = "from tinygrad_rnn.cli import main; main(prog_name='tinygrad-rnn')"
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(Path(tinygrad_rnn.__file__).parents[1])},
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_process_is_stopped_and_another_goes_on(number):
    options = ("--steps", 400)
    train(*options, "--out", "straight")
    with start("train", "--text", "korean.txt", *TINY, *options, "--out", "stopped") as process:
        for line in process.stdout:
            if line.startswith("step 120:"):
                break
        process.send_signal(number)
        shown, errors = process.communicate(timeout=60)
    assert errors == ""
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "tinygrad-rnn train --resume --out stopped" in shown
    assert load("stopped/checkpoint.safetensors")["extra"]["char_lm"]["step"] < 400
    with start("train", "--resume", "--out", "stopped") as process:
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert_same_run("straight", "stopped")


def test_the_reader_of_a_pipe_may_leave():
    train("--steps", 1)
    with start("sample", "--length", 100_000) as process:
        process.stdout.read(5)
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


# --- what can go wrong --------------------------------------------------------------------------


def refused(*arguments):
    """The one line that is shown, after making sure that nothing was written."""
    before = everything_below(".")
    result = tinygrad(*arguments, status=2)
    assert result.stdout == ""
    assert result.stderr.startswith("tinygrad-rnn: ")
    assert result.stderr.count("\n") == 1
    assert result.stderr.endswith("\n")
    assert everything_below(".") == before
    return result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--text missing.txt", "missing.txt: No such file"),
        ("--text empty.txt", "empty.txt is empty"),
        ("--text latin.txt", "latin.txt is not UTF-8: byte 0xe9 at position 3"),
        ("--text short.txt", "too short"),
        ("--text .", "Is a directory"),
        ("--cell transformer", "'transformer' is not one of"),
        ("--layers 0", "--layers"),
        ("--hidden -3", "--hidden"),
        ("--hidden many", "--hidden"),
        ("--hidden 100000000", "not enough memory"),
        ("--embed 0", "--embed"),
        ("--dropout 1", "--dropout"),
        ("--dropout nan", "--dropout"),
        ("--batch 0", "--batch"),
        ("--batch 100000 --text korean.txt", "--batch 43 --seq 64"),
        ("--seq 0", "--seq"),
        ("--steps 0", "--steps"),
        ("--lr 0", "--lr"),
        ("--lr nan", "--lr"),
        ("--lr inf", "--lr"),
        ("--clip -1", "--clip"),
        ("--seed x", "--seed"),
        ("--device cuda:99", "cuda"),
        ("--device tpu", "'tpu' is not a device"),
        ("--out empty.txt", "is a file, not a folder"),
        ("--out empty.txt/run", "empty.txt"),
        ("--out /proc/run", "/proc/run"),
        ("--resume", "there is no checkpoint below runs/"),
        ("--resume --out nothing", "nothing"),
        ("--resume --overwrite", "contradict"),
        ("--colour red", "No such option"),
        ("surplus", "surplus"),
    ],
)
def test_wrong_arguments_of_train(options, message):
    Path("empty.txt").touch()
    Path("latin.txt").write_bytes("café au lait".encode("latin-1"))
    Path("short.txt").write_text("too short")
    assert message in refused("train", *shlex.split(options))


def test_a_run_is_not_overwritten_unless_asked_for():
    train("--steps", 2, "--out", "run")
    arguments = ("train", "--text", "korean.txt", *TINY, "--steps", 3)
    assert "holds a run" in refused(*arguments, "--out", "run")
    Path("run/checkpoint.safetensors").unlink()
    assert "holds a run (log.csv)" in refused(*arguments, "--out", "run")
    tinygrad(*arguments, "--out", "run", "--overwrite")
    assert load("run/checkpoint.safetensors")["extra"]["char_lm"]["step"] == 3


def test_a_folder_without_a_run_may_be_used():
    Path("notes").mkdir()
    Path("notes/readme").write_text("mine")
    train("--steps", 1, "--out", "notes")
    assert Path("notes/readme").read_text() == "mine"


def test_a_run_goes_on_with_its_own_settings_and_text():
    train("--steps", 2, "--out", "run")
    message = refused("train", "--resume", "--out", "run", "--hidden", 8, "--lr", 1)
    assert "--hidden, --lr: a run goes on with its own settings" in message
    Path("korean.txt").write_text(TEXT + "more")
    assert "has changed" in refused("train", "--resume", "--out", "run", "--steps", 3)
    Path("korean.txt").unlink()
    assert "korean.txt: No such file" in refused("train", "--resume", "--out", "run", "--steps", 3)


def test_a_diverging_run_keeps_its_last_good_checkpoint():
    with np.errstate(all="ignore"):
        result = train("--lr", 1e38, "--clip", 0, "--steps", 30, "--out", "run", status=2)
    assert result.stderr.count("\n") == 1
    assert "smaller --lr" in result.stderr
    assert "run/checkpoint.safetensors" in result.stderr
    weights = load("run/checkpoint.safetensors")["model"]
    assert all(np.isfinite(weight.numpy()).all() for weight in weights.values())


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "weights", "missing"])
def test_damaged_checkpoints(damage):
    train("--steps", 1, "--out", "run")
    path = Path("run/checkpoint.safetensors")
    if damage == "text":
        path.write_text("hello")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "weights":
        tinygrad_rnn.save({"weight": tinygrad_rnn.ones(3)}, path)
    else:
        path.unlink()
    for command in (["sample", "--checkpoint", "run"], ["train", "--resume", "--out", "run"]):
        assert str(path) in refused(*command)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--prompt 나랏é", "character 3, 'é' (U+00E9)"),
        ("--temperature -1", "--temperature"),
        ("--temperature nan", "--temperature"),
        ("--length 0", "--length"),
        ("--seed x", "--seed"),
        ("--device cuda:99", "cuda"),
        ("--checkpoint nowhere", "nowhere"),
        ("--checkpoint korean.txt", "korean.txt is a text file"),
    ],
)
def test_wrong_arguments_of_sample(options, message):
    train("--steps", 1)
    assert message in refused("sample", *shlex.split(options))


def test_sampling_needs_a_run():
    assert "run: tinygrad-rnn train" in refused("sample")


def test_an_unknown_command():
    assert "No such command 'fly'" in refused("fly")


# --- check, help, version -----------------------------------------------------------------------


@pytest.mark.parametrize(("agree", "status"), [(True, 0), (False, 1)])
def test_check_exits_by_what_was_found(monkeypatch, agree, status):
    def found(report):
        report("a line")
        return agree

    monkeypatch.setattr(sys.modules["tinygrad_rnn.cli.check"], "check_all", found)
    assert "a line" in tinygrad("check", status=status).stdout


def test_help_explains_every_option():
    overview = tinygrad("--help").stdout
    assert overview == tinygrad().stdout
    for name, command in main.commands.items():
        assert name in overview
        shown = tinygrad(name, "--help").stdout
        for option in command.params:
            assert isinstance(option, click.Option)
            assert option.help, option.name
            assert option.opts[0] in shown


def test_the_options_of_train_are_the_settings():
    options = {option.name for option in main.commands["train"].params}
    assert set(Settings.__dataclass_fields__) < options


def test_version():
    assert f"tinygrad-rnn {tinygrad_rnn.__version__}" in tinygrad("--version").stdout


def test_a_text_that_is_learnt_completely():
    Path("same.txt").write_text("a" * 3000)
    shown = tinygrad("train", "--text", "same.txt", *TINY, "--steps", 20, "--lr", 1).stdout
    assert "validation loss 0.000 nats per character (perplexity 1.0)" in shown
