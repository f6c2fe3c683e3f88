"""How do items become a batch? Leaves are stacked along a new first axis, containers stay.

Sequences of unequal length are not padded here: pass a `collate_fn` of your own for that. Read
`dataset.py` first; `dataloader.py` calls these two functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn import creation
from tinygrad_rnn.ops.operators import stack
from tinygrad_rnn.tensor import Tensor


def default_collate(batch: Sequence[Any]) -> Any:
    """The items of a batch as one: containers are entered, what they hold is stacked.

    Tensors and NumPy arrays (...) become one Tensor (B, ...); ints, bools and NumPy scalars a
    Tensor (B,) of their dtype, floats one of float64; strings and bytes stay a sequence; dicts,
    namedtuples and lists keep their type; a tuple becomes a list, as in PyTorch.
    Raises RuntimeError if tensors differ in shape or sequences in length, TypeError for anything
    else.

    >>> default_collate([{"length": 3}, {"length": 5}])["length"].tolist()
    [3, 5]
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return _stack(batch)
    if isinstance(first, np.ndarray) and first.dtype.kind not in "OSU":
        return creation.as_tensor(_stack([Tensor(array) for array in batch]).array)  # moved once
    if isinstance(first, str | bytes):
        return batch
    if isinstance(first, np.bool_ | np.number):
        return creation.as_tensor(np.asarray(batch))
    if isinstance(first, float):
        return creation.tensor(list(batch), dtype=np.dtype(np.float64))
    if isinstance(first, int):
        return creation.tensor(list(batch))
    if isinstance(first, Mapping):
        return _like(first, {key: default_collate([item[key] for item in batch]) for key in first})
    if isinstance(first, Sequence):
        lengths = {len(item) for item in batch}
        if len(lengths) > 1:
            raise RuntimeError(
                "default_collate: the sequences of one batch must be equally long, got "
                f"{sorted(lengths)}; pass a collate_fn that pads them"
            )
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        if isinstance(first, tuple):
            return type(first)(*columns) if hasattr(first, "_fields") else columns
        return _like(first, columns)
    kind = f"an array of {first.dtype}" if isinstance(first, np.ndarray) else type(first).__name__
    raise TypeError(
        "default_collate: a batch may hold tensors, NumPy arrays, numbers, strings, dicts, tuples "
        f"and lists; found {kind}; pass a collate_fn"
    )


def default_convert(item: Any) -> Any:
    """`item` with its NumPy arrays and scalars as Tensors: what a loader without batches yields."""
    if isinstance(item, np.ndarray) and item.dtype.kind not in "OSU":
        return creation.as_tensor(item)
    if isinstance(item, np.bool_ | np.number):
        return creation.as_tensor(np.asarray(item))
    if isinstance(item, Mapping):
        return _like(item, {key: default_convert(value) for key, value in item.items()})
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return type(item)(*(default_convert(value) for value in item))
    if isinstance(item, Sequence) and not isinstance(item, str | bytes):
        values = [default_convert(value) for value in item]
        return values if isinstance(item, tuple) else _like(item, values)
    return item


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    for position, tensor in enumerate(tensors):
        if tensor.shape != tensors[0].shape:
            raise RuntimeError(
                "default_collate: the tensors of one batch must have the same shape, got "
                f"{tensors[0].shape} at position 0 and {tensor.shape} at position {position}; "
                "pass a collate_fn that pads them, such as nn.utils.rnn.pad_sequence"
            )
    batch: Tensor = stack(tensors)
    return batch


def _like(container: Any, content: Any) -> Any:
    """`content` in the type of `container`, where that type can be built from it."""
    try:
        return type(container)(content)
    except TypeError:  # such as range, or a mapping whose constructor takes other arguments
        return content
