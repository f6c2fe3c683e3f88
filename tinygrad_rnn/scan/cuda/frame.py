"""What is one run of a plan on a GPU: memory for T steps, and the launches that fill it?

A Frame is built once for a T. A loop that one kernel can run is one launch. Of any other, the
addresses of a launch move on by a fixed distance from step to step, so all launches of the loop are
known beforehand: the second run captures them as a CUDA graph, and from then on a run of the loop
is one launch, too; where capture is refused, they are made one by one.

What a run hands out are views of the frame's memory, which is used again only when nobody holds one
any more. Sequences are read where they lie, and so are weights by one kernel for all steps; what
lies elsewhere in a later run is copied, from then on, to a place of its own. Read plan.py and
launches.py before this file.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from tinygrad_rnn.ops.lifting import lift
from tinygrad_rnn.precision import get_float32_matmul_precision
from tinygrad_rnn.program import Equation, Program, Trace, Var, evaluate
from tinygrad_rnn.scan import memory
from tinygrad_rnn.scan.cuda import cublas
from tinygrad_rnn.scan.cuda.launches import (
    Bound,
    CannotLaunch,
    Launch,
    bind,
    bind_loop,
    call,
    run_at_once,
)
from tinygrad_rnn.scan.cuda.plan import LAUNCHES, ONE_KERNEL, Plan, refusals, way
from tinygrad_rnn.scan.cuda.rewriting import add_product
from tinygrad_rnn.scan.cuda.schedule import (
    Call,
    Gemm,
    Instruction,
    View,
    last_touched,
    schedule,
    touched,
)
from tinygrad_rnn.scan.memory import Storage
from tinygrad_rnn.scan.partition import lift_all
from tinygrad_rnn.scan.parts import Call as Made
from tinygrad_rnn.scan.parts import make, run_part
from tinygrad_rnn.scan.sums import sum_of


class Lifted(NamedTuple):
    """What is done for all steps at once: instructions on values with T in front.

    ended: what is not needed any more after each instruction. bound: launches of earlier runs.
    inputs, outputs: the variables of the step whose values go in and come out, with their own here.
    """

    instructions: list[Instruction]
    ended: list[list[Var]]
    bound: dict[int, Bound]
    inputs: list[tuple[Var, Var]]
    outputs: list[tuple[Var, Var]]


class Refused(RuntimeError):
    """A GPU does not run a kernel for all steps, which is noted down: launches must run them."""


class Frame:
    """Memory and launches for runs of `length` steps in one direction, on one stream."""

    def __init__(self, plan: Plan, length: int, reverse: bool, xp: Any) -> None:
        self.plan, self.length, self.reverse, self.xp = plan, length, reverse, xp
        self.busy = False
        self._setting = _setting(xp)
        self._tile = plan.tile(xp)  # if one kernel runs the loop
        self._arrays: dict[Storage, Any] = {}
        self.carry = [xp.empty((length + 1, *x.shape), x.dtype) for x in plan.program.carry]
        in_loop = {plan.place(x).storage for x in self._in_memory()}
        for storage in in_loop:
            self._array(storage)
        self._read = {  # what the loop reads of what comes with each run
            storage: (plan.constants if storage.kind == memory.FIXED else plan.program.sequences)[
                storage.number
            ]
            for storage in in_loop
            if storage.kind in (memory.GIVEN, memory.FIXED)
        }
        self._before = self._lift(plan.parts.before, plan.stacked)
        self._after = self._lift(plan.parts.after, plan.parts.stacks)
        self._inputs = {*plan.program.sequences}
        self._given: dict[Storage, Any] = {}  # what the run that goes on was given
        self._places: dict[Storage, Any] = {}  # where that lay when the loop was bound to it
        self._copies: dict[Storage, Any] = {}  # of what does not stay where it was
        self._loop: list[Made] | None = None
        self._graph: Any = None
        self._pool: Any = None  # the graph's own memory
        arrays = [*self._arrays.values(), *self.carry]
        self.owners = [x.data.mem for x in arrays]
        self.nbytes = sum(x.nbytes for x in arrays)
        self._pointers = [x.data for x in arrays]  # a view has one of its own, or shares its base's
        self._references = self._count()

    @property
    def executor(self) -> str:
        """What has run the loop: "kernel" (one for all steps), "graph" or "launches"."""
        if self._graph is not None:
            return "graph"
        return "kernel" if self._loop is not None and len(self._loop) == 1 else "launches"

    def fits(self, plan: Any, length: int, reverse: bool) -> bool:
        """Whether this frame is for such a run, on the device and stream that are now current."""
        same = self.plan is plan and self.length == length and self.reverse == reverse
        return same and self._setting == _setting(self.xp)

    def idle(self) -> bool:
        """Whether the memory is not being used: no run, and no view that a run handed out."""
        return not self.busy and self._count() == self._references

    def _count(self) -> list[int]:
        """How often the memory is referred to: by allocations and by pointers to them."""
        return [sys.getrefcount(x) for x in (*self.owners, *self._pointers)]

    # Building.

    def _in_memory(self) -> list[Var]:
        """The values of a step that the loop finds or leaves in memory."""
        in_loop = (x for instruction in self.plan.loop for x in touched(instruction))
        return [*self.plan.stacked, *self.plan.next_carry, *in_loop]

    def _array(self, storage: Storage) -> Any:
        """The memory of a storage; of what is given, and of carries, there is other."""
        if storage.kind in (memory.GIVEN, memory.FIXED, memory.BEFORE, memory.AFTER):
            return None
        if storage not in self._arrays:
            lead = (self.length,) if storage.kind == memory.STACK else ()
            self._arrays[storage] = self.xp.empty((*lead, *storage.shape), storage.dtype)
        return self._arrays[storage]

    def _whole(self, storage: Storage) -> Any:
        """A storage's values for all steps, (T, …); one value for all, if there is only one."""
        if storage.kind in (memory.GIVEN, memory.FIXED):
            return self._given[storage]
        if storage.kind in (memory.BEFORE, memory.AFTER):
            whole = self.carry[storage.number]
            from_start = (storage.kind == memory.BEFORE) != self.reverse
            return whole[:-1] if from_start else whole[1:]
        return self._array(storage)

    def _moves(self, storage: Storage) -> bool:
        """Whether a storage has a value for each step."""
        return storage.kind not in (memory.SCRATCH, memory.FIXED)

    def _at(self, x: Var, t: int) -> Any:
        """A value at step t."""
        place = self.plan.place(x)
        whole = self._whole(place.storage)
        return place.of(whole[t, ...] if self._moves(place.storage) else whole)

    def _move(self, x: Var) -> int:
        """How many bytes further a value lies at the next step."""
        storage = self.plan.place(x).storage
        if not self._moves(storage):
            return 0
        stride: int = self._whole(storage).strides[0]
        return -stride if self.reverse else stride

    def _lift(self, equations: Sequence[Equation], wanted: Iterable[Var]) -> Lifted:
        """Equations of a step, for all steps at once; `wanted`: results to be written in place."""
        fixed = self.plan.parts.fixed_values
        made = {x for equation in equations for x in equation.outputs}
        trace = Trace()
        lifted: dict[Var, Var] = {}
        for x in dict.fromkeys(x for equation in equations for x in equation.variables):
            if x not in made:
                shape = x.shape if x in fixed else (self.length, *x.shape)
                lifted[x] = trace.input(x, x.name, shape)
        inputs = list(lifted.items())
        lift_all(equations, lifted, fixed)
        outputs = [(x, lifted[x]) for x in wanted if x in made]
        kept = Program(trace.equations, [], [], [], [], [y for _, y in outputs])
        instructions = schedule(kept.equations, kept.stacked)
        ended = last_touched(instructions, kept.stacked)
        return Lifted(instructions, ended, {}, inputs, outputs)

    def _bind_loop(self, products: cublas.Blas | None) -> list[Made]:
        """The launches of all steps, in order; one, where one kernel can run them all."""
        if not self.length:
            return []
        steps = range(self.length)
        order = steps[::-1] if self.reverse else steps
        first = partial(self._at, t=order[0])
        if self._tile is not None:
            assert self.plan.persistent is not None
            whole = bind_loop(self.plan.persistent, self._tile, first, self._move, self.length)
            return [(whole.function, whole.addresses)]
        columns: list[list[Made]] = []
        for instruction in self.plan.loop:
            if isinstance(instruction, View):
                continue
            if isinstance(instruction, Call):
                columns.append(self._calls(instruction.equation, order))
                continue
            try:
                launch = bind(instruction, first, products)
            except CannotLaunch:  # a product that cuBLAS cannot do on memory that lies so
                assert isinstance(instruction, Gemm)
                columns.append(self._calls(instruction.equation, order))
            else:
                if launch is not None:
                    columns.append(self._launches(launch))
        return [made for step in zip(*columns, strict=True) for made in step]

    def _launches(self, launch: Launch) -> list[Made]:
        """A launch at every step: its addresses, moved on."""
        moves = [self._move(x) for x in launch.values]
        return [
            (
                launch.function,
                [address + k * move for address, move in zip(launch.addresses, moves, strict=True)],
            )
            for k in range(self.length)
        ]

    def _calls(self, equation: Equation, order: Iterable[int]) -> list[Made]:
        """An equation that the array library computes, at every step."""
        return [
            (
                call,
                (
                    equation,
                    [self._at(x, t) if type(x) is Var else x for x in equation.inputs],
                    [self._at(x, t) for x in equation.outputs],
                ),
            )
            for t in order
        ]

    # Running.

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """The outputs for these inputs: arrays for the program's carry, sequences and constants."""
        plan, program, xp = self.plan, self.plan.program, self.xp
        count = len(program.carry)
        known = dict(zip(program.sequences + program.constants, inputs[count:], strict=True))
        known.update((x, xp.ascontiguousarray(known[x])) for x in program.sequences)
        run = partial(run_part, plan.order)
        products = cublas.blas(xp)
        known = run("fixed", evaluate, plan.parts.fixed, known)
        for number in range(count):
            self._first(number)[...] = inputs[number]
        self._take_in(known)
        try:
            run("before", self._run_before, known, products)
            self._run_loop(run, products)
        finally:
            self._given = {}  # hold on to no input, not even of a run that failed
        known.update(run("after", self._run_lifted, self._after, known, {}, products))
        sums = run("totals", self._sums, known)
        last = [self._last(number).copy() for number in range(count)]
        return [*last, *(self._stacked(x, known) for x in program.stacked), *sums]

    def _run_before(self, known: dict[Var, Any], products: cublas.Blas | None) -> None:
        places = {x: self._all(x, known) for x, _ in self._before.outputs}
        self._run_lifted(self._before, known, places, products)

    def _take_in(self, known: dict[Var, Any]) -> None:
        """Note where the loop finds what it is given; copy what lay elsewhere in an earlier run."""
        bound = self._loop is not None
        for storage, x in self._read.items():
            array = known[x]
            if storage not in self._copies:
                place = array.data.ptr, array.strides
                moved = bound and place != self._places[storage]
                if moved:
                    self._loop = self._graph = None
                if moved or self._is_copied(storage):
                    self._copies[storage] = self.xp.empty(array.shape, array.dtype)
                self._places[storage] = place
            if storage in self._copies:
                self._copies[storage][...] = array
                array = self._copies[storage]
            self._given[storage] = array

    def _is_copied(self, storage: Storage) -> bool:
        """Whether something is copied from the first run on.

        A matrix that cuBLAS reads: where it lies otherwise, its products are rounded otherwise.
        """
        return storage.kind == memory.FIXED and self._tile is None

    def _run_loop(self, run: Any, products: cublas.Blas | None) -> None:
        """By the graph; at first by launches, which also compiles what they need."""
        if self._loop is None:
            self._loop = self._bind_loop(products)
            self._references = self._count()  # calls hold some
            try:
                run("loop", make, self._loop)
            except Exception as error:
                if self._tile is None:
                    raise
                refusals[ONE_KERNEL] = f"{ONE_KERNEL}: {type(error).__name__}: {error}"
                raise Refused from error
            return
        if self._graph is None and self._may_capture(products):
            self._graph = self._capture(products)
        if self._graph is None:
            run("loop", make, self._loop)
        else:
            run("loop", self._graph.launch)

    def _may_capture(self, products: cublas.Blas | None) -> bool:
        """Whether a graph is worth a try: one launch is one launch."""
        several = self._loop is not None and len(self._loop) > 1
        possible = several and products is not None and self.plan.refused() is None
        return possible and way() in ("persistent", "graph")

    def _capture(self, products: Any) -> Any:
        """The launches of the loop as a CUDA graph; None if they cannot be, which is noted down."""
        xp, stream = self.xp, self.xp.cuda.Stream(non_blocking=True)
        self._pool = xp.cuda.MemoryPool()  # what calls allocate meanwhile belongs to the graph
        blamed, refused = LAUNCHES, None
        collecting = gc.isenabled()
        gc.disable()  # a collected graph would be an operation that capture does not allow
        try:
            with stream, xp.cuda.using_allocator(self._pool.malloc):
                products.use(stream.ptr)
                stream.begin_capture()
                for function, arguments in self._loop or []:
                    try:
                        function(*arguments)
                    except Exception as error:
                        blamed = arguments[0].primitive.name if function is call else LAUNCHES
                        refused = error
                        break
                graph = stream.end_capture()
        except Exception as error:
            refused = refused or error
        finally:
            products.use(xp.cuda.get_current_stream().ptr)
            if collecting:
                gc.enable()
        if refused is None:
            return graph
        refusals[blamed] = f"{blamed}: {type(refused).__name__}: {refused}"
        return None

    def _run_lifted(
        self,
        part: Lifted,
        known: dict[Var, Any],
        places: dict[Var, Any],
        products: cublas.Blas | None,
    ) -> dict[Var, Any]:
        """The outputs of a part, in their places if they have any."""
        arrays = {y: self._all(x, known) for x, y in part.inputs}
        arrays.update((y, places[x]) for x, y in part.outputs if x in places)
        run_at_once(part.instructions, part.ended, part.bound, arrays, self.xp, products)
        for x, y in part.outputs:
            if x in places and arrays[y] is not places[x]:  # a view of something else
                places[x][...] = arrays[y]
        return {x: arrays[y] for x, y in part.outputs}

    def _sums(self, known: dict[Var, Any]) -> list[Any]:
        fixed = self.plan.parts.fixed_values
        values = partial(self._all, known=known)
        return [sum_of(total, values, fixed, self.length) for total in self.plan.parts.totals]

    def _all(self, x: Var, known: dict[Var, Any]) -> Any:
        """The values of all steps, (T, …), or the value of what is the same at all steps."""
        if x in known:
            return known[x]
        host = self.plan.hosts.get(x)
        if host is None:
            return self._whole(self.plan.place(x).storage)
        base = self._all(host.inputs[0], known)
        if host.primitive is add_product:  # which was added to it, where it lies
            return base
        made = lift(host.primitive, [base], [True], [len(host.inputs[0].shape)], host.params)
        return made[x.index] if type(made) is list else made

    def _stacked(self, x: Var, known: dict[Var, Any]) -> Any:
        """A stack to hand out: a view of this frame's memory, or a copy of what is not its own."""
        values = self._all(x, known)
        if x in self.plan.parts.fixed_values:
            return self.xp.broadcast_to(values, (self.length, *x.shape)).copy()
        return values.copy() if x in self._inputs else values[...]

    def _first(self, number: int) -> Any:
        """Where the initial state of a carry goes."""
        return self.carry[number][self.length if self.reverse else 0, ...]

    def _last(self, number: int) -> Any:
        """Where the last state of a carry is."""
        return self.carry[number][0 if self.reverse else self.length, ...]


def _setting(xp: Any) -> tuple[Any, ...]:
    """What a frame's launches are made for: device, stream, precision of products, and how."""
    stream, precision = xp.cuda.get_current_stream().ptr, get_float32_matmul_precision()
    return xp.cuda.Device().id, stream, precision, way(), ONE_KERNEL in refusals
