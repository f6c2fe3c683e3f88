"""How does a model get its batches, and how does a stopped run go on with the next one?

A `Dataset` answers "item i, please", a `Sampler` says in which order, `default_collate` joins
items into a batch, and a `DataLoader` puts the three together. `BPTTBatcher` cuts one long token
stream into windows for truncated backpropagation through time. Names, arguments and errors are
those of `torch.utils.data`; worker processes and iterable-style datasets are left out. Read
`dataset.py`, `sampler.py`, `collate.py`, `dataloader.py`, then `bptt.py`.
"""

from tinygrad_rnn.utils.data.bptt import BPTTBatcher
from tinygrad_rnn.utils.data.collate import default_collate, default_convert
from tinygrad_rnn.utils.data.dataloader import DataLoader
from tinygrad_rnn.utils.data.dataset import (
    ConcatDataset,
    Dataset,
    Subset,
    TensorDataset,
    random_split,
)
from tinygrad_rnn.utils.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
)

__all__ = [
    "BPTTBatcher",
    "BatchSampler",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "default_collate",
    "default_convert",
    "random_split",
]
