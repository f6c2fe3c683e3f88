"""What is launched for an instruction, on given arrays?

A `Launch` is a function of addresses: of a kernel, compiled for how its operands lie, or of cuBLAS.
Its addresses move on by a fixed distance from step to step, so a launch of one step says what the
launches of all steps are. What is neither a kernel nor a product of matrices is computed by the
array library and copied to its place. Read schedule.py, source.py and cublas.py before this file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tinygrad_rnn.backend import namespace
from tinygrad_rnn.program import Equation, Var
from tinygrad_rnn.scan.cuda.clusters import EVERYWHERE, allow_any_size, room
from tinygrad_rnn.scan.cuda.cublas import Blas, matrix_of
from tinygrad_rnn.scan.cuda.persistent import ROWS, Loop, Tile, tile_of
from tinygrad_rnn.scan.cuda.persistent_source import persistent_source
from tinygrad_rnn.scan.cuda.rewriting import add_product
from tinygrad_rnn.scan.cuda.rows import row_source, threads_for
from tinygrad_rnn.scan.cuda.schedule import Call, Gemm, Instruction, Kernel, View, touched
from tinygrad_rnn.scan.cuda.source import THREADS, Operand, kernel_source

#: How a kernel is called in profiles.
NAME = "recurrence"


class Launch(NamedTuple):
    """function(*addresses) launches; `values` are the variables that lie at the addresses."""

    function: Callable[..., None]
    addresses: list[int]
    values: list[Var]


def bind(
    instruction: Kernel | Gemm, array: Callable[[Var], Any], products: Blas | None
) -> Launch | None:
    """The launch of an instruction on these arrays; None for nothing to do.

    array: gives the array of a variable.

    Raises CannotLaunch for a product that cuBLAS cannot do on arrays that lie so.
    """
    if isinstance(instruction, Gemm):
        return _bind_product(instruction.equation, array, products)
    return _bind_kernel(instruction, array)


class CannotLaunch(RuntimeError):
    """The array library must compute this itself."""


def _bind_kernel(kernel: Kernel, array: Callable[[Var], Any]) -> Launch | None:
    loads = {x: array(x) for x in kernel.loads}
    stores = [(store.value, store.part_of(array(store.target))) for store in kernel.stores]
    count = math.prod(kernel.shape)
    if not count or not stores:
        return None
    xp = namespace(stores[0][1])
    over = (*kernel.shape, 2) if kernel.phases else kernel.shape  # a row's columns are more than 1
    read = {x: _operand(found, over) for x, found in loads.items()}
    written = [(x, _operand(found, over)) for x, found in stores]
    if kernel.phases:
        text = row_source(NAME, kernel.shape, kernel.phases, read, written)
        grid, block = (count,), (threads_for(kernel.phases),)
    else:
        text = kernel_source(NAME, kernel.shape, kernel.equations, read, written)
        grid, block = (-(-count // THREADS),), (THREADS,)
    compiled = _compiled(xp, text)

    def launch(*addresses: int) -> None:
        compiled(grid, block, (*addresses, count))

    arrays = [*loads.values(), *(found for _, found in stores)]
    values = [*loads, *(store.target for store in kernel.stores)]
    return Launch(launch, [x.data.ptr for x in arrays], values)


def bind_loop(
    loop: Loop,
    tile: Tile,
    array: Callable[[Var], Any],
    move: Callable[[Var], int],
    length: int,
) -> Launch:
    """The launch of one kernel that runs a whole loop.

    array: gives the array of a variable at the first step. move: how many bytes further that of
    the next step lies. length: of steps.
    """
    of_products = [y for x in loop.products for y in (x.left, x.right, x.out, x.added_to)]
    others = [x for x in of_products if x is not None]
    xp = namespace(array(others[0]))
    written = [store.part_of(array(store.target)) for store in loop.stores]
    values = [*loop.loads, *(store.target for store in loop.stores), *others]
    arrays = [*map(array, loop.loads), *written, *map(array, others)]
    operands = {x: _operand(array(x), loop.shape) for x in loop.loads}
    operands.update((x, _operand(array(x), x.shape)) for x in others)
    stores = [_operand(found, loop.shape) for found in written]
    moves = [move(x) // x.dtype.itemsize for x in values]
    compiled = _compiled(xp, persistent_source(NAME, loop, tile, operands, stores, moves))
    if tile.shared > 48 << 10:  # what a block gets without asking
        compiled.max_dynamic_shared_size_bytes = tile.shared
    if tile.blocks > EVERYWHERE:
        allow_any_size(xp, compiled)
    rows = loop.shape[0]
    grid, block = (-(-rows // ROWS) * tile.blocks,), (tile.threads,)

    def launch(*addresses: int) -> None:
        compiled(grid, block, (*addresses, rows, length), shared_mem=tile.shared)

    return Launch(launch, [x.data.ptr for x in arrays], values)


def tile_on_gpu(loop: Loop, xp: Any) -> Tile | None:
    """How the current GPU shares out a loop that one kernel runs; None if it does not fit."""
    return tile_of(loop, room(xp, xp.cuda.Device().id))


def _operand(array: Any, shape: Sequence[int]) -> Operand:
    """How an array lies for a kernel over `shape`, to which it may have to be broadcast."""
    lead = len(shape) - array.ndim
    strides = [
        0 if size == 1 else stride // array.itemsize
        for size, stride in zip(array.shape, array.strides, strict=True)
    ]
    return Operand(array.dtype, (*(0,) * lead, *strides))


@functools.lru_cache(maxsize=4096)
def _compiled(xp: Any, text: str) -> Any:
    """The kernel of a text, compiled when it is first launched."""
    return xp.RawKernel(text, NAME)


def _bind_product(equation: Equation, array: Callable[[Var], Any], products: Blas | None) -> Launch:
    a, b, out = *equation.inputs[-2:], equation.outputs[0]
    arrays = [array(x) for x in (a, b, out)]
    seen = arrays if arrays[1].ndim == 3 else [_as_rows(x) for x in arrays]
    left, right, result = (None if x is None else matrix_of(x) for x in seen)
    if products is None or left is None or right is None or result is None or result.by_columns:
        raise CannotLaunch(equation.primitive.name)
    adding = equation.primitive is add_product
    function = products.product(left, right, result, out.dtype, adding)
    return Launch(function, [x.data.ptr for x in arrays], [a, b, out])


def _as_rows(array: Any) -> Any:
    """An array as one matrix of all its rows; None if it does not lie so."""
    if array.ndim < 3:
        return array
    return array.reshape(-1, array.shape[-1]) if array.flags.c_contiguous else None


def call(equation: Equation, operands: Sequence[Any], outs: Sequence[Any]) -> None:
    """Have the array library compute an equation, and copy the results to where they belong."""
    xp = namespace(*outs)
    made = equation.primitive.evaluate(xp, *operands, **equation.params)
    for out, result in zip(outs, made if type(made) is list else [made], strict=True):
        out[...] = result


class Bound(NamedTuple):
    """A launch, for as long as the arrays lie as they did when it was bound.

    forms: how they lie. offsets: how far into the arrays of its values the addresses are, in bytes.
    """

    forms: list[Any]
    launch: Launch | None
    offsets: list[int]


def run_at_once(
    instructions: Sequence[Instruction],
    ended: Sequence[Sequence[Var]],
    bound: dict[int, Bound],
    arrays: dict[Var, Any],
    xp: Any,
    products: Blas | None,
) -> None:
    """Run instructions on arrays, to which those of the results are added.

    A result that has an array already is written there. ended: whose arrays are given back after
    each instruction, so that the next can have the memory. bound: by the number of an instruction,
    its launch in an earlier run, which saves writing kernels anew; runs add theirs.
    """

    def array(x: Var) -> Any:
        if x not in arrays:
            arrays[x] = xp.empty(x.shape, x.dtype)
        return arrays[x]

    def run_equation(equation: Equation) -> None:
        operands = [array(x) if type(x) is Var else x for x in equation.inputs]
        call(equation, operands, [array(x) for x in equation.outputs])

    def run_launch(number: int, instruction: Kernel | Gemm) -> None:
        lie = [(x.shape, x.strides) for x in map(array, touched(instruction))]
        forms = [products, *lie]
        if number not in bound or bound[number].forms != forms:
            launch = bind(instruction, array, products)
            seen = () if launch is None else zip(launch.addresses, launch.values, strict=True)
            offsets = [address - array(x).data.ptr for address, x in seen]
            bound[number] = Bound(forms, launch, offsets)
        _, launch, offsets = bound[number]
        if launch is not None:
            places = zip(launch.values, offsets, strict=True)
            launch.function(*(array(x).data.ptr + offset for x, offset in places))

    for number, (instruction, done_with) in enumerate(zip(instructions, ended, strict=True)):
        if isinstance(instruction, View):
            equation = instruction.equation
            made = equation.primitive.evaluate(xp, array(equation.inputs[0]), **equation.params)
            several = made if type(made) is list else [made]
            arrays.update(zip(equation.outputs, several, strict=True))
        elif isinstance(instruction, Call):
            run_equation(instruction.equation)
        else:
            try:
                run_launch(number, instruction)
            except CannotLaunch:
                assert isinstance(instruction, Gemm)
                run_equation(instruction.equation)
        for x in done_with:
            del arrays[x]
