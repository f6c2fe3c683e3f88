"""What does `tinygrad-rnn diagnose` look at? A trained character model, or a model of one's own.

All of its subcommands take the same TARGET and turn it into a model, its input and its loss here.
Read `run_folder.py` and `char_lm/model.py` before this file.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from tinygrad_rnn import backend
from tinygrad_rnn.char_lm import load_model, python_text, read_run, read_text
from tinygrad_rnn.cli.errors import InputError, device_option
from tinygrad_rnn.cli.run_folder import RunFolder
from tinygrad_rnn.nn.functional import cross_entropy
from tinygrad_rnn.tensor import Tensor

SEQUENCES = 8  # of a text; a run trains on more at once, but these say what is to be seen, sooner

STANDARD_LIBRARY = "Python's standard library"

F = TypeVar("F", bound=Callable[..., Any])


class Target(NamedTuple):
    """A model, its input or a tuple of inputs, and a loss of what it returns.

    name: what to call it.
    """

    model: Callable[..., Any]
    x: Any
    loss: Callable[[Any], Tensor]
    name: str


def target_options(command: F) -> F:
    """The arguments that `resolve` takes: TARGET, --text, --device."""
    for decorate in (
        device_option,
        click.option(
            "--text",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="UTF-8 text that a trained model is to read.  [default: what it was trained on]",
        ),
        click.argument("target", required=False),
    ):
        command = decorate(command)
    return command


def resolve(target: str | None, text: Path | None, device: backend.device) -> Target:
    """What TARGET names: nothing the newest run; else a run, a checkpoint or `file.py:function`.

    Raises InputError, and the errors of reading a text or a checkpoint.
    """
    path, colon, function = (target or "").rpartition(":")
    if colon and path.endswith(".py"):
        if text is not None:
            raise InputError("--text is for trained models; a function brings its own input")
        return _from_function(Path(path), function, device)
    if target is not None and target.endswith(".py"):
        raise InputError(f"{target}: which function? Name it: {target}:function")
    folder = RunFolder.newest() if target is None else RunFolder(Path(target))
    checkpoint = folder.checkpoint if folder.path.is_dir() else folder.path
    return _from_checkpoint(checkpoint, text, device)


def _from_checkpoint(checkpoint: Path, text: Path | None, device: backend.device) -> Target:
    """A character model that reads the start of a text, sequences as long as it was trained on."""
    settings = read_run(checkpoint)["settings"]
    model, vocabulary = load_model(checkpoint, device)
    source = settings.text if text is None else text
    needed = SEQUENCES * settings.seq + 1
    characters = python_text(needed) if source is None else read_text(source)[:needed]
    length = min(settings.seq, len(characters) - 1)
    if length < 1:
        raise InputError(f"{source} is too short: a model reads at least two characters")
    rows = (len(characters) - 1) // length
    tokens = vocabulary.encode(characters[: rows * length + 1])
    x, y = (
        Tensor(part.reshape(rows, length).T, device=device) for part in (tokens[:-1], tokens[1:])
    )
    name = f"{checkpoint}, reading {rows} x {length} characters of {source or STANDARD_LIBRARY}"
    return Target(model, x, lambda out: cross_entropy(out[0].flatten(0, 1), y.flatten()), name)


def _from_function(path: Path, name: str, device: backend.device) -> Target:
    """What a function of a Python file returns: (model, x, loss).

    The file is run as a script would be, but for its __name__. Tensors are made on the device,
    unless the function says where.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    if device != backend.get_default_device():
        backend.set_default_device(device)
    sys.path.insert(0, str(path.parent.resolve()))
    function = runpy.run_path(str(path)).get(name)
    if not callable(function):
        raise InputError(f"{path} has no function {name!r}")
    made = function()
    if (
        not isinstance(made, tuple)
        or len(made) != 3
        or not (callable(made[0]) and callable(made[2]))
    ):
        raise InputError(
            f"{path}:{name} must return (model, x, loss): what runs, its input or a tuple of "
            f"inputs, and a function of what it returns; it returned {_kinds(made)}"
        )
    return Target(*made, f"{path}:{name}")


def _kinds(made: Any) -> str:
    """The types of what a function returned, for messages."""
    if isinstance(made, tuple):
        return f"({', '.join(type(part).__name__ for part in made)})"
    return type(made).__name__
