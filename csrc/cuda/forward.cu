// SPDX-License-Identifier: Apache-2.0
#include "encode.cuh"

using namespace affectcodec;
using namespace affectcodec::cuda;

extern "C" int affectcodec_cuda_forward(const int64_t* config, int64_t size, const float* weights,
                                        const affectcodec_latent* z,
                                        const affectcodec_counts* counts,
                                        const affectcodec_latent* out, void* const* to,
                                        const int32_t* rates, int32_t outputs,
                                        const affectcodec_tokens* tokens, float* saved,
                                        void* stream) {
  ForwardArguments a{};
  int wrong = fill_encode(config, size, weights, *z, *tokens, &a.encode);
  if (wrong == 0) wrong = check_rates(a.encode.plan, rates, outputs);
  const int64_t units = units_of(z->batch * z->frames);
  if (wrong != 0 || units == 0) return wrong;
  if (out->type != z->type) return AFFECTCODEC_CUDA_VALUE;
  a.counts = *counts;
  a.saved = saved;
  a.out = view_of(*out, a.encode.plan);
  a.outputs = outputs;
  for (int i = 0; i < outputs; ++i) {
    a.rates[i] = rates[i];
    a.to[i] = to[i];
    affectcodec_latent other = *out;
    other.data = to[i];
    if (view_of(other, a.encode.plan).along != a.out.along) a.out.along = kNothing;
  }
  Shared pieces;
  const int64_t shared = divide_shared(nullptr, kTokens | kBias | words_for(item_size(z->type)),
                                       a.encode.plan.stages, a.encode.plan.most_rows, &pieces);
  switch (z->type) {
    case AFFECTCODEC_FLOAT32:
      return launch("forward", forward_kernel<float>, grid_of(units), kThreads, shared, stream, a);
    case AFFECTCODEC_BFLOAT16:
      return launch("forward", forward_kernel<BFloat16>, grid_of(units), kThreads, shared, stream,
                    a);
    default:
      return launch("forward", forward_kernel<Float16>, grid_of(units), kThreads, shared, stream,
                    a);
  }
}
