// SPDX-License-Identifier: Apache-2.0
// The triangular recurrence over the projections of one block, forward and back.
//
// Each warp owns 16 frames and has two lanes for each: they share the rows of a frame and meet at
// barriers of the warp alone. A row loses one rounded product after the other, in ascending order,
// so digits are those of every other backend that has the same projections.
#pragma once

#include "../core/fsq.h"
#include "arguments.h"
#include "device.cuh"

namespace affectcodec {
namespace cuda {

// Counting thresholds one after another beats searching them up to about this many.
constexpr int kFewLevels = 17;
constexpr unsigned kAll = 0xffffffffu;

AFFECTCODEC_DEVICE int frame_of_lane() {
  const int thread = static_cast<int>(threadIdx.x);
  return thread / 32 * kWarpFrames + thread % kWarpFrames;
}
AFFECTCODEC_DEVICE int half_of_lane() { return static_cast<int>(threadIdx.x) / kWarpFrames % 2; }

// Active stages of the frames of a unit in block `g`; 0 past the end.
AFFECTCODEC_DEVICE void load_active(const Counts& counts, int g, int most, int64_t first,
                                    int64_t total, int64_t frames, int32_t* active) {
  const int f = static_cast<int>(threadIdx.x);
  if (f < kUnit) {
    const int64_t n = first + f;
    int64_t kept = n < total ? most : 0;
    if (n < total && counts.data) {
      const int64_t b = n / frames;
      const int64_t asked =
          counts
              .data[b * counts.stride_b + g * counts.stride_g + (n - b * frames) * counts.stride_t];
      kept = asked < 0 ? 0 : asked < most ? asked : most;
    }
    active[f] = static_cast<int32_t>(kept);
  }
}

AFFECTCODEC_DEVICE int32_t digit_of(float x, const float* thresholds, int32_t levels) {
  if (levels <= kFewLevels) return fsq_digit(x, thresholds, levels);
  int32_t low = 0, high = levels - 1;
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (x >= thresholds[middle]) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Later rows lose the products with the values of stage `k`; `values` is where those lie in x.
AFFECTCODEC_DEVICE void subtract_stage(const BlockPlan& b, const float* cross, int k, int stages,
                                       float* x, int f) {
  const int dims = b.dims, rows = stages * dims;
  for (int first = 0; first < dims; first += 8) {
    const int width = dims - first < 8 ? dims - first : 8;
    float value[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      value[i] = i < width ? x[(k * dims + first + i) * kValueLd + f] : 0.0f;
    }
    for (int row = (k + 1) * dims + half_of_lane(); row < rows; row += 2) {
      const float* g = cross + row * b.ld_rows + k * dims + first;
      float sum = x[row * kValueLd + f];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (i < width) sum = subtract_product(sum, __ldg(g + i), value[i]);
      }
      x[row * kValueLd + f] = sum;
    }
  }
}

// Projections x become the masked values of their digits. Digits are added to `tokens`
// [stages][kUnit], which the first block sets; `marked` tells frames with a NaN. With `saved` the
// numbers that were compared are kept as [rows][kUnit].
AFFECTCODEC_DEVICE void forward_recurrence(const Plan& plan, int g, const float* weights, float* x,
                                           const int32_t* active, int64_t* tokens, int32_t* marked,
                                           float* saved) {
  const BlockPlan& b = plan.block[g];
  const int f = frame_of_lane(), half = half_of_lane();
  const int kept = active[f], dims = b.dims;
  const float* offset = weights + b.offset + kept * b.ld_rows;
  for (int row = half; row < b.rows; row += 2) x[row * kValueLd + f] += __ldg(offset + row);
  __syncwarp();
  bool nan = false;
  for (int k = 0; k < plan.stages; ++k) {
    unsigned long long code = 0;
    for (int i = half; i < dims; i += 2) {
      const int row = k * dims + i;
      const int64_t table = static_cast<int64_t>(row) * b.most_levels;
      float* at = x + row * kValueLd + f;
      const float y = *at;
      const int32_t digit = digit_of(y, weights + b.threshold + table, plan.levels[b.dim + i]);
      // A NaN reaches no threshold; its value stays NaN so that it is seen downstream.
      const float value = y == y ? __ldg(weights + b.value + table + digit) : y;
      nan = nan || y != y;
      if (saved) saved[row * kUnit + f] = y;
      *at = kept > k ? value : 0.0f;
      code += static_cast<unsigned long long>(digit) *
              static_cast<unsigned long long>(plan.base[b.dim + i]);
    }
    code += __shfl_xor_sync(kAll, code, kWarpFrames);
    if (half == 0) {
      const int64_t before = g == 0 ? 0 : tokens[k * kUnit + f];
      tokens[k * kUnit + f] = before + static_cast<int64_t>(code);
    }
    __syncwarp();
    subtract_stage(b, weights + b.cross, k, plan.stages, x, f);
    __syncwarp();
  }
  const unsigned marks = __ballot_sync(kAll, nan);
  if (half == 0 && (marks >> (f % kWarpFrames) & 0x10001u)) marked[f] = 1;
}

// Derivative of the bound: 1 - tanh(y)^2, or 1 inside [-1, 1] for the clamp.
AFFECTCODEC_DEVICE float slope_of(float y, int32_t bound) {
  const float size = y < 0.0f ? -y : y;
  if (bound == 1) return size <= 1.0f ? 1.0f : 0.0f;
  // 4 e / (1 + e)^2 with e = exp(-2 |y|): no cancellation where tanh nears 1.
  const float e = expf(-2.0f * size);
  const float slope = 4.0f * e / ((1.0f + e) * (1.0f + e));
  return y == y ? slope : y;
}

// x comes as dL/dv of the outputs and becomes dL/dp. `sums` [4 warps][2][rows] gets, for each warp,
// the sums over its frames of dL/dv and of dL/dv * (slope y - q).
AFFECTCODEC_DEVICE void backward_recurrence(const Plan& plan, int g, const float* weights,
                                            const float* saved, const int32_t* active, float* x,
                                            float* sums) {
  const BlockPlan& b = plan.block[g];
  const int f = frame_of_lane(), half = half_of_lane(), dims = b.dims;
  const int kept = active[f], warp = static_cast<int>(threadIdx.x) / 32;
  float* mine = sums + warp * 2 * b.rows;
  for (int k = plan.stages - 1; k >= 0; --k) {
    const bool on = kept > k;
    for (int i = half; i < dims + dims % 2; i += 2) {  // both lanes of a frame, for the shuffles
      const int row = k * dims + (i < dims ? i : dims - 1);
      const int64_t table = static_cast<int64_t>(row) * b.most_levels;
      float back = 0.0f, scale = 0.0f;
      if (i < dims && on) {
        const float xs = saved[row * kUnit + f];
        const float y = xs * __ldg(weights + b.scale + row);
        const int32_t digit = digit_of(xs, weights + b.threshold + table, plan.levels[b.dim + i]);
        const float q = xs == xs ? __ldg(weights + b.grid + table + digit) : xs;
        const float slope = slope_of(y, plan.bound);
        back = x[row * kValueLd + f];
        scale = back * (slope * y - q);
        x[row * kValueLd + f] = slope * back;
      } else if (i < dims) {
        x[row * kValueLd + f] = 0.0f;
      }
#pragma unroll
      for (int step = 1; step < kWarpFrames; step *= 2) {
        back += __shfl_xor_sync(kAll, back, step);
        scale += __shfl_xor_sync(kAll, scale, step);
      }
      if (i < dims && f % kWarpFrames == 0) {
        mine[row] = back;
        mine[b.rows + row] = scale;
      }
    }
    __syncwarp();
    // Earlier rows: a_j -= sum over the rows of this stage of G[row][j] h[row].
    for (int row = half; row < k * dims; row += 2) {
      float sum = x[row * kValueLd + f];
      for (int i = 0; i < dims; ++i) {
        const float* from = weights + b.cross + (k * dims + i) * b.ld_rows + row;
        sum = __fmaf_rn(-__ldg(from), x[(k * dims + i) * kValueLd + f], sum);
      }
      x[row * kValueLd + f] = sum;
    }
    __syncwarp();
  }
}

}  // namespace cuda
}  // namespace affectcodec
