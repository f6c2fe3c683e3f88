"""What does a loop that one kernel runs from the first step to the last look like?

The names: `w` are a thread's weights, from the columns of its tile and every `lanes`-th row.
`sums[m][r]` is the product of column m with sequence r; the lanes of a tile first add up all of
them, each for its own rows, and then hand them around until each has the whole sums of one unit of
one sequence, in an order that is always the same. That thread computes the step for this unit, and
hands its part of the next product's operand to every block. Read persistent.py and source.py first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tinygrad_rnn.program import Var
from tinygrad_rnn.scan.cuda.persistent import ROWS, Loop, Tile
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

    The addresses: of the kernel's loads, its stores, the product's left and right operand, the
    product, and what it is added to. The numbers: of sequences, and of steps.
    operands: how the kernel's loads lie, and what the product reads and writes, over two axes.
    stores: how the kernel's stores lie. moves: from step to step, in elements, of every address.
    """
    return _Writer(loop, tile, operands, stores, moves).text(name)


class _Writer:
    """names: the C names of values, as far as they are known. numbers: of the loads' addresses.

    loads: what is read from memory. made: what the kernel computes.
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
        loads = loop.kernel.loads
        self.numbers = {x: number for number, x in enumerate(loads)}
        self.names = {x: f"x{number}" for x, number in self.numbers.items()}
        self.made = {x for equation in loop.kernel.equations for x in equation.outputs}
        self.loads = loads
        if not loop.kernel_first:
            self.names.update((x, f"z{gate}") for x, gate in loop.gates.items())
            self.loads = [x for x in loads if x not in loop.gates]
        left_at = len(loads) + len(stores)
        self.left_at, self.right_at = left_at, left_at + 1
        self.out_at = left_at + 2
        self.added_at = self.out_at + 1

    def text(self, name: str) -> str:
        """The whole text."""
        loop, tile = self.loop, self.tile
        kernel = self._kernel()
        product = self._product()
        hand = [*self._hand(), "arrive();", *self._store(), *self._load_next(), "wait_for_all();"]
        step = [*kernel, *hand, *product] if loop.kernel_first else [*product, *kernel, *hand]
        lines = [
            *self._places(),
            *self._weights(),
            *self._first_operand(),
            *self._first_loads(),
            "for (i64 t = 0; t < length; t++) {",
            *(f"  {line}" for line in [*step, *self._carry()]),
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
        loop = self.loop
        read = [f"const {stored_type(self.operands[x].dtype)}*" for x in loop.kernel.loads]
        written = [f"{stored_type(operand.dtype)}*" for operand in self.stores]
        product = [f"const {stored_type(x.dtype)}*" for x in (loop.left, loop.right)]
        product += [f"{stored_type(loop.out.dtype)}*"]
        product += [f"const {stored_type(x.dtype)}*" for x in [loop.added_to] if x is not None]
        texts = [f"{kind} p{n}" for n, kind in enumerate([*read, *written, *product])]
        return ", ".join([*texts, "i64 rows", "i64 length"])

    # Before the first step.

    def _places(self) -> list[str]:
        """Which unit of which sequence a thread computes; its addresses are moved there."""
        loop, tile = self.loop, self.tile
        lanes = tile.lanes
        unit = {8: "0", 16: "lane / 8 % 2", 32: "lane / 8 % 2 * 2 + lane / 16"}[lanes]
        own = [(number, self.operands[x]) for x, number in self.numbers.items()]
        own += [(len(own) + number, operand) for number, operand in enumerate(self.stores)]
        own.append((self.out_at, self.operands[loop.out]))
        if loop.added_to is not None:
            own.append((self.added_at, self.operands[loop.added_to]))
        return [
            "const int lane = threadIdx.x % 32;",
            f"const int slice = threadIdx.x % {lanes};",
            f"const int tile = rank_of_block() * {tile.units}"
            f" + threadIdx.x / {lanes} * {lanes // 8};",
            f"const i64 first = blockIdx.x / {tile.blocks} * {ROWS};",
            "const int row = lane % 2 * 4 + lane / 2 % 2 * 2 + lane / 4 % 2;",
            "const i64 i0 = first + row;",
            f"const i64 i1 = tile + {unit};",
            f"const bool mine = i0 < rows && i1 < {loop.kernel.shape[1]};",
            *(f"p{number} += {offset(operand.strides, (2, 2))};" for number, operand in own),
        ]

    def _weights(self) -> list[str]:
        loop, tile = self.loop, self.tile
        (K, _), H, parts = loop.right.shape, loop.kernel.shape[1], loop.parts
        operand = self.operands[loop.right]
        down, across = operand.strides
        at = f"p{self.right_at}[(i64)k * {down} + (i64)(m % {parts} * {H} + u) * {across}]"
        return [
            f"float w[{tile.columns}][{tile.depth}];",
            "#pragma unroll",
            f"for (int m = 0; m < {tile.columns}; m++) {{",
            "  #pragma unroll",
            f"  for (int i = 0; i < {tile.depth}; i++) {{",
            f"    const int k = i * {tile.lanes} + slice, u = tile + m / {parts};",
            f"    w[m][i] = k < {K} && u < {H} ? {loaded(at, operand.dtype)} : 0.0f;",
            "  }",
            "}",
        ]

    def _first_operand(self) -> list[str]:
        """The left operand of the first product, if it is there already; zeros beyond its end."""
        loop, tile = self.loop, self.tile
        operand, size = self.operands[loop.left], tile.height * ROWS
        value = "0.0f"
        if not loop.kernel_first:
            down, across = operand.strides
            at = f"p{self.left_at}[(first + r) * {down} + k * {across}]"
            inside = f"k < {loop.left.shape[1]} && first + r < rows"
            value = f"{inside} ? {loaded(at, operand.dtype)} : 0.0f"
        return [
            "Four* const operand = shared_memory();",
            f"for (int n = threadIdx.x; n < {size}; n += {tile.threads}) {{",
            f"  const int r = n / {tile.height}, k = n % {tile.height};",
            f"  const int at = (r / 4 * {tile.height} + k) * 4 + r % 4;",
            f"  ((float*)operand)[at] = {value};",
            f"  ((float*)operand)[at + {size}] = 0.0f;",
            "}",
            "arrive();",
            "wait_for_all();",
        ]

    def _first_loads(self) -> list[str]:
        added = self._added()
        return [
            *(f"{computed_type(x.dtype)} {self.names[x]} = 0;" for x in self.loads),
            *(f"float y{gate} = 0;" for gate in range(len(added))),
            "if (mine) {",
            *(f"  {line}" for line in [*map(self._load, self.loads), *added]),
            "}",
        ]

    def _load(self, x: Var) -> str:
        value = loaded(f"*p{self.numbers[x]}", self.operands[x].dtype)
        return f"{self.names[x]} = {value};"

    def _added(self) -> list[str]:
        """What a product is added to, read ahead: the kernel of the same step does not make it."""
        loop = self.loop
        if loop.added_to is None or loop.kernel_first:
            return []
        return [f"y{gate} = {self._added_at(gate)};" for gate in range(loop.parts)]

    def _added_at(self, gate: int) -> str:
        added_to = self.loop.added_to
        assert added_to is not None
        return loaded(f"p{self.added_at}[{self._to_gate(added_to, gate)}]", added_to.dtype)

    def _to_gate(self, x: Var, gate: int) -> int:
        """How far a unit's column of a gate is from its first one."""
        return gate * self.loop.kernel.shape[1] * self.operands[x].strides[1]

    # A step.

    def _product(self) -> list[str]:
        """The columns of a unit: z0, z1, …"""
        loop, tile = self.loop, self.tile
        lines = [
            f"float sums[{tile.columns}][{ROWS}];",
            "#pragma unroll",
            f"for (int n = 0; n < {tile.columns * ROWS}; n++) sums[n / {ROWS}][n % {ROWS}] = 0.0f;",
            f"const Four* const from = operand + (int)(t % 2) * {2 * tile.height} + slice;",
            "#pragma unroll",
            f"for (int i = 0; i < {tile.depth}; i++) {{",
            f"  const Four low = from[i * {tile.lanes}];",
            f"  const Four high = from[i * {tile.lanes} + {tile.height}];",
            "  #pragma unroll",
            f"  for (int n = 0; n < {tile.columns * 4}; n++) {{",
            "    sums[n / 4][n % 4] += w[n / 4][i] * low.of[n % 4];",
            "    sums[n / 4][n % 4 + 4] += w[n / 4][i] * high.of[n % 4];",
            "  }",
            "}",
        ]
        for bit, half in ((1, 4), (2, 2), (4, 1)):
            lines += self._halved(bit, tile.columns * half, f"n / {half}", f"n % {half}", 0, half)
        for bit, half in ((8, tile.columns // 2), (16, tile.columns // 4)):
            if bit < tile.lanes:
                lines += self._halved(bit, half, "n", "0", half, 0)
        for gate in range(loop.parts):
            lines.append(f"const float z{gate} = {self._product_of(gate)};")
        if loop.kept:
            stored = [
                f"p{self.out_at}[{self._to_gate(loop.out, gate)}] = "
                f"{converted(f'z{gate}', loop.out.dtype, self.operands[loop.out].dtype)};"
                for gate in range(loop.parts)
            ]
            lines += ["if (mine) {", *(f"  {line}" for line in stored), "}"]
        return [*lines, *self._moved([self.out_at] + [self.added_at] * self._adds_after())]

    def _adds_after(self) -> bool:
        """Whether the product is added to what the kernel of the same step has made."""
        return self.loop.kernel_first and self.loop.added_to is not None

    def _halved(self, bit: int, count: int, m: str, r: str, down: int, right: int) -> list[str]:
        """Lanes that differ in a bit each take one half of the sums, and give away the other."""
        there = f"sums[{m} + {down}][{r} + {right}]"
        return [
            "#pragma unroll",
            f"for (int n = 0; n < {count}; n++) {{",
            f"  const bool second = lane & {bit};",
            f"  const float given = second ? sums[{m}][{r}] : {there};",
            f"  const float kept = second ? {there} : sums[{m}][{r}];",
            f"  sums[{m}][{r}] = kept + __shfl_xor_sync(0xffffffffu, given, {bit});",
            "}",
        ]

    def _product_of(self, gate: int) -> str:
        """A column of a unit, as rounded as if it had been in memory."""
        loop, text = self.loop, f"sums[{gate}][0]"
        if loop.added_to is not None:
            if not loop.kernel_first:
                text += f" + y{gate}"
            elif loop.added_to in self.made:
                text += f" + {self.names[loop.added_to]}"
            else:
                text += f" + (mine ? {self._added_at(gate)} : 0.0f)"
        return f"from_half(to_half({text}))" if loop.out.dtype == np.float16 else text

    def _kernel(self) -> list[str]:
        lines = []
        for number, equation in enumerate(self.loop.kernel.equations):
            (y,) = equation.outputs
            text = expression(equation, self.names)
            self.names[y] = f"v{number}"
            lines.append(f"const {computed_type(y.dtype)} v{number} = {text};")
        return lines

    def _hand(self) -> list[str]:
        """The next product's operand, to every block."""
        loop, tile = self.loop, self.tile
        step = "t" if loop.kernel_first else "(t + 1)"
        at = f"(int)({step} % 2) * {2 * tile.height} + row / 4 * {tile.height} + i1"
        lines = [
            f"if (i1 < {loop.kernel.shape[1]}) {{",
            f"  float* const to = (float*)(operand + {at}) + row % 4;",
            "  #pragma unroll",
            f"  for (unsigned block = 0; block < {tile.blocks}; block++) {{",
        ]
        for store in loop.handed:
            lines.append(f"    hand(to + {4 * store.start}, block, {self.names[store.value]});")
        return [*lines, "  }", "}"]

    def _store(self) -> list[str]:
        numbers = range(len(self.numbers), len(self.numbers) + len(self.stores))
        stored = []
        for number, store, place in zip(numbers, self.loop.kernel.stores, self.stores, strict=True):
            text = converted(self.names[store.value], store.value.dtype, place.dtype)
            stored.append(f"  *p{number} = {text};")
        return ["if (mine) {", *stored, "}", *self._moved(numbers)]

    def _load_next(self) -> list[str]:
        """What the next step reads, asked for before it is needed."""
        loop = self.loop
        wanted = [x for x in self.loads if x not in loop.gates and x not in loop.carried]
        wanted = [x for x in wanted if self.moves[self.numbers[x]]]
        added = self._added()
        moved = [self.numbers[x] for x in wanted] + [self.added_at] * bool(added)
        loads = [f"  {line}" for line in [*map(self._load, wanted), *added]]
        guarded = ["if (mine && t + 1 < length) {", *loads, "}"] if loads else []
        return [*self._moved(moved), *guarded]

    def _moved(self, numbers: Iterable[int]) -> list[str]:
        return [f"p{number} += {self.moves[number]};" for number in numbers if self.moves[number]]

    def _carry(self) -> list[str]:
        """The carries that the next step's kernel reads: they need not come from memory."""
        loop = self.loop
        lines = [f"{self.names[x]} = {self.names[y]};" for x, y in loop.carried.items()]
        if loop.kernel_first:
            lines += [f"{self.names[x]} = z{gate};" for x, gate in loop.gates.items()]
        return lines
