"""Where does the text come from, and how does it become numbers that a network can work with?

A text is one Python string: a UTF-8 file, or the source of Python's standard library, which every
installation has. A `Vocabulary` numbers its characters. Nothing here computes; the next file to
read is `baselines.py`.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Stands for every character that a vocabulary does not have; Unicode's "replacement character".
UNKNOWN = "\N{REPLACEMENT CHARACTER}"

LARGEST_VOCABULARY = 4096
RAREST = 1 / 100_000  # of the text's characters; a rarer one could not be learnt
LARGEST_DEFAULT_TEXT = 4_000_000  # characters


class TextError(ValueError):
    """A text cannot be used; the message says which and why, in one line."""


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a UTF-8 file, without a byte order mark, its line ends as "\\n".

    Raises TextError for a file that is missing, unreadable, empty or not UTF-8.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise TextError(f"{path}: {error.strerror or error}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(
            f"{path} is not UTF-8: byte 0x{content[error.start]:02x} at position {error.start}; "
            f"convert it first, for example with: iconv -f ENCODING -t UTF-8 {path}"
        ) from error
    if not text:
        raise TextError(f"{path} is empty")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def python_text(largest: int = LARGEST_DEFAULT_TEXT) -> str:
    """Source text of the standard library of the Python that is running, at most `largest` long.

    The modules that lie directly in the library's folder, in alphabetical order: no packages, so
    no installed ones and no tests, and not the module that records how Python was built. The
    text is the same on every run of one Python version.
    Raises TextError where Python was installed without its source.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    modules, size = [], 0
    for path in sorted(folder.glob("*.py")):
        if size >= largest:
            break
        if path.name.startswith("_sysconfigdata"):
            continue
        try:
            module = read_text(path)
        except TextError:  # empty, or in the encoding that its first line declares
            continue
        modules.append(module)
        size += len(module)
    if not modules:
        raise TextError(f"there is no source text of the standard library in {folder}; use --text")
    return "".join(modules)[:largest]


class Vocabulary:
    """Numbers for characters: `symbols[number]` is the character, number 0 is `UNKNOWN`.

    symbols: all characters in the order of their numbers, beginning with UNKNOWN.

    >>> vocabulary = Vocabulary.of("hello")
    >>> vocabulary.symbols
    '\ufffdehlo'
    >>> vocabulary.encode("hole!")
    array([2, 4, 3, 1, 0])
    >>> vocabulary.decode([2, 4, 3, 1, 0])
    'hole\ufffd'
    """

    def __init__(self, symbols: str) -> None:
        codes = _codes(symbols)
        if not symbols.startswith(UNKNOWN) or len(set(symbols)) != len(symbols):
            raise ValueError("Vocabulary: symbols must be distinct and begin with UNKNOWN")
        self.symbols = symbols
        self._order = np.argsort(codes)
        self._sorted = codes[self._order]

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """The characters of a text, in the order of their code points.

        Characters rarer than 1 in 100,000, and all but the 4,095 most frequent, are left out and
        so become UNKNOWN.
        """
        codes, counts = np.unique(_codes(text), return_counts=True)
        kept = (counts >= RAREST * len(text)) & (codes != ord(UNKNOWN))
        codes, counts = codes[kept], counts[kept]
        frequent = np.argsort(-counts, kind="stable")[: LARGEST_VOCABULARY - 1]
        return cls(UNKNOWN + "".join(map(chr, codes[np.sort(frequent)])))

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, character: str) -> bool:
        return character in self.symbols and character != UNKNOWN

    def encode(self, text: str) -> NDArray[np.int64]:
        """The number of each character: (len(text),) int64."""
        codes = _codes(text)
        place = np.searchsorted(self._sorted, codes).clip(max=len(self) - 1)
        return np.where(self._sorted[place] == codes, self._order[place], 0)

    def decode(self, numbers: Any) -> str:
        """The text of a sequence of numbers."""
        return "".join(self.symbols[number] for number in numbers)


def _codes(text: str) -> NDArray[np.uint32]:
    """The code points of a text."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)
