// The instructions of PTX that NVIDIA's compiler makes of this library's kernels, for the host.
//
// A function has the name of its instruction, T is the type at the instruction's end, and `how` has
// its other words as bits. Source: NVIDIA, "PTX ISA", version 9. Rounding and the flushing of small
// numbers to zero are as it says; what it calls approximate (ex2.approx, rcp.approx, …) is the
// host's function, which is more exact than a GPU's.
#include <cfenv>
#include <cstdint>
#include <cstdio>
#include <type_traits>
#include <vector>

namespace ptx {

typedef bool pred;
typedef uint8_t u8, b8;
typedef uint16_t u16, b16, f16;
typedef uint32_t u32, b32;
typedef uint64_t u64, b64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef float f32;
typedef double f64;

enum {
  ftz = 1, sat = 2, rz = 4, rm = 8, rp = 16, rni = 32, rzi = 64, rmi = 128, rpi = 256, hi = 512,
  wide = 1024, cc = 2048,
  // What is so anyhow, or does not matter here.
  rn = 0, lo = 0, approx = 0,
};
constexpr int DIRECTED = rz | rm | rp, WHOLE = rni | rzi | rmi | rpi;

// An operand: of a register, its bits; of a number in the text, the number.
template <typename T> struct Of {
  T x;
  template <typename R> Of(R given) {
    x = (T)given;
    if constexpr (std::is_floating_point_v<T> != std::is_floating_point_v<R>) {
      static_assert(sizeof(T) == sizeof(R), "bits of a register of the same width");
      memcpy(&x, &given, sizeof x);
    }
  }
};

// Into a register, which may be wider: with zeros above, or, of a type with a sign, with that.
template <typename R, typename T> static inline void put(R& to, T x) {
  static_assert(sizeof(T) <= sizeof(R), "a register of this width, or a wider one");
  if constexpr (std::is_floating_point_v<T> == std::is_floating_point_v<R>)
    to = (R)x;
  else
    memcpy(&to, &x, sizeof x);
}

// The launch ends here.
template <typename... X> [[noreturn]] static void refuse(const char* format, X... values) {
  snprintf(refusal, sizeof refusal, format, values...);
  for (;;) swapcontext(&fibers[current].context, &scheduler);
}

// --- numbers -------------------------------------------------------------------------------------

template <typename T, int how> static inline T flushed(T x) {
  if constexpr ((how & ftz) && std::is_same_v<T, f32>)
    if (__builtin_fabsf(x) < 0x1p-126f) return __builtin_copysignf(0, x);
  return x;
}
// Where rounding is not to nearest, nothing is computed before or after that is set.
template <int how, typename T> static inline T held(T x) {
  if constexpr (how & DIRECTED) asm volatile("" : "+x"(x));
  return x;
}
template <typename T, int how, typename F, typename... X>
static inline T computed(F f, X... given) {
  if constexpr (std::is_floating_point_v<T>) {
    if constexpr (how & DIRECTED)
      fesetround(how & rz ? FE_TOWARDZERO : how & rm ? FE_DOWNWARD : FE_UPWARD);
    T y = held<how>(f(held<how>(flushed<T, how>(given))...));
    if constexpr (how & DIRECTED) fesetround(FE_TONEAREST);
    if constexpr (how & sat) y = y > 0 ? (y < 1 ? y : 1) : 0;
    return flushed<T, how>(y);
  } else {
    return f(given...);
  }
}
#define ONE(name, text)                                          \
  template <typename T, int how> static inline T name(Of<T> a) { \
    return computed<T, how>([](T x) -> T { return text; }, a.x); \
  }
#define TWO(name, text)                                                    \
  template <typename T, int how> static inline T name(Of<T> a, Of<T> b) {  \
    return computed<T, how>([](T x, T y) -> T { return text; }, a.x, b.x); \
  }
#define COMPARED(name, text)                                                        \
  template <typename T, int how> static inline bool setp_##name(Of<T> a, Of<T> b) { \
    const T x = flushed<T, how>(a.x), y = flushed<T, how>(b.x);                     \
    return text;                                                                    \
  }
template <typename T> static inline bool is_nan(T x) { return x != x; }
static inline f32 root(f32 x) { return __builtin_sqrtf(x); }
static inline f64 root(f64 x) { return __builtin_sqrt(x); }
static inline f32 fused(f32 x, f32 y, f32 z) { return __builtin_fmaf(x, y, z); }
static inline f64 fused(f64 x, f64 y, f64 z) { return __builtin_fma(x, y, z); }

ONE(mov, x)
ONE(neg, -x)
ONE(abs, x < 0 || (x == 0 && 1 / (f64)x < 0) ? -x : x)
ONE(sqrt, root(x))
ONE(rcp, 1 / x)
ONE(ex2, __builtin_exp2f(x))
TWO(sub_, x - y)
TWO(div, x / y)
TWO(rem, x % y)
TWO(max, is_nan(x) || x < y ? y : x)
TWO(min, is_nan(x) || x > y ? y : x)
TWO(and_, x & y)
TWO(or_, x | y)
TWO(xor_, x ^ y)
TWO(copysign, (T)__builtin_copysign(y, x))
COMPARED(eq, x == y)
COMPARED(ne, !is_nan(x) && !is_nan(y) && x != y)
COMPARED(lt, x < y)
COMPARED(le, x <= y)
COMPARED(gt, x > y)
COMPARED(ge, x >= y)
COMPARED(neu, x != y)
COMPARED(ltu, !(x >= y))
COMPARED(leu, !(x > y))
COMPARED(gtu, !(x <= y))
COMPARED(geu, !(x < y))
COMPARED(nan, is_nan(x) || is_nan(y))
template <typename T, int> static inline T not_(Of<T> a) {
  return std::is_same_v<T, bool> ? !a.x : ~a.x;
}
template <typename T, int> static inline T selp(Of<T> a, Of<T> b, bool first) {
  return first ? a.x : b.x;
}
template <typename T, int how> static inline T fma(Of<T> a, Of<T> b, Of<T> c) {
  return computed<T, how>([](T x, T y, T z) { return fused(x, y, z); }, a.x, b.x, c.x);
}

// --- whole numbers -------------------------------------------------------------------------------

template <typename T> struct Double;
template <> struct Double<s32> { typedef s64 type; };
template <> struct Double<u32> { typedef u64 type; };
template <> struct Double<s64> { typedef __int128 type; };
template <> struct Double<u64> { typedef unsigned __int128 type; };
static u32 carry;

template <typename T, int how> static inline auto mul(Of<T> a, Of<T> b) {
  if constexpr (std::is_floating_point_v<T>) {
    return computed<T, how>([](T x, T y) { return x * y; }, a.x, b.x);
  } else {
    const auto product = (typename Double<T>::type)a.x * b.x;
    if constexpr (how & wide)
      return product;
    else
      return (T)(how & hi ? product >> 8 * sizeof(T) : product);
  }
}
template <typename T, int how, typename X, typename Y> static inline T sum(X x, Y y, u32 more) {
  const auto all = (u64)x + (u64)y + more;
  if constexpr (how & cc) carry = all >> 32;
  return (T)all;
}
template <typename T, int how> static inline T add(Of<T> a, Of<T> b) {
  if constexpr (how & cc)
    return sum<T, how>(a.x, b.x, 0);
  else
    return computed<T, how>([](T x, T y) -> T { return x + y; }, a.x, b.x);
}
template <typename T, int how> static inline T addc(Of<T> a, Of<T> b) {
  return sum<T, how>(a.x, b.x, carry);
}
template <typename T, int how> static inline T subc(Of<T> a, Of<T> b) {
  const u64 all = (u64)a.x - b.x - carry;
  if constexpr (how & cc) carry = all >> 63;
  return (T)all;
}
template <typename T, int how> static inline T sub(Of<T> a, Of<T> b) {
  if constexpr (how & cc) {
    carry = 0;
    return subc<T, how>(a, b);
  } else {
    return sub_<T, how>(a, b);
  }
}
template <typename T, int how, typename C> static inline auto mad(Of<T> a, Of<T> b, C c) {
  const auto product = mul<T, how>(a, b);
  const auto third = Of<std::remove_const_t<decltype(product)>>(c).x;
  if constexpr (how & cc)
    return sum<T, how>(product, third, 0);
  else
    return product + third;
}
template <typename T, int how> static inline T madc(Of<T> a, Of<T> b, Of<T> c) {
  return sum<T, how>(mul<T, how>(a, b), c.x, carry);
}
template <typename T, int> static inline T shl(Of<T> a, u32 by) {
  return by < 8 * sizeof(T) ? a.x << by : 0;
}
template <typename T, int> static inline T shr(Of<T> a, u32 by) {
  return a.x >> (by < 8 * sizeof(T) ? by : 8 * sizeof(T) - 1) >> (by >= 8 * sizeof(T));
}
template <typename T, int> static inline T bfi(Of<T> a, Of<T> b, u32 start, u32 length) {
  const T mask = (length < 8 * sizeof(T) ? ((T)1 << length) - 1 : ~(T)0) << start;
  return (b.x & ~mask) | (a.x << start & mask);
}
template <typename T, int> static inline u32 clz(Of<T> a) {
  return a.x ? __builtin_clzll(a.x) - (64 - 8 * sizeof(T)) : 8 * sizeof(T);
}
template <typename T, int> static inline T prmt(Of<T> a, Of<T> b, u32 which) {
  const u64 bytes = (u64)b.x << 32 | a.x;
  T y = 0;
  for (int n = 0; n < 4; n++) {
    const u32 k = which >> 4 * n & 15;
    const u8 byte = bytes >> 8 * (k & 7);
    y |= (T)(k & 8 ? (byte >> 7) * 0xff : byte) << 8 * n;
  }
  return y;
}

// --- from type to type ---------------------------------------------------------------------------

template <typename T> static inline T nearest_whole(f64 x) {  // of those that there are
  constexpr int bits = 8 * sizeof(T) - std::is_signed_v<T>;
  if (is_nan(x)) return sizeof(T) == 8 ? (T)1 << 63 : 0;
  if (x >= __builtin_ldexp(1, bits)) return (T)(~(u64)0 >> (64 - bits));
  if (x <= (std::is_signed_v<T> ? -__builtin_ldexp(1, bits) : 0))
    return std::is_signed_v<T> ? (T)((u64)1 << bits) : 0;
  return (T)x;
}
template <typename T, typename From, int how> static inline T cvt(Of<From> a) {
  if constexpr (how & WHOLE) {  // a 64-bit number has the whole of any other
    const f64 x = flushed<From, how>(a.x);
    const f64 y = how & rni   ? __builtin_rint(x)
                  : how & rzi ? __builtin_trunc(x)
                  : how & rmi ? __builtin_floor(x)
                              : __builtin_ceil(x);
    if constexpr (std::is_floating_point_v<T>)
      return (T)y;
    else
      return nearest_whole<T>(y);
  } else {
    T y = (T)flushed<From, how>(a.x);
    if constexpr (how & sat) y = y > 0 ? (y < 1 ? y : 1) : 0;
    return flushed<T, how>(y);
  }
}
template <int how> static inline f32 of_half(f16 x) { return from_half(x); }
template <int how> static inline f16 half_of(Of<f32> x) { return to_half(flushed<f32, how>(x.x)); }

// --- memory --------------------------------------------------------------------------------------

// Addresses of shared memory: of what a launch asks for, from 0 on; of the text's arrays, from
// ARRAYS on; and of a block of the cluster, from (1 + its rank) * BLOCK on.
constexpr u32 ARRAYS = 1 << 23, BLOCK = 1 << 24;
alignas(16) static char arrays[SIZE_OF_ARRAYS + 1];

// When a thread touched a place: after how many arrivals at the cluster's barrier, how many waits
// there, and how many meetings of its block.
struct Moment {
  u32 thread = ~0u, arrived = 0, waited = 0, met = 0;
  // Whether all of it is over at another moment, in whatever order the threads may run.
  bool is_before(const Moment& x) const {
    const bool same_block = thread / blockDim.x == x.thread / blockDim.x;
    return thread == ~0u || thread == x.thread || x.waited > arrived || (same_block && x.met > met);
  }
  bool is_later(const Moment& x) const {
    return x.thread == ~0u || arrived + met >= x.arrived + x.met;
  }
};
struct Place {
  Moment written, read, read_too;  // the latest ones; read_too: by another thread than read
};
static std::vector<Place> places;    // of shared memory, each of 4 bytes
static std::vector<Moment> moments;  // the present of every thread
static unsigned known;               // clusters, up to that to which these belong

static inline Moment& now() {
  if (known != clusters) {
    places.assign((cluster * bytes_of_block + SIZE_OF_ARRAYS) / 4 + 1, {});
    moments.assign(cluster * blockDim.x, {});
    for (u32 n = 0; n < moments.size(); n++) moments[n].thread = n;
    known = clusters;
  }
  return moments[current];
}
static void touch(u32 number, bool writes, u32 address) {
  const Moment x = now();
  Place& place = places[number];
  for (const Moment* other : {&place.written, &place.read, &place.read_too})
    if ((writes || other == &place.written) && !other->is_before(x))
      refuse("a race in shared memory: threads %u and %u at %#x", other->thread, x.thread, address);
  if (writes) {
    place = {x, {}, {}};
  } else if (place.read.thread == x.thread) {
    place.read = x;
  } else if (x.is_later(place.read)) {
    place.read_too = place.read;
    place.read = x;
  } else if (place.read_too.thread == x.thread || x.is_later(place.read_too)) {
    place.read_too = x;
  }
}
template <unsigned size> static inline u64 aligned_at(u64 address) {
  if (address % size) refuse("misaligned address: %u bytes at %#jx", size, (uintmax_t)address);
  return address;
}
template <unsigned size, bool anywhere, bool writes> static inline u64 shared(u32 address) {
  static_assert(size % 4 == 0, "places have 4 bytes");
  const bool is_mine = address < BLOCK, is_array = address % BLOCK >= ARRAYS;
  const unsigned rank = is_mine ? rank_of_block() : address / BLOCK - 1;
  const unsigned offset = address % BLOCK - (is_array ? ARRAYS : 0);
  const unsigned end = is_array ? SIZE_OF_ARRAYS : bytes_of_block;
  if (!(is_mine || anywhere) || rank >= cluster || offset + size > end)
    refuse("outside of shared memory: %u bytes at %#x", size, address);
  const u64 place = aligned_at<size>((u64)(is_array ? arrays : memory_of_block[rank]) + offset);
  const u32 first = (is_array ? cluster * bytes_of_block : rank * bytes_of_block) + offset;
  for (u32 n = 0; n < size; n += 4) touch((first + n) / 4, writes, address + n);
  return place;
}
template <typename T, typename... R> static inline void ld(u64 place, R&... to) {
  const T* from = (const T*)place;
  (put(to, *from++), ...);
}
template <typename T, typename... R> static inline void st(u64 place, R... given) {
  T* to = (T*)place;
  ((*to++ = Of<T>(given).x), ...);
}
template <typename T, int> static inline T mapa(u32 address, u32 rank) {
  return address + (rank + 1) * BLOCK;
}
template <typename T, int> static inline T cvta(u64 address) { return address; }
template <typename T, typename... R> static inline T packed(R... parts) {
  T y = 0;
  unsigned bits = 0;
  ((y |= (T)parts << bits, bits += 8 * sizeof(R)), ...);
  return y;
}
template <typename T, typename... R> static inline void unpack(Of<T> a, R&... parts) {
  unsigned bits = 0;
  ((parts = a.x >> bits, bits += 8 * sizeof(R)), ...);
}

// --- threads -------------------------------------------------------------------------------------

#define tid_x_ (threadIdx.x)
#define ctaid_x_ (blockIdx.x)
#define ntid_x_ (blockDim.x)
#define nctaid_x_ (gridDim.x)
#define cluster_ctarank_ (rank_of_block())
static inline void bar() {
  __syncthreads();
  now().met++;
}
static inline void barrier_arrive() {
  now().arrived++;
  arrive();
}
static inline void barrier_wait() {
  wait_for_all();
  now().waited++;
}
template <typename T, int> static inline T shfl_bfly(Of<T> x, u32 distance, u32 clamp, u32 mask) {
  if (clamp != 31 || mask != ~0u) refuse("a shuffle without all lanes: %u, mask %#x", clamp, mask);
  return __shfl_xor_sync(mask, x.x, distance);
}

}  // namespace ptx
