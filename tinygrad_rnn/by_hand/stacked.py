"""How do layers stack and directions join? A whole PyTorch-shaped layer, of any cell.

`parameters` is a dict with PyTorch's names (`weight_ih_l0`, `bias_hh_l1_reverse`, `weight_hr_l0`):
the names say how many layers and directions there are, and whether there are biases and
projections. `docs/derivations.md`, section 9, derives the two facts used. Read `through_time.py`
before this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinygrad_rnn.by_hand import through_time
from tinygrad_rnn.by_hand.cell import Array, Cell, State, Weights

SYMBOLS = {  # PyTorch's names, and the names of the same arrays in the equations
    "weight_ih": "W_ih",
    "weight_hh": "W_hh",
    "bias_ih": "b_ih",
    "bias_hh": "b_hh",
    "weight_hr": "W_hr",
}


def forward(
    cell: Cell, parameters: Mapping[str, Array], x: Array, state: State
) -> tuple[Array, State, list[Any]]:
    """`(output, state_n, saved)`: each layer reads the outputs of the one below.

    x: (T, B, D). Each state: (L × directions, B, H or P), layer by layer, forward before reverse.
    output: (T, B, directions × H or P), the top layer's, forward beside reverse. `saved` is for
    `backward`.

    >>> from tinygrad_rnn.by_hand.rnn import RNN
    >>> one, h_0 = np.ones((1, 1)), np.zeros((2, 1, 1))
    >>> names = "weight_ih_l0", "weight_hh_l0", "weight_ih_l0_reverse", "weight_hh_l0_reverse"
    >>> x = np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    >>> output, (h_n,), saved = forward(RNN("relu"), dict.fromkeys(names, one), x, (h_0,))
    >>> output[:, 0].tolist()  # sums from the left beside sums from the right
    [[1.0, 6.0], [3.0, 5.0], [6.0, 3.0]]
    >>> h_n.ravel().tolist()  # the reverse direction ends at the first step
    [6.0, 6.0]
    """
    final: list[State] = []
    saved: list[Any] = []
    for layer in _layers(parameters):
        outputs = []
        for row, suffix in layer:
            w, reverse = _weights(parameters, suffix), suffix.endswith("_reverse")
            state_0 = tuple(s[row] for s in state)
            y, state_n, steps = through_time.forward(cell, w, x, state_0, reverse)
            outputs.append(y)
            final.append(state_n)
            saved.append(steps)
        x = np.concatenate(outputs, axis=-1)  # the input of the next layer
    return x, _stack(final), saved


def backward(
    cell: Cell, parameters: Mapping[str, Array], saved: list[Any], doutput: Array, dstate_n: State
) -> tuple[dict[str, Array], Array, State]:
    """`(dparameters, dx, dstate_0)` from the gradients of the output and the final states.

    dparameters has the names of `parameters`; dx: (T, B, D); each state's gradient has the shape of
    the state.
    """
    dparameters: dict[str, Array] = {}
    dfirst: list[State] = [()] * len(saved)
    dy = doutput
    for layer in reversed(_layers(parameters)):
        dy_directions = np.split(dy, len(layer), axis=-1)
        dxs = []
        for (row, suffix), dy_direction in zip(layer, dy_directions, strict=True):
            w, reverse = _weights(parameters, suffix), suffix.endswith("_reverse")
            dstate = tuple(s[row] for s in dstate_n)
            dw, dx, dfirst[row] = through_time.backward(
                cell, w, saved[row], dy_direction, dstate, reverse
            )
            dparameters |= {name + suffix: getattr(dw, symbol) for name, symbol in SYMBOLS.items()}
            dxs.append(dx)
        dy = sum(dxs[1:], start=dxs[0])  # both directions read the same input
    return {name: dparameters[name] for name in parameters}, dy, _stack(dfirst)


def _layers(parameters: Mapping[str, Array]) -> list[list[tuple[int, str]]]:
    """Per layer, for each direction, its row in the states and the suffix of its parameters.

    >>> names = "weight_ih_l0", "weight_ih_l0_reverse", "weight_ih_l1", "weight_ih_l1_reverse"
    >>> _layers(dict.fromkeys(names, np.zeros((1, 1))))
    [[(0, '_l0'), (1, '_l0_reverse')], [(2, '_l1'), (3, '_l1_reverse')]]
    """
    if "weight_ih_l0" not in parameters:
        raise ValueError(f"by_hand.stacked: no weight_ih_l0 among the parameters {[*parameters]}")
    directions = ["", "_reverse"] if "weight_ih_l0_reverse" in parameters else [""]
    layers: list[list[tuple[int, str]]] = []
    while f"weight_ih_l{len(layers)}" in parameters:
        k = len(layers)
        layers.append([(k * len(directions) + j, f"_l{k}{d}") for j, d in enumerate(directions)])
    return layers


def _weights(parameters: Mapping[str, Array], suffix: str) -> Weights:
    """The weights of one layer in one direction; a bias that is not there is 0."""
    W_ih = parameters["weight_ih" + suffix]
    zero = np.zeros(len(W_ih), W_ih.dtype)
    return Weights(
        W_ih,
        W_hh=parameters["weight_hh" + suffix],
        b_ih=parameters.get("bias_ih" + suffix, zero),
        b_hh=parameters.get("bias_hh" + suffix, zero),
        W_hr=parameters.get("weight_hr" + suffix),
    )


def _stack(states: list[State]) -> State:
    """The states of every layer and direction as one array per state, (L × directions, B, H)."""
    return tuple(np.stack(rows) for rows in zip(*states, strict=True))
