// SPDX-License-Identifier: Apache-2.0
// The kernels of one instruction set. Every file that includes this is compiled once for each of
// them, with AFFECTCODEC_ISA naming it. Nothing of the standard library is used there but types: an
// inline function of it, compiled for a wider machine, could replace the baseline copy elsewhere.
#pragma once

#include "kernels.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {

void fold_block(const Plan& plan, int g, const BlockParameters& p, float* weights);
void encode_units(const EncodeJob& job, int64_t begin, int64_t end, float* scratch);
// Does the whole of a small job; false where it is not one.
bool encode_few(const EncodeJob& job, float* scratch);
void decode_units(const DecodeJob& job, int64_t begin, int64_t end, float* scratch);
void backward_slabs(const BackwardJob& job, int64_t begin, int64_t end, float* scratch);
void reduce_slabs(float* partial, int64_t stride, int64_t slabs, int64_t begin, int64_t end);
void finish_block(const BackwardJob& job, int g, const float* logit, const float* e,
                  const BlockGradients& to, float* work);
void codes_of(const Plan& plan, const float* weights, const float* projections, int64_t frames,
              int64_t* out, float* scratch);

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
