// SPDX-License-Identifier: Apache-2.0
// Backward, from sums to gradients: the small products of values and projections, the slabs added
// up in order, and the formulas of section 3 of docs/design.md.
#include "launching.cuh"
#include "slab.cuh"

namespace affectcodec {
namespace cuda {

// v h, h and the sums of each unit over a slab; a block of threads has 64 of the columns.
__global__ void __launch_bounds__(kThreads)
    backward_cross_kernel(const __grid_constant__ BackwardArguments a) {
  AFFECTCODEC_DYNAMIC_SHARED(memory);
  SlabShared s;
  divide_slab_shared(memory, a.plan.stages, &s);
  const int thread = static_cast<int>(threadIdx.x);
  int g = 0;
  int64_t tile = blockIdx.x;
  for (; tile >= (a.plan.block[g].ld_rows + kUnit - 1) / kUnit; ++g) {
    tile -= (a.plan.block[g].ld_rows + kUnit - 1) / kUnit;
  }
  const BlockPlan& b = a.plan.block[g];
  const BlockWork& at = a.at[g];
  const Slab slab(a);
  float* partial = a.work + a.partial + static_cast<int64_t>(blockIdx.y) * a.slab_floats;
  const int64_t column = tile * kUnit, left = b.ld_rows - column;
  for (int n = thread; n < (a.plan.stages + 1) * kUnit; n += kThreads) s.sums[n] = 0.0f;
  const float* h = a.work + at.h + slab.first * b.ld_rows;
  RowTiles tiles{a, slab, s, g, h + column, b.ld_rows, left, false, {}};
  const auto begin = [&](bool first) {
    __syncthreads();
    locate_unit(a, a.z, g, slab, 0, s);
    tiles.add = first;
    __syncthreads();
  };
  sum_rows(a.work + at.v + slab.first * b.ld_rows, b, slab, b.rows, false, tiles, begin, s.stage,
           partial + at.cross + column, b.ld_rows, left);
  __syncthreads();
  for (int n = thread; n < (a.plan.stages + 1) * kUnit; n += kThreads) {
    if (n % kUnit < left) {
      partial[at.h_sum + n / kUnit * b.ld_rows + column + n % kUnit] = s.sums[n];
    }
  }
  for (int n = thread; n < 2 * kUnit; n += kThreads) {
    const int64_t row = column + n % kUnit;
    if (row >= b.ld_rows) continue;
    const int which = n / kUnit;
    float sum = 0.0f;
    if (row < b.rows) {
      const float* from = a.work + at.unit_sums + which * b.rows + row;
      for (int64_t u = slab.first / kUnit; u < (slab.first + slab.frames) / kUnit; ++u) {
        sum += from[u * 2 * b.rows];
      }
    }
    partial[(which == 0 ? at.back : at.scale) + row] = sum;
  }
}

int launch_cross(const BackwardArguments& a, void* stream) {
  int64_t tiles = 0;
  for (int g = 0; g < a.plan.blocks; ++g) tiles += (a.plan.block[g].ld_rows + kUnit - 1) / kUnit;
  SlabShared pieces;
  const int64_t shared = divide_slab_shared(nullptr, a.plan.stages, &pieces);
  return launch("backward_cross", backward_cross_kernel,
                dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(a.slabs)), kThreads,
                shared, stream, a);
}

constexpr int kReduceThreads = 256;

// Adds the slabs into the first one; every thread adds its numbers in the order of the slabs.
__global__ void __launch_bounds__(kReduceThreads)
    reduce_kernel(float* partial, int64_t floats, int64_t slabs) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kReduceThreads * 4;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kReduceThreads + threadIdx.x) * 4;
       i < floats; i += step) {
    float4 sum = load_floats(partial + i);
#pragma unroll 4
    for (int64_t s = 1; s < slabs; ++s) {
      const float4 x = load_floats(partial + s * floats + i);
      sum = make_floats(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w);
    }
    *reinterpret_cast<float4*>(partial + i) = sum;
  }
}

struct FinishArguments {
  BlockPlan block;
  BlockWork at;
  BlockGradients to;
  const float* weights;
  const float* sums;
  const float* e;
  const float* logit;
  int32_t stages;
};

// One stage and 128 channels a block of threads, one channel a thread.
__global__ void __launch_bounds__(kThreads)
    finish_kernel(const __grid_constant__ FinishArguments a) {
  AFFECTCODEC_DYNAMIC_SHARED(memory);
  const BlockPlan& b = a.block;
  const int thread = static_cast<int>(threadIdx.x);
  const int dims = b.dims, rows = b.rows, stage = static_cast<int>(blockIdx.y);
  const int first = stage * dims, later = first + dims;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kThreads + thread;
  // Sums of h over the frames in which stage j was active: of this stage's rows for each earlier j,
  // of all later rows for this stage.
  float* const earlier = reinterpret_cast<float*>(memory);  // [dims][stages]
  float* const here = earlier + dims * a.stages;            // [rows]
  for (int n = thread; n < dims * stage; n += kThreads) {
    const int i = n / stage, j = n % stage;
    float sum = 0.0f;
    for (int m = a.stages; m > j; --m) sum += a.sums[a.at.h_sum + m * b.ld_rows + first + i];
    earlier[i * a.stages + j] = sum;
  }
  for (int row = later + thread; row < rows; row += kThreads) {
    float sum = 0.0f;
    for (int m = a.stages; m > stage; --m) sum += a.sums[a.at.h_sum + m * b.ld_rows + row];
    here[row] = sum;
  }
  __syncthreads();

  if (blockIdx.x == 0 && thread < dims) {
    const int row = first + thread;
    float all = 0.0f;
    for (int m = a.stages; m >= 0; --m) all += a.sums[a.at.h_sum + m * b.ld_rows + row];
    const float s = a.weights[b.scale + row];
    a.to.c[row] = all;
    a.to.shift[row] = a.sums[a.at.back + row] - all;
    a.to.logit[row] = a.sums[a.at.scale + row] / (s * s) / (1.0f + expf(-a.logit[row]));
  }
  if (c >= b.width) return;
  for (int i = 0; i < dims; ++i) {
    const int row = first + i;
    float in = a.sums[a.at.in + row * b.ld_width + c];
    float through = 0.0f;
    for (int j = 0; j < first; ++j) {
      through = __fmaf_rn(a.sums[a.at.cross + j * b.ld_rows + row],
                          a.weights[b.out + j * b.ld_width + c], through);
    }
    in -= through;
    for (int j = 0; j < stage; ++j) {
      in = __fmaf_rn(-earlier[i * a.stages + j], a.e[j * b.width + c], in);
    }
    a.to.in[row * b.width + c] = in;

    through = 0.0f;
    for (int j = later; j < rows; ++j) {
      through = __fmaf_rn(a.sums[a.at.cross + row * b.ld_rows + j],
                          a.weights[b.in + j * b.ld_width + c], through);
    }
    a.to.out[(stage * b.width + c) * dims + i] = a.sums[a.at.out + row * b.ld_width + c] - through;
  }
  float e = 0.0f;
  for (int m = a.stages; m > stage; --m) e += a.sums[a.at.bias + m * b.ld_width + c];
  for (int row = later; row < rows; ++row) {
    e = __fmaf_rn(-here[row], a.weights[b.in + row * b.ld_width + c], e);
  }
  a.to.e[stage * b.width + c] = e;
}

int launch_gradients(const BackwardArguments& a, const float* const* params, float* const* found,
                     void* stream) {
  float* partial = a.work + a.partial;
  const int64_t vectors = (a.slab_floats / 4 + kReduceThreads - 1) / kReduceThreads;
  int wrong = 0;
  if (a.slabs > 1) {
    wrong = launch("backward_reduce", reduce_kernel, grid_of(vectors < 2048 ? vectors : 2048),
                   kReduceThreads, 0, stream, partial, a.slab_floats, a.slabs);
  }
  for (int g = 0; g < a.plan.blocks && wrong == 0; ++g) {
    const BlockPlan& b = a.plan.block[g];
    const float* const* p = params + 6 * g;
    float* const* to = found + 6 * g;
    FinishArguments f{};
    f.block = b;
    f.at = a.at[g];
    f.to = BlockGradients{to[0], to[1], to[2], to[3], to[4], to[5]};
    f.weights = a.weights;
    f.sums = partial;
    f.e = p[3];
    f.logit = p[4];
    f.stages = a.plan.stages;
    const dim3 grid(static_cast<unsigned>((b.width + kThreads - 1) / kThreads),
                    static_cast<unsigned>(a.plan.stages));
    wrong = launch("backward_finish", finish_kernel, grid, kThreads, 2 * b.rows * 4, stream, f);
  }
  return wrong;
}

}  // namespace cuda
}  // namespace affectcodec
