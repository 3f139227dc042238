// SPDX-License-Identifier: Apache-2.0
// Packing of weights, and the kernels of one instruction set as a table, for dispatch.cpp.
#include "../core/macros.h"
#include "entry.h"
#include "layers.h"

namespace affectcodec {
namespace runtime {
namespace {

void pack_float(const float* weight, int in, int out, float* to) {
  pack_panels(weight, in, out, to);
}

void pack_half(const float* weight, int in, int out, void* to) {
  pack_pairs(weight, in, out, static_cast<HalfPair*>(to));
}

void pack_double(const float* weight, int in, int out, double* to) {
  pack_panels(weight, in, out, to);
}

}  // namespace

extern const Kernels AC_JOIN(kernels_, AFFECTCODEC_ISA);
const Kernels AC_JOIN(kernels_, AFFECTCODEC_ISA) = {
    AC_TEXT(AFFECTCODEC_ISA), pack_float, pack_half, pack_double, AFFECTCODEC_ISA::encode,
    AFFECTCODEC_ISA::decode,
};

}  // namespace runtime
}  // namespace affectcodec
