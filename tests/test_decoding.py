"""Decoding: against all sequences written out, a plain beam search in lists, and by hand."""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import pytest

import tinygrad_rnn as torch
from tinygrad_rnn import nn
from tinygrad_rnn.decoding import Hypothesis, beam_search, greedy, sample
from tinygrad_rnn.scan import trees

pytestmark = pytest.mark.usefixtures("device")

END, START = 0, 1
PENALTIES = pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.5])


class State(NamedTuple):
    """Which automaton a row belongs to, and the node that it is at; and a float beside them."""

    row: Any
    node: tuple[Any, Any]


class Automata:
    """A random automaton for each sequence: at each node, chances of tokens, and where they lead.

    `step` is what is decoded; `log_prob` and `follow` are the same for one sequence, in numbers.
    """

    def __init__(self, sequences, nodes, symbols, seed=0, sharpness=1.0, log_probs=None):
        rng = np.random.default_rng(seed)
        logits = sharpness * rng.standard_normal((sequences, nodes, symbols))
        if log_probs is None:
            log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        self.log_probs = np.asarray(log_probs)
        self.next = rng.integers(nodes, size=self.log_probs.shape)

    def state(self):
        count = len(self.log_probs)
        first = torch.full((count, 1), -1)  # no token read yet
        return State(torch.arange(count), (first, torch.ones(count, 1)))

    def step(self, tokens, state):
        node, weight = state.node
        assert tokens.dtype == torch.int64
        read = torch.tensor(self.next)[state.row, node.squeeze(1).clamp(min=0), tokens]
        node = torch.where(node < 0, torch.zeros(1, dtype=torch.int64), read.unsqueeze(1))
        log_probs = torch.tensor(self.log_probs)[state.row, node.squeeze(1)]
        return log_probs * weight, State(state.row, (node, weight))

    def log_prob(self, b, tokens):
        """log P of each token, given those before."""
        node, found = 0, []
        for token in tokens:
            found.append(self.log_probs[b, node, token])
            node = self.next[b, node, token]
        return found


def a_step(log_probs):
    """A step that always gives the same."""
    return lambda tokens, state: (log_probs, state)


def penalised(log_prob, length, alpha):
    return log_prob / ((5 + length) / 6) ** alpha


def all_sequences(automata, b, max_length, alpha):
    """Everything that can be written in max_length tokens, in the order of what is returned."""
    symbols = automata.log_probs.shape[-1]
    found = []
    for length in range(1, max_length + 1):
        for tokens in itertools.product(range(symbols), repeat=length):
            if END in tokens[:-1] or (tokens[-1] != END and length < max_length):
                continue
            total = sum(automata.log_prob(b, tokens))
            finished = tokens[-1] == END
            text = tokens[:-1] if finished else tokens
            found.append(Hypothesis(text, penalised(total, length, alpha), total, finished))
    return sorted(found, key=lambda each: (not each.finished, -each.score))


def beam_in_lists(automata, b, max_length, beam, alpha):
    """Beam search for one sequence, a list of (log_prob, tokens) at a time."""
    alive, done = [(0.0, ())], []
    for _ in range(max_length):
        continued = [
            (total + automata.log_prob(b, (*tokens, token))[-1], (*tokens, token))
            for total, tokens in alive
            for token in range(automata.log_probs.shape[-1])
        ]
        continued.sort(key=lambda each: -each[0])  # stable
        done += [each for each in continued[:beam] if each[1][-1] == END]
        alive = [each for each in continued if each[1][-1] != END][:beam]
        if len(done) >= beam:
            alive = []
            break
    found = [
        Hypothesis(tokens[:-1], penalised(total, len(tokens), alpha), total, True)
        for total, tokens in done
    ] + [
        Hypothesis(tokens, penalised(total, len(tokens), alpha), total, False)
        for total, tokens in alive
    ]
    return sorted(found, key=lambda each: (not each.finished, -each.score))[:beam]


def assert_same(ours, truth):
    assert [each.tokens for each in ours] == [each.tokens for each in truth]
    assert [each.finished for each in ours] == [each.finished for each in truth]
    for field in ("score", "log_prob"):
        np.testing.assert_allclose(
            [getattr(each, field) for each in ours],
            [getattr(each, field) for each in truth],
            rtol=1e-12,
        )


# Beam search.


@PENALTIES
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_all_sequences(seed, length_penalty):
    automata = Automata(sequences=3, nodes=200, symbols=3, seed=seed)  # so that no two tie
    found = beam_search(
        automata.step, automata.state(), START, END, 4, 31, length_penalty
    )  # 1 + 2 + 4 + 8 that end, 16 that are cut off
    assert len(found) == 3
    for b, hypotheses in enumerate(found):
        assert_same(hypotheses, all_sequences(automata, b, 4, length_penalty))


@PENALTIES
@pytest.mark.parametrize("beam", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", range(3))
def test_against_lists(seed, beam, length_penalty):
    automata = Automata(sequences=5, nodes=6, symbols=5, seed=seed, sharpness=1.5)
    found = beam_search(automata.step, automata.state(), START, END, 9, beam, length_penalty)
    for b, hypotheses in enumerate(found):
        assert_same(hypotheses, beam_in_lists(automata, b, 9, beam, length_penalty))


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_one_is_greedy(seed):
    automata = Automata(sequences=6, nodes=6, symbols=4, seed=seed)
    beam = beam_search(automata.step, automata.state(), START, END, 8, beam=1)
    assert [each for (each,) in beam] == greedy(automata.step, automata.state(), START, END, 8)


def test_a_wider_beam_finds_what_greedy_misses():
    chances = [[[0.0, 0.6, 0.4], [0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]]  # END, 1, 2
    with np.errstate(divide="ignore"):
        automata = Automata(1, 3, 3, log_probs=np.log(chances))
    automata.next[:] = [0, 1, 2]
    (taken,) = greedy(automata.step, automata.state(), START, END, 5)
    assert taken == Hypothesis((1,), pytest.approx(math.log(0.3)), pytest.approx(math.log(0.3)), 1)
    ((best, second),) = beam_search(automata.step, automata.state(), START, END, 5, beam=2)
    assert (best.tokens, second.tokens) == ((2,), (1,))
    assert best.log_prob == pytest.approx(math.log(0.4))


def test_what_is_finished_stays():
    """Two beginnings are better than the finished one, until they have to end."""
    chances = [[[0.3, 0.4, 0.3], [0.1, 0.85, 0.05], [0.1, 0.05, 0.85]]]
    automata = Automata(1, 3, 3, log_probs=np.log(chances))
    automata.next[:] = [0, 1, 2]
    ((best, *_),) = beam_search(automata.step, automata.state(), START, END, 6, beam=2)
    assert best.tokens == ()
    assert best.log_prob == pytest.approx(math.log(0.3))


def test_the_length_penalty_prefers_longer_ones():
    """Equation 14: log P / ((5 + n) / 6)^α, the end counted."""
    chances = [[[0.5, 0.5], [0.8, 0.2]]]
    automata = Automata(1, 2, 2, log_probs=np.log(chances))
    automata.next[:] = [0, 1]
    orders = {}
    for alpha in (0.0, 4.0):
        (found,) = beam_search(automata.step, automata.state(), START, END, 3, 2, alpha)
        orders[alpha] = [each.tokens for each in found]
        for each in found:
            n = len(each.tokens) + 1
            assert each.score == pytest.approx(each.log_prob / ((5 + n) / 6) ** alpha)
    assert orders == {0.0: [(), (1,)], 4.0: [(1,), ()]}


def test_equal_hypotheses_come_in_a_fixed_order():
    """What ended before, then what continues the earlier beginning, then the smaller token."""
    automata = Automata(2, 1, 4, log_probs=np.full((2, 1, 4), -math.log(4)))
    for hypotheses in beam_search(automata.step, automata.state(), START, 3, 2, beam=5):
        assert [each.tokens for each in hypotheses] == [(), (0,), (0, 0), (0, 1), (0, 2)]
    for each in greedy(automata.step, automata.state(), START, 3, 2):
        assert each.tokens == (0, 0)


def test_ties_at_the_edge_of_the_beam():
    automata = Automata(1, 1, 9, log_probs=np.full((1, 1, 9), -math.log(9)))
    (found,) = beam_search(automata.step, automata.state(), START, 8, 1, beam=3)
    assert [each.tokens for each in found] == [(0,), (1,), (2,)]


def test_sequences_do_not_know_of_each_other():
    automata = Automata(sequences=4, nodes=5, symbols=4, seed=3)
    together = beam_search(automata.step, automata.state(), START, END, 7, 3, 0.6)
    for b in range(4):
        own = trees.rebuild(
            automata.state(), (x[b : b + 1] for x in trees.leaves(automata.state()))
        )
        assert beam_search(automata.step, own, START, END, 7, 3, 0.6)[0] == together[b]


def test_without_an_end_all_are_cut_off():
    automata = Automata(1, 3, 3, seed=1)
    automata.log_probs[..., END] = -np.inf
    (found,) = beam_search(automata.step, automata.state(), START, END, 4, beam=3)
    assert [len(each.tokens) for each in found] == [4, 4, 4]
    assert not any(each.finished for each in found)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


def test_ways_that_do_not_exist_are_no_hypotheses():
    log_probs = np.full((2, 1, 3), -np.inf)
    log_probs[0, 0, END] = 0
    automata = Automata(2, 1, 3, log_probs=log_probs)
    calls = []

    def step(tokens, state):
        calls.append(len(tokens))
        return automata.step(tokens, state)

    found = beam_search(step, automata.state(), START, END, 5, beam=2)
    assert found == [[Hypothesis((), 0.0, 0.0, True)], []]
    assert calls == [4]


def test_the_end_is_all_there_is():
    (found,) = beam_search(a_step(torch.zeros(3, 1)), torch.ones(1, 1), 0, 0, 5, beam=3)
    assert found == [Hypothesis((), 0.0, 0.0, True)]


def test_it_stops_when_all_are_done():
    automata = Automata(2, 1, 2, log_probs=np.log(np.full((2, 1, 2), 0.5)))
    calls = []

    def step(tokens, state):
        calls.append(tokens.tolist())
        return automata.step(tokens, state)

    beam_search(step, automata.state(), START, END, 50, beam=3)
    assert len(calls) == 3
    assert calls[0] == [START] * 6


# Greedy and sampling.


@pytest.mark.parametrize("seed", range(3))
def test_greedy_by_hand(seed):
    automata = Automata(sequences=5, nodes=6, symbols=4, seed=seed)
    for b, found in enumerate(greedy(automata.step, automata.state(), START, END, 6)):
        node, tokens, total = 0, [], 0.0
        while len(tokens) < 6 and END not in tokens:
            tokens.append(int(np.argmax(automata.log_probs[b, node])))
            total += automata.log_probs[b, node, tokens[-1]]
            node = automata.next[b, node, tokens[-1]]
        assert found.finished == (tokens[-1] == END)
        assert found.tokens == tuple(token for token in tokens if token != END)
        assert found.log_prob == found.score == pytest.approx(total, rel=1e-12)


def test_start_tokens_may_differ():
    automata = Automata(3, 4, 3, seed=5)
    fed = []

    def step(tokens, state):
        fed.append(tokens.tolist())
        return automata.step(tokens, state)

    starts = torch.tensor([2, 1, 2])
    greedy(step, automata.state(), starts, END, 2)
    beam_search(step, automata.state(), starts, END, 1, beam=2)
    assert fed[0] == [2, 1, 2]
    assert fed[-1] == [2, 2, 1, 1, 2, 2]


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (0.5, None), (2.0, 2)])
def test_samples_are_as_frequent_as_they_should_be(temperature, top_k):
    """Within five standard deviations of 40,000 draws, for each sequence of two tokens."""
    automata = Automata(1, 3, 4, seed=2)
    count = 40_000
    state = trees.rebuild(
        automata.state(), (x.repeat_interleave(count, 0) for x in trees.leaves(automata.state()))
    )
    found = sample(
        automata.step,
        state,
        START,
        END,
        2,
        temperature=temperature,
        top_k=top_k,
        generator=torch.Generator(7),
    )
    chances = np.exp(automata.log_probs[0] / temperature)
    if top_k is not None:
        for row in chances:
            row[np.argsort(row)[:-top_k]] = 0
    chances /= chances.sum(-1, keepdims=True)
    expected = {(): chances[0, END]}
    for first in range(1, 4):
        after = chances[automata.next[0, 0, first]]
        expected[(first,)] = chances[0, first] * after[END]
        for second in range(1, 4):
            expected[(first, second)] = chances[0, first] * after[second]
    drawn = {tokens: 0 for tokens in expected}
    for each in found:
        drawn[each.tokens] += 1
    for tokens, chance in expected.items():
        deviation = math.sqrt(count * chance * (1 - chance))
        assert abs(drawn[tokens] - count * chance) <= 5 * deviation


def test_the_log_probability_of_a_sample_is_the_models():
    automata = Automata(4, 5, 4, seed=1)
    found = sample(automata.step, automata.state(), START, END, 9, temperature=0.3, top_k=3)
    for b, each in enumerate(found):
        tokens = (*each.tokens, END) if each.finished else each.tokens
        assert each.log_prob == pytest.approx(sum(automata.log_prob(b, tokens)), rel=1e-12)


@pytest.mark.parametrize("choice", [{"temperature": 0}, {"top_k": 1}, {"temperature": 1e-6}])
def test_samples_that_leave_no_choice_are_greedy(choice):
    automata = Automata(6, 5, 4, seed=4)
    expected = greedy(automata.step, automata.state(), START, END, 7)
    assert sample(automata.step, automata.state(), START, END, 7, **choice) == expected


def test_samples_repeat_with_the_seed():
    automata = Automata(20, 5, 4, seed=4)

    def drawn(seed):
        torch.manual_seed(seed)
        return sample(automata.step, automata.state(), START, END, 7)

    assert drawn(1) == drawn(1) != drawn(2)


def test_what_comes_after_the_end_does_not_count():
    """Rows that have ended get the end, whose followers may be impossible."""
    log_probs = np.full((2, 3, 3), -np.inf)
    log_probs[0, 0, END] = 0
    log_probs[1, :, 2] = 0
    automata = Automata(2, 3, 3, log_probs=log_probs)
    automata.next[0] = 1
    fed = []

    def step(tokens, state):
        fed.append(tokens.tolist())
        return automata.step(tokens, state)

    for decode in (greedy, sample):
        first, second = decode(step, automata.state(), START, END, 3)
        assert first == Hypothesis((), 0.0, 0.0, True)
        assert second == Hypothesis((2, 2, 2), 0.0, 0.0, False)
        assert fed[-1] == [END, 2]


# With layers.


@pytest.mark.parametrize("decode", [greedy, beam_search])
def test_states_of_layers_and_of_cells(decode):
    """A layer's states, (layers, B, H), want batch_dim=1; the same weights as cells do not."""
    torch.manual_seed(0)
    embedding, output = nn.Embedding(6, 4), nn.Linear(5, 6)
    layer = nn.LSTM(4, 5, 2)
    cells = [nn.LSTMCell(4, 5), nn.LSTMCell(5, 5)]
    for k, cell in enumerate(cells):
        names = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}
        cell.load_state_dict({name: getattr(layer, f"{name}_l{k}") for name in names})

    def by_layer(tokens, state):
        y, state = layer(embedding(tokens).unsqueeze(0), state)
        return (3 * output(y.squeeze(0))).log_softmax(-1), state

    def by_cells(tokens, state):
        y, after = embedding(tokens), []
        for cell, pair in zip(cells, state, strict=True):
            after.append(cell(y, pair))
            y = after[-1][0]
        return (3 * output(y)).log_softmax(-1), tuple(after)

    h, c = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    ours = decode(by_layer, (h, c), START, END, 6, batch_dim=1)
    truth = decode(by_cells, ((h[0], c[0]), (h[1], c[1])), START, END, 6)
    for a, b in zip(ours, truth, strict=True):
        for x, y in zip(
            [a] if decode is greedy else a, [b] if decode is greedy else b, strict=True
        ):
            assert x.tokens == y.tokens
            assert x.log_prob == pytest.approx(y.log_prob, rel=1e-5)


def test_attention_in_the_state_or_repeated():
    torch.manual_seed(1)
    embedding, output, cell = nn.Embedding(7, 4), nn.Linear(9, 7), nn.GRUCell(4, 5)
    attention = nn.AdditiveAttention(5, 4, 6)
    keys, h = torch.randn(3, 8, 4), torch.randn(3, 5)
    mask = torch.arange(8) < torch.tensor([8, 3, 5]).unsqueeze(1)

    def step(tokens, state):
        h, memory, mask = state
        h = cell(embedding(tokens), h)
        context, _ = attention(h, memory, mask=mask)
        log_probs = (4 * output(torch.cat([h, context], -1))).log_softmax(-1)
        return log_probs, (h, memory, mask)

    memory = attention.project(keys)
    inside = beam_search(step, (h, memory, mask), START, END, 6, beam=3)
    spread = trees.rebuild(
        (memory, mask), (x.repeat_interleave(3, 0) for x in trees.leaves((memory, mask)))
    )

    def step_of_h(tokens, h):
        log_probs, (h, *_) = step(tokens, (h, *spread))
        return log_probs, h

    assert beam_search(step_of_h, h, START, END, 6, beam=3) == inside
    alone = beam_search(step, (h[1:2], attention.project(keys[1:2, :3]), mask[1:2, :3]), 1, 0, 6, 3)
    assert [each.tokens for each in alone[0]] == [each.tokens for each in inside[1]]


def test_nothing_is_recorded():
    weight = torch.zeros(3, requires_grad=True)

    def step(tokens, state):
        assert not torch.is_grad_enabled()
        log_probs = (weight + state).log_softmax(-1)
        assert not log_probs.requires_grad
        return log_probs, state

    for decode in (greedy, sample, beam_search):
        decode(step, torch.zeros(2, 1), START, END, 3)
    assert torch.is_grad_enabled()


# Errors.


@pytest.mark.parametrize("decode", [greedy, sample, beam_search])
@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"max_length": 0}, ValueError, "max_length must be at least 1, got 0"),
        ({"state": [torch.ones(2, 1)]}, TypeError, "state: expected a Tensor or a tuple.*list"),
        ({"state": ()}, ValueError, "one start token for all.*a vector of start tokens"),
        ({"state": torch.ones(2), "batch_dim": 1}, ValueError, r"axis 1; got the shapes \[\(2,\)"),
        ({"start": torch.ones(2)}, ValueError, r"a vector of integers.*got \(2,\) float32"),
        ({"start": torch.tensor([1, 1, 1])}, ValueError, r"for 3 sequences.*got \(2, 1\) float32"),
        (
            {"state": (torch.ones(2, 1), torch.ones(3, 2, 4))},
            ValueError,
            r"for 2 sequences, axis 0.*got \(3, 2, 4\) float32.*want batch_dim=1",
        ),
        ({"start": 1.5}, TypeError, "float"),
        ({"state": torch.ones(0, 1)}, ValueError, "the batch is empty"),
        ({"step": lambda tokens, state: state}, TypeError, r"a pair \(log_probs, state\).*Tensor"),
        ({"step": a_step([0.0])}, TypeError, "log_probs must be a Tensor, got list"),
        ({"step": a_step(torch.zeros(3))}, ValueError, r"shape \(\d, V\), got \(3,\) float32"),
        ({"step": a_step(torch.zeros(9, 3))}, ValueError, r"shape \(\d, V\), got \(9, 3\)"),
        ({"end": 3}, ValueError, "the end token 3 is none of the 3 tokens"),
        ({"end": -1}, ValueError, "the end token -1 is none of the 3 tokens"),
    ],
)
def test_errors(decode, changed, error, message):
    def step(tokens, state):
        return torch.zeros(len(tokens), 3), state

    given = {
        "step": step,
        "state": torch.ones(2, 1),
        "start": START,
        "end": END,
        "max_length": 3,
    } | changed
    with pytest.raises(error, match=message):
        decode(**given)


@pytest.mark.parametrize("decode", [greedy, sample, beam_search])
@pytest.mark.parametrize("bad", [2.5, math.nan, math.inf])
def test_logits_are_no_log_probabilities(decode, bad):
    def step(tokens, state):
        return torch.tensor([[-1.0, bad, -2.0]]).expand(len(tokens), 3), state

    with pytest.raises(ValueError, match=rf"up to {bad}, where 0 is the most.*log_softmax\(-1\)"):
        decode(step, torch.ones(2, 1), START, END, 3)


@pytest.mark.parametrize("decode", [greedy, sample])
def test_a_dead_end(decode):
    def step(tokens, state):
        return torch.tensor([[-math.inf] * 3, [-1.0] * 3])[: len(tokens)], state

    with pytest.raises(ValueError, match=r"in sequence 0 no token can follow.*step 1 are -inf"):
        decode(step, torch.ones(2, 1), START, END, 3)


def test_errors_of_options():
    step, state = a_step(torch.zeros(2, 3)), torch.ones(2, 1)
    for beam in (0, 2.0):
        with pytest.raises(ValueError, match=f"beam must be a whole number from 1 on, got {beam}"):
            beam_search(step, state, START, END, 3, beam=beam)
    for temperature in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"must be a number from 0 on, got {temperature}"):
            sample(step, state, START, END, 3, temperature=temperature)
    with pytest.raises(ValueError, match="top_k must be at least 1, or None for all, got 0"):
        sample(step, state, START, END, 3, top_k=0)
