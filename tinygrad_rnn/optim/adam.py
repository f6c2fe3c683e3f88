"""Adam and AdamW: steps scaled by running means of the gradient and of its square.

Read `optimizer.py` first. The two differ in one line, where weight decay enters.
"""

import math
from typing import Any

from tinygrad_rnn.backend import Array, namespace
from tinygrad_rnn.optim.optimizer import (
    Optimizer,
    Options,
    Params,
    State,
    accumulator,
    check_at_least_zero,
)


class Adam(Optimizer):
    """θ ← θ - γ m̂ / (√v̂ + ε), with m ← β₁ m + (1 - β₁) g and v ← β₂ v + (1 - β₂) g².

    m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ) undo the bias towards the zeros that m and v start from;
    t counts the parameter's own steps.

    lr: γ. betas: (β₁, β₂). eps: ε. weight_decay: λ, adds λθ to g, so that it is scaled by 1/√v̂ too.
    amsgrad: v̂ is formed from the largest v so far (Reddi, Kale and Kumar, "On the convergence of
    Adam and beyond", 2018; there without the bias corrections, which are kept here as in PyTorch).
    maximize: ascend instead of descend. decoupled_weight_decay: decay as `AdamW` does.

    Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1, computed in the
    order given at the end of its section 2, which saves a pass over memory.

    Raises ValueError for a negative lr, eps or weight_decay, and for betas outside [0, 1).
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def check_options(self, options: Options) -> None:
        """Raise ValueError if an option is out of range."""
        check_at_least_zero(self, options, "lr", "eps", "weight_decay")
        for beta in options["betas"]:
            if not 0 <= beta < 1:
                raise ValueError(
                    f"{type(self).__name__}: invalid betas: {options['betas']}; "
                    "expected two numbers in [0, 1)"
                )

    def update(self, p: Array, g: Array, state: State, options: Options) -> None:
        """One step of the class's equation on the array `p`."""
        xp = namespace(p)
        lr, (beta1, beta2), eps = options["lr"], options["betas"], options["eps"]
        t = state["step"] = state.get("step", 0) + 1
        m = accumulator(state, "exp_avg", p)
        v = accumulator(state, "exp_avg_sq", p)

        if options["weight_decay"]:
            if options["decoupled_weight_decay"]:
                p *= 1 - lr * options["weight_decay"]
            else:
                g = g + options["weight_decay"] * p
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * g * g
        if options["amsgrad"]:
            v_max = accumulator(state, "max_exp_avg_sq", p)
            v = xp.maximum(v_max, v, out=v_max)
        # m̂ / (√v̂ + ε) with both bias corrections moved into scalars.
        correction = math.sqrt(1 - beta2**t)
        p -= (lr * correction / (1 - beta1**t)) * m / (xp.sqrt(v) + eps * correction)


class AdamW(Adam):
    """Adam with the weight decay outside of the scaling: θ ← (1 - γλ) θ - γ m̂ / (√v̂ + ε).

    Arguments as for `Adam`; weight_decay: λ.

    Loshchilov and Hutter, "Decoupled weight decay regularization", 2019. As in PyTorch the decay is
    scaled by the learning rate, which a schedule then changes together with the step.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`, which may be Adam's: its weight decay is then decoupled."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
