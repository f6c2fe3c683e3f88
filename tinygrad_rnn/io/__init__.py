"""How are weights and whole runs written to disk and read back, never running code from a file?

`save` and `load` keep tensors and plain Python structures in safetensors files, `save_npz` and
`load_npz` in NumPy's own format, `save_checkpoint` and `load_checkpoint` everything a run needs
to continue. Nothing is pickled or unpickled, a file is replaced in one step or not at all, and a
file that cannot be read is refused with its name and the cause. Read `files.py`, `structure.py`,
`serialization.py`, then `npz.py` and `checkpoint.py`.
"""

from tinygrad_rnn.io.checkpoint import load_checkpoint, save_checkpoint
from tinygrad_rnn.io.files import FileFormatError
from tinygrad_rnn.io.npz import load_npz, save_npz
from tinygrad_rnn.io.serialization import load, save

__all__ = [
    "FileFormatError",
    "load",
    "load_checkpoint",
    "load_npz",
    "save",
    "save_checkpoint",
    "save_npz",
]
