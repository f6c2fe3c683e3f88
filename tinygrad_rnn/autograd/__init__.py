"""PyTorch's `autograd`: gradients, your own operations, derivatives of functions, checks.

`backward` and `grad` are the engine's (`tensor.py`). Here are `Function` (`function.py`), the
derivatives of plain functions (`functional.py`), the comparison with finite differences
(`gradcheck.py`) and the search for the first NaN (`anomaly.py`).
"""

from tinygrad_rnn.autograd import function, functional
from tinygrad_rnn.autograd.anomaly import detect_anomaly, set_detect_anomaly
from tinygrad_rnn.autograd.function import Function
from tinygrad_rnn.autograd.gradcheck import GradcheckError, check_grads, gradcheck, gradgradcheck
from tinygrad_rnn.creation import Variable
from tinygrad_rnn.modes import enable_grad, no_grad, set_grad_enabled
from tinygrad_rnn.tensor import backward, grad

__all__ = [
    "Function",
    "GradcheckError",
    "Variable",
    "backward",
    "check_grads",
    "detect_anomaly",
    "enable_grad",
    "function",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "no_grad",
    "set_detect_anomaly",
    "set_grad_enabled",
]
