"""Chapter 10: what a second direction adds, what a second layer adds, and what neither can."""

import deep_and_bidirectional as chapter
import numpy as np
import pytest
from click.testing import CliRunner

import tinygrad_rnn as torch
from tinygrad_rnn import nn

PARAMETERS = 2000
ONE, ONE_DEEP, BOTH, BOTH_HIDDEN, BOTH_DEEP = chapter.DESIGNS.values()


def learnt(design, task, updates=200):
    torch.manual_seed(0)
    model, _ = chapter.train(design, task, PARAMETERS, updates)
    return chapter.score(model, task)


@pytest.mark.parametrize(
    ("task", "label"),
    [
        ("behind", lambda bits, t: bits[t - chapter.LAG]),
        ("ahead", lambda bits, t: bits[t + chapter.LAG]),
        ("differ", lambda bits, t: bits[t - chapter.LAG] != bits[t + chapter.LAG]),
    ],
)
def test_bits_are_labelled_as_said(task, label):
    torch.manual_seed(0)
    xs, labels = (part.numpy() for part in chapter.BITS[task].draw(9, 6))
    for t in range(9):
        inside = chapter.LAG <= t < 9 - chapter.LAG
        wanted = label(xs[..., 0], t) if inside else np.full(6, chapter.UNKNOWN)
        np.testing.assert_array_equal(labels[t], wanted)


@pytest.mark.parametrize("task", chapter.MOVES)
def test_states_move_by_what_was_read(task):
    """What was seen to move a state by so much always moves it by that, from any state."""
    torch.manual_seed(0)
    letters, states = chapter.LETTERS, int(task.split()[-2])
    xs, labels = (part.numpy() for part in chapter.MOVES[task](0).draw(40, 30))
    one, two = xs[..., :letters].argmax(-1), xs[..., letters:].argmax(-1)
    word = one if task.startswith("one") else letters * one + two
    before = np.concatenate([np.zeros((1, 30), int), labels[:-1]])
    moved = (labels - before) % states
    meanings = [set(moved[word == each].tolist()) for each in range(word.max() + 1)]
    assert all(len(meaning) == 1 for meaning in meanings)
    assert set.union(*meanings) == set(range(min(states, len(meanings))))


@pytest.mark.parametrize("design", [*chapter.DESIGNS.values(), *chapter.STACKS.values()])
def test_networks_are_as_large_as_the_parameters_allow(design):
    task = (
        chapter.BITS["differ"]
        if design.both_directions
        else chapter.MOVES["the pair counts, 5 states"](0)
    )
    units = chapter.widest(design, task, PARAMETERS)
    sizes = [chapter.size(chapter.Tagger(design, task, units + more)) for more in (0, 1)]
    assert 0.8 * PARAMETERS < sizes[0] <= PARAMETERS < sizes[1]


@pytest.mark.parametrize("design", [ONE, ONE_DEEP])
def test_one_direction_cannot_know_what_is_to_come_at_any_depth(design):
    assert learnt(design, chapter.BITS["behind"]).loss < 0.05
    guessing = learnt(design, chapter.BITS["ahead"])
    assert guessing.loss > 0.99 * np.log(2)
    assert guessing.right == pytest.approx(0.5, abs=0.03)


def test_both_directions_know_what_is_to_come():
    assert learnt(BOTH, chapter.BITS["ahead"]).loss < 0.05


def test_one_layer_of_both_directions_only_adds_what_they_know():
    assert learnt(BOTH, chapter.BITS["differ"]).loss > 0.99 * np.log(2)
    assert learnt(BOTH_DEEP, chapter.BITS["differ"], updates=400).loss < 0.1


@pytest.mark.parametrize(
    ("design", "adds"), [(ONE, True), (BOTH, True), (BOTH_DEEP, False), (BOTH_HIDDEN, False)]
)
def test_what_is_behind_and_ahead_meets_only_above_the_first_layer(design, adds):
    torch.manual_seed(1)
    model = chapter.Tagger(design, chapter.BITS["differ"], 8)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3.0)
    assert (chapter.interaction(model) < 1e-5) == adds


def test_a_second_layer_learns_sooner_where_letters_have_to_be_looked_up_in_pairs():
    def share_after(layers, number):
        """Right answers in the last of 800 updates."""
        torch.manual_seed(number)
        task = chapter.MOVES["the pair counts, 5 states"](number)
        return chapter.in_blocks(chapter.train(chapter.Design(layers), task, 4000, 800)[1])[-1]

    one, two = (np.mean([share_after(layers, number) for number in (1, 2)]) for layers in (1, 2))
    assert one > 0.4  # guessing: 0.2
    assert two > one + 0.05


def test_a_task_is_learnt_where_a_block_of_answers_is_right():
    shares = [0.5] * 100 + [1.0] * 120
    assert chapter.in_blocks(shares) == [0.5, 0.5, 1.0, 1.0]
    assert chapter.learnt_after(chapter.in_blocks(shares)) == 150
    assert chapter.learnt_after([0.5, 0.9]) is None


def test_the_last_output_of_the_reverse_direction_has_read_one_step():
    torch.manual_seed(0)
    layer, xs = nn.GRU(3, 4, bidirectional=True), torch.randn(6, 2, 3, requires_grad=True)
    output, h_n = layer(xs)
    assert chapter.steps_read(output[-1, :, 4:], xs) == [5]
    assert chapter.steps_read(h_n[-1], xs) == [0, 1, 2, 3, 4, 5]
    assert (h_n[-1] == output[0, :, 4:]).all()
    assert (h_n[-2] == output[-1, :, :4]).all()


def test_the_command_runs_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "figure.svg"
    options = ["--parameters", "200", "--bit-updates", "1", "--move-updates", "50"]
    shown = CliRunner().invoke(
        chapter.main, [*options, "--figure", str(figure)], catch_exceptions=False
    )
    assert shown.exit_code == 0, shown.output
    assert figure.read_text(encoding="utf-8").startswith("<?xml")
    for built in (*chapter.DESIGNS, *chapter.STACKS):
        assert built in shown.output
