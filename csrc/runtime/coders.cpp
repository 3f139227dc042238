// SPDX-License-Identifier: Apache-2.0
#include "coders.h"

#include <cstring>
#include <string>
#include <utility>

namespace py = pybind11;

namespace affectcodec {
namespace runtime {
namespace {

int64_t scratch_of(const EncoderNet& net, const std::vector<int64_t>& config,
                   const FloatArray& folded) {
  const Quantizer q(config, folded);
  return padded_size(net.width) * kMaxRows + padded_size(q.scratch) + encoder_scratch(net);
}

}  // namespace

Quantizer::Quantizer(const std::vector<int64_t>& config, const FloatArray& folded) {
  const char* wrong =
      affectcodec::make_plan(config.data(), static_cast<int64_t>(config.size()), &plan);
  if (wrong) throw py::value_error(wrong);
  if (folded.size() != plan.floats) {
    throw py::value_error("folded: wanted " + std::to_string(plan.floats) + " floats, got " +
                          std::to_string(folded.size()));
  }
  weights = allocate(plan.floats * 4);
  std::memcpy(weights.get(), folded.data(), static_cast<size_t>(plan.floats) * 4);
  scratch = cpu::plan_scratch(plan).floats;
}

void Streams::reset(int slot) {
  check_slot(slot);
  const auto held = lock();
  slots_.reset(slot);
}

py::tuple Streams::state(int slot) {
  check_slot(slot);
  const auto held = lock();
  const SlotLayout& layout = slots_.layout();
  const Slot s = slots_.slot(slot);
  LongArray ints(layout.ints);
  DoubleArray doubles(layout.doubles);
  FloatArray floats(layout.floats);
  std::memcpy(ints.mutable_data(), s.ints, static_cast<size_t>(layout.ints) * 8);
  std::memcpy(doubles.mutable_data(), s.doubles, static_cast<size_t>(layout.doubles) * 8);
  std::memcpy(floats.mutable_data(), s.floats, static_cast<size_t>(layout.floats) * 4);
  return py::make_tuple(ints, doubles, floats);
}

void Streams::load_state(int slot, const LongArray& ints, const DoubleArray& doubles,
                         const FloatArray& floats) {
  check_slot(slot);
  const SlotLayout& layout = slots_.layout();
  if (ints.size() != layout.ints || doubles.size() != layout.doubles ||
      floats.size() != layout.floats) {
    throw py::value_error("state: of another size");
  }
  if (!sound(ints.data())) throw py::value_error("state: its integers are out of range");
  const auto held = lock();
  const Slot s = slots_.slot(slot);
  std::memcpy(s.ints, ints.data(), static_cast<size_t>(layout.ints) * 8);
  std::memcpy(s.doubles, doubles.data(), static_cast<size_t>(layout.doubles) * 8);
  std::memcpy(s.floats, floats.data(), static_cast<size_t>(layout.floats) * 4);
}

std::unique_lock<std::mutex> Streams::lock() {
  py::gil_scoped_release release;
  return std::unique_lock<std::mutex>(mutex_);
}

bool Streams::sound(const int64_t* ints) const {
  return ints[kSlotFrames] >= 0 && ints[kSlotFrames] < (int64_t{1} << 62);
}

void Streams::check_slot(int slot) const {
  if (slot < 0 || slot >= slots_.slots()) {
    throw py::value_error("slot: wanted 0.." + std::to_string(slots_.slots() - 1) + ", got " +
                          std::to_string(slot));
  }
}

Batch Streams::batch_of(const IntArray& slots, const IntArray& frames, int64_t rows) {
  if (slots.ndim() != 1 || frames.ndim() != 1 || slots.size() != frames.size() ||
      slots.size() > slots_.slots()) {
    throw py::value_error("slots and counts: wanted [n] each, at most one entry a slot");
  }
  Batch batch{slots.data(), frames.data(), static_cast<int>(slots.size())};
  used_.assign(static_cast<size_t>(slots_.slots()), false);
  int64_t total = 0;
  for (int i = 0; i < batch.count; ++i) {
    check_slot(batch.slot[i]);
    if (used_[static_cast<size_t>(batch.slot[i])]) throw py::value_error("slots: named twice");
    used_[static_cast<size_t>(batch.slot[i])] = true;
    if (batch.frames[i] < 1) throw py::value_error("counts: wanted at least one frame a slot");
    total += batch.frames[i];
  }
  if (total != rows) throw py::value_error("counts: their sum is not the number of frames");
  return batch;
}

Encoder::Encoder(EncoderParts parts, const std::vector<int64_t>& quantizer,
                 const FloatArray& folded, int slots, int threads)
    : Streams(parts.net.layout, slots, threads, scratch_of(parts.net, quantizer, folded)),
      net_(parts.net),
      quantizer_(quantizer, folded) {
  owned_ = std::move(parts.owned);
  weight_bytes_ = parts.bytes + quantizer_.plan.floats * 4;
  if (quantizer_.plan.width != net_.width) throw py::value_error("quantizer: of another width");
}

void Encoder::encode(const IntArray& slots, const IntArray& frames, const FloatArray& pcm,
                     py::array& tokens) {
  const Plan& plan = quantizer_.plan;
  const int64_t rows = rows_of(pcm);
  const bool wide = plan.wide();
  const bool typed = wide ? py::isinstance<py::array_t<int64_t>>(tokens)
                          : py::isinstance<py::array_t<int32_t>>(tokens);
  if (!typed || tokens.ndim() != 2 || tokens.shape(0) != rows || tokens.shape(1) != plan.stages ||
      !(tokens.flags() & py::array::c_style)) {
    throw py::value_error("tokens: wanted a contiguous array [R, K] of the token's type");
  }
  const auto held = lock();
  const Batch batch = batch_of(slots, frames, rows);
  if (!rows) return;
  const float* from = pcm.data();
  char* to = static_cast<char*>(tokens.mutable_data());
  const cpu::Kernels& cpu_kernels = quantizer_kernels();
  const Kernels& kernels = network_kernels();
  const int64_t ld = padded_size(net_.width);
  py::gil_scoped_release release;
  slots_.run(batch, [&](const Pass& pass, int64_t start, float* scratch, int) {
    float* latent = scratch;
    float* rest = scratch + ld * kMaxRows;
    kernels.encode(net_, pass, from + start * net_.windows.hop, latent, ld,
                   rest + padded_size(quantizer_.scratch));
    cpu::EncodeJob job{};
    job.plan = &plan;
    job.weights = quantizer_.data();
    job.z.data = latent;
    job.z.batch = pass.rows;
    job.z.frames = 1;
    job.z.channels = net_.width;
    job.z.stride_b = job.z.stride_t = ld;
    job.z.stride_d = 1;
    job.tokens.data = to + start * plan.stages * (wide ? 8 : 4);
    job.tokens.wide = wide;
    job.tokens.stride_b = plan.stages;
    job.tokens.stride_k = 1;
    cpu_kernels.encode(job, 0, cpu::units_of(pass.rows), rest);
  });
}

void Encoder::latents(const IntArray& slots, const IntArray& frames, const FloatArray& pcm,
                      FloatArray& latent) {
  const int64_t rows = rows_of(pcm);
  if (latent.ndim() != 2 || latent.shape(0) != rows || latent.shape(1) != net_.width) {
    throw py::value_error("latent: wanted [R, D]");
  }
  const auto held = lock();
  const Batch batch = batch_of(slots, frames, rows);
  if (!rows) return;
  const float* from = pcm.data();
  float* to = latent.mutable_data();
  const Kernels& kernels = network_kernels();
  const int64_t ld = padded_size(net_.width);
  py::gil_scoped_release release;
  slots_.run(batch, [&](const Pass& pass, int64_t start, float* scratch, int) {
    kernels.encode(net_, pass, from + start * net_.windows.hop, scratch, ld,
                   scratch + ld * kMaxRows);
    for (int r = 0; r < pass.rows; ++r) {
      std::memcpy(to + (start + r) * net_.width, scratch + r * ld,
                  static_cast<size_t>(net_.width) * 4);
    }
  });
}

int64_t Encoder::rows_of(const FloatArray& pcm) const {
  if (pcm.ndim() != 2 || pcm.shape(1) != net_.windows.hop) {
    throw py::value_error("pcm: wanted [R, " + std::to_string(net_.windows.hop) + "]");
  }
  return pcm.shape(0);
}

Decoder::Decoder(DecoderParts parts, const std::vector<int64_t>& quantizer,
                 const FloatArray& folded, int slots, int threads)
    : Streams(parts.net.layout, slots, threads, decoder_scratch(parts.net)),
      net_(parts.net),
      quantizer_(quantizer, folded),
      scratch_(allocate(quantizer_.scratch * 4)) {
  owned_ = std::move(parts.owned);
  weight_bytes_ = parts.bytes + quantizer_.plan.floats * 4;
  if (quantizer_.plan.width != net_.width) throw py::value_error("quantizer: of another width");
}

void Decoder::dequantize(const py::array& tokens, const LongArray& stages, FloatArray& latent) {
  const Plan& plan = quantizer_.plan;
  const bool wide = py::isinstance<py::array_t<int64_t>>(tokens);
  if ((!wide && !py::isinstance<py::array_t<int32_t>>(tokens)) || tokens.ndim() != 2 ||
      tokens.shape(1) < 1 || tokens.shape(1) > plan.stages ||
      !(tokens.flags() & py::array::c_style)) {
    throw py::value_error("tokens: wanted a contiguous int32 or int64 array [R, K]");
  }
  const int64_t rows = tokens.shape(0);
  if (stages.ndim() != 2 || stages.shape(0) != rows || stages.shape(1) != plan.blocks) {
    throw py::value_error("stages: wanted [R, G]");
  }
  if (latent.ndim() != 2 || latent.shape(0) != rows || latent.shape(1) != plan.width) {
    throw py::value_error("latent: wanted [R, D]");
  }
  int64_t refused[2] = {0, 0};
  cpu::DecodeJob job{};
  job.plan = &plan;
  job.weights = quantizer_.data();
  job.tokens.data = const_cast<void*>(tokens.data());
  job.tokens.wide = wide;
  job.tokens.stride_b = tokens.shape(1);
  job.tokens.stride_k = 1;
  job.stages = static_cast<int32_t>(tokens.shape(1));
  job.counts.data = stages.data();
  job.counts.stride_b = plan.blocks;
  job.counts.stride_g = 1;
  job.out.data = latent.mutable_data();
  job.out.batch = rows;
  job.out.frames = 1;
  job.out.channels = plan.width;
  job.out.stride_b = job.out.stride_t = plan.width;
  job.out.stride_d = 1;
  job.refused = refused;
  {
    py::gil_scoped_release release;
    std::lock_guard<std::mutex> lock(mutex_);
    quantizer_kernels().decode(job, 0, cpu::units_of(rows), static_cast<float*>(scratch_.get()));
  }
  if (refused[0]) {
    throw py::value_error("tokens: values must lie in 0.." + std::to_string(plan.codebook - 1) +
                          ", got " + std::to_string(refused[1]));
  }
}

void Decoder::synthesize(const IntArray& slots, const IntArray& frames, const FloatArray& latent,
                         FloatArray& pcm) {
  const int64_t rows = latent.ndim() == 2 ? latent.shape(0) : -1;
  if (rows < 0 || latent.shape(1) != net_.width) {
    throw py::value_error("latent: wanted [R, " + std::to_string(net_.width) + "]");
  }
  if (pcm.ndim() != 2 || pcm.shape(0) != rows || pcm.shape(1) != net_.windows.hop) {
    throw py::value_error("pcm: wanted [R, hop]");
  }
  const auto held = lock();
  const Batch batch = batch_of(slots, frames, rows);
  if (!rows) return;
  const float* from = latent.data();
  float* to = pcm.mutable_data();
  const Kernels& kernels = network_kernels();
  py::gil_scoped_release release;
  slots_.run(batch, [&](const Pass& pass, int64_t start, float* scratch, int) {
    kernels.decode(net_, pass, from + start * net_.width, net_.width, to + start * net_.windows.hop,
                   scratch);
  });
}

bool Decoder::sound(const int64_t* ints) const {
  return Streams::sound(ints) && ints[kSlotPhase] >= 0 && ints[kSlotPhase] < (int64_t{1} << 32) &&
         ints[kSlotPosition] >= 0 && ints[kSlotPosition] < net_.noise_length;
}

}  // namespace runtime
}  // namespace affectcodec
