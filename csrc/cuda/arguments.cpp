// SPDX-License-Identifier: Apache-2.0
// Checks that launchers make before anything reaches a device.
#include "arguments.h"

#include <string.h>

#include <initializer_list>

#include "shared.h"
#include "split.h"

namespace affectcodec {
namespace cuda {

const char* device_error(int code);  // error.cu

View view_of(const affectcodec_latent& t, const Plan& plan) {
  View v{};
  v.data = t.data;
  v.batch = t.batch;
  v.frames = t.frames;
  v.stride_b = t.stride_b;
  v.stride_t = t.stride_t;
  v.stride_d = t.stride_d;
  v.type = t.type;
  v.along = kNothing;
  const int64_t lanes = lanes_of(t.type);
  const auto whole = [lanes](int64_t n) { return n % lanes == 0; };
  if (reinterpret_cast<uintptr_t>(t.data) % 16 != 0) return v;
  if (t.stride_t == 1 && whole(t.frames) && whole(t.stride_d) &&
      (t.batch == 1 || whole(t.stride_b))) {
    v.along = kFrames;
    return v;
  }
  bool borders = true;
  for (int g = 0; g < plan.blocks; ++g) borders = borders && whole(plan.block[g].width);
  if (t.stride_d == 1 && borders && (t.frames == 1 || whole(t.stride_t)) &&
      (t.batch == 1 || whole(t.stride_b))) {
    v.along = kChannels;
  }
  return v;
}

int read_plan(const int64_t* config, int64_t size, DevicePlan* plan) {
  if (make_plan(config, size, plan) != nullptr) return AFFECTCODEC_CUDA_CONFIG;
  plan->most_rows = 0;
  for (int g = 0; g < plan->blocks; ++g) {
    if (plan->block[g].rows > plan->most_rows) plan->most_rows = plan->block[g].rows;
  }
  plan->all_floats = plan->floats;
  for (int64_t* offsets : {plan->split_out, plan->split_in}) {
    for (int g = 0; g < plan->blocks; ++g) {
      offsets[g] = plan->all_floats;
      plan->all_floats += split_floats(plan->block[g]);
    }
  }
  return 0;
}

int check_frames(int64_t batch, int64_t frames) {
  constexpr int64_t kMost = int64_t{0x7fffffff} * kUnit;
  if (batch < 0 || frames < 0) return AFFECTCODEC_CUDA_VALUE;
  return frames > 0 && batch > kMost / frames ? AFFECTCODEC_CUDA_GRID : 0;
}

int check_rates(const Plan& plan, const int32_t* rates, int32_t outputs) {
  if (outputs < 1 || outputs > kMaxStages) return AFFECTCODEC_CUDA_VALUE;
  for (int i = 0; i < outputs; ++i) {
    if (rates[i] <= (i > 0 ? rates[i - 1] : 0)) return AFFECTCODEC_CUDA_VALUE;
  }
  return rates[outputs - 1] == plan.stages ? 0 : AFFECTCODEC_CUDA_VALUE;
}

int fill_encode(const int64_t* config, int64_t size, const float* weights,
                const affectcodec_latent& z, const affectcodec_tokens& tokens, EncodeArguments* a) {
  int wrong = read_plan(config, size, &a->plan);
  if (wrong == 0) wrong = check_frames(z.batch, z.frames);
  if (wrong != 0) return wrong;
  if (z.type < AFFECTCODEC_FLOAT32 || z.type > AFFECTCODEC_FLOAT16) return AFFECTCODEC_CUDA_VALUE;
  if (tokens.stages != a->plan.stages || (a->plan.wide() && !tokens.wide)) {
    return AFFECTCODEC_CUDA_VALUE;
  }
  a->weights = weights;
  a->z = view_of(z, a->plan);
  a->tokens = tokens;
  return 0;
}

}  // namespace cuda
}  // namespace affectcodec

extern "C" int64_t affectcodec_cuda_weights(const int64_t* config, int64_t size) {
  affectcodec::cuda::DevicePlan plan;
  const int wrong = affectcodec::cuda::read_plan(config, size, &plan);
  return wrong != 0 ? wrong : plan.all_floats;
}

extern "C" int64_t affectcodec_cuda_shared(const int64_t* config, int64_t size, const char* kernel,
                                           int32_t itemsize) {
  using namespace affectcodec::cuda;
  DevicePlan plan;
  const int wrong = read_plan(config, size, &plan);
  if (wrong != 0) return wrong;
  const auto is = [kernel](const char* name) { return strcmp(kernel, name) == 0; };
  if (is("backward_weights") || is("backward_cross")) {
    SlabShared pieces;
    return divide_slab_shared(nullptr, plan.stages, &pieces);
  }
  Shared pieces;
  const auto divided = [&](unsigned what) {
    return divide_shared(nullptr, what, plan.stages, plan.most_rows, &pieces);
  };
  const unsigned words = words_for(itemsize);
  if (is("encode")) return divided(kTokens);
  if (is("forward") || is("decode")) return divided(kTokens | kBias | words);
  return is("backward_rows") ? divided(kSums | words) : 0;
}

extern "C" const char* affectcodec_cuda_error(int code) {
  switch (code) {
    case 0:
      return "no error";
    case AFFECTCODEC_CUDA_CONFIG:
      return "config: not a sound description of a quantizer";
    case AFFECTCODEC_CUDA_COLUMNS:
      return "a block has more stages times code dims than shared memory of this device holds; use "
             "the reference backend";
    case AFFECTCODEC_CUDA_GRID:
      return "more frames than one launch can number; split the batch";
    case AFFECTCODEC_CUDA_VALUE:
      return "a size, stride or type that the kernels do not take";
    default:
      return affectcodec::cuda::device_error(code);
  }
}
