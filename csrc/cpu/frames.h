// SPDX-License-Identifier: Apache-2.0
// Frames of a tensor in any layout and type, in and out of the two working forms:
//   lanes  [channel][kUnit]   neighbouring frames share a vector
//   rows   [frame][kChunk]    neighbouring channels share a vector
// Which one is chosen by what lies together in memory, so nothing is transposed on the way in.
#pragma once

#include "kernels.h"
#include "product.h"
#include "simd.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {

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
// Every line of [from, to), which need not begin where a line does.
template <typename T>
AC_INLINE void prefetch_span(const T* from, const T* to) {
  const uintptr_t end = reinterpret_cast<uintptr_t>(to);
  for (uintptr_t p = reinterpret_cast<uintptr_t>(from) & ~uintptr_t{63}; p < end; p += 64) {
    prefetch(reinterpret_cast<const void*>(p));
  }
}

AC_INLINE bool by_rows(const View& v) { return v.stride_d == 1; }

// Streaming stores are not ordered with others; the last one of a piece of work is followed by
// this.
AC_INLINE void finish_streams() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

static_assert(kChunk >= kUnit, "one buffer serves rows and lanes");

// Lines of some channels of a unit whose frames lie together: each channel is a row of its own, far
// from its neighbours, where no prefetcher of the machine looks.
class Lines {
 public:
  // Those that are read, or, where `written`, those that are written but not streamed past the
  // caches. None where a unit is in more than two pieces.
  void find(const View& v, const Unit& unit, int64_t channel, int channels, bool written);
  bool empty() const { return count_ == 0; }
  Ask ask() const { return Ask{list_, list_ + count_, written_}; }

 private:
  static constexpr int kMost = kChunk * (kUnit * 4 / 64 + 2);
  int count_ = 0;
  bool written_ = false;
  uintptr_t list_[kMost];
};

// Asks for the lines of these channels of a unit, to write to them.
void prepare_lanes(const View& v, const Unit& unit, int64_t channel, int channels);

// Channels channel .. channel + channels - 1 of a unit, as rows or as lanes. `asked`: they have
// been prefetched.
void load_frames(const View& v, bool rows, const Unit& unit, int64_t channel, int channels,
                 float* to, bool asked = false);

// Writes a working form out and adds bias[active[frame]][channel]; bias may be null. `active`
// holds the row of the bias for each frame of the unit.
void store_frames(const View& v, const Unit& unit, int64_t channel, int channels, const float* from,
                  const float* bias, int64_t ld_bias, const int32_t* active);

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
