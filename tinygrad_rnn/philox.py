"""How does a GPU draw the very numbers that NumPy would have drawn, without asking the host?

NumPy's generator is Philox4x64-10: the words of its stream are the ten-fold mixed values of a
counter, four words a count, so every thread works out its own ones from the state alone. The host
then moves its generator on by as many words, without drawing them. Philox: Salmon, Moraes, Dror and
Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011, section 3.3 and table 2.
How words become numbers is NumPy's choice. `random.py` decides which machine draws.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tinygrad_rnn.backend import Array

#: The kernels. They are also C++, but for __umul64hi, and so can be run without a GPU.
SOURCE = r"""
typedef unsigned long long u64;

struct Counter { u64 part[4]; };

__device__ u64 high_half_of_product(u64 a, u64 b) {
#ifdef __CUDACC__
    return __umul64hi(a, b);
#else
    return (u64)(((unsigned __int128)a * b) >> 64);
#endif
}

// The counter after some more counts; its first part is the lowest.
__device__ Counter later(Counter counter, u64 counts) {
    for (int k = 0; k < 4; k++) {
        counter.part[k] += counts;
        counts = counter.part[k] < counts;  // the carry
    }
    return counter;
}

// The four words that belong to a value of the counter: ten rounds, each with a key of its own.
__device__ Counter words_of(Counter x, u64 key0, u64 key1) {
    for (int round = 0; round < 10; round++) {
        u64 high0 = high_half_of_product(0xD2E7470EE14C6C93ULL, x.part[0]);
        u64 low0 = 0xD2E7470EE14C6C93ULL * x.part[0];
        u64 high1 = high_half_of_product(0xCA5A826395121157ULL, x.part[2]);
        u64 low1 = 0xCA5A826395121157ULL * x.part[2];
        x.part[0] = high1 ^ x.part[1] ^ key0;
        x.part[1] = low1;
        x.part[2] = high0 ^ x.part[3] ^ key1;
        x.part[3] = low0;
        key0 += 0x9E3779B97F4A7C15ULL;  // the golden ratio
        key1 += 0xBB67AE8584CAA73BULL;  // the square root of 3, less 1
    }
    return x;
}

// A thread for each value of the counter. `used`: how many of the first four words are used up.

// y: n numbers of 53 bits in [0, 1), a word each.
extern "C" __global__ void uniform_float64(
    double* y, long long n, long long used,
    u64 count0, u64 count1, u64 count2, u64 count3, u64 key0, u64 key1
) {
    long long thread = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    long long place = 4 * thread - used;  // in y, of the thread's first word
    if (place >= n) return;
    Counter counter = {{count0, count1, count2, count3}};
    Counter words = words_of(later(counter, thread), key0, key1);
    for (int k = 0; k < 4; k++, place++)
        if (0 <= place && place < n)
            y[place] = (double)(words.part[k] >> 11) * (1.0 / 9007199254740992.0);
}

// y: n numbers of 24 bits in [0, 1), half a word each, the lower half first. `waiting`: whether the
// first of them is made of `half`, which was left over.
extern "C" __global__ void uniform_float32(
    float* y, long long n, long long used,
    u64 count0, u64 count1, u64 count2, u64 count3, u64 key0, u64 key1,
    long long waiting, long long half
) {
    long long thread = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (thread == 0 && waiting)
        y[0] = (float)((unsigned int)half >> 8) * (1.0f / 16777216.0f);
    long long place = 2 * (4 * thread - used) + waiting;
    if (place >= n) return;
    Counter counter = {{count0, count1, count2, count3}};
    Counter words = words_of(later(counter, thread), key0, key1);
    for (int k = 0; k < 8; k++, place++)
        if (waiting <= place && place < n)
            y[place] = (float)((unsigned int)(words.part[k / 2] >> 32 * (k % 2)) >> 8)
                * (1.0f / 16777216.0f);
}
"""

_THREADS = 128  # in a block


def uniform(xp: Any, bits: np.random.Philox, shape: tuple[int, ...], dtype: Any) -> Array:
    """What `numpy.random.Generator(bits).random(shape, dtype)` gives, on the current device of xp.

    dtype: float32 or float64. `bits` is left as drawing leaves it.
    """
    y = xp.empty(shape, dtype)
    if not y.size:
        return y
    state: Any = bits.state
    used, waiting, half = state["buffer_pos"], state["has_uint32"], state["uinteger"]
    arguments = [y, y.size, used, *state["state"]["counter"], *state["state"]["key"]]
    if y.dtype == np.float32:
        words = (y.size - waiting + 1) // 2
        arguments += [waiting, half]
    else:
        words = y.size
    threads = max(-(-(used + words) // 4), 1)
    _kernel(xp, f"uniform_{y.dtype}")((-(-threads // _THREADS),), (_THREADS,), tuple(arguments))
    drawn = _move_on(bits, words)
    if y.dtype == np.float32:
        half = int(drawn[-1]) >> 32 if words else half
        waiting = (y.size - waiting) % 2
    bits.state = bits.state | {"has_uint32": waiting, "uinteger": half}
    return y


@functools.cache
def _kernel(xp: Any, name: str) -> Any:
    """One of the kernels, which is compiled when it first runs."""
    return xp.RawKernel(SOURCE, name)


def _move_on(bits: np.random.Philox, words: int) -> Array:
    """Leave out all but the last of some words of the stream, and give those that were drawn."""
    end = bits.state["buffer_pos"] + words  # counted from the first word of the present four
    if end <= 4:
        return bits.random_raw(words)
    counts = (end - 1) // 4
    bits.advance(counts - 1)
    return bits.random_raw(end - 4 * counts)
