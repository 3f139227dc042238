// SPDX-License-Identifier: Apache-2.0
// Layers of the causal networks on rows of features [rows][padded channels].
//
// An output is one chain of multiply-adds over at most `depth` inputs, chain after chain. Its order
// follows from the layer alone: neither the number of rows nor the tile a row falls into moves it.
// Short chains round less: the sum that a term is added to has not grown far yet.
#pragma once

#include "math.h"
#include "network.h"

namespace affectcodec {
namespace runtime {
namespace {

// Rows and vectors of a tile of sums, by the number of registers.
#if defined(__AVX512F__)
enum { kTileRows = 8, kTileVectors = 3 };
#elif defined(__AVX2__)
enum { kTileRows = 4, kTileVectors = 3 };
#elif defined(__aarch64__)
enum { kTileRows = 8, kTileVectors = 3 };
#else
enum { kTileRows = 4, kTileVectors = 3 };
#endif

AC_INLINE Floats load_weight(const float* p) { return load_of(p); }
AC_INLINE Doubles load_weight(const double* p) { return load_of(p); }

// Two weights in bfloat16 that meet neighbouring inputs: the first in the low half.
struct HalfPair {
  uint32_t bits;
};
typedef uint32_t Words __attribute__((vector_size(kLanes * 4)));
AC_INLINE Words load_pair(const HalfPair* p) {
  Words w;
  __builtin_memcpy(&w, p, sizeof(w));
  return w;
}
AC_INLINE Floats floats_of(Words w) {
  Floats v;
  __builtin_memcpy(&v, &w, sizeof(v));
  return v;
}

// sum[r][v] += x[r][k] * weight[k][v] for all k in order.
template <int R, int V, typename T>
AC_INLINE void accumulate(const T* x, ptrdiff_t ld_x, const T* w, int depth,
                          VectorOf<T> (&sum)[R][V]) {
  typedef VectorOf<T> Vec;
  enum { lanes = Vector<T>::lanes };
#pragma GCC unroll 2
  for (int k = 0; k < depth; ++k, w += V * lanes) {
    Vec weight[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) weight[v] = load_weight(w + v * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec a = fill_of(x[r * ld_x + k]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = fused(a, weight[v], sum[r][v]);
    }
  }
}

template <int R, int V>
AC_INLINE void accumulate(const float* x, ptrdiff_t ld_x, const HalfPair* w, int depth,
                          Floats (&sum)[R][V]) {
  const Words high = Words{} + 0xffff0000u;
  int k = 0;
  for (; k + 2 <= depth; k += 2, w += V * kLanes) {
    Words pair[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) pair[v] = load_pair(w + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Floats a = fill(x[r * ld_x + k]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = fused(a, floats_of(pair[v] << 16), sum[r][v]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Floats a = fill(x[r * ld_x + k + 1]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = fused(a, floats_of(pair[v] & high), sum[r][v]);
    }
  }
  if (k < depth) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const Floats weight = floats_of(load_pair(w + v * kLanes) << 16);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) sum[r][v] = fused(fill(x[r * ld_x + k]), weight, sum[r][v]);
    }
  }
}

// Weights of `depth` inputs and `columns` outputs.
AC_INLINE ptrdiff_t packed(const HalfPair*, int depth, int columns) {
  return static_cast<ptrdiff_t>((depth + 1) / 2) * columns;
}
template <typename T>
AC_INLINE ptrdiff_t packed(const T*, int depth, int columns) {
  return static_cast<ptrdiff_t>(depth) * columns;
}

template <int R, int V, typename T, typename W>
AC_INLINE void tile(const T* x, ptrdiff_t ld_x, const W* w, int depth, T* y, ptrdiff_t ld_y,
                    const T* bias) {
  typedef VectorOf<T> Vec;
  enum { lanes = Vector<T>::lanes };
  Vec sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = Vec{};
  }
  accumulate<R, V>(x, ld_x, w, depth, sum);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      T* to = y + r * ld_y + v * lanes;
      store_to(to, sum[r][v] + load_of(bias ? bias + v * lanes : to));
    }
  }
}

template <int V, typename T, typename W>
AC_INLINE void panel(const T* x, ptrdiff_t ld_x, int rows, const W* w, int depth, T* y,
                     ptrdiff_t ld_y, const T* bias, int most) {
  // Chunk by chunk, all rows: the chunk of the weights stays near.
  for (int k = 0; k < depth; k += most) {
    const int size = depth - k < most ? depth - k : most;
    const T* add = k == 0 ? bias : nullptr;
    int r = 0;
    for (; r + kTileRows <= rows; r += kTileRows) {
      tile<kTileRows, V>(x + r * ld_x + k, ld_x, w, size, y + r * ld_y, ld_y, add);
    }
    if (kTileRows > 4 && r + 4 <= rows) {
      tile<4, V>(x + r * ld_x + k, ld_x, w, size, y + r * ld_y, ld_y, add);
      r += 4;
    }
    if (r + 2 <= rows) {
      tile<2, V>(x + r * ld_x + k, ld_x, w, size, y + r * ld_y, ld_y, add);
      r += 2;
    }
    if (r < rows) tile<1, V>(x + r * ld_x + k, ld_x, w, size, y + r * ld_y, ld_y, add);
    w += packed(w, size, V * Vector<T>::lanes);
  }
}

template <typename T, typename W>
__attribute__((noinline)) static void product(const Linear<T>& l, const W* w, const T* x,
                                              ptrdiff_t ld_x, int rows, T* y, ptrdiff_t ld_y) {
  enum { lanes = Vector<T>::lanes };
  const int vectors = static_cast<int>(padded_size(l.out)) / lanes;
  int v = 0;
  for (; v + kTileVectors <= vectors; v += kTileVectors) {
    panel<kTileVectors>(x, ld_x, rows, w, l.in, y + v * lanes, ld_y, l.bias + v * lanes, l.depth);
    w += packed(w, l.in, kTileVectors * lanes);
  }
  if (vectors - v == 2) {
    panel<2>(x, ld_x, rows, w, l.in, y + v * lanes, ld_y, l.bias + v * lanes, l.depth);
  }
  if (vectors - v == 1) {
    panel<1>(x, ld_x, rows, w, l.in, y + v * lanes, ld_y, l.bias + v * lanes, l.depth);
  }
}

// y [rows][padded out] of x [rows][in].
AC_INLINE void linear(const Linear<float>& l, const float* x, ptrdiff_t ld_x, int rows, float* y,
                      ptrdiff_t ld_y) {
  if (l.half) {
    product(l, static_cast<const HalfPair*>(l.weight), x, ld_x, rows, y, ld_y);
  } else {
    product(l, static_cast<const float*>(l.weight), x, ld_x, rows, y, ld_y);
  }
}
AC_INLINE void linear(const Linear<double>& l, const double* x, ptrdiff_t ld_x, int rows, double* y,
                      ptrdiff_t ld_y) {
  product(l, static_cast<const double*>(l.weight), x, ld_x, rows, y, ld_y);
}

// Vector v of the weights of input k, of a panel of `columns`.
AC_INLINE Floats weights_at(const float* w, int columns, int k, int v) {
  return load_of(w + static_cast<ptrdiff_t>(k) * columns + v * kLanes);
}
AC_INLINE Floats weights_at(const HalfPair* w, int columns, int k, int v) {
  const Words pair = load_pair(w + static_cast<ptrdiff_t>(k / 2) * columns + v * kLanes);
  return floats_of(k % 2 ? pair & (Words{} + 0xffff0000u) : pair << 16);
}

enum { kWideRows = kTileRows / 2 };  // a sum in float64 takes two registers

template <int R, int V, typename W>
AC_INLINE void tile_wide(const double* x, ptrdiff_t ld_x, const W* w, int depth, double* y,
                         ptrdiff_t ld_y, const float* bias) {
  Doubles sum[R][2 * V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 6
    for (int v = 0; v < 2 * V; ++v) sum[r][v] = Doubles{};
  }
#pragma GCC unroll 2
  for (int k = 0; k < depth; ++k) {
    Doubles weight[2 * V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const Floats both = weights_at(w, V * kLanes, k, v);
      HalfFloats half[2];
      __builtin_memcpy(half, &both, sizeof(half));
      weight[2 * v] = widen(half[0]);
      weight[2 * v + 1] = widen(half[1]);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Doubles a = fill_of(x[r * ld_x + k]);
#pragma GCC unroll 6
      for (int v = 0; v < 2 * V; ++v) sum[r][v] = fused(a, weight[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 6
    for (int v = 0; v < 2 * V; ++v) {
      HalfFloats add;
      __builtin_memcpy(&add, bias + v * kWide, sizeof(add));
      store_to(y + r * ld_y + v * kWide, sum[r][v] + widen(add));
    }
  }
}

template <int V, typename W>
AC_INLINE void panel_wide(const double* x, ptrdiff_t ld_x, int rows, const W* w, int depth,
                          double* y, ptrdiff_t ld_y, const float* bias) {
  int r = 0;
  for (; r + kWideRows <= rows; r += kWideRows) {
    tile_wide<kWideRows, V>(x + r * ld_x, ld_x, w, depth, y + r * ld_y, ld_y, bias);
  }
  for (; r < rows; ++r) {
    tile_wide<1, V>(x + r * ld_x, ld_x, w, depth, y + r * ld_y, ld_y, bias);
  }
}

template <typename W>
__attribute__((noinline)) static void product_wide(const Linear<float>& l, const W* w,
                                                   const double* x, ptrdiff_t ld_x, int rows,
                                                   double* y, ptrdiff_t ld_y) {
  const int vectors = static_cast<int>(padded_size(l.out)) / kLanes;
  int v = 0;
  for (; v + kTileVectors <= vectors; v += kTileVectors) {
    panel_wide<kTileVectors>(x, ld_x, rows, w, l.in, y + v * kLanes, ld_y, l.bias + v * kLanes);
    w += packed(w, l.in, kTileVectors * kLanes);
  }
  if (vectors - v == 2) {
    panel_wide<2>(x, ld_x, rows, w, l.in, y + v * kLanes, ld_y, l.bias + v * kLanes);
  }
  if (vectors - v == 1) {
    panel_wide<1>(x, ld_x, rows, w, l.in, y + v * kLanes, ld_y, l.bias + v * kLanes);
  }
}

// y [rows][padded out] of x [rows][in] in float64, the weights as they are.
AC_INLINE void linear_wide(const Linear<float>& l, const double* x, ptrdiff_t ld_x, int rows,
                           double* y, ptrdiff_t ld_y) {
  if (l.half) {
    product_wide(l, static_cast<const HalfPair*>(l.weight), x, ld_x, rows, y, ld_y);
  } else {
    product_wide(l, static_cast<const float*>(l.weight), x, ld_x, rows, y, ld_y);
  }
}

// `weight` [out][in] in the order that `product` reads.
template <typename T>
AC_INLINE void pack_panels(const float* weight, int in, int out, T* to) {
  enum { lanes = Vector<T>::lanes };
  const int columns = static_cast<int>(padded_size(out)), wide = kTileVectors * lanes;
  for (int c = 0; c < columns; c += wide) {
    const int width = columns - c < wide ? columns - c : wide;
    for (int k = 0; k < in; ++k) {
      for (int j = 0; j < width; ++j) {
        *to++ = c + j < out ? weight[static_cast<ptrdiff_t>(c + j) * in + k] : 0.0f;
      }
    }
  }
}

// The nearest bfloat16, ties to even.
AC_INLINE uint32_t half_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof(bits));
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

AC_INLINE void pack_pairs(const float* weight, int in, int out, HalfPair* to) {
  const int columns = static_cast<int>(padded_size(out)), wide = kTileVectors * kLanes;
  for (int c = 0; c < columns; c += wide) {
    const int width = columns - c < wide ? columns - c : wide;
    for (int k = 0; k < in; k += 2) {
      for (int j = 0; j < width; ++j, ++to) {
        const float* from = weight + static_cast<ptrdiff_t>(c + j) * in + k;
        to->bits = c + j < out ? half_of(from[0]) : 0;
        if (c + j < out && k + 1 < in) to->bits |= half_of(from[1]) << 16;
      }
    }
  }
}

// (x - mean) / sqrt(variance + 1e-5), times gain plus offset where there is a gain. In place too.
template <typename T>
__attribute__((noinline)) static void normalise(int size, const T* gain, const T* offset,
                                                const T* x, ptrdiff_t ld_x, int rows, T* y,
                                                ptrdiff_t ld_y) {
  typedef VectorOf<T> Vec;
  enum { lanes = Vector<T>::lanes };
  const int whole = size / lanes * lanes;
  for (int r = 0; r < rows; ++r, x += ld_x, y += ld_y) {
    Vec sum = Vec{};
    for (int c = 0; c < whole; c += lanes) sum = sum + load_of(x + c);
    T mean = sum_of<T>(sum);
    for (int c = whole; c < size; ++c) mean += x[c];
    mean /= static_cast<T>(size);
    const Vec centre = fill_of(mean);
    Vec squares = Vec{};
    for (int c = 0; c < whole; c += lanes) {
      const Vec d = load_of(x + c) - centre;
      squares = fused(d, d, squares);
    }
    T variance = sum_of<T>(squares);
    for (int c = whole; c < size; ++c) variance += (x[c] - mean) * (x[c] - mean);
    variance /= static_cast<T>(size);
    const T root = sizeof(T) == 4
                       ? static_cast<T>(__builtin_sqrtf(static_cast<float>(variance) + 1e-5f))
                       : static_cast<T>(__builtin_sqrt(variance + 1e-5));
    const T inverse = static_cast<T>(1) / root;
    const Vec by = fill_of(inverse);
    for (int c = 0; c < whole; c += lanes) {
      Vec v = (load_of(x + c) - centre) * by;
      if (gain) v = v * load_of(gain + c) + load_of(offset + c);
      store_to(y + c, v);
    }
    for (int c = whole; c < size; ++c) {
      const T v = (x[c] - mean) * inverse;
      y[c] = gain ? v * gain[c] + offset[c] : v;
    }
  }
}

AC_INLINE float* values_of(const Slot& slot, float) { return slot.floats; }
AC_INLINE double* values_of(const Slot& slot, double) { return slot.doubles; }

// Depthwise causal convolution; the history of each slot is read and written.
template <typename T>
__attribute__((noinline)) static void convolve(const Stack<T>& s, const Block<T>& b,
                                               const Pass& pass, const T* x, T* y, ptrdiff_t ld) {
  typedef VectorOf<T> Vec;
  enum { lanes = Vector<T>::lanes };
  const int past = s.kernel - 1;
  for (int i = 0; i < pass.segments; ++i) {
    const Segment& segment = pass.segment[i];
    T* ring = values_of(segment.slot, T{}) + b.ring;
    for (int f = 0; f < segment.frames; ++f) {
      const T* row = x + (segment.row + f) * ld;
      T* to = y + (segment.row + f) * ld;
      const int oldest =
          past ? static_cast<int>((segment.slot.ints[kSlotFrames] + f) % static_cast<int64_t>(past))
               : 0;
      for (ptrdiff_t c = 0; c < ld; c += lanes) {
        const Vec now = load_of(row + c);
        Vec sum = load_of(b.tap_bias + c);
        int at = oldest;
        for (int j = 0; j < past; ++j) {
          sum = fused(load_of(b.taps + j * ld + c), load_of(ring + at * ld + c), sum);
          at = at + 1 == past ? 0 : at + 1;
        }
        sum = fused(load_of(b.taps + past * ld + c), now, sum);
        if (past) store_to(ring + oldest * ld + c, now);
        store_to(to + c, sum);
      }
    }
  }
}

// Memory of a pass, taken from the front.
struct Arena {
  float* at;

  template <typename T>
  T* take(int64_t count) {
    T* found = reinterpret_cast<T*>(at);
    at += padded_size(count * static_cast<int64_t>(sizeof(T) / 4));
    return found;
  }
};

// The blocks of a stack: `out` of h [rows][padded channels], which they overwrite; both may be one.
template <typename T>
__attribute__((noinline)) static void run_blocks(const Stack<T>& s, const Pass& pass, T* h,
                                                 const T* condition, ptrdiff_t ld_condition, T* out,
                                                 Arena arena) {
  typedef VectorOf<T> Vec;
  enum { lanes = Vector<T>::lanes };
  const int rows = pass.rows;
  const ptrdiff_t ld = padded_size(s.channels), ld_hidden = padded_size(s.hidden);
  const ptrdiff_t ld_film = padded_size(2 * s.channels);
  T* y = arena.take<T>(rows * ld);
  T* hidden = arena.take<T>(rows * ld_hidden);
  T* film = arena.take<T>(rows * ld_film);
  for (int i = 0; i < s.count; ++i) {
    const Block<T>& b = s.block[i];
    convolve(s, b, pass, h, y, ld);
    normalise(s.channels, b.norm.gain, b.norm.offset, y, ld, rows, y, ld);
    if (b.film.out) {
      linear(b.film, condition, ld_condition, rows, film, ld_film);
      for (int r = 0; r < rows; ++r) {
        T* v = y + r * ld;
        const T* gain = film + r * ld_film;
        for (int c = 0; c < s.channels; ++c) {
          v[c] = v[c] * (static_cast<T>(1) + gain[c]) + gain[s.channels + c];
        }
      }
    }
    linear(b.expand, y, ld, rows, hidden, ld_hidden);
    for (ptrdiff_t c = 0; c < rows * ld_hidden; c += lanes) {
      store_to(hidden + c, gelu_of(load_of(hidden + c)));
    }
    linear(b.project, hidden, ld_hidden, rows, y, ld);
    for (int r = 0; r < rows; ++r) {
      for (ptrdiff_t c = 0; c < ld; c += lanes) {
        const Vec v = load_of(b.scale + c) * load_of(y + r * ld + c);
        store_to(h + r * ld + c, load_of(h + r * ld + c) + v);
      }
    }
  }
  normalise(s.channels, s.final.gain, s.final.offset, h, ld, rows, out, ld);
}

// A whole stack: `out` [rows][padded channels] of x [rows][ld_x].
template <typename T>
static void run_stack(const Stack<T>& s, const Pass& pass, const T* x, ptrdiff_t ld_x,
                      const T* condition, ptrdiff_t ld_condition, T* out, Arena arena) {
  const ptrdiff_t ld = padded_size(s.channels);
  T* h = arena.take<T>(pass.rows * ld);
  linear(s.embed, x, ld_x, pass.rows, h, ld);
  normalise(s.channels, s.norm.gain, s.norm.offset, h, ld, pass.rows, h, ld);
  run_blocks(s, pass, h, condition, ld_condition, out, arena);
}

// The same of features in float64, which embedding and norm keep to: see
// affectcodec/nn/causal.py.
static void run_stack_wide(const Stack<float>& s, const Pass& pass, const double* x, ptrdiff_t ld_x,
                           float* out, Arena arena) {
  const ptrdiff_t ld = padded_size(s.channels);
  double* wide = arena.take<double>(pass.rows * ld);
  linear_wide(s.embed, x, ld_x, pass.rows, wide, ld);
  normalise<double>(s.channels, nullptr, nullptr, wide, ld, pass.rows, wide, ld);
  for (int r = 0; r < pass.rows; ++r) {
    for (int c = 0; c < s.channels; ++c) {
      out[r * ld + c] = static_cast<float>(wide[r * ld + c] * s.norm.gain[c] + s.norm.offset[c]);
    }
    for (ptrdiff_t c = s.channels; c < ld; ++c) out[r * ld + c] = 0.0f;
  }
  run_blocks<float>(s, pass, out, nullptr, 0, out, arena);
}

}  // namespace
}  // namespace runtime
}  // namespace affectcodec
