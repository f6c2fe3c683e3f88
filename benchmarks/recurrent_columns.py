"""What is timed in recurrent.py: one training step of one recurrent layer, in each library.

A Problem is what all of them get: a cell, its sizes, its weights, the inputs and the gradient of
the outputs. A step is a function without arguments that goes forward and backward and returns the
gradients of the input and of every weight, in the order of `Problem.leaves`. `columns` has them
all. A library is imported only where it is used, so that each can be measured, or missing, alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_rnn
from tinygrad_rnn.scan import scan, unroll

#: The cells, and in how many blocks of H rows their weights come.
BLOCKS = {"RNN": 1, "LSTM": 4, "GRU": 3, "peephole": 4}

Step = Callable[[], Sequence[Any]]


@dataclass
class Problem:
    """One layer to train: T steps, B sequences, D inputs, H hidden units; and its arrays."""

    cell: str
    size: tuple[int, int, int, int]
    x: np.ndarray  # (T, B, D)
    weights: dict[str, np.ndarray]
    grad_out: np.ndarray  # (T, B, H)

    @property
    def leaves(self) -> list[np.ndarray]:
        """What the gradients are with respect to."""
        return [self.x, *self.weights.values()]

    @property
    def flops(self) -> int:
        """Operations in the matrix products of a step: forward, and twice as many backward."""
        T, B, D, H = self.size
        return 3 * 2 * T * B * (D + H) * BLOCKS[self.cell] * H


def draw(cell: str, T: int, B: int, D: int, H: int) -> Problem:
    """A problem with weights from U(-1/√H, 1/√H) and standard normal inputs."""
    rows = BLOCKS[cell] * H
    if cell == "peephole":
        shapes = {"W_x": (D, rows), "W_h": (H, rows), "b": (rows,)}
        shapes |= {"p_i": (H,), "p_f": (H,), "p_o": (H,)}
    else:
        shapes = {"weight_ih_l0": (rows, D), "weight_hh_l0": (rows, H)}
        shapes |= {"bias_ih_l0": (rows,), "bias_hh_l0": (rows,)}
    rng = np.random.default_rng(0)
    weights = {
        name: rng.uniform(-(H**-0.5), H**-0.5, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    x, grad_out = (rng.standard_normal((T, B, n), np.float32) for n in (D, H))
    return Problem(cell, (T, B, D, H), x, weights, grad_out)


def installed(library: str) -> bool:
    """Whether an optional library is there."""
    return importlib.util.find_spec(library) is not None


def columns(problem: Problem, yardstick: Path | None = None) -> dict[str, Step]:
    """The steps of a problem by their column: scan, unroll, and the others that are installed."""
    if problem.cell == "peephole":
        steps = {
            "scan": peephole_step(tinygrad_rnn, scan, problem),
            "unroll": peephole_step(tinygrad_rnn, unroll, problem),
        }
    else:
        steps = {mode: layer_step(tinygrad_rnn, problem, mode=mode) for mode in ("scan", "unroll")}
    if installed("torch"):
        import torch

        if problem.cell == "peephole":
            steps["PyTorch"] = peephole_step(torch, torch_loop, problem)
        else:
            steps["PyTorch"] = layer_step(torch, problem)
    if installed("jax"):
        steps["JAX"] = jax_step(problem)
    if yardstick is not None and problem.cell == "LSTM":
        steps["hand-tuned"] = hand_tuned_step(yardstick, problem)
    return steps


# tinygrad_rnn and PyTorch: the same text, the library is an argument.


def training_step(run: Callable[[], Any], leaves: Sequence[Any], grad_out: Any) -> Step:
    """Forward by run(), which gives the outputs, and backward to the leaves."""

    def step() -> Sequence[Any]:
        for leaf in leaves:
            leaf.grad = None
        run().backward(grad_out)
        return [leaf.grad for leaf in leaves]

    return step


def layer_step(library: Any, problem: Problem, **mode: str) -> Step:
    """nn.RNN, nn.LSTM or nn.GRU."""
    layer = getattr(library.nn, problem.cell)(*problem.size[2:], **mode)
    layer.load_state_dict({name: library.tensor(w) for name, w in problem.weights.items()})
    x = library.tensor(problem.x, requires_grad=True)
    grad_out = library.tensor(problem.grad_out)
    return training_step(lambda: layer(x)[0], [x, *layer.parameters()], grad_out)


def peephole(W_x, W_h, b, p_i, p_f, p_o):
    """An LSTM whose gates see c too: Gers and Schmidhuber, "Recurrent nets that time and count"."""

    def step(x, state):
        h, c = state
        i, f, g, o = (x @ W_x + b + h @ W_h).chunk(4, -1)  # (B, H) each
        i, f = (i + p_i * c).sigmoid(), (f + p_f * c).sigmoid()
        c = f * c + i * g.tanh()
        h = (o + p_o * c).sigmoid() * c.tanh()
        return h, (h, c)

    return step


def peephole_step(library: Any, recurrence: Callable[..., Any], problem: Problem) -> Step:
    """The cell above, run by `recurrence(cell, xs, state)`."""
    x, *weights = (library.tensor(leaf, requires_grad=True) for leaf in problem.leaves)
    zeros = library.zeros(problem.size[1], problem.size[3])
    cell, grad_out = peephole(*weights), library.tensor(problem.grad_out)
    return training_step(lambda: recurrence(cell, x, (zeros, zeros))[0], [x, *weights], grad_out)


def torch_loop(cell, xs, state):
    """What one writes in PyTorch for a cell that it has no layer for."""
    import torch

    ys = []
    for x in xs.unbind(0):
        y, state = cell(x, state)
        ys.append(y)
    return torch.stack(ys), state


# JAX: the same equations as `lax.scan` takes them, (state, x) -> (state, y), compiled as a whole.


def jax_step(problem: Problem) -> Step:
    """jax.jit of the vector-Jacobian product of lax.scan: the gradient of (ys · grad_out).sum()."""
    import jax
    import jax.numpy as jnp

    cell = jax_cell(problem.cell)
    zeros = jnp.zeros((problem.size[1], problem.size[3]), jnp.float32)
    state = (zeros, zeros) if problem.cell in ("LSTM", "peephole") else zeros

    def outputs(xs, *weights):
        return jax.lax.scan(lambda h, x: cell(h, x, *weights), state, xs)[1]

    @jax.jit
    def gradients(leaves, grad_out):
        return jax.vjp(outputs, *leaves)[1](grad_out)

    leaves = [jnp.asarray(leaf) for leaf in problem.leaves]
    grad_out = jnp.asarray(problem.grad_out)
    return lambda: jax.block_until_ready(gradients(leaves, grad_out))


def jax_cell(name: str) -> Callable[..., Any]:
    """The cell of that name."""
    import jax.numpy as jnp
    from jax.nn import sigmoid

    def rnn(h, x, W_ih, W_hh, b_ih, b_hh):
        h = jnp.tanh(x @ W_ih.T + (b_ih + b_hh) + h @ W_hh.T)
        return h, h

    def lstm(state, x, W_ih, W_hh, b_ih, b_hh):
        h, c = state
        i, f, g, o = jnp.split(x @ W_ih.T + (b_ih + b_hh) + h @ W_hh.T, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def gru(h, x, W_ih, W_hh, b_ih, b_hh):
        r_x, z_x, n_x = jnp.split(x @ W_ih.T + b_ih, 3, -1)
        r_h, z_h, n_h = jnp.split(h @ W_hh.T + b_hh, 3, -1)
        r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
        n = jnp.tanh(n_x + r * n_h)
        h = n + z * (h - n)
        return h, h

    def peephole(state, x, W_x, W_h, b, p_i, p_f, p_o):
        h, c = state
        i, f, g, o = jnp.split(x @ W_x + b + h @ W_h, 4, -1)
        c = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * jnp.tanh(g)
        h = sigmoid(o + p_o * c) * jnp.tanh(c)
        return (h, c), h

    return {"RNN": rnn, "LSTM": lstm, "GRU": gru, "peephole": peephole}[name]


# A loop tuned by hand, which is not part of this repository.


def hand_tuned_step(path: Path, problem: Problem) -> Step:
    """The class `LstmLoop` of the file: forward(x), and backward(grad_out) -> gradients."""
    spec = importlib.util.spec_from_file_location("yardstick", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    W_ih, W_hh, b_ih, b_hh = problem.weights.values()
    loop = module.LstmLoop(W_ih, W_hh, b_ih + b_hh, *problem.size[:2])

    def step() -> Sequence[np.ndarray]:
        loop.forward(problem.x)
        x, W_ih, W_hh, b = loop.backward(problem.grad_out)
        return x, W_ih, W_hh, b, b  # the two biases are only ever added

    return step


def worst_error(steps: dict[str, Step]) -> float:
    """How far any gradient of any step is from the scan's, relative to its largest value."""
    wanted = [array.copy() for array in as_arrays(steps["scan"]())]
    return max(
        float(np.abs(found - ours).max() / np.abs(ours).max())
        for name, step in steps.items()
        if name != "scan"
        for found, ours in zip(as_arrays(step()), wanted, strict=True)
    )


def as_arrays(gradients: Sequence[Any]) -> list[np.ndarray]:
    """Tensors of any library as NumPy arrays."""
    return [g.numpy() if hasattr(g, "numpy") else np.asarray(g) for g in gradients]
