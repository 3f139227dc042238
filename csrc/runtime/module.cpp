// SPDX-License-Identifier: Apache-2.0
// affectcodec._runtime: the causal encoder and decoder as native kernels, for Python. Needs no
// torch. Every argument is checked here: a compiled function must not read or write outside its
// buffers, whoever calls it.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <mutex>

#include "streams.h"

namespace py = pybind11;

namespace {

using namespace affectcodec::runtime;
using affectcodec::Plan;
namespace cpu = affectcodec::cpu;

using FloatArray = py::array_t<float, py::array::c_style>;
using IntArray = py::array_t<int32_t, py::array::c_style>;
using LongArray = py::array_t<int64_t, py::array::c_style>;
using DoubleArray = py::array_t<double, py::array::c_style>;

// Numbers of a configuration in their documented order.
class Numbers {
 public:
  Numbers(std::vector<int64_t> values, const char* name)
      : values_(std::move(values)), name_(name) {}
  int32_t next(int64_t low = 1, int64_t high = 1 << 20) {
    if (at_ >= values_.size()) throw py::value_error(std::string(name_) + ": too few numbers");
    const int64_t value = values_[at_++];
    if (value < low || value > high) {
      throw py::value_error(std::string(name_) + ": number " + std::to_string(at_ - 1) + " is " +
                            std::to_string(value) + ", wanted " + std::to_string(low) + ".." +
                            std::to_string(high));
    }
    return static_cast<int32_t>(value);
  }
  void finish() const {
    if (at_ != values_.size()) throw py::value_error(std::string(name_) + ": too many numbers");
  }

 private:
  std::vector<int64_t> values_;
  const char* name_;
  size_t at_ = 0;
};

const cpu::Kernels& quantizer_kernels() {
  const char* why = "";
  const cpu::Kernels* kernels = cpu::kernels(&why);
  if (!kernels) throw std::runtime_error(std::string("AFFECTCODEC_CPU_ISA: ") + why);
  return *kernels;
}

const Kernels& network_kernels() {
  const Kernels* kernels = kernels_named(quantizer_kernels().name);
  if (!kernels) throw std::runtime_error("no runtime kernels for this instruction set");
  return *kernels;
}

std::vector<Array> read_arrays(const py::list& list) {
  std::vector<Array> arrays;
  for (const auto& item : list) {
    const auto pair = item.cast<py::tuple>();
    const auto array = pair[1].cast<py::array>();
    const bool narrow = py::isinstance<py::array_t<float>>(array);
    const bool wide = py::isinstance<py::array_t<double>>(array);
    Array a{pair[0].cast<std::string>(), array.data(), static_cast<int64_t>(array.size()), wide};
    if ((!narrow && !wide) || !(array.flags() & py::array::c_style)) {
      throw py::value_error(a.name + ": wanted a contiguous float32 or float64 array");
    }
    arrays.push_back(a);
  }
  return arrays;
}

Windows read_windows(Numbers* n) {
  Windows w;
  w.hop = n->next(2, 1 << 16);
  w.window = n->next(2, 1 << 16);
  w.step = n->next(1, 1 << 16);
  w.bins = w.window / 2 + 1;
  if (w.hop % w.step || w.hop / w.step > 8 || w.window % 2 || w.window < w.step ||
      w.window + w.hop - w.step > 2 * w.hop) {
    throw py::value_error("windows: the runtime takes even windows of two hops, at most 8 a hop");
  }
  w.per_frame = w.hop / w.step;
  return w;
}

// The quantizer: its plan and folded weights.
struct Quantizer {
  Plan plan;
  Memory weights;
  int64_t scratch = 0;

  Quantizer(const std::vector<int64_t>& config, const FloatArray& folded) {
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
  const float* data() const { return static_cast<const float*>(weights.get()); }
};

// What encoder and decoder have in common.
class Streams {
 public:
  Streams(const SlotLayout& layout, int slots, int threads, int64_t scratch)
      : slots_(layout, slots, threads, scratch) {}
  virtual ~Streams() = default;

  void reset(int slot) {
    check_slot(slot);
    std::lock_guard<std::mutex> lock(mutex_);
    slots_.reset(slot);
  }

  py::tuple state(int slot) {
    check_slot(slot);
    std::lock_guard<std::mutex> lock(mutex_);
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

  void load_state(int slot, const LongArray& ints, const DoubleArray& doubles,
                  const FloatArray& floats) {
    check_slot(slot);
    const SlotLayout& layout = slots_.layout();
    if (ints.size() != layout.ints || doubles.size() != layout.doubles ||
        floats.size() != layout.floats) {
      throw py::value_error("state: of another size");
    }
    if (!sound(ints.data())) throw py::value_error("state: its integers are out of range");
    std::lock_guard<std::mutex> lock(mutex_);
    const Slot s = slots_.slot(slot);
    std::memcpy(s.ints, ints.data(), static_cast<size_t>(layout.ints) * 8);
    std::memcpy(s.doubles, doubles.data(), static_cast<size_t>(layout.doubles) * 8);
    std::memcpy(s.floats, floats.data(), static_cast<size_t>(layout.floats) * 4);
  }

  int64_t slot_bytes() const { return slots_.slot_bytes(); }
  int64_t weight_bytes() const { return weight_bytes_; }

 protected:
  virtual bool sound(const int64_t* ints) const {
    return ints[0] >= 0 && ints[0] < (int64_t{1} << 62);
  }

  void check_slot(int slot) const {
    if (slot < 0 || slot >= slots_.slots()) {
      throw py::value_error("slot: wanted 0.." + std::to_string(slots_.slots() - 1) + ", got " +
                            std::to_string(slot));
    }
  }

  // Each slot once, and as many frames as there are rows.
  Batch batch_of(const IntArray& slots, const IntArray& frames, int64_t rows) {
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

  Slots slots_;
  std::vector<bool> used_;
  std::vector<Memory> owned_;
  int64_t weight_bytes_ = 0;
  std::mutex mutex_;
};

struct EncoderParts {
  EncoderNet net;
  std::vector<Memory> owned;
  int64_t bytes = 0;
};

EncoderParts build_encoder(const std::vector<int64_t>& config, const py::list& list, bool half) {
  EncoderParts parts;
  EncoderNet& net = parts.net;
  Numbers n(config, "encoder");
  const std::vector<Array> arrays = read_arrays(list);
  Builder builder(arrays, network_kernels(), half, kEncoderDepth);
  net.windows = read_windows(&n);
  net.pitch_window = n.next(2, 1 << 16);
  net.low_bins = n.next(1, net.pitch_window / 2);
  net.pooled = n.next(1, net.windows.bins);
  net.first_lag = n.next(1, net.pitch_window / 2);
  net.lags = n.next(2, net.pitch_window - net.first_lag);
  net.history = net.pitch_window - net.windows.hop;
  if (net.history < net.windows.hop) net.history = net.windows.hop;
  const int kernel = n.next(1, 64), expansion = n.next(1, 64);
  const int acoustic = n.next(), acoustic_blocks = n.next(1, kMaxBlocks);
  const int emotion = n.next(), emotion_blocks = n.next(1, kMaxBlocks);
  net.blocks = n.next(1, 2);
  net.windows.weight = builder.values<double>(net.windows.window);
  net.windows.transform = builder.transform(net.windows.window);
  net.pitch_weight = builder.values<double>(net.pitch_window);
  net.pitch = builder.transform(net.pitch_window);
  net.taper = builder.values<double>(net.lags);
  net.layout.ints = 1;
  net.layout.floats = padded_size(net.history);
  const int per_frame = net.windows.per_frame;
  builder.stack(&net.acoustic, per_frame * (net.windows.bins + 1), acoustic, acoustic_blocks,
                kernel, expansion, 0, &net.layout.floats);
  const int pooled = per_frame * (net.windows.bins / net.pooled + 1);
  builder.stack(&net.emotion, pooled + net.lags - 1 + net.low_bins + 1, emotion, emotion_blocks,
                kernel, expansion, 0, &net.layout.floats);
  for (int g = 0; g < net.blocks; ++g) {
    net.head[g].emotion = n.next(0, 1) == 1;
    const int width = n.next();
    net.head[g].channel = net.width;
    net.head[g].linear = builder.linear<float>(net.head[g].emotion ? emotion : acoustic, width);
    net.width += width;
  }
  n.finish();
  builder.finish();
  parts.bytes = builder.bytes();
  parts.owned = builder.release();
  return parts;
}

class Encoder : public Streams {
 public:
  Encoder(EncoderParts parts, const std::vector<int64_t>& quantizer, const FloatArray& folded,
          int slots, int threads)
      : Streams(parts.net.layout, slots, threads, scratch_of(parts.net, quantizer, folded)),
        net_(parts.net),
        quantizer_(quantizer, folded) {
    owned_ = std::move(parts.owned);
    weight_bytes_ = parts.bytes + quantizer_.plan.floats * 4;
    if (quantizer_.plan.width != net_.width) throw py::value_error("quantizer: of another width");
  }

  // Tokens of `pcm` [R, hop] into `tokens` [R, K].
  void encode(const IntArray& slots, const IntArray& frames, const FloatArray& pcm,
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
    std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
    {
      py::gil_scoped_release release;  // never wait for the lock with the interpreter held
      lock.lock();
    }
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

  // What the quantizer would take: latents of `pcm` [R, hop] into `latent` [R, D].
  void latents(const IntArray& slots, const IntArray& frames, const FloatArray& pcm,
               FloatArray& latent) {
    const int64_t rows = rows_of(pcm);
    if (latent.ndim() != 2 || latent.shape(0) != rows || latent.shape(1) != net_.width) {
      throw py::value_error("latent: wanted [R, D]");
    }
    std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
    {
      py::gil_scoped_release release;
      lock.lock();
    }
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

 private:
  int64_t rows_of(const FloatArray& pcm) const {
    if (pcm.ndim() != 2 || pcm.shape(1) != net_.windows.hop) {
      throw py::value_error("pcm: wanted [R, " + std::to_string(net_.windows.hop) + "]");
    }
    return pcm.shape(0);
  }

  static int64_t scratch_of(const EncoderNet& net, const std::vector<int64_t>& config,
                            const FloatArray& folded) {
    const Quantizer q(config, folded);
    return padded_size(net.width) * kMaxRows + padded_size(q.scratch) + encoder_scratch(net);
  }

  EncoderNet net_;
  Quantizer quantizer_;
};

struct DecoderParts {
  DecoderNet net;
  std::vector<Memory> owned;
  int64_t bytes = 0;
};

DecoderParts build_decoder(const std::vector<int64_t>& config, const std::vector<double>& reals,
                           const py::list& list, bool half) {
  DecoderParts parts;
  DecoderNet& net = parts.net;
  Numbers n(config, "decoder");
  if (reals.size() != 3) throw py::value_error("decoder: wanted top_hz and two decays");
  const std::vector<Array> arrays = read_arrays(list);
  Builder builder(arrays, network_kernels(), half, kDecoderDepth);
  net.windows = read_windows(&n);
  net.sample_rate = n.next(1, 1 << 24);
  const int kernel = n.next(1, 64), expansion = n.next(1, 64);
  const int hidden = n.next(), prosody_blocks = n.next(1, kMaxBlocks);
  const int prosody_expansion = n.next(1, 64);
  net.f0_bins = n.next(1, 4096);
  net.neighbours = n.next(0, 4096);
  const int condition = n.next();
  const int channels = n.next(), blocks = n.next(1, kMaxBlocks);
  net.width = n.next();
  net.emotion_channel = n.next(0, net.width);
  net.emotion_width = n.next(1, net.width - net.emotion_channel);
  net.noise_length = n.next(2 * net.windows.hop, 1 << 24);
  n.finish();
  net.top_hz = reals[0];
  net.windows.weight = builder.values<double>(net.windows.window);
  net.windows.transform = builder.transform(net.windows.window);
  net.synthesis = builder.values<double>(net.windows.window);
  net.layout.ints = 3;
  net.layout.doubles = kPad;  // F0 and voicing, then the rings
  builder.stack(&net.prosody, net.emotion_width, hidden, prosody_blocks, kernel, prosody_expansion,
                0, &net.layout.doubles);
  net.prosody_out = builder.linear<double>(hidden, net.f0_bins + 2);
  net.centres = builder.values<double>(net.f0_bins);
  net.layout.floats = 0;
  const auto take = [&](int64_t count) {
    const int64_t at = net.layout.floats;
    net.layout.floats += padded_size(count);
    return at;
  };
  Pool* pools[] = {&net.segment, &net.utterance};
  for (int i = 0; i < 2; ++i) {
    pools[i]->score = builder.linear<float>(hidden, 1);
    pools[i]->decay = static_cast<float>(reals[1 + static_cast<size_t>(i)]);
    pools[i]->total = take(hidden + 1);
  }
  net.mix = builder.linear<float>(3 * hidden, condition);
  net.tail = take(net.windows.window);
  builder.stack(&net.backbone, net.width + hidden, channels, blocks, kernel, expansion, condition,
                &net.layout.floats);
  net.head = builder.linear<float>(channels, net.windows.per_frame * 4 * net.windows.bins);
  net.noise = builder.values<float>(net.noise_length);
  builder.finish();
  parts.bytes = builder.bytes();
  parts.owned = builder.release();
  return parts;
}

class Decoder : public Streams {
 public:
  Decoder(DecoderParts parts, const std::vector<int64_t>& quantizer, const FloatArray& folded,
          int slots, int threads)
      : Streams(parts.net.layout, slots, threads, decoder_scratch(parts.net)),
        net_(parts.net),
        quantizer_(quantizer, folded),
        scratch_(allocate(quantizer_.scratch * 4)) {
    owned_ = std::move(parts.owned);
    weight_bytes_ = parts.bytes + quantizer_.plan.floats * 4;
    if (quantizer_.plan.width != net_.width) throw py::value_error("quantizer: of another width");
  }

  // Latents into `latent` [R, D] of `tokens` [R, K'] with `stages` [R, G] active stages.
  void dequantize(const py::array& tokens, const LongArray& stages, FloatArray& latent) {
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

  // Audio into `pcm` [R, hop] of `latent` [R, D].
  void synthesize(const IntArray& slots, const IntArray& frames, const FloatArray& latent,
                  FloatArray& pcm) {
    const int64_t rows = latent.ndim() == 2 ? latent.shape(0) : -1;
    if (rows < 0 || latent.shape(1) != net_.width) {
      throw py::value_error("latent: wanted [R, " + std::to_string(net_.width) + "]");
    }
    if (pcm.ndim() != 2 || pcm.shape(0) != rows || pcm.shape(1) != net_.windows.hop) {
      throw py::value_error("pcm: wanted [R, hop]");
    }
    std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
    {
      py::gil_scoped_release release;
      lock.lock();
    }
    const Batch batch = batch_of(slots, frames, rows);
    if (!rows) return;
    const float* from = latent.data();
    float* to = pcm.mutable_data();
    const Kernels& kernels = network_kernels();
    py::gil_scoped_release release;
    slots_.run(batch, [&](const Pass& pass, int64_t start, float* scratch, int) {
      kernels.decode(net_, pass, from + start * net_.width, net_.width,
                     to + start * net_.windows.hop, scratch);
    });
  }

 private:
  bool sound(const int64_t* ints) const override {
    return Streams::sound(ints) && ints[1] >= 0 && ints[1] < (int64_t{1} << 32) && ints[2] >= 0 &&
           ints[2] < net_.noise_length;
  }

  DecoderNet net_;
  Quantizer quantizer_;
  Memory scratch_;
};

void check_counts(int slots, int threads) {
  if (slots < 1 || slots > 1 << 20) throw py::value_error("slots: wanted 1..2**20");
  if (threads < 1 || threads > 1024) throw py::value_error("threads: wanted 1..1024");
}

}  // namespace

PYBIND11_MODULE(_runtime, m, py::mod_gil_not_used()) {
  m.doc() = "The causal encoder and decoder of AffectCodec as native kernels.";
  m.def("isa", [] { return network_kernels().name; }, "Instruction set in use.");
  py::class_<Encoder>(m, "Encoder")
      .def(py::init([](const std::vector<int64_t>& config, const py::list& arrays,
                       const std::vector<int64_t>& quantizer, const FloatArray& folded, int slots,
                       int threads, bool half) {
             check_counts(slots, threads);
             return new Encoder(build_encoder(config, arrays, half), quantizer, folded, slots,
                                threads);
           }),
           py::arg("config"), py::arg("arrays"), py::arg("quantizer"), py::arg("folded"),
           py::arg("slots"), py::arg("threads"), py::arg("half"))
      .def("encode", &Encoder::encode, py::arg("slots"), py::arg("counts"),
           py::arg("pcm").noconvert(), py::arg("tokens").noconvert())
      .def("latents", &Encoder::latents, py::arg("slots"), py::arg("counts"),
           py::arg("pcm").noconvert(), py::arg("latent").noconvert())
      .def("reset", &Streams::reset)
      .def("state", &Streams::state)
      .def("load_state", &Streams::load_state)
      .def_property_readonly("slot_bytes", &Streams::slot_bytes)
      .def_property_readonly("weight_bytes", &Streams::weight_bytes);
  py::class_<Decoder>(m, "Decoder")
      .def(py::init([](const std::vector<int64_t>& config, const std::vector<double>& reals,
                       const py::list& arrays, const std::vector<int64_t>& quantizer,
                       const FloatArray& folded, int slots, int threads, bool half) {
             check_counts(slots, threads);
             return new Decoder(build_decoder(config, reals, arrays, half), quantizer, folded,
                                slots, threads);
           }),
           py::arg("config"), py::arg("reals"), py::arg("arrays"), py::arg("quantizer"),
           py::arg("folded"), py::arg("slots"), py::arg("threads"), py::arg("half"))
      .def("dequantize", &Decoder::dequantize, py::arg("tokens").noconvert(), py::arg("stages"),
           py::arg("latent").noconvert())
      .def("synthesize", &Decoder::synthesize, py::arg("slots"), py::arg("counts"),
           py::arg("latent").noconvert(), py::arg("pcm").noconvert())
      .def("reset", &Streams::reset)
      .def("state", &Streams::state)
      .def("load_state", &Streams::load_state)
      .def_property_readonly("slot_bytes", &Streams::slot_bytes)
      .def_property_readonly("weight_bytes", &Streams::weight_bytes);
}
