// SPDX-License-Identifier: Apache-2.0
// Frames of a tensor in any layout and type, in and out of the two working forms:
//   lanes  [channel][kUnit]   neighbouring frames share a vector
//   rows   [frame][kChunk]    neighbouring channels share a vector
// Which one is chosen by what lies together in memory, so nothing is transposed on the way in.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace affectcodec {
namespace cpu {
namespace {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

AC_INLINE float bit_cast_float(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}
AC_INLINE uint32_t bit_cast_word(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  return bits;
}

AC_INLINE float widen(float x) { return x; }
AC_INLINE float widen(BFloat16 x) { return bit_cast_float(static_cast<uint32_t>(x.bits) << 16); }
// Without branches, so that a loop of it becomes vectors on every machine.
AC_INLINE float widen(Float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t rest = static_cast<uint32_t>(x.bits & 0x7fffu) << 13;
  const float normal = bit_cast_float(rest + (uint32_t{112} << 23));
  // Subnormals: the exponent of 2^-14 is put in and its value taken away again, which is exact.
  const float small = bit_cast_float(rest + (uint32_t{113} << 23)) - bit_cast_float(113u << 23);
  const float special = bit_cast_float(rest | 0x7f800000u);
  const float size = rest < (1u << 23) ? small : rest >= (31u << 23) ? special : normal;
  return bit_cast_float(bit_cast_word(size) | sign);
}

AC_INLINE void narrow(float x, float* to) { *to = x; }
AC_INLINE void narrow(float x, BFloat16* to) {
  const uint32_t bits = bit_cast_word(x);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  to->bits = static_cast<uint16_t>(x == x ? rounded : 0x7fc0u);
}
AC_INLINE void narrow(float x, Float16* to) {
  const uint32_t bits = bit_cast_word(x);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t size = bits & 0x7fffffffu;
  // Round to nearest even by an addition whose carry runs into the exponent.
  const uint32_t normal = (size - (112u << 23) + 0xfffu + (size >> 13 & 1u)) >> 13;
  // Below 2^-14 the half's unit is 2^-24; adding 0.5 leaves the sum in just that unit.
  const uint32_t small = bit_cast_word(bit_cast_float(size) + 0.5f) - bit_cast_word(0.5f);
  uint32_t half = size < (113u << 23) ? small : normal;
  half = size >= 0x477ff000u ? 0x7c00u : half;  // 65520 and above
  half = size > 0x7f800000u ? 0x7e00u : half;
  to->bits = static_cast<uint16_t>(half | sign);
}

// One run of frames of the same sample inside a unit.
struct Run {
  int64_t b, t;
  int lane, length;
};

// The runs of a unit, found once: it takes a division.
struct Unit {
  int64_t first;
  int count, runs;
  Run run[kUnit];
};

AC_INLINE void find_runs(int64_t first, int64_t total, int64_t frames, Unit* unit) {
  const int64_t left = total - first;
  unit->first = first;
  unit->count = left < kUnit ? static_cast<int>(left) : kUnit;
  unit->runs = 0;
  int64_t b = first / frames, t = first % frames;
  for (int lane = 0; lane < unit->count; ++b, t = 0) {
    const int64_t rest = frames - t;
    const int length = rest < unit->count - lane ? static_cast<int>(rest) : unit->count - lane;
    unit->run[unit->runs++] = Run{b, t, lane, length};
    lane += length;
  }
}

// f(run) for each run of a unit.
template <typename F>
AC_INLINE void for_each_run(const Unit& unit, const F& f) {
  for (int i = 0; i < unit.runs; ++i) f(unit.run[i]);
}

AC_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }

template <typename T>
AC_INLINE void load_run(const T* from, ptrdiff_t stride, int count, float* to) {
  if (stride == 1) {
    for (int i = 0; i < count; ++i) to[i] = widen(from[i]);
  } else {
    for (int i = 0; i < count; ++i) to[i] = widen(from[i * stride]);
  }
}

template <typename T>
AC_INLINE void store_run(const float* from, int count, T* to, ptrdiff_t stride) {
  if (stride == 1) {
    for (int i = 0; i < count; ++i) narrow(from[i], to + i);
  } else {
    for (int i = 0; i < count; ++i) narrow(from[i], to + i * stride);
  }
}

template <typename T>
__attribute__((noinline)) static void load_lanes_of(const View& v, const Unit& unit,
                                                    int64_t channel, int channels, float* to) {
  // Neighbouring channels lie far apart, where no prefetcher of the machine looks.
  constexpr int kAhead = 12;
  const T* data = static_cast<const T*>(v.data);
  for (int c = 0; c < channels; ++c, to += kUnit) {
    for_each_run(unit, [&](const Run& run) {
      const T* from = data + run.b * v.stride_b + run.t * v.stride_t + (channel + c) * v.stride_d;
      if (channel + c + kAhead < v.channels) {
        const char* next = reinterpret_cast<const char*>(from + kAhead * v.stride_d);
        const int bytes = v.stride_t == 1 ? run.length * static_cast<int>(sizeof(T)) : 1;
        for (int i = 0; i < bytes; i += 64) prefetch(next + i);
      }
      load_run(from, v.stride_t, run.length, to + run.lane);
    });
    for (int i = unit.count; i < kUnit; ++i) to[i] = 0.0f;
  }
}

template <typename T>
__attribute__((noinline)) static void load_rows_of(const View& v, const Unit& unit, int64_t channel,
                                                   int channels, float* to) {
  const T* data = static_cast<const T*>(v.data);
  for_each_run(unit, [&](const Run& run) {
    for (int i = 0; i < run.length; ++i) {
      const T* from = data + run.b * v.stride_b + (run.t + i) * v.stride_t + channel * v.stride_d;
      load_run(from, v.stride_d, channels, to + static_cast<ptrdiff_t>(run.lane + i) * kChunk);
    }
  });
}

AC_INLINE bool by_rows(const View& v) { return v.stride_d == 1; }

// Channels channel .. channel + channels - 1 of a unit, as rows or as lanes.
AC_INLINE void load_frames(const View& v, bool rows, const Unit& unit, int64_t channel,
                           int channels, float* to) {
  switch (v.type) {
    case Type::kFloat32:
      (rows ? load_rows_of<float> : load_lanes_of<float>)(v, unit, channel, channels, to);
      break;
    case Type::kBFloat16:
      (rows ? load_rows_of<BFloat16> : load_lanes_of<BFloat16>)(v, unit, channel, channels, to);
      break;
    case Type::kFloat16:
      (rows ? load_rows_of<Float16> : load_lanes_of<Float16>)(v, unit, channel, channels, to);
      break;
  }
}

// Past the caches at once: an output larger than they are would only push the weights out.
AC_INLINE void stream_run(const float* from, int count, float* to) {
#if defined(__AVX512F__)
  for (int i = 0; i < count; i += 16) _mm512_stream_ps(to + i, _mm512_loadu_ps(from + i));
#elif defined(__AVX2__)
  for (int i = 0; i < count; i += 8) _mm256_stream_ps(to + i, _mm256_loadu_ps(from + i));
#elif defined(__SSE2__)
  for (int i = 0; i < count; i += 4) _mm_stream_ps(to + i, _mm_loadu_ps(from + i));
#else
  for (int i = 0; i < count; ++i) to[i] = from[i];
#endif
}

// Streaming stores are not ordered with others; the last one of a piece of work is followed by
// this.
AC_INLINE void finish_streams() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

AC_INLINE bool streams(const View& v, const void* to, int count) {
  return v.stream && v.type == Type::kFloat32 && count % 16 == 0 &&
         (reinterpret_cast<uintptr_t>(to) & 63) == 0;
}

// Writes a working form out and adds bias[active[frame]][channel]; bias may be null. `active`
// holds the row of the bias for each frame of the unit.
static_assert(kChunk >= kUnit, "one buffer serves rows and lanes");

template <typename T>
__attribute__((noinline)) static void store_frames_of(const View& v, const Unit& unit,
                                                      int64_t channel, int channels,
                                                      const float* from, const float* bias,
                                                      int64_t ld_bias, const int32_t* active) {
  T* data = static_cast<T*>(v.data);
  float sum[kChunk];
  if (by_rows(v)) {
    for_each_run(unit, [&](const Run& run) {
      for (int i = 0; i < run.length; ++i) {
        const int lane = run.lane + i;
        const float* row = from + static_cast<ptrdiff_t>(lane) * kChunk;
        T* to = data + run.b * v.stride_b + (run.t + i) * v.stride_t + channel;
        if (bias) {
          const float* add = bias + active[lane] * ld_bias + channel;
          for (int c = 0; c < channels; ++c) sum[c] = row[c] + add[c];
          row = sum;
        }
        if (streams(v, to, channels)) {
          stream_run(row, channels, reinterpret_cast<float*>(to));
        } else {
          store_run(row, channels, to, 1);
        }
      }
    });
    return;
  }
  bool uniform = true;
  for (int i = 1; i < unit.count; ++i) uniform = uniform && active[i] == active[0];
  for (int c = 0; c < channels; ++c, from += kUnit) {
    const float* row = from;
    if (bias) {
      row = sum;
      if (uniform) {
        const float add = bias[active[0] * ld_bias + channel + c];
        for (int i = 0; i < kUnit; ++i) sum[i] = from[i] + add;
      } else {
        for (int i = 0; i < unit.count; ++i) {
          sum[i] = from[i] + bias[active[i] * ld_bias + channel + c];
        }
      }
    }
    for_each_run(unit, [&](const Run& run) {
      T* to = data + run.b * v.stride_b + run.t * v.stride_t + (channel + c) * v.stride_d;
      if (v.stride_t == 1 && streams(v, to, run.length)) {
        stream_run(row + run.lane, run.length, reinterpret_cast<float*>(to));
      } else {
        store_run(row + run.lane, run.length, to, v.stride_t);
      }
    });
  }
}

AC_INLINE void store_frames(const View& v, const Unit& unit, int64_t channel, int channels,
                            const float* from, const float* bias, int64_t ld_bias,
                            const int32_t* active) {
  const auto store = v.type == Type::kFloat32    ? store_frames_of<float>
                     : v.type == Type::kBFloat16 ? store_frames_of<BFloat16>
                                                 : store_frames_of<Float16>;
  store(v, unit, channel, channels, from, bias, ld_bias, active);
}

}  // namespace
}  // namespace cpu
}  // namespace affectcodec
