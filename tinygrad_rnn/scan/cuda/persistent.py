"""Which loops can one kernel run from the first step to the last, and how is their work shared out?

A loop whose step is products with matrices that stay the same, and elementwise kernels between
them, as that of an RNN, LSTM or GRU, forward and backward. A cluster of thread blocks takes eight
sequences through all steps: each block keeps the columns of the matrices that belong to its units
in registers, and what does not fit there in shared memory; the blocks hand each other the operands
of products. So a step costs no launch, and its matrices are not read again (Diamos et al.,
"Persistent RNNs", ICML 2016). Products are float32's, whatever `set_float32_matmul_precision`
allows.

A unit of a sequence belongs to one thread, at all steps: what one kernel computes for it and
another reads, in this step or the next, stays in that thread's registers. Where something else than
a product's operand would have to come from another thread, one kernel cannot run the loop.

Read plan.py before this file; persistent_source.py writes the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from tinygrad_rnn.program import Equation, Var
from tinygrad_rnn.scan import memory
from tinygrad_rnn.scan.cuda.clusters import Room
from tinygrad_rnn.scan.cuda.phases import Store
from tinygrad_rnn.scan.cuda.rewriting import add_product
from tinygrad_rnn.scan.cuda.schedule import Call, Gemm, Kernel, View
from tinygrad_rnn.scan.memory import Place

if TYPE_CHECKING:
    from tinygrad_rnn.scan.cuda.plan import Plan

ROWS = 8  # sequences of a cluster
_DTYPES = ("float32", "float16")
_BLOCKS = (8, 4, 2, 1, 16)  # of a cluster, best first; of 16 only a few run at the same time
_REGISTERS = 1 << 16  # of a multiprocessor


class Column(NamedTuple):
    """What a product gives for each unit, (B, H): its columns from `number` * H on."""

    product: int
    number: int


Made: TypeAlias = Var | Column  # what a step makes: a kernel's value, or a product's column


class Product(NamedTuple):
    """A product of a step: out = left @ right, or out += left @ right.

    kept: whether it is looked at after the loop.
    carried: whether the step before has made the left operand.
    handed: the values that are the left operand, side by side, and the positions in the step of the
        kernels that make them.
    base: for each column, what of this step it is added to; None for what is in memory, or nothing.
    """

    equation: Equation
    kept: bool
    carried: bool
    handed: list[tuple[Var, int]]
    base: list[Made | None]

    @property
    def left(self) -> Var:
        """The operand that changes from step to step, (B, K)."""
        return self.equation.inputs[-2]

    @property
    def right(self) -> Var:
        """The matrix that stays the same, (K, N)."""
        return self.equation.inputs[-1]

    @property
    def out(self) -> Var:
        """The product, (B, N)."""
        return self.equation.outputs[0]

    @property
    def columns(self) -> int:
        """How many a unit has."""
        return len(self.base)

    @property
    def added_to(self) -> Var | None:
        """What is in memory before, if the product is added to it."""
        adds = self.equation.primitive is add_product
        return self.equation.inputs[0] if adds and None in self.base else None


class Loop(NamedTuple):
    """A loop that one kernel can run.

    shape: (B, H), sequences and units.
    step: what a step does, in order; of what kernels store, what is looked at after the loop.
    loads: what kernels find in memory, at each step or the first.
    passed: of what else they read, what the same step has made.
    carried: of the loads, what a step makes for the next one.
    """

    shape: tuple[int, ...]
    step: list[Kernel | Product]
    loads: list[Var]
    passed: dict[Var, Made]
    carried: dict[Var, Made]

    @property
    def products(self) -> list[Product]:
        """The products of a step, in order."""
        return [x for x in self.step if isinstance(x, Product)]

    @property
    def stores(self) -> list[Store]:
        """What the kernels leave in memory, in order."""
        return [store for x in self.step if isinstance(x, Kernel) for store in x.stores]


def loop_of(plan: Plan) -> Loop | None:
    """The loop of a plan, if one kernel can run it."""
    found = [x for x in plan.loop if not isinstance(x, View)]
    step = [x for x in found if not isinstance(x, Call)]
    shapes = {x.shape for x in step if isinstance(x, Kernel)}
    by_rows = any(x.phases for x in step if isinstance(x, Kernel))
    products = [x.equation for x in step if isinstance(x, Gemm)]
    if len(step) < len(found) or by_rows or len(shapes) != 1 or not products:
        return None
    (shape,) = shapes
    if len(shape) != 2 or not all(shape):
        return None
    if not all(_is_for_units(plan, product, shape[1]) for product in products):
        return None
    try:
        return _Reading(plan, shape).loop(step)
    except _OfOthers:
        return None


def _is_for_units(plan: Plan, product: Equation, H: int) -> bool:
    """Whether a product is with a matrix that stays the same, and gives some columns for a unit."""
    left, right, out = *product.inputs[-2:], product.outputs[0]
    return (
        [len(x.shape) for x in (left, right, out)] == [2, 2, 2]
        and str(out.dtype) in _DTYPES
        and out.shape[1] % H == 0
        and plan.place(right).storage.kind == memory.FIXED
    )


class _OfOthers(Exception):
    """A thread would have to read what others have written."""


class _Reading:
    """Finds out where a step reads what it has made.

    made: what lies where, of what the step has made so far, and the position of what made it.
    looked_at: what is read after the loop.
    """

    def __init__(self, plan: Plan, shape: tuple[int, ...]) -> None:
        self.plan, self.shape = plan, shape
        self.units = shape[1]
        self.made: dict[Place, tuple[Made, int]] = {}
        after = (x for equation in plan.parts.after for x in equation.variables)
        self.looked_at = {plan.root(x) for x in [*plan.parts.stacks, *plan.next_carry, *after]}

    def loop(self, instructions: Sequence[Kernel | Gemm]) -> Loop:
        """The loop of these instructions; raises _OfOthers if one kernel cannot run it."""
        step: list[Kernel | Product] = []
        products = 0
        loads: dict[Var, None] = {}
        passed: dict[Var, Made] = {}
        for position, x in enumerate(instructions):
            if isinstance(x, Gemm):
                step.append(self._product(x.equation, products, position))
                products += 1
                continue
            for y in x.loads:
                place = self.plan.place(y)
                if place in self.made:
                    passed[y] = self.made[place][0]
                else:
                    loads[y] = None
            for store in x.stores:
                self.made[self._part(store.target, store.start)] = store.value, position
            step.append(x._replace(stores=[y for y in x.stores if self._is_kept(y.target)]))
        carried = dict(self._carried(loads))
        step = [self._finished(x, n) if isinstance(x, Product) else x for n, x in enumerate(step)]
        return Loop(self.shape, step, list(loads), passed, carried)

    def _product(self, equation: Equation, number: int, position: int) -> Product:
        """A product, whose left operand may not be made yet."""
        left, out = equation.inputs[-2], equation.outputs[0]
        carried = self.plan.place(left).storage.kind == memory.BEFORE
        handed = [] if carried else self._handed(self.plan.place(left))
        base = []
        for column in range(out.shape[1] // self.units):
            place = self._part(out, column * self.units)
            found, _ = self.made.get(place, (None, 0))
            if found is None:
                self._check(place)
            base.append(found)
            self.made[place] = Column(number, column), position
        return Product(equation, self._is_kept(out), carried, handed, base)

    def _finished(self, product: Product, position: int) -> Product:
        """A product, with the left operand that the step makes for the next one."""
        if not product.carried:
            return product
        handed = self._handed(self._next(self.plan.place(product.left)))
        if any(maker < position for _, maker in handed):  # it would be handed on before it is read
            raise _OfOthers
        return product._replace(handed=handed)

    def _handed(self, place: Place) -> list[tuple[Var, int]]:
        """The values at the place of a left operand, side by side, and what makes them."""
        handed = []
        for start in range(place.start, place.stop, self.units):
            part = place._replace(start=start, stop=start + self.units)
            value, maker = self.made.get(part, (None, 0))
            if not isinstance(value, Var):
                raise _OfOthers
            handed.append((value, maker))
        return handed

    def _carried(self, loads: Iterable[Var]) -> Iterator[tuple[Var, Made]]:
        """Of what is in memory at first, what the step makes for the next one."""
        for x in loads:
            place = self.plan.place(x)
            is_carry = place.storage.kind == memory.BEFORE
            place = self._next(place) if is_carry else place
            if is_carry and place in self.made:
                yield x, self.made[place][0]
            else:
                self._check(place)

    def _check(self, place: Place) -> None:
        """Nothing of the step may lie at a place."""
        if any(place.overlaps(other) for other in self.made):
            raise _OfOthers

    def _next(self, place: Place) -> Place:
        """Where the step puts what the next one finds at the place of a carry."""
        after = self.plan.next_carry[place.storage.number]
        return place._replace(storage=self.plan.place(after).storage)

    def _part(self, x: Var, start: int) -> Place:
        """The place of as many columns of a value as there are units."""
        return self.plan.place(x).part(start, start + self.units)

    def _is_kept(self, x: Var) -> bool:
        """Whether a value is looked at after the loop."""
        return self.plan.root(x) in self.looked_at


class Share(NamedTuple):
    """How threads share out a product.

    lanes: the threads of a warp that go through the K rows of the matrix together, for the same
        columns. depth: rows of each. columns: of a thread.
    held: of the rows, how many are in registers; the rest is in shared memory.
    """

    lanes: int
    depth: int
    columns: int
    held: int

    @property
    def height(self) -> int:
        """The rows of the matrix, K, and some of zeros."""
        return self.lanes * self.depth

    @property
    def rest(self) -> int:
        """How many weights of a thread are in shared memory."""
        return self.columns * (self.depth - self.held)


class Tile(NamedTuple):
    """How a cluster shares out a step.

    blocks: of a cluster. units: of a block, of all H. shares: of each product.
    """

    blocks: int
    units: int
    shares: list[Share]

    @property
    def threads(self) -> int:
        """Of a block: one for each unit of each sequence."""
        return self.units * ROWS

    @property
    def rest(self) -> int:
        """Bytes of weights in shared memory."""
        return sum(share.rest for share in self.shares) * self.threads * 4

    @property
    def shared(self) -> int:
        """Bytes of shared memory: of each product, two left operands; and weights."""
        return sum(2 * share.height * ROWS * 4 for share in self.shares) + self.rest


def tile_of(loop: Loop, room: Room) -> Tile | None:
    """How to share out a loop; None if it does not fit.

    All clusters run at the same time: in two rounds, one after the other, they were slower than a
    graph. As few weights as possible are in shared memory, and rather no block without a unit.
    """
    groups = -(-loop.shape[0] // ROWS)
    found = [_tile(loop, x) for x in _BLOCKS if room.clusters.get(x, 0) >= groups]
    fitting = [x for x in found if x is not None and x.shared <= room.shared]
    H = loop.shape[1]
    return min(fitting, key=lambda x: (x.rest, (x.blocks - 1) * x.units >= H), default=None)


def _tile(loop: Loop, blocks: int) -> Tile | None:
    """With as many weights in registers as there is room for beside the values of a step."""
    units = 4 * -(-loop.shape[1] // (4 * blocks))  # a warp has four
    columns = sum(product.columns for product in loop.products)
    values = 3 * len(loop.loads) + 2 * (len(loop.stores) + columns + len(loop.passed))
    shares = [_share(product) for product in loop.products]
    threads = 128 * -(-units * ROWS // 128)  # warps get registers by fours
    registers = min(255, _REGISTERS // threads // 8 * 8) - values - 40
    registers -= max(share.columns * ROWS for share in shares)  # sums
    for number, share in enumerate(shares):
        held = max(0, min(share.depth, registers // share.columns))
        registers -= held * share.columns
        shares[number] = share._replace(held=held)
    return Tile(blocks, units, shares) if registers >= 0 else None


def _share(product: Product) -> Share:
    """Many lanes where a unit has few columns, so that a thread has several for what it reads."""
    lanes = {1: 32, 2: 16}.get(product.columns, 8)
    depth = -(-product.left.shape[1] // lanes)
    return Share(lanes, depth, product.columns * lanes // 8, held=depth)
