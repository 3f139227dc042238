// SPDX-License-Identifier: Apache-2.0
#include "encode.cuh"

using namespace affectcodec;
using namespace affectcodec::cuda;

extern "C" int affectcodec_cuda_encode(const int64_t* config, int64_t size, const float* weights,
                                       const affectcodec_latent* z,
                                       const affectcodec_tokens* tokens, void* stream) {
  EncodeArguments a{};
  const int wrong = fill_encode(config, size, weights, *z, *tokens, &a);
  const int64_t units = units_of(a.z.batch * a.z.frames);
  if (wrong != 0 || units == 0) return wrong;
  Shared pieces;
  const int64_t shared = divide_shared(nullptr, kTokens, a.plan.stages, a.plan.most_rows, &pieces);
  switch (a.z.type) {
    case AFFECTCODEC_FLOAT32:
      return launch("encode", encode_kernel<float>, grid_of(units), kThreads, shared, stream, a);
    case AFFECTCODEC_BFLOAT16:
      return launch("encode", encode_kernel<BFloat16>, grid_of(units), kThreads, shared, stream, a);
    default:
      return launch("encode", encode_kernel<Float16>, grid_of(units), kThreads, shared, stream, a);
  }
}
