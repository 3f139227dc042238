// SPDX-License-Identifier: Apache-2.0
// Cases for the kernels: tensors of any layout and type on memory of exactly their size, random
// quantizers, and one run of every kernel, on one thread or shared by several.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "../../csrc/cpu/kernels.h"
#include "reference.h"

namespace check {

using namespace affectcodec::cpu;

// A value that the type holds exactly, nearest to `x`; found without the kernels' bit tricks.
inline double rounded(double x, Type type) {
  if (type == Type::kFloat32) return static_cast<double>(static_cast<float>(x));
  if (x == 0 || !std::isfinite(x)) return x;
  const int digits = type == Type::kBFloat16 ? 8 : 11, least = type == Type::kBFloat16 ? -133 : -24;
  const int unit = std::max(std::ilogb(x) - digits + 1, least);
  return std::ldexp(std::nearbyint(std::ldexp(x, -unit)), unit);
}

inline uint16_t half_bits(double x, Type type) {
  const float f = static_cast<float>(x);
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if (type == Type::kBFloat16) return static_cast<uint16_t>(bits >> 16);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  if (std::isnan(x)) return 0x7e00;
  if (std::isinf(x)) return static_cast<uint16_t>(sign | 0x7c00u);
  const int exponent = x == 0 ? -15 : std::max(std::ilogb(x), -15);
  const double fraction = std::fabs(std::ldexp(x, exponent < -14 ? 24 : 10 - exponent));
  const int biased = exponent < -14 ? 0 : exponent + 14;  // the leading bit adds one
  return static_cast<uint16_t>(sign | static_cast<uint16_t>((biased << 10) + fraction));
}

inline double half_value(uint16_t bits, Type type) {
  if (type == Type::kBFloat16) {
    const uint32_t word = static_cast<uint32_t>(bits) << 16;
    float f;
    std::memcpy(&f, &word, 4);
    return static_cast<double>(f);
  }
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double size = exponent == 31  ? (fraction ? NAN : INFINITY)
                      : exponent == 0 ? std::ldexp(fraction, -24)
                                      : std::ldexp(1024 + fraction, exponent - 25);
  return bits & 0x8000 ? -size : size;
}

// [batch, frames, channels] in one of several memory orders. The buffer ends where the last element
// does, and is shared by copies until `make_own`.
struct Array {
  View view;
  int64_t size = 0;
  std::shared_ptr<char> data;

  int64_t bytes() const { return view.type == Type::kFloat32 ? 4 : 2; }
  void allocate() {
    data = std::shared_ptr<char>(new char[static_cast<size_t>(size * bytes())],
                                 std::default_delete<char[]>());
    std::memset(data.get(), 0xff, static_cast<size_t>(size * bytes()));  // NaN
    view.data = data.get();
  }
  void make_own() {
    const auto old = data;
    allocate();
    std::memcpy(data.get(), old.get(), static_cast<size_t>(size * bytes()));
  }

  static Array make(int64_t b, int64_t t, int64_t d, Type type, int layout) {
    Array a;
    a.view.type = type;
    a.view.batch = b, a.view.frames = t, a.view.channels = d;
    const int64_t step = layout == 4 ? 3 : 1;
    switch (layout) {
      case 0:  // [B, T, D]
        a.view.stride_b = t * d, a.view.stride_t = d, a.view.stride_d = 1;
        break;
      case 1:  // [B, D, T]
        a.view.stride_b = t * d, a.view.stride_t = 1, a.view.stride_d = t;
        break;
      case 2:  // [D, B, T]
        a.view.stride_b = t, a.view.stride_t = 1, a.view.stride_d = b * t;
        break;
      case 3:  // [T, B, D]
        a.view.stride_b = d, a.view.stride_t = b * d, a.view.stride_d = 1;
        break;
      default:  // [D, T, B], every third element
        a.view.stride_b = step, a.view.stride_t = step * b, a.view.stride_d = step * b * t;
        break;
    }
    a.size = b * t * d == 0 ? 0 : step * (b * t * d - 1) + 1;
    a.allocate();
    return a;
  }

  int64_t index(int64_t b, int64_t t, int64_t ch) const {
    return b * view.stride_b + t * view.stride_t + ch * view.stride_d;
  }
  double at(int64_t b, int64_t t, int64_t ch) const {
    const int64_t i = index(b, t, ch);
    if (view.type == Type::kFloat32) {
      return static_cast<double>(reinterpret_cast<const float*>(data.get())[i]);
    }
    return half_value(reinterpret_cast<const uint16_t*>(data.get())[i], view.type);
  }
  void set(int64_t b, int64_t t, int64_t ch, double x) {
    const int64_t i = index(b, t, ch);
    if (view.type == Type::kFloat32) {
      reinterpret_cast<float*>(data.get())[i] = static_cast<float>(x);
    } else {
      reinterpret_cast<uint16_t*>(data.get())[i] = half_bits(rounded(x, view.type), view.type);
    }
  }
  void fill(Rng& rng) {
    for (int64_t b = 0; b < view.batch; ++b) {
      for (int64_t t = 0; t < view.frames; ++t) {
        for (int64_t ch = 0; ch < view.channels; ++ch) set(b, t, ch, rng.normal());
      }
    }
  }
  bool same(const Array& other) const {
    return size == other.size &&
           std::memcmp(data.get(), other.data.get(), static_cast<size_t>(size * bytes())) == 0;
  }
};

struct Case {
  int number;
  std::vector<int64_t> config;
  Plan plan;
  std::vector<Parameters> parameters;
  std::vector<float> weights;
  Array z;
  std::vector<int64_t> counts;  // empty, [B, G] or [B, G, T]
  bool by_frame = false;
  std::vector<int32_t> rates;
  std::vector<Array> grads;
  std::vector<bool> present;
  int out_layout = 0;

  Case(int number, Rng& rng) : number(number) {
    choose_config(rng);
    const char* wrong =
        affectcodec::make_plan(config.data(), static_cast<int64_t>(config.size()), &plan);
    if (wrong) {
      std::printf("%s\n", wrong);
      std::abort();
    }
    for (int g = 0; g < plan.blocks; ++g) make_parameters(g, rng);
    static const int64_t shapes[][2] = {{1, 1}, {1, 7}, {2, 64}, {3, 65}, {5, 3},
                                        {0, 4}, {3, 0}, {1, 97}, {2, 2},  {70, 1}};
    const auto& shape = shapes[static_cast<size_t>(rng.below(10))];
    const auto type = static_cast<Type>(rng.below(3));
    z = Array::make(shape[0], shape[1], plan.width, type, static_cast<int>(rng.below(5)));
    z.fill(rng);
    out_layout = static_cast<int>(rng.below(2));
    if (const int64_t kind = rng.below(3)) {
      by_frame = kind == 2;
      counts.resize(static_cast<size_t>(shape[0] * plan.blocks * (by_frame ? shape[1] : 1)));
      for (auto& count : counts) count = rng.below(plan.stages + 3) - 1;
    }
    for (int32_t m = 1; m < plan.stages; ++m) {
      if (rng.below(4) == 0) rates.push_back(m);
    }
    rates.push_back(plan.stages);
    for (size_t i = 0; i < rates.size(); ++i) {
      present.push_back(rng.below(4) != 0);
      grads.push_back(Array::make(shape[0], shape[1], plan.width, type,
                                  present[0] && i ? out_layout : static_cast<int>(rng.below(5))));
      grads.back().fill(rng);
    }
  }

  void choose_config(Rng& rng) {
    static const std::vector<std::vector<int64_t>> fixed = {
        {0, 1, 1, 1, 1, 2},
        {0, 3, 3, 37, 2, 3, 2, 5, 1, 7, 129, 5, 4, 5, 2, 3, 2},
        {1, 4, 2, 30, 3, 2, 2, 2, 257, 6, 4, 4, 4, 4, 4, 4},
        {0, 2, 2, 40, 4, 17, 18, 100, 2, 9, 1, 4096},
        {0, 2, 2, 64, 11, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 20, 9, 3, 3, 3, 3, 3, 3, 3, 3, 3},
        {0, 2, 2, 33, 20, 2, 2,  2,  2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
         2, 2, 2, 2,  2,  2, 20, 10, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4},
        {0, 40, 1, 16, 2, 2, 3},
        {0, 8, 2, 256, 3, 2, 2, 2, 768, 6, 4, 4, 4, 4, 4, 4},
    };
    if (static_cast<size_t>(number) < fixed.size()) {
      config = fixed[static_cast<size_t>(number)];
      return;
    }
    const int64_t blocks = 1 + rng.below(3);
    config = {rng.below(2), 1 + rng.below(6), blocks};
    for (int64_t g = 0; g < blocks; ++g) {
      const int64_t dims = 1 + rng.below(8);
      config.push_back(1 + rng.below(rng.below(2) ? 300 : 20));
      config.push_back(dims);
      for (int64_t i = 0; i < dims; ++i) config.push_back(2 + rng.below(rng.below(5) ? 5 : 30));
    }
  }

  void make_parameters(int g, Rng& rng) {
    const auto& b = plan.block[g];
    const int64_t rows = b.rows, width = b.width;
    const int64_t sizes[6] = {rows * width, rows, rows * width, plan.stages * width, rows, rows};
    const double spread[6] = {1 / std::sqrt(static_cast<double>(width)),
                              0.1,
                              0.5 / std::sqrt(static_cast<double>(width)),
                              0.1,
                              0.3,
                              0.1};
    Parameters made;
    for (int i = 0; i < 6; ++i) {
      for (int64_t n = 0; n < sizes[i]; ++n) {
        made.part[i].push_back(static_cast<float>(spread[i] * rng.normal() + (i == 4 ? 0.4 : 0)));
      }
    }
    parameters.push_back(made);
  }

  BlockParameters pointers(int g) const {
    const auto& p = parameters[static_cast<size_t>(g)].part;
    return BlockParameters{p[0].data(), p[1].data(), p[2].data(),
                           p[3].data(), p[4].data(), p[5].data()};
  }
  void fold(const Kernels& kernels) {
    weights.assign(static_cast<size_t>(plan.floats), NAN);
    weights.shrink_to_fit();
    for (int g = 0; g < plan.blocks; ++g) kernels.fold(plan, g, pointers(g), weights.data());
  }
  Counts count_view() const {
    Counts c;
    if (counts.empty()) return c;
    const int64_t t = by_frame ? z.view.frames : 1;
    c.data = counts.data();
    c.stride_b = plan.blocks * t, c.stride_g = t, c.stride_t = by_frame ? 1 : 0;
    return c;
  }
  int active(int64_t b, int g, int64_t t) const {
    if (counts.empty()) return plan.stages;
    const Counts c = count_view();
    const int64_t asked = c.data[b * c.stride_b + g * c.stride_g + t * c.stride_t];
    return static_cast<int>(std::min<int64_t>(std::max<int64_t>(asked, 0), plan.stages));
  }
  std::string text() const {
    std::string s = "case " + std::to_string(number) + ", config";
    for (const int64_t n : config) s += " " + std::to_string(n);
    s += ", frames " + std::to_string(z.view.batch) + " x " + std::to_string(z.view.frames) +
         ", type " + std::to_string(static_cast<int>(z.view.type)) + ", strides";
    for (const int64_t n : {z.view.stride_b, z.view.stride_t, z.view.stride_d}) {
      s += " " + std::to_string(n);
    }
    return s + ", counts " + std::to_string(counts.size()) + ", rates " +
           std::to_string(rates.size());
  }
};

// Everything the kernels make of a case.
struct Result {
  std::vector<int32_t> narrow;
  std::vector<int64_t> wide;
  std::vector<float> saved;
  std::vector<Array> latents;
  Array dz, decoded;
  std::vector<Parameters> gradients;

  static size_t index(const Case& c, int64_t b, int k, int64_t t) {
    return static_cast<size_t>((b * c.plan.stages + k) * c.z.view.frames + t);
  }
  int64_t token(const Case& c, int64_t b, int k, int64_t t) const {
    return c.plan.wide() ? wide[index(c, b, k, t)] : narrow[index(c, b, k, t)];
  }
  void set_token(const Case& c, int64_t b, int k, int64_t t, int64_t token) {
    if (c.plan.wide()) {
      wide[index(c, b, k, t)] = token;
    } else {
      narrow[index(c, b, k, t)] = static_cast<int32_t>(token);
    }
  }
  TokenView tokens(const Case& c) {
    TokenView v;
    v.wide = c.plan.wide();
    v.data = v.wide ? static_cast<void*>(wide.data()) : static_cast<void*>(narrow.data());
    v.stride_t = 1, v.stride_k = c.z.view.frames, v.stride_b = c.plan.stages * c.z.view.frames;
    return v;
  }
  bool same(const Result& other) const {
    const auto equal = [](const std::vector<float>& a, const std::vector<float>& b) {
      return a.size() == b.size() &&
             (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
    };
    bool same = narrow == other.narrow && wide == other.wide && equal(saved, other.saved) &&
                dz.same(other.dz) && decoded.same(other.decoded);
    for (size_t i = 0; i < latents.size(); ++i) same = same && latents[i].same(other.latents[i]);
    for (size_t g = 0; g < gradients.size(); ++g) {
      for (int i = 0; i < 6; ++i) {
        same = same && equal(gradients[g].part[i], other.gradients[g].part[i]);
      }
    }
    return same;
  }
};

// Working memory of one thread, of exactly the size and alignment that the kernels are promised.
struct Work {
  explicit Work(const Plan& plan)
      : floats(new (std::align_val_t(64)) float[static_cast<size_t>(plan_scratch(plan).floats)]) {
    std::memset(floats, 0, static_cast<size_t>(plan_scratch(plan).floats) * sizeof(float));
  }
  ~Work() { operator delete[](floats, std::align_val_t(64)); }
  Work(const Work&) = delete;
  float* floats;
};

// f(begin, end, scratch) for shares of 0..count, each on a thread of its own.
inline void share(const Plan& plan, int64_t count, int threads,
                  const std::function<void(int64_t, int64_t, float*)>& f) {
  if (threads == 1) {
    Work work(plan);
    f(0, count, work.floats);
    return;
  }
  std::vector<std::thread> running;
  for (int i = 0; i < threads; ++i) {
    running.emplace_back([&, i] {
      Work work(plan);
      f(count * i / threads, count * (i + 1) / threads, work.floats);
    });
  }
  for (auto& thread : running) thread.join();
}

// Decodes the tokens of `r` into it; returns the token that was refused, 0 where none was.
inline int64_t decode(const Case& c, const Kernels& kernels, Result* r, int threads) {
  const View& v = c.z.view;
  int64_t refused[2] = {0, 0};
  r->decoded = Array::make(v.batch, v.frames, c.plan.width, Type::kFloat32, c.out_layout);
  DecodeJob job{};
  job.plan = &c.plan;
  job.weights = c.weights.data();
  job.tokens = r->tokens(c);
  job.stages = c.plan.stages;
  job.counts = c.count_view();
  job.out = r->decoded.view;
  job.out.stream = c.number % 2 == 0;
  job.refused = refused;
  share(c.plan, units_of(v.total()), threads,
        [&](int64_t begin, int64_t end, float* work) { kernels.decode(job, begin, end, work); });
  return refused[0] ? refused[1] : 0;
}

inline void run_backward(const Case& c, const Kernels& kernels, Result* r, int threads) {
  const Plan& plan = c.plan;
  const View& v = c.z.view;
  const int outputs = static_cast<int>(c.rates.size());
  std::vector<View> grads(c.rates.size());
  for (size_t i = 0; i < grads.size(); ++i) {
    if (c.present[i]) grads[i] = c.grads[i].view;
  }
  r->dz = Array::make(v.batch, v.frames, plan.width, v.type, c.out_layout);
  BackwardJob job{};
  job.plan = &plan;
  job.weights = c.weights.data();
  job.z = v;
  job.saved = r->saved.data();
  job.counts = c.count_view();
  job.outputs = outputs;
  job.rates = c.rates.data();
  job.grad = grads.data();
  job.dz = r->dz.view;
  const int64_t units = units_of(v.total());
  job.slabs = std::min<int64_t>(std::max<int64_t>(units, 1), kMaxSlabs);
  const int64_t floats = plan_partials(plan, outputs, c.rates.data(), nullptr);
  std::unique_ptr<float[]> partial(new float[static_cast<size_t>(floats * job.slabs)]);
  job.partial = partial.get();
  share(plan, job.slabs, threads,
        [&](int64_t begin, int64_t end, float* work) { kernels.backward(job, begin, end, work); });
  share(plan, floats, threads, [&](int64_t begin, int64_t end, float*) {
    kernels.reduce(job.partial, floats, job.slabs, begin, end);
  });
  r->gradients.resize(static_cast<size_t>(plan.blocks));
  share(plan, plan.blocks, threads, [&](int64_t begin, int64_t end, float*) {
    for (int64_t g = begin; g < end; ++g) {
      const auto& own = c.parameters[static_cast<size_t>(g)].part;
      auto& to = r->gradients[static_cast<size_t>(g)].part;
      for (int i = 0; i < 6; ++i) to[i].assign(own[i].size(), NAN);
      const auto& b = plan.block[g];
      std::unique_ptr<float[]> work(new float[static_cast<size_t>(b.rows * b.ld_width)]);
      kernels.finish(job, static_cast<int>(g), own[4].data(), own[3].data(),
                     BlockGradients{to[0].data(), to[1].data(), to[2].data(), to[3].data(),
                                    to[4].data(), to[5].data()},
                     work.get());
    }
  });
}

inline Result run(const Case& c, const Kernels& kernels, int threads) {
  const Plan& plan = c.plan;
  const View& v = c.z.view;
  const auto count = static_cast<size_t>(v.total() * plan.stages);
  Result r;
  if (plan.wide()) {
    r.wide.assign(count, -7);
  } else {
    r.narrow.assign(count, -7);
  }
  const int64_t units = units_of(v.total());
  r.saved.assign(static_cast<size_t>(units * total_rows(plan) * kUnit), NAN);
  std::vector<View> out;
  for (size_t i = 0; i < c.rates.size(); ++i) {
    r.latents.push_back(Array::make(v.batch, v.frames, plan.width, v.type, c.out_layout));
    out.push_back(r.latents.back().view);
  }
  EncodeJob job{};
  job.plan = &plan;
  job.weights = c.weights.data();
  job.z = v;
  job.tokens = r.tokens(c);
  const auto encode = [&] {
    share(plan, units, threads,
          [&](int64_t begin, int64_t end, float* work) { kernels.encode(job, begin, end, work); });
  };
  encode();
  const Result tokens = r;
  job.counts = c.count_view();
  job.saved = r.saved.data();
  job.outputs = static_cast<int>(c.rates.size());
  job.rates = c.rates.data();
  job.out = out.data();
  encode();
  if (c.counts.empty() && (tokens.narrow != r.narrow || tokens.wide != r.wide)) {
    std::printf("encode and forward make other tokens\n");
    std::exit(1);
  }
  run_backward(c, kernels, &r, threads);
  decode(c, kernels, &r, threads);
  return r;
}

// Tokens of given projections, which every instruction set has to make alike.
inline std::vector<int64_t> codes_of(const Case& c, const Kernels& kernels, Rng rng) {
  const int64_t frames = 130, rows = total_rows(c.plan);
  std::vector<float> projections;
  for (int64_t i = 0; i < frames * rows; ++i) {
    projections.push_back(static_cast<float>(rng.normal()));
  }
  std::vector<int64_t> tokens(static_cast<size_t>(frames * c.plan.stages), -7);
  Work work(c.plan);
  kernels.codes(c.plan, c.weights.data(), projections.data(), frames, tokens.data(), work.floats);
  return tokens;
}

}  // namespace check
