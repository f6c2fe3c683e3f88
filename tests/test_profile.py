"""diagnose.profile: counts against counts by hand, times against a clock and known waits.

`wait` is an operation that sleeps, so it is known how long each call takes at least.
"""

import sys
import threading
import time

import numpy as np
import pytest
import strict_double

import tinygrad_rnn as torch
from tinygrad_rnn import nn, scan
from tinygrad_rnn.diagnose.profile import profile
from tinygrad_rnn.diagnose.table import WIDTH
from tinygrad_rnn.modes import current
from tinygrad_rnn.ops.primitive import Primitive

FORWARD, BACKWARD = 0.003, 0.005  # seconds that `wait` sleeps
# NumPy's time beside them on a busy machine; a sleep never is too short.
SLACK = 3.0

T, B, D, H = 9, 4, 3, 5


def _wait(xp, x):
    time.sleep(FORWARD)
    return x * 1


def _wait_rule(g, _y, _x):
    time.sleep(BACKWARD)
    return g


wait = Primitive("wait", _wait, _wait_rule)


def leaf(*shape):
    return torch.randn(*shape, generator=torch.Generator(2), requires_grad=True)


def counts(p, section):
    return {row.name: row.calls for row in p.rows if row.section == section}


def row(p, section, name):
    return next(row for row in p.rows if (row.section, row.name) == (section, name))


# Counts.


def test_counts_by_hand():
    x, W = leaf(2, 3), leaf(3, 4)
    with profile() as p:
        y = (x @ W).tanh()
        y = (y * y + y).sum()
        y.backward()
    assert counts(p, "forward") == {"matmul": 1, "tanh": 1, "multiply": 1, "add": 1, "sum": 1}
    assert counts(p, "backward") == counts(p, "forward") | {"contract": 1}


def test_counts_of_an_unrolled_lstm():
    lstm, x = nn.LSTM(D, H, mode="unroll"), leaf(T, B, D)
    with profile() as p:
        ys, _ = lstm(x)
        ys.sum().backward()
    forward, backward = counts(p, "forward"), counts(p, "backward")
    per_step = {"matmul": 2, "sigmoid": 3, "tanh": 2, "multiply": 3}
    for name, number in per_step.items():
        assert (forward[name], backward[name]) == (number * T, number * T)
    assert forward["add"] == 3 * T + 1  # one is the sum of the biases
    assert forward["split"] == T
    assert backward["contract"] == 2  # dW_ih and dW_hh, each of all steps
    assert not [row for row in p.rows if row.section in ("step", "pullback", "scan")]


def test_counts_of_a_scan():
    W, x, h0 = leaf(H, H), leaf(T, B, H), torch.zeros(B, H)

    def cell(x, h):
        h = (x + h @ W).tanh()
        return h, h

    with profile() as p:
        ys, _ = scan.scan(cell, x, h0)
        ys.sum().backward()
    assert counts(p, "forward") == {"recur": 1, "sum": 1}
    assert counts(p, "backward") == {"recur": 1, "sum": 1}
    parts = {"fixed": 1, "before": 1, "loop": T, "after": 1, "totals": 1}
    assert counts(p, "step") == parts
    assert counts(p, "pullback") == parts
    assert counts(p, "step loop")["tanh"] == T
    assert counts(p, "pullback loop") == {"add": T, "multiply": T, "matmul": T}


def test_a_checkpointed_scan_shows_that_it_runs_twice():
    W, x, h0 = leaf(H, H), leaf(T, B, H), torch.zeros(B, H)

    def cell(x, h):
        h = (x + h @ W).tanh()
        return h, h

    with profile() as p:
        ys, _ = scan.scan(cell, x, h0, checkpoint=4)
    assert counts(p, "step")["loop"] == T
    with p:
        ys.sum().backward()
    assert counts(p, "step")["loop"] == 2 * T
    assert counts(p, "pullback")["loop"] == T
    assert counts(p, "forward")["recur"] == 3  # segments of 4, 4 and 1


def test_the_second_derivative_of_a_scan():
    x, h0 = leaf(T, B), leaf(B)

    def cell(x, h):
        h = (x * h).sin()
        return h, h

    with profile() as p:
        (g,) = torch.autograd.grad(scan.scan(cell, x, h0)[1].sum(), h0, create_graph=True)
        g.sum().backward()
    assert {"step", "pullback", "pullback 2"} <= {row.section for row in p.rows}
    assert counts(p, "pullback 2")["loop"] == T


def test_what_rules_record_is_part_of_their_turn():
    x = leaf(3)
    with profile() as p:
        torch.autograd.grad(x.tanh().sum(), x, create_graph=True)
    assert counts(p, "forward") == {"tanh": 1, "sum": 1, "copy": 1}  # of the gradient, at the end
    assert counts(p, "backward") == {"tanh": 1, "sum": 1}


def test_a_scan_in_a_step_of_another_is_an_operation_there():
    def inner(x, h):
        h = (x + h).tanh()
        return h, h

    def outer(x, h):
        _, h = scan.scan(inner, x, h)
        return h, h

    with profile() as p:
        scan.scan(outer, leaf(T, 4, B), torch.zeros(B))
    assert counts(p, "step")["loop"] == T
    assert counts(p, "step loop")["recur"] == T
    assert "tanh" not in counts(p, "step loop")


# Times.


def test_times_add_up_to_those_of_a_clock():
    x, W = leaf(300, 300), leaf(300, 300)
    around = time.perf_counter()
    with profile() as p:
        within = time.perf_counter()
        for _ in range(20):
            y = (x @ W).tanh().sum()
            y.backward()
        within = time.perf_counter() - within
    around = time.perf_counter() - around
    parts = [row for row in p.rows if row.section in ("forward", "backward", "outside")]
    assert sum(row.seconds for row in parts) == pytest.approx(p.seconds, rel=1e-9)
    assert within <= p.seconds <= around
    assert 0 < row(p, "outside", "").seconds < 0.3 * p.seconds
    assert all(row.seconds >= 0 for row in p.rows)


def test_a_known_wait_is_found_where_it_is():
    x = leaf(3)
    with profile() as p:
        for _ in range(4):
            wait(x.exp()).sum().backward()
        time.sleep(0.02)
    forward, backward = row(p, "forward", "wait"), row(p, "backward", "wait")
    assert 4 * FORWARD <= forward.seconds < SLACK * 4 * FORWARD
    assert 4 * BACKWARD <= backward.seconds < SLACK * 4 * BACKWARD
    assert row(p, "outside", "").seconds >= 0.02
    assert row(p, "forward", "exp").seconds < FORWARD
    assert p.rows[0] == forward  # the most expensive first
    assert (forward.calls, backward.calls) == (4, 4)


def test_a_known_wait_in_a_loop_is_found_there():
    x, h0 = leaf(T, B), torch.zeros(B)

    def cell(x, h):
        h = wait(x + h).tanh()
        return h, h

    scan.scan(cell, x, h0)  # what is laid out the first time does not wait, but takes its time
    with profile() as p:
        ys, _ = scan.scan(cell, x, h0)
    loop, kind = row(p, "step", "loop"), row(p, "step loop", "wait")
    assert (loop.calls, kind.calls) == (T, T)
    assert T * FORWARD <= kind.seconds <= loop.seconds <= row(p, "forward", "recur").seconds
    assert row(p, "step loop", "tanh").seconds < FORWARD
    assert kind.bytes == row(p, "step loop", "tanh").bytes == 4 * T * B
    with p:
        ys.sum().backward()
    assert row(p, "pullback", "loop").seconds < SLACK * T * BACKWARD


def test_the_parts_of_a_scan_and_the_rest_are_its_time():
    lstm, x = nn.LSTM(D, H, num_layers=2), leaf(T, B, D)
    with profile() as p:
        lstm(x)[0].sum().backward()
    inside = [row for row in p.rows if row.section in ("step", "pullback", "scan")]
    recur = row(p, "forward", "recur"), row(p, "backward", "recur")
    assert sum(row.seconds for row in inside) == pytest.approx(sum(r.seconds for r in recur))
    assert row(p, "scan", "rest").calls == 4
    for section in ("step", "pullback"):
        loop = sum(row.seconds for row in p.rows if row.section == f"{section} loop")
        assert 0 < loop <= row(p, section, "loop").seconds


# Bytes.


def test_bytes_of_results_that_are_no_views():
    x = leaf(3, 4)
    with profile() as p:
        y = x.exp().reshape(12)
        (y[:6] + y[6:]).sum().backward()
    assert row(p, "forward", "exp").bytes == 48
    assert row(p, "forward", "reshape").bytes == 0
    assert row(p, "forward", "getitem").bytes == 0
    assert row(p, "forward", "add").bytes == 24
    assert row(p, "backward", "add").bytes == 0  # hands on what it is given
    assert row(p, "backward", "getitem").bytes == 2 * 48  # zeros with the half in it; the sum
    assert row(p, "backward", "exp").bytes == 48


def test_bytes_of_a_weight_gradient():
    x, W = leaf(7, 3), leaf(3, 4)
    with profile() as p:
        (x.detach() @ W).sum().backward()
    assert row(p, "backward", "contract").bytes == 48
    assert row(p, "backward", "matmul").bytes == 0


def test_bytes_of_a_loop():
    with profile() as p:
        nn.RNN(D, H)(torch.zeros(T, B, D))
    assert row(p, "step loop", "tanh").bytes == 4 * T * B * H
    assert row(p, "step", "before").bytes >= 4 * T * B * H


# Where and when it looks.


def test_results_are_the_same_bits():
    def train(layer, x):
        layer.zero_grad()
        ys, _ = layer(x)
        ys.square().sum().backward()
        return [ys.detach().numpy(), *(p.grad.numpy() for p in layer.parameters())]

    for mode in ("scan", "unroll"):
        layer, x = nn.GRU(D, H, num_layers=2, bidirectional=True, mode=mode), leaf(T, B, D)
        wanted = train(layer, x)
        with profile():
            found = train(layer, x)
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_nested_profiles_see_what_is_inside_them():
    rnn, x = nn.RNN(D, H), leaf(T, B, D)
    with profile() as outer:
        x.exp()
        with profile() as inner:
            rnn(x)[0].sum().backward()
        x.exp()
    assert counts(outer, "forward") == counts(inner, "forward") | {"exp": 2}
    for section in ("backward", "step", "pullback", "step loop", "pullback loop"):
        assert counts(outer, section) == counts(inner, section)
        assert counts(inner, section)
    assert inner.seconds < outer.seconds


def test_it_ends_with_an_exception_and_can_go_on():
    p = profile()

    def fail():
        with p:
            leaf(2).exp()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (current.watches, current.profile) == ((), None)
    earlier = p.seconds
    time.sleep(0.01)
    assert p.seconds == earlier
    leaf(2).exp()
    with p:
        leaf(2).exp()
    assert counts(p, "forward") == {"exp": 2}
    assert p.seconds > earlier


def test_an_error_in_backward_or_in_a_loop_leaves_it_working():
    def failing(g, _y, _x):
        raise ValueError("on purpose")

    bad = Primitive("bad", lambda xp, x: x * 1, failing)
    worse = Primitive("worse", lambda xp, x: 1 / 0 if x.max() > 100 else x * 1, lambda g, _y, _x: g)

    def cell(x, h):
        return h, worse(x + h).tanh()

    x = leaf(3)
    with profile() as p:
        with pytest.raises(ValueError, match="on purpose"):
            bad(x).sum().backward()
        x.exp().sum().backward()
        with pytest.raises(ZeroDivisionError):
            scan.scan(cell, torch.tensor([[200.0]]), torch.zeros(1))
        scan.scan(cell, leaf(T, 1), torch.zeros(1))
    assert counts(p, "forward")["exp"] == counts(p, "backward")["exp"] == 1
    assert counts(p, "step")["loop"] == T


def test_a_profile_that_runs_cannot_be_entered():
    p = profile()
    with p, pytest.raises(RuntimeError, match="running already"), p:
        pass
    assert (current.watches, current.profile) == ((), None)


def test_other_threads_are_not_looked_at():
    rnn, x = nn.RNN(D, H), leaf(T, B, D)
    with profile() as p:
        thread = threading.Thread(target=lambda: rnn(x)[0].sum().backward())
        thread.start()
        thread.join()
    assert [row.section for row in p.rows] == ["outside"]


def test_results_on_a_gpu_are_waited_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", strict_double)
    module, waited = sys.modules["tinygrad_rnn.diagnose.profile"], []
    monkeypatch.setattr(module.cuda, "synchronize", waited.append)
    with strict_double.cuda.Device(1):
        made = strict_double.ones(3)
    p = profile()
    p.before(wait, ())
    p.after(wait, (), {}, made)
    assert waited == ["cuda:1"]
    p.after(wait, (), {}, torch.ones(3))
    assert waited == ["cuda:1"]


# The table.


def test_the_table_has_all_that_takes_time():
    lstm, x = nn.LSTM(D, H), leaf(T, B, D)
    with profile() as p:
        lstm(x)[0].sum().backward()
        wait(x)
    text = str(p)
    lines = text.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].split() == ["calls", "time", "share", "bytes"]
    firsts = [line.split("  ")[0] for line in lines if not line.startswith(" ")]
    assert [first for first in firsts if first and "---" not in first] == [
        *("forward", "backward", "outside of operations", "total"),
        *("scan: step", "scan: pullback", "scan: rest"),
    ]
    assert "  wait " in text
    assert "100.0%" in text
    assert repr(p) == text


def test_small_rows_are_put_together():
    x = leaf(3)
    with profile() as p:
        x.exp(), x.sin(), x.cos()
        time.sleep(0.2)
    assert "  3 more" in str(p)
    assert len([row for row in p.rows if row.section == "forward"]) == 3


def test_an_empty_profile():
    with profile() as p:
        pass
    assert "total" in str(p)
    assert [row.section for row in p.rows] == ["outside"]
    assert "total" in str(profile())
