"""How does a model that gives the next token's probabilities write whole sequences?

Token by token: `greedy` takes the likeliest, `sample` draws one, `beam_search` follows the `beam`
likeliest beginnings side by side. All they know of a model is its step,

    log_probs, state = step(tokens, state)

with the tokens (R,) just written, integers, log_probs (R, V) in nats, and a state that is a Tensor
or a nested tuple of Tensors, each with an axis of R rows: see scan/trees.py. In `beam_search` row
b · beam + k is hypothesis k of sequence b, and the rows of the state follow their hypotheses. What
a sequence has of its own, such as the keys and the mask of attention, can be part of the state; or
be given to the step already repeated, keys.repeat_interleave(beam, 0), since no row ever leaves its
sequence. Nothing is recorded for a gradient.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinygrad_rnn import random
from tinygrad_rnn.backend import Array, device, namespace, to_device, to_numpy
from tinygrad_rnn.modes import no_grad
from tinygrad_rnn.ops.primitive import describe
from tinygrad_rnn.random import Generator
from tinygrad_rnn.scan import trees
from tinygrad_rnn.scan.trees import Tree
from tinygrad_rnn.tensor import Tensor

#: step(tokens, state) -> (log_probs, state).
Step: TypeAlias = Callable[[Tensor, Tree], tuple[Tensor, Tree]]


class Hypothesis(NamedTuple):
    """A sequence that was written.

    tokens: without the start and without the end.
    score: what hypotheses are compared by: log_prob, divided by the length penalty.
    log_prob: log P(tokens, end) in nats, or log P(tokens) if it is not finished.
    finished: whether the end was written; if not, max_length was reached.
    """

    tokens: tuple[int, ...]
    score: float
    log_prob: float
    finished: bool


@no_grad()
def greedy(
    step: Step,
    state: Tree,
    start: int | Tensor,
    end: int,
    max_length: int,
    *,
    batch_dim: int = 0,
) -> list[Hypothesis]:
    """At each step the likeliest token; of equally likely ones the first.

    Args:
        step: (tokens, state) to (log_probs, state), as the top of this file says.
        state: before the first step, for B sequences.
        start: the token that each sequence begins with, or a vector of B tokens.
        end: the token that ends a sequence. Rows that have ended go on getting it.
        max_length: how many tokens to write at most, the end included.
        batch_dim: the axis of the state's tensors that counts sequences: 0, or 1 for the states of
            the layers of `nn`, (layers, B, H).

    Returns:
        One Hypothesis for each sequence.

    Raises:
        TypeError: the step gave no pair, or the state is not made of Tensors and tuples.
        ValueError: sizes that do not fit, or log-probabilities that are none.

    >>> import tinygrad_rnn as torch
    >>> chances = torch.tensor([[0.1, 0.9, 0.0], [0.1, 0.3, 0.6], [0.8, 0.1, 0.1]])
    >>> def step(tokens, state):  # a Markov chain: what follows 0, 1, 2
    ...     return chances[tokens].log(), state
    >>> greedy(step, (), start=torch.tensor([0, 1]), end=0, max_length=5)[0].tokens
    (1, 2)
    """
    return _one_by_one("greedy", step, state, start, end, max_length, batch_dim, _likeliest)


@no_grad()
def sample(
    step: Step,
    state: Tree,
    start: int | Tensor,
    end: int,
    max_length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: Generator | None = None,
    batch_dim: int = 0,
) -> list[Hypothesis]:
    """At each step a token with chance ∝ P^(1 / temperature): a draw from the model, if that is 1.

    Args:
        step, state, start, end, max_length, batch_dim: as for `greedy`.
        temperature: less than 1 is more cautious, 0 is `greedy`.
        top_k: draw from the k likeliest tokens only; of equally likely ones the first.
        generator: where the numbers come from; the default generator unless given.

    Returns:
        One Hypothesis for each sequence. Its probability is the model's, whatever the temperature.

    Raises:
        TypeError, ValueError: as for `greedy`, or a temperature below 0, or a top_k below 1.
    """
    if not 0 <= temperature < math.inf:
        raise ValueError(f"sample: temperature must be a number from 0 on, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"sample: top_k must be at least 1, or None for all, got {top_k}")
    source = generator or random.generator()

    def draw(log_probs: Array) -> Array:
        if temperature == 0:
            return _likeliest(log_probs)
        values = to_numpy(log_probs).astype(np.float64)  # (B, V)
        if top_k is not None and top_k < values.shape[1]:
            best, places = _largest(values, top_k)
            values = np.full_like(values, -np.inf)
            np.put_along_axis(values, places, best, 1)
        weights = np.exp((values - values.max(1, keepdims=True)) / temperature)
        return source.multinomial(weights, 1, replacement=True)[:, 0]

    return _one_by_one("sample", step, state, start, end, max_length, batch_dim, draw)


def _likeliest(log_probs: Array) -> Array:
    """The first of the largest in each row."""
    return log_probs.argmax(1)


def _one_by_one(
    caller: str,
    step: Step,
    state: Tree,
    start: int | Tensor,
    end: int,
    max_length: int,
    batch_dim: int,
    choose: Callable[[Array], Array],
) -> list[Hypothesis]:
    """One hypothesis for each sequence, written by what `choose` takes of (B, V)."""
    tokens, where = _beginning(caller, state, start, max_length, batch_dim)
    log_prob, alive = np.zeros(len(tokens)), np.ones(len(tokens), bool)
    written = []
    for length in range(1, max_length + 1):
        log_probs, state = _stepped(caller, step, tokens, where, state, end)
        rows = np.flatnonzero(alive)
        choices = log_probs[to_device(rows, where)]
        stuck = rows[np.isneginf(to_numpy(choices.max(1)))]
        if stuck.size:
            raise ValueError(
                f"{caller}: in sequence {stuck[0]} no token can follow: all log-probabilities of "
                f"step {length} are -inf"
            )
        chosen = to_numpy(choose(choices))
        places = to_device(chosen[:, None], where)
        gained = to_numpy(namespace(choices).take_along_axis(choices, places, 1))[:, 0]
        tokens = np.full(len(alive), end)
        tokens[rows] = chosen
        log_prob[rows] += gained
        written.append(tokens)
        alive = tokens != end
        if not alive.any():
            break
    return [
        _hypothesis(row[row != end], total, not unfinished)
        for row, total, unfinished in zip(np.stack(written, 1), log_prob, alive, strict=True)
    ]


def _hypothesis(
    tokens: Array, log_prob: float, finished: bool, length_penalty: float = 0.0
) -> Hypothesis:
    """A Hypothesis, with its score."""
    length = len(tokens) + finished  # the end was written, too
    score = log_prob / ((5 + length) / 6) ** length_penalty
    return Hypothesis(tuple(tokens.tolist()), float(score), float(log_prob), bool(finished))


@no_grad()
def beam_search(
    step: Step,
    state: Tree,
    start: int | Tensor,
    end: int,
    max_length: int,
    beam: int = 4,
    length_penalty: float = 0.0,
    *,
    batch_dim: int = 0,
) -> list[list[Hypothesis]]:
    """The likeliest sequences that are found by following the `beam` likeliest beginnings.

    At each step all beginnings are continued with all tokens. Of the results, those that end and
    are among the best `beam` are finished, and stay so; the best `beam` that do not end go on. A
    sequence is done when it has `beam` finished hypotheses. Beginnings are compared at one length,
    so the length penalty decides only about the order of what is returned. With beam = 1 this is
    `greedy`. Of equal hypotheses the one that ended before the other comes first, then the one
    whose beginning stood before the other's, then the one with the smaller token.

    Args:
        step, state, start, end, max_length, batch_dim: as for `greedy`; the state is that of B
            sequences, the step is called with B · beam rows.
        beam: how many beginnings to follow, and the number of hypotheses to return at most.
        length_penalty: α of Wu et al., "Google's neural machine translation system", 2016 (arXiv
            1609.08144), equation 14, without its coverage penalty: score = log_prob / lp with
            lp = ((5 + n) / 6)^α, n the tokens written, the end included. 0: the score is log_prob,
            which favours short sequences, because each token costs.

    Returns:
        For each sequence its hypotheses: first the finished ones, best score first, and if fewer
        than `beam` are finished then those cut off at max_length, likewise. An empty list if there
        is no way to go on.

    Raises:
        TypeError, ValueError: as for `greedy`, or a beam below 1.

    >>> import tinygrad_rnn as torch
    >>> chances = torch.tensor([[0.0, 0.6, 0.4], [0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    >>> def step(tokens, state):  # 0 is the start and the end
    ...     return chances[tokens].log(), state
    >>> greedy(step, (), torch.tensor([0]), 0, 5)[0].tokens
    (1,)
    >>> best, *_ = beam_search(step, (), torch.tensor([0]), 0, 5, beam=2)[0]
    >>> best.tokens, round(best.log_prob, 4)  # log 0.4: more than 0.6 · 0.5
    ((2,), -0.9163)
    """
    if not isinstance(beam, int) or beam < 1:
        raise ValueError(f"beam_search: beam must be a whole number from 1 on, got {beam!r}")
    tokens, where = _beginning("beam_search", state, start, max_length, batch_dim)
    batch = len(tokens)
    firsts = np.arange(batch)[:, None] * beam  # the row of each sequence's first hypothesis
    tokens = tokens.repeat(beam)
    state = _rows_of(state, np.arange(batch).repeat(beam), where, batch_dim)
    total = np.full((batch, beam), -np.inf)  # log-probabilities; -inf: no hypothesis
    total[:, 0] = 0  # all begin alike, so one is enough
    written = np.zeros((batch, beam, 0), np.int64)
    found: list[list[Hypothesis]] = [[] for _ in range(batch)]

    for _ in range(max_length):
        log_probs, state = _stepped("beam_search", step, tokens, where, state, end)
        symbols = log_probs.shape[1]
        continued = to_device(total, where)[..., None] + log_probs.reshape(batch, beam, symbols)
        count = min(2 * beam, beam * symbols)  # at most `beam` of them end
        largest = _largest(continued.reshape(batch, beam * symbols), count)
        log_prob, places = map(to_numpy, largest)
        parents, chosen = places // symbols, places % symbols  # (B, count)
        ends = chosen == end
        for b, k in np.argwhere(ends[:, :beam] & np.isfinite(log_prob[:, :beam])).tolist():
            beginning = written[b, parents[b, k]]
            found[b].append(_hypothesis(beginning, log_prob[b, k], True, length_penalty))

        going_on = np.argsort(ends, axis=1, kind="stable")[:, :beam]
        parents, chosen, total = (
            np.take_along_axis(x, going_on, 1)
            for x in (parents, chosen, np.where(ends, -np.inf, log_prob))
        )
        total[[len(hypotheses) >= beam for hypotheses in found]] = -np.inf
        written = np.take_along_axis(written, parents[..., None], 1)
        written = np.concatenate([written, chosen[..., None]], 2)
        if not np.isfinite(total).any():
            break
        tokens = chosen.reshape(-1)
        state = _rows_of(state, (firsts + parents).reshape(-1), where, batch_dim)

    for b, k in np.argwhere(np.isfinite(total)).tolist():
        found[b].append(_hypothesis(written[b, k], total[b, k], False, length_penalty))
    return [
        sorted(hypotheses, key=lambda each: (not each.finished, -each.score))[:beam]
        for hypotheses in found
    ]


def _largest(x: Array, count: int) -> tuple[Array, Array]:
    """(values, places) of the `count` largest of each row, largest first; of equal ones the first.

    x: (rows, columns). Only the result is sorted, for there may be many columns, beam · V.
    """
    xp = namespace(x)
    columns = x.shape[1]
    # The least value among them, which x may have more often than there is room for.
    least = xp.partition(x, columns - count, axis=1)[:, columns - count, None]
    above, level = x > least, x == least
    room = count - above.sum(1, keepdims=True)
    taken = above | (level & (level.cumsum(1) <= room))
    places = xp.nonzero(taken)[1].reshape(len(x), count)
    values = xp.take_along_axis(x, places, 1)
    order = xp.argsort(-values, axis=1, kind="stable")
    return xp.take_along_axis(values, order, 1), xp.take_along_axis(places, order, 1)


def _rows_of(state: Tree, rows: Array, where: device, batch_dim: int) -> Tree:
    """The state with these of its rows, in this order."""
    index = Tensor(to_device(rows, where))
    return trees.rebuild(state, (x.index_select(batch_dim, index) for x in trees.leaves(state)))


def _beginning(
    caller: str, state: Tree, start: int | Tensor, max_length: int, batch_dim: int
) -> tuple[np.ndarray[Any, Any], device]:
    """The first token of each sequence (B,), and the device that the step wants tokens on."""
    if not isinstance(max_length, int) or max_length < 1:
        raise ValueError(f"{caller}: max_length must be at least 1, got {max_length!r}")
    parts = trees.leaves(state, f"{caller}: state")
    if isinstance(start, Tensor):
        if start.ndim != 1 or start.dtype.kind not in "iu":
            raise ValueError(
                f"{caller}: start must be one token or a vector of integers, one for each "
                f"sequence, got {describe(start)}"
            )
        tokens = to_numpy(start.array).astype(np.int64)
        where = parts[0].device if parts else start.device
    else:
        if not parts or not -parts[0].ndim <= batch_dim < parts[0].ndim:
            raise ValueError(
                f"{caller}: with one start token for all, the state must say how many sequences "
                f"there are, in axis {batch_dim}; got the shapes {[x.shape for x in parts]}. Give "
                "a vector of start tokens"
            )
        tokens = np.full(parts[0].shape[batch_dim], operator.index(start), np.int64)
        where = parts[0].device
    if not len(tokens):
        raise ValueError(f"{caller}: there are no sequences: the batch is empty")
    for x in parts:
        if not -x.ndim <= batch_dim < x.ndim or x.shape[batch_dim] != len(tokens):
            raise ValueError(
                f"{caller}: for {len(tokens)} sequences, axis {batch_dim} of every tensor of the "
                f"state must have that size, got {describe(x)}; states (layers, batch, hidden) "
                "want batch_dim=1"
            )
    return tokens, where


def _stepped(
    caller: str, step: Step, tokens: np.ndarray[Any, Any], where: device, state: Tree, end: int
) -> tuple[Array, Tree]:
    """What the step gives for these tokens: an array of log-probabilities, and the state."""
    returned = step(Tensor(to_device(tokens, where)), state)
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(
            f"{caller}: step must return a pair (log_probs, state), got {type(returned).__name__}"
        )
    log_probs, state = returned
    if not isinstance(log_probs, Tensor):
        raise TypeError(f"{caller}: log_probs must be a Tensor, got {type(log_probs).__name__}")
    if log_probs.ndim != 2 or len(log_probs) != len(tokens):
        raise ValueError(
            f"{caller}: for {len(tokens)} tokens step must return log_probs of shape "
            f"({len(tokens)}, V), got {describe(log_probs)}"
        )
    if not 0 <= end < log_probs.shape[1]:
        raise ValueError(
            f"{caller}: the end token {end} is none of the {log_probs.shape[1]} tokens that step "
            "gives log-probabilities for"
        )
    largest = log_probs.array.max().item()
    if not largest <= 1e-3:  # nor NaN; what is a rounding error above 0 may pass
        raise ValueError(
            f"{caller}: step returned log-probabilities up to {largest}, where 0 is the most; if "
            "these are logits, end the step with .log_softmax(-1)"
        )
    return log_probs.array, state
