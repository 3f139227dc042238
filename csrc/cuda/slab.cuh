// SPDX-License-Identifier: Apache-2.0
// Sums over the frames of a slab: tiles that are deep along frames, and what is added up on the
// way.
#pragma once

#include "backward.h"
#include "product.cuh"
#include "recurrence.cuh"
#include "shared.h"

namespace affectcodec {
namespace cuda {

// The frames of one slab.
struct Slab {
  int64_t first, frames;  // whole units

  AFFECTCODEC_DEVICE explicit Slab(const BackwardArguments& a) {
    const int64_t slab = blockIdx.y;
    const int64_t begin = a.units * slab / a.slabs, end = a.units * (slab + 1) / a.slabs;
    first = begin * kUnit;
    frames = (end - begin) * kUnit;
  }
};

// Finds a unit of the slab, `depth` frames from its start.
AFFECTCODEC_DEVICE void locate_unit(const BackwardArguments& a, const View& v, int g,
                                    const Slab& slab, int64_t depth, const SlabShared& s) {
  const int place = static_cast<int>(depth / kUnit % 2) * kUnit;
  const int64_t total = a.z.batch * a.z.frames;
  locate_frames(v, slab.first + depth, total, s.at + place);
  load_active(a.counts, g, a.plan.stages, slab.first + depth, total, a.z.frames, s.active + place);
}

// Adds the columns of a step's tile to sums[stages of the frame][column], column by column.
AFFECTCODEC_DEVICE void add_columns(const float* tile, const int32_t* active, int64_t depth,
                                    int32_t rate, float* sums) {
  const int c = static_cast<int>(threadIdx.x);
  if (c >= kUnit) return;
  const int32_t* of = active + static_cast<int>(depth / kUnit % 2) * kUnit + depth % kUnit;
  for (int k = 0; k < kDepth; ++k) {
    const int32_t m = of[k] < rate ? of[k] : rate;
    sums[m * kUnit + c] += tile[k * kTileLd + c];
  }
}

// Tiles of a latent: deep along the frames of a slab, wide along 64 channels.
template <typename T>
struct FrameTiles {
  const BackwardArguments& a;
  const View& view;
  const Slab& slab;
  const SlabShared& s;
  int g;
  int64_t channel, channels;
  int32_t rate;  // of add_columns; 0 to add none
  T part[kElements];

  AFFECTCODEC_DEVICE void fetch(int64_t depth) {
    fetch_tile<T, Wide::kChannels>(view, s.at + depth / kUnit % 2 * kUnit, channel, channels,
                                   static_cast<int>(depth % kUnit), part);
    // Read from the next unit on, barriers later.
    if (depth % kUnit == kDepth) locate_unit(a, view, g, slab, depth - kDepth + kUnit, s);
  }
  AFFECTCODEC_DEVICE void put(float* tile) const { put_tile<T, Wide::kChannels>(view, part, tile); }
  AFFECTCODEC_DEVICE void visit(const float* tile, int64_t depth) const {
    if (rate > 0) add_columns(tile, s.active, depth, rate, s.sums);
  }
};

// Tiles of h: deep along the frames of a slab, wide along 64 of its rows.
struct RowTiles {
  const BackwardArguments& a;
  const Slab& slab;
  const SlabShared& s;
  int g;
  const float* h;  // of the first frame and row
  int64_t ld, left;
  bool add;
  float4 part[kElements / 4];

  AFFECTCODEC_DEVICE void fetch(int64_t depth) {
#pragma unroll
    for (int i = 0; i < kElements / 4; ++i) {
      const Spot spot = spot_of<4, false>(i);
      part[i] = make_floats(0.0f, 0.0f, 0.0f, 0.0f);
      if (spot.column < left && depth < slab.frames) {
        part[i] = load_floats(h + (depth + spot.depth) * ld + spot.column);
      }
    }
    if (depth % kUnit == kDepth) locate_unit(a, a.z, g, slab, depth - kDepth + kUnit, s);
  }
  AFFECTCODEC_DEVICE void put(float* tile) const {
#pragma unroll
    for (int i = 0; i < kElements / 4; ++i) {
      const Spot spot = spot_of<4, false>(i);
      *reinterpret_cast<float4*>(tile + spot.depth * kTileLd + spot.column) = part[i];
    }
  }
  AFFECTCODEC_DEVICE void visit(const float* tile, int64_t depth) const {
    if (add) add_columns(tile, s.active, depth, a.plan.stages, s.sums);
  }
};

// to[row][column] = or += sum over the slab of rows[frame][row] tile[frame][column], rows `first`
// to `end` - 1. `ld_to` columns at most lie to the right of `to`.
template <int kRows, typename Tiles>
AFFECTCODEC_DEVICE void sum_pass(const float* rows, const BlockPlan& b, const Slab& slab, int first,
                                 int end, bool add, Tiles& tiles, float* stage, float* to,
                                 int64_t ld_to, int64_t left) {
  float total[kRows][4];
  multiply<kRows>(rows + first, b.ld_rows, b.ld_rows - first, slab.frames, tiles, stage, total);
  const int row = first + group_of_thread() * kRows, column = column_of_thread();
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (row + r >= end || column >= left) continue;
    float4* p = reinterpret_cast<float4*>(to + (row + r) * ld_to + column);
    float4 sum = make_floats(total[r][0], total[r][1], total[r][2], total[r][3]);
    if (add) {
      const float4 old = *p;
      sum = make_floats(old.x + sum.x, old.y + sum.y, old.z + sum.z, old.w + sum.w);
    }
    *p = sum;
  }
}

// All rows below `end`. `begin` puts the tiles back to the start of the slab and is told whether
// this is the first pass.
template <typename Tiles, typename Begin>
AFFECTCODEC_DEVICE void sum_rows(const float* rows, const BlockPlan& b, const Slab& slab, int end,
                                 bool add, Tiles& tiles, const Begin& begin, float* stage,
                                 float* to, int64_t ld_to, int64_t left) {
  for (int first = 0; first < end;) {
    begin(first == 0);
    const int rest = end - first;
    if (rest <= 24) {
      sum_pass<3>(rows, b, slab, first, end, add, tiles, stage, to, ld_to, left);
      first += 24;
    } else if (rest <= 48) {
      sum_pass<6>(rows, b, slab, first, end, add, tiles, stage, to, ld_to, left);
      first += 48;
    } else {
      sum_pass<8>(rows, b, slab, first, end, add, tiles, stage, to, ld_to, left);
      first += kMostRows;
    }
  }
}

}  // namespace cuda
}  // namespace affectcodec
