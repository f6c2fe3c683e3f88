"""Where does the gradient that runs back through time begin? At the softmax cross entropy.

`docs/derivations.md`, section 1, derives `cross_entropy_vjp`. Needs no other file.
"""

from __future__ import annotations

import numpy as np

from tinygrad_rnn.by_hand.cell import Array


def cross_entropy(logits: Array, target: Array) -> Array:
    """L = -(1/N) Σ_n log p_n[target_n], p = softmax(logits), in nats.

    logits: (N, C), target: (N,) class indices. The largest logit is taken off first: softmax does
    not notice, and exp cannot overflow. Four equal logits cost log 4:

    >>> round(cross_entropy(np.zeros((1, 4)), np.array([2])).item(), 6)
    1.386294
    """
    shifted = logits - logits.real.max(axis=-1, keepdims=True)  # (N, C)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return np.asarray(-log_p[np.arange(len(target)), target].mean())


def cross_entropy_vjp(logits: Array, target: Array) -> Array:
    """dlogits = (p - onehot(target)) / N: what the model believed, less what was so.

    >>> cross_entropy_vjp(np.zeros((1, 4)), np.array([2])).tolist()
    [[0.25, 0.25, -0.75, 0.25]]
    """
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p: Array = e / e.sum(axis=-1, keepdims=True)  # (N, C)
    onehot = np.eye(logits.shape[-1])[target]  # (N, C)
    return (p - onehot) / len(target)
