// SPDX-License-Identifier: Apache-2.0
// The seam for tensor cores: one instruction, and its portable twin for the host shim, which is
// written from the layout that the PTX manual gives for mma.m16n8k16.
//
// With group = lane / 4 and pair = lane % 4, a lane holds
//   A [16][16]: words (group, 2 pair), (group + 8, 2 pair), (group, 2 pair + 8), (group + 8, 2 pair
//   + 8) B [16][8]:  words (2 pair, group), (2 pair + 8, group) C [16][8]:  (group, 2 pair),
//   (group, 2 pair + 1), (group + 8, 2 pair), (group + 8, 2 pair + 1)
// where a word is two bfloat16 at neighbouring depths, the first one in its low half.
#pragma once

#include "device.cuh"

namespace affectcodec {
namespace cuda {

// c += A B, sums in float32.
AFFECTCODEC_DEVICE void multiply_matrix(float (&c)[4], const uint4& a, uint32_t b0, uint32_t b1) {
#if defined(__CUDA_ARCH__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
#elif defined(__CUDACC__)
  (void)c, (void)a, (void)b0, (void)b1;  // host pass of nvcc: never called
#else
  struct Held {
    uint32_t a[4], b[2];
  } mine{{a.x, a.y, a.z, a.w}, {b0, b1}};
  const unsigned char* all = simt::exchange("mma", 0xffffffffu, &mine, sizeof(mine), SIMT_SITE);
  const auto half = [](uint32_t word, int which) {
    return float_of(which == 0 ? word << 16 : word & 0xffff0000u);
  };
  const int lane = simt::lane();
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    double sum = 0.0;
    for (int k = 0; k < 16; ++k) {
      const int pair = k % 8 / 2;
      Held of_a, of_b;
      memcpy(&of_a, all + (row % 8 * 4 + pair) * simt::kMaxExchange, sizeof(Held));
      memcpy(&of_b, all + (column * 4 + pair) * simt::kMaxExchange, sizeof(Held));
      const float x = half(of_a.a[k / 8 * 2 + row / 8], k % 2);
      const float y = half(of_b.b[k / 8], k % 2);
      sum += static_cast<double>(x) * static_cast<double>(y);
    }
    c[i] = static_cast<float>(static_cast<double>(c[i]) + sum);
  }
#endif
}

// A float as the sum of two bfloat16, to about 2^-17 of its size.
struct Split {
  uint16_t high, low;
};

AFFECTCODEC_DEVICE Split split_of(float x) {
  const BFloat16 high = narrow<BFloat16>(x);
  return Split{high.bits, narrow<BFloat16>(x - widen(high)).bits};
}

}  // namespace cuda
}  // namespace affectcodec
