"""How are weights exchanged with plain NumPy programs? As .npz, the archive of `numpy.savez`.

Only a flat dict of arrays fits, and nothing is pickled in either direction. For everything else use
`serialization.py`; read `files.py` before this one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_rnn.io.files import FileFormatError, Path, foreign_kind, read, replacing
from tinygrad_rnn.io.structure import pack
from tinygrad_rnn.tensor import Tensor


def save_npz(tensors: Mapping[str, Tensor | NDArray[Any]], path: Path) -> None:
    """Write named Tensors or arrays to an .npz file: `numpy.load(path)[name]` reads one.

    path: used as it is, no ".npz" is appended. The file is replaced in one step or not at all.
    Raises TypeError, before anything is written, if `tensors` holds anything else.
    """
    import zipfile  # here, so that the package imports fast

    arrays = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor | np.ndarray):
            raise TypeError(
                f"save_npz: {name!r}: expected names and Tensors or arrays, got "
                f"{type(tensor).__name__}; use save() for nested structures"
            )
        packed, _ = pack({name: tensor}, "save_npz")
        arrays[name] = next(iter(packed.values()))
    # Not numpy.savez: it takes the arrays as keywords, so that none may be called "file".
    with replacing(path, "save_npz") as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def load_npz(path: Path) -> dict[str, Tensor]:
    """The named arrays of an .npz file as Tensors on the CPU.

    Raises FileNotFoundError, and FileFormatError, with the cause, for a file that is empty,
    damaged, of another format, or holds what only unpickling could read.
    """
    import zipfile

    content = read(path, "load_npz")
    if not content.startswith(b"PK"):  # every zip archive does
        kind = foreign_kind(content) or "of an unknown format"
        raise FileFormatError(f"load_npz: {os.fspath(path)} is {kind}, not an .npz file")
    try:
        with np.load(BytesIO(content), allow_pickle=False) as archive:
            return {name: Tensor(np.asarray(archive[name])) for name in archive.files}
    except (zipfile.BadZipFile, EOFError, OSError, KeyError, TypeError, ValueError) as error:
        raise FileFormatError(
            f"load_npz: {os.fspath(path)} cannot be read as an .npz file of plain arrays: {error}"
        ) from error
