// SPDX-License-Identifier: Apache-2.0
// Products of float32: C [rows][64] = A B, A from a matrix that has its depth outermost, B from
// tiles.
//
// Every element of C is summed by one thread, in order, in chains of 128 multiply-adds. That is the
// order of the CPU kernels, and it does not depend on what else is in the batch.
#pragma once

#include "tile.cuh"

namespace affectcodec {
namespace cuda {

// Position of a thread: it makes kRows rows and four columns of each pass.
AFFECTCODEC_DEVICE int column_of_thread() { return static_cast<int>(threadIdx.x) % 16 * 4; }
AFFECTCODEC_DEVICE int group_of_thread() { return static_cast<int>(threadIdx.x) / 16; }

template <int kRows>
AFFECTCODEC_DEVICE void load_rows(const float* from, float (&w)[kRows]) {
  if (kRows % 4 == 0) {
#pragma unroll
    for (int r = 0; r < kRows; r += 4) {
      const float4 v = *reinterpret_cast<const float4*>(from + r);
      w[r] = v.x;
      w[r + 1] = v.y;
      w[r + 2] = v.z;
      w[r + 3] = v.w;
    }
  } else if (kRows % 2 == 0) {
#pragma unroll
    for (int r = 0; r < kRows; r += 2) {
      const float2 v = *reinterpret_cast<const float2*>(from + r);
      w[r] = v.x;
      w[r + 1] = v.y;
    }
  } else {
#pragma unroll
    for (int r = 0; r < kRows; ++r) w[r] = from[r];
  }
}

// One step: 16 terms of every sum. `a` is [kDepth][8 * kRows], `b` a tile.
template <int kRows>
AFFECTCODEC_DEVICE void multiply_step(const float* a, const float* b, float (&sum)[kRows][4]) {
  a += group_of_thread() * kRows;
  b += column_of_thread();
#pragma unroll
  for (int k = 0; k < kDepth; ++k) {
    const float4 x = *reinterpret_cast<const float4*>(b + k * kTileLd);
    float w[kRows];
    load_rows<kRows>(a + k * 8 * kRows, w);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      sum[r][0] = __fmaf_rn(x.x, w[r], sum[r][0]);
      sum[r][1] = __fmaf_rn(x.y, w[r], sum[r][1]);
      sum[r][2] = __fmaf_rn(x.z, w[r], sum[r][2]);
      sum[r][3] = __fmaf_rn(x.w, w[r], sum[r][3]);
    }
  }
}

// A thread's part of the step of A that starts `depth` deep; zeros outside.
template <int kRows>
struct Panel {
  static constexpr int kVectors = kDepth * 8 * kRows / 4;
  static constexpr int kEach = (kVectors + kThreads - 1) / kThreads;
  float4 part[kEach];

  // `a` points at the first of the rows, `left` says how many there are to the end of a line.
  AFFECTCODEC_DEVICE void fetch(const float* a, int64_t ld, int64_t left, int64_t depth,
                                int64_t end) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int n = static_cast<int>(threadIdx.x) + i * kThreads;
      const int k = n / (2 * kRows), q = n % (2 * kRows) * 4;
      part[i] = make_floats(0.0f, 0.0f, 0.0f, 0.0f);
      if (n < kVectors && depth + k < end && q < left) {
        part[i] = load_floats(a + (depth + k) * ld + q);
      }
    }
  }
  AFFECTCODEC_DEVICE void put(float* to) const {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int n = static_cast<int>(threadIdx.x) + i * kThreads;
      if (n < kVectors) *reinterpret_cast<float4*>(to + 4 * n) = part[i];
    }
  }
};

// C = A B over a depth of `depth`; `tiles` fetches and puts the tiles of B. While one step is
// worked on, the next is on its way from global memory into registers. `after` is called with each
// step's tile while it lies in shared memory.
template <int kRows, typename Tiles>
AFFECTCODEC_DEVICE void multiply(const float* a, int64_t ld, int64_t left, int64_t depth,
                                 Tiles& tiles, float* stage, float (&total)[kRows][4]) {
  float* const panels = stage + 2 * kDepth * kTileLd;
  Panel<kRows> panel;
  float sum[kRows][4];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int j = 0; j < 4; ++j) total[r][j] = sum[r][j] = 0.0f;
  }
  panel.fetch(a, ld, left, 0, depth);
  tiles.fetch(0);
  int buffer = 0;
  for (int64_t k = 0; k < depth; k += kDepth) {
    float* const tile = stage + buffer * kDepth * kTileLd;
    float* const rows = panels + buffer * kDepth * kMostRows;
    tiles.put(tile);
    panel.put(rows);
    __syncthreads();
    if (k + kDepth < depth) {
      panel.fetch(a, ld, left, k + kDepth, depth);
      tiles.fetch(k + kDepth);
    }
    multiply_step<kRows>(rows, tile, sum);
    tiles.visit(tile, k);
    if (k % kChain == kChain - kDepth || k + kDepth >= depth) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          total[r][j] += sum[r][j];
          sum[r][j] = 0.0f;
        }
      }
    }
    buffer ^= 1;
  }
  __syncthreads();  // the stage is free again
}

// Tiles of a latent for projections: wide along frames, deep along the channels of one block.
template <typename T>
struct ChannelTiles {
  const View& view;
  const int64_t* at;
  int64_t channel, channels;
  T part[kElements];

  AFFECTCODEC_DEVICE ChannelTiles(const View& v, const int64_t* frames, int64_t first, int64_t end)
      : view(v), at(frames), channel(first), channels(end) {}
  AFFECTCODEC_DEVICE void fetch(int64_t depth) {
    fetch_tile<T, Wide::kFrames>(view, at, channel + depth, channels, 0, part);
  }
  AFFECTCODEC_DEVICE void put(float* tile) const { put_tile<T, Wide::kFrames>(view, part, tile); }
  AFFECTCODEC_DEVICE void visit(const float*, int64_t) const {}
};

template <int kRows, typename T>
AFFECTCODEC_DEVICE void project_pass(const View& v, const int64_t* at, const BlockPlan& b,
                                     const float* in_t, int first, int end, bool add, float* stage,
                                     float* x) {
  ChannelTiles<T> tiles(v, at, b.channel, b.channel + b.width);
  float total[kRows][4];
  multiply<kRows>(in_t + first, b.ld_rows, b.ld_rows - first, b.width, tiles, stage, total);
  const int row = first + group_of_thread() * kRows;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (row + r >= end) continue;
    float4* to = reinterpret_cast<float4*>(x + (row + r) * kValueLd + column_of_thread());
    float4 sum = make_floats(total[r][0], total[r][1], total[r][2], total[r][3]);
    if (add) {
      const float4 old = *to;
      sum = make_floats(old.x + sum.x, old.y + sum.y, old.z + sum.z, old.w + sum.w);
    }
    *to = sum;
  }
}

// Projections of the channels of one block for the frames of a unit: x [rows][kValueLd], rows 0 to
// `rows` - 1, set or added to. `in_t` is the matrix [width][ld_rows]. 24 and 48 rows, those of the
// default quantizer, are made without waste.
template <typename T>
AFFECTCODEC_DEVICE void project(const View& v, const int64_t* at, const BlockPlan& b,
                                const float* in_t, int rows, bool add, float* stage, float* x) {
  int first = 0;
  while (first < rows) {
    const int left = rows - first;
    if (left <= 24) {
      project_pass<3, T>(v, at, b, in_t, first, rows, add, stage, x);
      first += 24;
    } else if (left <= 48) {
      project_pass<6, T>(v, at, b, in_t, first, rows, add, stage, x);
      first += 48;
    } else {
      project_pass<8, T>(v, at, b, in_t, first, rows, add, stage, x);
      first += kMostRows;
    }
  }
  __syncthreads();  // x is there for every thread
}

}  // namespace cuda
}  // namespace affectcodec
