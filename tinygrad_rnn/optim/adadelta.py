"""Adadelta: steps in the units of the parameter. Read `optimizer.py` first."""

from tinygrad_rnn.backend import Array, namespace
from tinygrad_rnn.optim.optimizer import (
    Optimizer,
    Options,
    Params,
    State,
    accumulator,
    check_at_least_zero,
)


class Adadelta(Optimizer):
    """θ ← θ - γ Δ, with Δ = g √(u + ε) / √(v + ε), v ← ρ v + (1 - ρ) g², u ← ρ u + (1 - ρ) Δ².

    lr: γ, 1 in the paper. rho: ρ. eps: ε, which also sets the size of the first steps, as u starts
    at 0. weight_decay: λ, adds λθ to g. maximize: ascend instead of descend.

    Zeiler, "ADADELTA: an adaptive learning rate method", 2012, algorithm 1.

    Raises ValueError for a negative lr, eps or weight_decay, and for rho outside [0, 1].
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check_options(self, options: Options) -> None:
        """Raise ValueError if an option is out of range."""
        check_at_least_zero(self, options, "lr", "eps", "weight_decay")
        if not 0 <= options["rho"] <= 1:
            raise ValueError(f"Adadelta: invalid rho: {options['rho']}; expected 0 to 1")

    def update(self, p: Array, g: Array, state: State, options: Options) -> None:
        """One step of the class's equation on the array `p`."""
        xp = namespace(p)
        lr, rho, eps = options["lr"], options["rho"], options["eps"]
        state["step"] = state.get("step", 0) + 1
        v = accumulator(state, "square_avg", p)
        u = accumulator(state, "acc_delta", p)

        if options["weight_decay"]:
            g = g + options["weight_decay"] * p
        v *= rho
        v += (1 - rho) * g * g
        delta = xp.sqrt(u + eps) / xp.sqrt(v + eps) * g
        u *= rho
        u += (1 - rho) * delta * delta
        p -= lr * delta
