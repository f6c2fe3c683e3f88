"""The base of the schedules: when rates are set, to which groups, and how a schedule is continued.

Read `optim/optimizer.py` first; then `decay.py`, `warm_up.py` and the others, in any order.
"""

import warnings
from collections.abc import Sequence
from typing import Any

from tinygrad_rnn.optim.optimizer import Optimizer


class LRScheduler:
    """The base of the schedules: γₜ = get_lr() for every parameter group, set by `step()`.

    A subclass defines `get_lr` and reads `last_epoch`, `base_lrs` and `optimizer.param_groups`.

    last_epoch: -1 begins the schedule. Another value continues one after that many steps; each
        group must then have the "initial_lr" that an earlier schedule or a loaded state left there.

    Raises TypeError if `optimizer` is not an Optimizer, KeyError for a missing "initial_lr".
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = checked_optimizer(optimizer)
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", float(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{number}]: load the "
                    "optimizer's state before continuing a schedule with last_epoch >= 0"
                )
        self.base_lrs: list[float] = [
            float(group["initial_lr"]) for group in optimizer.param_groups
        ]
        self.last_epoch = last_epoch
        self._begin()

    def get_lr(self) -> list[float]:
        """The rate of each group at `last_epoch`; `step` calls it. To read rates: `get_last_lr`."""
        raise NotImplementedError(f"{type(self).__name__} must define get_lr()")

    def get_last_lr(self) -> list[float]:
        """The rate of each group, as this scheduler last set it."""
        return self._last_lr

    def step(self, epoch: int | None = None) -> None:
        """Advance by one and set the rates; call it after `optimizer.step()`.

        epoch: deprecated, as in PyTorch: set the rates to those of a fresh schedule after `epoch`
            steps, at the cost of running through them.
        """
        if self._step_count == 1 and _skips_first_rate(self.optimizer):
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`. Call them in "
                "the opposite order, or the first value of the schedule is never used.",
                UserWarning,
                stacklevel=2,
            )
        if epoch is not None:
            warnings.warn(
                "The epoch argument of `scheduler.step()` is deprecated; call `scheduler.step()`.",
                UserWarning,
                stacklevel=2,
            )
            self._restart()
            for _ in range(epoch):
                self._advance()
        else:
            self._advance()

    def state_dict(self) -> dict[str, Any]:
        """Everything the schedule remembers: all attributes but the optimizer."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`. The rates themselves are in the optimizer's state."""
        vars(self).update(state_dict)

    def _begin(self) -> None:
        """Set the first rates. `_is_initial` tells get_lr that there is no rate to advance from."""
        self._step_count = 0
        self._is_initial = True
        self.step()
        self._is_initial = False

    def _restart(self) -> None:
        """Begin again from the rates the schedule first began from."""
        set_lrs(self.optimizer, self.base_lrs)
        self.last_epoch = -1
        self._begin()

    def _advance(self) -> None:
        self._step_count += 1
        self.last_epoch += 1
        set_lrs(self.optimizer, self.get_lr())
        self._last_lr = present_lrs(self.optimizer)


def present_lrs(optimizer: Optimizer) -> list[float]:
    """The present learning rate of each group."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def set_lrs(optimizer: Optimizer, lrs: Sequence[float]) -> None:
    """Give each group its rate, as a Python float."""
    groups = optimizer.param_groups
    if len(lrs) != len(groups):
        raise ValueError(
            f"the schedule was made for {len(lrs)} parameter groups, the optimizer now has "
            f"{len(groups)}; make the scheduler after add_param_group"
        )
    for group, lr in zip(groups, lrs, strict=True):
        group["lr"] = float(lr)


def per_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """`value` for every group, or the values of a list with one per group."""
    groups = len(checked_optimizer(optimizer).param_groups)
    if not isinstance(value, list | tuple):
        return [value] * groups
    if len(value) != groups:
        raise ValueError(f"{name} has {len(value)} values, the optimizer has {groups} groups")
    return list(value)


def checked_optimizer(optimizer: Optimizer) -> Optimizer:
    """The optimizer itself; TypeError if it is something else."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
    return optimizer


def _skips_first_rate(optimizer: Optimizer) -> bool:
    """Whether the optimizer has yet to step. One with a `step` of its own does not count steps."""
    return type(optimizer).step is Optimizer.step and optimizer.steps_taken == 0
