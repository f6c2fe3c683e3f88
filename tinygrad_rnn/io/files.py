"""How is a file replaced so that no reader ever meets half of it, and how is a wrong one named?

Everything here is about bytes and paths; what the bytes mean is in `serialization.py` and
`npz.py`, which you may read after this file.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, TypeAlias

Path: TypeAlias = str | os.PathLike[str]


class FileFormatError(ValueError):
    """A file is not what it should be; the message names the operation, the path and the cause."""


@contextmanager
def replacing(path: Path, operation: str) -> Iterator[BinaryIO]:
    """A new file to write to that becomes `path` when the block ends, and vanishes if it raises.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and are then
    renamed over `path`, which is atomic: a process killed at any instant leaves the old file or
    the new one. One that is killed while writing also leaves the temporary file, `.NAME.….part`,
    which may be deleted.

    operation: the caller's name, for messages.
    Raises FileNotFoundError or IsADirectoryError before anything is written.
    """
    target = os.path.realpath(path)  # a symbolic link is written through, not replaced
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"{operation}: {os.fspath(path)}: the folder {folder} does not exist"
        )
    if os.path.isdir(target):
        raise IsADirectoryError(f"{operation}: {os.fspath(path)} is a folder, not a file")
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _flush_folder(folder)


def _flush_folder(folder: str) -> None:
    """Make the renaming itself survive a power cut, where the system lets a folder be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read(path: Path, operation: str) -> bytes:
    """All bytes of the file.

    Raises FileNotFoundError if there is none, FileFormatError if it is empty or a folder.
    """
    if os.path.isdir(path):
        raise FileFormatError(f"{operation}: {os.fspath(path)} is a folder, not a file")
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"{operation}: {os.fspath(path)}: there is no such file") from None
    if not content:
        raise FileFormatError(f"{operation}: {os.fspath(path)} is empty")
    return content


def foreign_kind(content: bytes) -> str | None:
    """What a file of another format is, told in words from its first bytes; None if unknown.

    >>> foreign_kind(b"PK\\x03\\x04...")
    'a zip archive, such as an .npz file or a file of torch.save'
    """
    if content.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "a zip archive, such as an .npz file or a file of torch.save"
    if content[:1] == b"\x80" and content[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "a pickle, which is never loaded because unpickling runs code from the file"
    if content.startswith(b"\x93NUMPY"):
        return "a single .npy array"
    if content.startswith(b"\x89HDF\r\n\x1a\n"):
        return "an HDF5 file"
    sample = content[:512]
    try:
        sample.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(sample) == len(content) or error.end < len(sample):
            return None  # and not merely a character cut in two at the end of the sample
    return None if b"\0" in sample else "a text file"
