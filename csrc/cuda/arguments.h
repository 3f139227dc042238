// SPDX-License-Identifier: Apache-2.0
// What the kernels take, and sizes that launchers and kernels have to agree on.
#pragma once

#include <stdint.h>

#include "../core/plan.h"
#include "launch.h"

namespace affectcodec {
namespace cuda {

constexpr int kUnit = 64;      // frames of one block of threads; also of the values saved
constexpr int kThreads = 128;  // four warps, each of which owns 16 frames in the recurrence
constexpr int kWarpFrames = 16;
constexpr int kDepth = 16;          // channels, or frames, of one step of a product
constexpr int kChain = 128;         // of one chain of multiply-adds, as on the CPU
constexpr int kTileLd = kUnit + 4;  // floats from one row of a tile to the next
constexpr int kMostRows = 64;       // rows that one pass of a product makes
// Rows of values in shared memory. 80 puts two neighbouring rows into different banks.
constexpr int kValueLd = kUnit + 16;
constexpr int kStageFloats = kUnit * kTileLd;
static_assert(kStageFloats >= 2 * (kDepth * kTileLd + kDepth * kMostRows),
              "two steps of a product");
static_assert(kStageFloats >= kMostRows * kUnit, "rows of one slab of an expansion");
constexpr int kMaxSlabs = 32;
// Words from one pair of rows to the next where values are split; avoids bank conflicts.
constexpr int kPairLd = kUnit + 8;

// Which way a thread may take 16 bytes of a tensor at once.
enum Along : int32_t { kNothing = 0, kFrames = 1, kChannels = 2 };

struct View {
  void* data;
  int64_t batch, frames;
  int64_t stride_b, stride_t, stride_d;
  int32_t type;
  int32_t along;
};

using Tokens = affectcodec_tokens;
using Counts = affectcodec_counts;

// A plan and what only the device asks of it.
struct DevicePlan : Plan {
  int64_t most_rows = 0;          // of any block
  int64_t all_floats = 0;         // of the folded weights, those split for tensor cores included
  int64_t split_out[kMaxBlocks];  // offsets of the split weights, see split.h
  int64_t split_in[kMaxBlocks];
};

struct EncodeArguments {
  DevicePlan plan;
  const float* weights;
  View z;
  Tokens tokens;
};

struct ForwardArguments {
  EncodeArguments encode;
  Counts counts;
  float* saved;
  View out;
  void* to[kMaxStages];
  int32_t rates[kMaxStages];
  int32_t outputs;
};

struct DecodeArguments {
  DevicePlan plan;
  const float* weights;
  Tokens tokens;
  Counts counts;
  View out;
};

inline int64_t units_of(int64_t frames) { return (frames + kUnit - 1) / kUnit; }

inline int64_t item_size(int32_t type) { return type == AFFECTCODEC_FLOAT32 ? 4 : 2; }

// Elements of `type` in 16 bytes.
inline int64_t lanes_of(int32_t type) { return type == AFFECTCODEC_FLOAT32 ? 4 : 8; }

// The view with the widest access that its address, strides and all block borders allow.
View view_of(const affectcodec_latent& t, const Plan& plan);

int read_plan(const int64_t* config, int64_t size, DevicePlan* plan);

// What encode and forward have in common; checks types and that one launch can number the frames.
int fill_encode(const int64_t* config, int64_t size, const float* weights,
                const affectcodec_latent& z, const affectcodec_tokens& tokens, EncodeArguments* a);

int check_frames(int64_t batch, int64_t frames);
int check_rates(const Plan& plan, const int32_t* rates, int32_t outputs);

}  // namespace cuda
}  // namespace affectcodec
