// SPDX-License-Identifier: Apache-2.0
// Networks from the arrays of a checkpoint: weights are checked, packed once, and kept.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "network.h"

namespace affectcodec {
namespace runtime {

struct FreeMemory {
  void operator()(void* p) const { std::free(p); }
};
using Memory = std::unique_ptr<void, FreeMemory>;

// Zeroed memory at a cache line.
inline Memory allocate(int64_t bytes) {
  const size_t size = (static_cast<size_t>(bytes) + 127) / 64 * 64;
  Memory memory(std::aligned_alloc(64, size));
  if (!memory) throw std::bad_alloc();
  std::memset(memory.get(), 0, size);
  return memory;
}

// An array as Python hands it over; float32 or float64, contiguous.
struct Array {
  std::string name;
  const void* data;
  int64_t size;
  bool wide;
};

// Hands out the arrays in order and owns what is made of them.
class Builder {
 public:
  Builder(const std::vector<Array>& arrays, const Kernels& kernels, bool half, int32_t depth)
      : arrays_(arrays), kernels_(kernels), half_(half), depth_(depth) {}

  int64_t bytes() const { return bytes_; }
  std::vector<Memory> release() { return std::move(memory_); }

  void finish() const {
    if (at_ != arrays_.size()) throw std::runtime_error("weights: more arrays than layers");
  }

  template <typename T>
  const T* values(int64_t size) {
    const Array& a = next(size);
    T* to = make<T>(padded_size(size));
    for (int64_t i = 0; i < size; ++i) to[i] = static_cast<T>(at(a, i));
    return to;
  }

  template <typename T>
  Linear<T> linear(int in, int out) {
    Linear<T> l;
    l.in = in;
    l.out = out;
    l.depth = depth_;
    const Array& w = next(static_cast<int64_t>(in) * out);
    if (w.wide) throw std::runtime_error(w.name + ": wanted float32");
    const float* from = static_cast<const float*>(w.data);
    const int64_t size = static_cast<int64_t>(in) * padded_size(out);
    l.weight = pack(from, in, out, size, static_cast<const T*>(nullptr), &l.half);
    l.bias = values<T>(out);
    return l;
  }

  template <typename T>
  Norm<T> norm(int size) {
    Norm<T> n;
    n.size = size;
    n.gain = values<T>(size);
    n.offset = values<T>(size);
    return n;
  }

  // `elements` counts the slot's T and grows by the rings of the stack.
  template <typename T>
  void stack(Stack<T>* s, int in, int channels, int count, int kernel, int expansion, int condition,
             int64_t* elements) {
    if (count > kMaxBlocks) throw std::runtime_error("stack: more blocks than the runtime holds");
    const int64_t ld = padded_size(channels);
    s->channels = channels;
    s->kernel = kernel;
    s->count = count;
    s->hidden = channels * expansion;
    s->embed = linear<T>(in, channels);
    s->norm = norm<T>(channels);
    for (int i = 0; i < count; ++i) {
      Block<T>& b = s->block[i];
      const Array& taps = next(static_cast<int64_t>(channels) * kernel);
      T* turned = make<T>(ld * kernel);
      for (int c = 0; c < channels; ++c) {
        for (int k = 0; k < kernel; ++k) {
          turned[k * ld + c] = static_cast<T>(at(taps, static_cast<int64_t>(c) * kernel + k));
        }
      }
      b.taps = turned;
      b.tap_bias = values<T>(channels);
      b.norm = norm<T>(channels);
      b.expand = linear<T>(channels, s->hidden);
      b.project = linear<T>(s->hidden, channels);
      b.scale = values<T>(channels);
      if (condition) b.film = linear<T>(condition, 2 * channels);
      b.ring = *elements;
      *elements += ld * (kernel - 1);
    }
    s->final = norm<T>(channels);
  }

  // Transform of real signals of `size` samples.
  Transform transform(int size) {
    Transform t;
    if (size < 4 || size % 2) throw std::runtime_error("window: wanted an even size of at least 4");
    t.n = size / 2;
    int rest = t.n;
    for (const int radix : {4, 5, 3, 2}) {
      while (rest % radix == 0) {
        if (t.passes == kMaxPasses) throw std::runtime_error("window: too many factors");
        t.radix[t.passes++] = radix;
        rest /= radix;
      }
    }
    if (rest != 1) {
      throw std::runtime_error("window: " + std::to_string(size) +
                               " samples; the runtime transforms sizes of factors 2, 3 and 5");
    }
    std::vector<double> twiddle;
    for (int i = 0, length = t.n; i < t.passes; ++i) {
      const int radix = t.radix[i], m = length / radix;
      for (int p = 0; p < m; ++p) {
        for (int j = 1; j < radix; ++j) {
          const double angle = -2.0 * kPi * (static_cast<int64_t>(p) * j % length) / length;
          twiddle.push_back(std::cos(angle));
          twiddle.push_back(std::sin(angle));
        }
      }
      length = m;
    }
    double* to = make<double>(static_cast<int64_t>(twiddle.size()));
    std::memcpy(to, twiddle.data(), twiddle.size() * sizeof(double));
    t.twiddle = to;
    double* turn = make<double>(2 * (t.n + 1));
    for (int k = 0; k <= t.n; ++k) {
      turn[2 * k] = std::cos(kPi * k / t.n);
      turn[2 * k + 1] = std::sin(kPi * k / t.n);
    }
    t.turn = turn;
    return t;
  }

 private:
  static constexpr double kPi = 3.14159265358979323846;

  const Array& next(int64_t size) {
    if (at_ >= arrays_.size()) throw std::runtime_error("weights: fewer arrays than layers");
    const Array& a = arrays_[at_++];
    if (a.size != size) {
      throw std::runtime_error(a.name + ": wanted " + std::to_string(size) + " values, got " +
                               std::to_string(a.size));
    }
    return a;
  }

  static double at(const Array& a, int64_t i) {
    return a.wide ? static_cast<const double*>(a.data)[i] : static_cast<const float*>(a.data)[i];
  }

  template <typename T>
  T* make(int64_t count) {
    const int64_t size = count * static_cast<int64_t>(sizeof(T));
    memory_.push_back(allocate(size));
    bytes_ += size;
    return static_cast<T*>(memory_.back().get());
  }

  const void* pack(const float* from, int in, int out, int64_t size, const float*, bool* half) {
    *half = half_;
    if (half_) {
      uint32_t* to = make<uint32_t>(static_cast<int64_t>((in + 1) / 2) * (size / in));
      kernels_.pack_half(from, in, out, to);
      return to;
    }
    float* to = make<float>(size);
    kernels_.pack_float(from, in, out, to);
    return to;
  }

  const void* pack(const float* from, int in, int out, int64_t size, const double*, bool*) {
    double* to = make<double>(size);
    kernels_.pack_double(from, in, out, to);
    return to;
  }

  const std::vector<Array>& arrays_;
  const Kernels& kernels_;
  bool half_;
  int32_t depth_;
  size_t at_ = 0;
  int64_t bytes_ = 0;
  std::vector<Memory> memory_;
};

}  // namespace runtime
}  // namespace affectcodec
