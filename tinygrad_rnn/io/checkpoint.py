"""How does a stopped run continue as if it had not stopped? All it depends on is in one file.

A checkpoint holds the model, the optimizer, the scheduler, the loader's position, the state of
every random generator, and whatever else the caller adds (a carried state, a step number).
Loading checks first that all of it fits, and changes everything or nothing. How the file is
written: `serialization.py`.
"""

from __future__ import annotations

import os
import random as python_random
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from tinygrad_rnn import backend, random
from tinygrad_rnn.io.files import FileFormatError, Path
from tinygrad_rnn.io.serialization import load, save
from tinygrad_rnn.io.structure import pack, unpack
from tinygrad_rnn.tensor import Tensor

CHECKPOINT_VERSION = 1


class Stateful(Protocol):
    """What has a state to save: models, optimizers, schedulers, loaders."""

    def state_dict(self) -> Mapping[str, Any]:
        """The state, as data."""

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take over a state that `state_dict()` gave."""


def save_checkpoint(
    path: Path,
    *,
    model: Stateful,
    optimizer: Stateful | None = None,
    scheduler: Stateful | None = None,
    loader: Stateful | None = None,
    extra: Any = None,
) -> None:
    """Write the whole run to `path`, which is replaced in one step or not at all.

    loader: a `DataLoader`, a `BPTTBatcher`, or anything else with a position to save.
    extra: anything that `save` takes; `load_checkpoint` returns it.

    The states of three random generators are added: the package's default one, Python's `random`
    and NumPy's global one, which a dataset may draw from. The state of a generator that you made
    yourself belongs into `extra`; the loader's own is saved with the loader.
    Raises as `save` does.
    """
    parts = _given(model=model, optimizer=optimizer, scheduler=scheduler, loader=loader)
    checkpoint = {
        "checkpoint": CHECKPOINT_VERSION,
        "classes": {name: type(part).__name__ for name, part in parts.items()},
        **{name: part.state_dict() for name, part in parts.items()},
        "rng": _generator_states(),
        "extra": extra,
    }
    save(checkpoint, path)


def load_checkpoint(
    path: Path,
    *,
    model: Stateful,
    optimizer: Stateful | None = None,
    scheduler: Stateful | None = None,
    loader: Stateful | None = None,
    rng: bool = True,
) -> Any:
    """Bring the given objects, and the random generators, to where they were; return `extra`.

    rng: restore the random generators too.
    Tensors in `extra` come back on the device of the model, wherever the run was saved.
    Parts of the checkpoint for which no object is given are left alone: for sampling, load the
    model only.

    Raises FileNotFoundError or FileFormatError as `load` does, FileFormatError also for a file
    that is no checkpoint, and RuntimeError if the checkpoint does not fit: another architecture,
    another kind of optimizer, a part that was not saved. Whatever is raised, nothing has been
    changed.
    """
    checkpoint = load(path, _device(model))
    where = f"load_checkpoint: {os.fspath(path)}"
    if not isinstance(checkpoint, dict) or not checkpoint.keys() >= {"checkpoint", "classes"}:
        raise FileFormatError(
            f"{where} is not a checkpoint; read weights with model.load_state_dict(load(path))"
        )
    if checkpoint["checkpoint"] != CHECKPOINT_VERSION:
        raise FileFormatError(
            f"{where} is a checkpoint of version {checkpoint['checkpoint']!r}; "
            f"this version of tinygrad_rnn reads version {CHECKPOINT_VERSION}"
        )
    parts = _given(model=model, optimizer=optimizer, scheduler=scheduler, loader=loader)
    for name, part in parts.items():
        _check_class(name, part, checkpoint["classes"], where)
    _check_model(model.state_dict(), checkpoint["model"], where)

    earlier_rng = _generator_states()
    earlier: dict[str, Any] = {}
    try:
        for name, part in parts.items():
            earlier[name] = _copied(part.state_dict())
            part.load_state_dict(checkpoint[name])
        if rng:
            _set_generator_states(checkpoint["rng"])
    except BaseException:
        for name, state in earlier.items():
            parts[name].load_state_dict(state)
        _set_generator_states(earlier_rng)
        raise
    return checkpoint["extra"]


def _given(**parts: Stateful | None) -> dict[str, Stateful]:
    return {name: part for name, part in parts.items() if part is not None}


def _device(model: Stateful) -> backend.device:
    """Where the model is: its first tensor."""
    values = model.state_dict().values()
    return next((x.device for x in values if isinstance(x, Tensor)), backend.CPU)


def _check_class(name: str, part: Stateful, classes: Mapping[str, str], where: str) -> None:
    if name not in classes:
        raise RuntimeError(f"{where} holds no {name}; it holds: {', '.join(classes)}")
    if name != "model" and type(part).__name__ != classes[name]:
        raise RuntimeError(
            f"{where} holds the state of a {classes[name]} as its {name}, "
            f"but the {name} given is a {type(part).__name__}"
        )


def _check_model(here: Mapping[str, Any], saved: Mapping[str, Any], where: str) -> None:
    """Names, shapes and dtypes must agree: in another precision it would be another run."""
    defects = [f"{name} is not in the checkpoint" for name in here.keys() - saved.keys()]
    defects += [f"{name} is not in the model" for name in saved.keys() - here.keys()]
    for name in here.keys() & saved.keys():
        mine, theirs = _form(here[name]), _form(saved[name])
        if mine != theirs:
            defects.append(f"{name} is {theirs} in the checkpoint and {mine} in the model")
    if defects:
        raise RuntimeError(f"{where} does not fit the model: " + "; ".join(sorted(defects)))


def _copied(state: Any) -> Any:
    """The state in memory of its own, so that loading another one does not change it."""
    arrays, description = pack(state, "load_checkpoint")
    return unpack(description, {name: array.copy() for name, array in arrays.items()})


def _form(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return type(value).__name__ if shape is None else f"{tuple(shape)} {dtype}"


def _generator_states() -> dict[str, Any]:
    return {
        "default": random.generator().get_state(),
        "python": python_random.getstate(),
        # The legacy global generator: unused in this package, but a dataset may draw from it.
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
    }


def _set_generator_states(states: Mapping[str, Any]) -> None:
    random.generator().set_state(states["default"])
    python_random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
