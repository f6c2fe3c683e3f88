"""How long does one character take when a model writes? Against PyTorch, with the same weights.

    python benchmarks/streaming.py [--write]

One step is what `tinygrad-rnn sample` does for each character, without the drawing: embedding, one
LSTM layer of 256 units, output layer, for one sequence (B = 1), under no_grad, float32. All ways
get the token as a number and give the logits and the new state. PyTorch is timed with one thread
and with two, and the ratios are to its faster setting. With --write, docs/benchmarks/streaming.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from harness import alternate, machine, table, write_page

import tinygrad_rnn
from tinygrad_rnn.char_lm import CharLM

SYMBOLS, HIDDEN = 97, 256
EMBEDDINGS = (64, 256)
THREADS = (1, 2)
TOKEN = 5

#: logits, state = step(token, state)
Step = Callable[[int, Any], tuple[Any, Any]]


class Theirs(torch.nn.Module):
    """The layers of CharLM under the same names, in PyTorch."""

    def __init__(self, embed: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(SYMBOLS, embed)
        self.recurrent = torch.nn.LSTM(embed, HIDDEN)
        self.output = torch.nn.Linear(HIDDEN, SYMBOLS)


def steps_of(embed: int) -> dict[str, tuple[Step, Any]]:
    """The ways to compute a step, each with its first state."""
    ours, theirs = CharLM(SYMBOLS, hidden=HIDDEN, embed=embed).eval(), Theirs(embed).eval()
    theirs.load_state_dict(
        {name: torch.from_numpy(weight.numpy()) for name, weight in ours.state_dict().items()}
    )
    cell = torch.nn.LSTMCell(embed, HIDDEN)
    cell.load_state_dict(
        {name.removesuffix("_l0"): w for name, w in theirs.recurrent.state_dict().items()}
    )

    def torch_layer(token: int, state: Any) -> tuple[Any, Any]:
        y, state = theirs.recurrent(theirs.embedding(torch.tensor([[token]])), state)
        return theirs.output(y)[0, 0], state

    def torch_cell(token: int, state: Any) -> tuple[Any, Any]:
        state = cell(theirs.embedding(torch.tensor([token])), state)
        return theirs.output(state[0])[0], state

    def layer(token: int, state: Any) -> tuple[Any, Any]:
        logits, state = ours(tinygrad_rnn.tensor([[token]]), state)
        return logits[0, 0], state

    streaming, zeros = ours.streaming()
    return {
        "PyTorch, nn.LSTM": (torch_layer, None),
        "PyTorch, nn.LSTMCell": (torch_cell, None),
        "here, nn.LSTM": (layer, None),
        "here, CharLM.streaming (its cells)": (streaming, zeros),
    }


def largest_difference(steps: dict[str, tuple[Step, Any]]) -> float:
    """How far the logits of the ways are apart after twenty characters."""
    found = []
    for step, state in steps.values():
        for token in range(20):
            logits, state = step(token, state)
        found.append(logits.numpy())
    return float(max(np.abs(logits - found[0]).max() for logits in found))


def running(step: Step, state: Any) -> Callable[[], None]:
    """A function that takes one more step each time it is called."""

    def once() -> None:
        nonlocal state
        _, state = step(TOKEN, state)

    return once


def main() -> None:
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(description="Microseconds per generated character.")
    parser.add_argument("--write", action="store_true", help="replace docs/benchmarks/streaming.md")
    arguments = parser.parse_args()
    rows = []
    for embed in EMBEDDINGS:
        steps = steps_of(embed)
        difference = largest_difference(steps)
        timed: dict[str, Callable[[], object]] = {}
        for name, (step, state) in steps.items():
            timed[name] = running(step, state)
        by_threads = {}
        for threads in THREADS:
            torch.set_num_threads(threads)
            by_threads[threads] = alternate(timed)
        fastest = {name: min(by_threads[t][name] for t in THREADS) for name in timed}
        for name in timed:
            micro = " / ".join(f"{by_threads[t][name] * 1e6:.0f}" for t in THREADS)
            ratios = [
                f"{fastest[rival] / fastest[name]:.2f}"
                for rival in ("PyTorch, nn.LSTM", "PyTorch, nn.LSTMCell")
            ]
            rows.append((embed, name, micro, *ratios, f"{difference:.0e}"))
    header = (
        "embedding",
        "one step by",
        f"µs, PyTorch with {' / '.join(map(str, THREADS))} threads",
        "times as fast as nn.LSTM",
        "as nn.LSTMCell",
        "largest difference of logits",
    )
    text = table(header, rows)
    print(text)
    if arguments.write:
        intro = (
            "Time of one step of a character model that writes: embedding, one LSTM layer of "
            f"{HIDDEN} units, output layer over {SYMBOLS} symbols, one sequence, float32, under "
            "`no_grad`. Medians over alternating blocks in one process; ratios above 1 mean faster "
            "than PyTorch at its faster number of threads."
        )
        remark = (
            "`nn.LSTM` called with T = 1 pays for a whole sequence's preparations at every step, "
            "in both libraries. `CharLM.streaming` calls the cells of the layer, "
            "`nn.LSTM.cell(layer)`, which bind the weights once; `nn.LSTMCell` is PyTorch's "
            "nearest relative."
        )
        page = write_page(
            "streaming", "Streaming generation", intro, text, remark, machine("numpy", "torch")
        )
        print(f"written to {page}")


if __name__ == "__main__":
    with tinygrad_rnn.no_grad(), torch.no_grad():
        main()
