"""What do the parts of a step cost on a GPU: an operation, a launch, a node of a graph, a product?

`operations` compares single operations of the engine with PyTorch's, called from Python one by one.
The others ask what a loop over time could cost at best, with CuPy, PyTorch and CUDA graphs alone:
they decide what is worth building. Each gives a Table for gpu_page.py. Read gpu_sides.py before
this file.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from gpu_cases import Case, draw, step_of
from gpu_sides import Side

#: What the figures are, a header, and rows.
Table = dict[str, Any]

Step = Callable[[], Any]

ROUNDS, CALLS = 5, 200
CHAIN = 512  # kernels that wait for one another
STEPS = 128  # of a recurrence, in a graph
LENGTHS = (512, 2048)  # steps of a layer
LAYERS = [(cell, B, H) for B, H in ((16, 128), (64, 128), (64, 256)) for cell in ("LSTM", "GRU")]

#: Name -> the shapes of the operands, and the operation.
OPERATIONS: dict[str, tuple[list[tuple[int, ...]], Callable[..., Any]]] = {
    "a + b, (64, 512) and (64, 512)": ([(64, 512), (64, 512)], lambda a, b: a + b),
    "a + b, (64, 512) and (512,)": ([(64, 512), (512,)], lambda a, b: a + b),
    "a.tanh(), (64, 512)": ([(64, 512)], lambda a: a.tanh()),
    "a.sum(), (64, 512)": ([(64, 512)], lambda a: a.sum()),
    "a @ b, (64, 512) and (512, 512)": ([(64, 512), (512, 512)], lambda a, b: a @ b),
    "a + b, (4096, 4096) and (4096, 4096)": ([(4096, 4096), (4096, 4096)], lambda a, b: a + b),
}


def operations(ours: Side, theirs: Side) -> Table:
    """Each operation in float32, forward alone, and forward and backward."""
    torch = theirs.library
    generator = torch.Generator(theirs.device).manual_seed(0)
    for side in (ours, theirs):
        side.set_tf32(False)
    rows = []
    for name, (shapes, operation) in OPERATIONS.items():
        drawn = [torch.randn(shape, generator=generator, device=theirs.device) for shape in shapes]
        columns = [
            (side, way(side, operation, drawn))
            for way in (forward, with_backward)
            for side in (ours, theirs)
        ]
        seen = [[a_call(side, step, CALLS) for side, step in columns] for _ in range(ROUNDS)]
        medians = map(statistics.median, zip(*seen, strict=True))
        rows.append([name, *(microseconds(median) for median in medians)])
    forwards, backwards = (
        [f"{library}{and_back} µs" for library in ("ours", "PyTorch")]
        for and_back in ("", ", and backward")
    )
    about = (
        f"In float32, called from Python one by one: the time of a call among {CALLS} in a row, "
        f"none of which waits for the GPU; medians over {ROUNDS} rounds that take turns."
    )
    return {"about": about, "header": ["operation", *forwards, *backwards], "rows": rows}


def forward(side: Side, operation: Callable[..., Any], drawn: list[Any]) -> Step:
    """The operation, with nothing to record."""
    operands = [side.given(tensor) for tensor in drawn]
    return lambda: operation(*operands)


def with_backward(side: Side, operation: Callable[..., Any], drawn: list[Any]) -> Step:
    """The operation, and the gradients of its operands for a given one of its result."""
    operands = [side.given(tensor).requires_grad_() for tensor in drawn]
    gradient = operation(*operands).detach()

    def step() -> None:
        for operand in operands:
            operand.grad = None
        operation(*operands).backward(gradient)

    return step


def a_call(side: Side, step: Step, calls: int) -> float:
    """Seconds of one call among many in a row, none of which waits for the GPU."""
    step()
    side.meter.wait()
    start = side.meter.mark()
    for _ in range(calls):
        step()
    end = side.meter.mark()
    side.meter.wait()
    return side.meter.seconds(start, end) / calls


def median_call(side: Side, step: Step, calls: int) -> float:
    """The median of some rounds of `a_call`."""
    return statistics.median(a_call(side, step, calls) for _ in range(ROUNDS))


def microseconds(seconds: float) -> str:
    """To read."""
    return f"{seconds * 1e6:.2f}"


# What follows needs a GPU.


def launches(cupy: Any, torch: Any, ours: Side, theirs: Side) -> Table:
    """What it takes to ask for a kernel from Python, and what a call takes among many."""
    a, b, out = (cupy.ones(shape, cupy.float32) for shape in ((64, 512), (512, 512), (64, 512)))
    ta, tb, tout = (torch.from_dlpack(array) for array in (a, b, out))
    kernel, size = add_one(cupy), cupy.int32(out.size)
    calls: dict[str, tuple[Side, Step]] = {
        "RawKernel": (ours, lambda: kernel((128,), (256,), (out, size))),
        "cupy.add(a, a, out=out)": (ours, lambda: cupy.add(a, a, out=out)),
        "cupy.matmul(a, b, out=out)": (ours, lambda: cupy.matmul(a, b, out=out)),
        "torch.add(a, a, out=out)": (theirs, lambda: torch.add(ta, ta, out=tout)),
        "torch.mm(a, b, out=out)": (theirs, lambda: torch.mm(ta, tb, out=tout)),
    }
    rows = [
        [
            name,
            microseconds(until_it_returns(side, call)),
            microseconds(median_call(side, call, CALLS)),
        ]
        for name, (side, call) in calls.items()
    ]
    about = (
        f"How long Python is busy with a call, and how long one takes among {CALLS} in a row, with "
        "a and out (64, 512) and b (512, 512)."
    )
    header = ["float32", "until it returns µs", "one of many µs"]
    return {"about": about, "header": header, "rows": rows}


def until_it_returns(side: Side, call: Step) -> float:
    """Seconds that the host spends on a call, as long as the GPU keeps up or its queue has room."""
    call()
    seconds = []
    for _ in range(ROUNDS):
        side.meter.wait()
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        seconds.append((time.perf_counter() - start) / CALLS)
    return statistics.median(seconds)


def add_one(cupy: Any) -> Any:
    """A kernel that does next to nothing: x[k] += 1 for k < n."""
    return cupy.RawKernel(
        'extern "C" __global__ void add_one(float *x, int n) {'
        " int k = blockIdx.x * blockDim.x + threadIdx.x; if (k < n) x[k] += 1.0f; }",
        "add_one",
    )


def graph_nodes(cupy: Any, ours: Side) -> Table:
    """A chain of tiny kernels, each waiting for the one before: launched, and as a CUDA graph."""
    x = cupy.zeros(128 * 256, cupy.float32)
    kernel = add_one(cupy)
    rows = []
    with cupy.cuda.Stream(non_blocking=True) as stream:
        for blocks in (1, 128):

            def chain(grid: int = blocks) -> None:
                for _ in range(CHAIN):
                    kernel((grid,), (256,), (x, cupy.int32(grid * 256)))

            chain()  # compiles, which a capture may not
            stream.begin_capture()
            chain()
            graph = stream.end_capture()
            times = [median_call(ours, run, 5) / CHAIN for run in (chain, graph.launch)]
            rows.append([str(blocks), *map(microseconds, times)])
    about = f"{CHAIN} tiny kernels, each waiting for the one before."
    header = ["blocks of 256 threads", "µs per launched kernel", "µs per node of a graph"]
    return {"about": about, "header": header, "rows": rows}


def recurrence_steps(cupy: Any, torch: Any, ours: Side, theirs: Side) -> Table:
    """A step of a recurrence at its simplest: z = x + h W, with W (H, 4H), and h = tanh(z's part).

    As a CUDA graph of many steps, which PyTorch captures, products included; as the same graph
    without the tanh; and launched from Python by CuPy: product, sum and tanh, in full float32.
    """
    rows = []
    for B, H in ((16, 256), (64, 256), (64, 512), (64, 1024), (256, 1024)):
        x, z, h, W = (
            torch.zeros(shape, device=theirs.device)
            for shape in ((B, 4 * H), (B, 4 * H), (B, H), (H, 4 * H))
        )

        def product(x: Any = x, h: Any = h, W: Any = W, z: Any = z) -> None:
            torch.addmm(x, h, W, out=z)

        def step(product: Step = product, z: Any = z, h: Any = h) -> None:
            product()
            torch.tanh(z[:, : h.shape[1]], out=h)

        def launched(arrays: Any = tuple(map(cupy.from_dlpack, (x, z, h, W)))) -> None:  # noqa: B008
            x, z, h, W = arrays
            cupy.matmul(h, W, out=z)
            cupy.add(z, x, out=z)
            cupy.tanh(z[:, : h.shape[1]], out=h)

        for tf32 in (False, True):
            theirs.set_tf32(tf32)
            times = [in_a_graph(torch, theirs, run) for run in (step, product)]
            by_cupy = "" if tf32 else microseconds(median_call(ours, launched, CALLS))
            precision = "TF32" if tf32 else "float32"
            rows.append([f"{B}, {H}", precision, *map(microseconds, times), by_cupy])
    about = (
        "z = x + h W, with W (H, 4H), then h = tanh of a part of z: this step, and its product "
        f"alone, in a CUDA graph of {STEPS} that PyTorch captured; and the step as CuPy runs it "
        "when Python asks for product, sum and tanh."
    )
    header = ["B, H", "precision", "step in a graph µs", "product in a graph µs", "by CuPy µs"]
    return {"about": about, "header": header, "rows": rows}


def layer_steps(ours: Side, theirs: Side) -> Table:
    """A step of a layer forward, by what runs the loop: from the difference of two lengths."""
    rows = []
    for cell, B, H in LAYERS:
        times = [_step(ours, theirs, cell, B, H, loop) for loop in ("persistent", "graph", None)]
        rows.append([cell, f"{B}, {H}", *map(microseconds, times)])
    short, long = LENGTHS
    about = (
        f"One layer forward in float32: the time of {long} steps less that of {short}, for each "
        "step between them, so without what a call costs."
    )
    header = ["layer", "B, H", "one kernel µs", "CUDA graph µs", "cuDNN µs"]
    return {"about": about, "header": header, "rows": rows}


def _step(ours: Side, theirs: Side, cell: str, B: int, H: int, loop: str | None) -> float:
    """Seconds. loop: as TINYGRAD_RNN_CUDA_LOOP; None for cuDNN."""
    side, way = (theirs, "cuDNN") if loop is None else (ours, "scan")
    seconds = []
    with mock.patch.dict(os.environ, TINYGRAD_RNN_CUDA_LOOP=loop or "persistent"):
        for T in LENGTHS:
            problem = draw(Case(cell, B, H, "float32", T), theirs.library, theirs.device)
            step = step_of(way, side, problem, training=False)
            for _ in range(2):  # the first compiles, the second captures
                step()
            seconds.append(median_call(side, step, 5))
    return (seconds[1] - seconds[0]) / (LENGTHS[1] - LENGTHS[0])


def in_a_graph(torch: Any, theirs: Side, step: Step) -> float:
    """Seconds of a step as part of a CUDA graph of many."""
    theirs.meter.wait()
    with torch.cuda.stream(torch.cuda.Stream()):  # cuBLAS gets its workspace before the capture
        step()
    theirs.meter.wait()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(STEPS):
            step()
    return median_call(theirs, graph.replay, 5) / STEPS
