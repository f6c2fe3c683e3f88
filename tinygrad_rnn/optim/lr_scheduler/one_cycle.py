"""The one-cycle policy: the rate goes up and down once, the momentum down and up.

Read `scheduler.py` first.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Literal

from tinygrad_rnn.optim.lr_scheduler.scheduler import LRScheduler, checked_optimizer, per_group
from tinygrad_rnn.optim.optimizer import Optimizer


class OneCycleLR(LRScheduler):
    """γₜ rises from γ₀ = max_lr / div_factor to max_lr, then falls to γ₀ / final_div_factor.

    The rise takes the fraction `pct_start` of the steps. Momentum (β₁ of Adam) goes the other way,
    from `max_momentum` to `base_momentum` and back, if `cycle_momentum`.

    max_lr, base_momentum, max_momentum: a number, or a list with one per group.
    total_steps: how often `step` will be called; or `epochs` times `steps_per_epoch`.
    anneal_strategy: "cos" or "linear", the shape of each phase.
    three_phase: fall back to the initial rate as slowly as it rose, then to the final one.

    Smith and Topin, "Super-convergence: very fast training of neural networks using large learning
    rates", 2017, which is the three-phase, linear form.

    Raises ValueError for an argument out of range, an optimizer without momentum while
    `cycle_momentum`, and a step beyond total_steps.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        checked_optimizer(optimizer)
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError(
                    "You must define either total_steps OR (epochs AND steps_per_epoch)"
                )
            _check_positive_integer("epochs", epochs)
            _check_positive_integer("steps_per_epoch", steps_per_epoch)
            total_steps = epochs * steps_per_epoch
        _check_positive_integer("total_steps", total_steps)
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            )
        names = optimizer.defaults
        if cycle_momentum and "momentum" not in names and "betas" not in names:
            raise ValueError(
                "optimizer must support momentum or beta1 with `cycle_momentum` option enabled; "
                f"{type(optimizer).__name__} has neither"
            )
        self.total_steps = total_steps
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = cycle_momentum
        self.use_beta1 = "betas" in names
        # Where each phase ends; which rates and momenta it goes between, by their names in a group.
        peak = pct_start * total_steps - 1
        if three_phase:
            self.phases = [
                (peak, "initial_lr", "max_lr", "max_momentum", "base_momentum"),
                (2 * peak, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
                (total_steps - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
            ]
        else:
            self.phases = [
                (peak, "initial_lr", "max_lr", "max_momentum", "base_momentum"),
                (total_steps - 1, "max_lr", "min_lr", "base_momentum", "max_momentum"),
            ]
        if last_epoch == -1:
            for group, rate, high, low in zip(
                optimizer.param_groups,
                per_group("max_lr", optimizer, max_lr),
                per_group("max_momentum", optimizer, max_momentum),
                per_group("base_momentum", optimizer, base_momentum),
                strict=True,
            ):
                group["initial_lr"] = rate / div_factor
                group["max_lr"] = rate
                group["min_lr"] = group["initial_lr"] / final_div_factor
                if cycle_momentum:
                    group["max_momentum"] = high
                    group["base_momentum"] = low
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate at t; sets the momentum of each group on the way."""
        t = self.last_epoch
        if t > self.total_steps:
            raise ValueError(
                f"Tried to step {t} times. "
                f"The specified number of total steps is {self.total_steps}"
            )
        ends = [end for end, *_ in self.phases]
        number = min(bisect_left(ends, t), len(ends) - 1)
        start = ends[number - 1] if number else 0.0
        end, first_lr, last_lr, first_momentum, last_momentum = self.phases[number]
        fraction = (t - start) / (end - start) if end > start else 1.0

        groups = self.optimizer.param_groups
        if self.cycle_momentum:
            for group in groups:
                momentum = self._between(group[first_momentum], group[last_momentum], fraction)
                if self.use_beta1:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum
        return [self._between(group[first_lr], group[last_lr], fraction) for group in groups]

    def _between(self, first: float, last: float, fraction: float) -> float:
        if self.anneal_strategy == "linear":
            return first + (last - first) * fraction
        return last + (first - last) / 2 * (1 + math.cos(math.pi * fraction))


def _check_positive_integer(name: str, value: int) -> None:
    if not isinstance(value, int) or value <= 0:
        raise ValueError(f"Expected positive integer {name}, but got {value}")
