"""Averaged stochastic gradient descent: SGD, and the mean of where it has been.

Read `optimizer.py` first.
"""

from typing import ClassVar

from tinygrad_rnn.backend import Array
from tinygrad_rnn.optim.optimizer import (
    Optimizer,
    Options,
    Params,
    State,
    accumulator,
    check_at_least_zero,
)


class ASGD(Optimizer):
    """θ ← (1 - λη) θ - η g and θ̄ ← θ̄ + μ (θ - θ̄), with η = γ / (1 + λγt)^α, μ = 1 / max(1, t - t₀).

    The average θ̄ is `optimizer.state[p]["ax"]`; it follows θ until step t₀ and is its mean from
    there on. θ itself is never replaced by it.

    lr: γ. lambd: λ, a decay that is part of the method. alpha: α. t0: t₀, in steps. weight_decay:
    adds weight_decay·θ to g. maximize: ascend instead of descend.

    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the schedule
    of η is Bottou's, "Stochastic gradient descent tricks", 2012. As in PyTorch η and μ are computed
    at the end of a step for the next one, so a new lr acts one step late. Unlike PyTorch they are
    kept in double precision, not rounded to float32.

    Raises ValueError for a negative lr or weight_decay.
    """

    scalar_state: ClassVar[tuple[str, ...]] = ("step", "eta", "mu")

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check_options(self, options: Options) -> None:
        """Raise ValueError if an option is out of range."""
        check_at_least_zero(self, options, "lr", "weight_decay")

    def update(self, p: Array, g: Array, state: State, options: Options) -> None:
        """One step of the class's equation on the array `p`."""
        lr, lambd, alpha, t0 = (options[name] for name in ("lr", "lambd", "alpha", "t0"))
        t = state["step"] = state.get("step", 0) + 1
        eta, mu = state.get("eta", lr), state.get("mu", 1.0)
        average = accumulator(state, "ax", p)

        if options["weight_decay"]:
            g = g + options["weight_decay"] * p
        p *= 1 - lambd * eta
        p -= eta * g
        if mu == 1:
            average[...] = p
        else:
            average += mu * (p - average)
        state["eta"] = lr / (1 + lambd * lr * t) ** alpha
        state["mu"] = 1 / max(1.0, t - t0)
