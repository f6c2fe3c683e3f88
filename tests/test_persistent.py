"""A loop that one kernel runs from the first step to the last: which, how shared out, how right.

What it computes is compared with `interpret`. On the test double of CuPy the threads of a cluster
are fibers and shared memory is poisoned, so that a wait or a zero that is missing is found. What
steps hand to each other, and which memory is touched: test_persistent_hazards.py.
"""

import numpy as np
import pytest
import strict_double
from arrays import host, on_device
from persistent_loops import KNOWN, LARGE, LARGER, check, frame_of, plans_of, step_of
from strict_double.compiled import RawKernel
from test_scan_cuda import check_plan, inputs_of, pulled_back

import tinygrad_rnn as torch
from tinygrad_rnn import backend
from tinygrad_rnn.scan import cuda
from tinygrad_rnn.scan.cuda import launches
from tinygrad_rnn.scan.cuda.clusters import Room
from tinygrad_rnn.scan.cuda.persistent import tile_of
from tinygrad_rnn.scan.cuda.plan import refusals
from tinygrad_rnn.scan.cuda.schedule import Kernel
from tinygrad_rnn.scan.interpret import interpret
from tinygrad_rnn.scan.pool import pool
from tinygrad_rnn.scan.scan import trace_step

pytestmark = pytest.mark.usefixtures("one_kernel")


# --- which loops ----------------------------------------------------------------------------------

ONE_PRODUCT = ("RNN tanh", "RNN relu", "LSTM", "GRU", "LSTM peephole", "sLSTM", "two gates")
TWO_PRODUCTS = ("GRU reset before", "MGU", "weight twice")  # in turn


def in_words(loop):
    """What a step does, in order."""
    return " ".join("kernel" if isinstance(x, Kernel) else "product" for x in loop.step)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", [*ONE_PRODUCT, "tokens", "masked pair", "module"])
def test_one_kernel_runs_a_product_and_what_follows_it(name, dtype):
    """Pulled back, the kernel comes first; pulled back twice, the product again."""
    found = [in_words(plan.persistent) for plan in plans_of(KNOWN[name], dtype)]
    assert found == ["product kernel", "kernel product", "product kernel"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", TWO_PRODUCTS)
def test_one_kernel_runs_two_products_in_turn(name, dtype):
    found = [in_words(plan.persistent) for plan in plans_of(KNOWN[name], dtype)]
    there, back = "product kernel product kernel", "kernel product kernel product"
    assert found == [there, back, there]


def test_one_kernel_runs_two_layers():
    """Both states are multiplied at once, and then what the lower layer has computed."""
    found = [in_words(plan.persistent) for plan in plans_of(KNOWN["two layers"])]
    there = "product product kernel product kernel"
    assert found == [there, "kernel product kernel product", there]


@pytest.mark.parametrize("name", [*ONE_PRODUCT, *TWO_PRODUCTS])
def test_no_kernel_runs_double_precision(name):
    """Half as many weights would fit in registers, and products by thread are slow."""
    assert [plan.persistent for plan in plans_of(KNOWN[name], "float64")] == [None] * 3


WHY_NOT = {
    "LSTM layer norm": "sums along rows, which lie in several blocks",
    "LSTM projected": "two products, which are not of one width",
    "attention": "more products, and with matrices that differ from sequence to sequence",
    "minGRU": "no product in the loop",
    "pass through": "no product in the loop",
    "scalar": "no matrices",
}


@pytest.mark.parametrize("name", WHY_NOT)
def test_other_loops_are_not_for_one_kernel(name):
    step = step_of(KNOWN[name])
    for program in (step, pulled_back(step)):
        assert cuda.Plan(program).persistent is None, WHY_NOT[name]


# --- values ---------------------------------------------------------------------------------------

SHARED = 227 << 10  # bytes
LAYOUTS = [  # how many clusters run at once, (B, H), thread blocks of a cluster
    pytest.param(LARGE, (11, 13), 4, id="two-groups-of-four-blocks"),
    pytest.param(LARGE, (8, 32), 8, id="nothing-left-over"),
    pytest.param(LARGE, (1, 5), 2, id="one-sequence"),
    pytest.param(Room({1: 4, 2: 2, 4: 1}, SHARED), (9, 33), 2, id="two-groups-of-two-blocks"),
    pytest.param(Room({1: 5, 2: 2, 4: 1}, SHARED), (35, 6), 1, id="as-many-groups-as-processors"),
    pytest.param(Room({16: 2}, SHARED), (9, 61), 16, id="two-groups-of-sixteen-blocks"),
    pytest.param(Room({1: 4}, SHARED), (3, 40), 1, id="one-block-that-is-large"),
    pytest.param(Room({1: 4}, SHARED), (17, 7), 1, id="three-groups-without-clusters"),
]


@pytest.mark.parametrize("name", ["RNN tanh", "two gates", "GRU", "LSTM", "GRU reset before"])
@pytest.mark.parametrize(("room", "shape", "blocks"), LAYOUTS)
def test_layouts(room, shape, blocks, name, gpu):
    """Units and sequences that do or do not fill their blocks; more and fewer rows than lanes."""
    gpu(room)
    step = step_of(KNOWN[name], B=shape[0], H=shape[1])
    for program, reverse in ((step, False), (pulled_back(step), True)):
        plan = check(program, reverse=reverse, runs=2)
        assert tile_of(plan.persistent, room).blocks == blocks


@pytest.mark.parametrize(
    ("name", "H", "pulled"),
    [
        ("LSTM", 60, False),
        ("LSTM", 63, True),
        ("GRU", 60, True),
        ("RNN tanh", 80, True),
        ("two gates", 77, False),
        ("GRU reset before", 61, True),
        ("GRU reset before", 78, False),
    ],
)
def test_weights_in_shared_memory(name, H, pulled, gpu):
    """All of a product's, or what has no room in registers."""
    room = Room({1: 2}, SHARED)
    gpu(room)
    program = step_of(KNOWN[name], B=9, H=H)
    plan = check(pulled_back(program) if pulled else program, 3, pulled, runs=2)
    assert tile_of(plan.persistent, room).rest > 0


@pytest.mark.parametrize(("name", "H"), [("LSTM", 128), ("GRU", 384), ("MGU", 256)])
def test_sizes_that_layers_have(name, H, gpu):
    gpu(LARGER)
    step = step_of(KNOWN[name], B=11, H=H, D=8)
    for program, reverse in ((step, False), (pulled_back(step), True)):
        check(program, 3, reverse, runs=2)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize(
    "name", [*ONE_PRODUCT, *TWO_PRODUCTS, "two layers", "tokens", "masked pair", "module"]
)
def test_cells(name, reverse, gpu):
    """And their pullbacks, and their pullbacks' ones."""
    gpu(LARGE)
    case = KNOWN[name]
    small = name in ("module", "sLSTM")  # which divides by a state: a draw is soon too near zero
    step = step_of(case) if small else step_of(case, B=11, H=13)
    pullback = pulled_back(step)
    for program in (step, pullback, pulled_back(pullback)):
        check(program, 4, reverse)


@pytest.mark.parametrize("shape", [(11, 13), (3, 40)], ids=str)
@pytest.mark.parametrize("name", ["RNN tanh", "two gates", "GRU", "LSTM"])
def test_half_precision(name, shape, gpu):
    """Sums are float32's; what is handed on is rounded as if it had been in memory."""
    gpu(LARGE)
    step = step_of(KNOWN[name], "float16", B=shape[0], H=shape[1])
    for program, reverse in ((step, False), (pulled_back(step), True)):
        check(program, reverse=reverse, runs=2)


def test_half_precision_is_rounded_at_every_step(gpu):
    """Bit for bit, on whole numbers, whose sums are exact in float32 and not in float16."""
    gpu(LARGE)

    def cell(x, h):
        y = h @ W - x
        return y, y.clamp(-4, 4)

    rng = np.random.default_rng(0)
    draws = [(-2000, 2000, (4, 9, 5)), (-4, 5, (9, 5)), (-600, 600, (5, 5))]
    x, h, W = (torch.tensor(rng.integers(*draw).astype("float16")) for draw in draws)
    program = trace_step(cell, x, h).program()
    plan, xp = cuda.Plan(program), backend.library("cuda")
    assert plan.persistent is not None
    inputs = host([h, x, W])
    found = host(cuda.run(plan, xp, on_device(inputs), 4, False))
    for a, b in zip(interpret(program, np, inputs, 4, False), found, strict=True):
        np.testing.assert_array_equal(b, a)


def test_operands_for_which_a_block_asks(gpu):
    """They need more shared memory than a block gets without asking."""
    gpu(LARGE)
    plan = check(pulled_back(step_of(KNOWN["LSTM"], B=1, H=256)), 2, runs=2)
    assert tile_of(plan.persistent, LARGE).shared > 48 << 10


@pytest.mark.parametrize("length", [0, 1, 2, 9])
def test_lengths(length, gpu):
    gpu(LARGE)
    step = step_of(KNOWN["GRU"], B=3, H=6)
    for program in (step, pulled_back(step)):
        check(program, length)


def test_weights_and_sequences_that_move(gpu):
    """As those of several layers whose steps are one program, and whose inputs are read."""
    gpu(LARGE)
    program = step_of(KNOWN["masked pair"], B=9, H=6)
    plan, xp = cuda.Plan(program), backend.library("cuda")
    alive = [on_device(inputs_of(program, 4, seed)) for seed in range(2)]
    for inputs in [*alive, *alive]:
        found = host(cuda.run(plan, xp, inputs, 4, False))
        for a, b in zip(interpret(program, np, host(inputs), 4, False), found, strict=True):
            np.testing.assert_allclose(b, a, atol=2e-5)
        del found, b  # else the next run could not have the same memory
    (frame,) = pool._frames
    assert {x.kind for x in frame._copies} == {"fixed", "given"}
    assert len(frame._loop) == 1


def test_a_layer_with_gradients_is_as_on_the_host(gpu):
    """Steps of training by stock parts, in both directions."""
    gpu(LARGE)

    def losses(device):
        torch.manual_seed(3)
        layer = torch.nn.LSTM(5, 12, bidirectional=True)
        x = torch.randn(6, 9, 5).to(device)
        layer.to(device)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        found = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = layer(x)[0].square().mean()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    np.testing.assert_allclose(losses("cuda"), losses("cpu"), rtol=1e-4)


# --- one launch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pulled", [False, True], ids=["step", "pullback"])
@pytest.mark.parametrize("name", ["RNN tanh", "LSTM", "GRU"])
def test_the_ways_to_run_a_loop_agree(name, pulled, gpu, monkeypatch):
    """One kernel is one launch, of which no graph is made; else the loop is captured."""
    gpu(LARGE)
    program = step_of(KNOWN[name], B=9, H=12)
    program = pulled_back(program) if pulled else program
    xp, inputs, results = backend.library("cuda"), on_device(inputs_of(program, 4)), {}
    for way in ("persistent", "graph", "launches"):
        monkeypatch.setenv("TINYGRAD_RNN_CUDA_LOOP", way)
        plan = cuda.Plan(program)
        for _ in range(3):
            found = host(cuda.run(plan, xp, inputs, 4, pulled))
        frame = frame_of(plan)
        assert len(frame._loop) == (1 if way == "persistent" else 2 * 4)
        assert (frame._graph is not None) == (way == "graph")
        results[way] = found
    for a, b in zip(results["persistent"], results["graph"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(results["graph"], results["launches"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loop_that_does_not_fit_is_captured(gpu):
    gpu(Room({1: 1}, SHARED))  # one block, for all of three groups
    program = step_of(KNOWN["LSTM"], B=17, H=5)
    plan = check(program)
    assert tile_of(plan.persistent, Room({1: 1}, SHARED)) is None
    assert len(frame_of(plan)._loop) == 2 * 5
    assert frame_of(plan)._graph is not None


def test_one_run_is_as_the_next_bit_for_bit(gpu):
    gpu(LARGE)
    step = step_of(KNOWN["LSTM"], B=11, H=20)
    for program in (step, pulled_back(step)):
        plan, xp = cuda.Plan(program), backend.library("cuda")
        inputs = on_device(inputs_of(program, 6))
        first, second = (host(cuda.run(plan, xp, inputs, 6, False)) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a, b)


# --- where a GPU does not run such a kernel -------------------------------------------------------


def test_launches_run_a_loop_whose_kernel_is_refused(gpu, monkeypatch):
    """The first run finds out, and still gives the result; from then on nobody tries again."""
    if backend.library("cuda") is not strict_double:
        pytest.skip("a GPU does not refuse when it is told to")
    gpu(LARGE)
    launches._compiled.cache_clear()
    call, refused = RawKernel.__call__, []

    def refusing(self, *args, **options):
        if "shared_memory()" in self.code:
            refused.append(self)
            raise RuntimeError("no room for a cluster")
        call(self, *args, **options)

    case = KNOWN["LSTM"]
    program = step_of(case)
    known = dict(refusals)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(RawKernel, "__call__", refusing)
            plan = cuda.Plan(program)
            check_plan(plan, program, 4)
            check_plan(cuda.Plan(pulled_back(program)), pulled_back(program), 4)
        assert len(refused) == 1
        assert refusals["one kernel"] == "one kernel: RuntimeError: no room for a cluster"
        assert plan.tile(strict_double) is None
        why = "because a kernel for all steps is refused (one kernel: RuntimeError: no room"
        assert why in plan.way()
        assert pool.newest.executor == "graph"
    finally:
        refusals.clear()
        refusals.update(known)
        launches._compiled.cache_clear()


def test_an_error_of_launches_is_no_refusal(monkeypatch):
    if backend.library("cuda") is not strict_double:
        pytest.skip("a GPU does not refuse when it is told to")
    program = step_of(KNOWN["LSTM"], "float64")

    def failing(self, *args, **options):
        raise RuntimeError("broken")

    launches._compiled.cache_clear()
    monkeypatch.setattr(RawKernel, "__call__", failing)
    inputs = on_device(inputs_of(program, 3))
    with pytest.raises(RuntimeError, match="broken"):
        cuda.run(cuda.Plan(program), strict_double, inputs, 3, False)
    assert "one kernel" not in refusals


# --- how the work is shared out -------------------------------------------------------------------


def loop_at(name, B, H, pulled=False):
    """A loop at a size."""
    program = step_of(KNOWN[name], B=B, H=H, T=1)
    return cuda.Plan(pulled_back(program) if pulled else program).persistent


@pytest.mark.parametrize(
    ("name", "B", "H", "blocks", "all_held"),
    [
        ("LSTM", 64, 128, 8, True),
        ("LSTM", 256, 128, 4, True),
        ("LSTM", 64, 168, 8, True),  # the last has no unit: four have not enough registers
        ("LSTM", 64, 256, 8, True),
        ("LSTM", 128, 256, 8, True),
        ("LSTM", 136, 256, None, None),  # 17 clusters of 8 do not run at the same time
        ("LSTM", 64, 384, 16, False),
        ("GRU", 64, 256, 8, True),
        ("GRU", 64, 384, 16, True),
        ("GRU", 72, 384, 8, False),  # nor do 9 of 16
        ("GRU", 64, 512, 16, False),
        ("RNN tanh", 64, 384, 8, True),
        ("RNN tanh", 64, 512, 16, True),
        ("RNN tanh", 64, 1024, None, None),
        ("MGU", 64, 256, 8, True),
        ("MGU", 64, 384, 16, True),
    ],
)
def test_blocks_of_a_cluster(name, B, H, blocks, all_held):
    for pulled in (False, True):
        tile = tile_of(loop_at(name, B, H, pulled), LARGER)
        assert (tile and tile.blocks) == blocks
        assert tile is None or (tile.rest == 0) == all_held


def test_weights_are_in_shared_memory_where_clusters_are_small():
    """There is room for them, up to some size; the fewer of them, the better."""
    for H, rest in ((256, False), (320, True), (512, None)):
        tile = tile_of(loop_at("LSTM", 64, H), LARGE)
        assert (tile and tile.rest > 0) == rest
    smaller = LARGE._replace(shared=99 << 10)
    assert tile_of(loop_at("LSTM", 64, 320), smaller) is None


@pytest.mark.parametrize(("H", "fits"), [(16, True), (32, True), (128, False), (256, False)])
def test_without_clusters_a_loop_must_fit_one_block(H, fits):
    tile = tile_of(loop_at("LSTM", 64, H), Room({1: 132}, SHARED))
    assert (tile is not None and tile.blocks == 1) if fits else tile is None


ROOMS = (LARGER, Room({1: 8, 2: 4, 4: 2, 8: 1}, 99 << 10), Room({1: 80}, 163 << 10))


@pytest.mark.parametrize("pulled", [False, True], ids=["step", "pullback"])
@pytest.mark.parametrize(
    "name", ["RNN tanh", "two gates", "GRU", "LSTM", "sLSTM", "GRU reset before", "MGU"]
)
def test_every_tile_can_be_launched(name, pulled):
    """Whatever the size: no more is asked for than there is."""
    found = 0
    for H in (1, 3, 4, 5, 31, 32, 33, 60, 100, 127, 128, 200, 256, 384, 512):
        loop = loop_at(name, 1, H, pulled)
        for B in (1, 8, 9, 64, 150, 600):
            for room in ROOMS:
                tile = tile_of(loop._replace(shape=(B, H)), room)
                if tile is None:
                    continue
                found += 1
                assert (tile.blocks - 1) * tile.units < H <= tile.blocks * tile.units
                assert tile.threads % 32 == 0
                assert 32 <= tile.threads <= 1024
                registers = rest = 0
                for share, product in zip(tile.shares, loop.products, strict=True):
                    assert share.height >= product.left.shape[1]
                    assert share.columns * 8 == product.columns * share.lanes
                    weights = tile.threads * share.columns * share.depth
                    assert weights * tile.blocks >= H * product.columns * share.height
                    assert 0 <= share.held <= share.depth
                    registers += tile.threads * share.columns * (share.held + 8)
                    rest += tile.threads * share.columns * (share.depth - share.held)
                assert registers <= 1 << 16
                heights = sum(share.height for share in tile.shares)
                assert tile.shared == 2 * heights * 8 * 4 + rest * 4 <= room.shared
                assert room.clusters[tile.blocks] >= -(-B // 8)
    assert found > 50
