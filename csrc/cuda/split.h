// SPDX-License-Identifier: Apache-2.0
// Weights split for tensor cores: where they lie. They follow the weights of csrc/core/plan.h,
// first those of the projections out of every block, then those in, each as [tiles of 16
// channels][steps of 16 rows][high, low][lane] vectors of 16 bytes.
#pragma once

#include "../core/macros.h"
#include "arguments.h"

namespace affectcodec {
namespace cuda {

AFFECTCODEC_HD int64_t split_steps(const BlockPlan& b) { return (b.rows + 15) / 16; }
AFFECTCODEC_HD int64_t split_tiles(const BlockPlan& b) { return (b.width + 15) / 16; }

// The first vector of a tile and step inside of its block's.
AFFECTCODEC_HD int64_t split_vector(const BlockPlan& b, int64_t tile, int64_t step) {
  return (tile * split_steps(b) + step) * 2 * 32;
}

AFFECTCODEC_HD int64_t split_floats(const BlockPlan& b) {
  return split_vector(b, split_tiles(b), 0) * 4;
}

}  // namespace cuda
}  // namespace affectcodec
