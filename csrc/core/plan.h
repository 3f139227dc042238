// SPDX-License-Identifier: Apache-2.0
// Shape of a quantizer and the layout of its folded weights; host only, free of torch.
//
// A quantizer is described by integers: {bound (0 tanh, 1 clamp), stages, blocks, and for each
// block: width, code dims, level of each code dim}. Its folded weights are one array of floats, and
// this file is the only place that knows where what lies in it.
#pragma once

#include <stdint.h>

namespace affectcodec {

constexpr int kMaxStages = 64;
constexpr int kMaxBlocks = 63;
constexpr int kMaxDims = 63;    // each dim takes at least one bit of a 63-bit token
constexpr int64_t kAlign = 16;  // floats: one cache line, and one register of the widest kind
constexpr int32_t kMaxLevels = 4096;

inline int64_t padded(int64_t count) { return (count + kAlign - 1) / kAlign * kAlign; }

// One block. `rows` = stages * dims is the number of projections a frame; row k * dims + i belongs
// to stage k, dim i. Offsets are in floats from the start of the folded weights.
struct BlockPlan {
  int64_t width = 0;
  int64_t channel = 0;  // first channel inside the latent
  int32_t dims = 0;
  int32_t dim = 0;  // first dim inside `levels`
  int32_t rows = 0;
  int32_t most_levels = 0;
  int64_t ld_rows = 0;   // padded(rows)
  int64_t ld_width = 0;  // padded(width)

  int64_t in = 0;         // W        [rows][ld_width]
  int64_t in_t = 0;       // W^T      [width][ld_rows]
  int64_t out = 0;        // O^T      [rows][ld_width]
  int64_t out_t = 0;      // O        [width][ld_rows]
  int64_t cross = 0;      // G = W O  [rows][ld_rows], rows of earlier stages only
  int64_t cross_t = 0;    // G^T      [rows][ld_rows]
  int64_t offset = 0;     // [stages + 1][ld_rows]: constant of a row where m stages are active
  int64_t threshold = 0;  // [rows][most_levels], ascending, filled up with +inf
  int64_t value = 0;      // [rows][most_levels]: v of each digit
  int64_t grid = 0;       // [rows][most_levels]: q of each digit
  int64_t scale = 0;      // [ld_rows]: s
  int64_t bias = 0;       // [stages + 1][ld_width]: sum of e over the first m stages
};

struct Plan {
  int32_t bound = 0;
  int32_t stages = 0;
  int32_t blocks = 0;
  int32_t dims = 0;
  int64_t width = 0;
  int64_t floats = 0;     // size of the folded weights
  uint64_t codebook = 1;  // up to 2^63
  int64_t widest = 0;     // most padded rows of any block
  BlockPlan block[kMaxBlocks];
  int32_t levels[kMaxDims];
  int64_t base[kMaxDims];  // place value of each dim inside the token

  bool wide() const { return codebook > (uint64_t{1} << 31); }
};

// Reads a description; returns null where it is sound, otherwise what is wrong with it.
inline const char* make_plan(const int64_t* config, int64_t size, Plan* plan) {
  if (size < 3) return "config: wanted at least bound, stages and blocks";
  if (config[0] != 0 && config[0] != 1) return "config: bound must be 0 (tanh) or 1 (clamp)";
  if (config[1] < 1 || config[1] > kMaxStages) return "config: stages must lie in 1..64";
  if (config[2] < 1 || config[2] > kMaxBlocks) return "config: blocks must lie in 1..63";
  plan->bound = static_cast<int32_t>(config[0]);
  plan->stages = static_cast<int32_t>(config[1]);
  plan->blocks = static_cast<int32_t>(config[2]);
  int64_t at = 3, floats = 0;
  const auto take = [&floats](int64_t count) {
    const int64_t start = floats;
    floats += padded(count);
    return start;
  };
  for (int32_t g = 0; g < plan->blocks; ++g) {
    BlockPlan& b = plan->block[g];
    if (at + 2 > size) return "config: ends inside a block";
    if (config[at] < 1 || config[at] > (int64_t{1} << 31)) {
      return "config: the width of a block must lie in 1..2**31";
    }
    if (config[at + 1] < 1 || config[at + 1] + plan->dims > kMaxDims) {
      return "config: all blocks together must have 1..63 code dims";
    }
    b.width = config[at];
    b.dims = static_cast<int32_t>(config[at + 1]);
    at += 2;
    if (at + b.dims > size) return "config: ends inside the levels of a block";
    b.channel = plan->width;
    b.dim = plan->dims;
    for (int32_t i = 0; i < b.dims; ++i, ++at) {
      if (config[at] < 2 || config[at] > kMaxLevels) return "config: levels must lie in 2..4096";
      const uint64_t level = static_cast<uint64_t>(config[at]);
      if (plan->codebook > (uint64_t{1} << 63) / level) {
        return "config: the codebook exceeds 2**63 entries";
      }
      plan->levels[b.dim + i] = static_cast<int32_t>(level);
      // A place value of 2^63 can only belong to a dim that no plan gets past the check above.
      plan->base[b.dim + i] = static_cast<int64_t>(plan->codebook);
      plan->codebook *= level;
      if (b.most_levels < static_cast<int32_t>(level)) b.most_levels = static_cast<int32_t>(level);
    }
    plan->dims += b.dims;
    plan->width += b.width;
    b.rows = plan->stages * b.dims;
    b.ld_rows = padded(b.rows);
    b.ld_width = padded(b.width);
    if (plan->widest < b.ld_rows) plan->widest = b.ld_rows;
    b.in = take(b.rows * b.ld_width);
    b.in_t = take(b.width * b.ld_rows);
    b.out = take(b.rows * b.ld_width);
    b.out_t = take(b.width * b.ld_rows);
    b.cross = take(b.rows * b.ld_rows);
    b.cross_t = take(b.rows * b.ld_rows);
    b.offset = take((plan->stages + 1) * b.ld_rows);
    b.threshold = take(static_cast<int64_t>(b.rows) * b.most_levels);
    b.value = take(static_cast<int64_t>(b.rows) * b.most_levels);
    b.grid = take(static_cast<int64_t>(b.rows) * b.most_levels);
    b.scale = take(b.ld_rows);
    b.bias = take((plan->stages + 1) * b.ld_width);
  }
  if (at != size) return "config: longer than its blocks";
  plan->floats = floats;
  return nullptr;
}

}  // namespace affectcodec
