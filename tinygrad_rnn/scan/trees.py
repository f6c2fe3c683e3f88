"""How is a group of tensors handled as one value?

The inputs, outputs and states of a recurrence are *trees*: a Tensor, or a tuple of trees, named
tuples keeping their names. The functions here take trees apart, put them together, and do to each
tensor of a tree what `Tensor.unbind` and `stack` do to one. They know nothing of recurrences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from tinygrad_rnn.ops import Tracer
from tinygrad_rnn.ops import stack as stack_tensors

#: A Tensor, or a tuple of Trees.
Tree: TypeAlias = Any


def leaves(tree: Tree, name: str = "tree") -> list[Any]:
    """The tensors of a tree, in order.

    Raises TypeError for anything else than tensors and tuples; `name` is what the message calls it.

    >>> import tinygrad_rnn as torch
    >>> h, c, y = torch.ones(2), torch.zeros(2), torch.ones(3)
    >>> [leaf.shape for leaf in leaves(((h, c), y))]
    [(2,), (2,), (3,)]
    """
    if isinstance(tree, Tracer):
        return [tree]
    if not isinstance(tree, tuple):
        raise TypeError(
            f"{name}: expected a Tensor or a tuple of Tensors, got {type(tree).__name__}"
        )
    return [leaf for branch in tree for leaf in leaves(branch, name)]


def rebuild(like: Tree, tensors: Iterable[Any]) -> Tree:
    """A tree of the same form as `like`, with other tensors in it."""
    return _rebuild(like, iter(tensors))


def _rebuild(like: Tree, tensors: Iterator[Any]) -> Tree:
    if not isinstance(like, tuple):
        return next(tensors)
    branches = [_rebuild(branch, tensors) for branch in like]
    return type(like)(*branches) if hasattr(like, "_fields") else tuple(branches)


def named(tree: Tree, name: str) -> list[tuple[Any, str]]:
    """The tensors of a tree, each with a name: a named tuple's fields, or numbered ones.

    >>> import tinygrad_rnn as torch
    >>> [name for _, name in named((torch.ones(2), (torch.ones(2), torch.ones(2))), "h")]
    ['h0', 'h1_0', 'h1_1']
    """
    if not isinstance(tree, tuple):
        return [(tree, name)]
    names = getattr(tree, "_fields", None)
    if names is None:
        joint = name + ("_" if name[-1].isdigit() else "")
        names = [f"{joint}{k}" for k in range(len(tree))]
    return [leaf for branch, own in zip(tree, names, strict=True) for leaf in named(branch, own)]


def length(tensors: Sequence[Any], name: str) -> int:
    """The size of the first axis, which all tensors must share."""
    shapes = [tensor.shape for tensor in tensors]
    if len({shape[:1] for shape in shapes}) != 1 or () in shapes:
        raise ValueError(f"{name}: the tensors need a first axis of one size, got {shapes}")
    return int(shapes[0][0])


def unstack(tree: Tree, name: str = "tree") -> list[Tree]:
    """The tree at each index of the first axis.

    Raises ValueError if that axis is missing or has not one size in all tensors.

    >>> import tinygrad_rnn as torch
    >>> x, mask = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5.0, 6.0])
    >>> [(x.tolist(), m.item()) for x, m in unstack((x, mask))]
    [([1.0, 2.0], 5.0), ([3.0, 4.0], 6.0)]
    """
    tensors = leaves(tree, name)
    length(tensors, name)
    parts = [tensor.unbind(0) for tensor in tensors]
    return [rebuild(tree, at_index) for at_index in zip(*parts, strict=True)]


def stack(trees: Sequence[Tree], name: str = "tree") -> Tree:
    """Trees of one form, side by side along a new first axis; the inverse of `unstack`."""
    columns = zip(*(leaves(tree, name) for tree in trees), strict=True)
    return rebuild(
        trees[0], (stack_tensors(*tensors, axis=-1 - tensors[0].ndim) for tensors in columns)
    )
