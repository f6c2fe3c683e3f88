"""How does a kernel read and write float16, without NVIDIA's headers?"""

#: C++ that defines `half_bits`, `from_half` and `to_half`. The CPU of tests brings its own.
SOURCE = """\
#ifndef ON_THE_HOST
typedef unsigned short half_bits;  // float16, computed with as float
__device__ __forceinline__ float from_half(half_bits x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}
__device__ __forceinline__ half_bits to_half(float x) {
  half_bits y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
#endif
"""
