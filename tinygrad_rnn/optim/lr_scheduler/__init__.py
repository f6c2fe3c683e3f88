"""Learning-rate schedules: what `group["lr"]` is after t calls of `scheduler.step()`.

Most schedules give the next rate from the present one, as PyTorch's do, so that two schedules on
one optimizer multiply and a rate changed by hand is kept. The closed form is the first line of each
class; t is its `last_epoch` and γ₀ the group's rate when the schedule began. Read `scheduler.py`
first.
"""

from tinygrad_rnn.optim.lr_scheduler.decay import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    MultiStepLR,
    StepLR,
)
from tinygrad_rnn.optim.lr_scheduler.one_cycle import OneCycleLR
from tinygrad_rnn.optim.lr_scheduler.plateau import ReduceLROnPlateau
from tinygrad_rnn.optim.lr_scheduler.scheduler import LRScheduler
from tinygrad_rnn.optim.lr_scheduler.sequential import SequentialLR
from tinygrad_rnn.optim.lr_scheduler.warm_up import ConstantLR, LinearLR

_LRScheduler = LRScheduler  # PyTorch's name of the base before 2.0, which programs still subclass

__all__ = [
    "ConstantLR",
    "CosineAnnealingLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]
