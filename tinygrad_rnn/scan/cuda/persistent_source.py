"""What does a loop that one kernel runs from the first step to the last look like?

The names: `w0` are a thread's weights of product 0, from the columns of its tile and every
`lanes`-th row, and `rest0` those of them that are in shared memory. `sums0[m][r]` is the product of
column m with sequence r; the lanes of a tile first add up all of them, each for its own rows, and
then hand them around until each has the whole sums of one unit of one sequence, in an order that is
always the same: `z0_1` is column 1 of the unit. That thread computes the step for this unit, and
hands its part of the products' operands to every block. Read persistent.py and source.py first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tinygrad_rnn.program import Var
from tinygrad_rnn.scan.cuda.persistent import ROWS, Column, Loop, Made, Product, Share, Tile
from tinygrad_rnn.scan.cuda.schedule import Kernel
from tinygrad_rnn.scan.cuda.source import (
    PRELUDE,
    Operand,
    computed_type,
    converted,
    expression,
    loaded,
    offset,
    stored_type,
)

#: What blocks of a cluster do with each other. The CPU that tests run on brings its own.
CLUSTERS = """\
struct alignas(16) Four { float of[4]; };
#ifndef ON_THE_HOST
__device__ __forceinline__ Four* shared_memory() {
  extern __shared__ Four memory[];
  return memory;
}
__device__ __forceinline__ unsigned rank_of_block() {
  unsigned rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ void arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ __forceinline__ void wait_for_all() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ __forceinline__ void hand(float* to, unsigned block, float x) {
  unsigned mine = (unsigned)__cvta_generic_to_shared(to), there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(mine), "r"(block));
  asm volatile("st.shared::cluster.f32 [%0], %1;" :: "r"(there), "f"(x) : "memory");
}
#endif
"""
#: The same for a block on its own, on GPUs that have no clusters, too.
ALONE = """\
struct alignas(16) Four { float of[4]; };
#ifndef ON_THE_HOST
__device__ __forceinline__ Four* shared_memory() {
  extern __shared__ Four memory[];
  return memory;
}
__device__ __forceinline__ unsigned rank_of_block() { return 0; }
__device__ __forceinline__ void arrive() {}
__device__ __forceinline__ void wait_for_all() { __syncthreads(); }
__device__ __forceinline__ void hand(float* to, unsigned, float x) { *to = x; }
#endif
"""


def persistent_source(
    name: str,
    loop: Loop,
    tile: Tile,
    operands: Mapping[Var, Operand],
    stores: Sequence[Operand],
    moves: Sequence[int],
) -> str:
    """The text of a kernel, whose arguments are addresses at the first step, and two numbers.

    The addresses: of the loads, of the stores, and for each product of its left and right operand,
    of itself, and of what it is added to, if that is in memory. The numbers: of sequences, and of
    steps.
    operands: how the loads lie, and what the products read and write, over two axes.
    stores: how the stores lie. moves: from step to step, in elements, of every address.
    """
    return _Writer(loop, tile, operands, stores, moves).text(name)


class _Numbered(NamedTuple):
    """A product, as the text needs it.

    number: in its names. left: the number of its first address; right, out, and base come next.
    operand, rest: where its left operands and weights begin in shared memory, counted in fours.
    """

    product: Product
    share: Share
    number: int
    left: int
    operand: int
    rest: int

    @property
    def right(self) -> int:
        """The number of the matrix's address."""
        return self.left + 1

    @property
    def out(self) -> int:
        """The number of the product's address."""
        return self.left + 2

    @property
    def base(self) -> int:
        """The number of the address of what it is added to."""
        return self.left + 3


class _Writer:
    """names: the C names of values, as far as they are known. numbers: of the loads' addresses.

    products: by their positions in the step. stored: the numbers of the stores' addresses, by the
    positions of their kernels. ahead: what a step reads for the next one, as the number of an
    address and lines, by the positions in the step after which it does.
    """

    def __init__(
        self,
        loop: Loop,
        tile: Tile,
        operands: Mapping[Var, Operand],
        stores: Sequence[Operand],
        moves: Sequence[int],
    ) -> None:
        self.loop, self.tile, self.operands, self.stores = loop, tile, operands, stores
        self.moves = moves
        self.numbers = {x: number for number, x in enumerate(loop.loads)}
        self.names = {x: f"x{number}" for x, number in self.numbers.items()}
        self.ahead: dict[int, list[tuple[int, list[str]]]] = {}
        self.stored: dict[int, range] = {}
        self.products: dict[int, _Numbered] = {}
        address, operand, rest = len(loop.loads), 0, (tile.shared - tile.rest) // 16
        for position, x in enumerate(loop.step):
            if isinstance(x, Kernel):
                self.stored[position] = range(address, address + len(x.stores))
                address += len(x.stores)
        for position, x in enumerate(loop.step):
            if isinstance(x, Product):
                number, share = len(self.products), tile.shares[len(self.products)]
                self.products[position] = _Numbered(x, share, number, address, operand, rest)
                address += 3 + (x.added_to is not None)
                operand += share.height * ROWS // 2
                rest += share.rest * tile.threads // 4
        self._plan_ahead()

    def text(self, name: str) -> str:
        """The whole text."""
        loop, tile = self.loop, self.tile
        step: list[str] = []
        for position, x in enumerate(loop.step):
            step += self._kernel(x, position) if isinstance(x, Kernel) else self._product(position)
        lines = [
            *self._places(),
            *(line for x in self.products.values() for line in self._weights(x)),
            *self._first_operands(),
            *self._first_loads(),
            "for (i64 t = 0; t < length; t++) {",
            *(f"  {line}" for line in [*step, *self._carry(), *self._read_ahead(len(loop.step))]),
            "}",
        ]
        clustered = f"__cluster_dims__({tile.blocks}, 1, 1) " if tile.blocks > 1 else ""
        head = (
            f'extern "C" __global__ void {clustered}__launch_bounds__({tile.threads}, 1) '
            f"{name}({self._parameters()}) {{"
        )
        text = PRELUDE + (CLUSTERS if tile.blocks > 1 else ALONE)
        return "\n".join([text, head, *(f"  {line}" for line in lines), "}", ""])

    def _parameters(self) -> str:
        """All addresses, numbered, and two numbers."""
        kinds = [f"const {stored_type(self.operands[x].dtype)}*" for x in self.loop.loads]
        kinds += [f"{stored_type(operand.dtype)}*" for operand in self.stores]
        for product in self.loop.products:
            kinds += [f"const {stored_type(x.dtype)}*" for x in (product.left, product.right)]
            kinds += [f"{stored_type(product.out.dtype)}*"]
            if product.added_to is not None:
                kinds += [f"const {stored_type(product.added_to.dtype)}*"]
        return ", ".join(
            [*(f"{kind} p{n}" for n, kind in enumerate(kinds)), "i64 rows", "i64 length"]
        )

    def _plan_ahead(self) -> None:
        """Each read is after the last kernel that needs the old value, or at the end of a step."""
        loop, end = self.loop, len(self.loop.step)
        kernels = {n: set(x.loads) for n, x in enumerate(loop.step) if isinstance(x, Kernel)}
        passed_on = {*loop.passed.values(), *loop.carried.values()}
        for x, number in self.numbers.items():
            if self.moves[number] and x not in loop.carried:
                last = max(n for n, loads in kernels.items() if x in loads)
                self._read_after(end if x in passed_on else last, number, [self._load(x)])
        for position, found in self.products.items():
            if found.product.added_to is not None:
                after = min((n for n in kernels if n > position), default=end)
                self._read_after(after, found.base, self._loads_of_base(found))

    def _read_after(self, position: int, address: int, lines: list[str]) -> None:
        self.ahead.setdefault(position, []).append((address, lines))

    # Before the first step.

    def _places(self) -> list[str]:
        """Which unit of which sequence a thread computes; its addresses are moved there."""
        loop, tile = self.loop, self.tile
        own = [(number, self.operands[x]) for x, number in self.numbers.items()]
        own += [(len(own) + number, operand) for number, operand in enumerate(self.stores)]
        for found in self.products.values():
            product = found.product
            own.append((found.out, self.operands[product.out]))
            if product.added_to is not None:
                own.append((found.base, self.operands[product.added_to]))
        return [
            "const int lane = threadIdx.x % 32;",
            f"const int unit = rank_of_block() * {tile.units} + threadIdx.x / {ROWS};",
            f"const i64 first = blockIdx.x / {tile.blocks} * {ROWS};",
            "const int row = lane % 2 * 4 + lane / 2 % 2 * 2 + lane / 4 % 2;",
            "const i64 i0 = first + row, i1 = unit;",
            f"const bool mine = i0 < rows && i1 < {loop.shape[1]};",
            *(f"p{number} += {offset(operand.strides, (2, 2))};" for number, operand in own),
        ]

    def _weights(self, found: _Numbered) -> list[str]:
        product, share, n = found.product, found.share, found.number
        (K, _), H, columns = product.right.shape, self.loop.shape[1], product.columns
        operand = self.operands[product.right]
        down, across = operand.strides
        at = f"p{found.right}[(i64)k * {down} + (i64)(m % {columns} * {H} + u) * {across}]"
        lines = [
            f"const int slice{n} = lane % {share.lanes};",
            f"Four* const operand{n} = shared_memory() + {found.operand};",
        ]
        if share.held:
            lines.append(f"float w{n}[{share.columns}][{share.held}];")
        if share.rest:
            start = f"(float*)(shared_memory() + {found.rest})"
            lines.append(f"float* const rest{n} = {start} + threadIdx.x;")
        for rows, weight in self._parts_of_weights(found):
            lines += [
                "#pragma unroll",
                f"for (int m = 0; m < {share.columns}; m++) {{",
                "  #pragma unroll",
                f"  {rows} {{",
                f"    const int k = i * {share.lanes} + slice{n};",
                f"    const int u = unit - slice{n} / {ROWS} + m / {columns};",
                f"    {weight} = k < {K} && u < {H} ? {loaded(at, operand.dtype)} : 0.0f;",
                "  }",
                "}",
            ]
        return lines

    def _parts_of_weights(self, found: _Numbered) -> Iterator[tuple[str, str]]:
        """Where a thread has its weights: loops over rows i, and the weight in column m of one."""
        share, n = found.share, found.number
        if share.held:
            yield f"for (int i = 0; i < {share.held}; i++)", f"w{n}[m][i]"
        if share.rest:
            place = f"((i - {share.held}) * {share.columns} + m) * {self.tile.threads}"
            yield f"for (int i = {share.held}; i < {share.depth}; i++)", f"rest{n}[{place}]"

    def _first_operands(self) -> list[str]:
        """The left operands of the first step, if they are there; zeros beyond their ends."""
        lines = []
        for found in self.products.values():
            left, height = found.product.left, found.share.height
            value = "0.0f"
            if found.product.carried:
                down, across = self.operands[left].strides
                at = f"p{found.left}[(first + r) * {down} + k * {across}]"
                inside = f"k < {left.shape[1]} && first + r < rows"
                value = f"{inside} ? {loaded(at, left.dtype)} : 0.0f"
            lines += [
                f"for (int n = threadIdx.x; n < {height * ROWS}; n += {self.tile.threads}) {{",
                f"  const int r = n / {height}, k = n % {height};",
                f"  Four* const four = operand{found.number} + r / 4 * {height} + k;",
                "  float* const to = (float*)four + r % 4;",
                f"  to[0] = {value};",
                f"  to[{height * ROWS}] = 0.0f;",
                "}",
            ]
        return [*lines, "arrive();", "wait_for_all();"]

    def _first_loads(self) -> list[str]:
        added = [x for x in self.products.values() if x.product.added_to is not None]
        loads = [self._load(x) for x in self.loop.loads]
        loads += [line for found in added for line in self._loads_of_base(found)]
        return [
            *(f"{computed_type(x.dtype)} {self.names[x]} = 0;" for x in self.loop.loads),
            *(f"float y{x.number}_{n} = 0;" for x in added for n in range(x.product.columns)),
            *_guarded("mine", loads),
        ]

    def _load(self, x: Var) -> str:
        value = loaded(f"*p{self.numbers[x]}", self.operands[x].dtype)
        return f"{self.names[x]} = {value};"

    def _loads_of_base(self, found: _Numbered) -> list[str]:
        """What a product is added to, where that is in memory."""
        added_to, lines = found.product.added_to, []
        assert added_to is not None
        for n, base in enumerate(found.product.base):
            if base is None:
                at = f"p{found.base}[{self._to_column(added_to, n)}]"
                lines.append(f"y{found.number}_{n} = {loaded(at, added_to.dtype)};")
        return lines

    def _to_column(self, x: Var, column: int) -> int:
        """How far a unit's number in a column is from that in the first one."""
        return column * self.loop.shape[1] * self.operands[x].strides[1]

    # A step.

    def _product(self, position: int) -> list[str]:
        """The columns of a unit: z0_0, z0_1, …, for the first product."""
        found = self.products[position]
        product, share, n, sums = found.product, found.share, found.number, f"sums{found.number}"
        height, columns = share.height, share.columns
        lines = [
            f"float {sums}[{columns}][{ROWS}];",
            "#pragma unroll",
            f"for (int n = 0; n < {columns * ROWS}; n++) {sums}[n / {ROWS}][n % {ROWS}] = 0.0f;",
            f"const Four* const from{n} = operand{n} + (int)(t % 2) * {2 * height} + slice{n};",
        ]
        for rows, weight in self._parts_of_weights(found):
            lines += [
                "#pragma unroll",
                f"{rows} {{",
                f"  const Four low = from{n}[i * {share.lanes}];",
                f"  const Four high = from{n}[i * {share.lanes} + {height}];",
                "  #pragma unroll",
                f"  for (int m = 0; m < {columns}; m++) {{",
                f"    const float w = {weight};",
                "    #pragma unroll",
                "    for (int r = 0; r < 4; r++) {",
                f"      {sums}[m][r] += w * low.of[r];",
                f"      {sums}[m][r + 4] += w * high.of[r];",
                "    }",
                "  }",
                "}",
            ]
        for bit, half in ((1, 4), (2, 2), (4, 1)):
            lines += _halved(sums, bit, columns * half, f"n / {half}", f"n % {half}", 0, half)
        if share.lanes == 32:
            lines += _halved(sums, 16, columns // 2, "n", "0", columns // 2, 0)
            columns //= 2
        if share.lanes > 8:
            lines += _halved(sums, 8, columns // 2, "n", "0", columns // 2, 0)
        for column in range(product.columns):
            lines.append(f"const float z{n}_{column} = {self._column(found, column)};")
        if product.kept:
            place = self.operands[product.out]
            stored = [
                f"p{found.out}[{self._to_column(product.out, column)}] = "
                f"{converted(f'z{n}_{column}', product.out.dtype, place.dtype)};"
                for column in range(product.columns)
            ]
            lines += [*_guarded("mine", stored), *self._moved([found.out])]
        return lines

    def _column(self, found: _Numbered, column: int) -> str:
        """A column of a unit, as rounded as if it had been in memory."""
        product, base = found.product, found.product.base[column]
        text = f"sums{found.number}[{column}][0]"
        if base is not None:
            text += f" + {self._name(base)}"
        elif product.added_to is not None:
            text += f" + y{found.number}_{column}"
        return f"from_half(to_half({text}))" if product.out.dtype == np.float16 else text

    def _name(self, x: Made) -> str:
        """The C name of what a step has made."""
        return f"z{x.product}_{x.number}" if isinstance(x, Column) else self.names[x]

    def _kernel(self, kernel: Kernel, position: int) -> list[str]:
        """What a kernel computes, hands to the products, and stores."""
        lines = []
        passed = self.loop.passed
        self.names.update((x, self._name(passed[x])) for x in kernel.loads if x in passed)
        for number, equation in enumerate(kernel.equations):
            (y,) = equation.outputs
            text = expression(equation, self.names)
            self.names[y] = f"v{position}_{number}"
            lines.append(f"const {computed_type(y.dtype)} {self.names[y]} = {text};")
        after = [*self._store(kernel, position), *self._read_ahead(position)]
        hand = self._hand(position)
        return [*lines, *hand, "arrive();", *after, "wait_for_all();"] if hand else [*lines, *after]

    def _hand(self, position: int) -> list[str]:
        """What a kernel makes of products' operands, to every block."""
        lines, hands = [], []
        for found in self.products.values():
            n, height = found.number, found.share.height
            mine = [
                f"  hand(to{n} + {4 * column * self.loop.shape[1]}, block, {self.names[value]});"
                for column, (value, maker) in enumerate(found.product.handed)
                if maker == position
            ]
            if mine:
                step = "(t + 1)" if found.product.carried else "t"
                at = f"(int)({step} % 2) * {2 * height} + row / 4 * {height} + unit"
                lines.append(f"float* const to{n} = (float*)(operand{n} + {at}) + row % 4;")
                hands += mine
        blocks = f"for (unsigned block = 0; block < {self.tile.blocks}; block++) {{"
        all_blocks = ["#pragma unroll", blocks, *hands, "}"]
        return _guarded(f"unit < {self.loop.shape[1]}", [*lines, *all_blocks]) if hands else []

    def _store(self, kernel: Kernel, position: int) -> list[str]:
        numbers, stored = self.stored[position], []
        for number, store in zip(numbers, kernel.stores, strict=True):
            place = self.stores[number - len(self.numbers)]
            text = converted(self.names[store.value], store.value.dtype, place.dtype)
            stored.append(f"*p{number} = {text};")
        return [*_guarded("mine", stored), *self._moved(numbers)]

    def _read_ahead(self, position: int) -> list[str]:
        """What the next step reads, asked for before it is needed."""
        found = self.ahead.get(position, [])
        lines = [line for _, reads in found for line in reads]
        moved = self._moved(address for address, _ in found)
        return [*moved, *_guarded("mine && t + 1 < length", lines)]

    def _moved(self, numbers: Iterable[int]) -> list[str]:
        return [f"p{number} += {self.moves[number]};" for number in numbers if self.moves[number]]

    def _carry(self) -> list[str]:
        """What a step hands on to the next one in registers, all of it at once."""
        taken, given = [], []
        for number, (x, made) in enumerate(self.loop.carried.items()):
            taken.append(f"const {computed_type(x.dtype)} next{number} = {self._name(made)};")
            given.append(f"{self.names[x]} = next{number};")
        return [*taken, *given]


def _guarded(condition: str, lines: Sequence[str]) -> list[str]:
    """Lines that are for some threads only."""
    return [f"if ({condition}) {{", *(f"  {line}" for line in lines), "}"] if lines else []


def _halved(sums: str, bit: int, count: int, m: str, r: str, down: int, right: int) -> list[str]:
    """Lanes that differ in a bit each take one half of the sums, and give away the other."""
    here, there = f"{sums}[{m}][{r}]", f"{sums}[{m} + {down}][{r} + {right}]"
    return [
        "#pragma unroll",
        f"for (int n = 0; n < {count}; n++) {{",
        f"  const bool second = lane & {bit};",
        f"  const float given = second ? {here} : {there};",
        f"  const float kept = second ? {there} : {here};",
        f"  {here} = kept + __shfl_xor_sync(0xffffffffu, given, {bit});",
        "}",
    ]
