// SPDX-License-Identifier: Apache-2.0
// What the operators on CUDA share: devices and streams, views of tensors as the launchers take
// them. The launchers in plain C only: this builds beside a torch without CUDA, and knows nothing
// of the CUDA runtime itself.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <vector>

#include "../cuda/launch.h"
#include "arguments.h"

namespace affectcodec {
namespace ops {
namespace cuda {

inline void check_launch(const char* op, int code) {
  check(code == 0, op, ": ", affectcodec_cuda_error(code));
}

// Makes the device of a tensor the current one, and gives the stream that torch works on there.
class Place {
 public:
  explicit Place(const Tensor& t) : index_(t.get_device_index()), guard_(index_) {}
  void* stream() const {
    return torch::stable::accelerator::getCurrentStream(index_).nativeHandle();
  }

 private:
  torch::stable::accelerator::DeviceIndex index_;
  torch::stable::accelerator::DeviceGuard guard_;
};

inline void check_place(const Tensor& t, const Tensor& like, const char* name) {
  check(t.is_cuda() && t.get_device_index() == like.get_device_index(), name,
        ": wanted a tensor on the same CUDA device as the other arguments");
}

inline Plan read_plan(const Ints& config) {
  Plan plan;
  const char* wrong =
      affectcodec::make_plan(config.data(), static_cast<int64_t>(config.size()), &plan);
  check(wrong == nullptr, wrong ? wrong : "");
  return plan;
}

inline int64_t size_of(const Ints& config) { return static_cast<int64_t>(config.size()); }

inline const float* weights_of(const Tensor& weights, const Tensor& like, const Ints& config) {
  const int64_t floats = affectcodec_cuda_weights(config.data(), size_of(config));
  check_place(weights, like, "weights");
  check(weights.scalar_type() == ScalarType::Float && weights.dim() == 1 &&
            weights.is_contiguous() && weights.numel() == floats,
        "weights: wanted the ", floats,
        " floats that affectcodec::fold_cuda makes for this configuration, got ", weights.numel(),
        " elements");
  return static_cast<const float*>(weights.const_data_ptr());
}

inline int32_t type_of(const Tensor& t, const char* name) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return AFFECTCODEC_FLOAT32;
    case ScalarType::BFloat16:
      return AFFECTCODEC_BFLOAT16;
    case ScalarType::Half:
      return AFFECTCODEC_FLOAT16;
    default:
      break;
  }
  check(false, name,
        ": the cuda backend takes float32, bfloat16 and float16; use the reference backend for "
        "other types");
  return -1;
}

inline affectcodec_latent latent_of(const Tensor& t, const Plan& plan, bool channels_last,
                                    const char* name) {
  affectcodec_latent v = latent_like<affectcodec_latent>(t, plan, channels_last, name);
  v.type = type_of(t, name);
  return v;
}

inline affectcodec_tokens tokens_of(const Tensor& t) {
  affectcodec_tokens v = tokens_like<affectcodec_tokens>(t);
  v.stages = static_cast<int32_t>(t.size(1));
  return v;
}

inline affectcodec_counts counts_of(const std::optional<Tensor>& t, const Tensor& like,
                                    const Plan& plan, int64_t batch, int64_t frames) {
  if (!t) return affectcodec_counts{};
  check_place(*t, like, "counts");
  return counts_like<affectcodec_counts>(*t, plan, batch, frames);
}

inline Tensor make(const Tensor& like, const Ints& shape, ScalarType type) {
  return torch::stable::new_empty(like, shape, type);
}

inline std::vector<const float*> placed_parameters(const std::vector<Tensor>& params,
                                                   const Plan& plan, const Tensor& like) {
  for (const Tensor& t : params) check_place(t, like, "params");
  return parameters_of(params, plan);
}

}  // namespace cuda
}  // namespace ops
}  // namespace affectcodec
