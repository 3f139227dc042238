// SPDX-License-Identifier: Apache-2.0
// Vectors of either precision, and the functions the networks need, written out so that a number
// depends on nothing but its input: no libm, no approximation that differs with the lane.
//
// The coefficients are minimax fits made for this file (weighted least squares on Chebyshev nodes);
// the errors stated are of the whole function in its own arithmetic.
#pragma once

#include "../cpu/simd.h"

namespace affectcodec {
namespace runtime {
namespace {

namespace isa = cpu::AFFECTCODEC_ISA;

using isa::choose;
using isa::fill;
using isa::fill_ints;
using isa::Floats;
using isa::Ints;
using isa::kLanes;

enum { kWide = kLanes / 2 };  // float64 lanes

typedef double Doubles __attribute__((vector_size(kLanes * 4)));
typedef int64_t Longs __attribute__((vector_size(kLanes * 4)));
typedef uint64_t UnsignedLongs __attribute__((vector_size(kLanes * 4)));

template <typename T>
struct Vector;
template <>
struct Vector<float> {
  typedef Floats type;
  enum { lanes = kLanes };
};
template <>
struct Vector<double> {
  typedef Doubles type;
  enum { lanes = kWide };
};
template <typename T>
using VectorOf = typename Vector<T>::type;

AC_INLINE Floats load_of(const float* p) { return isa::load(p); }
AC_INLINE Doubles load_of(const double* p) {
  Doubles v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
AC_INLINE void store_to(float* p, Floats v) { isa::store(p, v); }
AC_INLINE void store_to(double* p, Doubles v) { __builtin_memcpy(p, &v, sizeof(v)); }
AC_INLINE Floats fill_of(float x) { return fill(x); }
AC_INLINE Doubles fill_of(double x) { return x - Doubles{}; }

AC_INLINE Floats fused(Floats a, Floats b, Floats c) { return isa::multiply_add(a, b, c); }
AC_INLINE Doubles fused(Doubles a, Doubles b, Doubles c) {
#if defined(__AVX512F__)
  return (Doubles)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX2__)
  return (Doubles)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__)
  return (Doubles)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
  return a * b + c;
#endif
}

// Half a vector of float32 in float64.
typedef float HalfFloats __attribute__((vector_size(kLanes * 2)));
AC_INLINE Doubles widen(HalfFloats v) { return __builtin_convertvector(v, Doubles); }

// Fixed order, so that a sum does not depend on the compiler.
template <typename T>
AC_INLINE T sum_of(VectorOf<T> v) {
  T part[Vector<T>::lanes];
  store_to(part, v);
  for (int width = Vector<T>::lanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  }
  return part[0];
}

// exp(x) to 2 ulp, x cut to [-87, 88].
AC_INLINE Floats exp_of(Floats x) {
  x = choose((Ints)(x < fill(-87.0f)), fill(-87.0f), x);
  x = choose((Ints)(x > fill(88.0f)), fill(88.0f), x);
  const Floats shift = fill(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Floats n = (x * fill(1.44269504f) + shift) - shift;
  const Floats f = (x - n * fill(0.693359375f)) - n * fill(-2.12194440e-4f);
  Floats p = fill(0.0013950523f);
  p = fused(p, f, fill(0.00836890843f));
  p = fused(p, f, fill(0.041666206f));
  p = fused(p, f, fill(0.166665182f));
  p = fused(p, f, fill(0.5f));
  p = fused(p * f, f, f) + fill(1.0f);
  const Ints power = __builtin_convertvector(n, Ints) << 23;
  return isa::from_bits(isa::bits_of(p) + power);
}

// log(x) to 5e-16 beside the rounding of the result, for normal positive x: the exponent, and
// 2 atanh(f / (2 + f)) of the mantissa 1 + f by its series.
AC_INLINE Doubles log_of(Doubles x) {
  const int64_t root = 0x3fe6a09e667f3bcd;  // sqrt(1/2): the mantissa lies in [sqrt(1/2), sqrt(2))
  Longs bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  bits = bits + (0x3ff0000000000000 - root);
  // As in sin_of_turns: an integer below 2^52 as a number.
  const Longs exponent = (Longs)((UnsignedLongs)bits >> 52) | (Longs{} + 0x4330000000000000);
  const Longs mantissa = (bits & 0x000fffffffffffff) + root;
  Doubles e, f;
  __builtin_memcpy(&e, &exponent, sizeof(e));
  __builtin_memcpy(&f, &mantissa, sizeof(f));
  e = e - fill_of(4503599627371519.0);  // 2^52 + 1023
  f = f - fill_of(1.0);
  const Doubles s = f / (f + fill_of(2.0)), z = s * s;
  Doubles p = fill_of(1.0 / 17.0);
  p = fused(p, z, fill_of(1.0 / 15.0));
  p = fused(p, z, fill_of(1.0 / 13.0));
  p = fused(p, z, fill_of(1.0 / 11.0));
  p = fused(p, z, fill_of(1.0 / 9.0));
  p = fused(p, z, fill_of(1.0 / 7.0));
  p = fused(p, z, fill_of(1.0 / 5.0));
  p = fused(p, z, fill_of(1.0 / 3.0));
  const Doubles twice = s + s;
  return fused(e, fill_of(0.69314718055994531), fused(twice * z, p, twice));
}

// erf(x) to 1.6e-7: a polynomial below 1, 1 - exp(-q(x)) above.
AC_INLINE Floats erf_of(Floats x) {
  Floats z = choose((Ints)(x < Floats{}), -x, x);
  z = choose((Ints)(z > fill(4.0f)), fill(4.0f), z);
  const Floats s = z * z, c = z - fill(2.5f);
  Floats p = fill(7.64711804e-05f);
  p = fused(p, s, fill(-0.000794235617f));
  p = fused(p, s, fill(0.00517974934f));
  p = fused(p, s, fill(-0.0268485919f));
  p = fused(p, s, fill(0.112834305f));
  p = fused(p, s, fill(-0.376126051f));
  p = fused(p, s, fill(1.12837911f));
  Floats q = fill(2.1686812e-05f);
  q = fused(q, c, fill(-6.18167032e-05f));
  q = fused(q, c, fill(0.000430914894f));
  q = fused(q, c, fill(-0.0021665229f));
  q = fused(q, c, fill(0.0108534992f));
  q = fused(q, c, fill(0.943891823f));
  q = fused(q, c, fill(5.35268068f));
  q = fused(q, c, fill(7.80681515f));
  const Floats size = choose((Ints)(z < fill(1.0f)), z * p, fill(1.0f) - exp_of(-q));
  const Floats signed_size = choose((Ints)(x < Floats{}), -size, size);
  return choose((Ints)(x == x), signed_size, x);
}

// erf(x) to 3e-11, a rational function of x^2.
AC_INLINE Doubles erf_of(Doubles x) {
  const Doubles limit = fill_of(5.0);
  Doubles z = x > limit ? limit : x;
  z = z < -limit ? -limit : z;
  const Doubles s = z * z;
  Doubles p = fill_of(2.220884750839716e-12);
  p = fused(p, s, fill_of(4.6935340790372914e-10));
  p = fused(p, s, fill_of(-1.6665150149436364e-08));
  p = fused(p, s, fill_of(2.7270751943204754e-08));
  p = fused(p, s, fill_of(3.9797172268697408e-06));
  p = fused(p, s, fill_of(0.00034011504957961916));
  p = fused(p, s, fill_of(0.0028289777153755816));
  p = fused(p, s, fill_of(0.050852466525240232));
  p = fused(p, s, fill_of(0.15782759319378514));
  p = fused(p, s, fill_of(1.1283791667927587));
  Doubles q = fill_of(5.6467832329937152e-11);
  q = fused(q, s, fill_of(2.9863664220723788e-10));
  q = fused(q, s, fill_of(-7.7437546807527121e-08));
  q = fused(q, s, fill_of(7.8812782246346058e-07));
  q = fused(q, s, fill_of(5.1432250400546291e-05));
  q = fused(q, s, fill_of(0.0010796225203430214));
  q = fused(q, s, fill_of(0.013263342005605963));
  q = fused(q, s, fill_of(0.10280165113776904));
  q = fused(q, s, fill_of(0.47320439082051835));
  q = fused(q, s, fill_of(1.0));
  return z * p / q;
}

AC_INLINE Floats gelu_of(Floats x) {
  return fill(0.5f) * x * (fill(1.0f) + erf_of(x * fill(0.707106781f)));
}
AC_INLINE Doubles gelu_of(Doubles x) {
  return fill_of(0.5) * x * (fill_of(1.0) + erf_of(x * fill_of(0.70710678118654752)));
}

AC_INLINE Floats tanh_of(Floats x) {
  const Floats one = fill(1.0f);
  const Floats size = choose((Ints)(x < Floats{}), -x, x);
  const Floats e = exp_of(size * fill(-2.0f));
  const Floats t = (one - e) / (one + e);
  const Floats signed_t = choose((Ints)(x < Floats{}), -t, t);
  return choose((Ints)(x == x), signed_t, x);
}

// sin(pi t / 2^32) to 4e-16 for 0 <= t < 2^33; the angle is folded as an integer, without rounding.
AC_INLINE Doubles sin_of_turns(Longs t) {
  const Longs half = Longs{} + (int64_t{1} << 32);
  const Longs negative = t >= half;
  t = negative ? t - half : t;
  t = t > (half >> 1) ? half - t : t;
  // At most 2^31: such integers are what an addition to 2^52 leaves in the mantissa.
  const Longs magic = Longs{} + 0x4330000000000000;
  Longs joined = t | magic;
  Doubles x;
  __builtin_memcpy(&x, &joined, sizeof(x));
  x = (x - fill_of(4503599627370496.0)) * fill_of(7.314590396335798e-10);  // pi / 2^32
  const Doubles s = x * x;
  Doubles p = fill_of(2.2791933463897284e-15);
  p = fused(p, s, fill_of(-7.6003827698552243e-13));
  p = fused(p, s, fill_of(1.6057285605390802e-10));
  p = fused(p, s, fill_of(-2.5052074049499833e-08));
  p = fused(p, s, fill_of(2.7557318865525399e-06));
  p = fused(p, s, fill_of(-0.00019841269839447373));
  p = fused(p, s, fill_of(0.0083333333333303582));
  p = fused(p, s, fill_of(-0.16666666666666707));
  const Doubles y = fused(x * s, p, x);
  return negative ? -y : y;
}

}  // namespace
}  // namespace runtime
}  // namespace affectcodec
