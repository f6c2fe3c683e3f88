"""RMSprop: the gradient divided by a running estimate of its size. Read `optimizer.py` first."""

from tinygrad_rnn.backend import Array, namespace
from tinygrad_rnn.optim.optimizer import (
    Optimizer,
    Options,
    Params,
    State,
    accumulator,
    check_at_least_zero,
)


class RMSprop(Optimizer):
    """θ ← θ - γ g / (√v + ε), with v ← α v + (1 - α) g².

    lr: γ. alpha: α. eps: ε. weight_decay: λ, adds λθ to g. momentum: μ; the step is then γ b with
    b ← μ b + g / (√v + ε). centered: divide by √(v - ḡ²) + ε, the deviation from the running mean
    ḡ ← α ḡ + (1 - α) g. maximize: ascend instead of descend.

    Hinton, "Neural networks for machine learning", lecture 6e, 2012; centered: Graves, "Generating
    sequences with recurrent neural networks", 2013, equations 38-45. As in PyTorch ε is added
    outside of the root, where Graves has it inside, and v starts at 0 without a bias correction.

    Raises ValueError for a negative lr, alpha, eps, weight_decay or momentum.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check_options(self, options: Options) -> None:
        """Raise ValueError if an option is out of range."""
        check_at_least_zero(self, options, "lr", "alpha", "eps", "weight_decay", "momentum")

    def update(self, p: Array, g: Array, state: State, options: Options) -> None:
        """One step of the class's equation on the array `p`."""
        xp = namespace(p)
        lr, alpha, eps, momentum = (options[name] for name in ("lr", "alpha", "eps", "momentum"))
        state["step"] = state.get("step", 0) + 1
        v = accumulator(state, "square_avg", p)

        if options["weight_decay"]:
            g = g + options["weight_decay"] * p
        v *= alpha
        v += (1 - alpha) * g * g
        if options["centered"]:
            mean = accumulator(state, "grad_avg", p)
            mean *= alpha
            mean += (1 - alpha) * g
            v = v - mean * mean
        scale = xp.sqrt(v)
        scale += eps
        if momentum:
            b = accumulator(state, "momentum_buffer", p)
            b *= momentum
            b += g / scale
            p -= lr * b
        else:
            p -= lr * g / scale
