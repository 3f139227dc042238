// SPDX-License-Identifier: Apache-2.0
// What the operators on the CPU share: views of tensors, plans, working memory, threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <vector>

#include "../cpu/kernels.h"
#include "arguments.h"

namespace affectcodec {
namespace ops {

using cpu::Counts;
using cpu::Kernels;
using cpu::kUnit;
using cpu::TokenView;
using cpu::Type;
using cpu::View;

inline const Kernels& table() {
  const char* why = "";
  const Kernels* kernels = cpu::kernels(&why);
  check(kernels != nullptr, "AFFECTCODEC_CPU_ISA: ", why,
        "; unset it to take the best instruction set of this machine");
  return *kernels;
}

// Working memory of the calling thread; it grows and stays, so that a call for
// one frame does not pay for an allocation. The values left in it are never
// read as results.
inline float* scratch(const Plan& plan) {
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  static thread_local std::unique_ptr<float, Free> memory;
  static thread_local int64_t size = 0;
  const int64_t wanted = cpu::plan_scratch(plan).floats;
  if (wanted > size) {
    const size_t bytes = static_cast<size_t>(wanted) * sizeof(float);
    size = 0;
    memory.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
    if (!memory) throw std::bad_alloc();
    std::memset(memory.get(), 0, bytes);
    size = wanted;
  }
  return memory.get();
}

template <typename F>
void in_parallel(int64_t count, int64_t grain, const F& f) {
  if (count <= grain) {
    if (count > 0) f(int64_t{0}, count);
    return;
  }
  torch::stable::parallel_for(0, count, grain, f);
}

// Units of work below which a second thread costs more than it saves.
constexpr int64_t kGrain = 2;

// Outputs larger than this do not stay in a cache until they are read.
constexpr int64_t kStreamBytes = int64_t{6} << 20;

// The plan of a configuration. The last one of a thread is kept: calls repeat
// it, and it is a good part of the cost of one frame.
inline const Plan& plan_of(const Ints& config) {
  static thread_local Ints known;
  static thread_local std::unique_ptr<Plan> plan;
  if (plan && known == config) return *plan;
  auto made = std::make_unique<Plan>();
  const char* wrong = make_plan(config.data(), static_cast<int64_t>(config.size()), made.get());
  check(wrong == nullptr, wrong);
  plan = std::move(made);
  known = config;
  return *plan;
}

inline const float* weights_of(const Tensor& weights, const Plan& plan) {
  check(weights.scalar_type() == ScalarType::Float && weights.dim() == 1 &&
            weights.is_contiguous() && weights.numel() == plan.floats,
        "weights: wanted the ", plan.floats,
        " floats that fold_cpu makes for this configuration, got ", weights.numel(), " elements");
  return static_cast<const float*>(weights.const_data_ptr());
}

inline Type type_of(const Tensor& t, const char* name) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return Type::kFloat32;
    case ScalarType::BFloat16:
      return Type::kBFloat16;
    case ScalarType::Half:
      return Type::kFloat16;
    default:
      break;
  }
  check(false, name,
        ": the cpu backend takes float32, bfloat16 and float16; use the "
        "reference backend for other types");
  return Type::kFloat32;
}

inline View view_of(const Tensor& t, const Plan& plan, bool channels_last, const char* name) {
  View v = latent_like<View>(t, plan, channels_last, name);
  v.type = type_of(t, name);
  v.channels = plan.width;
  // A step between single frames or samples is never taken, but decides how
  // memory is walked.
  if (v.frames == 1) v.stride_t = v.stride_d * plan.width;
  return v;
}

// The same view of memory that is written to.
inline View output_view(Tensor& t, const Plan& plan, bool channels_last) {
  View v = view_of(t, plan, channels_last, "out");
  v.data = t.mutable_data_ptr();
  v.stream = v.total() * plan.width * 4 > kStreamBytes;
  return v;
}

inline TokenView token_view(const Tensor& t, bool writable) {
  TokenView v = tokens_like<TokenView>(t);
  if (writable) v.data = t.mutable_data_ptr();
  return v;
}

inline Counts counts_of(const std::optional<Tensor>& t, const Plan& plan, int64_t batch,
                        int64_t frames) {
  return t ? counts_like<Counts>(*t, plan, batch, frames) : Counts{};
}

// A contiguous tensor on the CPU, without the detour through the dispatcher.
inline Tensor make(const std::vector<int64_t>& shape, ScalarType type) {
  int32_t dtype = 0;
  switch (type) {
    case ScalarType::Float:
      dtype = aoti_torch_dtype_float32();
      break;
    case ScalarType::Int:
      dtype = aoti_torch_dtype_int32();
      break;
    case ScalarType::Long:
      dtype = aoti_torch_dtype_int64();
      break;
    case ScalarType::Byte:
      dtype = aoti_torch_dtype_uint8();
      break;
    case ScalarType::BFloat16:
      dtype = aoti_torch_dtype_bfloat16();
      break;
    case ScalarType::Half:
      dtype = aoti_torch_dtype_float16();
      break;
    default:
      check(false, "dtype: the cpu backend makes float32, bfloat16 and float16");
  }
  int64_t strides[3];
  int64_t step = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = step;
    step *= shape[i] > 1 ? shape[i] : 1;
  }
  AtenTensorHandle made = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(shape.size()),
                                                         shape.data(), strides, dtype,
                                                         aoti_torch_device_type_cpu(), 0, &made));
  return Tensor(made);
}

}  // namespace ops
}  // namespace affectcodec
