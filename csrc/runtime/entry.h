// SPDX-License-Identifier: Apache-2.0
// One pass of the causal networks on one instruction set. Every file that includes this is compiled
// once for each of them, with AFFECTCODEC_ISA naming it. Nothing of the standard library is used
// there but types and libm's scalar functions, see csrc/cpu/entry.h.
#pragma once

#include "network.h"

namespace affectcodec {
namespace runtime {
namespace AFFECTCODEC_ISA {

// As the entries of Kernels.
void encode(const EncoderNet& net, const Pass& pass, const float* pcm, float* latent, int64_t ld,
            float* scratch);
void decode(const DecoderNet& net, const Pass& pass, const float* latent, int64_t ld, float* pcm,
            float* scratch);

}  // namespace AFFECTCODEC_ISA
}  // namespace runtime
}  // namespace affectcodec
