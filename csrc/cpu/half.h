// SPDX-License-Identifier: Apache-2.0
// bfloat16 and float16 in memory, float32 in registers.
#pragma once

#include "simd.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

AC_INLINE float bit_cast_float(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}
AC_INLINE uint32_t bit_cast_word(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  return bits;
}

AC_INLINE float widen(float x) { return x; }
AC_INLINE float widen(BFloat16 x) { return bit_cast_float(static_cast<uint32_t>(x.bits) << 16); }
// Without branches, so that a loop of it becomes vectors on every machine.
AC_INLINE float widen(Float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t rest = static_cast<uint32_t>(x.bits & 0x7fffu) << 13;
  const float normal = bit_cast_float(rest + (uint32_t{112} << 23));
  // Subnormals: the exponent of 2^-14 is put in and its value taken away again, which is exact.
  const float small = bit_cast_float(rest + (uint32_t{113} << 23)) - bit_cast_float(113u << 23);
  const float special = bit_cast_float(rest | 0x7f800000u);
  const float size = rest < (1u << 23) ? small : rest >= (31u << 23) ? special : normal;
  return bit_cast_float(bit_cast_word(size) | sign);
}

AC_INLINE void narrow(float x, float* to) { *to = x; }
AC_INLINE void narrow(float x, BFloat16* to) {
  const uint32_t bits = bit_cast_word(x);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  to->bits = static_cast<uint16_t>(x == x ? rounded : 0x7fc0u);
}
AC_INLINE void narrow(float x, Float16* to) {
  const uint32_t bits = bit_cast_word(x);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t size = bits & 0x7fffffffu;
  // Round to nearest even by an addition whose carry runs into the exponent.
  const uint32_t normal = (size - (112u << 23) + 0xfffu + (size >> 13 & 1u)) >> 13;
  // Below 2^-14 the half's unit is 2^-24; adding 0.5 leaves the sum in just that unit.
  const uint32_t small = bit_cast_word(bit_cast_float(size) + 0.5f) - bit_cast_word(0.5f);
  uint32_t half = size < (113u << 23) ? small : normal;
  half = size >= 0x477ff000u ? 0x7c00u : half;  // 65520 and above
  half = size > 0x7f800000u ? 0x7e00u : half;
  to->bits = static_cast<uint16_t>(half | sign);
}

// The same for as many whole vectors as there are, by the instructions of the machine where it has
// some; how many values were done.
template <typename T>
AC_INLINE int widen_vectors(const T*, int, float*) {
  return 0;
}
template <typename T>
AC_INLINE int narrow_vectors(const float*, int, T*) {
  return 0;
}
#if defined(__AVX512F__)
// Masked, though every lane is taken: GCC warns of the unmasked ones.
enum : __mmask16 { kAll = 0xffff };
AC_INLINE int widen_vectors(const Float16* from, int count, float* to) {
  int i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    _mm512_storeu_ps(to + i, _mm512_maskz_cvtph_ps(kAll, half));
  }
  return i;
}
AC_INLINE int narrow_vectors(const float* from, int count, Float16* to) {
  int i = 0;
  for (; i + 16 <= count; i += 16) {
    const __m256i half =
        _mm512_maskz_cvtps_ph(kAll, _mm512_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), half);
  }
  return i;
}
#elif defined(__F16C__)
AC_INLINE int widen_vectors(const Float16* from, int count, float* to) {
  int i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm256_storeu_ps(to + i, _mm256_cvtph_ps(half));
  }
  return i;
}
AC_INLINE int narrow_vectors(const float* from, int count, Float16* to) {
  int i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), half);
  }
  return i;
}
#endif

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
