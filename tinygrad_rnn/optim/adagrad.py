"""Adagrad: steps that shrink with the sum of all squared gradients. Read `optimizer.py` first."""

from tinygrad_rnn.backend import Array, namespace
from tinygrad_rnn.optim.optimizer import (
    Optimizer,
    Options,
    Params,
    State,
    accumulator,
    check_at_least_zero,
)


class Adagrad(Optimizer):
    """θ ← θ - γₜ g / (√s + ε), with s ← s + g² and γₜ = γ / (1 + (t - 1) η).

    lr: γ. lr_decay: η. weight_decay: λ, adds λθ to g. initial_accumulator_value: what s starts
    from. eps: ε. maximize: ascend instead of descend.

    Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", 2011, with its diagonal matrix. The decay γₜ is PyTorch's addition.

    Raises ValueError for a negative option.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check_options(self, options: Options) -> None:
        """Raise ValueError if an option is out of range."""
        check_at_least_zero(
            self, options, "lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"
        )

    def update(self, p: Array, g: Array, state: State, options: Options) -> None:
        """One step of the class's equation on the array `p`."""
        xp = namespace(p)
        t = state["step"] = state.get("step", 0) + 1
        s = accumulator(state, "sum", p, options["initial_accumulator_value"])
        lr = options["lr"] / (1 + (t - 1) * options["lr_decay"])

        if options["weight_decay"]:
            g = g + options["weight_decay"] * p
        s += g * g
        p -= lr * g / (xp.sqrt(s) + options["eps"])
