"""How does a value become a safetensors file, and a file a value?

The arrays of the value are the file's tensors, so any library that reads safetensors reads them;
what is not an array is described in the file's metadata. A file without such a description,
written by another library, is a dict of tensors. Read `files.py` and `structure.py` first.
"""

from __future__ import annotations

import json
import os
import struct
from collections import OrderedDict
from typing import Any

import numpy as np

from tinygrad_rnn import backend
from tinygrad_rnn.io.files import FileFormatError, Path, foreign_kind, read, replacing
from tinygrad_rnn.io.structure import STORABLE_DTYPES, Arrays, Description, pack, unpack
from tinygrad_rnn.tensor import Tensor

METADATA_KEY = "tinygrad_rnn"
FORMAT_VERSION = 1
LARGEST_HEADER = 100_000_000  # bytes; the safetensors library reads no larger one


def save(obj: Any, path: Path) -> None:
    """Write `obj` to a safetensors file, replacing the one at `path` in one step or not at all.

    obj: Tensors, NumPy arrays and scalars, None, bools, ints, floats and strings, in dicts
        (keys: strings or ints), OrderedDicts, lists and tuples. Such a structure comes back from
        `load` exactly, bit for bit, except that a Tensor comes back detached and a Parameter as
        a Tensor. A flat dict of named Tensors or arrays, such as `model.state_dict()`, is stored
        under its own names, for any library to read, and comes back as Tensors.
    path: a file name; open files are not taken.

    Raises TypeError, before anything is written, for a value that cannot be saved, and says
    where in `obj` it is; OSError if the file cannot be written.

    >>> import os, tempfile, tinygrad_rnn as torch
    >>> path = os.path.join(tempfile.mkdtemp(), "run.safetensors")
    >>> save({"weight": torch.ones(2), "history": [(0, 0.5), (1, float("inf"))]}, path)
    >>> load(path)["history"]
    [(0, 0.5), (1, inf)]
    """
    from safetensors.numpy import save as to_bytes  # here, so that the package imports fast

    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"save: expected a file name, got {type(path).__name__}; use save(obj, path)"
        )
    arrays, description = pack(obj, "save")
    if _is_flat(obj):  # its arrays come back as Tensors too
        for entry in description[type(obj).__name__]:
            (name_in_file,) = entry[1].values()
            entry[1] = {"tensor": name_in_file}
    text = json.dumps({"format": FORMAT_VERSION, "value": description}, allow_nan=False)
    content = to_bytes(arrays, metadata={METADATA_KEY: text})
    if _header_size(content) > LARGEST_HEADER:
        raise ValueError(
            f"save: {os.fspath(path)}: what is not an array takes {len(text)} bytes, more than a "
            "safetensors header may have; keep long lists of numbers as arrays"
        )
    with replacing(path, "save") as file:
        file.write(content)


def load(
    path: Path, map_location: str | backend.device | None = None, *, weights_only: bool = True
) -> Any:
    """The value that `save` wrote, or the dict of Tensors in another library's safetensors file.

    map_location: the device on which Tensors are put; the CPU if None, whatever device they came
        from.
    weights_only: accepted as in PyTorch; either way nothing is unpickled and no code of the file
        is run.

    Raises FileNotFoundError; FileFormatError, with the cause, for a file that is empty,
    truncated, damaged or of another format; RuntimeError for a device that this machine lacks.
    """
    device = "cpu" if map_location is None else map_location
    if not isinstance(device, str | backend.device):
        raise TypeError(f"load: map_location must be a device, got {type(device).__name__}")
    try:
        backend.library(device)
    except RuntimeError as error:
        raise RuntimeError(
            f"load: {os.fspath(path)} cannot be put on device {str(device)!r}: {error}"
        ) from error
    arrays, description = _parse(read(path, "load"), path)
    if description is None:
        return {name: Tensor(array, device=device) for name, array in arrays.items()}
    try:
        if description["format"] > FORMAT_VERSION:
            raise FileFormatError(
                f"load: {os.fspath(path)} has format {description['format']}, newer than format "
                f"{FORMAT_VERSION}, which this version of tinygrad_rnn reads; install a newer one"
            )
        return unpack(description["value"], arrays, device)
    except FileFormatError:
        raise
    except (LookupError, TypeError, ValueError, struct.error, RecursionError) as error:
        raise FileFormatError(
            f"load: {os.fspath(path)}: the description of its structure is damaged "
            f"({type(error).__name__}: {error})"
        ) from error


def _is_flat(obj: Any) -> bool:
    return type(obj) in (dict, OrderedDict) and all(
        type(name) is str and isinstance(value, Tensor | np.ndarray) for name, value in obj.items()
    )


def _parse(content: bytes, path: Path) -> tuple[Arrays, Description | None]:
    """The file's arrays, and the description in its metadata if it has one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as arrays_of

    try:
        arrays = arrays_of(content)
        header = json.loads(content[8 : 8 + _header_size(content)])
        text = header.get("__metadata__", {}).get(METADATA_KEY)
        description = None if text is None else json.loads(text)
    except KeyError as error:  # a dtype for which the library knows no NumPy type
        raise _foreign_dtype(path, error.args[0]) from error
    except (SafetensorError, ValueError, RecursionError) as error:
        raise FileFormatError(f"load: {os.fspath(path)} {_defect(content, error)}") from error
    for array in arrays.values():
        if array.dtype not in STORABLE_DTYPES:
            raise _foreign_dtype(path, array.dtype)
    return arrays, description


def _foreign_dtype(path: Path, dtype: Any) -> FileFormatError:
    return FileFormatError(
        f"load: {os.fspath(path)} holds an array of dtype {dtype}, which no Tensor has; "
        "convert the file to F32 first"
    )


def _header_size(content: bytes) -> int:
    """A safetensors file is: eight bytes with the header's size, the header (JSON), the arrays."""
    return int.from_bytes(content[:8], "little")


def _defect(content: bytes, error: Exception) -> str:
    """What is wrong with a file that safetensors refuses, in words that follow its name."""
    header_end = 8 + _header_size(content)
    if content[8:9] != b"{":
        kind = foreign_kind(content)
        if kind is not None:
            return f"is {kind}, not a safetensors file"
        if len(content) > 8:
            return f"is not a safetensors file ({error})"
    if len(content) < header_end:
        return (
            f"is truncated: it has {len(content)} bytes, its header alone ends at byte {header_end}"
        )
    try:
        entries = json.loads(content[8:header_end])
        size = header_end + max(
            entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"
        )
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return f"is damaged: its header cannot be read ({error})"
    if len(content) < size:
        return f"is truncated: it has {len(content)} of {size} bytes"
    return f"is damaged: {error}"
