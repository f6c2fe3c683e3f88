"""A tour of the engine, to be run and read side by side:  python docs/tour.py

Every claim in a comment is asserted below it, so this page cannot grow stale.
"""

import numpy as np

import tinygrad_rnn as torch
from tinygrad_rnn import by_hand, explain, nn, ops, unroll
from tinygrad_rnn.autograd.gradcheck import check_grads
from tinygrad_rnn.scan import scan


def title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def show_graph(tensor: torch.Tensor) -> None:
    """Print the recorded graph, newest operation first, with what each node keeps for backward."""
    nodes, waiting = {}, [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        nodes[node.order] = node
        makers = [maker for maker, _ in node.next_functions if maker is not None]
        waiting += [maker for maker in makers if not isinstance(maker, torch.Tensor)]
    for _, node in sorted(nodes.items(), reverse=True):
        kept = [value for value in (*node.inputs, *node.outputs) if hasattr(value, "dtype")]
        shapes = ", ".join(str(value.shape) for value in kept) or "no values"
        print(f"  {node.name():10s} keeps {shapes}")


title("1. A primitive computes on arrays, and records on Tensors")
# The same object does both. It looks at its operands, nothing else decides.
array = np.array([0.0, 0.5, 1.0], np.float32)
x = torch.tensor(array, requires_grad=True)
print("array in: ", ops.tanh(array))
print("Tensor in:", ops.tanh(x))
assert type(ops.tanh(array)) is np.ndarray
assert type(ops.tanh(x)) is torch.Tensor

title("2. A rule is one line, and says by its parameter names what it reads")
# tanh' = 1 - tanh²: the rule reads the output y and not the input, which is called _x.
(rule,) = ops.tanh.rules
y = np.tanh(array)
g = np.ones_like(y)
print("d tanh/dx =", rule(g, y, None))
assert np.allclose(rule(g, y, None), 1 - np.tanh(array) ** 2)

title("3. Two steps of a tanh RNN, as recorded")
W_x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)  # (D, H)
W_h = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)  # (H, H)
xs = torch.randn(2, 1, 2, dtype=torch.float64)  # (T, B, D)
h0 = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)  # (B, H)


def cell(x, h):
    h = (x @ W_x + h @ W_h).tanh()
    return h, h


hs, h_T = unroll(cell, xs, h0)
loss = hs.square().sum()
show_graph(loss)
# The additions keep nothing: no rule reads their operands.

title("4. Backpropagation through time is the chain rule on that graph")
loss.backward()
h1, h2 = hs.detach().array  # (B, H) each
dz2 = 2 * h2 * (1 - h2**2)  # through the loss and tanh at t = 2
dz1 = (2 * h1 + dz2 @ W_h.detach().array.T) * (1 - h1**2)  # at t = 1: from the loss, and from t = 2
by_hand_dW = h0.detach().array.T @ dz1 + h1.T @ dz2  # the weight is shared: a sum over time
print("dL/dW_h from the graph:\n", W_h.grad.numpy())
print("by hand:\n", by_hand_dW)
assert np.allclose(W_h.grad.numpy(), by_hand_dW, rtol=1e-12)

title("5. The sum over time is inside one GEMM when the steps are stacked")
# `contract` is the rule of matmul for its weight. It sums over all leading axes, time included.
stacked = ops.contract(np.stack([h0.detach().array, h1]), np.stack([dz1, dz2]))
assert np.allclose(stacked, by_hand_dW, rtol=1e-12)
print("contract over (T, B, ·) equals the sum of the two steps")

title("6. The same rules, read with Tensors, give second derivatives")
a = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
(first,) = torch.autograd.grad(a.tanh().sum(), a, create_graph=True)
(second,) = torch.autograd.grad(first.sum(), a)
t = np.tanh(a.detach().array)
print("tanh'' =", second.numpy())
assert np.allclose(second.numpy(), -2 * t * (1 - t**2))
check_grads(lambda a: a.tanh(), (a,), order=2)  # and finite differences agree, to second order

title("7. The cell once more, as scan sees it: one step, written down, and its pullback")
explain(cell, xs, h0)
assert torch.allclose(scan(cell, xs, h0)[0], hs)
# docs/scan.md goes on from here.

title("8. A whole LSTM against derivations by hand, finite differences and complex steps")
torch.manual_seed(0)
lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
result = by_hand.verify(lstm, torch.randn(5, 2, 3, dtype=torch.float64))
assert result.passed
