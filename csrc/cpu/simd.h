// SPDX-License-Identifier: Apache-2.0
// One vector type at the native width of the instruction set this file is compiled for, by the
// vector extensions of GCC and Clang. Wider vectors than the machine has would be split and
// spilled; that was measured five times slower.
//
// Functions have internal linkage and types a namespace of their own: this header is compiled once
// per instruction set, and what is shared could end up as the AVX-512 copy for every caller.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define AC_INLINE static inline __attribute__((always_inline, unused))

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {

#if defined(__AVX512F__)
enum { kLanes = 16, kTileRows = 8, kTileVectors = 3 };  // 24 of 32 registers hold sums
#elif defined(__AVX2__)
enum { kLanes = 8, kTileRows = 4, kTileVectors = 3 };  // 12 of 16
#elif defined(__aarch64__)
enum { kLanes = 4, kTileRows = 8, kTileVectors = 3 };
#else
enum { kLanes = 4, kTileRows = 4, kTileVectors = 3 };
#endif

typedef float Floats __attribute__((vector_size(kLanes * 4)));
typedef int32_t Ints __attribute__((vector_size(kLanes * 4)));

AC_INLINE Floats load(const float* p) {
  Floats v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
AC_INLINE void store(float* p, Floats v) { __builtin_memcpy(p, &v, sizeof(v)); }
AC_INLINE Ints load_ints(const int32_t* p) {
  Ints v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
AC_INLINE void store_ints(int32_t* p, Ints v) { __builtin_memcpy(p, &v, sizeof(v)); }
// Minus zero and not plus: x - 0 is x for every x, so it costs nothing but the broadcast.
AC_INLINE Floats fill(float x) { return x - Floats{}; }
AC_INLINE Ints fill_ints(int32_t x) { return Ints{} + x; }
AC_INLINE Floats choose(Ints mask, Floats a, Floats b) { return mask ? a : b; }
AC_INLINE Ints bits_of(Floats v) {
  Ints b;
  __builtin_memcpy(&b, &v, sizeof(v));
  return b;
}
AC_INLINE Floats from_bits(Ints b) {
  Floats v;
  __builtin_memcpy(&v, &b, sizeof(v));
  return v;
}

// a * b + c, rounded once where the machine can. Only for sums whose rounding no digit is
// compared on across instruction sets; the recurrence multiplies and subtracts.
AC_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

// Fixed order, so that a sum does not depend on the compiler.
AC_INLINE float sum_lanes(Floats v) {
  float part[kLanes];
  store(part, v);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  }
  return part[0];
}

// exp(x) for x <= 0, to about 1 ulp; 0 below -87.
AC_INLINE Floats exp_negative(Floats x) {
  x = choose(x < fill(-87.0f), fill(-87.0f), x);
  const Floats shift = fill(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Floats n = (x * fill(1.44269504f) + shift) - shift;
  const Floats f = (x - n * fill(0.693359375f)) - n * fill(-2.12194440e-4f);
  Floats p = fill(1.9875691500e-4f);
  p = p * f + fill(1.3981999507e-3f);
  p = p * f + fill(8.3334519073e-3f);
  p = p * f + fill(4.1665795894e-2f);
  p = p * f + fill(1.6666665459e-1f);
  p = p * f + fill(5.0000001201e-1f);
  p = p * f * f + f + fill(1.0f);
  const Ints power = __builtin_convertvector(n, Ints) << 23;
  return from_bits(bits_of(p) + power);
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define AC_HAS_SHUFFLE 1
#endif
#endif

#if defined(AC_HAS_SHUFFLE)
template <int S, size_t... I>
AC_INLINE Floats swap_low(Floats a, Floats b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, ((I & S) ? kLanes + I - S : I)...);
}
template <int S, size_t... I>
AC_INLINE Floats swap_high(Floats a, Floats b, std::index_sequence<I...>) {
  return __builtin_shufflevector(a, b, ((I & S) ? kLanes + I : I + S)...);
}
template <int S>
AC_INLINE void swap_step(Floats* rows) {
  using Lanes = std::make_index_sequence<kLanes>;
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (i & S) continue;
    const Floats a = rows[i], b = rows[i + S];
    rows[i] = swap_low<S>(a, b, Lanes{});
    rows[i + S] = swap_high<S>(a, b, Lanes{});
  }
}
template <int S>
AC_INLINE void swap_steps(Floats* rows) {
  if constexpr (S < kLanes) {
    swap_step<S>(rows);
    swap_steps<2 * S>(rows);
  }
}
#endif

// dst[j][i] = src[i][j] for rows x columns; every leading dimension and both arrays must have room
// for whole vectors.
AC_INLINE void transpose(const float* src, ptrdiff_t ld_src, int rows, int columns, float* dst,
                         ptrdiff_t ld_dst) {
#if defined(AC_HAS_SHUFFLE)
  for (int i = 0; i < rows; i += kLanes) {
    for (int j = 0; j < columns; j += kLanes) {
      Floats v[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) v[r] = load(src + (i + r) * ld_src + j);
      swap_steps<1>(v);
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) store(dst + (j + r) * ld_dst + i, v[r]);
    }
  }
#else
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) dst[j * ld_dst + i] = src[i * ld_src + j];
  }
#endif
}

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
