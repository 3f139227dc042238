// SPDX-License-Identifier: Apache-2.0
// The product of expand.cuh on tensor cores, for outputs of 16 bits. Both factors are split into
// two bfloat16 and three of the four products are summed in float32: an error of about 2^-16 of the
// terms, far below the rounding of the output. It decides no token.
//
// Each warp makes 16 channels of 64, for all frames of the unit. Its weights come from global
// memory straight into the registers of the instruction, in the order that fold has laid them out
// in.
#pragma once

#include "expand.cuh"
#include "matrix.cuh"
#include "shared.h"
#include "split.h"

namespace affectcodec {
namespace cuda {

constexpr int kWarpChannels = 16;
constexpr int kWarps = kThreads / 32;
static_assert(kWarps * kWarpChannels == kUnit, "a block of threads makes 64 channels at a time");
static_assert(kWarps * kWarpChannels * kTileLd <= kStageFloats, "sums of all warps fit the stage");

// Splits x [rows][kValueLd]; pairs of neighbouring rows become words, [2][pairs][kPairLd], up to a
// whole step of 16 rows.
AFFECTCODEC_DEVICE void split_values(const float* x, int rows, uint32_t* words) {
  const int pairs = (rows + 15) / 16 * 8;
  for (int n = static_cast<int>(threadIdx.x); n < pairs * kUnit; n += kThreads) {
    const int pair = n / kUnit, f = n % kUnit, row = 2 * pair;
    const Split even = split_of(row < rows ? x[row * kValueLd + f] : 0.0f);
    const Split odd = split_of(row + 1 < rows ? x[(row + 1) * kValueLd + f] : 0.0f);
    words[pair * kPairLd + f] = pair_of(even.high, odd.high);
    words[(pairs + pair) * kPairLd + f] = pair_of(even.low, odd.low);
  }
}

// Which halves of a word of rows `row` and `row` + 1 lie in from .. to - 1.
AFFECTCODEC_DEVICE uint32_t mask_of(int row, int from, int to) {
  const uint32_t even = row >= from && row < to ? 0x0000ffffu : 0u;
  const uint32_t odd = row + 1 >= from && row + 1 < to ? 0xffff0000u : 0u;
  return even | odd;
}

// Eight outputs that lie together in memory, or fewer where they do not.
template <typename T>
AFFECTCODEC_DEVICE void store_eight(T* to, const float (&y)[8]) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    words[i] = pair_of(narrow<T>(y[2 * i]).bits, narrow<T>(y[2 * i + 1]).bits);
  }
  store_wide(to, make_words(words[0], words[1], words[2], words[3]));
}

// Writes a warp's sums [16 channels][kTileLd] with the bias of each frame added.
template <typename T>
AFFECTCODEC_DEVICE void store_warp(const Expansion& job, int rate, const View& out, T* to,
                                   const int64_t* at, const int32_t* active, int64_t channel,
                                   int64_t end, const float* sums, const float* bias) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const bool by_channels = out.along == kChannels;
  for (int n = lane; n < kWarpChannels * kUnit / 8; n += 32) {
    const int c = by_channels ? n % 2 * 8 : n / 8;
    const int f = by_channels ? n / 2 : n % 8 * 8;
    float y[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int channel_of = by_channels ? c + i : c, frame = by_channels ? f : f + i;
      y[i] = sums[channel_of * kTileLd + frame];
      if (job.bias) {
        const int m = active[frame] < rate ? active[frame] : rate;
        y[i] += bias[m * kUnit + channel_of];
      }
    }
    if (out.along != kNothing) {
      if (at[f] >= 0 && channel + c < end) {
        store_eight(to + at[f] + (channel + c) * out.stride_d, y);
      }
      continue;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (at[f + i] >= 0 && channel + c < end) {
        to[at[f + i] + (channel + c) * out.stride_d] = narrow<T>(y[i]);
      }
    }
  }
}

// As expand; `words` is shared memory for the split values.
template <typename T>
AFFECTCODEC_DEVICE void expand_matrix(const BlockPlan& b, const Expansion& job, const View& out,
                                      const int64_t* at, const int32_t* active, const float* x,
                                      uint32_t* words, float* stage, float* bias_stage) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int group = lane / 4, pair = lane % 4;
  const int rows = job.rates[job.outputs - 1] * b.dims;
  const int pairs = (rows + 15) / 16 * 8;
  split_values(x, rows, words);
  float* const sums = stage + warp * kWarpChannels * kTileLd;
  for (int64_t c = 0; c < b.width; c += kUnit) {
    __syncthreads();  // the split values are there, and whoever read the bias before is done
    if (job.bias) {
      for (int n = thread; n < (job.stages + 1) * (kUnit / 4); n += kThreads) {
        const int m = n / (kUnit / 4), q = n % (kUnit / 4) * 4;
        float4 part = make_floats(0.0f, 0.0f, 0.0f, 0.0f);
        if (c + q < b.ld_width) part = load_floats(job.bias + m * b.ld_width + c + q);
        *reinterpret_cast<float4*>(bias_stage + 4 * n) = part;
      }
    }
    __syncthreads();
    const int64_t tile = c / kWarpChannels + warp;
    if (tile * kWarpChannels >= b.width) continue;  // the warp as a whole
    float sum[kUnit / 8][4];
#pragma unroll
    for (int j = 0; j < kUnit / 8; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[j][i] = 0.0f;
    }
    const uint4* from = reinterpret_cast<const uint4*>(job.split) + split_vector(b, tile, 0) + lane;
    int output = 0, row = 0;
    for (int step = 0; step * 16 < rows; ++step, from += 2 * 32) {
      const uint4 high = from[0], low = from[32];
      const int end = step * 16 + 16 < rows ? step * 16 + 16 : rows;
      while (row < end) {
        const int border = job.rates[output] * b.dims;
        const int stop = border < end ? border : end;
        const int first = step * 16 + 2 * pair;
        const uint32_t mask0 = mask_of(first, row, stop), mask1 = mask_of(first + 8, row, stop);
        const uint32_t* v = words + (step * 8 + pair) * kPairLd + group;
#pragma unroll
        for (int j = 0; j < kUnit / 8; ++j) {
          const uint32_t high0 = v[8 * j] & mask0, high1 = v[4 * kPairLd + 8 * j] & mask1;
          const uint32_t low0 = v[pairs * kPairLd + 8 * j] & mask0;
          const uint32_t low1 = v[(pairs + 4) * kPairLd + 8 * j] & mask1;
          multiply_matrix(sum[j], low, high0, high1);
          multiply_matrix(sum[j], high, low0, low1);
          multiply_matrix(sum[j], high, high0, high1);
        }
        row = stop;
        if (row != border) continue;
        __syncwarp();
#pragma unroll
        for (int j = 0; j < kUnit / 8; ++j) {
          float* to = sums + group * kTileLd + 8 * j + 2 * pair;
          to[0] = sum[j][0];
          to[1] = sum[j][1];
          to[8 * kTileLd] = sum[j][2];
          to[8 * kTileLd + 1] = sum[j][3];
        }
        __syncwarp();
        store_warp(job, job.rates[output], out, static_cast<T*>(job.to[output]), at, active,
                   b.channel + tile * kWarpChannels, b.channel + b.width, sums,
                   bias_stage + warp * kWarpChannels);
        ++output;
      }
    }
  }
  __syncthreads();  // x, the words and the stage may be written again
}

// Whichever of the two the type of the output asks for.
template <typename T>
AFFECTCODEC_DEVICE void expand_any(const BlockPlan& b, const Expansion& job, const View& out,
                                   const int64_t* at, const int32_t* active, const Shared& s) {
  if constexpr (sizeof(T) == 2) {
    expand_matrix<T>(b, job, out, at, active, s.values, s.words, s.stage, s.bias);
  } else {
    expand<T>(b, job, out, at, active, s.values, s.stage, s.bias);
  }
}

}  // namespace cuda
}  // namespace affectcodec
