"""Chapter 15: the cells are the paper's, padding does not count, and the networks beat counting."""

import json
import math

import experiment
import numpy as np
import piano_rolls
import polyphonic_music as music
import pytest
from click.testing import CliRunner
from piano_rolls import KEYS, EachKeyByItself, batch, batches, chorales, loss_on, nats

import tinygrad_rnn as torch
from tinygrad_rnn.scan import scan

D, H = 5, 4  # inputs and units of the cells that are compared with NumPy


def some_pieces(*lengths):
    rng = np.random.default_rng(1)
    return [(rng.random((length, KEYS)) < 0.1).astype(np.uint8) for length in lengths]


def run(cell, *state):
    """The outputs of a cell over seven steps and three rows by scan, and its weights and inputs."""
    torch.manual_seed(2)
    xs = torch.randn(7, 3, D)
    hs, _ = scan(cell, xs, state[0] if len(state) == 1 else state)
    weights = {name: w.detach().numpy().astype(float) for name, w in cell.named_parameters()}
    return hs.detach().numpy(), weights, xs.numpy().astype(float)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def test_the_tanh_cell_is_the_equation():
    h = torch.randn(3, H)
    hs, w, xs = run(music.Tanh(D, H), h)
    h = h.numpy()
    for t, x in enumerate(xs):
        h = np.tanh(x @ w["W.weight"].T + w["W.bias"] + h @ w["U.weight"].T)
        np.testing.assert_allclose(hs[t], h, atol=1e-6)


def test_the_gru_resets_before_the_product_and_z_is_the_share_of_the_new():
    h = torch.randn(3, H)
    hs, w, xs = run(music.GRU(D, H), h)
    h = h.numpy()
    W_r, W_z, W = np.split(w["W.weight"], 3)
    b_r, b_z, b = np.split(w["W.bias"], 3)
    U_r, U_z = np.split(w["U_rz.weight"], 2)
    for t, x in enumerate(xs):
        r = sigmoid(x @ W_r.T + b_r + h @ U_r.T)
        z = sigmoid(x @ W_z.T + b_z + h @ U_z.T)
        new = np.tanh(x @ W.T + b + (r * h) @ w["U.weight"].T)
        h = (1 - z) * h + z * new
        np.testing.assert_allclose(hs[t], h, atol=1e-6)


def test_the_lstm_has_peepholes_that_of_the_output_gate_to_the_new_cell():
    cell, h, c = music.LSTM(D, H), torch.randn(3, H), torch.randn(3, H)
    with torch.no_grad():
        cell.V.uniform_(-2, 2)  # they start at zero, which would hide a mistake
    hs, w, xs = run(cell, h, c)
    h, c = h.numpy(), c.numpy()
    W_i, W_f, W_o, W_c = np.split(w["W.weight"], 4)
    b_i, b_f, b_o, b_c = np.split(w["W.bias"], 4)
    U_i, U_f, U_o, U_c = np.split(w["U.weight"], 4)
    V_i, V_f, V_o = (np.diag(v) for v in w["V"])
    for t, x in enumerate(xs):
        i = sigmoid(x @ W_i.T + h @ U_i.T + c @ V_i + b_i)
        f = sigmoid(x @ W_f.T + h @ U_f.T + c @ V_f + b_f)
        c = f * c + i * np.tanh(x @ W_c.T + h @ U_c.T + b_c)
        o = sigmoid(x @ W_o.T + h @ U_o.T + c @ V_o + b_o)
        h = o * np.tanh(c)
        np.testing.assert_allclose(hs[t], h, atol=1e-6)


def test_all_have_as_many_weights_within_five_percent_and_the_paper_s_units():
    units = {cell: units for cell, (_, units) in music.CELLS.items()}
    assert units == {"no memory": 212, "tanh": 100, "GRU": 46, "LSTM": 36}
    counts = {cell: music.weights(cell) for cell in music.CELLS}
    assert counts["no memory"] == 212 * (88 + 1)
    assert counts["tanh"] == 100 * (88 + 100 + 1)
    assert counts["GRU"] == 3 * 46 * (88 + 46 + 1)
    assert counts["LSTM"] == 4 * 36 * (88 + 36 + 1) + 3 * 36
    assert max(counts.values()) < 1.05 * min(counts.values())


def test_what_has_no_memory_hears_the_last_step_and_the_others_all():
    (piece,) = some_pieces(6)
    changed = piece.copy()
    changed[0] = 1 - changed[0]
    for cell in music.CELLS:
        torch.manual_seed(0)
        model = music.Musician(cell, torch.zeros(KEYS))
        after = [model(batch([each]).heard)[-1, 0].detach().numpy() for each in (piece, changed)]
        assert (np.abs(after[0] - after[1]).max() == 0) == (cell == "no memory")


@pytest.mark.parametrize("cell", music.CELLS)
def test_a_padded_batch_costs_what_its_pieces_cost_one_by_one(cell):
    pieces = some_pieces(9, 2, 5)
    torch.manual_seed(0)
    model = music.Musician(cell, torch.randn(KEYS))

    def cost_and_gradients(several):
        model.zero_grad()
        cost = sum(nats(model(each.heard), each).sum() for each in several)
        cost.backward()
        return cost.item(), [w.grad.numpy().copy() for w in model.parameters()]

    together, gradients = cost_and_gradients([batch(pieces)])
    alone, gradients_alone = cost_and_gradients([batch([piece]) for piece in pieces])
    assert together == pytest.approx(alone, rel=1e-5)
    for g, g_alone in zip(gradients, gradients_alone, strict=True):
        np.testing.assert_allclose(g, g_alone, rtol=1e-3, atol=1e-4)

    by_piece = [loss_on(model, [batch([piece])]).steps for piece in pieces]
    loss = loss_on(model, batches(pieces, 2))  # in two batches
    assert loss.steps == pytest.approx(np.average(by_piece, weights=[8, 1, 4]), rel=1e-5)
    assert loss.pieces == pytest.approx(np.mean(by_piece), rel=1e-5)


def test_a_loss_is_in_nats_per_step_summed_over_the_keys():
    indifferent = loss_on(torch.zeros_like, [batch(some_pieces(6, 3))])
    assert indifferent == pytest.approx((KEYS * math.log(2),) * 2)


def test_a_model_hears_a_step_and_guesses_the_next():
    (piece,) = some_pieces(6)
    heard, played, lengths, real = batch([piece])
    assert (heard[:, 0].numpy() == piece[:-1]).all()
    assert (played[:, 0].numpy() == piece[1:]).all()
    assert lengths.tolist() == [5]
    assert real.tolist() == [[1.0]] * 5


def test_long_pieces_are_cut_in_parts_and_nothing_is_lost():
    pieces = some_pieces(7, 3, 12)
    parts = piano_rolls.cut(pieces, 6)
    assert [len(part) for part in parts] == [4, 3, 3, 6, 6]
    assert (np.concatenate(parts) == np.concatenate(pieces)).all()


def test_the_floor_is_a_count():
    pieces = [np.zeros((4, KEYS), np.uint8), np.zeros((3, KEYS), np.uint8)]
    pieces[0][:, 7] = (1, 1, 0, 0)  # 1 to 1, 1 to 0, 0 to 0
    pieces[1][:, 7] = (0, 1, 1)  # 0 to 1, 1 to 1; the pieces are not joined
    chain = EachKeyByItself(pieces)
    heard = torch.zeros(1, 2, KEYS)
    heard[0, 1, 7] = 1
    after_silence, after_sound = chain(heard).sigmoid()[0, :, 7].tolist()
    assert after_silence == pytest.approx((1 + 0.5) / (2 + 1))
    assert after_sound == pytest.approx((2 + 0.5) / (3 + 1))
    alone = EachKeyByItself(pieces, past=False)(heard).sigmoid()[0, :, 7].tolist()
    assert alone == pytest.approx([(3 + 0.5) / (5 + 1)] * 2)


@pytest.mark.skipif(not music.BACH.exists(), reason="the data sets are not there")
@pytest.mark.parametrize(
    ("name", "steps", "pieces"), [("jsb_chorales", 10.49, 10.49), ("nottingham", 5.15, 5.20)]
)
def test_the_floors_of_the_real_music(name, steps, pieces):
    """Computed elsewhere, by other code."""
    real = piano_rolls.read_music(music.BACH.with_name(f"{name}.npz"))
    floor = loss_on(EachKeyByItself(real.train), batches(real.test, 16))
    assert floor == pytest.approx((steps, pieces), abs=0.006)


@pytest.fixture(scope="module")
def found():
    """Losses on the test pieces of generated chorales: of the floor, and of every cell."""
    generated = chorales(64)
    losses = {"floor": loss_on(EachKeyByItself(generated.train), batches(generated.test, 16)).steps}
    for cell, rate in {"no memory": 1e-3, "tanh": 1.5e-3, "GRU": 3e-3, "LSTM": 3e-3}.items():
        _, made = music.train(music.Plan(cell, rate, seed=1, epochs=30, batch=16), generated)
        losses[cell] = made.scores["test"]["steps"]
        assert made.validation[0] > 9  # what habit knows; the training does the rest
    return losses


def test_networks_beat_the_floor_where_there_is_something_to_remember(found):
    for cell in ("tanh", "GRU", "LSTM"):
        assert found[cell] < found["floor"] - 0.4


def test_what_they_gain_they_remember(found):
    """The control hears every key, but not the beat."""
    for cell in ("tanh", "GRU", "LSTM"):
        assert found[cell] < found["no memory"] - 0.4


def test_the_network_of_the_best_epoch_is_kept_and_training_stops_soon_after(monkeypatch):
    monkeypatch.setattr(music, "PATIENCE", 3)
    generated = chorales(16)
    model, made = music.train(music.Plan("GRU", rate=0.02, seed=1, epochs=80, batch=16), generated)
    assert made.best == len(made.training) - 3
    assert len(made.training) < 80
    assert made.scores["valid"]["steps"] == min(made.validation)
    assert loss_on(model, batches(generated.valid, 16)).steps == min(made.validation)


def test_noise_is_on_the_weights_and_goes_away():
    torch.manual_seed(0)
    cell = music.LSTM(50, 40)
    before = [weight.detach().numpy().copy() for weight in cell.parameters()]
    with music.noisy(cell):
        added = [w.detach().numpy() - b for w, b in zip(cell.parameters(), before, strict=True)]
    assert np.std(added[0]) == pytest.approx(0.075, rel=0.05)
    assert all(np.std(noise) > 0.03 for noise in added)
    for weight, was in zip(cell.parameters(), before, strict=True):
        assert (weight.detach().numpy() == was).all()


def test_learning_rates_are_log_uniform_one_in_each_part_of_the_range():
    torch.manual_seed(0)
    logs = [np.log(music.some_rates(3, -12, -6)) for _ in range(300)]
    assert (np.floor((np.array(logs) + 12) / 2) == [0, 1, 2]).all()
    assert np.mean(logs) == pytest.approx(-9, abs=0.1)
    assert np.std(logs) == pytest.approx(6 / math.sqrt(12), rel=0.05)


def test_the_command_keeps_every_run_and_goes_on_where_it_was(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(experiment, "RECORDS", tmp_path)
    monkeypatch.setattr(music, "RECORDS", tmp_path)
    data, figure = tmp_path / "small.npz", tmp_path / "figure.svg"
    small = {}
    for part, lengths in (("train", (9, 5)), ("valid", (4,)), ("test", (2, 7))):
        small[f"{part}_roll"] = np.concatenate(some_pieces(*lengths))
        small[f"{part}_len"] = np.array(lengths)
    np.savez(data, **small)
    options = f"--data {data} --draws 2 --seeds 1 --epochs 2 --write --figure {figure}".split()

    trained = []

    def train(plan, pieces, real=music.train):
        trained.append(plan)
        if len(trained) in (5, 7):
            raise RuntimeError("interrupted")
        return real(plan, pieces)

    def kept():
        record = json.loads((tmp_path / "polyphonic_music.json").read_text(encoding="utf-8"))
        return len(record["results"]["small"]["runs"])

    monkeypatch.setattr(music, "train", train)
    with pytest.raises(RuntimeError, match="interrupted"):
        CliRunner().invoke(music.main, options, catch_exceptions=False)
    assert kept() == 4
    with pytest.raises(RuntimeError, match="interrupted"):
        CliRunner().invoke(music.main, [*options, "--batch", "1"], catch_exceptions=False)
    assert kept() == 4 + 1

    shown = CliRunner().invoke(music.main, options, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert len(trained) == 7 + (12 - 4)
    assert kept() == 12
    assert "each key, given itself a step ago" in shown.output
    assert figure.exists()
    found = music.recorded_study("small")
    assert [len(found.tries(cell)) for cell in music.CELLS] == [2] * 4
    assert [len(found.finals(cell)[0].training) for cell in music.CELLS] == [2] * 4


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, "train_roll"),
        ({"roll": np.zeros((5, 87))}, "expected (5, 88)"),
        ({"roll": np.full((5, 88), 2)}, "only 0 and 1"),
        ({"len": np.array([4, 1])}, "at least 2 steps"),
    ],
)
def test_what_is_no_music_is_one_line_and_status_2(tmp_path, arrays, said):
    path = tmp_path / "music.npz"
    good = {"roll": np.zeros((5, 88), np.uint8), "len": np.array([3, 2])}
    parts = {
        f"{part}_{kind}": x for part in piano_rolls.PARTS for kind, x in (good | arrays).items()
    }
    np.savez(path, **(parts if arrays else {"other": np.zeros(3)}))
    shown = CliRunner().invoke(music.main, ["--data", str(path)])
    assert shown.exit_code == 2
    assert said in shown.stderr
    assert shown.stderr.count("\n") == 1
