// SPDX-License-Identifier: Apache-2.0
// Registers the CUDA kernels as affectcodec::<op>_cuda. Schemas are defined in
// affectcodec/ops/registry.py. LibTorch's stable ABI and the launchers in plain C only: this builds
// beside a torch without CUDA, and knows nothing of the CUDA runtime itself.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "../core/plan.h"
#include "../cuda/launch.h"

namespace {

using affectcodec::Plan;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Ints = std::vector<int64_t>;

constexpr int64_t kUnit = 64;  // frames; what forward saves is padded to whole units

// Raises RuntimeError with the message alone, which is for the user: no function, file or line.
template <typename... Parts>
void check(bool sound, const Parts&... parts) {
  if (sound) return;
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

void check_launch(const char* op, int code) {
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

void check_place(const Tensor& t, const Tensor& like, const char* name) {
  check(t.is_cuda() && t.get_device_index() == like.get_device_index(), name,
        ": wanted a tensor on the same CUDA device as the other arguments");
}

Plan read_plan(const Ints& config) {
  Plan plan;
  const char* wrong =
      affectcodec::make_plan(config.data(), static_cast<int64_t>(config.size()), &plan);
  check(wrong == nullptr, wrong ? wrong : "");
  return plan;
}

int64_t size_of(const Ints& config) { return static_cast<int64_t>(config.size()); }

const float* weights_of(const Tensor& weights, const Tensor& like, const Ints& config) {
  const int64_t floats = affectcodec_cuda_weights(config.data(), size_of(config));
  check_place(weights, like, "weights");
  check(weights.scalar_type() == ScalarType::Float && weights.dim() == 1 &&
            weights.is_contiguous() && weights.numel() == floats,
        "weights: wanted the ", floats,
        " floats that affectcodec::fold_cuda makes for this configuration, got ", weights.numel(),
        " elements");
  return static_cast<const float*>(weights.const_data_ptr());
}

int32_t type_of(const Tensor& t, const char* name) {
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

affectcodec_latent latent_of(const Tensor& t, const Plan& plan, bool channels_last,
                             const char* name) {
  check(t.dim() == 3, name, ": wanted three dimensions, got ", t.dim());
  const int channel = channels_last ? 2 : 1, frame = channels_last ? 1 : 2;
  check(t.size(channel) == plan.width, name, ": wanted ", plan.width, " channels in dim ", channel,
        ", got ", t.size(channel));
  affectcodec_latent v{};
  v.data = const_cast<void*>(t.const_data_ptr());
  v.batch = t.size(0);
  v.frames = t.size(frame);
  v.stride_b = t.stride(0);
  v.stride_t = t.stride(frame);
  v.stride_d = t.stride(channel);
  v.type = type_of(t, name);
  return v;
}

affectcodec_tokens tokens_of(const Tensor& t) {
  affectcodec_tokens v{};
  v.data = const_cast<void*>(t.const_data_ptr());
  v.stride_b = t.stride(0);
  v.stride_k = t.stride(1);
  v.stride_t = t.stride(2);
  v.stages = static_cast<int32_t>(t.size(1));
  v.wide = t.scalar_type() == ScalarType::Long;
  return v;
}

affectcodec_counts counts_of(const std::optional<Tensor>& t, const Tensor& like, const Plan& plan,
                             int64_t batch, int64_t frames) {
  affectcodec_counts c{};
  if (!t) return c;
  check_place(*t, like, "counts");
  check(t->scalar_type() == ScalarType::Long, "counts: wanted int64");
  check((t->dim() == 2 || (t->dim() == 3 && t->size(2) == frames)) && t->size(0) == batch &&
            t->size(1) == plan.blocks,
        "counts: wanted [", batch, ", ", plan.blocks, "] or [", batch, ", ", plan.blocks, ", ",
        frames, "]");
  c.data = static_cast<const int64_t*>(t->const_data_ptr());
  c.stride_b = t->stride(0);
  c.stride_g = t->stride(1);
  c.stride_t = t->dim() == 3 ? t->stride(2) : 0;
  return c;
}

std::vector<int32_t> rates_of(const Ints& asked, const Plan& plan) {
  std::vector<int32_t> rates;
  for (const int64_t rate : asked) {
    check(rate > (rates.empty() ? 0 : rates.back()) && rate < plan.stages,
          "rates: wanted ascending stage counts in 1..", plan.stages - 1);
    rates.push_back(static_cast<int32_t>(rate));
  }
  rates.push_back(plan.stages);
  return rates;
}

Ints latent_shape(int64_t batch, int64_t frames, const Plan& plan, bool channels_last) {
  return channels_last ? Ints{batch, frames, plan.width} : Ints{batch, plan.width, frames};
}

ScalarType token_type(const Plan& plan) {
  return plan.codebook > (uint64_t{1} << 31) ? ScalarType::Long : ScalarType::Int;
}

Tensor make(const Tensor& like, const Ints& shape, ScalarType type) {
  return torch::stable::new_empty(like, shape, type);
}

// The six parameters of each block: W, c, O, e, scale logit, shift.
std::vector<const float*> parameters_of(const std::vector<Tensor>& params, const Plan& plan,
                                        const Tensor& like) {
  check(static_cast<int64_t>(params.size()) == 6 * plan.blocks, "params: wanted 6 tensors a block");
  std::vector<const float*> found;
  for (int g = 0; g < plan.blocks; ++g) {
    const auto& b = plan.block[g];
    const int64_t sizes[6] = {b.rows * b.width,      b.rows, b.rows * b.width,
                              plan.stages * b.width, b.rows, b.rows};
    for (int i = 0; i < 6; ++i) {
      const Tensor& t = params[static_cast<size_t>(6 * g + i)];
      check_place(t, like, "params");
      check(t.scalar_type() == ScalarType::Float && t.is_contiguous() && t.numel() == sizes[i],
            "params: tensor ", 6 * g + i, " must be contiguous float32 with ", sizes[i],
            " elements");
      found.push_back(static_cast<const float*>(t.const_data_ptr()));
    }
  }
  return found;
}

Tensor fold(const std::vector<Tensor>& params, const Ints& config) {
  const Plan plan = read_plan(config);
  check(!params.empty(), "params: wanted 6 tensors a block");
  const Place place(params[0]);
  const auto data = parameters_of(params, plan, params[0]);
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
  check(out.dim() == 3 && out.size(0) == from.batch && out.size(1) == plan.stages &&
            out.size(2) == from.frames && out.scalar_type() == token_type(plan),
        "out: wanted ", token_type(plan) == ScalarType::Long ? "int64" : "int32", " [", from.batch,
        ", ", plan.stages, ", ", from.frames, "]");
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

std::tuple<std::vector<Tensor>, Tensor, Tensor> forward(const Tensor& z, const Tensor& weights,
                                                        const Ints& config,
                                                        const std::optional<Tensor>& counts,
                                                        const Ints& rates, bool channels_last) {
  const Plan plan = read_plan(config);
  const Place place(z);
  const affectcodec_latent from = latent_of(z, plan, channels_last, "z");
  const affectcodec_counts counted = counts_of(counts, z, plan, from.batch, from.frames);
  const auto ascending = rates_of(rates, plan);
  std::vector<Tensor> latents;
  std::vector<void*> to;
  for (size_t i = 0; i < ascending.size(); ++i) {
    latents.push_back(
        make(z, latent_shape(from.batch, from.frames, plan, channels_last), z.scalar_type()));
    to.push_back(latents.back().mutable_data_ptr());
  }
  const affectcodec_latent out = latent_of(latents[0], plan, channels_last, "out");
  Tensor tokens = make(z, {from.batch, plan.stages, from.frames}, token_type(plan));
  const affectcodec_tokens token = tokens_of(tokens);
  const int64_t units = (from.batch * from.frames + kUnit - 1) / kUnit;
  Tensor saved = make(z, {units * plan.stages * plan.dims * kUnit}, ScalarType::Float);
  check_launch("forward",
               affectcodec_cuda_forward(
                   config.data(), size_of(config), weights_of(weights, z, config), &from, &counted,
                   &out, to.data(), ascending.data(), static_cast<int32_t>(ascending.size()),
                   &token, static_cast<float*>(saved.mutable_data_ptr()), place.stream()));
  return {std::move(latents), std::move(tokens), std::move(saved)};
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
  const auto data = parameters_of(params, plan, z);
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
    const auto& b = plan.block[g];
    const Ints shapes[6] = {{plan.stages, b.dims, b.width}, {plan.stages, b.dims},
                            {plan.stages, b.width, b.dims}, {plan.stages, b.width},
                            {plan.stages, b.dims},          {plan.stages, b.dims}};
    for (const Ints& shape : shapes) {
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
  check(tokens.dim() == 3 && tokens.size(1) >= 1 && tokens.size(1) <= plan.stages,
        "tokens: wanted [B, K, T] with 1..", plan.stages, " stages");
  check(tokens.scalar_type() == ScalarType::Int || tokens.scalar_type() == ScalarType::Long,
        "tokens: wanted int32 or int64");
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
  check(bits >= 1 && bits <= 63, "bits: expected 1..63, got ", bits);
  check(codes.dim() == 1 && codes.is_contiguous(), "codes: expected one contiguous dimension");
  const bool wide = codes.scalar_type() == ScalarType::Long;
  check(wide || codes.scalar_type() == ScalarType::Int, "codes: expected int32 or int64");
  const Place place(codes);
  const int64_t count = codes.numel();
  Tensor out = make(codes, {(count * bits + 7) / 8}, ScalarType::Byte);
  check_launch("pack_bits", affectcodec_cuda_pack_bits(
                                codes.const_data_ptr(), wide, count, static_cast<int32_t>(bits),
                                static_cast<uint8_t*>(out.mutable_data_ptr()), place.stream()));
  return out;
}

Tensor unpack_bits(const Tensor& data, int64_t bits, int64_t count, ScalarType dtype) {
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
  const Place place(data);
  Tensor out = make(data, {count}, dtype);
  check_launch("unpack_bits",
               affectcodec_cuda_unpack_bits(static_cast<const uint8_t*>(data.const_data_ptr()),
                                            static_cast<int32_t>(bits), count, wide,
                                            out.mutable_data_ptr(), place.stream()));
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(affectcodec, CUDA, m) {
  m.impl("fold_cuda", TORCH_BOX(&fold));
  m.impl("encode_cuda", TORCH_BOX(&encode));
  m.impl("encode_out_cuda", TORCH_BOX(&encode_out));
  m.impl("forward_cuda", TORCH_BOX(&forward));
  m.impl("backward_cuda", TORCH_BOX(&backward));
  m.impl("decode_cuda", TORCH_BOX(&decode));
  m.impl("decode_out_cuda", TORCH_BOX(&decode_out));
  m.impl("pack_bits_cuda", TORCH_BOX(&pack_bits));
  m.impl("unpack_bits_cuda", TORCH_BOX(&unpack_bits));
}
