// SPDX-License-Identifier: Apache-2.0
// Encoding of a few frames, as a stream brings them. With frames side by side most of each vector
// would be empty, so here the rows of one frame share a vector. Every number comes out of the same
// operations in the same order as in the recurrence over lanes.
#include "entry.h"
#include "frames.h"
#include "product.h"
#include "recurrence.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {
namespace {

// Digits of one block, added to the tokens of all stages; `x` holds the projections [ld_rows].
// Returns whether one of them was NaN.
bool encode_block(const Plan& plan, const BlockPlan& b, const float* weights, float* x,
                  int64_t* tokens) {
  const int dims = b.dims;
  const float* offset = weights + b.offset + plan.stages * b.ld_rows;
  for (int64_t row = 0; row < b.ld_rows; row += kLanes) {
    store(x + row, load(x + row) + load(offset + row));
  }
  bool nan = false;
  for (int k = 0; k < plan.stages; ++k) {
    float v[kMaxDims];
    for (int i = 0; i < dims; ++i) {
      const int row = k * dims + i;
      const int32_t levels = plan.levels[b.dim + i];
      const int64_t table = static_cast<int64_t>(row) * b.most_levels;
      const int32_t digit = digit_of_one(x[row], weights + b.threshold + table, levels);
      const bool known = x[row] == x[row];
      v[i] = known ? weights[b.value + table + digit] : x[row];
      nan = nan || !known;
      tokens[k] += digit * plan.base[b.dim + i];
    }
    // The rows of this stage may be changed as well: they have been read.
    const int later = (k + 1) * dims;
    const float* cross = weights + b.cross_t + static_cast<int64_t>(k) * dims * b.ld_rows;
    for (int row = later / kLanes * kLanes; row < b.rows; row += kLanes) {
      Floats sum = load(x + row);
      for (int i = 0; i < dims; ++i) sum = sum - load(cross + i * b.ld_rows + row) * fill(v[i]);
      store(x + row, sum);
    }
  }
  return nan;
}

}  // namespace

bool encode_few(const EncodeJob& job, float* scratch) {
  const Plan& plan = *job.plan;
  const View& z = job.z;
  if (z.total() > kFewFrames || !by_rows(z) || z.type != Type::kFloat32 || job.outputs ||
      job.saved || job.counts.data) {
    return false;
  }
  const Scratch s = plan_scratch(plan);
  float* x = scratch + s.rows;
  for (int64_t n = 0; n < z.total(); ++n) {
    const int64_t b = n / z.frames, t = n % z.frames;
    const float* frame = static_cast<const float*>(z.data) + b * z.stride_b + t * z.stride_t;
    int64_t tokens[kMaxStages] = {};
    bool nan = false;
    for (int g = 0; g < plan.blocks; ++g) {
      const BlockPlan& block = plan.block[g];
      const float* from = frame + block.channel;
      const int64_t whole = block.width / kChunk * kChunk;
      product_row(from, job.weights + block.in_t, block.ld_rows, vectors_for(block.rows), kChunk,
                  block.width / kChunk, x);
      if (whole < block.width) {
        product(rows_at(from + whole, 0), 1, 1, job.weights + block.in_t + whole * block.ld_rows,
                block.ld_rows, vectors_for(block.rows), static_cast<int>(block.width - whole), x,
                block.ld_rows, whole ? Start::kAdd : Start::kZero);
      }
      nan = encode_block(plan, block, job.weights, x, tokens) || nan;
    }
    if (nan) {
      // Infinities that cancel make a NaN too; only one in the frame itself makes it unusable.
      nan = false;
      for (int64_t c = 0; c < plan.width; ++c) nan = nan || frame[c] != frame[c];
    }
    const TokenView& v = job.tokens;
    for (int k = 0; k < plan.stages; ++k) {
      const int64_t at = b * v.stride_b + k * v.stride_k + t * v.stride_t;
      const int64_t token = nan ? -1 : tokens[k];
      if (v.wide) {
        static_cast<int64_t*>(v.data)[at] = token;
      } else {
        static_cast<int32_t*>(v.data)[at] = static_cast<int32_t>(token);
      }
    }
  }
  return true;
}

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
