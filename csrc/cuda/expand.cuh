// SPDX-License-Identifier: Apache-2.0
// The product back to the width of a block: out[channel][frame] = sum over rows of M[row][channel]
// x[row][frame], one chain of multiply-adds in the order of the rows, as on the CPU. Partial sums
// are written out on the way, which is how one pass makes the latents of several rates.
#pragma once

#include "arguments.h"
#include "device.cuh"
#include "tile.cuh"

namespace affectcodec {
namespace cuda {

constexpr int kOutChannels = 8, kOutFrames = 4;  // of one thread; 64 x 64 of a block

AFFECTCODEC_DEVICE uint32_t pair_of(uint16_t low, uint16_t high) {
  return static_cast<uint32_t>(low) | static_cast<uint32_t>(high) << 16;
}

// Four frames of eight channels, from `channel` on. `at` are the offsets of the unit's frames.
AFFECTCODEC_DEVICE void store_outputs(const View& v, float* to, const int64_t* at, int frame,
                                      int64_t channel, int64_t end,
                                      const float (&y)[kOutChannels][kOutFrames]) {
  if (v.along == kFrames) {
    if (at[frame] < 0) return;
#pragma unroll
    for (int c = 0; c < kOutChannels; ++c) {
      if (channel + c < end) {
        *reinterpret_cast<float4*>(to + at[frame] + (channel + c) * v.stride_d) =
            make_floats(y[c][0], y[c][1], y[c][2], y[c][3]);
      }
    }
    return;
  }
#pragma unroll
  for (int f = 0; f < kOutFrames; ++f) {
    const int64_t start = at[frame + f];
    if (start < 0) continue;
    if (v.along == kChannels) {
#pragma unroll
      for (int c = 0; c < kOutChannels; c += 4) {
        if (channel + c < end) {
          *reinterpret_cast<float4*>(to + start + channel + c) =
              make_floats(y[c][f], y[c + 1][f], y[c + 2][f], y[c + 3][f]);
        }
      }
    } else {
#pragma unroll
      for (int c = 0; c < kOutChannels; ++c) {
        if (channel + c < end) to[start + (channel + c) * v.stride_d] = y[c][f];
      }
    }
  }
}

template <typename T>
AFFECTCODEC_DEVICE void store_outputs(const View& v, T* to, const int64_t* at, int frame,
                                      int64_t channel, int64_t end,
                                      const float (&y)[kOutChannels][kOutFrames]) {
  if (v.along == kFrames) {
    // Eight frames are 16 bytes: neighbouring lanes trade, one keeps the lower channels of both.
    const bool upper = threadIdx.x % 2 != 0;
    uint32_t own[4][2], other[4][2];
#pragma unroll
    for (int c = 0; c < 4; ++c) {
#pragma unroll
      for (int w = 0; w < 2; ++w) {
        const uint32_t low = pair_of(narrow<T>(y[c][2 * w]).bits, narrow<T>(y[c][2 * w + 1]).bits);
        const uint32_t high =
            pair_of(narrow<T>(y[c + 4][2 * w]).bits, narrow<T>(y[c + 4][2 * w + 1]).bits);
        own[c][w] = upper ? high : low;
        other[c][w] = __shfl_xor_sync(0xffffffffu, upper ? low : high, 1);
      }
    }
    const int first = upper ? frame - kOutFrames : frame;
    if (at[first] < 0) return;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int64_t d = channel + (upper ? c + 4 : c);
      if (d < end) {
        store_wide(to + at[first] + d * v.stride_d,
                   upper ? make_words(other[c][0], other[c][1], own[c][0], own[c][1])
                         : make_words(own[c][0], own[c][1], other[c][0], other[c][1]));
      }
    }
    return;
  }
#pragma unroll
  for (int f = 0; f < kOutFrames; ++f) {
    const int64_t start = at[frame + f];
    if (start < 0) continue;
    if (v.along == kChannels) {
      uint32_t words[4];
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        words[w] = pair_of(narrow<T>(y[2 * w][f]).bits, narrow<T>(y[2 * w + 1][f]).bits);
      }
      if (channel < end) {
        store_wide(to + start + channel, make_words(words[0], words[1], words[2], words[3]));
      }
    } else {
#pragma unroll
      for (int c = 0; c < kOutChannels; ++c) {
        if (channel + c < end) to[start + (channel + c) * v.stride_d] = narrow<T>(y[c][f]);
      }
    }
  }
}

struct Expansion {
  const float* by_row;  // M [rows][ld_width]
  const float* split;   // M split for tensor cores, see split.h
  const float* bias;    // [stages + 1][ld_width], added by the active stages of a frame; or null
  int stages;
  const int32_t* rates;  // stage counts at which sums are written, ascending
  void* const* to;
  int outputs;
};

// Writes the outputs of one block for a unit of frames. `x` is [rows][kValueLd]; `stage` and
// `bias_stage` are shared memory, the second of [stages + 1][kUnit].
template <typename T>
AFFECTCODEC_DEVICE void expand(const BlockPlan& b, const Expansion& job, const View& out,
                               const int64_t* at, const int32_t* active, const float* x,
                               float* stage, float* bias_stage) {
  const int thread = static_cast<int>(threadIdx.x);
  const bool by_channels = out.along == kChannels;
  // Lanes lie beside each other the way the memory does.
  const int channel_group = by_channels ? thread % 8 : thread / 16;
  const int frame = (by_channels ? thread / 8 : thread % 16) * kOutFrames;
  const int rows = job.rates[job.outputs - 1] * b.dims;
  for (int64_t c = 0; c < b.width; c += kUnit) {
    float sum[kOutChannels][kOutFrames];
#pragma unroll
    for (int r = 0; r < kOutChannels; ++r) {
#pragma unroll
      for (int f = 0; f < kOutFrames; ++f) sum[r][f] = 0.0f;
    }
    int output = 0;
    for (int first = 0; first < rows; first += kMostRows) {
      const int end = rows - first < kMostRows ? rows : first + kMostRows;
      __syncthreads();  // whoever read the stage before is done
#pragma unroll 4
      for (int n = thread; n < (end - first) * (kUnit / 4); n += kThreads) {
        const int k = n / (kUnit / 4), q = n % (kUnit / 4) * 4;
        float4 part = make_floats(0.0f, 0.0f, 0.0f, 0.0f);
        if (c + q < b.ld_width) part = load_floats(job.by_row + (first + k) * b.ld_width + c + q);
        *reinterpret_cast<float4*>(stage + 4 * n) = part;
      }
      if (job.bias && first == 0) {
        for (int n = thread; n < (job.stages + 1) * (kUnit / 4); n += kThreads) {
          const int m = n / (kUnit / 4), q = n % (kUnit / 4) * 4;
          float4 part = make_floats(0.0f, 0.0f, 0.0f, 0.0f);
          if (c + q < b.ld_width) part = load_floats(job.bias + m * b.ld_width + c + q);
          *reinterpret_cast<float4*>(bias_stage + 4 * n) = part;
        }
      }
      __syncthreads();
      for (int k = first; k < end;) {
        const int border = job.rates[output] * b.dims;
        const int stop = border < end ? border : end;
#pragma unroll 4
        for (; k < stop; ++k) {
          const float4 v = *reinterpret_cast<const float4*>(x + k * kValueLd + frame);
          const float* m = stage + (k - first) * kUnit + channel_group * kOutChannels;
          const float4 low = *reinterpret_cast<const float4*>(m);
          const float4 high = *reinterpret_cast<const float4*>(m + 4);
          const float w[kOutChannels] = {low.x,  low.y,  low.z,  low.w,
                                         high.x, high.y, high.z, high.w};
#pragma unroll
          for (int r = 0; r < kOutChannels; ++r) {
            sum[r][0] = __fmaf_rn(v.x, w[r], sum[r][0]);
            sum[r][1] = __fmaf_rn(v.y, w[r], sum[r][1]);
            sum[r][2] = __fmaf_rn(v.z, w[r], sum[r][2]);
            sum[r][3] = __fmaf_rn(v.w, w[r], sum[r][3]);
          }
        }
        if (k != border) continue;
        float y[kOutChannels][kOutFrames];
#pragma unroll
        for (int f = 0; f < kOutFrames; ++f) {
          const int kept = active[frame + f];
          const int m = kept < job.rates[output] ? kept : job.rates[output];
          const float* add = bias_stage + m * kUnit + channel_group * kOutChannels;
#pragma unroll
          for (int r = 0; r < kOutChannels; ++r) {
            y[r][f] = job.bias ? sum[r][f] + add[r] : sum[r][f];
          }
        }
        store_outputs(out, static_cast<T*>(job.to[output]), at, frame,
                      b.channel + c + channel_group * kOutChannels, b.channel + b.width, y);
        ++output;
      }
    }
  }
  __syncthreads();  // x and the stage may be written again
}

}  // namespace cuda
}  // namespace affectcodec
