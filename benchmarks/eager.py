"""What the graph costs: an LSTM cell looped in Python, against PyTorch eager, MyGrad and autograd.

    python benchmarks/eager.py [--write]

The same loop, statement by statement, in each library: forward over T steps, then backward to the
input and every weight, float32, 2 threads. Nothing is fused and nothing is hoisted by hand, so the
time is the array work plus what each library spends on recording it and walking back.
Needs `pip install torch==2.13.0 mygrad autograd`. With --write, docs/benchmarks/eager.md.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "2")

import autograd
import autograd.numpy as anp
import mygrad
import numpy as np
import torch
from harness import alternate, machine, table, write_page

import tinygrad_rnn

SIZES = [(32, 16, 32, 64), (64, 32, 64, 128)]  # T, B, D, H
LIBRARIES = ("tinygrad_rnn", "PyTorch", "MyGrad", "autograd")


def arrays(T: int, B: int, D: int, H: int) -> list[np.ndarray]:
    """x (T, B, D), W_x (D, 4H), W_h (H, 4H), b (4H,)."""
    rng = np.random.default_rng(0)
    shapes = [(T, B, D), (D, 4 * H), (H, 4 * H), (4 * H,)]
    return [(rng.standard_normal(shape) * 0.1).astype(np.float32) for shape in shapes]


def torch_like(library, values):
    """The loop for tinygrad_rnn and for PyTorch: the same text, the library is the argument."""
    x, W_x, W_h, b = (library.tensor(value, requires_grad=True) for value in values)
    B, H = x.shape[1], W_h.shape[0]

    def step():
        for leaf in (x, W_x, W_h, b):
            leaf.grad = None
        h, c = library.zeros(B, H), library.zeros(B, H)
        hs = []
        for x_t in x.unbind(0):
            z = x_t @ W_x + b + h @ W_h  # (B, 4H)
            i, f, g, o = z.chunk(4, 1)  # (B, H) each
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            hs.append(h)
        library.stack(hs).sum().backward()
        return [leaf.grad.numpy() for leaf in (x, W_x, W_h, b)]

    return step


def mygrad_step(values):
    x, W_x, W_h, b = (mygrad.tensor(value) for value in values)
    T, B, H = x.shape[0], x.shape[1], W_h.shape[0]
    sigmoid = mygrad.nnet.activations.sigmoid

    def step():
        for leaf in (x, W_x, W_h, b):
            leaf.null_grad()
        h, c = np.zeros((B, H), np.float32), np.zeros((B, H), np.float32)
        hs = []
        for t in range(T):
            z = x[t] @ W_x + b + h @ W_h
            i, f, g, o = (z[:, k * H : (k + 1) * H] for k in range(4))
            c = sigmoid(f) * c + sigmoid(i) * mygrad.tanh(g)
            h = sigmoid(o) * mygrad.tanh(c)
            hs.append(h)
        mygrad.stack(hs).sum().backward()
        return [leaf.grad for leaf in (x, W_x, W_h, b)]

    return step


def autograd_step(values):
    T, B, H = values[0].shape[0], values[0].shape[1], values[2].shape[0]

    def sigmoid(a):
        return anp.tanh(a * 0.5) * 0.5 + 0.5

    def loss(parameters):
        x, W_x, W_h, b = parameters
        h, c = np.zeros((B, H), np.float32), np.zeros((B, H), np.float32)
        hs = []
        for t in range(T):
            z = anp.dot(x[t], W_x) + b + anp.dot(h, W_h)
            i, f, g, o = (z[:, k * H : (k + 1) * H] for k in range(4))
            c = sigmoid(f) * c + sigmoid(i) * anp.tanh(g)
            h = sigmoid(o) * anp.tanh(c)
            hs.append(h)
        return anp.sum(anp.stack(hs))

    gradient = autograd.grad(loss)
    return lambda: gradient(tuple(values))


def main() -> None:
    torch.set_num_threads(2)
    rows = []
    for size in SIZES:
        values = arrays(*size)
        steps = {
            "tinygrad_rnn": torch_like(tinygrad_rnn, values),
            "PyTorch": torch_like(torch, values),
            "MyGrad": mygrad_step(values),
            "autograd": autograd_step(values),
        }
        wanted = steps["PyTorch"]()
        for name in LIBRARIES:  # they must all compute the same thing before time means anything
            for ours, theirs in zip(steps[name](), wanted, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3, err_msg=name)
        seconds = alternate(steps)
        ratios = [f"{seconds[name] / seconds['tinygrad_rnn']:.2f}" for name in LIBRARIES[1:]]
        times = [f"{seconds[name] * 1e3:.2f}" for name in LIBRARIES]
        rows.append([", ".join(map(str, size)), *times, *ratios])
        print(table(["T, B, D, H", *(f"{n} ms" for n in LIBRARIES), *LIBRARIES[1:]], rows[-1:]))
    if "--write" in sys.argv[1:]:
        header = ["T, B, D, H", *(f"{name} ms" for name in LIBRARIES)]
        header += [f"{name} / ours" for name in LIBRARIES[1:]]
        path = write_page(
            "eager",
            "An LSTM cell looped in Python: the cost of the graph",
            "Forward and backward, float32, 2 threads, the same loop in each library; medians over "
            "alternating blocks in one run (`benchmarks/eager.py`). In the last columns, above 1 "
            "means that the other library is slower.",
            table(header, rows),
            machine("numpy", "torch", "mygrad", "autograd"),
        )
        print("wrote", path)


if __name__ == "__main__":
    main()
