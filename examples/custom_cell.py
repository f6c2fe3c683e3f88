"""A cell of one's own: the equations of a paper in ten lines, trained through `scan`.

    python examples/custom_cell.py [--steps 40] [--device cuda]

The minimal gated unit (Zhou, Wu, Zhang and Zhou 2016, arXiv 1603.09420) learns to add: of T random
numbers one in each half is marked, and after the last step it has to say the sum of the two. It
takes some seconds.
"""

import argparse

import tinygrad_rnn as torch
import tinygrad_rnn.nn as nn
import tinygrad_rnn.nn.functional as F
from tinygrad_rnn.optim import Adam
from tinygrad_rnn.scan import scan


class MinimalGatedUnit(nn.Module):
    """f = σ(W_f x + U_f h + b_f), n = tanh(W_n x + U_n (f ⊙ h) + b_n), h' = (1 - f) ⊙ h + f ⊙ n."""

    def __init__(self, inputs, hidden):
        super().__init__()
        self.W = nn.Linear(inputs, 2 * hidden)  # W_f above W_n, with the biases
        self.U_f = nn.Linear(hidden, hidden, bias=False)
        self.U_n = nn.Linear(hidden, hidden, bias=False)

    def forward(self, x, h):  # (B, inputs), (B, hidden)
        f, n = self.W(x).chunk(2, -1)
        f = (f + self.U_f(h)).sigmoid()
        n = (n + self.U_n(f * h)).tanh()
        h = (1 - f) * h + f * n
        return h, h  # what leaves the step, and what the next step gets


options = argparse.ArgumentParser(description="A minimal gated unit learns to add.")
options.add_argument("--steps", type=int, default=40, help="T, at least 2")
options.add_argument("--device", help="cpu, cuda or cuda:1, cuda:2, …; as TINYGRAD_RNN_DEVICE says")
chosen = options.parse_args()
if chosen.steps < 2:
    options.error(f"--steps: one number in each half needs at least 2 steps, got {chosen.steps}")
try:
    torch.set_default_device(chosen.device or torch.get_default_device())
except RuntimeError as error:
    options.exit(2, f"{options.prog}: {error}\n")
T, B, HIDDEN = chosen.steps, 32, 64


def sums_to_learn():
    """(T, B, 2): a number from [0, 1) and a mark at every step; (B, 1): the sum of the marked."""
    numbers = torch.rand(T, B)
    first, second = torch.randint(0, T // 2, (B,)), torch.randint(T // 2, T, (B,))
    marks = (F.one_hot(first, T) + F.one_hot(second, T)).float().T  # (T, B)
    return torch.stack([numbers, marks], -1), (numbers * marks).sum(0).unsqueeze(-1)


torch.manual_seed(0)
cell, output = MinimalGatedUnit(2, HIDDEN), nn.Linear(HIDDEN, 1)
weights = [*cell.parameters(), *output.parameters()]
optimizer = Adam(weights, lr=0.01)
print(f"always saying 1, the mean: squared error {2 / 12:.4f}")  # the variance of such a sum

for step in range(300):
    xs, sums = sums_to_learn()  # new ones at every step, so the loss is that on unseen sequences
    _, h = scan(cell, xs, torch.zeros(B, HIDDEN))
    loss = F.mse_loss(output(h), sums)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    if step % 50 == 49:
        print(f"step {step + 1:4d}: squared error {loss.item():.4f}")
