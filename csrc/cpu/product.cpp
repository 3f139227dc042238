// SPDX-License-Identifier: Apache-2.0
// The tiles of the product, held in registers.
#include "product.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {
namespace {

enum class Fetch { kNothing, kToRead, kToWrite };

// What is asked for, and how much of it at each step.
struct Asked {
  Ask ask;
  int64_t each;
};

template <Fetch kFetch>
AC_INLINE void fetch_some(Asked* asked) {
  Ask& ask = asked->ask;
  for (int64_t i = 0; i < asked->each && ask.next != ask.end; ++i) {
    const void* p = reinterpret_cast<const void*>(*ask.next++);
    if (kFetch == Fetch::kToWrite) {
      __builtin_prefetch(p, 1, 3);
    } else {
      __builtin_prefetch(p, 0, 2);
    }
  }
}

template <int R, int V, bool Unit, Fetch kFetch>
AC_INLINE void tile(const Rows& a, int row, ptrdiff_t element, const float* b, ptrdiff_t ld_b,
                    int depth, float* c, ptrdiff_t ld_c, Start start, Asked* asked) {
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
    if (kFetch != Fetch::kNothing) fetch_some<kFetch>(asked);
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

template <int V, bool Unit, Fetch kFetch>
AC_INLINE void panel(const Rows& a, int rows, ptrdiff_t element, const float* b, ptrdiff_t ld_b,
                     int depth, float* c, ptrdiff_t ld_c, Start start, Asked* asked) {
  constexpr Fetch kNone = Fetch::kNothing;
  int i = 0;
  for (; i + kTileRows <= rows; i += kTileRows) {
    tile<kTileRows, V, Unit, kFetch>(a, i, element, b, ld_b, depth, c + i * ld_c, ld_c, start,
                                     asked);
  }
  if (kTileRows > 4 && i + 4 <= rows) {
    tile<4, V, Unit, kNone>(a, i, element, b, ld_b, depth, c + i * ld_c, ld_c, start, asked);
    i += 4;
  }
  for (; i < rows; ++i) {
    tile<1, V, Unit, kNone>(a, i, element, b, ld_b, depth, c + i * ld_c, ld_c, start, asked);
  }
}

template <bool Unit, Fetch kFetch>
static void product_steps(const Rows& a, int rows, ptrdiff_t element, const float* b,
                          ptrdiff_t ld_b, int vectors, int depth, float* c, ptrdiff_t ld_c,
                          Start start, Asked* asked) {
  constexpr Fetch kNone = Fetch::kNothing;
  int v = 0;
  for (; v + kTileVectors <= vectors; v += kTileVectors) {
    panel<kTileVectors, Unit, kFetch>(a, rows, element, b + v * kLanes, ld_b, depth, c + v * kLanes,
                                      ld_c, start, asked);
  }
  switch (vectors - v) {
    case 2:
      panel<2, Unit, kNone>(a, rows, element, b + v * kLanes, ld_b, depth, c + v * kLanes, ld_c,
                            start, asked);
      break;
    case 1:
      panel<1, Unit, kNone>(a, rows, element, b + v * kLanes, ld_b, depth, c + v * kLanes, ld_c,
                            start, asked);
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
             int vectors, int depth, float* c, ptrdiff_t ld_c, Start start, Ask ask) {
  const int64_t steps = int64_t{rows / kTileRows} * (vectors / kTileVectors) * depth;
  const int64_t lines = ask.end - ask.next;
  Asked asked{ask, steps ? (lines + steps - 1) / steps : 0};
  if (element == 1 && lines && ask.written) {
    product_steps<true, Fetch::kToWrite>(a, rows, element, b, ld_b, vectors, depth, c, ld_c, start,
                                         &asked);
  } else if (element == 1 && lines) {
    product_steps<true, Fetch::kToRead>(a, rows, element, b, ld_b, vectors, depth, c, ld_c, start,
                                        &asked);
  } else if (element == 1) {
    product_steps<true, Fetch::kNothing>(a, rows, element, b, ld_b, vectors, depth, c, ld_c, start,
                                         &asked);
  } else {
    product_steps<false, Fetch::kNothing>(a, rows, element, b, ld_b, vectors, depth, c, ld_c, start,
                                          &asked);
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
