"""How does a recurrence run fast, whatever its cell?

`scan` computes what `unroll` computes. It runs the cell once, on values without numbers, to write
down what one step is; what that step does T times, and how it is differentiated, follows from that
Program alone. Read unroll.py (what a recurrence is) and `program.py` before this file, and
recurrence.py after it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

from tinygrad_rnn.backend import namespace
from tinygrad_rnn.modes import current
from tinygrad_rnn.ops import Tracer, concatenate, split
from tinygrad_rnn.ops.primitive import describe
from tinygrad_rnn.program import Program, Trace, Var
from tinygrad_rnn.scan import trees
from tinygrad_rnn.scan.drawing import Drawing
from tinygrad_rnn.scan.recurrence import Recurrence, recurrence_of
from tinygrad_rnn.scan.trees import Tree
from tinygrad_rnn.scan.unroll import Cell, checked_step
from tinygrad_rnn.tensor import Tensor


def scan(
    cell: Cell,
    xs: Tree,
    h0: Tree,
    *,
    reverse: bool = False,
    checkpoint: int | str | None = None,
) -> tuple[Tree, Tree]:
    """(y_t, h_t) = cell(x_t, h_{t-1}) for t = 1 … T; the outputs y stacked, and the last state.

    The same as `unroll(cell, xs, h0)`, with the same gradients to any order; faster, because only
    what lies on the path from state to state is computed step by step.

    Args:
        cell: one step, written with tensors. It is called once, whatever T is, on values that have
            a shape and a dtype and no numbers. Modules, functions and closures are all cells.
        xs: (T, …): a Tensor, or a tuple of Tensors. T may be 0.
        h0: the state before the first step: a Tensor, or a (named, nested) tuple of Tensors, whose
            form, shapes and dtypes every step must keep.
        reverse: go from t = T to 1. The output of step t still stands at index t of `ys`.
        checkpoint: keep only the states between segments of so many steps, and compute the rest
            again in backward; "sqrt" takes √T. Less memory for one more forward pass.

    Returns:
        (ys, h): `ys` (T, …) of the form of one `y`; `h` of the form of `h0`.

    Raises:
        TypeError: the cell did not return a pair (y, h), or something is neither Tensor nor tuple.
        ValueError: tensors of `xs` that differ in T, a state whose form, shapes or dtypes changed,
            or a `checkpoint` that is no number of steps.
        RuntimeError: the cell asked for a value (an `if` on one, `.item()`), or let one out. The
            message names the line; `unroll` runs such cells.

    >>> import tinygrad_rnn as torch
    >>> decay = torch.tensor(0.5, requires_grad=True)
    >>> def cell(x, h):
    ...     h = decay * h + x
    ...     return h, h
    >>> ys, h = scan(cell, torch.ones(4), torch.tensor(0.0))
    >>> ys.tolist()
    [1.0, 1.5, 1.75, 1.875]
    >>> h.backward()
    >>> decay.grad.item()  # 1 + 2 · decay + 3 · decay²
    2.75
    """
    if current.observer is not None and current.trace is None:
        return current.observer(cell, xs, h0, reverse)  # type: ignore[no-any-return]
    states = trees.leaves(h0, "scan: h0")
    sequences = trees.leaves(xs, "scan: xs")
    length = trees.length(sequences, "scan: xs")
    segment = _segment(checkpoint, length)
    step = trace_step(cell, xs, h0)
    recur = recurrence_of(step.signature, step.program)
    wanted = (
        *(x.requires_grad for x in (*states, *sequences)),
        *(False for _ in step.random_values()),
        *(x.requires_grad for x in step.constants),
    )
    if segment is not None and length:
        outputs = _in_segments(recur, step, states, sequences, segment, reverse)
    else:
        drawn = step.drawing(length, reverse).kept()
        inputs = (*states, *sequences, *drawn, *step.constants)
        run = recur.keeping(wanted) if current.recording else recur
        outputs = run(*inputs, length=length, reverse=reverse)
    for place in recur.without_gradient(wanted):
        outputs[place] = outputs[place].detach()
    count = len(states)
    ys = _apart(outputs[count : count + len(step.stacked)])
    return trees.rebuild(step.output, ys), trees.rebuild(h0, outputs[:count])


def _apart(ys: Sequence[Any]) -> list[Any]:
    """The outputs, with copies of those that lie in another's memory, so each can be written to."""
    found: list[Any] = []
    for y in ys:
        shared = type(y) is Tensor and any(
            namespace(y.array).may_share_memory(y.array, earlier.array) for earlier in found
        )
        found.append(y.clone() if shared else y)
    return found


class Step:
    """A cell, written down.

    constants: the Tensors from outside that it uses. output: a tree of the form of y.
    signature: equal for steps that compute the same, whatever the tensors; None if unknown.
    """

    def __init__(
        self,
        trace: Trace,
        carry: Sequence[Var],
        sequences: Sequence[Var],
        next_carry: Sequence[Var],
        stacked: Sequence[Var],
        output: Tree,
    ) -> None:
        self.draws, self.output = trace.draws, output
        self.carry, self.sequences = carry, sequences
        self.next_carry, self.stacked = next_carry, stacked
        kinds = len(carry), len(sequences), len(stacked)
        written = trace.signature((*next_carry, *stacked))
        self.signature: Hashable = None if written is None else (kinds, written)
        self._equations, found = trace.close()
        self.constants: list[Any] = [x if isinstance(x, Tracer) else Tensor(x) for x, _ in found]
        self._constants = [x for _, x in found]

    def random_values(self) -> list[Var]:
        """What the step draws; in the program, the last of the sequences."""
        return [x for _, drawn in self.draws for x in drawn]

    def drawing(self, length: int, reverse: bool) -> Drawing:
        """The random numbers of some steps."""
        draws = [draw for draw, _ in self.draws]
        return Drawing(draws, length, reverse, self.sequences[0].device)

    def program(self) -> Program:
        """What the step computes."""
        return Program(
            self._equations,
            self.carry,
            [*self.sequences, *self.random_values()],
            self._constants,
            self.next_carry,
            self.stacked,
        )


def trace_step(cell: Cell, xs: Tree, h0: Tree) -> Step:
    """Run the cell once, on Vars, and give what it computes."""
    trace = Trace()
    carry = [trace.input(x, name) for x, name in trees.named(h0, "h")]
    sequences = [trace.input(x, name, x.shape[1:]) for x, name in trees.named(xs, "x")]
    state = trees.rebuild(h0, carry)
    with trace:
        returned = cell(trees.rebuild(xs, sequences), state)
    y, h = checked_step("scan", returned, state)
    stacked, after = (
        [_own(trace, x) for x in trees.leaves(tree, f"scan: {name}")]
        for tree, name in ((y, "y"), (h, "h"))
    )
    for before, x in zip(carry, after, strict=True):
        if before.dtype != x.dtype:
            raise ValueError(
                f"scan: the cell turned a state of {describe(before)} into one of {describe(x)}; a "
                "step must keep the dtype of its state. Convert the initial state, h0.to(dtype), "
                f"or what is mixed with it{_where(cell)}"
            )
    return Step(trace, carry, sequences, after, stacked, y)


def _own(trace: Trace, x: Any) -> Var:
    """An output as a Var of this trace; a tensor from outside is a constant."""
    return x if type(x) is Var and x.owner is trace else trace.constant(x)


def _where(cell: Cell) -> str:
    """Where a cell is defined, for messages."""
    code = getattr(cell, "__code__", None)
    return f". The cell is at {code.co_filename}:{code.co_firstlineno}" if code else ""


def _segment(checkpoint: int | str | None, length: int) -> int | None:
    """The number of steps in a segment; None for no checkpoints."""
    if checkpoint is None:
        return None
    if checkpoint == "sqrt":
        return max(math.isqrt(length), 1)
    if not isinstance(checkpoint, int) or isinstance(checkpoint, bool) or checkpoint < 1:
        raise ValueError(
            f"scan: checkpoint is a number of steps from 1 on, 'sqrt' or None, not {checkpoint!r}"
        )
    return checkpoint


def _in_segments(
    recur: Recurrence,
    step: Step,
    states: Sequence[Any],
    sequences: Sequence[Any],
    segment: int,
    reverse: bool,
) -> list[Any]:
    """The outputs of the recurrence, run segment by segment, none of which keeps what it computed.

    The rule of each finds nothing to read, and runs its segment again (recurrence.py).
    """
    length = sequences[0].shape[0]
    sizes = (segment,) * (length // segment) + ((length % segment,) if length % segment else ())
    parts = [split(x, sizes=sizes, axis=-x.ndim) for x in sequences]
    carry, stacks = list(states), []
    runs = list(zip(sizes, *parts, strict=True))
    for size, *inputs in reversed(runs) if reverse else runs:
        drawing = step.drawing(size, reverse)
        if current.trace is None:
            options = {"drawing": drawing}
        else:  # the scan around this one draws
            options, inputs = {}, [*inputs, *drawing.kept()]
        outputs = recur(*carry, *inputs, *step.constants, length=size, reverse=reverse, **options)
        carry = outputs[: len(carry)]
        stacks.append(outputs[len(carry) :])
    joined = zip(*(reversed(stacks) if reverse else stacks), strict=True)
    return [*carry, *(concatenate(*several, axis=-several[0].ndim) for several in joined)]
