"""What do layers and losses compute, apart from holding parameters? PyTorch's `nn.functional`.

Everything here is made of the primitives in ops/ and has no derivative rule of its own, so all of
it can be differentiated as often as one likes. Read tensor.py and ops/operators/ before these
files; the modules of the same names are in nn/.
"""

from tinygrad_rnn.nn.functional.activation import (
    gelu,
    hardtanh,
    leaky_relu,
    log_softmax,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from tinygrad_rnn.nn.functional.ctc import ctc_loss
from tinygrad_rnn.nn.functional.layers import (
    dropout,
    embedding,
    layer_norm,
    linear,
    one_hot,
    pad,
)
from tinygrad_rnn.nn.functional.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "ctc_loss",
    "dropout",
    "embedding",
    "gelu",
    "hardtanh",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "mse_loss",
    "nll_loss",
    "one_hot",
    "pad",
    "relu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "tanh",
]
