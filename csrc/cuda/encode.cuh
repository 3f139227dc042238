// SPDX-License-Identifier: Apache-2.0
// Encode and forward: a block of threads takes 64 frames through projections, recurrence and, in
// forward, back to latents. The latent is read once, every output written once.
#pragma once

#include "expand_matrix.cuh"
#include "launching.cuh"
#include "product.cuh"
#include "recurrence.cuh"
#include "shared.h"

namespace affectcodec {
namespace cuda {

// A projection is NaN where the frame holds a NaN, but also where infinities cancel. Only the first
// makes a frame unusable; the rare frame that is marked is looked at again to tell them apart.
template <typename T>
AFFECTCODEC_DEVICE void confirm_marks(const View& z, int64_t width, const int64_t* at,
                                      int32_t* marked) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  for (int i = 0; i < kWarpFrames; ++i) {
    const int f = thread / 32 * kWarpFrames + i;
    if (marked[f] == 0) continue;
    bool nan = false;
    for (int64_t c = lane; c < width && at[f] >= 0; c += 32) {
      const float x = widen(static_cast<const T*>(z.data)[at[f] + c * z.stride_d]);
      nan = nan || x != x;
    }
    const bool any = __any_sync(kAll, nan);
    if (lane == 0 && !any) marked[f] = 0;
  }
}

AFFECTCODEC_DEVICE void write_tokens(const Tokens& to, int64_t first, int64_t total, int64_t frames,
                                     const int64_t* tokens, const int32_t* marked) {
  const int f = static_cast<int>(threadIdx.x) % kUnit;
  const int64_t n = first + f;
  if (n >= total) return;
  const int64_t b = n / frames, start = b * to.stride_b + (n - b * frames) * to.stride_t;
  for (int k = static_cast<int>(threadIdx.x) / kUnit; k < to.stages; k += kThreads / kUnit) {
    const int64_t token = marked[f] ? -1 : tokens[k * kUnit + f];
    if (to.wide) {
      static_cast<int64_t*>(to.data)[start + k * to.stride_k] = token;
    } else {
      static_cast<int32_t*>(to.data)[start + k * to.stride_k] = static_cast<int32_t>(token);
    }
  }
}

template <typename T, bool kForward>
AFFECTCODEC_DEVICE void encode_unit(const EncodeArguments& a, const ForwardArguments* forward) {
  AFFECTCODEC_DYNAMIC_SHARED(memory);
  const DevicePlan& plan = a.plan;
  Shared s;
  divide_shared(memory, kForward ? kTokens | kBias | words_for(sizeof(T)) : kTokens, plan.stages,
                plan.most_rows, &s);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kUnit;
  const int64_t total = a.z.batch * a.z.frames;
  locate_frames(a.z, first, total, s.at);
  if (kForward) locate_frames(forward->out, first, total, s.at_out);
  if (threadIdx.x < kUnit) s.marked[threadIdx.x] = 0;
  __syncthreads();
  for (int g = 0; g < plan.blocks; ++g) {
    const BlockPlan& b = plan.block[g];
    load_active(kForward ? forward->counts : Counts{nullptr, 0, 0, 0}, g, plan.stages, first, total,
                a.z.frames, s.active);
    project<T>(a.z, s.at, b, a.weights + b.in_t, b.rows, false, s.stage, s.values);
    float* saved = nullptr;
    if (kForward) {
      saved = forward->saved + (first * plan.dims + b.dim * kUnit) * plan.stages;
    }
    forward_recurrence(plan, g, a.weights, s.values, s.active, s.tokens, s.marked, saved);
    __syncthreads();
    if (kForward) {
      const Expansion job{a.weights + b.out,  a.weights + plan.split_out[g],
                          a.weights + b.bias, plan.stages,
                          forward->rates,     forward->to,
                          forward->outputs};
      expand_any<T>(b, job, forward->out, s.at_out, s.active, s);
    }
  }
  confirm_marks<T>(a.z, plan.width, s.at, s.marked);
  __syncthreads();
  write_tokens(a.tokens, first, total, a.z.frames, s.tokens, s.marked);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    encode_kernel(const __grid_constant__ EncodeArguments a) {
  encode_unit<T, false>(a, nullptr);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ ForwardArguments a) {
  encode_unit<T, true>(a.encode, &a);
}

}  // namespace cuda
}  // namespace affectcodec
