"""Schedules that begin with a reduced rate: constant, or rising linearly.

Read `scheduler.py` first.
"""

from tinygrad_rnn.optim.lr_scheduler.scheduler import LRScheduler, present_lrs
from tinygrad_rnn.optim.optimizer import Optimizer


class ConstantLR(LRScheduler):
    """γₜ = γ₀ · factor while t < total_iters, then γ₀.

    Raises ValueError for a factor outside [0, 1].
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 1.0 / 3,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= factor <= 1:
            raise ValueError(f"ConstantLR: factor {factor}; expected at least 0 and at most 1")
        self.factor = factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rates, times factor at t = 0 and divided by it at t = total_iters."""
        lrs = present_lrs(self.optimizer)
        if self.last_epoch == 0:
            return [lr * self.factor for lr in lrs]
        if self.last_epoch != self.total_iters:
            return lrs
        if self.factor == 0:  # nothing is left to divide; PyTorch raises ZeroDivisionError here
            return list(self.base_lrs)
        return [lr / self.factor for lr in lrs]


class LinearLR(LRScheduler):
    """γₜ = γ₀ · (a + (b - a) · min(t, n) / n): a linear warm-up over n = total_iters steps.

    start_factor: a, in (0, 1]. end_factor: b, in [0, 1].

    Raises ValueError for a factor out of its range.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1:
            raise ValueError(
                f"LinearLR: start_factor {start_factor}; expected more than 0 and at most 1"
            )
        if not 0 <= end_factor <= 1:
            raise ValueError(
                f"LinearLR: end_factor {end_factor}; expected at least 0 and at most 1"
            )
        self.start_factor = start_factor
        self.end_factor = end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The present rates, times factor(t) / factor(t - 1)."""
        t, n = self.last_epoch, self.total_iters
        lrs = present_lrs(self.optimizer)
        if t == 0:
            return [lr * self.start_factor for lr in lrs]
        if self._is_initial or t > n:
            return lrs
        rise = self.end_factor - self.start_factor
        ratio = 1 + rise / (n * self.start_factor + (t - 1) * rise)
        return [lr * ratio for lr in lrs]
