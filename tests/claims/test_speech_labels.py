"""Chapter 14: CTC sums over alignments, and learns labels without them."""

import numpy as np
import pytest
import speech_labels
from click.testing import CliRunner

import tinygrad_rnn as torch
import tinygrad_rnn.nn.functional as F


def test_alignments_are_the_paths_of_a_labelling():
    assert speech_labels.alignments("ab", 3) == ["_ab", "a_b", "aab", "ab_", "abb"]
    assert speech_labels.alignments("aa", 3) == ["a_a"]
    assert speech_labels.alignments("aa", 2) == []


@pytest.mark.parametrize("target", ["", "a", "ab", "aba", "bb"])
def test_the_loss_is_their_sum(target):
    torch.manual_seed(0)
    log_probs = torch.randn(5, 1, 3, dtype=torch.float64).log_softmax(-1)
    p = log_probs.exp().numpy()[:, 0]
    paths = speech_labels.alignments(target, 5)
    total = sum(np.prod([p[t, "_ab".index(x)] for t, x in enumerate(path)]) for path in paths)
    labels = torch.tensor([["_ab".index(x) for x in target]], dtype=torch.int64)
    loss = F.ctc_loss(log_probs, labels, [5], [len(target)], reduction="sum")
    assert np.exp(-loss.item()) == pytest.approx(total, rel=1e-9)


@pytest.fixture(scope="module")
def signals():
    return speech_labels.some_signals(np.random.default_rng(7), 40)


def test_signals_show_their_phones(signals):
    """The nearest pattern of a phone's mean frame is its own, for nearly all."""
    frames, right = signals.frames.numpy(), []
    for b, places in enumerate(signals.segments):
        for label, start, end in places:
            mean = frames[start:end, b].mean(0)
            nearest = np.argmax(speech_labels.patterns()[1:] @ mean) + 1
            right.append(nearest == label)
        assert [label for label, _, _ in places] == signals.labels[b]
        assert not frames[signals.lengths[b] :, b].any()
    assert np.mean(right) > 0.9


@pytest.fixture(scope="module")
def scores(signals):
    both, back, told = speech_labels.KINDS
    updates = {both: 200, back: 400, told: 200}
    return {
        kind: speech_labels.score(speech_labels.train(kind, 24, number, seed=0)[0], signals)
        for kind, number in updates.items()
    }


def test_labels_are_learnt_without_alignment(scores, signals):
    assert scores["CTC, both directions"].error < 0.25
    untrained = speech_labels.Recognizer(24, both_directions=True)
    assert speech_labels.score(untrained, signals).error > 0.6


def test_one_that_looks_back_only_is_later(scores):
    assert scores["CTC, looks back only"].delay > scores["told every frame"].delay + 0.5


def test_one_told_every_frame_merges_what_has_no_pause(scores, signals):
    merged = speech_labels.merged_repeats(signals)
    assert merged > 0.02
    assert scores["told every frame"].error > merged - 0.01


@pytest.mark.parametrize("seed", range(5))
def test_edits_are_the_fewest(seed):
    """Against a search over all ways, for short sequences."""
    random = np.random.default_rng(seed)
    one = random.integers(0, 3, random.integers(0, 5)).tolist()
    two = random.integers(0, 3, random.integers(0, 5)).tolist()

    def fewest(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(
            fewest(a[1:], b) + 1, fewest(a, b[1:]) + 1, fewest(a[1:], b[1:]) + (a[0] != b[0])
        )

    assert speech_labels.edits(one, two) == fewest(one, two)


def test_the_command_runs_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "figure.svg"
    options = ["--updates", "1", "--units", "4", "--seeds", "1", "--figure", str(figure)]
    shown = CliRunner().invoke(speech_labels.main, options, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert figure.exists()
    assert all(kind in shown.output for kind in speech_labels.KINDS)
