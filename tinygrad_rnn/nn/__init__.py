"""Layers, losses and what belongs to them, under PyTorch's names.

Start with module.py (what a layer is) and functional/ (what the layers compute).
"""

from tinygrad_rnn.nn import functional, init, utils
from tinygrad_rnn.nn.activation import (
    GELU,
    Hardtanh,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from tinygrad_rnn.nn.attention import (
    AdditiveAttention,
    Attention,
    DotProductAttention,
    GeneralAttention,
)
from tinygrad_rnn.nn.containers import (
    ModuleDict,
    ModuleList,
    ParameterDict,
    ParameterList,
    Sequential,
)
from tinygrad_rnn.nn.dropout import Dropout
from tinygrad_rnn.nn.embedding import Embedding
from tinygrad_rnn.nn.linear import Identity, Linear
from tinygrad_rnn.nn.loss import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    CTCLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from tinygrad_rnn.nn.module import Module
from tinygrad_rnn.nn.normalization import LayerNorm
from tinygrad_rnn.nn.parameter import Parameter
from tinygrad_rnn.nn.recurrent import (
    GRU,
    LSTM,
    RNN,
    GRUCell,
    LSTMCell,
    RNNBase,
    RNNCell,
    RNNCellBase,
)

__all__ = [
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "AdditiveAttention",
    "Attention",
    "BCELoss",
    "BCEWithLogitsLoss",
    "CTCLoss",
    "CrossEntropyLoss",
    "DotProductAttention",
    "Dropout",
    "Embedding",
    "GRUCell",
    "GeneralAttention",
    "Hardtanh",
    "HuberLoss",
    "Identity",
    "KLDivLoss",
    "L1Loss",
    "LSTMCell",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "Module",
    "ModuleDict",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "ParameterDict",
    "ParameterList",
    "RNNBase",
    "RNNCell",
    "RNNCellBase",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "Softplus",
    "Tanh",
    "functional",
    "init",
    "utils",
]
