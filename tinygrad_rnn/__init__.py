"""tinygrad_rnn: reverse-mode autograd over NumPy or CuPy arrays, and recurrent layers made of it.

The names are PyTorch's: `import tinygrad_rnn as torch` runs most scripts about recurrent networks.
Where to start reading: `docs/reading.md`.
"""

from math import inf, nan, pi

import numpy as _numpy

from tinygrad_rnn import autograd, cuda, nn, ops, optim, random, scan, utils
from tinygrad_rnn.backend import (
    device,
    get_default_device,
    get_default_dtype,
    set_default_device,
    set_default_dtype,
)
from tinygrad_rnn.creation import (
    FloatTensor,
    LongTensor,
    arange,
    as_tensor,
    asarray,
    bernoulli,
    empty,
    empty_like,
    eye,
    from_dlpack,
    from_numpy,
    full,
    full_like,
    get_rng_state,
    is_tensor,
    linspace,
    multinomial,
    normal,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
    set_rng_state,
    tensor,
    zeros,
    zeros_like,
)
from tinygrad_rnn.io import load, save
from tinygrad_rnn.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    no_grad,
    set_grad_enabled,
)
from tinygrad_rnn.ops.operators import Operators as _methods
from tinygrad_rnn.ops.operators import cat, einsum, matmul, stack, where
from tinygrad_rnn.precision import get_float32_matmul_precision, set_float32_matmul_precision
from tinygrad_rnn.printing import set_printoptions
from tinygrad_rnn.random import Generator, initial_seed, manual_seed, seed
from tinygrad_rnn.scan import explain, unroll
from tinygrad_rnn.tensor import Tensor

__version__ = "0.1.0"

# Element types: NumPy's.
float16 = half = _numpy.dtype(_numpy.float16)
float32 = float = _numpy.dtype(_numpy.float32)
float64 = double = _numpy.dtype(_numpy.float64)
uint8 = _numpy.dtype(_numpy.uint8)
int8 = _numpy.dtype(_numpy.int8)
int16 = short = _numpy.dtype(_numpy.int16)
int32 = int = _numpy.dtype(_numpy.int32)
int64 = long = _numpy.dtype(_numpy.int64)
bool = _numpy.dtype(_numpy.bool_)
finfo, iinfo = _numpy.finfo, _numpy.iinfo  # their limits

# A method of one tensor is also a function: tanh(x) is x.tanh().
abs = _methods.abs
add = _methods.add
addmm = _methods.addmm
all = _methods.all
allclose = _methods.allclose
amax = _methods.amax
amin = _methods.amin
any = _methods.any
argmax = _methods.argmax
argmin = _methods.argmin
argsort = _methods.argsort
bmm = _methods.bmm
broadcast_to = _methods.broadcast_to
ceil = _methods.ceil
chunk = _methods.chunk
clamp = _methods.clamp
clip = _methods.clamp
clone = _methods.clone
cos = _methods.cos
cumsum = _methods.cumsum
div = _methods.div
dot = _methods.dot
eq = _methods.eq
equal = _methods.equal
erf = _methods.erf
exp = _methods.exp
expm1 = _methods.expm1
flatten = _methods.flatten
flip = _methods.flip
floor = _methods.floor
gather = _methods.gather
ge = _methods.ge
gt = _methods.gt
index_select = _methods.index_select
is_floating_point = Tensor.is_floating_point
isfinite = _methods.isfinite
isinf = _methods.isinf
isnan = _methods.isnan
le = _methods.le
lerp = _methods.lerp
log = _methods.log
log10 = _methods.log10
log1p = _methods.log1p
log2 = _methods.log2
log_softmax = _methods.log_softmax
logical_and = _methods.logical_and
logical_not = _methods.logical_not
logical_or = _methods.logical_or
logsumexp = _methods.logsumexp
lt = _methods.lt
masked_fill = _methods.masked_fill
masked_select = _methods.masked_select
max = _methods.max
maximum = _methods.maximum
mean = _methods.mean
min = _methods.min
minimum = _methods.minimum
mm = _methods.mm
moveaxis = _methods.movedim
movedim = _methods.movedim
mul = _methods.mul
mv = _methods.mv
narrow = _methods.narrow
ne = _methods.ne
neg = _methods.neg
nonzero = _methods.nonzero
norm = _methods.norm
numel = _methods.numel
outer = _methods.outer
permute = _methods.permute
pow = _methods.pow
prod = _methods.prod
reciprocal = _methods.reciprocal
relu = _methods.relu
remainder = _methods.remainder
repeat_interleave = _methods.repeat_interleave
reshape = _methods.reshape
roll = _methods.roll
round = _methods.round
rsqrt = _methods.rsqrt
scatter_add = _methods.scatter_add
select = _methods.select
sigmoid = _methods.sigmoid
sign = _methods.sign
sin = _methods.sin
softmax = _methods.softmax
softplus = _methods.softplus
sort = _methods.sort
split = _methods.split
sqrt = _methods.sqrt
square = _methods.square
squeeze = _methods.squeeze
std = _methods.std
sub = _methods.sub
sum = _methods.sum
swapaxes = _methods.transpose
t = _methods.t
tanh = _methods.tanh
tile = _methods.tile
topk = _methods.topk
transpose = _methods.transpose
tril = _methods.tril
triu = _methods.triu
unbind = _methods.unbind
unflatten = _methods.unflatten
unique = _methods.unique
unsqueeze = _methods.unsqueeze
var = _methods.var
