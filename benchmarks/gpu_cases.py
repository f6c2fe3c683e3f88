"""What is compared on a GPU: one layer, forward, and forward and backward, in each of three ways.

A Case is a cell, a size and a precision. `scan` is tinygrad_rnn; `cuDNN` is PyTorch's layer, of
those cells that have one; `loop` is PyTorch as one writes it for a cell of one's own: Python calls
the cell T times. `measure` compares what they compute, then times those that agree in alternating
blocks, and says of the others why they have no time. Read gpu_sides.py before this file; gpu.py
decides which cases are measured.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpu_floor import BLOCKS
from gpu_sides import Side
from recurrent_columns import torch_loop, training_step

from tinygrad_rnn.scan import scan
from tinygrad_rnn.scan.pool import pool

#: What PyTorch has a layer for, and the cells that are written with tensors below.
LAYERS = ("LSTM", "GRU", "RNN")
CUSTOM = ("MGU", "layer-norm LSTM")

WAYS = ("scan", "cuDNN", "loop")

DIFFERS = "differs from PyTorch in float32 by {:.1e}"
ENDED_A_RUN = "a run of the benchmark ended in this case"

#: Medians are over the calls of so many blocks, each of at most so many calls; and of so many at
#: least of a step that takes so long that it must miss some blocks.
BLOCKS_OF_CALLS, MOST_CALLS, LEAST_CALLS = 5, 200, 3


class Precision(NamedTuple):
    """dtype, whether TF32 is allowed, and how far a result may be from PyTorch's in float32.

    The difference is the largest of an array, relative to the array's largest value.
    """

    dtype: str
    tf32: bool
    tolerance: float


PRECISIONS = {
    "float32": Precision("float32", False, 1e-4),
    "TF32": Precision("float32", True, 2e-2),
    "float16": Precision("float16", False, 2e-2),
    "bfloat16": Precision("bfloat16", False, 1e-1),
}

Step = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One layer in one direction, D = H: T steps, B sequences, H units, from zero states."""

    cell: str
    B: int
    H: int
    precision: str
    T: int = 512

    @property
    def name(self) -> str:
        return f"{self.cell}, B {self.B}, H {self.H}, {self.precision}"

    @property
    def ways(self) -> tuple[str, ...]:
        return WAYS if self.cell in LAYERS else ("scan", "loop")


@dataclass
class Problem:
    """A case's numbers, as PyTorch's tensors on its device, in the case's dtype."""

    case: Case
    x: Any  # (T, B, H)
    weights: dict[str, Any]
    grad_out: Any  # (T, B, H)

    def in_float32(self) -> Problem:
        """The same numbers in float32."""
        weights = {name: weight.float() for name, weight in self.weights.items()}
        return Problem(self.case, self.x.float(), weights, self.grad_out.float())


def draw(case: Case, torch: Any, device: str) -> Problem:
    """Weights from U(-1/√H, 1/√H), standard normal inputs, gains of layer norms near 0.1.

    With gains near 1, states of the LSTM with layer norms that differ by a rounding error have
    nothing in common after 300 steps, whoever computes them. 0.1 is the gain that Cooijmans et al.
    2016, "Recurrent batch normalization", arXiv 1603.09025, begin with.
    """
    H, rows = case.H, BLOCKS[case.cell] * case.H
    if case.cell in LAYERS:
        shapes = {"weight_ih_l0": (rows, H), "weight_hh_l0": (rows, H)}
        shapes |= {"bias_ih_l0": (rows,), "bias_hh_l0": (rows,)}
    elif case.cell == "MGU":
        shapes = {"W_x": (H, rows), "b": (rows,), "W_f": (H, H), "W_n": (H, H)}
    else:
        shapes = {"W_x": (H, rows), "W_h": (H, rows), "b": (rows,)}
        shapes |= {"gain_x": (rows,), "gain_h": (rows,), "gain_c": (H,), "b_c": (H,)}
    generator = torch.Generator(device).manual_seed(0)
    dtype = getattr(torch, PRECISIONS[case.precision].dtype)
    weights = {}
    for name, shape in shapes.items():
        weight = torch.rand(shape, generator=generator, device=device)
        weight = (2 * weight - 1) * H**-0.5
        if name.startswith("gain"):
            weight = 0.1 * (1 + weight)
        weights[name] = weight.to(dtype)
    x, grad_out = (
        torch.randn(case.T, case.B, H, generator=generator, device=device).to(dtype)
        for _ in range(2)
    )
    return Problem(case, x, weights, grad_out)


# The cells of one's own: the same text for both libraries.


def minimal_gated_unit(library, W_x, b, W_f, W_n):
    """Zhou, Wu, Zhang and Zhou 2016, arXiv 1603.09420, as in README.md."""

    def step(x, h):
        x_f, x_n = (x @ W_x + b).chunk(2, -1)  # (B, H) each
        f = (x_f + h @ W_f).sigmoid()
        n = (x_n + (f * h) @ W_n).tanh()
        h = h + f * (n - h)
        return h, h

    return step


def layer_norm_lstm(library, W_x, W_h, b, gain_x, gain_h, gain_c, b_c):
    """Ba, Kiros and Hinton 2016, "Layer normalization", arXiv 1607.06450, equations 20 to 22."""
    layer_norm = library.nn.functional.layer_norm
    rows, units = gain_x.shape, gain_c.shape

    def step(x, state):
        h, c = state
        z = layer_norm(x @ W_x, rows, gain_x, b) + layer_norm(h @ W_h, rows, gain_h)
        i, f, g, o = z.chunk(4, -1)  # (B, H) each
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * layer_norm(c, units, gain_c, b_c).tanh()
        return h, (h, c)

    return step


# Each way as a function that computes the outputs, and the leaves that gradients go to.


class Runnable(NamedTuple):
    """outputs() gives (T, B, H); `leaves` are x and the weights."""

    outputs: Step
    leaves: list[Any]


def build(way: str, side: Side, problem: Problem, training: bool) -> Runnable:
    """A problem, to be computed by that way of that side."""
    x = side.given(problem.x).requires_grad_(training)
    if problem.case.cell in CUSTOM:
        recurrence = scan if way == "scan" else torch_loop
        return _custom_cell(side, problem, x, recurrence, training)
    make = _cells_loop if way == "loop" else _layer
    module, outputs = make(side, problem, x)
    module.train(training)  # where nothing is to be trained, cuDNN keeps nothing for backward
    return Runnable(outputs, [x, *module.parameters()])


def _layer(side: Side, problem: Problem, x: Any) -> tuple[Any, Step]:
    """nn.LSTM, nn.GRU or nn.RNN."""
    module = _module(side, problem, problem.case.cell, "")
    return module, lambda: module(x)[0]


def _cells_loop(side: Side, problem: Problem, x: Any) -> tuple[Any, Step]:
    """nn.LSTMCell and so on, called step by step; of an LSTM and a GRU PyTorch fuses the gates."""
    module = _module(side, problem, f"{problem.case.cell}Cell", "_l0")
    state = _zeros(side, problem)

    def cell(x, state):
        state = module(x, state)
        return (state[0] if problem.case.cell == "LSTM" else state), state

    return module, lambda: torch_loop(cell, x, state)[0]


def _module(side: Side, problem: Problem, name: str, suffix: str) -> Any:
    """A module of `nn` with the problem's weights, whose names lose the suffix."""
    H, dtype = problem.case.H, getattr(side.library, str(problem.x.dtype).removeprefix("torch."))
    module = getattr(side.library.nn, name)(H, H, device=side.device, dtype=dtype)
    module.load_state_dict(
        {key.removesuffix(suffix): side.given(w) for key, w in problem.weights.items()}
    )
    return module


def _custom_cell(
    side: Side, problem: Problem, x: Any, recurrence: Callable[..., Any], training: bool
) -> Runnable:
    """One of the cells above, run by recurrence(cell, xs, state)."""
    make = minimal_gated_unit if problem.case.cell == "MGU" else layer_norm_lstm
    weights = {
        name: side.given(weight).requires_grad_(training)
        for name, weight in problem.weights.items()
    }
    cell, state = make(side.library, **weights), _zeros(side, problem)
    return Runnable(lambda: recurrence(cell, x, state)[0], [x, *weights.values()])


def _zeros(side: Side, problem: Problem) -> Any:
    """The state before the first step."""
    zeros = side.given(problem.x[0] * 0)
    return (zeros, zeros) if "LSTM" in problem.case.cell else zeros


def step_of(way: str, side: Side, problem: Problem, training: bool) -> Step:
    """One call: the outputs without recording; or forward and backward, giving the gradients."""
    outputs, leaves = build(way, side, problem, training)
    if training:
        return training_step(outputs, leaves, side.given(problem.grad_out))

    def forward() -> list[Any]:
        with side.library.no_grad():
            return [outputs()]

    return forward


# Measuring.


def measure(case: Case, ours: Side, theirs: Side, seconds: float) -> dict[str, Any]:
    """What is found for a case: plain data, {"forward": …, "training": …}, each of `compare`.

    seconds: to spend on timing each of the two; slow steps take longer.
    """
    torch = theirs.library
    problem = draw(case, torch, theirs.device)
    return {
        phase: compare(problem, ours, theirs, phase == "training", seconds)
        for phase in ("forward", "training")
    }


def ended_a_run(case: Case) -> dict[str, Any]:
    """What is found for a case in which a run broke off: as of `measure`, with no times."""
    nothing: dict[str, Any] = {"seconds": {}, "calls": {}, "bytes": {}, "error": {}, "executor": ""}
    failed = dict.fromkeys(case.ways, ENDED_A_RUN)
    return {phase: {**nothing, "failed": failed} for phase in ("forward", "training")}


def compare(
    problem: Problem, ours: Side, theirs: Side, training: bool, seconds: float
) -> dict[str, Any]:
    """Each way of one phase, by its name.

    seconds: the median of the calls, of which there were `calls`. bytes: the most that was occupied
    at one time, without x and the gradient of the outputs. error: the largest difference from
    PyTorch in float32 without TF32. failed: why there is no time, for a way that has none.
    executor: what ran the loop of `scan`.
    """
    case = problem.case
    precision = PRECISIONS[case.precision]
    theirs.set_tf32(False)
    best = "loop" if case.cell in CUSTOM else "cuDNN"
    wanted = taken(theirs, step_of(best, theirs, problem.in_float32(), training)())

    names = ("seconds", "calls", "bytes", "error", "failed")
    found: dict[str, Any] = {**{name: {} for name in names}, "executor": ""}
    steps: dict[str, tuple[Step, Side]] = {}
    for way in reversed(case.ways):  # scan last: a kernel that fails may spoil what comes after
        side = ours if way == "scan" else theirs
        side.set_tf32(precision.tf32)
        side.meter.release()
        if way == "scan" and not hasattr(side.library, precision.dtype):
            found["failed"][way] = f"{precision.dtype} is not supported"
            continue
        before = side.meter.used()
        try:
            step = step_of(way, side, problem, training)
            step()
            results: list[Any] = []  # of the second: by then a graph is captured
            highest = side.meter.highest(lambda step=step, got=results: got.extend(step()))
            found["error"][way] = worst_error(taken(side, results), wanted)
            del results  # so that others can have the memory
        except Exception as error:  # one that fails must not end a run of many
            side.meter.wait()  # fails if this process has lost the GPU, and says after what
            found["failed"][way] = f"{type(error).__name__}: {' '.join(str(error).split())}"
            continue
        if not found["error"][way] <= precision.tolerance:
            found["failed"][way] = DIFFERS.format(found["error"][way])
            continue
        if before is not None and highest is not None:
            found["bytes"][way] = highest - before
        if way == "scan":
            found["executor"] = executor()
        steps[way] = step, side
    for way, times in alternate(steps, seconds).items():
        found["seconds"][way], found["calls"][way] = statistics.median(times), len(times)
    for way, (step, side) in steps.items():  # what went wrong only now and then went wrong, too
        error = worst_error(taken(side, step()), wanted)
        if not error <= precision.tolerance:
            found["error"][way], found["failed"][way] = error, DIFFERS.format(error)
            del found["seconds"][way], found["calls"][way]
    return found


def executor() -> str:
    """What ran the loop of the last `scan` on a GPU: one kernel, a CUDA graph, or launches."""
    return getattr(pool.newest, "executor", "interpret")


def taken(side: Side, results: Sequence[Any]) -> list[Any]:
    """The results as PyTorch's tensors, in float32."""
    return [side.taken(result).float() for result in results]


def worst_error(found: Sequence[Any], wanted: Sequence[Any]) -> float:
    """How far any array is from what is wanted, relative to its largest value; nan for any nan."""
    errors = [
        float((f - w).abs().max() / w.abs().max()) for f, w in zip(found, wanted, strict=True)
    ]
    return max(errors, key=lambda error: float("inf") if error != error else error)


def alternate(steps: dict[str, tuple[Step, Side]], seconds: float) -> dict[str, list[float]]:
    """The times of each step, in seconds, from blocks of calls that take turns.

    Within a block nobody waits for the GPU, as in a program that trains: work is asked for while
    earlier work is being done. The first call of a block finds nothing to wait behind, and does not
    count, unless the step is so long that it is the only one. Such a step also leaves out blocks
    when it has had its share of the time.
    """
    times: dict[str, list[float]] = {way: [] for way in steps}
    if not steps:
        return times
    share = seconds / BLOCKS_OF_CALLS / len(steps)
    calls = {}
    for way, (step, side) in steps.items():
        [once] = block(step, side, 1)
        calls[way] = min(int(share / once) + 1, MOST_CALLS)
        times[way] += [once] * (calls[way] == 1)
    for _ in range(BLOCKS_OF_CALLS):
        for way, (step, side) in steps.items():
            if len(times[way]) >= LEAST_CALLS and sum(times[way]) > seconds / len(steps):
                continue
            times[way] += block(step, side, calls[way])[min(1, calls[way] - 1) :]
    return times


def block(step: Step, side: Side, calls: int) -> list[float]:
    """The times of so many calls in a row."""
    meter = side.meter
    meter.wait()
    marks = [meter.mark()]
    for _ in range(calls):
        step()
        marks.append(meter.mark())
    meter.wait()
    return [meter.seconds(a, b) for a, b in itertools.pairwise(marks)]
