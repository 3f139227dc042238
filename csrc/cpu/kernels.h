// SPDX-License-Identifier: Apache-2.0
// What every instruction set implements, and how one is chosen.
//
// Frames are numbered n = b * T + t and worked on in units of 64. A unit is the smallest piece of
// work: whatever the thread count, a frame's numbers come out of the same operations in the same
// order.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../core/plan.h"

namespace affectcodec {
namespace cpu {

constexpr int kUnit = 64;    // frames
constexpr int kChunk = 128;  // channels of one partial sum; part of the reduction order
constexpr int kMaxSlabs = 32;
constexpr int kFewFrames = 3;  // fewer than share weights in registers

enum class Type : int32_t { kFloat32, kBFloat16, kFloat16 };

// A tensor [batch, frames, channels] in any memory order; strides in elements.
struct View {
  void* data = nullptr;
  Type type = Type::kFloat32;
  bool stream = false;  // an output too large to stay in the caches
  int64_t batch = 0, frames = 0, channels = 0;
  int64_t stride_b = 0, stride_t = 0, stride_d = 0;

  int64_t total() const { return batch * frames; }
};

// Active stages of each sample and block, [batch, blocks] or [batch, blocks, frames]; all stages
// where data is null.
struct Counts {
  const int64_t* data = nullptr;
  int64_t stride_b = 0, stride_g = 0, stride_t = 0;
};

struct TokenView {
  void* data = nullptr;
  bool wide = false;  // int64, otherwise int32
  int64_t stride_b = 0, stride_k = 0, stride_t = 0;
};

struct EncodeJob {
  const Plan* plan;
  const float* weights;
  View z;
  TokenView tokens;
  // Forward only:
  Counts counts;
  float* saved = nullptr;          // [units][sum of rows][kUnit]
  int outputs = 0;                 // 0 when encoding
  const int32_t* rates = nullptr;  // ascending, the last one is all stages
  const View* out = nullptr;
};

struct DecodeJob {
  const Plan* plan;
  const float* weights;
  TokenView tokens;
  int32_t stages;  // stages that the tokens hold
  Counts counts;
  View out;
  int64_t* refused;  // [2]: set to {1, token} by any token outside the codebook
};

struct BackwardJob {
  const Plan* plan;
  const float* weights;
  View z;
  const float* saved;
  Counts counts;
  int outputs;
  const int32_t* rates;
  const View* grad;  // data is null where an output has no gradient
  View dz;           // data is null where it is not wanted
  float* partial;    // [slabs][partial_floats(plan, outputs, rates)], zeroed by the kernel
  int64_t slabs;
};

// Where the partial sums of one block lie inside those of a slab.
struct PartialPlan {
  int64_t in_t = 0;   // [width][ld_rows]: z^T h
  int64_t out_t = 0;  // [width][group_ld]: g^T v, the rows of each group of stages by itself
  int64_t group_ld = 0;
  int64_t hv = 0;     // [rows][ld_rows]: v^T h
  int64_t h = 0;      // [stages + 1][ld_rows]: sum of h over frames with m active stages
  int64_t back = 0;   // [ld_rows]: sum of dL/dv
  int64_t scale = 0;  // [ld_rows]: sum of dL/dv (slope y - q)
  int64_t bias = 0;   // [stages + 1][ld_width]: sum of g over frames with m active stages
};

// Gradients of one block, contiguous.
struct BlockGradients {
  float* in;     // [stages, dims, width]
  float* c;      // [stages, dims]
  float* out;    // [stages, width, dims]
  float* e;      // [stages, width]
  float* logit;  // [stages, dims]
  float* shift;  // [stages, dims]
};

struct BlockParameters {
  const float* in;
  const float* c;
  const float* out;
  const float* e;
  const float* logit;
  const float* shift;
};

inline int64_t units_of(int64_t frames) { return (frames + kUnit - 1) / kUnit; }

inline int64_t total_rows(const Plan& plan) {
  return static_cast<int64_t>(plan.stages) * plan.dims;
}

// The first row of group i of a block, where group i are the stages from rate i-1 to rate i.
inline int64_t group_row(const BlockPlan& b, const int32_t* rates, int i) {
  return i == 0 ? 0 : static_cast<int64_t>(rates[i - 1]) * b.dims;
}

inline int64_t plan_partials(const Plan& plan, int outputs, const int32_t* rates,
                             PartialPlan* block) {
  int64_t floats = 0;
  for (int g = 0; g < plan.blocks; ++g) {
    const BlockPlan& b = plan.block[g];
    PartialPlan p;
    for (int i = 0; i < outputs; ++i) {
      p.group_ld += padded(group_row(b, rates, i + 1) - group_row(b, rates, i));
    }
    const auto take = [&floats](int64_t count) {
      const int64_t start = floats;
      floats += padded(count);
      return start;
    };
    p.in_t = take(b.width * b.ld_rows);
    p.out_t = take(b.width * p.group_ld);
    p.hv = take(b.rows * b.ld_rows);
    p.h = take((plan.stages + 1) * b.ld_rows);
    p.back = take(b.ld_rows);
    p.scale = take(b.ld_rows);
    p.bias = take((plan.stages + 1) * b.ld_width);
    if (block) block[g] = p;
  }
  return floats;
}

// Working memory of one thread, in floats, aligned to a cache line.
struct Scratch {
  int64_t chunk, chunk2, rows, rows2, lanes, lanes2, lanes3, lanes4, lanes5, tokens, floats;
};

inline Scratch plan_scratch(const Plan& plan) {
  Scratch s{};
  const auto take = [&s](int64_t count) {
    const int64_t start = s.floats;
    s.floats += padded(count);
    return start;
  };
  // Room for the whole vectors that a product of an odd number of rows writes.
  const int64_t tile = kUnit * (plan.widest + kAlign);
  s.chunk = take(kUnit * kChunk);
  s.chunk2 = take(kUnit * kChunk);
  s.rows = take(tile);
  s.rows2 = take(tile + kUnit * kAlign * plan.stages);
  s.lanes = take(tile);
  s.lanes2 = take(tile);
  s.lanes3 = take(tile);
  s.lanes4 = take(tile);
  s.lanes5 = take(tile);
  s.tokens = take(2 * kUnit * plan.stages);
  return s;
}

// Kernels of one instruction set. Those that take a range may be called for disjoint ranges at the
// same time, each call with scratch of its own.
struct Kernels {
  const char* name;
  void (*fold)(const Plan&, int block, const BlockParameters&, float* weights);
  void (*encode)(const EncodeJob&, int64_t unit_begin, int64_t unit_end, float* scratch);
  void (*decode)(const DecodeJob&, int64_t unit_begin, int64_t unit_end, float* scratch);
  void (*backward)(const BackwardJob&, int64_t slab_begin, int64_t slab_end, float* scratch);
  // Adds up the slabs into the first one, for floats begin..end of it.
  void (*reduce)(float* partial, int64_t stride, int64_t slabs, int64_t begin, int64_t end);
  // The gradients of one block from the sums; `work` has rows * ld_width floats.
  void (*finish)(const BackwardJob&, int block, const float* logit, const float* e,
                 const BlockGradients&, float* work);
  // Tokens of given projections [frames][sum of rows], for tests: equal on every machine.
  void (*codes)(const Plan&, const float* weights, const float* projections, int64_t frames,
                int64_t* tokens, float* scratch);
};

// The kernels of this process: those that AFFECTCODEC_CPU_ISA names (scalar, avx2, avx512),
// otherwise the best ones the machine can run. Null where the name is unknown, not built or not
// supported; `why` then says which.
const Kernels* choose_kernels(const char* asked, const char** why);

// choose_kernels with the environment, decided once.
const Kernels* kernels(const char** why);

}  // namespace cpu
}  // namespace affectcodec
