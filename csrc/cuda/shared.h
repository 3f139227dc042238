// SPDX-License-Identifier: Apache-2.0
// How a kernel divides its dynamic shared memory. Launchers ask for the size, kernels for the
// pieces; both run the same lines.
#pragma once

#include "../core/macros.h"
#include "arguments.h"

namespace affectcodec {
namespace cuda {

struct Shared {
  int64_t* at;      // [kUnit]: offsets of the frames read
  int64_t* at_out;  // [kUnit]: offsets of the frames written
  int64_t* tokens;  // [stages][kUnit]
  int32_t* active;  // [kUnit]
  int32_t* marked;  // [kUnit]
  float* values;    // [rows][kValueLd]
  float* stage;     // [kStageFloats]
  float* bias;      // [stages + 1][kUnit]
  float* sums;      // [4 warps][2][rows]
};

enum Pieces : unsigned {
  kTokens = 1,
  kBias = 2,
  kSums = 4,
};

// Divides `base`; returns the bytes that it takes.
AFFECTCODEC_HD int64_t divide_shared(unsigned char* base, unsigned pieces, int stages, int64_t rows,
                                     Shared* s) {
  int64_t used = 0;
  const auto take = [&](int64_t bytes) {
    unsigned char* const start = base + used;
    used += (bytes + 15) / 16 * 16;
    return start;
  };
  s->at = reinterpret_cast<int64_t*>(take(kUnit * 8));
  s->at_out = reinterpret_cast<int64_t*>(take(kUnit * 8));
  s->tokens = reinterpret_cast<int64_t*>(take(pieces & kTokens ? stages * kUnit * 8 : 0));
  s->active = reinterpret_cast<int32_t*>(take(kUnit * 4));
  s->marked = reinterpret_cast<int32_t*>(take(kUnit * 4));
  s->values = reinterpret_cast<float*>(take(rows * kValueLd * 4));
  s->stage = reinterpret_cast<float*>(take(kStageFloats * 4));
  s->bias = reinterpret_cast<float*>(take(pieces & kBias ? (stages + 1) * kUnit * 4 : 0));
  s->sums = reinterpret_cast<float*>(take(pieces & kSums ? 4 * 2 * rows * 4 : 0));
  return used;
}

}  // namespace cuda
}  // namespace affectcodec
