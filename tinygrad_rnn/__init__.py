"""tinygrad_rnn: reverse-mode autograd over NumPy or CuPy arrays, and recurrent layers made of it.

The names are PyTorch's: `import tinygrad_rnn as torch` runs most scripts about recurrent networks.
Where to start reading: `docs/reading.md`.
"""

import numpy as _numpy

from tinygrad_rnn import ops, random
from tinygrad_rnn.backend import (
    device, get_default_device, get_default_dtype, set_default_device, set_default_dtype,
)
from tinygrad_rnn.creation import (
    arange, as_tensor, bernoulli, empty, empty_like, eye, from_numpy, full, full_like,
    get_rng_state, is_tensor, linspace, multinomial, normal, ones, ones_like, rand, rand_like,
    randint, randn, randn_like, randperm, set_rng_state, tensor, zeros, zeros_like,
)
from tinygrad_rnn.ops.operators import Operators as _methods
from tinygrad_rnn.ops.operators import cat, einsum, matmul, stack, where
from tinygrad_rnn.random import Generator, manual_seed
from tinygrad_rnn.tensor import (
    Tensor, enable_grad, is_grad_enabled, no_grad, set_grad_enabled,
)

__version__ = "0.1.0"
