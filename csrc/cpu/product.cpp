// SPDX-License-Identifier: Apache-2.0
// The tiles of the product, held in registers.
#include "product.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {
namespace {

template <int R, int V, bool Unit>
AC_INLINE void tile(const Rows& a, int row, ptrdiff_t element, const float* b, ptrdiff_t ld_b,
                    int depth, float* c, ptrdiff_t ld_c, Start start) {
  Floats sum[R][V];
  const float* p[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    p[r] = a.at(row + r);
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      sum[r][v] = start == Start::kContinue ? load(c + r * ld_c + v * kLanes) : Floats{};
    }
  }
  ptrdiff_t at = 0;
#pragma GCC unroll 2
  for (int k = 0; k < depth; ++k) {
    Floats w[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) w[v] = load(b + v * kLanes);
    b += ld_b;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Floats x = fill(p[r][Unit ? k : at]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = multiply_add(x, w[v], sum[r][v]);
    }
    if (!Unit) at += element;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      float* to = c + r * ld_c + v * kLanes;
      store(to, start == Start::kAdd ? load(to) + sum[r][v] : sum[r][v]);
    }
  }
}

template <int V, bool Unit>
AC_INLINE void panel(const Rows& a, int rows, ptrdiff_t element, const float* b, ptrdiff_t ld_b,
                     int depth, float* c, ptrdiff_t ld_c, Start start) {
  int i = 0;
  for (; i + kTileRows <= rows; i += kTileRows) {
    tile<kTileRows, V, Unit>(a, i, element, b, ld_b, depth, c + i * ld_c, ld_c, start);
  }
  if (kTileRows > 4 && i + 4 <= rows) {
    tile<4, V, Unit>(a, i, element, b, ld_b, depth, c + i * ld_c, ld_c, start);
    i += 4;
  }
  for (; i < rows; ++i) {
    tile<1, V, Unit>(a, i, element, b, ld_b, depth, c + i * ld_c, ld_c, start);
  }
}

template <bool Unit>
static void product_steps(const Rows& a, int rows, ptrdiff_t element, const float* b,
                          ptrdiff_t ld_b, int vectors, int depth, float* c, ptrdiff_t ld_c,
                          Start start) {
  int v = 0;
  for (; v + kTileVectors <= vectors; v += kTileVectors) {
    panel<kTileVectors, Unit>(a, rows, element, b + v * kLanes, ld_b, depth, c + v * kLanes, ld_c,
                              start);
  }
  switch (vectors - v) {
    case 2:
      panel<2, Unit>(a, rows, element, b + v * kLanes, ld_b, depth, c + v * kLanes, ld_c, start);
      break;
    case 1:
      panel<1, Unit>(a, rows, element, b + v * kLanes, ld_b, depth, c + v * kLanes, ld_c, start);
      break;
    default:
      break;
  }
}

// One row of C from R neighbouring chunks of `depth` each, every one a chain of its own, added up
// in order. A single row is a single chain otherwise, and waits for each of its additions.
template <int R, int V>
AC_INLINE void chain_tile(const float* a, const float* b, ptrdiff_t ld_b, int depth, float* c,
                          bool add) {
  const ptrdiff_t step = depth * ld_b;
  Floats sum[R][V] = {};
  for (int k = 0; k < depth; ++k, b += ld_b) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const Floats x = fill(a[r * depth + k]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        sum[r][v] = multiply_add(x, load(b + r * step + v * kLanes), sum[r][v]);
      }
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    Floats total = add ? load(c + v * kLanes) + sum[0][v] : sum[0][v];
#pragma GCC unroll 4
    for (int r = 1; r < R; ++r) total = total + sum[r][v];
    store(c + v * kLanes, total);
  }
}

template <int R>
AC_INLINE void chain_row(const float* a, const float* b, ptrdiff_t ld_b, int vectors, int depth,
                         float* c, bool add) {
  int v = 0;
  for (; v + 3 <= vectors; v += 3) {
    chain_tile<R, 3>(a, b + v * kLanes, ld_b, depth, c + v * kLanes, add);
  }
  if (vectors - v == 2) chain_tile<R, 2>(a, b + v * kLanes, ld_b, depth, c + v * kLanes, add);
  if (vectors - v == 1) chain_tile<R, 1>(a, b + v * kLanes, ld_b, depth, c + v * kLanes, add);
}

}  // namespace

void product(const Rows& a, int rows, ptrdiff_t element, const float* b, ptrdiff_t ld_b,
             int vectors, int depth, float* c, ptrdiff_t ld_c, Start start) {
  if (element == 1) {
    product_steps<true>(a, rows, element, b, ld_b, vectors, depth, c, ld_c, start);
  } else {
    product_steps<false>(a, rows, element, b, ld_b, vectors, depth, c, ld_c, start);
  }
}

void product_row(const float* a, const float* b, ptrdiff_t ld_b, int vectors, int depth,
                 int64_t chunks, float* c) {
  int64_t i = 0;
  for (; i + 4 <= chunks; i += 4) {
    chain_row<4>(a + i * depth, b + i * depth * ld_b, ld_b, vectors, depth, c, i > 0);
  }
  if (i + 2 <= chunks) {
    chain_row<2>(a + i * depth, b + i * depth * ld_b, ld_b, vectors, depth, c, i > 0);
    i += 2;
  }
  if (i < chunks) {
    chain_row<1>(a + i * depth, b + i * depth * ld_b, ld_b, vectors, depth, c, i > 0);
  }
}

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
