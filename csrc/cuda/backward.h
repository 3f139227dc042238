// SPDX-License-Identifier: Apache-2.0
// What the kernels of backward share: their arguments, and where what lies in the working memory.
//
// First stage: gradients of projections h and values v of each frame (backward_rows), then for a
// fixed share of the frames, a slab, the sums over it (backward_weights). Second stage: the slabs
// are added in order and made into the gradients (gradients). Which frames form a slab follows from
// their number alone and nothing is added atomically, so gradients repeat to the last bit.
#pragma once

#include "arguments.h"

namespace affectcodec {
namespace cuda {

// Offsets in floats. What depends on frames comes first, then the sums of each slab.
struct BlockWork {
  int64_t h, v;       // [units * kUnit][ld_rows]
  int64_t unit_sums;  // [units][2][rows]: of dL/dv and of dL/dv (slope y - q)
  // Inside of a slab:
  int64_t in;     // [rows][ld_width]: sum of h z
  int64_t out;    // [rows][ld_width]: sum of v g
  int64_t bias;   // [stages + 1][ld_width]: sum of g over frames with m active stages
  int64_t cross;  // [rows][ld_rows]: sum of v h
  int64_t h_sum;  // [stages + 1][ld_rows]: sum of h over frames with m active stages
  int64_t back;   // [ld_rows]: sum of dL/dv
  int64_t scale;  // [ld_rows]: sum of dL/dv (slope y - q)
};

struct BackwardArguments {
  DevicePlan plan;
  const float* weights;
  float* work;
  const float* saved;
  View z, dz;
  Counts counts;
  int64_t units, slabs;
  int64_t partial, slab_floats;  // slab s starts at work + partial + s * slab_floats
  BlockWork at[kMaxBlocks];
  View grad[kMaxStages];
  int32_t rates[kMaxStages];
  int32_t outputs;
};

// Divides the working memory; returns the floats that it takes.
inline int64_t divide_work(const Plan& plan, int64_t frames, BackwardArguments* a) {
  a->units = units_of(frames);
  a->slabs = a->units < 1 ? 1 : a->units < kMaxSlabs ? a->units : kMaxSlabs;
  int64_t floats = 0;
  const auto take = [&floats](int64_t count) {
    const int64_t start = floats;
    floats += padded(count);
    return start;
  };
  for (int g = 0; g < plan.blocks; ++g) {
    const BlockPlan& b = plan.block[g];
    a->at[g].h = take(a->units * kUnit * b.ld_rows);
    a->at[g].v = take(a->units * kUnit * b.ld_rows);
    a->at[g].unit_sums = take(a->units * 2 * b.rows);
  }
  a->partial = floats;
  for (int g = 0; g < plan.blocks; ++g) {
    const BlockPlan& b = plan.block[g];
    a->at[g].in = take(b.rows * b.ld_width) - a->partial;
    a->at[g].out = take(b.rows * b.ld_width) - a->partial;
    a->at[g].bias = take((plan.stages + 1) * b.ld_width) - a->partial;
    a->at[g].cross = take(b.rows * b.ld_rows) - a->partial;
    a->at[g].h_sum = take((plan.stages + 1) * b.ld_rows) - a->partial;
    a->at[g].back = take(b.ld_rows) - a->partial;
    a->at[g].scale = take(b.ld_rows) - a->partial;
  }
  a->slab_floats = floats - a->partial;
  return a->partial + a->slabs * a->slab_floats;
}

struct BlockGradients {
  float* in;     // [stages, dims, width]
  float* c;      // [stages, dims]
  float* out;    // [stages, width, dims]
  float* e;      // [stages, width]
  float* logit;  // [stages, dims]
  float* shift;  // [stages, dims]
};

// Launchers of the steps, in order.
int launch_rows(const BackwardArguments& a, void* stream);
int launch_weights(const BackwardArguments& a, void* stream);
int launch_cross(const BackwardArguments& a, void* stream);
int launch_gradients(const BackwardArguments& a, const float* const* params, float* const* found,
                     void* stream);

}  // namespace cuda
}  // namespace affectcodec
