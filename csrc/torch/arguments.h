// SPDX-License-Identifier: Apache-2.0
// What the operators of the CPU and of CUDA ask of their arguments, and the shapes of what they
// make. LibTorch's stable ABI only, so one build serves many torch versions.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <array>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "../core/plan.h"

namespace affectcodec {
namespace ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

using Ints = std::vector<int64_t>;

// Raises RuntimeError with the message alone, which is for the user: no
// function, file or line.
template <typename... Parts>
void check(bool sound, const Parts&... parts) {
  if (sound) return;
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

inline ScalarType token_type(const Plan& plan) {
  return plan.wide() ? ScalarType::Long : ScalarType::Int;
}

inline Ints latent_shape(int64_t batch, int64_t frames, const Plan& plan, bool channels_last) {
  return channels_last ? Ints{batch, frames, plan.width} : Ints{batch, plan.width, frames};
}

// Sizes and strides of a latent; its memory and type are the caller's.
template <typename V>
V latent_like(const Tensor& t, const Plan& plan, bool channels_last, const char* name) {
  check(t.dim() == 3, name, ": wanted three dimensions, got ", t.dim());
  const int channel = channels_last ? 2 : 1, frame = channels_last ? 1 : 2;
  check(t.size(channel) == plan.width, name, ": wanted ", plan.width, " channels in dim ", channel,
        ", got ", t.size(channel));
  V v{};
  v.data = const_cast<void*>(t.const_data_ptr());
  v.batch = t.size(0);
  v.frames = t.size(frame);
  v.stride_b = t.stride(0);
  v.stride_t = t.stride(frame);
  v.stride_d = t.stride(channel);
  return v;
}

template <typename V>
V tokens_like(const Tensor& t) {
  V v{};
  v.data = const_cast<void*>(t.const_data_ptr());
  v.stride_b = t.stride(0);
  v.stride_k = t.stride(1);
  v.stride_t = t.stride(2);
  v.wide = t.scalar_type() == ScalarType::Long;
  return v;
}

template <typename C>
C counts_like(const Tensor& t, const Plan& plan, int64_t batch, int64_t frames) {
  check(t.scalar_type() == ScalarType::Long, "counts: wanted int64");
  check((t.dim() == 2 || (t.dim() == 3 && t.size(2) == frames)) && t.size(0) == batch &&
            t.size(1) == plan.blocks,
        "counts: wanted [", batch, ", ", plan.blocks, "] or [", batch, ", ", plan.blocks, ", ",
        frames, "]");
  C c{};
  c.data = static_cast<const int64_t*>(t.const_data_ptr());
  c.stride_b = t.stride(0);
  c.stride_g = t.stride(1);
  c.stride_t = t.dim() == 3 ? t.stride(2) : 0;
  return c;
}

// What an operator fills with tokens of all stages.
inline void check_tokens(const Tensor& t, const Plan& plan, int64_t batch, int64_t frames,
                         const char* name) {
  check(t.dim() == 3 && t.size(0) == batch && t.size(1) == plan.stages && t.size(2) == frames &&
            t.scalar_type() == token_type(plan),
        name, ": wanted ", plan.wide() ? "int64" : "int32", " [", batch, ", ", plan.stages, ", ",
        frames, "]");
}

// What decode takes: tokens of as many stages as there are.
inline void check_some_tokens(const Tensor& t, const Plan& plan) {
  check(t.dim() == 3 && t.size(1) >= 1 && t.size(1) <= plan.stages,
        "tokens: wanted [B, K, T] with 1..", plan.stages, " stages");
  check(t.scalar_type() == ScalarType::Int || t.scalar_type() == ScalarType::Long,
        "tokens: wanted int32 or int64");
}

// Stage counts of the outputs, the last of which holds all stages.
inline std::vector<int32_t> rates_of(const Ints& asked, const Plan& plan) {
  std::vector<int32_t> rates;
  for (const int64_t rate : asked) {
    check(rate > (rates.empty() ? 0 : rates.back()) && rate < plan.stages,
          "rates: wanted ascending stage counts in 1..", plan.stages - 1);
    rates.push_back(static_cast<int32_t>(rate));
  }
  rates.push_back(plan.stages);
  return rates;
}

constexpr int kParameters = 6;  // of a block: W, c, O, e, scale logit, shift

inline std::vector<const float*> parameters_of(const std::vector<Tensor>& params,
                                               const Plan& plan) {
  check(static_cast<int64_t>(params.size()) == kParameters * plan.blocks,
        "params: wanted 6 tensors a block");
  std::vector<const float*> found;
  for (int g = 0; g < plan.blocks; ++g) {
    const auto& b = plan.block[g];
    const int64_t sizes[kParameters] = {b.rows * b.width,      b.rows, b.rows * b.width,
                                        plan.stages * b.width, b.rows, b.rows};
    for (int i = 0; i < kParameters; ++i) {
      const Tensor& t = params[static_cast<size_t>(kParameters * g + i)];
      check(t.scalar_type() == ScalarType::Float && t.is_contiguous() && t.numel() == sizes[i],
            "params: tensor ", kParameters * g + i, " must be contiguous float32 with ", sizes[i],
            " elements");
      found.push_back(static_cast<const float*>(t.const_data_ptr()));
    }
  }
  return found;
}

// Of the gradients of a block's parameters.
inline std::array<Ints, kParameters> gradient_shapes(const Plan& plan, int g) {
  const auto& b = plan.block[g];
  return {{{plan.stages, b.dims, b.width},
           {plan.stages, b.dims},
           {plan.stages, b.width, b.dims},
           {plan.stages, b.width},
           {plan.stages, b.dims},
           {plan.stages, b.dims}}};
}

// Arguments of pack_bits; whether the codes are int64.
inline bool check_codes(const Tensor& codes, int64_t bits) {
  check(bits >= 1 && bits <= 63, "bits: expected 1..63, got ", bits);
  check(codes.dim() == 1 && codes.is_contiguous(), "codes: expected one contiguous dimension");
  const bool wide = codes.scalar_type() == ScalarType::Long;
  check(wide || codes.scalar_type() == ScalarType::Int, "codes: expected int32 or int64");
  return wide;
}

// Arguments of unpack_bits; whether the codes are to be int64.
inline bool check_packed(const Tensor& data, int64_t bits, int64_t count, ScalarType dtype) {
  check(bits >= 1 && bits <= 63, "bits: expected 1..63, got ", bits);
  const bool wide = dtype == ScalarType::Long;
  check(wide || (dtype == ScalarType::Int && bits <= 31),
        "dtype: expected int64, or int32 for at most 31 bits");
  check(data.scalar_type() == ScalarType::Byte && data.dim() == 1 && data.is_contiguous(),
        "data: expected one contiguous dimension of uint8");
  const int64_t size = data.numel();
  // By division first: an absurd count must neither overflow nor be allocated.
  check(count >= 0 && count <= size * 8 / bits && (count * bits + 7) / 8 == size, "data: ", size,
        " bytes are not ", count, " codes of ", bits, " bits");
  return wide;
}

}  // namespace ops
}  // namespace affectcodec
