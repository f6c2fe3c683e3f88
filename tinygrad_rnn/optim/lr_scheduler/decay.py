"""Schedules that lower the rate: by any function, in steps, exponentially, along a cosine.

Read `scheduler.py` first.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from types import FunctionType
from typing import Any

from tinygrad_rnn.optim.lr_scheduler.scheduler import LRScheduler, per_group, present_lrs
from tinygrad_rnn.optim.optimizer import Optimizer


class LambdaLR(LRScheduler):
    """γₜ = γ₀ · f(t).

    lr_lambda: f, or a list with one function per group.

    Raises ValueError if there are more or fewer functions than groups.

    >>> from tinygrad_rnn.tensor import Tensor
    >>> from tinygrad_rnn.optim import SGD
    >>> import numpy as np
    >>> sgd = SGD([Tensor(np.zeros(3), requires_grad=True)], lr=0.5)
    >>> schedule = LambdaLR(sgd, lambda t: 1 / (1 + t))
    >>> for _ in range(3):
    ...     sgd.step()
    ...     schedule.step()
    >>> schedule.get_last_lr()
    [0.125]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        self.lr_lambdas = per_group("lr_lambda", optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """γ₀ · f(t)."""
        return [
            base_lr * factor(self.last_epoch)
            for base_lr, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """As for every schedule; of the functions only the attributes of callable objects."""
        state = super().state_dict()
        state["lr_lambdas"] = [
            dict(vars(factor))
            if hasattr(factor, "__dict__") and not isinstance(factor, FunctionType)
            else None
            for factor in self.lr_lambdas
        ]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`, keeping the functions given to the constructor."""
        for factor, attributes in zip(self.lr_lambdas, state_dict["lr_lambdas"], strict=True):
            if attributes is not None:
                vars(factor).update(attributes)
        super().load_state_dict({**state_dict, "lr_lambdas": self.lr_lambdas})


class StepLR(LRScheduler):
    """γₜ = γ₀ · gamma^⌊t / step_size⌋."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rates, times gamma every `step_size` steps."""
        decays = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return [lr * self.gamma if decays else lr for lr in present_lrs(self.optimizer)]


class MultiStepLR(LRScheduler):
    """γₜ = γ₀ · gamma^(number of milestones ≤ t).

    milestones: step numbers in any order; one given twice counts twice.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Iterable[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        self.milestones = sorted(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rates, times gamma for each milestone at t."""
        factor = self.gamma ** self.milestones.count(self.last_epoch)
        return [lr * factor for lr in present_lrs(self.optimizer)]


class ExponentialLR(LRScheduler):
    """γₜ = γ₀ · gammaᵗ."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rates, times gamma."""
        lrs = present_lrs(self.optimizer)
        return lrs if self._is_initial else [lr * self.gamma for lr in lrs]


class CosineAnnealingLR(LRScheduler):
    """γₜ = eta_min + (γ₀ - eta_min) · (1 + cos(π t / T_max)) / 2.

    T_max: steps from γ₀ down to eta_min; beyond it the rate climbs back along the cosine.

    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", 2017, equation 5,
    without the restarts.
    """

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rates, their distance to eta_min times height(t) / height(t - 1)."""
        lrs = present_lrs(self.optimizer)
        if self._is_initial:
            return lrs
        t, angle = self.last_epoch, math.pi / self.T_max
        if (t - 1 - self.T_max) % (2 * self.T_max) == 0:  # height(t - 1) is 0: leave the valley
            height = (1 - math.cos(angle)) / 2
            return [
                lr + (base_lr - self.eta_min) * height
                for lr, base_lr in zip(lrs, self.base_lrs, strict=True)
            ]
        ratio = (1 + math.cos(angle * t)) / (1 + math.cos(angle * (t - 1)))
        return [self.eta_min + (lr - self.eta_min) * ratio for lr in lrs]
