// SPDX-License-Identifier: Apache-2.0
// The one matrix product that every kernel here is made of: C = A B with A read by scalars and B by
// vectors. Rows of A may lie anywhere, and its elements at any step, so frames and channels can
// take either role.
//
// An element of C is one chain of multiply-adds over the depth, in order. It does not depend on the
// tile it fell into, hence not on the number of frames beside it.
#pragma once

#include "simd.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {

// Row i starts at list[i], or at base + i * step where there is no list.
struct Rows {
  const float* base;
  ptrdiff_t step;
  const float* const* list;

  const float* at(int i) const { return list ? list[i] : base + i * step; }
};

AC_INLINE Rows rows_at(const float* base, ptrdiff_t step) { return Rows{base, step, nullptr}; }

enum class Start {
  kZero,      // C = sum
  kAdd,       // C += sum
  kContinue,  // the chain goes on from C
};

AC_INLINE int vectors_for(int64_t count) { return static_cast<int>((count + kLanes - 1) / kLanes); }

// Addresses to prefetch meanwhile, a few at each step of the product: many at once would keep its
// own reads waiting.
struct Ask {
  const uintptr_t *next = nullptr, *end = nullptr;
  bool written = false;  // they will be written
};

// C [rows][vectors * kLanes] from A [rows][depth] and B [depth][vectors * kLanes]. `element` is the
// step between neighbours of a row of A. B and C need room for whole vectors.
void product(const Rows& a, int rows, ptrdiff_t element, const float* b, ptrdiff_t ld_b,
             int vectors, int depth, float* c, ptrdiff_t ld_c, Start start, Ask ask = {});

// What `product` makes of one row, chunk after chunk, for `chunks` whole ones: the same sums in the
// same order. b is [chunks * depth][ld_b].
void product_row(const float* a, const float* b, ptrdiff_t ld_b, int vectors, int depth,
                 int64_t chunks, float* c);

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
