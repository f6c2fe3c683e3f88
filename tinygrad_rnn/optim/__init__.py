"""Optimizers and learning-rate schedules, named and behaving as in `torch.optim`.

Read `optimizer.py` first (groups, state, saving), then one family, then `lr_scheduler.py`.
"""

from tinygrad_rnn.optim import lr_scheduler
from tinygrad_rnn.optim.adadelta import Adadelta
from tinygrad_rnn.optim.adagrad import Adagrad
from tinygrad_rnn.optim.adam import Adam, AdamW
from tinygrad_rnn.optim.asgd import ASGD
from tinygrad_rnn.optim.optimizer import Optimizer
from tinygrad_rnn.optim.rmsprop import RMSprop
from tinygrad_rnn.optim.sgd import SGD

__all__ = [
    "ASGD",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "lr_scheduler",
]
