"""Which loops can one kernel run from the first step to the last, and how is their work shared out?

A loop whose step is one product with a matrix that stays the same, and one elementwise kernel, as
that of an RNN, LSTM or GRU, forward and backward. A cluster of thread blocks takes eight sequences
through all steps: each block keeps the columns of the matrix that belong to its units in registers,
and after each step the blocks hand each other the operand of the next product through shared
memory. So a step costs no launch, and its matrix is not read again (Diamos et al., "Persistent
RNNs", ICML 2016). Products are float32's, whatever `set_float32_matmul_precision` allows.

Read plan.py before this file; persistent_source.py writes the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tinygrad_rnn.program import Equation, Var
from tinygrad_rnn.scan import memory
from tinygrad_rnn.scan.cuda.phases import Store
from tinygrad_rnn.scan.cuda.rewriting import add_product
from tinygrad_rnn.scan.cuda.schedule import Gemm, Kernel, View
from tinygrad_rnn.scan.memory import Storage

if TYPE_CHECKING:
    from tinygrad_rnn.scan.cuda.plan import Plan

ROWS = 8  # sequences of a cluster
_DTYPES = ("float32", "float16")
_BLOCKS = (8, 4, 2, 1)  # of a cluster; no GPU has to have room for more than 8
_REGISTERS = 1 << 16  # of a multiprocessor
_MOST_SHARED = 96 << 10  # bytes of operands; every GPU that has clusters has more


class Loop(NamedTuple):
    """A loop that one kernel can run.

    product: out = left @ right, or out += left @ right. kernel: the rest of a step.
    kernel_first: whether the product follows the kernel within a step, as it does backward.
    handed: what the kernel stores of the next product's left operand.
    gates: where in the product's columns that are read as (B, H) begin, counted in H.
    carried: of those carries that the kernel reads, the value that it computes for the next step.
    kept: whether the product is looked at after the loop.
    """

    product: Equation
    kernel: Kernel
    kernel_first: bool
    handed: list[Store]
    gates: dict[Var, int]
    carried: dict[Var, Var]
    kept: bool

    @property
    def left(self) -> Var:
        """The operand that changes from step to step, (B, K)."""
        return self.product.inputs[-2]

    @property
    def right(self) -> Var:
        """The matrix that stays the same, (K, N)."""
        return self.product.inputs[-1]

    @property
    def out(self) -> Var:
        """The product, (B, N)."""
        return self.product.outputs[0]

    @property
    def added_to(self) -> Var | None:
        """What the product is added to."""
        return self.product.inputs[0] if self.product.primitive is add_product else None

    @property
    def parts(self) -> int:
        """How many columns of the product belong to a unit."""
        return self.out.shape[1] // self.kernel.shape[1]


def loop_of(plan: Plan) -> Loop | None:
    """The loop of a plan, if one kernel can run it."""
    found = [x for x in plan.loop if not isinstance(x, View)]
    if [type(x) for x in found] not in ([Gemm, Kernel], [Kernel, Gemm]):
        return None
    kernel_first = isinstance(found[0], Kernel)
    kernel, gemm = found if kernel_first else found[::-1]
    assert isinstance(kernel, Kernel)
    assert isinstance(gemm, Gemm)
    product = gemm.equation
    left, right = product.inputs[-2:]
    (out,) = product.outputs
    B, H = kernel.shape if len(kernel.shape) == 2 and not kernel.phases else (0, 0)
    if not (B and H) or [len(x.shape) for x in (left, right, out)] != [2, 2, 2]:
        return None
    if str(out.dtype) not in _DTYPES or out.shape[0] != B or out.shape[1] % H:
        return None
    if plan.place(right).storage.kind != memory.FIXED:
        return None
    handed = _handed(plan, kernel, left, kernel_first)
    gates = _gates(plan, kernel, out, kernel_first)
    if handed is None or gates is None or not _own_items(plan, kernel, product, gates):
        return None
    read_after = (x for equation in plan.parts.after for x in equation.variables)
    late = {plan.root(x) for x in [*plan.parts.stacks, *plan.next_carry, *read_after]}
    kept = kernel_first or plan.root(out) in late
    carried = dict(_carried(plan, kernel, gates))
    return Loop(product, kernel, kernel_first, handed, gates, carried, kept)


def _handed(plan: Plan, kernel: Kernel, left: Var, kernel_first: bool) -> list[Store] | None:
    """What the kernel stores of the next product's left operand; None if that is not all of it."""
    if not kernel_first:
        place = plan.place(left)
        if place.storage.kind != memory.BEFORE or place != place.storage.whole():
            return None
        left = plan.next_carry[place.storage.number]
    stores = [store for store in kernel.stores if store.target is left]
    width = sum(store.value.shape[-1] for store in stores)
    return stores if width == left.shape[1] else None


def _gates(plan: Plan, kernel: Kernel, out: Var, kernel_first: bool) -> dict[Var, int] | None:
    """What the kernel reads of the product: of this step's, or of the last one's."""
    whole, H = plan.place(out), kernel.shape[1]
    found = {}
    for x in kernel.loads:
        place = plan.place(x)
        if kernel_first:
            number = place.storage.number
            if place.storage.kind != memory.BEFORE or plan.next_carry[number] is not out:
                continue
        elif place.storage is not whole.storage:
            continue
        start = place.start - (0 if kernel_first else whole.start)
        if place.views or x.shape != kernel.shape or start % H or not 0 <= start < out.shape[1]:
            return None
        found[x] = start // H
    return found


def _own_items(plan: Plan, kernel: Kernel, product: Equation, gates: dict[Var, int]) -> bool:
    """Whether each thread reads, of what the loop writes, only what it has written itself."""
    written = {plan.place(store.target).storage for store in kernel.stores}
    if product.primitive is add_product:
        base = product.inputs[0]
        computed = {x for equation in kernel.equations for x in equation.outputs}
        if base not in computed and plan.place(base).storage in written:
            return False
    written.add(plan.place(product.outputs[0]).storage)
    for x in kernel.loads:
        place = plan.place(x)
        if x in gates:
            continue
        if place.storage.kind == memory.BEFORE:
            if place != place.storage.whole() or x.shape != kernel.shape:
                return False
        elif place.storage in written:
            return False
    return True


def _carried(plan: Plan, kernel: Kernel, gates: dict[Var, int]) -> Iterator[tuple[Var, Var]]:
    """The carries that the kernel reads, and the values that it computes for the next step."""
    for x in kernel.loads:
        storage: Storage = plan.place(x).storage
        if storage.kind == memory.BEFORE and x not in gates:
            target = plan.next_carry[storage.number]
            values = [store.value for store in kernel.stores if store.target is target]
            if len(values) == 1:
                yield x, values[0]


class Tile(NamedTuple):
    """How a cluster shares out a step.

    blocks: of a cluster. units: of a block, of all H; each has `parts` columns of the product.
    lanes: the threads of a warp that go through the K rows of the matrix together, for the same
        columns. depth: rows of each. columns: of a thread.
    """

    blocks: int
    units: int
    lanes: int
    depth: int
    columns: int

    @property
    def threads(self) -> int:
        """Of a block: one for each unit of each sequence."""
        return self.units * ROWS

    @property
    def height(self) -> int:
        """The rows of the matrix, K, and some of zeros."""
        return self.lanes * self.depth

    @property
    def shared(self) -> int:
        """Bytes of shared memory: the left operands of this product and the next."""
        return 2 * self.height * ROWS * 4


def tile_of(loop: Loop, clusters: bool, processors: int) -> Tile | None:
    """How to share out a loop on a GPU with so many multiprocessors; None if it does not fit.

    All clusters run at the same time: in two rounds, one after the other, they were slower than a
    graph. clusters: whether the GPU has them (from compute capability 9.0 on).
    """
    (B, H), K = loop.kernel.shape, loop.left.shape[1]
    groups = -(-B // ROWS)
    found = [_tile(loop, blocks, H, K) for blocks in (_BLOCKS if clusters else (1,))]
    found = [x for x in found if groups * x.blocks <= processors and _fits(loop, x)]
    # The most blocks; rather fewer than with a last one that has no unit.
    return min(found, key=lambda x: (x.blocks - 1) * x.units >= H, default=None)


def _tile(loop: Loop, blocks: int, H: int, K: int) -> Tile:
    """Many lanes where a unit has few columns, so that a thread has several for what it reads."""
    lanes = {1: 32, 2: 16}.get(loop.parts, 8)
    units = 4 * -(-H // (4 * blocks))  # a warp has four
    return Tile(blocks, units, lanes, -(-K // lanes), loop.parts * lanes // 8)


def _fits(loop: Loop, tile: Tile) -> bool:
    """Whether weights, sums and the values of a step have room in registers."""
    weights, sums = tile.columns * tile.depth, tile.columns * ROWS
    values = 3 * len(loop.kernel.loads) + 2 * len(loop.kernel.stores) + 2 * loop.parts
    most = min(255, _REGISTERS // tile.threads // 8 * 8)
    return weights + sums + values + 36 <= most and tile.shared <= _MOST_SHARED
