"""The package's namespace for what stands around a model: so far `utils.data`, as in PyTorch.

This file only makes `import tinygrad_rnn as torch; torch.utils.data` work. Read
`utils/data/__init__.py` next.
"""

from tinygrad_rnn.utils import data

__all__ = ["data"]
