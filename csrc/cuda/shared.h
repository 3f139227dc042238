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
  uint32_t* words;  // [2][pairs of rows][kPairLd]: values split for tensor cores
};

enum Pieces : unsigned {
  kTokens = 1,
  kBias = 2,
  kSums = 4,
  kWords = 8,
};

// Latents of 16 bits are expanded by tensor cores.
AFFECTCODEC_HD unsigned words_for(int64_t itemsize) { return itemsize == 2 ? kWords : 0u; }

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
  s->words =
      reinterpret_cast<uint32_t*>(take(pieces & kWords ? (rows + 15) / 16 * 16 * kPairLd * 4 : 0));
  return used;
}

// Shared memory of a block of threads that sums over a slab. Where the frames of a unit lie and how
// many stages each has is found one unit ahead, so two units have a place.
struct SlabShared {
  int64_t* at;      // [2][kUnit]
  int32_t* active;  // [2][kUnit]
  float* stage;     // [kStageFloats]
  float* sums;      // [stages + 1][kUnit]
};

AFFECTCODEC_HD int64_t divide_slab_shared(unsigned char* base, int stages, SlabShared* s) {
  s->at = reinterpret_cast<int64_t*>(base);
  s->active = reinterpret_cast<int32_t*>(base + 2 * kUnit * 8);
  s->stage = reinterpret_cast<float*>(base + 2 * kUnit * 12);
  s->sums = s->stage + kStageFloats;
  return 2 * kUnit * 12 + (kStageFloats + (stages + 1) * kUnit) * 4;
}

}  // namespace cuda
}  // namespace affectcodec
