// SPDX-License-Identifier: Apache-2.0
#include "assemble.h"

#include <pybind11/numpy.h>

#include <string>
#include <utility>

namespace py = pybind11;

namespace affectcodec {
namespace runtime {
namespace {

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

}  // namespace

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

}  // namespace runtime
}  // namespace affectcodec
