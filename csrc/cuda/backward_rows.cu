// SPDX-License-Identifier: Apache-2.0
// Backward, frame by frame: the gradient of every projection, from it the gradient of the latent,
// and what the sums over frames need.
#include "backward.h"
#include "expand_matrix.cuh"
#include "launching.cuh"
#include "product.cuh"
#include "recurrence.cuh"
#include "shared.h"

namespace affectcodec {
namespace cuda {

// Writes x [rows][kValueLd] as [kUnit][ld_rows], zeros in the padding.
AFFECTCODEC_DEVICE void write_by_frame(const BlockPlan& b, const float* x, float* to) {
  for (int n = static_cast<int>(threadIdx.x); n < kUnit * static_cast<int>(b.ld_rows) / 4;
       n += kThreads) {
    const int f = n % kUnit, row = n / kUnit * 4;
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = row + i < b.rows ? x[(row + i) * kValueLd + f] : 0.0f;
    *reinterpret_cast<float4*>(to + f * b.ld_rows + row) = make_floats(v[0], v[1], v[2], v[3]);
  }
}

// Masked values of the digits, made again from what forward compared.
AFFECTCODEC_DEVICE void restore_values(const Plan& plan, int g, const float* weights,
                                       const float* saved, const int32_t* active, float* x) {
  const BlockPlan& b = plan.block[g];
  const int f = static_cast<int>(threadIdx.x) % kUnit;
  for (int row = static_cast<int>(threadIdx.x) / kUnit; row < b.rows; row += kThreads / kUnit) {
    const int64_t table = static_cast<int64_t>(row) * b.most_levels;
    float value = 0.0f;
    if (active[f] > row / b.dims) {
      const float y = saved[row * kUnit + f];
      const int32_t digit =
          digit_of(y, weights + b.threshold + table, plan.levels[b.dim + row % b.dims]);
      value = y == y ? __ldg(weights + b.value + table + digit) : y;
    }
    x[row * kValueLd + f] = value;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    backward_rows_kernel(const __grid_constant__ BackwardArguments a) {
  AFFECTCODEC_DYNAMIC_SHARED(memory);
  const DevicePlan& plan = a.plan;
  Shared s;
  divide_shared(memory, kSums | words_for(sizeof(T)), plan.stages, plan.most_rows, &s);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t unit = blockIdx.x, first = unit * kUnit;
  const int64_t total = a.z.batch * a.z.frames;
  if (a.dz.data) locate_frames(a.dz, first, total, s.at_out);
  for (int g = 0; g < plan.blocks; ++g) {
    const BlockPlan& b = plan.block[g];
    const float* saved = a.saved + (first * plan.dims + b.dim * kUnit) * plan.stages;
    load_active(a.counts, g, plan.stages, first, total, a.z.frames, s.active);
    __syncthreads();
    restore_values(plan, g, a.weights, saved, s.active, s.values);
    __syncthreads();
    write_by_frame(b, s.values, a.work + a.at[g].v + first * b.ld_rows);
    __syncthreads();
    for (int n = thread; n < b.rows * kUnit; n += kThreads) {
      s.values[n / kUnit * kValueLd + n % kUnit] = 0.0f;
    }
    // The gradient of an output reaches the stages that it is made of.
    for (int i = 0; i < a.outputs; ++i) {
      if (!a.grad[i].data) continue;
      __syncthreads();
      locate_frames(a.grad[i], first, total, s.at);
      __syncthreads();
      project<T>(a.grad[i], s.at, b, a.weights + b.out_t, a.rates[i] * b.dims, true, s.stage,
                 s.values);
    }
    __syncthreads();
    backward_recurrence(plan, g, a.weights, saved, s.active, s.values, s.sums);
    __syncthreads();
    for (int n = thread; n < 2 * b.rows; n += kThreads) {
      float sum = 0.0f;
      for (int w = 0; w < kThreads / 32; ++w) sum += s.sums[w * 2 * b.rows + n];
      a.work[a.at[g].unit_sums + unit * 2 * b.rows + n] = sum;
    }
    write_by_frame(b, s.values, a.work + a.at[g].h + first * b.ld_rows);
    if (a.dz.data) {
      const Expansion job{a.weights + b.in,
                          a.weights + plan.split_in[g],
                          nullptr,
                          plan.stages,
                          &plan.stages,
                          &a.dz.data,
                          1};
      expand_any<T>(b, job, a.dz, s.at_out, s.active, s);
    }
    __syncthreads();
  }
}

int launch_rows(const BackwardArguments& a, void* stream) {
  if (a.units == 0) return 0;
  Shared pieces;
  const int64_t shared = divide_shared(nullptr, kSums | words_for(item_size(a.z.type)),
                                       a.plan.stages, a.plan.most_rows, &pieces);
  const dim3 grid = grid_of(a.units);
  switch (a.z.type) {
    case AFFECTCODEC_FLOAT32:
      return launch("backward_rows", backward_rows_kernel<float>, grid, kThreads, shared, stream,
                    a);
    case AFFECTCODEC_BFLOAT16:
      return launch("backward_rows", backward_rows_kernel<BFloat16>, grid, kThreads, shared, stream,
                    a);
    default:
      return launch("backward_rows", backward_rows_kernel<Float16>, grid, kThreads, shared, stream,
                    a);
  }
}

}  // namespace cuda
}  // namespace affectcodec
