"""Drawings: that all of a graph is in them, that what they show computes it, and that one can look.

What a drawing says is compared with what `explain` prints, with a walk through the graph that knows
nothing of drawings, and with the loss itself, by running the lines in the boxes, loops as often as
their frame says. Where things stand is read from the SVG as a browser would read it.
"""

import itertools
import re
import subprocess
import sys
import time
from xml.etree import ElementTree

import numpy as np
import pytest
from recurrent_cells import CASES

import tinygrad_rnn as torch
from tinygrad_rnn import nn, ops
from tinygrad_rnn.diagnose import Drawing, draw_graph
from tinygrad_rnn.diagnose.draw import text
from tinygrad_rnn.diagnose.draw.aligning import spaced
from tinygrad_rnn.diagnose.draw.layout import _grid
from tinygrad_rnn.diagnose.draw.ordering import crossings, ordered
from tinygrad_rnn.nn import functional as F
from tinygrad_rnn.scan import explain, trees, unroll
from tinygrad_rnn.scan.scan import trace_step

CASE = {case.name: case for case in CASES}
SVG = "{http://www.w3.org/2000/svg}"


def step_drawing(name, **options):
    xs, h0, weights = CASE[name].leaves()
    return draw_graph(CASE[name].cell(*weights), xs, h0, **options)


def recurrent_loss(layer, T=6, **names):
    xs = torch.randn(T, 2, layer.input_size)
    output, _ = layer(xs)
    loss = (output**2).mean()
    return draw_graph(loss, names={"layer": layer, "xs": xs, "loss": loss, **names})


def two_cells_drawing():
    """A loop written by hand: two cells on top of each other, and a loss at every step."""
    first, second, head = nn.LSTMCell(3, 5), nn.LSTMCell(5, 5), nn.Linear(5, 3)
    xs = torch.randn(12, 2, 3)
    lower = upper = (torch.zeros(2, 5), torch.zeros(2, 5))
    loss = torch.tensor(0.0)
    for t in range(11):
        lower = first(xs[t], lower)
        upper = second(lower[0], upper)
        loss = loss + F.mse_loss(head(upper[0]), xs[t + 1])
    return draw_graph(loss, names={"first": first, "second": second, "head": head, "xs": xs})


def mlp_drawing():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    x, target = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    return draw_graph(F.cross_entropy(model(x), target), names={"model": model, "x": x})


def product_drawing():
    x, y = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    return draw_graph(x * y + x.sin(), names={"x": x, "y": y})


def double_backward_drawing():
    layer, xs = nn.RNN(2, 3, mode="unroll"), torch.randn(9, 2, 2, requires_grad=True)
    (g,) = torch.autograd.grad(layer(xs)[0].sum(), xs, create_graph=True)
    return draw_graph((g**2).sum(), names={"layer": layer, "xs": xs})


def opened_drawing():
    layer, xs = nn.LSTM(3, 5, num_layers=2, bidirectional=True), torch.randn(6, 2, 3)
    return draw_graph(layer(xs)[0].sum(), names=layer, open_scans=True)


DRAWINGS = {
    "product": product_drawing,
    "MLP with loss": mlp_drawing,
    "LSTM unrolled": lambda: recurrent_loss(nn.LSTM(3, 5, mode="unroll"), T=50),
    "two cells": two_cells_drawing,
    "GRU two layers both ways": lambda: recurrent_loss(
        nn.GRU(3, 5, num_layers=2, bidirectional=True)
    ),
    "double backward": double_backward_drawing,
    "scans opened": opened_drawing,
}
for case in CASES:
    DRAWINGS[case.name] = lambda name=case.name: step_drawing(name)
    DRAWINGS[f"{case.name} pulled back"] = lambda name=case.name: step_drawing(name, pullback=True)


@pytest.fixture(scope="module")
def drawing():
    """A drawing of the table, made once."""
    made = {}

    def drawing(name):
        if name not in made:
            torch.manual_seed(0)
            made[name] = DRAWINGS[name]()
        return made[name]

    return drawing


# Where everything stands, as a browser sees it.


class Picture:
    """Rectangles of boxes (x, y, right, bottom), points on arrows, and texts, of an SVG."""

    def __init__(self, drawing):
        self.root = ElementTree.fromstring(drawing.svg)
        self.width, self.height = map(float, self.root.get("viewBox").split()[2:])
        groups = [
            group for group in self.root.iter(f"{SVG}g") if group.find(f"{SVG}title") is not None
        ]
        self.boxes, self.texts, arrows = [], [], []
        for group in groups:
            rects = group.findall(f"{SVG}rect")
            if rects:
                x, y, width, height = (
                    float(rects[-1].get(key)) for key in ("x", "y", "width", "height")
                )
                self.boxes.append((x, y, x + width, y + height))
                self.texts.append(group.findall(f"{SVG}text"))
            else:
                arrows.append(sampled(group.find(f"{SVG}path").get("d")))
        data = drawing.diagram.arrows
        order = [a for a in data if not a.carry] + [a for a in data if a.carry]
        self.arrows = list(zip(order, arrows, strict=True))
        self.frames = [
            tuple(float(rect.get(key)) for key in ("x", "y", "width", "height"))
            for rect in self.root.iter(f"{SVG}rect")
            if rect.get("rx") == "8"
        ]


def sampled(path):
    """Points along a path of lines and curves, close together."""
    points = []
    for command, numbers in re.findall(r"([MLCQ])([^MLCQ]*)", path):
        values = [float(number) for number in numbers.split()]
        ends = list(zip(values[::2], values[1::2], strict=True))
        if command == "M":
            points += ends
            continue
        control = np.array([points[-1], *ends])
        for s in np.linspace(0, 1, 60)[1:]:
            level = control
            while len(level) > 1:  # de Casteljau
                level = level[:-1] * (1 - s) + level[1:] * s
            points.append(tuple(level[0]))
    return points


@pytest.mark.parametrize("name", DRAWINGS)
def test_boxes_are_apart_and_hold_their_texts(drawing, name):
    picture = Picture(drawing(name))
    assert len(picture.boxes) == len(drawing(name).diagram.boxes) > 0
    for (x, y, right, bottom), (x2, y2, right2, bottom2) in itertools.combinations(
        picture.boxes, 2
    ):
        assert right + 6 < x2 or right2 + 6 < x or bottom + 6 < y2 or bottom2 + 6 < y
    for (x, y, right, bottom), texts in zip(picture.boxes, picture.texts, strict=True):
        assert 0 <= x < right <= picture.width
        assert 0 <= y < bottom <= picture.height
        for line in texts:
            letters = len(re.sub(r"\s+", " ", "".join(line.itertext())))
            assert letters * 0.6022 * float(line.get("font-size")) < right - x - 10
            assert y < float(line.get("y")) < bottom


@pytest.mark.parametrize("name", DRAWINGS)
def test_arrows_touch_the_boxes_they_belong_to_and_no_other(drawing, name):
    picture = Picture(drawing(name))
    assert picture.arrows
    for arrow, points in picture.arrows:
        left, _, right, bottom = picture.boxes[arrow.source]
        x, y = points[0]
        assert left < x < right
        assert y == pytest.approx(bottom, abs=0.11)
        left, top, right, _ = picture.boxes[arrow.target]
        x, y = points[-1]
        assert left < x < right
        assert y == pytest.approx(top - 6, abs=0.11)
        across = np.array(points)
        assert (across > 0).all()
        assert (across < [picture.width, picture.height]).all()
        for x, y, right, bottom in picture.boxes:
            inside = (across > [x + 0.2, y + 0.2]) & (across < [right - 0.2, bottom - 0.2])
            assert not inside.all(axis=1).any()
        for x, y, _, height in picture.frames:  # nor the column with what a frame is called
            heading = (across > [x, y]) & (across < [x + 170, y + height])
            assert not heading.all(axis=1).any()


@pytest.mark.parametrize("name", DRAWINGS)
def test_frames_hold_their_boxes(drawing, name):
    diagram, picture = drawing(name).diagram, Picture(drawing(name))
    framed = [number for number, region in enumerate(diagram.regions) if region.title]
    assert len(picture.frames) == len(framed)
    for number, (fx, fy, width, height) in zip(framed, picture.frames, strict=True):
        for box, (x, y, right, bottom) in zip(diagram.boxes, picture.boxes, strict=True):
            beside = bottom < fy or y > fy + height
            within = fx < x and right < fx + width and fy < y and bottom < fy + height
            assert within if box.region == number else beside
        for arrow, points in picture.arrows:
            ends = {diagram.boxes[arrow.source].region, diagram.boxes[arrow.target].region}
            if ends == {number}:
                assert all(fx < x < fx + width and fy < y < fy + height for x, y in points)


@pytest.mark.parametrize(
    ("name", "most"),
    [("RNN tanh", 0), ("LSTM", 0), ("GRU", 2), ("LSTM pulled back", 8), ("GRU pulled back", 17)],
)
def test_few_lines_cross(drawing, name, most):
    grid = _grid(drawing(name).diagram)
    rows = ordered(grid.rows, grid.above, grid.below)
    assert [sorted(row) for row in rows] == [sorted(row) for row in grid.rows]
    assert crossings(rows, grid.below) <= most


# A step: the same as is printed.


def printed_lines(text, program):
    """{section: lines} of the equations that explain prints of a program, without shapes."""
    found, here, section = {}, None, None
    for line in text.splitlines():
        if line[:1].isupper():
            here, section = line.split()[0], None
        elif line[:1].islower():
            section = line.split()[0]
        elif here == program and re.match(r"  \S", line):
            found.setdefault(section, []).append(re.split(r"\s\s+\(", line[2:])[0])
    return found


def line_of(box):
    """The whole line of a box, without its tag and its shape."""
    return re.split(r"\s\s+\(", re.sub(r"^[\w, ]+: (?=\S)", "", box.tooltip))[0]


def arrows_into(diagram, target, carry=False):
    return {a.tooltip for a in diagram.arrows if a.target == target and a.carry == carry}


@pytest.mark.parametrize("program", ["STEP", "PULLBACK"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_step_is_drawn_as_it_is_printed(case, program, capsys):
    xs, h0, weights = case.leaves()
    cell = case.cell(*weights)
    explain(cell, xs, h0)
    printed = printed_lines(capsys.readouterr().out, program)
    diagram = draw_graph(cell, xs, h0, pullback=program == "PULLBACK").diagram
    drawn = {}
    for number, box in enumerate(diagram.boxes):
        if " = " not in box.text:
            continue
        line = line_of(box)
        drawn.setdefault(diagram.regions[box.region].title, []).append(line)
        named = set(re.findall(r"[A-Za-z_][\w.]*", line.split(" = ", 1)[1]))
        named |= {re.sub(r"\.m?T$", "", name) for name in named}
        sources = {tooltip.split(" (")[0] for tooltip in arrows_into(diagram, number)}
        assert sources <= named
        values = {name for other in diagram.boxes for name in made_by(other)}
        assert {name for name in named if name in values} <= sources
    assert drawn == printed


def made_by(box):
    """The names of the values that a box stands for."""
    return box.tooltip.split(": ")[-1].split(" = ")[0].split(" (")[0].split(", ")


def test_states_are_carried_and_results_leave(capsys):
    xs, h0, weights = CASE["LSTM"].leaves()
    diagram = draw_graph(CASE["LSTM"].cell(*weights), xs, h0).diagram
    boxes = {box.text.split(" = ")[0]: number for number, box in enumerate(diagram.boxes)}
    carried = {(a.source, a.target) for a in diagram.arrows if a.carry}
    assert carried == {(boxes["v17"], boxes["h0"]), (boxes["v14"], boxes["h1"])}
    assert (boxes["v17"], boxes["y"]) in {(a.source, a.target) for a in diagram.arrows}
    assert diagram.boxes[boxes["y"]].stacked
    assert diagram.boxes[boxes["x"]].stacked
    assert [region.title for region in diagram.regions] == ["before", "loop", "after", ""]
    assert "1 GEMM, run T = 7 times; 10 elementwise; 1 split" in diagram.regions[1].notes


def test_values_bear_the_names_that_the_cell_gives_them():
    def called(layer):
        boxes = draw_graph(layer, torch.randn(4, 2, 3)).diagram.boxes
        return {box.tag: box.kind for box in boxes if box.tag}

    gates = {"i": "gate", "f": "gate", "o": "gate", "g": "squash"}
    assert called(nn.LSTM(3, 5)) == {
        **gates,
        "i, f, g, o": "shape",
        "c": "elementwise",
        "h": "elementwise",
    }
    found = called(nn.GRU(3, 5))
    assert {"r": "gate", "z": "gate", "n": "squash"}.items() <= found.items()


def test_who_profiles_goes_on_profiling():
    seen = []

    def profiler(frame, event, _):
        seen.append(event)

    sys.setprofile(profiler)
    try:
        draw_graph(nn.RNN(3, 5), torch.randn(4, 2, 3))
        assert sys.getprofile() is profiler
        with pytest.raises(RuntimeError, match="branches on a value"):
            draw_graph(lambda x, h: (h, h if h.sum() > 0 else x), torch.ones(4, 2), torch.ones(2))
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_a_layer_is_drawn_as_its_cell(kind):
    layer = kind(3, 5, num_layers=2, batch_first=True)
    x = torch.randn(2, 4, 3)
    zeros = torch.zeros(2, 5)
    h0 = (zeros, zeros) if kind is nn.LSTM else zeros
    expected = draw_graph(layer.cell(), x.transpose(0, 1), h0)
    assert draw_graph(layer, x).svg == expected.svg
    state = torch.zeros(2, 2, 5)
    given = draw_graph(layer, x, (state, state) if kind is nn.LSTM else state)
    assert given.svg == expected.svg
    assert "T = 4" in draw_graph(layer, x[0]).svg


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_a_cell_of_nn_is_a_step(kind):
    zeros = torch.zeros(2, 5)
    state = (zeros, zeros) if kind is nn.LSTMCell else zeros
    boxes = draw_graph(kind(3, 5), torch.randn(4, 2, 3), state).diagram.boxes
    assert "y" in {box.text for box in boxes}
    assert any("cell.weight_hh" in box.text for box in boxes if box.kind == "constant")


def test_a_program_is_a_step():
    xs, h0, weights = CASE["GRU"].leaves()
    program = trace_step(CASE["GRU"].cell(*weights), xs, h0).program()
    for pullback in (False, True):
        drawn = draw_graph(program, pullback=pullback).diagram
        operations = [box for box in drawn.boxes if " = " in box.text]
        assert len(operations) == (29 if pullback else 16)
    assert str(program).count(" = ") == 16
    assert draw_graph(program).diagram.title == "STEP"


def test_time_that_runs_backwards_is_in_the_title():
    layer, x = nn.RNN(3, 5), torch.randn(4, 2, 3)
    arguments = layer.cell(), x, torch.zeros(2, 5)
    titles = {
        (pullback, reverse): draw_graph(
            *arguments, pullback=pullback, reverse=reverse
        ).diagram.title
        for pullback in (False, True)
        for reverse in (False, True)
    }
    assert titles[False, False] == "STEP  T = 4, from t = 1 to 4"
    assert titles[False, True] == "STEP  T = 4, from t = 4 to 1"
    assert titles[True, False] == "PULLBACK OF THE STEP  T = 4, from t = 4 to 1"
    assert titles[True, True] == "PULLBACK OF THE STEP  T = 4, from t = 1 to 4"


def test_a_state_that_is_only_moved_is_carried_too():
    """The first state becomes the second, the second the input: arrows from a row to itself."""

    def delay(x, state):
        first, second = state
        return second, (x, first)

    drawn = draw_graph(delay, torch.randn(4, 3), (torch.zeros(3), torch.zeros(3)))
    boxes = {box.text: number for number, box in enumerate(drawn.diagram.boxes)}
    carried = {(a.source, a.target) for a in drawn.diagram.arrows if a.carry}
    assert carried == {(boxes["x"], boxes["h0"]), (boxes["h0"], boxes["h1"])}
    picture = Picture(drawn)
    assert len(picture.arrows) == 3


# A graph: all of it, and what is drawn computes it.


def reachable(tensor):
    """(nodes, links) behind a tensor, by PyTorch's way to look at graphs."""
    nodes, links, waiting = {tensor.grad_fn}, set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        for source, output in node.next_functions:
            if source is None:
                continue
            links.add((source, output, node))
            if hasattr(source, "next_functions") and source not in nodes:
                nodes.add(source)
                waiting.append(source)
    return nodes, links


def graphs():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))
    yield F.cross_entropy(model(torch.randn(5, 4)), torch.tensor([0, 1, 2, 0, 1])), model
    layer = nn.GRU(3, 4, num_layers=2, bidirectional=True, mode="unroll")
    yield layer(torch.randn(3, 2, 3))[0].sum(), layer
    scanned = nn.LSTM(3, 4, num_layers=2)
    yield scanned(torch.randn(3, 2, 3))[0].sum(), scanned
    x = torch.randn(3, requires_grad=True)
    (g,) = torch.autograd.grad((x.exp() * x).sum(), x, create_graph=True)
    yield g.sum(), None


@pytest.mark.parametrize("number", range(4))
def test_every_node_and_every_link_of_a_graph_is_drawn(number):
    tensor, names = list(graphs())[number]
    nodes, links = reachable(tensor)
    diagram = draw_graph(tensor, names=names, fold=False).diagram
    operations = {k for k, box in enumerate(diagram.boxes) if " = " in box.text}
    parameters = {k for k, box in enumerate(diagram.boxes) if box.kind == "parameter"}
    assert len(operations) == len(nodes)
    assert len(parameters) == len({source for source, _, _ in links} - nodes)
    of_gradients = [a for a in diagram.arrows if a.source in operations | parameters]
    assert len(of_gradients) == len({*of_gradients}) == len(links)


def run_drawing(diagram, leaves):
    """The values of a drawing, by name, from running its lines: a loop as often as it says."""
    known = vars(ops) | leaves
    for number, region in enumerate(diagram.regions):
        lines = [
            python(line_of(box))
            for box in diagram.boxes
            if box.region == number and " = " in box.text
        ]
        if region.title:
            run_loop(diagram, number, lines, known)
            continue
        for line in lines:
            exec(made_by_loops(line, known, spread="*"), {}, known)
    return known


def run_loop(diagram, number, lines, known):
    """Run a loop's lines; a state is what one arrow brings, and at the first step another."""
    states = {
        a.target: python(diagram.boxes[a.target].text)
        for a in diagram.arrows
        if a.carry and diagram.boxes[a.target].region == number
    }
    values = {(a.target, a.carry): known_as(a) for a in diagram.arrows if a.target in states}
    for t in range(int(diagram.regions[number].title.removeprefix("loop × "))):
        brought = {
            state: eval(made_by_loops(values[target, t > 0], known), {}, known)
            for target, state in states.items()
        }
        known |= brought | {"t": t}
        for line in lines:
            exec(made_by_loops(line, known), {}, known)
            for name in line.split(" = ")[0].split(", "):
                known.setdefault(f"{name}_all", []).append(known[name])


def known_as(arrow):
    """The name of the value that an arrow to a state brings."""
    return re.search(r" is (?:this )?(\S+)$", arrow.tooltip)[1]


def made_by_loops(line, known, spread=""):
    """A line in which v[t] is that of step t, where v is what an earlier loop made."""

    def at(match):
        name, which = match.groups()
        if f"{name}_all" not in known:
            return match[0]
        return f"{spread if ':' in which else ''}{name}_all[{which}]"

    return re.sub(r"\b(\w+)\[([^]]+)\]", at, line)


def python(line):
    """A line of a drawing as Python: v[t-1] is a variable of its own where v is a state."""
    return re.sub(r"(\w+)\[t-1\]", r"\1_before", line)


# Cells of which every operation is drawn as a line that is Python.
RUNNABLE = ["RNN tanh", "RNN relu", "LSTM", "GRU", "GRU reset before", "LSTM peephole", "minGRU"]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", RUNNABLE)
def test_a_folded_loop_run_as_often_as_it_says_is_the_graph(name, reverse):
    """The steps were recorded one by one, and are drawn once."""
    case = CASE[name]
    xs, h0, weights = case.leaves(T=9)
    ys, h = unroll(case.cell(*weights), xs, h0, reverse=reverse)
    rng = np.random.default_rng(5)
    scale = torch.tensor(rng.standard_normal(ys.shape))  # of every step another one
    loss = sum((leaf * leaf).sum() for leaf in (ys * scale, *trees.leaves(h)))
    leaves = {f"w{k}": w for k, w in enumerate(weights)} | {"xs": xs, "scale": scale}
    leaves |= {f"start{k}": leaf for k, leaf in enumerate(trees.leaves(h0))}
    diagram = draw_graph(loss, names={**leaves, "loss": loss}).diagram
    assert [region.title for region in diagram.regions if region.title] == ["loop × 9"]
    assert len(diagram.boxes) < 60
    known = run_drawing(diagram, leaves)
    np.testing.assert_allclose(known["loss"].item(), loss.item(), rtol=1e-12)


def test_a_loop_written_by_hand_is_run_as_drawn():
    """Steps read xs[t] and xs[t + 1], and the loss goes round the loop as a state."""
    torch.manual_seed(3)
    W, U = torch.randn(3, 5, requires_grad=True), torch.randn(5, 5, requires_grad=True)
    V = torch.randn(5, 3, requires_grad=True)
    xs, start = torch.randn(8, 2, 3, requires_grad=True), torch.randn(2, 5)
    h, loss = start, torch.tensor(0.5)
    zero = loss
    for t in range(7):
        h = (xs[t] @ W + h @ U).tanh()
        loss = loss + (h @ V - xs[t + 1]).square().sum()
    leaves = {"W": W, "U": U, "V": V, "xs": xs, "start": start}
    drawing = draw_graph(loss, names={**leaves, "loss": loss})
    lines = [box.text for box in drawing.diagram.boxes]
    assert "v1 = xs[t]" in lines
    assert "v7 = xs[t+1]" in lines
    assert [region.title for region in drawing.diagram.regions] == ["loop × 7"]
    (unnamed,) = [box.text for box in drawing.diagram.boxes if re.fullmatch(r"c\d+", box.text)]
    known = run_drawing(drawing.diagram, {**leaves, unnamed: zero})
    assert known["loss"].item() == pytest.approx(loss.item(), rel=1e-6)


def folded_titles(tensor, **options):
    regions = draw_graph(tensor, **options).diagram.regions
    return [region.title for region in regions if region.title]


def test_what_is_no_loop_is_not_folded():
    deep = nn.Sequential(*(layer for _ in range(12) for layer in (nn.Linear(4, 4), nn.Tanh())))
    assert not folded_titles(deep(torch.randn(2, 4)).sum())  # each layer has weights of its own
    cell = nn.LSTMCell(3, 4)
    state = None
    for x in torch.randn(2, 5, 3):
        state = cell(x, state)
    assert not folded_titles(state[0].sum())  # two steps
    x = torch.randn(3, requires_grad=True)
    y = x
    for k in range(20):
        y = y * float(k + 2) + x.tanh() / (k + 1.5)
    assert not folded_titles(y.sum())  # another number at every step


def hand_written_loops():
    """(loss, names) of loops that read and hand on in their own ways."""
    rng = np.random.default_rng(4)
    x, W = (torch.tensor(rng.standard_normal((2, 2)), requires_grad=True) for _ in range(2))
    xs = torch.tensor(rng.standard_normal((12, 2, 2)), requires_grad=True)
    data = torch.tensor(rng.standard_normal((12, 2, 2)))
    names = {"x": x, "W": W, "xs": xs, "data": data}

    h, before = x, W
    for _ in range(12):  # of the step before, and of that before it: half a step later it is one
        h, before = (h * x + before).tanh(), h
    yield h.sum(), names

    h, parts = x, xs.unbind(0)
    for t in range(11):  # two neighbours of one sequence
        h = (parts[t] + h @ W).tanh() * parts[t + 1]
    yield h.sum(), names

    h = x
    for t in range(11, 1, -2):  # backwards, every other step, of what needs no gradient
        h = ((data[t] * h).tanh() * data[t - 1]) @ W
    yield h.sum(), names

    outputs, h = [], x
    for part in parts:  # the outputs of one loop are the inputs of another
        h = (part + h @ W).tanh().sin()
        outputs.append(h)
    h = W
    for output in outputs:
        h = (output + h @ x).tanh().cos()
    yield h.sum(), names

    h, loss = x, x.sum()
    for t in range(12):  # the first step knows no state
        h = (xs[t] @ W).tanh() if t == 0 else (xs[t] @ W + h @ x).tanh()
        loss = loss + (h * h).sum()
    yield loss, names

    states = [x]
    for t in range(12):  # in the middle, of the step before the last
        states.append((states[-2 if t == 6 else -1] * x + W).tanh().sin())
    yield torch.stack(states[1:]).sum(), names

    h = x
    for t in range(12):  # the first step has a weight of its own
        h = (xs[t] @ h).tanh().sin() @ (W if t else x)
    yield h.sum(), names


@pytest.mark.parametrize("number", range(7))
def test_loops_of_many_forms_are_run_as_drawn(number):
    loss, names = list(hand_written_loops())[number]
    diagram = draw_graph(loss, names={**names, "loss": loss}).diagram
    loops = [region.title for region in diagram.regions if region.title]
    counts = [[11], [11], [5], [12, 12], [11], [6, 6], [11]]
    assert loops == [f"loop × {count}" for count in counts[number]]
    known = run_drawing(diagram, names)
    assert known["loss"].item() == pytest.approx(loss.item(), rel=1e-12)


def test_unfolded_all_steps_are_drawn():
    layer = nn.RNN(2, 3, mode="unroll")
    loss = layer(torch.randn(5, 1, 2))[0].sum()
    assert folded_titles(loss) == ["loop × 5"]
    assert not folded_titles(loss, fold=False)
    boxes = draw_graph(loss, fold=False).diagram.boxes
    assert sum("tanh" in box.text for box in boxes) == 5


def test_layers_and_directions_are_loops_of_their_own():
    layer = nn.GRU(3, 4, num_layers=2, bidirectional=True, mode="unroll")
    titles = folded_titles(layer(torch.randn(6, 2, 3))[0].sum(), names=layer)
    assert titles == ["loop × 6"] * 4


def test_an_operation_of_ones_own_is_drawn_and_folded():
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, exponent):
            ctx.save_for_backward(x)
            return x**exponent

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 3 * x * x, None

    W = torch.randn(3, 3, requires_grad=True)
    h = torch.randn(2, 3)
    for x in torch.randn(6, 2, 3):
        h = Cube.apply((x + h @ W).tanh() * 0.5, 3)
    drawing = draw_graph(h.sum(), names={"W": W})
    (box,) = [box for box in drawing.diagram.boxes if box.kind == "function"]
    assert re.fullmatch(r"v\d+ = Cube\(v\d+\)", box.text)
    assert folded_titles(h.sum()) == ["loop × 6"]


def test_a_scan_is_one_box_and_can_be_opened():
    torch.manual_seed(0)
    layer, xs = nn.LSTM(3, 5), torch.randn(6, 2, 3)
    loss = layer(xs)[0].square().sum()
    closed = draw_graph(loss, names={"layer": layer, "xs": xs}).diagram
    (box,) = [box for box in closed.boxes if box.kind == "recurrence"]
    assert "scan, T = 6" in box.text
    assert "xs" in box.tooltip
    opened = draw_graph(loss, names={"layer": layer, "xs": xs}, open_scans=True).diagram
    assert [region.title for region in opened.regions] == ["", "before", "loop × 6", ""]
    kinds = [box.kind for box in opened.boxes]
    assert "recurrence" not in kinds
    assert kinds.count("gate") == 3
    assert kinds.count("state") == 2
    assert sum(arrow.carry for arrow in opened.arrows) == 2
    number = next(k for k, box in enumerate(opened.boxes) if box.text == "xs")
    (arrow,) = [arrow for arrow in opened.arrows if arrow.source == number]
    assert "xs[t] @" in opened.boxes[arrow.target].text  # the product of the input
    assert re.search(r"= square\(v\d+\[:\]\)", " ".join(box.text for box in opened.boxes))


def test_scans_of_double_backward_and_random_cells_open():
    layer = nn.RNN(2, 3)
    xs = torch.randn(5, 2, 2, requires_grad=True)
    (g,) = torch.autograd.grad(layer(xs)[0].sum(), xs, create_graph=True)
    titles = folded_titles(g.square().sum(), open_scans=True)
    assert titles.count("loop × 5") == 1
    assert titles.count("loop × 5, reverse") == 1

    def noisy(x, h):
        h = (x + h * torch.randn(2)).tanh()
        return h, h

    def turning(x, state):
        first, second, _ = state
        return first * x, (second, first, x)

    ones = torch.ones(2, 2)
    ys, _ = torch.scan.scan(turning, xs, (ones, ones, ones))
    diagram = draw_graph(ys.sum(), names={"xs": xs}, open_scans=True).diagram
    assert sum(arrow.carry for arrow in diagram.arrows) == 3
    assert {"h0", "h1", "h2"} <= {box.text for box in diagram.boxes}

    ys, _ = torch.scan.scan(noisy, xs, torch.zeros(2, 2), checkpoint=2)
    diagram = draw_graph(ys.sum(), open_scans=True).diagram
    assert sum(box.text.startswith("drawn") for box in diagram.boxes) == 3  # segments


# Names, errors, files.


def test_names_come_from_modules_dicts_and_memory():
    model = nn.Linear(3, 2)
    x, y = torch.randn(5, 3), torch.randn(3, 2)
    hidden = model(x)
    loss = (hidden @ y.T).sum()
    texts = {box.text for box in draw_graph(loss, names=model).diagram.boxes}
    assert {"weight", "bias"} <= texts
    names = {"model": model, "x": x, "y": y, "hidden": hidden, "loss": loss}
    texts = {box.text for box in draw_graph(loss, names=names).diagram.boxes}
    assert {"model.weight", "model.bias", "x", "y.T"} <= texts
    assert any(text.startswith("hidden = ") for text in texts)
    assert any(text.startswith("loss = ") for text in texts)
    with pytest.raises(TypeError, match="'x' is a ndarray"):
        draw_graph(loss, names={"x": x.numpy()})


def test_a_leaf_is_one_box_however_often_it_is_used():
    x, data = torch.randn(3, requires_grad=True), torch.randn(3)
    boxes = draw_graph((x * data).tanh() * data + x * data[1]).diagram.boxes
    leaves = [(box.kind, box.form) for box in boxes if " = " not in box.text]
    assert sorted(leaves) == [("input", "()"), ("input", "(3,)"), ("parameter", "(3,)")]


def test_numbers_are_drawn_as_they_were_written():
    x = torch.randn(3, requires_grad=True)
    texts = [box.text for box in draw_graph(1 - x / 4 + 2.5, names={"x": x}).diagram.boxes]
    assert texts == ["x", "v1 = x / 4", "v2 = 1 - v1", "v3 = v2 + 2.5"]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (lambda: [torch.ones(3)], {}, ValueError, "nothing is recorded behind this tensor"),
        (lambda: [3.0], {}, TypeError, "expected a Tensor, a Program, or a cell .* got float"),
        (lambda: [nn.Linear(3, 2)], {}, TypeError, r"draw_graph\(model\(x\), names=model\)"),
        (lambda: [nn.LSTM(3, 2)], {}, TypeError, r"draw_graph\(cell, xs, h0\)"),
        (lambda: [nn.RNN(3, 2), torch.ones(4, 1, 2)], {}, RuntimeError, "input_size=3"),
        (lambda: [nn.RNN(3, 2), torch.ones(4, 1, 3)], {"fold": False}, TypeError, "fold=False"),
        (lambda: [nn.RNN(3, 2), torch.ones(4, 1, 3)], {"names": {}}, TypeError, "names means"),
        (lambda: [torch.ones(3, requires_grad=True) * 2], {"pullback": True}, TypeError, "Tensor"),
        (lambda: [lambda x, h: h, torch.ones(3), torch.ones(1)], {}, TypeError, r"a pair \(y, h\)"),
    ],
)
def test_errors_say_what_to_do(arguments, options, error, message):
    with pytest.raises(error, match=message):
        draw_graph(*arguments(), **options)


def test_a_released_graph_cannot_be_drawn():
    x = torch.randn(3, requires_grad=True)
    loss = (x.tanh() * x).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match=r"Draw before backward, or .*retain_graph=True"):
        draw_graph(loss)


def test_a_step_without_gradients_has_no_pullback():
    def count(x, h):
        return h + x, h + x

    ones = torch.tensor([1, 2, 3])
    assert draw_graph(count, ones, torch.tensor(0)).svg
    with pytest.raises(ValueError, match="there is no pullback"):
        draw_graph(count, ones, torch.tensor(0), pullback=True)


def test_large_graphs_are_folded_or_refused_and_never_hang():
    W = torch.randn(2, 2, requires_grad=True)
    h = torch.randn(1, 2)
    for _ in range(25_000):
        h = (h @ W).tanh()
    started = time.process_time()
    loss = h.sum()
    diagram = draw_graph(loss).diagram
    assert [region.title for region in diagram.regions] == ["loop × 25000", ""]
    assert diagram.title.endswith("50,001 operations, 3 of them drawn")
    with pytest.raises(ValueError, match=r"50,001 operations are too many .* limit is 400"):
        draw_graph(loss, fold=False)
    assert time.process_time() - started < 60


def test_a_drawing_is_always_the_same():
    program = (
        "import tinygrad_rnn as torch; from tinygrad_rnn import nn, diagnose;"
        "x = torch.ones(5, 2, 3); layer = nn.LSTM(3, 5, mode='unroll');"
        "print(diagnose.draw_graph(layer, x, pullback=True).svg);"
        "print(diagnose.draw_graph(layer(x)[0].sum(), names=layer).svg);"
        "print(diagnose.draw_graph(layer(x)[0].sum(), names=layer).dot)"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert texts[0] == texts[1]
    assert b"<svg" in texts[0]


def test_odd_names_are_escaped():
    x = torch.randn(3, requires_grad=True)
    odd = 'a<b & "c" >\\ 变量'
    drawing = draw_graph(x.tanh(), names={odd: x})
    root = ElementTree.fromstring(drawing.svg)
    assert odd in {element.text for element in root.iter(f"{SVG}text")}
    assert root.get("role") == "img"
    assert root.find(f"{SVG}title") is not None
    assert r'"a<b & \"c\" >\\ 变量\n(3,)"' in drawing.dot


def test_dot_has_every_box_and_arrow(drawing):
    for name in ("LSTM pulled back", "two cells", "MLP with loss"):
        source, diagram = drawing(name).dot, drawing(name).diagram
        assert source.count("{") == source.count("}")
        assert len(re.findall(r"^ +n\d+ \[label=", source, re.M)) == len(diagram.boxes)
        arrows = re.findall(r"^ +n(\d+) -> n(\d+) \[", source, re.M)
        assert [(a.source, a.target) for a in diagram.arrows] == [
            (int(a), int(b)) for a, b in arrows
        ]
        assert source.count("subgraph cluster_") == sum(
            bool(region.title) for region in diagram.regions
        )


def test_files_are_written_by_their_suffix(tmp_path):
    drawing = product_drawing()
    assert isinstance(drawing, Drawing)
    assert drawing._repr_svg_() == drawing.svg
    for suffix, expected in (("svg", drawing.svg), ("dot", drawing.dot)):
        path = tmp_path / f"graph.{suffix}"
        path.write_text("old")
        drawing.save(path)
        assert path.read_text(encoding="utf-8") == expected
    with pytest.raises(ValueError, match=r"graph\.png: a drawing is saved as \.svg or \.dot"):
        drawing.save(tmp_path / "graph.png")
    with pytest.raises(ValueError, match="a file without a suffix"):
        drawing.save(tmp_path / "graph")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        drawing.save(tmp_path / "nowhere" / "graph.svg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph.dot", "graph.svg"]


# The parts of the layout by themselves.


def test_crossings_are_counted():
    rng = np.random.default_rng(0)
    for _ in range(50):
        upper, lower = range(6), range(6, 13)
        links = [(a, b) for a in upper for b in lower if rng.random() < 0.4]
        below = [[b for a, b in links if a == number] for number in range(13)]
        pairs = itertools.combinations(links, 2)
        expected = sum((a - c) * (b - d) < 0 for (a, b), (c, d) in pairs)
        assert crossings([upper, lower], below) == expected


def test_rows_are_ordered_without_crossings_where_that_is_possible():
    """Two trees whose leaves are mixed: there is an order without a crossing."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        leaves = rng.permutation(np.arange(6, 14)).tolist()
        below = [[2, 3, 4], [5], *([] for _ in range(12))]
        for k, leaf in enumerate(leaves):
            below[2 + k % 4].append(leaf)
        above = [[a for a in range(14) if b in below[a]] for b in range(14)]
        rows = ordered([[0, 1], [5, 2, 4, 3], list(range(6, 14))], above, below)
        assert crossings(rows, below) == 0


def test_places_are_the_nearest_that_leave_room():
    """Compared with a search of all places on a grid."""
    rng = np.random.default_rng(2)
    grid = list(itertools.product(np.arange(-6, 13), repeat=3))
    for _ in range(20):
        wishes = rng.integers(0, 5, 3).astype(float)
        weights, gaps = rng.integers(1, 4, 3).astype(float), rng.integers(1, 4, 2)
        found = spaced(wishes, weights, gaps)
        assert all(b - a >= gap - 1e-9 for a, b, gap in zip(found, found[1:], gaps, strict=False))
        costs = [
            (weights * (np.array(x) - wishes) ** 2).sum()
            for x in grid
            if x[1] - x[0] >= gaps[0] and x[2] - x[1] >= gaps[1]
        ]
        assert (weights * (np.array(found) - wishes) ** 2).sum() <= min(costs) + 1e-9


def test_texts_are_about_as_wide_as_they_are_taken_for():
    matplotlib = pytest.importorskip("matplotlib.textpath")
    fonts = pytest.importorskip("matplotlib.font_manager")
    sans, mono = (fonts.FontProperties(family=f"DejaVu Sans{kind}") for kind in ("", " Mono"))
    for words in ("a value for each step", "1 GEMM, run T = 7 times", "leaf without a gradient"):
        true = matplotlib.TextPath((0, 0), words, size=11, prop=sans).get_extents().width
        assert 0.97 * true < text.sans_width(words, 11) < 1.25 * true
    line = "v42 = concatenate(v38, v39)"
    true = matplotlib.TextPath((0, 0), line, size=12, prop=mono).get_extents().width
    assert true < text.mono_width(line, 12) < 1.05 * true
