// SPDX-License-Identifier: Apache-2.0
// Registers the CPU kernels as affectcodec::<op>_cpu. Schemas are defined in
// affectcodec/ops/registry.py. LibTorch's stable ABI only, so one build serves many torch versions.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "../core/bit_packing.h"
#include "../cpu/kernels.h"

namespace {

using affectcodec::Plan;
using affectcodec::cpu::BackwardJob;
using affectcodec::cpu::BlockGradients;
using affectcodec::cpu::BlockParameters;
using affectcodec::cpu::Counts;
using affectcodec::cpu::DecodeJob;
using affectcodec::cpu::EncodeJob;
using affectcodec::cpu::Kernels;
using affectcodec::cpu::kUnit;
using affectcodec::cpu::TokenView;
using affectcodec::cpu::Type;
using affectcodec::cpu::View;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

using Ints = std::vector<int64_t>;

// Raises RuntimeError with the message alone, which is for the user: no function, file or line.
template <typename... Parts>
void check(bool sound, const Parts&... parts) {
  if (sound) return;
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

const Kernels& table() {
  const char* why = "";
  const Kernels* kernels = affectcodec::cpu::kernels(&why);
  check(kernels != nullptr, "AFFECTCODEC_CPU_ISA: ", why,
        "; unset it to take the best instruction set of this machine");
  return *kernels;
}

// Working memory of the calling thread; it grows and stays, so that a call for one frame does not
// pay for an allocation. The values left in it are never read as results.
float* scratch(const Plan& plan) {
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  static thread_local std::unique_ptr<float, Free> memory;
  static thread_local int64_t size = 0;
  const int64_t wanted = affectcodec::cpu::plan_scratch(plan).floats;
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
constexpr int64_t kStreamBytes = int64_t{8} << 20;

// The plan of a configuration. The last one of a thread is kept: calls repeat it, and it is a good
// part of the cost of one frame.
const Plan& plan_of(const Ints& config) {
  static thread_local Ints known;
  static thread_local std::unique_ptr<Plan> plan;
  if (plan && known == config) return *plan;
  auto made = std::make_unique<Plan>();
  const char* wrong =
      affectcodec::make_plan(config.data(), static_cast<int64_t>(config.size()), made.get());
  check(wrong == nullptr, wrong);
  plan = std::move(made);
  known = config;
  return *plan;
}

const float* weights_of(const Tensor& weights, const Plan& plan) {
  check(weights.scalar_type() == ScalarType::Float && weights.dim() == 1 &&
            weights.is_contiguous() && weights.numel() == plan.floats,
        "weights: wanted the ", plan.floats,
        " floats that affectcodec::fold_cpu makes for this configuration, got ", weights.numel(),
        " elements");
  return static_cast<const float*>(weights.const_data_ptr());
}

Type type_of(const Tensor& t, const char* name) {
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

View view_of(const Tensor& t, const Plan& plan, bool channels_last, const char* name) {
  check(t.dim() == 3, name, ": wanted three dimensions, got ", t.dim());
  const int channel = channels_last ? 2 : 1, frame = channels_last ? 1 : 2;
  check(t.size(channel) == plan.width, name, ": wanted ", plan.width, " channels in dim ", channel,
        ", got ", t.size(channel));
  View v;
  v.type = type_of(t, name);
  v.data = const_cast<void*>(t.const_data_ptr());
  v.batch = t.size(0);
  v.frames = t.size(frame);
  v.channels = plan.width;
  v.stride_b = t.stride(0);
  v.stride_t = t.stride(frame);
  v.stride_d = t.stride(channel);
  // A step between single frames or samples is never taken, but decides how memory is walked.
  if (v.frames == 1) v.stride_t = v.stride_d * plan.width;
  return v;
}

// The same view of memory this file has just made and may write to.
View fresh_view(Tensor& t, const Plan& plan, bool channels_last) {
  View v = view_of(t, plan, channels_last, "out");
  v.data = t.mutable_data_ptr();
  v.stream = v.total() * plan.width * 4 > kStreamBytes;
  return v;
}

TokenView token_view(const Tensor& t, bool writable) {
  TokenView v;
  v.wide = t.scalar_type() == ScalarType::Long;
  v.data = writable ? t.mutable_data_ptr() : const_cast<void*>(t.const_data_ptr());
  v.stride_b = t.stride(0);
  v.stride_k = t.stride(1);
  v.stride_t = t.stride(2);
  return v;
}

Counts counts_of(const std::optional<Tensor>& t, const Plan& plan, int64_t batch, int64_t frames) {
  Counts c;
  if (!t) return c;
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

// A contiguous tensor on the CPU, without the detour through the dispatcher.
Tensor make(const std::vector<int64_t>& shape, ScalarType type) {
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

std::vector<int64_t> latent_shape(const View& v, const Plan& plan, bool channels_last) {
  return channels_last ? std::vector<int64_t>{v.batch, v.frames, plan.width}
                       : std::vector<int64_t>{v.batch, plan.width, v.frames};
}

// The six parameters of each block: W, c, O, e, scale logit, shift.
std::vector<BlockParameters> parameters_of(const std::vector<Tensor>& params, const Plan& plan) {
  check(static_cast<int64_t>(params.size()) == 6 * plan.blocks, "params: wanted 6 tensors a block");
  std::vector<BlockParameters> blocks;
  for (int g = 0; g < plan.blocks; ++g) {
    const auto& b = plan.block[g];
    const int64_t sizes[6] = {b.rows * b.width,      b.rows, b.rows * b.width,
                              plan.stages * b.width, b.rows, b.rows};
    const float* data[6];
    for (int i = 0; i < 6; ++i) {
      const Tensor& t = params[static_cast<size_t>(6 * g + i)];
      check(t.scalar_type() == ScalarType::Float && t.is_contiguous() && t.numel() == sizes[i],
            "params: tensor ", 6 * g + i, " must be contiguous float32 with ", sizes[i],
            " elements");
      data[i] = static_cast<const float*>(t.const_data_ptr());
    }
    blocks.push_back(BlockParameters{data[0], data[1], data[2], data[3], data[4], data[5]});
  }
  return blocks;
}

Tensor fold(const std::vector<Tensor>& params, const Ints& config) {
  const Plan& plan = plan_of(config);
  const Kernels& kernels = table();
  const auto blocks = parameters_of(params, plan);
  Tensor weights = make({plan.floats}, ScalarType::Float);
  float* to = static_cast<float*>(weights.mutable_data_ptr());
  for (int g = 0; g < plan.blocks; ++g) {
    kernels.fold(plan, g, blocks[static_cast<size_t>(g)], to);
  }
  return weights;
}

void run_encode(const EncodeJob& job, const Kernels& kernels) {
  in_parallel(affectcodec::cpu::units_of(job.z.total()), kGrain, [&](int64_t begin, int64_t end) {
    kernels.encode(job, begin, end, scratch(*job.plan));
  });
}

Tensor encode(const Tensor& z, const Tensor& weights, const Ints& config, bool channels_last) {
  const Plan& plan = plan_of(config);
  EncodeJob job{};
  job.plan = &plan;
  job.weights = weights_of(weights, plan);
  job.z = view_of(z, plan, channels_last, "z");
  Tensor tokens = make({job.z.batch, plan.stages, job.z.frames},
                       plan.wide() ? ScalarType::Long : ScalarType::Int);
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
  check(out.dim() == 3 && out.size(0) == job.z.batch && out.size(1) == plan.stages &&
            out.size(2) == job.z.frames &&
            out.scalar_type() == (plan.wide() ? ScalarType::Long : ScalarType::Int),
        "out: wanted ", plan.wide() ? "int64" : "int32", " [", job.z.batch, ", ", plan.stages, ", ",
        job.z.frames, "]");
  job.tokens = token_view(out, true);
  run_encode(job, table());
}

std::tuple<std::vector<Tensor>, Tensor, Tensor> forward(const Tensor& z, const Tensor& weights,
                                                        const Ints& config,
                                                        const std::optional<Tensor>& counts,
                                                        const Ints& rates, bool channels_last) {
  const Plan& plan = plan_of(config);
  EncodeJob job{};
  job.plan = &plan;
  job.weights = weights_of(weights, plan);
  job.z = view_of(z, plan, channels_last, "z");
  job.counts = counts_of(counts, plan, job.z.batch, job.z.frames);
  const auto ascending = rates_of(rates, plan);
  std::vector<Tensor> latents;
  std::vector<View> views;
  for (size_t i = 0; i < ascending.size(); ++i) {
    latents.push_back(make(latent_shape(job.z, plan, channels_last), z.scalar_type()));
    views.push_back(fresh_view(latents.back(), plan, channels_last));
  }
  Tensor tokens = make({job.z.batch, plan.stages, job.z.frames},
                       plan.wide() ? ScalarType::Long : ScalarType::Int);
  const int64_t units = affectcodec::cpu::units_of(job.z.total());
  Tensor saved = make({units * affectcodec::cpu::total_rows(plan) * kUnit}, ScalarType::Float);
  job.tokens = token_view(tokens, true);
  job.saved = static_cast<float*>(saved.mutable_data_ptr());
  job.outputs = static_cast<int>(ascending.size());
  job.rates = ascending.data();
  job.out = views.data();
  run_encode(job, table());
  return {std::move(latents), std::move(tokens), std::move(saved)};
}

std::tuple<Tensor, std::vector<Tensor>> backward(
    const std::vector<Tensor>& grads, const Ints& present, const Tensor& z, const Tensor& saved,
    const Tensor& weights, const std::vector<Tensor>& params, const Ints& config,
    const std::optional<Tensor>& counts, const Ints& rates, bool channels_last, bool need_dz) {
  const Plan& plan = plan_of(config);
  const Kernels& kernels = table();
  BackwardJob job{};
  job.plan = &plan;
  job.weights = weights_of(weights, plan);
  job.z = view_of(z, plan, channels_last, "z");
  job.counts = counts_of(counts, plan, job.z.batch, job.z.frames);
  const auto ascending = rates_of(rates, plan);
  const auto blocks = parameters_of(params, plan);
  const int64_t units = affectcodec::cpu::units_of(job.z.total());
  check(saved.scalar_type() == ScalarType::Float && saved.is_contiguous() &&
            saved.numel() == units * affectcodec::cpu::total_rows(plan) * kUnit,
        "saved: not what forward made for this z");
  job.saved = static_cast<const float*>(saved.const_data_ptr());
  std::vector<View> views(ascending.size());
  check(grads.size() == present.size(), "grads: wanted one tensor an entry of present");
  for (size_t i = 0; i < grads.size(); ++i) {
    check(present[i] >= 0 && present[i] < static_cast<int64_t>(views.size()),
          "present: wanted indices of the outputs");
    View v = view_of(grads[i], plan, channels_last, "grads");
    check(v.batch == job.z.batch && v.frames == job.z.frames, "grads: wanted the shape of z");
    views[static_cast<size_t>(present[i])] = v;
  }
  job.outputs = static_cast<int>(ascending.size());
  job.rates = ascending.data();
  job.grad = views.data();
  Tensor dz = need_dz ? make(latent_shape(job.z, plan, channels_last), z.scalar_type())
                      : make({0}, z.scalar_type());
  if (need_dz) job.dz = fresh_view(dz, plan, channels_last);

  // The number of slabs follows from the number of frames alone: sums must not depend on threads.
  job.slabs =
      units < affectcodec::cpu::kMaxSlabs ? (units > 0 ? units : 1) : affectcodec::cpu::kMaxSlabs;
  const int64_t floats = affectcodec::cpu::plan_partials(plan, job.outputs, job.rates, nullptr);
  Tensor partial = make({job.slabs, floats}, ScalarType::Float);
  job.partial = static_cast<float*>(partial.mutable_data_ptr());
  in_parallel(job.slabs, 1, [&](int64_t begin, int64_t end) {
    kernels.backward(job, begin, end, scratch(plan));
  });
  in_parallel(floats, 1 << 14, [&](int64_t begin, int64_t end) {
    kernels.reduce(job.partial, floats, job.slabs, begin, end);
  });

  std::vector<Tensor> out;
  std::vector<BlockGradients> to(static_cast<size_t>(plan.blocks));
  for (int g = 0; g < plan.blocks; ++g) {
    const auto& b = plan.block[g];
    float* data[6];
    const std::vector<int64_t> shapes[6] = {{plan.stages, b.dims, b.width}, {plan.stages, b.dims},
                                            {plan.stages, b.width, b.dims}, {plan.stages, b.width},
                                            {plan.stages, b.dims},          {plan.stages, b.dims}};
    for (int i = 0; i < 6; ++i) {
      out.push_back(make(shapes[i], ScalarType::Float));
      data[i] = static_cast<float*>(out.back().mutable_data_ptr());
    }
    to[static_cast<size_t>(g)] =
        BlockGradients{data[0], data[1], data[2], data[3], data[4], data[5]};
  }
  in_parallel(plan.blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const auto& b = plan.block[g];
      std::vector<float> work(static_cast<size_t>(b.rows * b.ld_width));
      const auto& p = blocks[static_cast<size_t>(g)];
      kernels.finish(job, static_cast<int>(g), p.logit, p.e, to[static_cast<size_t>(g)],
                     work.data());
    }
  });
  return {std::move(dz), std::move(out)};
}

void run_decode(const Tensor& tokens, const Tensor& weights, const Plan& plan,
                const std::optional<Tensor>& counts, bool channels_last, Tensor& out) {
  const Kernels& kernels = table();
  check(tokens.dim() == 3 && tokens.size(1) >= 1 && tokens.size(1) <= plan.stages,
        "tokens: wanted [B, K, T] with 1..", plan.stages, " stages");
  check(tokens.scalar_type() == ScalarType::Int || tokens.scalar_type() == ScalarType::Long,
        "tokens: wanted int32 or int64");
  DecodeJob job{};
  int64_t refused[2] = {0, 0};
  job.plan = &plan;
  job.weights = weights_of(weights, plan);
  job.tokens = token_view(tokens, false);
  job.stages = static_cast<int32_t>(tokens.size(1));
  job.out = fresh_view(out, plan, channels_last);
  job.counts = counts_of(counts, plan, job.out.batch, job.out.frames);
  job.refused = refused;
  in_parallel(affectcodec::cpu::units_of(job.out.total()), kGrain,
              [&](int64_t begin, int64_t end) { kernels.decode(job, begin, end, scratch(plan)); });
  check(refused[0] == 0, "tokens: values must lie in 0..", plan.codebook - 1, ", got ", refused[1],
        ". -1 marks a frame whose latent was NaN; other values come from another codec.");
}

Tensor decode(const Tensor& tokens, const Tensor& weights, const Ints& config,
              const std::optional<Tensor>& counts, bool channels_last, ScalarType dtype) {
  const Plan& plan = plan_of(config);
  check(tokens.dim() == 3, "tokens: wanted [B, K, T]");
  View shape;
  shape.batch = tokens.size(0);
  shape.frames = tokens.size(2);
  Tensor out = make(latent_shape(shape, plan, channels_last), dtype);
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

Tensor pack_bits(const Tensor& codes, int64_t bits) {
  check(bits >= 1 && bits <= affectcodec::kMaxBits, "bits: expected 1..63, got ", bits);
  check(codes.dim() == 1 && codes.is_contiguous(), "codes: expected one contiguous dimension");
  const bool wide = codes.scalar_type() == ScalarType::Long;
  check(wide || codes.scalar_type() == ScalarType::Int, "codes: expected int32 or int64");
  const auto count = static_cast<size_t>(codes.numel());
  const int width = static_cast<int>(bits);
  Tensor out =
      make({static_cast<int64_t>(affectcodec::packed_size(count, width))}, ScalarType::Byte);
  auto* to = static_cast<uint8_t*>(out.mutable_data_ptr());
  if (count == 0) return out;
  const auto pack = [&](const auto* from) {
    if (affectcodec::pack_bits(from, count, width, to)) return;
    const size_t bad = affectcodec::first_outside(from, count, width);
    check(false, "codes[", bad, "]: does not fit ", bits, " bits, expected 0..",
          (uint64_t{1} << bits) - 1);
  };
  if (wide) {
    pack(static_cast<const int64_t*>(codes.const_data_ptr()));
  } else {
    pack(static_cast<const int32_t*>(codes.const_data_ptr()));
  }
  return out;
}

Tensor unpack_bits(const Tensor& data, int64_t bits, int64_t count, ScalarType dtype) {
  check(bits >= 1 && bits <= affectcodec::kMaxBits, "bits: expected 1..63, got ", bits);
  const bool wide = dtype == ScalarType::Long;
  check(wide || (dtype == ScalarType::Int && bits <= 31),
        "dtype: expected int64, or int32 for at most 31 bits");
  check(data.scalar_type() == ScalarType::Byte && data.dim() == 1 && data.is_contiguous(),
        "data: expected one contiguous dimension of uint8");
  const int width = static_cast<int>(bits);
  const auto size = static_cast<size_t>(data.numel());
  // By division first: an absurd count must neither overflow nor be allocated.
  check(count >= 0 && static_cast<size_t>(count) <= size * 8 / static_cast<size_t>(bits) &&
            affectcodec::packed_size(static_cast<size_t>(count), width) == size,
        "data: ", size, " bytes are not ", count, " codes of ", bits, " bits");
  const auto* from = static_cast<const uint8_t*>(data.const_data_ptr());
  const size_t used = static_cast<size_t>(count) * static_cast<size_t>(bits) % 8;
  check(used == 0 || from[size - 1] >> used == 0,
        "data: the bits that fill up the last byte are not 0");
  Tensor out = make({count}, dtype);
  if (wide) {
    affectcodec::unpack_bits(from, static_cast<size_t>(count), width,
                             static_cast<int64_t*>(out.mutable_data_ptr()));
  } else {
    affectcodec::unpack_bits(from, static_cast<size_t>(count), width,
                             static_cast<int32_t*>(out.mutable_data_ptr()));
  }
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(affectcodec, CPU, m) {
  m.impl("fold_cpu", TORCH_BOX(&fold));
  m.impl("encode_cpu", TORCH_BOX(&encode));
  m.impl("encode_out_cpu", TORCH_BOX(&encode_out));
  m.impl("forward_cpu", TORCH_BOX(&forward));
  m.impl("backward_cpu", TORCH_BOX(&backward));
  m.impl("decode_cpu", TORCH_BOX(&decode));
  m.impl("decode_out_cpu", TORCH_BOX(&decode_out));
  m.impl("pack_bits_cpu", TORCH_BOX(&pack_bits));
  m.impl("unpack_bits_cpu", TORCH_BOX(&unpack_bits));
}
