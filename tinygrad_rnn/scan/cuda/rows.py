"""What does a row, along which values are summed, look like as one CUDA kernel?

A block for each row. Its threads go through the columns together, add up what each has seen, and go
on with the sums (phases.py). The order of every sum is fixed, so a run gives the same bits as the
last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinygrad_rnn.ops import reduction
from tinygrad_rnn.ops.elementwise import Elementwise
from tinygrad_rnn.ops.primitive import Primitive
from tinygrad_rnn.program import Equation, Var
from tinygrad_rnn.scan.cuda.phases import Phase, is_reduction
from tinygrad_rnn.scan.cuda.source import (
    PRELUDE,
    Operand,
    computed_type,
    converted,
    expression,
    index_lines,
    index_type,
    loaded,
    offset,
    parameters,
)

MOST_THREADS = 512  # of a block
_COLUMNS = 4  # for each thread, if that makes a warp at least

#: Sums and the like over a block: first within each warp, then over the warps, in a fixed order.
BLOCKS = """\
#define OVER_A_BLOCK(name, combined) \\
  template <typename T> __device__ T name(T x) { \\
    __shared__ T of_warp[32]; \\
    for (int distance = 16; distance; distance /= 2) { \\
      const T y = __shfl_xor_sync(0xffffffffu, x, distance); \\
      x = combined; \\
    } \\
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x; \\
    __syncthreads(); \\
    x = of_warp[0]; \\
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++) { \\
      const T y = of_warp[warp]; \\
      x = combined; \\
    } \\
    __syncthreads(); \\
    return x; \\
  }
OVER_A_BLOCK(block_sum, x + y)
OVER_A_BLOCK(block_max, (y > x || y != y) ? y : x)
OVER_A_BLOCK(block_min, (y < x || y != y) ? y : x)
"""
_SUM = ("block_sum", "{total} + {x}", "0")
#: How the values of the columns are brought together, one after the other, and from what on.
_TOTALS: dict[Primitive, tuple[str, str, str]] = {
    reduction.max: ("block_max", "({x} > {total} || {x} != {x}) ? {x} : {total}", "-1.0 / 0.0"),
    reduction.min: ("block_min", "({x} < {total} || {x} != {x}) ? {x} : {total}", "1.0 / 0.0"),
}


def threads_for(phases: Sequence[Phase]) -> int:
    """The threads of a block: whole warps, a few columns for each thread."""
    widest = max((width for phase in phases for width in phase.loops), default=1)
    warps = -(-widest // (32 * _COLUMNS))
    return min(32 * warps, MOST_THREADS)


def row_source(
    name: str,
    lead: Sequence[int],
    phases: Sequence[Phase],
    loads: Mapping[Var, Operand],
    stores: Sequence[tuple[Var, Operand]],
) -> str:
    """The text of a kernel; its arguments are the loads' addresses, the stores', and `count`.

    lead: the axes in front of the last. The size of the first does not enter the text: `count`,
    the number of all rows, says it at each launch.
    """
    return _Writer(lead, loads, stores).text(name, phases)


class _Writer:
    """numbers: the names of what is one number for the row, and known by now."""

    def __init__(
        self,
        lead: Sequence[int],
        loads: Mapping[Var, Operand],
        stores: Sequence[tuple[Var, Operand]],
    ) -> None:
        self.shape = (*lead, 2)  # of the columns, all but 1 are alike
        self.loads, self.stores = loads, stores
        widest = max((x.shape[-1] for x in [*loads, *(x for x, _ in stores)] if x.shape), default=1)
        self.index = index_type((*lead, widest), [*loads.values(), *(x for _, x in stores)])
        self.places = {x: k for k, x in enumerate(loads)}
        self.numbers: dict[Var, str] = {}
        self.lines: list[str] = []
        self.count = 0

    def text(self, name: str, phases: Sequence[Phase]) -> str:
        """The whole text."""
        head = [
            f'extern "C" __global__ void {name}({parameters(self.loads, self.stores)}) {{',
            f"  const {self.index} at = blockIdx.x;",
            "  if (at >= count) return;",
            *index_lines(self.shape[:-1], self.index),
        ]
        for phase in phases:
            if phase.waits:
                self.lines.append("  __syncthreads();")
            for width, (equations, copies) in phase.loops.items():
                self._loop(width, equations, [store.value for store in copies])
            self._numbers(phase.numbers[0], [store.value for store in phase.numbers[1]])
        return "\n".join([PRELUDE + BLOCKS, *head, *self.lines, "}", ""])

    def _new(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def _load(self, x: Var) -> str:
        number, operand = self.places[x], self.loads[x]
        return loaded(f"a{number}[{offset(operand.strides, self.shape)}]", operand.dtype)

    def _loop(self, width: int, equations: Sequence[Equation], copied: Sequence[Var]) -> None:
        """All columns: what is computed of each, and the totals."""
        axis = f"i{len(self.shape) - 1}"
        names = dict(self.numbers)
        before: list[str] = []
        inside: list[str] = []
        after: list[str] = []

        def name_of(x: Var) -> str:
            if x not in names:
                names[x] = self._new()
                kind = computed_type(x.dtype)
                inside.append(f"    const {kind} {names[x]} = {self._load(x)};")
            return names[x]

        for equation in equations:
            (y,) = equation.outputs
            kind = computed_type(y.dtype)
            for x in equation.variables:
                name_of(x)
            if isinstance(equation.primitive, Elementwise):
                text = expression(equation, names)
                names[y] = self._new()
                inside.append(f"    const {kind} {names[y]} = {text};")
                continue
            over_block, step, start = _TOTALS.get(equation.primitive, _SUM)
            total, seen = self._new(), names[equation.inputs[0]]
            before.append(f"  {kind} {total} = ({kind})({start});")
            inside.append(f"    {total} = {step.format(total=total, x=seen)};")
            self.numbers[y] = self._new()
            whole = f"{over_block}({total})"
            if equation.primitive is reduction.mean:
                whole += f" * ({kind})(1.0 / {width})"
            after.append(f"  const {kind} {self.numbers[y]} = {_rounded(whole, y)};")
        for x in copied:
            name_of(x)
        columns = [x for equation in equations for x in equation.outputs if x in names]
        for x in dict.fromkeys([*columns, *copied]):
            inside += [f"    {line}" for line in self._store(x, names)]
        self.lines += [
            *before,
            f"  for (int {axis} = threadIdx.x; {axis} < {width}; {axis} += blockDim.x) {{",
            *inside,
            "  }",
            *after,
        ]
        totals = [x for equation in equations if is_reduction(equation) for x in equation.outputs]
        self._store_numbers(totals)

    def _numbers(self, equations: Sequence[Equation], copied: Sequence[Var]) -> None:
        """What is one number for the row: computed by every thread, stored by one."""
        known = self.numbers
        for equation in equations:
            (y,) = equation.outputs
            for x in equation.variables:
                self._load_number(x)
            text = expression(equation, known)
            known[y] = self._new()
            self.lines.append(f"  const {computed_type(y.dtype)} {known[y]} = {text};")
        for x in copied:
            self._load_number(x)
        made = [x for equation in equations for x in equation.outputs]
        self._store_numbers(dict.fromkeys([*made, *copied]))

    def _load_number(self, x: Var) -> None:
        if x not in self.numbers:
            self.numbers[x] = self._new()
            kind = computed_type(x.dtype)
            self.lines.append(f"  const {kind} {self.numbers[x]} = {self._load(x)};")

    def _store_numbers(self, values: Any) -> None:
        lines = [line for x in values for line in self._store(x, self.numbers)]
        if lines:
            self.lines += ["  if (threadIdx.x == 0) {", *(f"    {line}" for line in lines), "  }"]

    def _store(self, x: Var, names: Mapping[Var, str]) -> list[str]:
        """Everywhere where a value is to go."""
        return [
            f"b{number}[{offset(operand.strides, self.shape)}] = "
            f"{converted(names[x], x.dtype, operand.dtype)};"
            for number, (value, operand) in enumerate(self.stores)
            if value is x
        ]


def _rounded(text: str, x: Var) -> str:
    return f"from_half(to_half({text}))" if x.dtype == np.float16 else text
