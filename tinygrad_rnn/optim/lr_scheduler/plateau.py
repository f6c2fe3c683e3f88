"""The schedule that watches a metric, and lowers the rate when it stalls.

Read `scheduler.py` first.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from tinygrad_rnn.optim.lr_scheduler.scheduler import (
    LRScheduler,
    per_group,
    present_lrs,
    set_lrs,
)
from tinygrad_rnn.optim.optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """γ ← max(γ · factor, min_lr) after more than `patience` steps without a better metric.

    mode: "min" or "max", which metric is better. threshold: how much better it must be, as a
    fraction of the best (threshold_mode "rel") or as a difference ("abs"). cooldown: steps after a
    reduction in which none is counted. min_lr: a number, or a list with one per group. eps:
    reductions smaller than this are not made.

    Raises ValueError for a factor of 1 or more, or an unknown mode.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        if not factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor {factor}; expected less than 1")
        if mode not in ("min", "max"):
            raise ValueError(f"ReduceLROnPlateau: mode {mode!r}; expected 'min' or 'max'")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"ReduceLROnPlateau: threshold_mode {threshold_mode!r}; expected 'rel' or 'abs'"
            )
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.eps = eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        per_group("min_lr", optimizer, min_lr)  # raises if it does not fit
        super().__init__(optimizer)

    @property
    def in_cooldown(self) -> bool:
        """Whether bad steps are not counted at present."""
        return self.cooldown_counter > 0

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Take note of a metric, a number or a one-element Tensor; lower the rates if it stalls."""
        metric = float(metrics)
        if self._is_better(metric):
            self.best = metric
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            set_lrs(self.optimizer, self._reduced())
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        self._last_lr = present_lrs(self.optimizer)

    def _begin(self) -> None:
        self.last_epoch = 0
        self._last_lr = present_lrs(self.optimizer)

    def _reduced(self) -> list[float]:
        lrs = present_lrs(self.optimizer)
        lowest = per_group("min_lr", self.optimizer, self.min_lr)
        reduced = [max(lr * self.factor, low) for lr, low in zip(lrs, lowest, strict=True)]
        return [new if lr - new > self.eps else lr for lr, new in zip(lrs, reduced, strict=True)]

    def _is_better(self, metric: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return sign * metric > sign * self.best * (1 + sign * self.threshold)
        return sign * metric > sign * self.best + self.threshold
