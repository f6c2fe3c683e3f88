"""What is done to all parameters of a model together: clipping, joining; and padded sequences."""

from tinygrad_rnn.nn.utils import rnn
from tinygrad_rnn.nn.utils.clip import clip_grad_norm_, clip_grad_value_, get_total_norm
from tinygrad_rnn.nn.utils.convert import parameters_to_vector, vector_to_parameters

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "get_total_norm",
    "parameters_to_vector",
    "rnn",
    "vector_to_parameters",
]
