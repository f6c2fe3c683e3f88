"""One schedule after another, such as a warm-up before a decay. Read `scheduler.py` first."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from tinygrad_rnn.optim.lr_scheduler.plateau import ReduceLROnPlateau
from tinygrad_rnn.optim.lr_scheduler.scheduler import LRScheduler
from tinygrad_rnn.optim.optimizer import Optimizer


class SequentialLR(LRScheduler):
    """schedulers[0] until t = milestones[0], then schedulers[1] from its beginning, and so on.

    schedulers: schedules of one optimizer, such as a LinearLR to warm up and a CosineAnnealingLR.
    milestones: increasing step numbers, one fewer than the schedules.

    Raises ValueError if the numbers do not fit, or a schedule belongs to another optimizer or is a
    ReduceLROnPlateau, whose `step` needs a metric.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        if not schedulers:
            raise ValueError("SequentialLR: expects at least one scheduler, but got no scheduler")
        for number, scheduler in enumerate(schedulers):
            kind = type(scheduler).__name__
            if not hasattr(scheduler, "optimizer"):
                raise TypeError(f"SequentialLR: {kind} at index {number} is not a scheduler")
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"SequentialLR: ReduceLROnPlateau at index {number} is not supported: "
                    "its step() needs a metric"
                )
            if scheduler.optimizer is not optimizer:
                raise ValueError(f"SequentialLR: {kind} at index {number} has another optimizer")
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"SequentialLR: {len(schedulers)} schedulers and {len(milestones)} milestones; "
                "expected one milestone fewer than schedulers"
            )
        if last_epoch != -1:
            raise ValueError(
                f"SequentialLR: last_epoch={last_epoch}: continue a sequence with load_state_dict"
            )
        self._schedulers = list(schedulers)
        self._milestones = list(milestones)
        super().__init__(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """As for every schedule, with the states of the schedules inside."""
        inner = [scheduler.state_dict() for scheduler in self._schedulers]
        return {**super().state_dict(), "_schedulers": inner}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`, the schedules inside too."""
        for scheduler, inner in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(inner)
        super().load_state_dict({**state_dict, "_schedulers": self._schedulers})

    def _advance(self) -> None:
        self.last_epoch += 1
        number = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[number]
        begins = self._milestones[number - 1] if number else 0
        if self.last_epoch == begins:
            scheduler._restart()
        else:
            scheduler.step()  # which also warns of a wrong order, so steps are not counted here
        self._last_lr = scheduler.get_last_lr()
