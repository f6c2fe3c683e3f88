"""How does one recurrence run over sequences of different lengths, side by side?

All rows take all steps, but a row's state changes only while its sequence lasts: forwards it stays
what it was after the row's last real step, and in the reverse direction what it was before it. So
the mask is all there is to it, and any cell of scan/unroll.py can be given one. What packs and pads
is in nn/utils/rnn.py; layers.py puts the two together.
"""

from __future__ import annotations

from tinygrad_rnn.ops.operators import where
from tinygrad_rnn.scan import Cell, trees
from tinygrad_rnn.scan.trees import Tree


def within_lengths(cell: Cell) -> Cell:
    """h' where the step is real, else h: a cell whose input is a pair (x, real).

    real: truth values that broadcast against every tensor of the state: (B, 1) for (B, H). From a
    step that is not real no gradient comes, if its padding is finite (0 · ∞ is NaN). Its output is
    whatever the cell makes of the padding, and of no use.

    >>> import tinygrad_rnn as torch
    >>> from tinygrad_rnn.scan import scan
    >>> def running_sum(x, total):
    ...     return x + total, x + total
    >>> xs = torch.tensor([[1.0, 4.0], [2.0, 5.0], [3.0, 0.0]])  # two rows, of 3 and of 2 steps
    >>> real = torch.tensor([[True, True], [True, True], [True, False]])
    >>> scan(within_lengths(running_sum), (xs, real), torch.zeros(2))[1].tolist()
    [6.0, 9.0]
    """

    def step(inputs: Tree, h: Tree) -> tuple[Tree, Tree]:
        x, real = inputs
        y, new = cell(x, h)
        pairs = zip(trees.leaves(new), trees.leaves(h), strict=True)
        return y, trees.rebuild(h, (where(real, after, before) for after, before in pairs))

    return step
