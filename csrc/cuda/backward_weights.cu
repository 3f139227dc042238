// SPDX-License-Identifier: Apache-2.0
// Backward, summed over the frames of a slab: h z for the projections in, v g for those out, and g
// itself. A block of threads has 64 channels of one of the two.
#include "launching.cuh"
#include "slab.cuh"

namespace affectcodec {
namespace cuda {

template <typename T>
__global__ void __launch_bounds__(kThreads)
    backward_weights_kernel(const __grid_constant__ BackwardArguments a) {
  AFFECTCODEC_DYNAMIC_SHARED(memory);
  SlabShared s;
  divide_slab_shared(memory, a.plan.stages, &s);
  const int thread = static_cast<int>(threadIdx.x);
  int g = 0;
  int64_t tile = blockIdx.x;
  for (; tile >= 2 * ((a.plan.block[g].width + kUnit - 1) / kUnit); ++g) {
    tile -= 2 * ((a.plan.block[g].width + kUnit - 1) / kUnit);
  }
  const BlockPlan& b = a.plan.block[g];
  const BlockWork& at = a.at[g];
  const int64_t channel = tile / 2 * kUnit;
  const bool out = tile % 2 != 0;
  const Slab slab(a);
  float* partial = a.work + a.partial + static_cast<int64_t>(blockIdx.y) * a.slab_floats;
  const int64_t left = b.ld_width - channel;

  if (!out) {
    FrameTiles<T> tiles{a, a.z, slab, s, g, b.channel + channel, b.channel + b.width, 0, {}};
    const auto begin = [&](bool) {
      locate_unit(a, a.z, g, slab, 0, s);
      __syncthreads();
    };
    sum_rows(a.work + at.h + slab.first * b.ld_rows, b, slab, b.rows, false, tiles, begin, s.stage,
             partial + at.in + channel, b.ld_width, left);
    return;
  }

  for (int n = thread; n < (a.plan.stages + 1) * kUnit; n += kThreads) s.sums[n] = 0.0f;
  int last = a.outputs - 1;
  while (last >= 0 && !a.grad[last].data) --last;
  const int reached = last < 0 ? 0 : a.rates[last] * b.dims;
  for (int n = reached * (kUnit / 4) + thread; n < b.rows * (kUnit / 4); n += kThreads) {
    const int row = n / (kUnit / 4), column = n % (kUnit / 4) * 4;
    if (column < left) {
      *reinterpret_cast<float4*>(partial + at.out + row * b.ld_width + channel + column) =
          make_floats(0.0f, 0.0f, 0.0f, 0.0f);
    }
  }
  // From the output of the most stages down: it sets the rows that the others add to.
  for (int i = last; i >= 0; --i) {
    if (!a.grad[i].data) continue;
    FrameTiles<T> tiles{a, a.grad[i], slab, s, g, b.channel + channel, b.channel + b.width, 0, {}};
    const auto begin = [&](bool first) {
      __syncthreads();
      locate_unit(a, a.grad[i], g, slab, 0, s);
      tiles.rate = first ? a.rates[i] : 0;
      __syncthreads();
    };
    sum_rows(a.work + at.v + slab.first * b.ld_rows, b, slab, a.rates[i] * b.dims, i != last, tiles,
             begin, s.stage, partial + at.out + channel, b.ld_width, left);
  }
  __syncthreads();
  for (int n = thread; n < (a.plan.stages + 1) * kUnit; n += kThreads) {
    if (n % kUnit < left) {
      partial[at.bias + n / kUnit * b.ld_width + channel + n % kUnit] = s.sums[n];
    }
  }
}

int launch_weights(const BackwardArguments& a, void* stream) {
  int64_t tiles = 0;
  for (int g = 0; g < a.plan.blocks; ++g) {
    tiles += 2 * ((a.plan.block[g].width + kUnit - 1) / kUnit);
  }
  SlabShared pieces;
  const int64_t shared = divide_slab_shared(nullptr, a.plan.stages, &pieces);
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(a.slabs));
  switch (a.z.type) {
    case AFFECTCODEC_FLOAT32:
      return launch("backward_weights", backward_weights_kernel<float>, grid, kThreads, shared,
                    stream, a);
    case AFFECTCODEC_BFLOAT16:
      return launch("backward_weights", backward_weights_kernel<BFloat16>, grid, kThreads, shared,
                    stream, a);
    default:
      return launch("backward_weights", backward_weights_kernel<Float16>, grid, kThreads, shared,
                    stream, a);
  }
}

}  // namespace cuda
}  // namespace affectcodec
