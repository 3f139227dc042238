// SPDX-License-Identifier: Apache-2.0
// The launcher of backward: its kernels in order.
#include "backward.h"

using namespace affectcodec;
using namespace affectcodec::cuda;

extern "C" int64_t affectcodec_cuda_backward_work(const int64_t* config, int64_t size,
                                                  int64_t frames) {
  BackwardArguments a{};
  const int wrong = read_plan(config, size, &a.plan);
  if (wrong != 0) return wrong;
  if (frames < 0) return AFFECTCODEC_CUDA_VALUE;
  return divide_work(a.plan, frames, &a);
}

extern "C" int affectcodec_cuda_backward(const int64_t* config, int64_t size, const float* weights,
                                         const float* const* params, const affectcodec_latent* z,
                                         const float* saved, const affectcodec_counts* counts,
                                         const affectcodec_latent* grads, const int32_t* rates,
                                         int32_t outputs, const affectcodec_latent* dz,
                                         float* const* found, float* work, void* stream) {
  BackwardArguments a{};
  int wrong = read_plan(config, size, &a.plan);
  if (wrong == 0) wrong = check_rates(a.plan, rates, outputs);
  if (wrong == 0) wrong = check_frames(z->batch, z->frames);
  if (wrong != 0) return wrong;
  if (z->type < AFFECTCODEC_FLOAT32 || z->type > AFFECTCODEC_FLOAT16) {
    return AFFECTCODEC_CUDA_VALUE;
  }
  divide_work(a.plan, z->batch * z->frames, &a);
  a.weights = weights;
  a.work = work;
  a.saved = saved;
  a.z = view_of(*z, a.plan);
  a.counts = *counts;
  a.outputs = outputs;
  for (int i = 0; i < outputs; ++i) {
    a.rates[i] = rates[i];
    if (!grads[i].data) continue;
    if (grads[i].type != z->type || grads[i].batch != z->batch || grads[i].frames != z->frames) {
      return AFFECTCODEC_CUDA_VALUE;
    }
    a.grad[i] = view_of(grads[i], a.plan);
  }
  if (dz->data) {
    if (dz->type != z->type) return AFFECTCODEC_CUDA_VALUE;
    a.dz = view_of(*dz, a.plan);
  }
  wrong = launch_rows(a, stream);
  if (wrong == 0) wrong = launch_weights(a, stream);
  if (wrong == 0) wrong = launch_cross(a, stream);
  if (wrong == 0) wrong = launch_gradients(a, params, found, stream);
  return wrong;
}
