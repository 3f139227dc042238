// SPDX-License-Identifier: Apache-2.0
// Folding of the weights on the device, into the layout of csrc/core/plan.h. Sums are float64 and
// in the order of the CPU kernels, so both fold to the same floats.
#include "../core/fsq.h"
#include "arguments.h"
#include "launching.cuh"
#include "matrix.cuh"
#include "split.h"

namespace affectcodec {
namespace cuda {

struct BlockParameters {
  const float* in;     // [stages, dims, width]
  const float* c;      // [stages, dims]
  const float* out;    // [stages, width, dims]
  const float* e;      // [stages, width]
  const float* logit;  // [stages, dims]
  const float* shift;  // [stages, dims]
};

struct FoldArguments {
  BlockPlan block;
  BlockParameters p;
  float* weights;
  int64_t split_out, split_in;
  int32_t stages, bound;
  int32_t levels[kMaxDims];
};

constexpr int kFoldThreads = 128;

// One block of threads a padded row: the matrices, zero outside of rows and width.
__global__ void __launch_bounds__(kFoldThreads)
    fold_matrices_kernel(const __grid_constant__ FoldArguments a) {
  const BlockPlan& b = a.block;
  const int64_t row = blockIdx.x;
  const bool real = row < b.rows;
  const int64_t stage = row / b.dims, dim = row % b.dims;
  for (int64_t c = threadIdx.x; c < b.ld_width; c += kFoldThreads) {
    const bool inside = real && c < b.width;
    const float w = inside ? a.p.in[row * b.width + c] : 0.0f;
    const float o = inside ? a.p.out[(stage * b.width + c) * b.dims + dim] : 0.0f;
    if (real) {
      a.weights[b.in + row * b.ld_width + c] = w;
      a.weights[b.out + row * b.ld_width + c] = o;
    }
    if (c < b.width) {
      a.weights[b.in_t + c * b.ld_rows + row] = w;
      a.weights[b.out_t + c * b.ld_rows + row] = o;
    }
  }
}

// One block of threads a padded row: G, the constants, thresholds and values.
__global__ void __launch_bounds__(kFoldThreads)
    fold_rows_kernel(const __grid_constant__ FoldArguments a) {
  __shared__ double through[kMaxStages];
  const BlockPlan& b = a.block;
  const int64_t row = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  if (row >= b.rows) {
    for (int m = thread; m <= a.stages; m += kFoldThreads) {
      a.weights[b.offset + m * b.ld_rows + row] = 0.0f;
    }
    if (thread == 0) a.weights[b.scale + row] = 1.0f;
    return;
  }
  const int stage = static_cast<int>(row) / b.dims, prior = stage * b.dims;
  const float* in = a.p.in + row * b.width;
  for (int j = thread; j < b.ld_rows; j += kFoldThreads) {
    double sum = 0.0;
    if (j < prior) {
      const float* out = a.p.out + j / b.dims * b.width * b.dims + j % b.dims;
      for (int64_t c = 0; c < b.width; ++c) {
        sum += static_cast<double>(in[c]) * static_cast<double>(out[c * b.dims]);
      }
    }
    a.weights[b.cross + row * b.ld_rows + j] = static_cast<float>(sum);
  }
  if (thread < stage) {
    double sum = 0.0;
    for (int64_t c = 0; c < b.width; ++c) {
      sum += static_cast<double>(in[c]) * static_cast<double>(a.p.e[thread * b.width + c]);
    }
    through[thread] = sum;
  }
  __syncthreads();
  for (int m = thread; m <= a.stages; m += kFoldThreads) {
    double constant = static_cast<double>(a.p.c[row]) - static_cast<double>(a.p.shift[row]);
    for (int j = 0; j < m && j < stage; ++j) constant -= through[j];
    a.weights[b.offset + m * b.ld_rows + row] = static_cast<float>(constant);
  }
  const double logit = a.p.logit[row];
  const double s = (logit > 20.0 ? logit : log1p(exp(logit))) + 0.1;
  if (thread == 0) a.weights[b.scale + row] = static_cast<float>(s);
  const int32_t level = a.levels[row % b.dims];
  const int64_t table = row * b.most_levels;
  for (int l = thread; l < b.most_levels; l += kFoldThreads) {
    const double edge = (2.0 * l + 1.0 - (level - 1)) / (level - 1);
    const double tau = a.bound == 0 ? atanh(l < level - 1 ? edge : 0.0) : edge;
    const int32_t digit = l < level ? l : level - 1;
    a.weights[b.threshold + table + l] =
        l < level - 1 ? static_cast<float>(tau / s) : float_of(0x7f800000u);
    a.weights[b.grid + table + l] = fsq_value<float>(digit, level);
    a.weights[b.value + table + l] = static_cast<float>(fsq_value<double>(digit, level) / s +
                                                        static_cast<double>(a.p.shift[row]));
  }
}

// One block of threads a tile of 16 channels and a step of 16 rows, one vector a thread: the high
// parts in the first warp, the low ones in the second. The matrices are folded already.
__global__ void __launch_bounds__(64) fold_split_kernel(const __grid_constant__ FoldArguments a) {
  const BlockPlan& b = a.block;
  const bool out = blockIdx.z == 0;
  const float* matrix = a.weights + (out ? b.out : b.in);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const bool high = threadIdx.x < 32;
  const int64_t tile = blockIdx.x, step = blockIdx.y;
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t c = tile * 16 + lane / 4 + i % 2 * 8;
    const int64_t row = step * 16 + lane % 4 * 2 + i / 2 * 8;
    uint16_t half[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const bool inside = c < b.width && row + j < b.rows;
      const Split split = split_of(inside ? matrix[(row + j) * b.ld_width + c] : 0.0f);
      half[j] = high ? split.high : split.low;
    }
    words[i] = static_cast<uint32_t>(half[0]) | static_cast<uint32_t>(half[1]) << 16;
  }
  uint4* to = reinterpret_cast<uint4*>(a.weights + (out ? a.split_out : a.split_in));
  to[split_vector(b, tile, step) + threadIdx.x] =
      make_words(words[0], words[1], words[2], words[3]);
}

// One thread a padded channel: the sums of e over the first m stages.
__global__ void __launch_bounds__(kFoldThreads)
    fold_bias_kernel(const __grid_constant__ FoldArguments a) {
  const BlockPlan& b = a.block;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kFoldThreads + threadIdx.x;
  if (c >= b.ld_width) return;
  double all = 0.0;
  a.weights[b.bias + c] = 0.0f;
  for (int m = 1; m <= a.stages; ++m) {
    if (c < b.width) all += static_cast<double>(a.p.e[(m - 1) * b.width + c]);
    a.weights[b.bias + m * b.ld_width + c] = static_cast<float>(all);
  }
}

}  // namespace cuda
}  // namespace affectcodec

using namespace affectcodec;
using namespace affectcodec::cuda;

extern "C" int affectcodec_cuda_fold(const int64_t* config, int64_t size,
                                     const float* const* params, float* weights, void* stream) {
  DevicePlan plan;
  int wrong = read_plan(config, size, &plan);
  for (int g = 0; g < plan.blocks && wrong == 0; ++g) {
    const float* const* p = params + 6 * g;
    FoldArguments a{};
    a.block = plan.block[g];
    a.p = BlockParameters{p[0], p[1], p[2], p[3], p[4], p[5]};
    a.weights = weights;
    a.stages = plan.stages;
    a.bound = plan.bound;
    for (int i = 0; i < a.block.dims; ++i) a.levels[i] = plan.levels[a.block.dim + i];
    a.split_out = plan.split_out[g];
    a.split_in = plan.split_in[g];
    const dim3 rows = grid_of(a.block.ld_rows);
    wrong = launch("fold_matrices", fold_matrices_kernel, rows, kFoldThreads, 0, stream, a);
    if (wrong == 0) {
      wrong = launch("fold_split", fold_split_kernel,
                     dim3(static_cast<unsigned>(split_tiles(a.block)),
                          static_cast<unsigned>(split_steps(a.block)), 2),
                     64, 0, stream, a);
    }
    if (wrong == 0) wrong = launch("fold_rows", fold_rows_kernel, rows, kFoldThreads, 0, stream, a);
    if (wrong == 0) {
      wrong = launch("fold_bias", fold_bias_kernel,
                     grid_of((a.block.ld_width + kFoldThreads - 1) / kFoldThreads), kFoldThreads, 0,
                     stream, a);
    }
  }
  return wrong;
}
