// SPDX-License-Identifier: Apache-2.0
// Frames in and out of the working forms.
#include "frames.h"

#include "half.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {
namespace {

// Neighbouring channels lie far apart, where no prefetcher of the machine looks.
constexpr int kAhead = 12;

template <typename T>
AC_INLINE void load_run(const T* from, ptrdiff_t stride, int count, float* to) {
  if (stride == 1) {
    for (int i = widen_vectors(from, count, to); i < count; ++i) to[i] = widen(from[i]);
  } else {
    for (int i = 0; i < count; ++i) to[i] = widen(from[i * stride]);
  }
}

template <typename T>
AC_INLINE void store_run(const float* from, int count, T* to, ptrdiff_t stride) {
  if (stride == 1) {
    for (int i = narrow_vectors(from, count, to); i < count; ++i) narrow(from[i], to + i);
  } else {
    for (int i = 0; i < count; ++i) narrow(from[i], to + i * stride);
  }
}

template <typename T>
static void load_lanes_of(const View& v, const Unit& unit, int64_t channel, int channels, float* to,
                          bool asked) {
  const T* data = static_cast<const T*>(v.data);
  for (int c = 0; c < channels; ++c, to += kUnit) {
    for_each_run(unit, [&](const Run& run) {
      const T* from = data + run.b * v.stride_b + run.t * v.stride_t + (channel + c) * v.stride_d;
      if (!asked && channel + c + kAhead < v.channels) {
        const T* next = from + kAhead * v.stride_d;
        prefetch_span(next, next + (v.stride_t == 1 ? run.length : 1));
      }
      load_run(from, v.stride_t, run.length, to + run.lane);
    });
    for (int i = unit.count; i < kUnit; ++i) to[i] = 0.0f;
  }
}

template <typename T>
static void load_rows_of(const View& v, const Unit& unit, int64_t channel, int channels, float* to,
                         bool) {
  const T* data = static_cast<const T*>(v.data);
  for_each_run(unit, [&](const Run& run) {
    for (int i = 0; i < run.length; ++i) {
      const T* from = data + run.b * v.stride_b + (run.t + i) * v.stride_t + channel * v.stride_d;
      load_run(from, v.stride_d, channels, to + static_cast<ptrdiff_t>(run.lane + i) * kChunk);
    }
  });
}

// Past the caches at once: an output larger than they are would only push the weights out.
AC_INLINE void stream(float* to, Floats v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(to, (__m512)v);
#elif defined(__AVX2__)
  _mm256_stream_ps(to, (__m256)v);
#elif defined(__SSE2__)
  _mm_stream_ps(to, (__m128)v);
#else
  store(to, v);
#endif
}

AC_INLINE void stream_run(const float* from, int count, float* to) {
  for (int i = 0; i < count; i += kLanes) stream(to + i, load(from + i));
}

// Whether a run is made of whole lines of an output that is streamed.
AC_INLINE bool streams(const View& v, const void* to, int count) {
  return v.stream && v.type == Type::kFloat32 && count % 16 == 0 &&
         (reinterpret_cast<uintptr_t>(to) & 63) == 0;
}

// A whole unit of one sample, with one bias a channel: the usual case of a large float32 output.
static void store_whole_unit(const View& v, const Run& run, int64_t channel, int channels,
                             const float* from, const float* bias) {
  float* to = static_cast<float*>(v.data) + run.b * v.stride_b + run.t + channel * v.stride_d;
  for (int c = 0; c < channels; ++c, from += kUnit, to += v.stride_d) {
    const Floats add = fill(bias ? bias[c] : -0.0f);
    if (streams(v, to, kUnit)) {
      for (int i = 0; i < kUnit; i += kLanes) stream(to + i, load(from + i) + add);
      continue;
    }
    int i = 0;
#if defined(__AVX512F__)
    // Stores that share no line: the part before the first whole line, whole lines, the rest.
    const int head = static_cast<int>(-reinterpret_cast<uintptr_t>(to) & 63) / 4;
    if (head) {
      const __mmask16 first = static_cast<__mmask16>((1u << head) - 1);
      _mm512_mask_storeu_ps(to, first, (__m512)(load(from) + add));
      for (i = head; i + kLanes <= kUnit; i += kLanes) store(to + i, load(from + i) + add);
      const __mmask16 rest = static_cast<__mmask16>((1u << (kUnit - i)) - 1);
      const Floats last = (Floats)_mm512_maskz_loadu_ps(rest, from + i) + add;
      _mm512_mask_storeu_ps(to + i, rest, (__m512)last);
      continue;
    }
#endif
    for (; i < kUnit; i += kLanes) store(to + i, load(from + i) + add);
  }
}

template <typename T>
static void store_frames_of(const View& v, const Unit& unit, int64_t channel, int channels,
                            const float* from, const float* bias, int64_t ld_bias,
                            const int32_t* active) {
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
  if (v.type == Type::kFloat32 && v.stride_t == 1 && unit.run[0].length == kUnit && uniform) {
    const float* add = bias ? bias + active[0] * ld_bias + channel : nullptr;
    return store_whole_unit(v, unit.run[0], channel, channels, from, add);
  }
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

}  // namespace

void Lines::find(const View& v, const Unit& unit, int64_t channel, int channels, bool written) {
  count_ = 0;
  written_ = written;
  if (v.stride_t != 1 || unit.runs > 2) return;
  const int64_t size = v.type == Type::kFloat32 ? 4 : 2;
  for (int c = 0; c < channels; ++c) {
    for_each_run(unit, [&](const Run& run) {
      const char* from = static_cast<const char*>(v.data) +
                         (run.b * v.stride_b + run.t + (channel + c) * v.stride_d) * size;
      if (written && streams(v, from, run.length)) return;
      const uintptr_t first = reinterpret_cast<uintptr_t>(from);
      for (uintptr_t p = first & ~uintptr_t{63}; p < first + run.length * size; p += 64) {
        list_[count_++] = p;
      }
    });
  }
}

void load_frames(const View& v, bool rows, const Unit& unit, int64_t channel, int channels,
                 float* to, bool asked) {
  switch (v.type) {
    case Type::kFloat32:
      (rows ? load_rows_of<float> : load_lanes_of<float>)(v, unit, channel, channels, to, asked);
      break;
    case Type::kBFloat16:
      (rows ? load_rows_of<BFloat16> : load_lanes_of<BFloat16>)(v, unit, channel, channels, to,
                                                                asked);
      break;
    case Type::kFloat16:
      (rows ? load_rows_of<Float16> : load_lanes_of<Float16>)(v, unit, channel, channels, to,
                                                              asked);
      break;
  }
}

void store_frames(const View& v, const Unit& unit, int64_t channel, int channels, const float* from,
                  const float* bias, int64_t ld_bias, const int32_t* active) {
  const auto store = v.type == Type::kFloat32    ? store_frames_of<float>
                     : v.type == Type::kBFloat16 ? store_frames_of<BFloat16>
                                                 : store_frames_of<Float16>;
  store(v, unit, channel, channels, from, bias, ld_bias, active);
}

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
