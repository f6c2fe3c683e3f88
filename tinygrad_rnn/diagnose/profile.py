"""Where does the time go, and how much memory is made on the way?

A watch with a clock: it times each operation forward, each node's turn backward, and within scans
each part of the step and of its pullback (scan/partition.py), in the loop each kind of instruction.
Read `modes.Watch` and `scan/parts.py` before this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from tinygrad_rnn import backend, cuda
from tinygrad_rnn.autodiff import output_edges
from tinygrad_rnn.diagnose.kept import owner
from tinygrad_rnn.diagnose.table import bytes_, seconds, table
from tinygrad_rnn.graph import Turn
from tinygrad_rnn.modes import Watch, current
from tinygrad_rnn.ops.linear import Products
from tinygrad_rnn.ops.primitive import Primitive
from tinygrad_rnn.program import evaluate
from tinygrad_rnn.scan.interpret import interpret
from tinygrad_rnn.scan.parts import Call, make
from tinygrad_rnn.scan.replay.instructions import Instruction


class Row(NamedTuple):
    """One line of a profile.

    section: "forward" or "backward": `name` is an operation. "outside": all else that took time.
        "step", "pullback": `name` is a part of a scan. "step loop", "pullback loop": it is what
        NumPy was told to do in that part. "scan": what scans did besides.
    calls: how often it was done; the loop's are its steps, or its runs where a GPU gets the whole
        loop at once. seconds: in all. bytes: of its results, where they are not views of what went
        in, nor in memory that a GPU keeps for them.
    """

    section: str
    name: str
    calls: int
    seconds: float
    bytes: int


#: The parts of a scan, in the order in which they run; see scan/partition.py.
PARTS = ("fixed", "before", "loop", "after", "totals")
SMALL = 0.002  # the share of the time below which the table puts operations together


class profile(Watch):
    """Time and count all that is computed in a `with` block; print it to see a table.

    The rows of forward, backward and outside add up to `seconds`, the block's time by the clock.
    A backward row is the work of the operation's rules; "contract" are gradients of weights, which
    are collected and then multiplied at once (ops/linear.py). What rules record for double backward
    does not count again. The other sections say once more, in detail, what is inside "recur"; its
    "rest" is laying out memory for a new step or length, and copies.

    It looks at the thread that entered the block. Profiles may be nested; one that is entered again
    goes on counting. Results on a GPU are waited for: their times are their own, and the whole is
    slower than without a profile. On a CPU it adds about 2 µs to an operation forward, 6 backward,
    and 0.2 to an instruction in a loop: 2% of a training step of an LSTM with 128 units by scan.

    >>> import tinygrad_rnn as torch
    >>> lstm = torch.nn.LSTM(20, 30)
    >>> with profile() as p:
    ...     ys, _ = lstm(torch.randn(50, 8, 20))
    ...     ys.sum().backward()
    >>> {row.name: row.calls for row in p.rows if row.section == "step"}
    {'fixed': 1, 'before': 1, 'loop': 50, 'after': 1, 'totals': 1}
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], list[Any]] = {}  # calls, seconds, bytes
        self._clock = 0.0  # of the blocks that have ended
        self._entered: float | None = None
        self._outer: profile | None = None
        self._started = 0.0  # the operation that is being computed
        self._turns = 0  # of nodes, one within another
        self._in_part = False

    def __enter__(self) -> profile:
        if self._entered is not None:
            raise RuntimeError("profile: this profile is running already; make another one")
        self._outer, current.profile = current.profile, self
        super().__enter__()
        self._entered = perf_counter()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._clock, self._entered = self.seconds, None
        super().__exit__(*exc_info)
        current.profile, self._outer = self._outer, None

    @property
    def seconds(self) -> float:
        """The time in the block so far, by the clock."""
        return self._clock + (0.0 if self._entered is None else perf_counter() - self._entered)

    @property
    def rows(self) -> list[Row]:
        """All that was counted, section by section; operations with the most expensive first."""
        found = [Row(*key, *counts) for key, counts in self._counts.items()]
        operations = [row for row in found if row.section in ("forward", "backward")]
        parts = [row for row in found if row not in operations and row.name in PARTS]
        found.append(Row("outside", "", 0, self.seconds - _sum_of(operations).seconds, 0))
        recur = _sum_of(row for row in operations if row.name == "recur")
        if parts:
            rest = recur.seconds - _sum_of(parts).seconds
            found.append(Row("scan", "rest", recur.calls, rest, 0))
        return sorted(found, key=_order)

    # What a watch is told.

    def before(self, primitive: Primitive, operands: Sequence[Any]) -> None:
        """An operation starts."""
        self._started = perf_counter()

    def after(
        self, primitive: Primitive, operands: Sequence[Any], params: dict[str, Any], made: Any
    ) -> None:
        """It has ended."""
        if self._turns:
            return
        results = made if type(made) is list else [made]
        _wait_for(results)
        time = perf_counter() - self._started
        self._add("forward", primitive.name, 1, time, _new_bytes(results, operands))

    def pulling(self, turn: Turn) -> Iterator[None]:
        """Time a node's turn, unless it is part of another's."""
        earlier = [turn.known.get(edge) for edge in turn.edges]
        given = map(turn.known.get, output_edges(turn.node))
        there = [*given, *turn.outputs, *turn.inputs, *earlier]
        self._turns += 1
        start = perf_counter()
        try:
            yield
            made = [turn.known.get(edge) for edge in turn.edges]
            _wait_for(made)
            if self._turns == 1:
                time = perf_counter() - start
                self._add("backward", turn.node.primitive.name, 1, time, _new_bytes(made, there))
        finally:
            self._turns -= 1

    def summing(self, products: Products) -> Iterator[None]:
        """Time the product that gives a weight's gradient."""
        arrays = products.arrays()
        start = perf_counter()
        yield
        if arrays and not self._turns:
            _wait_for(arrays)
            a, b = arrays[:2]
            size = a.shape[-1] * b.shape[-1] * a.itemsize
            self._add("backward", "contract", 1, perf_counter() - start, size)

    # What scans tell.

    def run_part(
        self, order: int, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> Any:
        """Run a part of a scan, and time it; see `scan/parts.py`."""
        # A scan in a step of another counts as an operation there; and one that is run on ones, to
        # write a step down, is part of that.
        if self._in_part or current.trace is not None:
            return function(*arguments)
        section = ("step", "pullback", *(f"pullback {k}" for k in range(2, order + 1)))[order]
        self._in_part = True
        start = perf_counter()
        try:
            if function is make and len(arguments) == 2:  # the calls of NumPy's loop
                calls, size = self._make_one_by_one(f"{section} loop", *arguments)
                result = None
            else:
                result = function(*arguments)
                calls, size = _done(name, function, arguments, result)
        finally:
            self._in_part = False
        self._add(section, name, calls, perf_counter() - start, size)
        return result

    def _make_one_by_one(
        self, section: str, calls: Sequence[Call], instructions: Sequence[Instruction]
    ) -> tuple[int, int]:
        """Make the calls of a loop, timing each; the number of steps and of bytes written."""
        spent = [0.0] * len(instructions)
        last = perf_counter()
        for place, (function, arguments) in zip(cycle(range(len(spent))), calls, strict=False):
            function(*arguments)
            now = perf_counter()
            spent[place] += now - last
            last = now
        steps, total = len(calls) // max(len(instructions), 1), 0
        for instruction, time in zip(instructions, spent, strict=True):
            size = steps * _bytes_of_place(instruction)
            self._add(section, instruction.function.__name__.strip("_"), steps, time, size)
            total += size
        return steps, total

    def _add(self, section: str, name: str, calls: int, time: float, size: int) -> None:
        counts = self._counts.setdefault((section, name), [0, 0.0, 0])
        for place, more in enumerate((calls, time, size)):
            counts[place] += more
        if self._outer is not None and section not in ("forward", "backward"):
            self._outer._add(section, name, calls, time, size)  # which watches operations itself

    # The table.

    def __str__(self) -> str:
        rows, whole = self.rows, self.seconds

        def line(name: str, row: Row) -> list[str]:
            calls = f"{row.calls:,}" if row.calls else ""
            share = f"{row.seconds / whole:.1%}" if whole else ""
            return [
                name,
                calls,
                seconds(row.seconds),
                share,
                bytes_(row.bytes) if row.bytes else "-",
            ]

        def inside(section: str, indent: str) -> Iterator[list[str]]:
            several = [row for row in rows if row.section == section]
            shown = [row for row in several if row.seconds > SMALL * whole or row.name in PARTS]
            for row in shown:
                yield line(indent + row.name, row)
                if row.name == "loop":
                    yield from inside(f"{section} loop", indent * 2)
            others = [row for row in several if row not in shown]
            if len(others) == 1:
                yield line(indent + others[0].name, others[0])
            elif others:
                yield line(f"{indent}{len(others)} more", _sum_of(others))

        lines = []
        for section in dict.fromkeys(row.section for row in rows):
            several = _sum_of(row for row in rows if row.section == section)
            if section in ("forward", "backward"):
                lines += [line(section, several), *inside(section, "  ")]
            elif section == "outside":
                lines += [
                    line("outside of operations", several),
                    line("total", Row("", "", 0, whole, 0)),
                ]
            elif section == "scan":
                lines.append(line("scan: rest", several))
            elif not section.endswith("loop"):
                lines += [
                    line(f"scan: {section}", several._replace(calls=0)),
                    *inside(section, "  "),
                ]
        return "\n".join(table("lrrrr", ["", "calls", "time", "share", "bytes"], lines))

    __repr__ = __str__


def _sum_of(rows: Iterable[Row]) -> Row:
    """Several rows in one."""
    several = list(rows)
    return Row(
        "",
        "",
        sum(row.calls for row in several),
        sum(row.seconds for row in several),
        sum(row.bytes for row in several),
    )


def _order(row: Row) -> tuple[Any, ...]:
    """Where a row stands: parts in the order of a run, all else by time."""
    sections = ("forward", "backward", "outside", "step", "step loop", "pullback", "pullback loop")
    section = sections.index(row.section) if row.section in sections else len(sections)
    part = PARTS.index(row.name) if row.name in PARTS else len(PARTS)
    return section, row.section == "scan", row.section, part, -row.seconds


def _wait_for(values: Iterable[Any]) -> None:
    """Wait until a GPU has computed the values, if they are on one."""
    for value in values:
        array = getattr(value, "array", value)
        if type(array) is not np.ndarray and backend.is_array(array):
            cuda.synchronize(backend.device_of(array))
            return


def _new_bytes(made: Iterable[Any], there: Iterable[Any]) -> int:
    """The memory of arrays or Tensors, but for what is a view of something that was there."""
    known = {id(_owner(value)) for value in there}
    size = 0
    for value in made:
        mine = _owner(value)
        if id(mine) not in known and mine is not None:
            known.add(id(mine))
            size += getattr(value, "array", value).nbytes
    return size


def _owner(value: Any) -> Any:
    """What owns the memory of an array or a Tensor; None for anything else."""
    array = getattr(value, "array", value)
    if type(array) is np.ndarray or backend.is_array(array):
        return array if type(array) is np.ndarray and array.base is None else owner(array)
    return None


def _done(
    name: str, function: Callable[..., Any], arguments: tuple[Any, ...], result: Any
) -> tuple[int, int]:
    """How often a part of a scan counts as called, and the bytes that it has made."""
    if function is make and name != "loop":  # on a strip; the last argument is where a result goes
        return 1, sum(operands[-1].nbytes for _, operands in arguments[0])
    if result is None:  # launches on a GPU, which write into memory of its own
        cuda.synchronize()
        return 1, 0
    if function is evaluate:
        equations, known = arguments
        made = [result[x] for equation in equations for x in equation.outputs]
        _wait_for(made)
        return 1, _new_bytes(made, known.values())
    made = list(result.values() if type(result) is dict else result)
    _wait_for(made)
    steps = arguments[3] if function is interpret else 1
    return steps, sum(array.nbytes for array in made)


def _bytes_of_place(instruction: Instruction) -> int:
    """The size of an instruction's result at one step."""
    storage, start, stop, _ = instruction.out
    wide = math.prod(storage.shape[:-1]) * (stop - start) if storage.shape else 1
    return wide * int(storage.dtype.itemsize)
