// SPDX-License-Identifier: Apache-2.0
// Decode: tokens to values of digits to latents, 64 frames a block of threads.
#include "expand_matrix.cuh"
#include "launching.cuh"
#include "recurrence.cuh"
#include "shared.h"

namespace affectcodec {
namespace cuda {

// Tokens of the unit; -1 for all that are none of this codebook.
AFFECTCODEC_DEVICE void read_tokens(const DecodeArguments& a, int64_t first, int64_t total,
                                    int64_t* tokens) {
  const int f = static_cast<int>(threadIdx.x) % kUnit;
  const int64_t n = first + f;
  const int64_t b = n / a.out.frames;
  const int64_t start = b * a.tokens.stride_b + (n - b * a.out.frames) * a.tokens.stride_t;
  for (int k = static_cast<int>(threadIdx.x) / kUnit; k < a.tokens.stages; k += kThreads / kUnit) {
    int64_t token = 0;
    if (n < total) {
      const int64_t at = start + k * a.tokens.stride_k;
      token = a.tokens.wide ? static_cast<const int64_t*>(a.tokens.data)[at]
                            : static_cast<const int32_t*>(a.tokens.data)[at];
      if (token < 0 || static_cast<uint64_t>(token) >= a.plan.codebook) token = -1;
    }
    tokens[k * kUnit + f] = token;
  }
}

// Digits of one stage and block of one frame, their masked values written to x.
template <typename Code>
AFFECTCODEC_DEVICE void write_values(const DecodeArguments& a, const BlockPlan& b, int64_t token,
                                     int k, bool on, float* x) {
  Code code = static_cast<Code>(token) / static_cast<Code>(a.plan.base[b.dim]);
  for (int i = 0; i < b.dims; ++i) {
    const Code level = static_cast<Code>(a.plan.levels[b.dim + i]);
    const Code rest = code / level;
    const int row = k * b.dims + i;
    const float* table = a.weights + b.value + static_cast<int64_t>(row) * b.most_levels;
    x[row * kValueLd] = on ? __ldg(table + static_cast<int>(code - rest * level)) : 0.0f;
    code = rest;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(const __grid_constant__ DecodeArguments a) {
  AFFECTCODEC_DYNAMIC_SHARED(memory);
  Shared s;
  divide_shared(memory, kTokens | kBias | words_for(sizeof(T)), a.plan.stages, a.plan.most_rows,
                &s);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kUnit;
  const int64_t total = a.out.batch * a.out.frames;
  const int f = static_cast<int>(threadIdx.x) % kUnit;
  locate_frames(a.out, first, total, s.at_out);
  read_tokens(a, first, total, s.tokens);
  __syncthreads();
  bool bad = false;
  for (int k = 0; k < a.tokens.stages; ++k) bad = bad || s.tokens[k * kUnit + f] < 0;
  for (int g = 0; g < a.plan.blocks; ++g) {
    const BlockPlan& b = a.plan.block[g];
    load_active(a.counts, g, a.tokens.stages, first, total, a.out.frames, s.active);
    __syncthreads();
    for (int k = static_cast<int>(threadIdx.x) / kUnit; k < a.tokens.stages;
         k += kThreads / kUnit) {
      const int64_t token = bad ? 0 : s.tokens[k * kUnit + f];
      const bool on = s.active[f] > k;
      if (a.plan.codebook <= (uint64_t{1} << 31)) {
        write_values<uint32_t>(a, b, token, k, on, s.values + f);
      } else {
        write_values<uint64_t>(a, b, token, k, on, s.values + f);
      }
      if (bad && k == 0) s.values[f] = float_of(0x7fc00000u);
    }
    __syncthreads();
    const Expansion job{a.weights + b.out,
                        a.weights + a.plan.split_out[g],
                        a.weights + b.bias,
                        a.plan.stages,
                        &a.tokens.stages,
                        &a.out.data,
                        1};
    expand_any<T>(b, job, a.out, s.at_out, s.active, s);
  }
}

}  // namespace cuda
}  // namespace affectcodec

using namespace affectcodec;
using namespace affectcodec::cuda;

extern "C" int affectcodec_cuda_decode(const int64_t* config, int64_t size, const float* weights,
                                       const affectcodec_tokens* tokens,
                                       const affectcodec_counts* counts,
                                       const affectcodec_latent* out, void* stream) {
  DecodeArguments a{};
  int wrong = read_plan(config, size, &a.plan);
  if (wrong == 0) wrong = check_frames(out->batch, out->frames);
  const int64_t units = units_of(out->batch * out->frames);
  if (wrong != 0 || units == 0) return wrong;
  if (tokens->stages < 1 || tokens->stages > a.plan.stages) return AFFECTCODEC_CUDA_VALUE;
  a.weights = weights;
  a.tokens = *tokens;
  a.counts = *counts;
  a.out = view_of(*out, a.plan);
  Shared pieces;
  const int64_t shared = divide_shared(nullptr, kTokens | kBias | words_for(item_size(out->type)),
                                       a.plan.stages, a.plan.most_rows, &pieces);
  switch (out->type) {
    case AFFECTCODEC_FLOAT32:
      return launch("decode", decode_kernel<float>, grid_of(units), kThreads, shared, stream, a);
    case AFFECTCODEC_BFLOAT16:
      return launch("decode", decode_kernel<BFloat16>, grid_of(units), kThreads, shared, stream, a);
    case AFFECTCODEC_FLOAT16:
      return launch("decode", decode_kernel<Float16>, grid_of(units), kThreads, shared, stream, a);
    default:
      return AFFECTCODEC_CUDA_VALUE;
  }
}
