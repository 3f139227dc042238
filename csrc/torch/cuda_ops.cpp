// SPDX-License-Identifier: Apache-2.0
// Registers the CUDA kernels as affectcodec::<op>_cuda. Schemas are defined in
// affectcodec/ops/registry.py.
#include <torch/csrc/stable/library.h>

#include <optional>
#include <tuple>
#include <vector>

#include "cuda_tensors.h"

namespace affectcodec {
namespace ops {
namespace cuda {
namespace {

constexpr int64_t kUnit = 64;  // frames; what forward saves is padded to whole units

Tensor fold(const std::vector<Tensor>& params, const Ints& config) {
  const Plan plan = read_plan(config);
  check(!params.empty(), "params: wanted 6 tensors a block");
  const Place place(params[0]);
  const auto data = placed_parameters(params, plan, params[0]);
  Tensor weights = make(params[0], {affectcodec_cuda_weights(config.data(), size_of(config))},
                        ScalarType::Float);
  check_launch("fold", affectcodec_cuda_fold(config.data(), size_of(config), data.data(),
                                             static_cast<float*>(weights.mutable_data_ptr()),
                                             place.stream()));
  return weights;
}

void encode_out(const Tensor& z, const Tensor& weights, const Ints& config, bool channels_last,
                Tensor out) {
  const Plan plan = read_plan(config);
  const Place place(z);
  const affectcodec_latent from = latent_of(z, plan, channels_last, "z");
  check_place(out, z, "out");
  check_tokens(out, plan, from.batch, from.frames, "out");
  const affectcodec_tokens to = tokens_of(out);
  check_launch("encode",
               affectcodec_cuda_encode(config.data(), size_of(config),
                                       weights_of(weights, z, config), &from, &to, place.stream()));
}

Tensor encode(const Tensor& z, const Tensor& weights, const Ints& config, bool channels_last) {
  const Plan plan = read_plan(config);
  const affectcodec_latent from = latent_of(z, plan, channels_last, "z");
  Tensor tokens = make(z, {from.batch, plan.stages, from.frames}, token_type(plan));
  encode_out(z, weights, config, channels_last, tokens);
  return tokens;
}

// What forward and forward_out share; `latents` ascend like the rates and lie alike in memory.
void run_forward(const Tensor& z, const Tensor& weights, const Ints& config, const Plan& plan,
                 const std::optional<Tensor>& counts, const std::vector<int32_t>& ascending,
                 std::vector<Tensor>& latents, bool channels_last, Tensor& tokens, float* saved) {
  const Place place(z);
  const affectcodec_latent from = latent_of(z, plan, channels_last, "z");
  const affectcodec_counts counted = counts_of(counts, z, plan, from.batch, from.frames);
  std::vector<void*> to;
  for (Tensor& latent : latents) to.push_back(latent.mutable_data_ptr());
  const affectcodec_latent out = latent_of(latents[0], plan, channels_last, "out");
  const affectcodec_tokens token = tokens_of(tokens);
  check_launch("forward", affectcodec_cuda_forward(config.data(), size_of(config),
                                                   weights_of(weights, z, config), &from, &counted,
                                                   &out, to.data(), ascending.data(),
                                                   static_cast<int32_t>(ascending.size()), &token,
                                                   saved, place.stream()));
}

std::tuple<std::vector<Tensor>, Tensor, Tensor> forward(const Tensor& z, const Tensor& weights,
                                                        const Ints& config,
                                                        const std::optional<Tensor>& counts,
                                                        const Ints& rates, bool channels_last) {
  const Plan plan = read_plan(config);
  const affectcodec_latent from = latent_of(z, plan, channels_last, "z");
  const auto ascending = rates_of(rates, plan);
  std::vector<Tensor> latents;
  for (size_t i = 0; i < ascending.size(); ++i) {
    latents.push_back(
        make(z, latent_shape(from.batch, from.frames, plan, channels_last), z.scalar_type()));
  }
  Tensor tokens = make(z, {from.batch, plan.stages, from.frames}, token_type(plan));
  const int64_t units = (from.batch * from.frames + kUnit - 1) / kUnit;
  Tensor saved = make(z, {units * plan.stages * plan.dims * kUnit}, ScalarType::Float);
  run_forward(z, weights, config, plan, counts, ascending, latents, channels_last, tokens,
              static_cast<float*>(saved.mutable_data_ptr()));
  return {std::move(latents), std::move(tokens), std::move(saved)};
}

void forward_out(const Tensor& z, const Tensor& weights, const Ints& config,
                 const std::optional<Tensor>& counts, const Ints& rates, bool channels_last,
                 std::vector<Tensor> latents, Tensor tokens) {
  const Plan plan = read_plan(config);
  const affectcodec_latent from = latent_of(z, plan, channels_last, "z");
  const auto ascending = rates_of(rates, plan);
  check(latents.size() == ascending.size(), "out: wanted ", ascending.size(), " latents, got ",
        latents.size());
  affectcodec_latent first{};
  for (size_t i = 0; i < latents.size(); ++i) {
    check_place(latents[i], z, "out");
    const affectcodec_latent own = latent_of(latents[i], plan, channels_last, "out");
    if (i == 0) first = own;
    check(own.type == from.type && own.batch == from.batch && own.frames == from.frames,
          "out: wanted latents of the shape and dtype of z");
    check(own.stride_b == first.stride_b && own.stride_t == first.stride_t &&
              own.stride_d == first.stride_d,
          "out: wanted latents of the same strides");
  }
  check_place(tokens, z, "tokens");
  check_tokens(tokens, plan, from.batch, from.frames, "tokens");
  run_forward(z, weights, config, plan, counts, ascending, latents, channels_last, tokens, nullptr);
}

std::tuple<Tensor, std::vector<Tensor>> backward(
    const std::vector<Tensor>& grads, const Ints& present, const Tensor& z, const Tensor& saved,
    const Tensor& weights, const std::vector<Tensor>& params, const Ints& config,
    const std::optional<Tensor>& counts, const Ints& rates, bool channels_last, bool need_dz) {
  const Plan plan = read_plan(config);
  const Place place(z);
  const affectcodec_latent from = latent_of(z, plan, channels_last, "z");
  const affectcodec_counts counted = counts_of(counts, z, plan, from.batch, from.frames);
  const auto ascending = rates_of(rates, plan);
  const auto data = placed_parameters(params, plan, z);
  const int64_t frames = from.batch * from.frames, units = (frames + kUnit - 1) / kUnit;
  check_place(saved, z, "saved");
  check(saved.scalar_type() == ScalarType::Float && saved.is_contiguous() &&
            saved.numel() == units * plan.stages * plan.dims * kUnit,
        "saved: not what forward made for this z");
  std::vector<affectcodec_latent> views(ascending.size());
  check(grads.size() == present.size(), "grads: wanted one tensor an entry of present");
  for (size_t i = 0; i < grads.size(); ++i) {
    check(present[i] >= 0 && present[i] < static_cast<int64_t>(views.size()),
          "present: wanted indices of the outputs");
    check_place(grads[i], z, "grads");
    const affectcodec_latent v = latent_of(grads[i], plan, channels_last, "grads");
    check(v.batch == from.batch && v.frames == from.frames && v.type == from.type,
          "grads: wanted the shape and type of z");
    views[static_cast<size_t>(present[i])] = v;
  }
  Tensor dz =
      make(z, need_dz ? latent_shape(from.batch, from.frames, plan, channels_last) : Ints{0},
           z.scalar_type());
  affectcodec_latent to{};
  if (need_dz) to = latent_of(dz, plan, channels_last, "dz");
  std::vector<Tensor> out;
  std::vector<float*> found;
  for (int g = 0; g < plan.blocks; ++g) {
    for (const Ints& shape : gradient_shapes(plan, g)) {
      out.push_back(make(z, shape, ScalarType::Float));
      found.push_back(static_cast<float*>(out.back().mutable_data_ptr()));
    }
  }
  const int64_t floats = affectcodec_cuda_backward_work(config.data(), size_of(config), frames);
  check(floats >= 0, "backward: ", affectcodec_cuda_error(static_cast<int>(floats)));
  Tensor work = make(z, {floats}, ScalarType::Float);
  check_launch("backward",
               affectcodec_cuda_backward(
                   config.data(), size_of(config), weights_of(weights, z, config), data.data(),
                   &from, static_cast<const float*>(saved.const_data_ptr()), &counted, views.data(),
                   ascending.data(), static_cast<int32_t>(ascending.size()), &to, found.data(),
                   static_cast<float*>(work.mutable_data_ptr()), place.stream()));
  return {std::move(dz), std::move(out)};
}

void decode_out(const Tensor& tokens, const Tensor& weights, const Ints& config,
                const std::optional<Tensor>& counts, bool channels_last, Tensor out) {
  const Plan plan = read_plan(config);
  const Place place(tokens);
  check_some_tokens(tokens, plan);
  check_place(out, tokens, "out");
  const affectcodec_latent to = latent_of(out, plan, channels_last, "out");
  check(to.batch == tokens.size(0) && to.frames == tokens.size(2),
        "out: wanted the batch and frames of tokens");
  const affectcodec_tokens from = tokens_of(tokens);
  const affectcodec_counts counted = counts_of(counts, tokens, plan, to.batch, to.frames);
  check_launch("decode", affectcodec_cuda_decode(config.data(), size_of(config),
                                                 weights_of(weights, tokens, config), &from,
                                                 &counted, &to, place.stream()));
}

Tensor decode(const Tensor& tokens, const Tensor& weights, const Ints& config,
              const std::optional<Tensor>& counts, bool channels_last, ScalarType dtype) {
  const Plan plan = read_plan(config);
  check(tokens.dim() == 3, "tokens: wanted [B, K, T]");
  Tensor out =
      make(weights, latent_shape(tokens.size(0), tokens.size(2), plan, channels_last), dtype);
  decode_out(tokens, weights, config, counts, channels_last, out);
  return out;
}

Tensor pack_bits(const Tensor& codes, int64_t bits) {
  const bool wide = check_codes(codes, bits);
  const Place place(codes);
  const int64_t count = codes.numel();
  Tensor out = make(codes, {(count * bits + 7) / 8}, ScalarType::Byte);
  check_launch("pack_bits", affectcodec_cuda_pack_bits(
                                codes.const_data_ptr(), wide, count, static_cast<int32_t>(bits),
                                static_cast<uint8_t*>(out.mutable_data_ptr()), place.stream()));
  return out;
}

Tensor unpack_bits(const Tensor& data, int64_t bits, int64_t count, ScalarType dtype) {
  const bool wide = check_packed(data, bits, count, dtype);
  const Place place(data);
  Tensor out = make(data, {count}, dtype);
  check_launch("unpack_bits",
               affectcodec_cuda_unpack_bits(static_cast<const uint8_t*>(data.const_data_ptr()),
                                            static_cast<int32_t>(bits), count, wide,
                                            out.mutable_data_ptr(), place.stream()));
  return out;
}

}  // namespace
}  // namespace cuda
}  // namespace ops
}  // namespace affectcodec

STABLE_TORCH_LIBRARY_IMPL(affectcodec, CUDA, m) {
  m.impl("fold_cuda", TORCH_BOX(&affectcodec::ops::cuda::fold));
  m.impl("encode_cuda", TORCH_BOX(&affectcodec::ops::cuda::encode));
  m.impl("encode_out_cuda", TORCH_BOX(&affectcodec::ops::cuda::encode_out));
  m.impl("forward_cuda", TORCH_BOX(&affectcodec::ops::cuda::forward));
  m.impl("forward_out_cuda", TORCH_BOX(&affectcodec::ops::cuda::forward_out));
  m.impl("backward_cuda", TORCH_BOX(&affectcodec::ops::cuda::backward));
  m.impl("decode_cuda", TORCH_BOX(&affectcodec::ops::cuda::decode));
  m.impl("decode_out_cuda", TORCH_BOX(&affectcodec::ops::cuda::decode_out));
  m.impl("pack_bits_cuda", TORCH_BOX(&affectcodec::ops::cuda::pack_bits));
  m.impl("unpack_bits_cuda", TORCH_BOX(&affectcodec::ops::cuda::unpack_bits));
}
