"""Stochastic gradient descent, with momentum. Read `optimizer.py` first."""

from tinygrad_rnn.backend import Array
from tinygrad_rnn.optim.optimizer import (
    Optimizer,
    Options,
    Params,
    State,
    accumulator,
    check_at_least_zero,
)


class SGD(Optimizer):
    """θ ← θ - γ b, where b ← μ b + (1 - τ) g is the momentum buffer.

    lr: γ. momentum: μ; 0 means b = g and keeps no buffer. dampening: τ; the first gradient enters
    the buffer undamped. weight_decay: λ, adds λθ to g. nesterov: step along g + μ b instead of b.
    maximize: ascend instead of descend.

    Momentum: Polyak 1964; Nesterov's variant in the form of Sutskever et al., "On the importance
    of initialization and momentum in deep learning", 2013. As in PyTorch, γ multiplies the buffer
    instead of the gradients that enter it, so changing the learning rate acts at once.

    Raises ValueError for a negative lr, momentum or weight_decay, and for nesterov without
    momentum or with dampening.

    >>> from tinygrad_rnn.tensor import Tensor
    >>> import numpy as np
    >>> w = Tensor(np.array([1.0, -2.0]), requires_grad=True)
    >>> sgd = SGD([w], lr=0.25)
    >>> (w * w).sum().backward()  # the gradient is 2 w
    >>> sgd.step()
    >>> w.tolist()
    [0.5, -1.0]
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check_options(self, options: Options) -> None:
        """Raise ValueError if an option is out of range."""
        check_at_least_zero(self, options, "lr", "momentum", "weight_decay")
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise ValueError("SGD: Nesterov momentum requires a momentum and zero dampening")

    def update(self, p: Array, g: Array, state: State, options: Options) -> None:
        """One step of the class's equation on the array `p`."""
        lr, momentum, dampening = options["lr"], options["momentum"], options["dampening"]
        if options["weight_decay"]:
            g = g + options["weight_decay"] * p
        if momentum:
            first = "momentum_buffer" not in state
            b = accumulator(state, "momentum_buffer", p)
            b *= momentum
            b += g if first or not dampening else (1 - dampening) * g
            g = g + momentum * b if options["nesterov"] else b
        p -= lr * g
