"""Which files does a run leave, and how is an earlier run kept from being overwritten?

A run is a folder with a checkpoint, a log and, where matplotlib is installed, a picture of the
losses. The folder is claimed once, at the start; the checkpoint is replaced in one step, so that
there is a whole one whatever happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinygrad_rnn.char_lm import Row
from tinygrad_rnn.io.files import replacing

RUNS = Path("runs")  # where runs go that were given no name


class RunFolder:
    """The files of one run: `checkpoint`, `log` and `loss_curve` are their paths."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.safetensors"
        self.log = path / "log.csv"
        self.loss_curve = path / "loss.png"

    @classmethod
    def named(cls, path: Path, overwrite: bool) -> RunFolder:
        """The folder at `path`, made if need be. FileExistsError if it has a run already."""
        folder = cls(path)
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"--out {path} is a file, not a folder")
        if not overwrite:
            for file in (folder.checkpoint, folder.log, folder.loss_curve):
                if file.exists():
                    raise FileExistsError(
                        f"{path} holds a run ({file.name}): add --resume to continue it, "
                        "--overwrite to replace it, or choose another --out"
                    )
        path.mkdir(parents=True, exist_ok=True)
        folder.loss_curve.unlink(missing_ok=True)  # the other files are replaced at once
        return folder

    @classmethod
    def fresh(cls, name: str) -> RunFolder:
        """A new folder runs/NAME, or runs/NAME-2, runs/NAME-3, … if that exists."""
        RUNS.mkdir(exist_ok=True)
        number = 1
        while True:
            path = RUNS / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
            else:
                return cls(path)

    @classmethod
    def newest(cls) -> RunFolder:
        """The folder below runs/ with the newest checkpoint. FileNotFoundError if there is none."""
        folders = [cls(path) for path in RUNS.glob("*") if cls(path).checkpoint.exists()]
        if not folders:
            raise FileNotFoundError(
                f"there is no checkpoint below {RUNS}/; run: tinygrad-rnn train"
            )
        return max(folders, key=lambda folder: folder.checkpoint.stat().st_mtime_ns)

    def rewrite_log(self, rows: Sequence[Row]) -> None:
        """Begin the log with these rows. What a killed run logged since its checkpoint is lost."""
        with replacing(self.log, "train") as file:
            file.write((",".join(Row._fields) + "\n").encode())
            file.writelines(map(_line, rows))

    def append_to_log(self, row: Row) -> None:
        """Add one row to the log."""
        with self.log.open("ab") as file:
            file.write(_line(row))


def _line(row: Row) -> bytes:
    """Comma-separated, an empty field for None; numbers in full, so that logs can be compared."""
    return (",".join("" if value is None else repr(value) for value in row) + "\n").encode()
