// SPDX-License-Identifier: Apache-2.0
// Encoder and decoder of many streams, as Python holds them. Every argument is checked here: a
// compiled function must not read or write outside its buffers, whoever calls it.
#pragma once

#include <pybind11/numpy.h>

#include <mutex>
#include <vector>

#include "../core/plan.h"
#include "assemble.h"
#include "streams.h"

namespace affectcodec {
namespace runtime {

using FloatArray = pybind11::array_t<float, pybind11::array::c_style>;
using IntArray = pybind11::array_t<int32_t, pybind11::array::c_style>;
using LongArray = pybind11::array_t<int64_t, pybind11::array::c_style>;
using DoubleArray = pybind11::array_t<double, pybind11::array::c_style>;

// The quantizer: its plan and folded weights.
struct Quantizer {
  Plan plan;
  Memory weights;
  int64_t scratch = 0;

  Quantizer(const std::vector<int64_t>& config, const FloatArray& folded);
  const float* data() const { return static_cast<const float*>(weights.get()); }
};

// What encoder and decoder have in common.
class Streams {
 public:
  Streams(const SlotLayout& layout, int slots, int threads, int64_t scratch)
      : slots_(layout, slots, threads, scratch) {}
  virtual ~Streams() = default;

  void reset(int slot);
  // Integers, float64 and float32 of a slot, copied.
  pybind11::tuple state(int slot);
  void load_state(int slot, const LongArray& ints, const DoubleArray& doubles,
                  const FloatArray& floats);

  int64_t slot_bytes() const { return slots_.slot_bytes(); }
  int64_t weight_bytes() const { return weight_bytes_; }

 protected:
  // Waits for who is coding without the interpreter, which that one needs to come to its end.
  std::unique_lock<std::mutex> lock();
  // Whether integers of a state are in the range that the kernels count on.
  virtual bool sound(const int64_t* ints) const;
  void check_slot(int slot) const;
  // Each slot once, and as many frames as there are rows.
  Batch batch_of(const IntArray& slots, const IntArray& frames, int64_t rows);

  Slots slots_;
  std::vector<bool> used_;
  std::vector<Memory> owned_;
  int64_t weight_bytes_ = 0;
  std::mutex mutex_;
};

class Encoder : public Streams {
 public:
  Encoder(EncoderParts parts, const std::vector<int64_t>& quantizer, const FloatArray& folded,
          int slots, int threads);

  // Tokens of `pcm` [R, hop] into `tokens` [R, K].
  void encode(const IntArray& slots, const IntArray& frames, const FloatArray& pcm,
              pybind11::array& tokens);

  // What the quantizer would take: latents of `pcm` [R, hop] into `latent` [R, D].
  void latents(const IntArray& slots, const IntArray& frames, const FloatArray& pcm,
               FloatArray& latent);

 private:
  int64_t rows_of(const FloatArray& pcm) const;

  EncoderNet net_;
  Quantizer quantizer_;
};

class Decoder : public Streams {
 public:
  Decoder(DecoderParts parts, const std::vector<int64_t>& quantizer, const FloatArray& folded,
          int slots, int threads);

  // Latents into `latent` [R, D] of `tokens` [R, K'] with `stages` [R, G] active stages.
  void dequantize(const pybind11::array& tokens, const LongArray& stages, FloatArray& latent);

  // Audio into `pcm` [R, hop] of `latent` [R, D].
  void synthesize(const IntArray& slots, const IntArray& frames, const FloatArray& latent,
                  FloatArray& pcm);

 private:
  bool sound(const int64_t* ints) const override;

  DecoderNet net_;
  Quantizer quantizer_;
  Memory scratch_;
};

}  // namespace runtime
}  // namespace affectcodec
