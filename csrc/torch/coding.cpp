// SPDX-License-Identifier: Apache-2.0
// encode, forward and decode as operators.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "tensors.h"

namespace affectcodec {
namespace ops {
namespace {

using cpu::DecodeJob;
using cpu::EncodeJob;

void run_encode(const EncodeJob& job, const Kernels& kernels) {
  in_parallel(cpu::units_of(job.z.total()), kGrain, [&](int64_t begin, int64_t end) {
    kernels.encode(job, begin, end, scratch(*job.plan));
  });
}

Tensor encode(const Tensor& z, const Tensor& weights, const Ints& config, bool channels_last) {
  const Plan& plan = plan_of(config);
  EncodeJob job{};
  job.plan = &plan;
  job.weights = weights_of(weights, plan);
  job.z = view_of(z, plan, channels_last, "z");
  Tensor tokens = make({job.z.batch, plan.stages, job.z.frames}, token_type(plan));
  job.tokens = token_view(tokens, true);
  run_encode(job, table());
  return tokens;
}

void encode_out(const Tensor& z, const Tensor& weights, const Ints& config, bool channels_last,
                Tensor out) {
  const Plan& plan = plan_of(config);
  EncodeJob job{};
  job.plan = &plan;
  job.weights = weights_of(weights, plan);
  job.z = view_of(z, plan, channels_last, "z");
  check_tokens(out, plan, job.z.batch, job.z.frames, "out");
  job.tokens = token_view(out, true);
  run_encode(job, table());
}

// What forward and forward_out share; `latents` ascend like the rates, the last
// one holds all stages.
void run_forward(const Tensor& z, const Tensor& weights, const Plan& plan,
                 const std::optional<Tensor>& counts, const std::vector<int32_t>& ascending,
                 const std::vector<View>& latents, bool channels_last, const Tensor& tokens,
                 float* saved) {
  EncodeJob job{};
  job.plan = &plan;
  job.weights = weights_of(weights, plan);
  job.z = view_of(z, plan, channels_last, "z");
  job.counts = counts_of(counts, plan, job.z.batch, job.z.frames);
  job.tokens = token_view(tokens, true);
  job.saved = saved;
  job.outputs = static_cast<int>(ascending.size());
  job.rates = ascending.data();
  job.out = latents.data();
  run_encode(job, table());
}

std::tuple<std::vector<Tensor>, Tensor, Tensor> forward(const Tensor& z, const Tensor& weights,
                                                        const Ints& config,
                                                        const std::optional<Tensor>& counts,
                                                        const Ints& rates, bool channels_last) {
  const Plan& plan = plan_of(config);
  const View v = view_of(z, plan, channels_last, "z");
  const auto ascending = rates_of(rates, plan);
  std::vector<Tensor> latents;
  std::vector<View> views;
  for (size_t i = 0; i < ascending.size(); ++i) {
    latents.push_back(make(latent_shape(v.batch, v.frames, plan, channels_last), z.scalar_type()));
    views.push_back(output_view(latents.back(), plan, channels_last));
  }
  Tensor tokens = make({v.batch, plan.stages, v.frames}, token_type(plan));
  Tensor saved =
      make({cpu::units_of(v.total()) * cpu::total_rows(plan) * kUnit}, ScalarType::Float);
  run_forward(z, weights, plan, counts, ascending, views, channels_last, tokens,
              static_cast<float*>(saved.mutable_data_ptr()));
  return {std::move(latents), std::move(tokens), std::move(saved)};
}

void forward_out(const Tensor& z, const Tensor& weights, const Ints& config,
                 const std::optional<Tensor>& counts, const Ints& rates, bool channels_last,
                 std::vector<Tensor> latents, Tensor tokens) {
  const Plan& plan = plan_of(config);
  const View v = view_of(z, plan, channels_last, "z");
  const auto ascending = rates_of(rates, plan);
  check(latents.size() == ascending.size(), "out: wanted ", ascending.size(), " latents, got ",
        latents.size());
  std::vector<View> views;
  for (Tensor& latent : latents) {
    views.push_back(output_view(latent, plan, channels_last));
    const View &own = views.back(), &first = views[0];
    check(own.type == v.type && own.batch == v.batch && own.frames == v.frames,
          "out: wanted latents of the shape and dtype of z");
    check(own.stride_b == first.stride_b && own.stride_t == first.stride_t &&
              own.stride_d == first.stride_d,
          "out: wanted latents of the same strides");
  }
  check_tokens(tokens, plan, v.batch, v.frames, "tokens");
  run_forward(z, weights, plan, counts, ascending, views, channels_last, tokens, nullptr);
}

void run_decode(const Tensor& tokens, const Tensor& weights, const Plan& plan,
                const std::optional<Tensor>& counts, bool channels_last, Tensor& out) {
  const Kernels& kernels = table();
  check_some_tokens(tokens, plan);
  DecodeJob job{};
  int64_t refused[2] = {0, 0};
  job.plan = &plan;
  job.weights = weights_of(weights, plan);
  job.tokens = token_view(tokens, false);
  job.stages = static_cast<int32_t>(tokens.size(1));
  job.out = output_view(out, plan, channels_last);
  job.counts = counts_of(counts, plan, job.out.batch, job.out.frames);
  job.refused = refused;
  in_parallel(cpu::units_of(job.out.total()), kGrain,
              [&](int64_t begin, int64_t end) { kernels.decode(job, begin, end, scratch(plan)); });
  check(refused[0] == 0, "tokens: values must lie in 0..", plan.codebook - 1, ", got ", refused[1],
        ". -1 marks a frame whose latent was NaN; other values come from "
        "another codec.");
}

Tensor decode(const Tensor& tokens, const Tensor& weights, const Ints& config,
              const std::optional<Tensor>& counts, bool channels_last, ScalarType dtype) {
  const Plan& plan = plan_of(config);
  check(tokens.dim() == 3, "tokens: wanted [B, K, T]");
  Tensor out = make(latent_shape(tokens.size(0), tokens.size(2), plan, channels_last), dtype);
  run_decode(tokens, weights, plan, counts, channels_last, out);
  return out;
}

void decode_out(const Tensor& tokens, const Tensor& weights, const Ints& config,
                const std::optional<Tensor>& counts, bool channels_last, Tensor out) {
  const Plan& plan = plan_of(config);
  check(tokens.dim() == 3 && out.dim() == 3 && out.size(0) == tokens.size(0) &&
            out.size(channels_last ? 1 : 2) == tokens.size(2),
        "out: wanted the batch and frames of tokens");
  run_decode(tokens, weights, plan, counts, channels_last, out);
}

}  // namespace
}  // namespace ops
}  // namespace affectcodec

STABLE_TORCH_LIBRARY_IMPL(affectcodec, CPU, m) {
  m.impl("encode_cpu", TORCH_BOX(&affectcodec::ops::encode));
  m.impl("encode_out_cpu", TORCH_BOX(&affectcodec::ops::encode_out));
  m.impl("forward_cpu", TORCH_BOX(&affectcodec::ops::forward));
  m.impl("forward_out_cpu", TORCH_BOX(&affectcodec::ops::forward_out));
  m.impl("decode_cpu", TORCH_BOX(&affectcodec::ops::decode));
  m.impl("decode_out_cpu", TORCH_BOX(&affectcodec::ops::decode_out));
}
