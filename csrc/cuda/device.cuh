// SPDX-License-Identifier: Apache-2.0
// The seam between a kernel and what runs it: nvcc, or g++ with the host shim of csrc/simt. Nothing
// else in this folder asks which of the two it is.
#pragma once

#include <stdint.h>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define AFFECTCODEC_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define AFFECTCODEC_DEVICE __device__ __forceinline__
#else
#include "../simt/simt.h"
#define AFFECTCODEC_DYNAMIC_SHARED(name) unsigned char* const name = simt::dynamic_shared()
#define AFFECTCODEC_DEVICE inline
#endif

namespace affectcodec {
namespace cuda {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

AFFECTCODEC_DEVICE float float_of(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  memcpy(&value, &bits, 4);
  return value;
#endif
}
AFFECTCODEC_DEVICE uint32_t bits_of(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
#endif
}

AFFECTCODEC_DEVICE float widen(float x) { return x; }
AFFECTCODEC_DEVICE float widen(BFloat16 x) { return float_of(static_cast<uint32_t>(x.bits) << 16); }
AFFECTCODEC_DEVICE float widen(Float16 x) {
#if defined(__CUDA_ARCH__)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
#elif defined(__CUDACC__)
  (void)x;
  return 0.0f;  // host pass of nvcc: never called
#else
  _Float16 half;
  memcpy(&half, &x.bits, 2);
  return static_cast<float>(half);
#endif
}

template <typename T>
AFFECTCODEC_DEVICE T narrow(float x);
template <>
AFFECTCODEC_DEVICE float narrow<float>(float x) {
  return x;
}
// To nearest, ties to even, NaN stays NaN.
template <>
AFFECTCODEC_DEVICE BFloat16 narrow<BFloat16>(float x) {
  BFloat16 y;
#if defined(__CUDA_ARCH__)
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#else
  const uint32_t bits = bits_of(x);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  y.bits = static_cast<uint16_t>(x == x ? rounded : 0x7fffu);
#endif
  return y;
}
template <>
AFFECTCODEC_DEVICE Float16 narrow<Float16>(float x) {
  Float16 y;
#if defined(__CUDA_ARCH__)
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#elif defined(__CUDACC__)
  y.bits = 0;
  (void)x;
#else
  const _Float16 half = static_cast<_Float16>(x);
  memcpy(&y.bits, &half, 2);
#endif
  return y;
}

// 16 bytes at once.
AFFECTCODEC_DEVICE uint4 load_wide(const void* p) { return *static_cast<const uint4*>(p); }
AFFECTCODEC_DEVICE void store_wide(void* p, uint4 v) { *static_cast<uint4*>(p) = v; }
AFFECTCODEC_DEVICE float4 load_floats(const float* p) {
  return *reinterpret_cast<const float4*>(p);
}
AFFECTCODEC_DEVICE float4 make_floats(float x, float y, float z, float w) {
  float4 v;
  v.x = x;
  v.y = y;
  v.z = z;
  v.w = w;
  return v;
}
AFFECTCODEC_DEVICE uint4 make_words(uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
  uint4 v;
  v.x = x;
  v.y = y;
  v.z = z;
  v.w = w;
  return v;
}

// A product that is rounded, then a difference that is rounded: what the recurrence is defined by,
// whatever the compiler thinks of contraction.
AFFECTCODEC_DEVICE float subtract_product(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fsub_rn(a, __fmul_rn(b, c));
#else
  return a - b * c;
#endif
}

}  // namespace cuda
}  // namespace affectcodec
