// SPDX-License-Identifier: Apache-2.0
// Spectra of windowed signals, many windows a pass.
#pragma once

#include "layers.h"
#include "network.h"
#include "transform.h"

namespace affectcodec {
namespace runtime {
namespace {

constexpr double kPowerFloor = 1e-8;  // affectcodec/nn/spectral.py

AC_INLINE TransformMemory transform_memory(const Transform& t, Arena* arena) {
  TransformMemory m;
  for (int i = 0; i < 2; ++i) {
    m.re[i] = arena->take<double>(static_cast<int64_t>(t.n + 1) * kWide);
    m.im[i] = arena->take<double>(static_cast<int64_t>(t.n + 1) * kWide);
  }
  return m;
}

// Spectra of windowed signals, one a row of `re` and `im` [count][ld].
template <typename D>
AC_INLINE void spectra_of(const Transform& t, const double* weight, const float* const* signal,
                          int used, const TransformMemory& m, double* re, double* im) {
  real_forward<D>(
      t, m, used, [&](int i, int lane) { return static_cast<double>(signal[lane][i]) * weight[i]; },
      re, im);
}

// Spectra of `count` windows, as many at a time as there are lanes: use(first, used, step, re, im).
template <typename Use>
AC_INLINE void transform_windows(const Windows& w, const float* const* signal, int count,
                                 Arena arena, const Use& use) {
  const TransformMemory m = transform_memory(w.transform, &arena);
  double* re = arena.take<double>(static_cast<int64_t>(w.bins) * kWide);
  double* im = arena.take<double>(static_cast<int64_t>(w.bins) * kWide);
  for (int first = 0; first < count;) {
    const int left = count - first;
    const int step = left == 1 ? 1 : static_cast<int>(kWide);
    const int used = left < step ? left : step;
    if (step == 1) {
      spectra_of<double>(w.transform, w.weight, signal + first, used, m, re, im);
    } else {
      spectra_of<Doubles>(w.transform, w.weight, signal + first, used, m, re, im);
    }
    use(first, used, step, re, im);
    first += used;
  }
}

__attribute__((noinline)) static void window_spectra(const Windows& w, const float* const* signal,
                                                     int count, float* re, float* im, ptrdiff_t ld,
                                                     Arena arena) {
  const auto store = [&](int first, int used, int step, const double* from_re,
                         const double* from_im) {
    for (int lane = 0; lane < used; ++lane) {
      float* row_re = re + (first + lane) * ld;
      float* row_im = im + (first + lane) * ld;
      for (int k = 0; k < w.bins; ++k) {
        row_re[k] = static_cast<float>(from_re[k * step + lane]);
        row_im[k] = static_cast<float>(from_im[k * step + lane]);
      }
    }
  };
  transform_windows(w, signal, count, arena, store);
}

// Powers [count][ld] of windows, the floor added.
__attribute__((noinline)) static void window_powers(const Windows& w, const float* const* signal,
                                                    int count, double* power, ptrdiff_t ld,
                                                    Arena arena) {
  const auto store = [&](int first, int used, int step, const double* re, const double* im) {
    for (int lane = 0; lane < used; ++lane) {
      double* row = power + (first + lane) * ld;
      for (int k = 0; k < w.bins; ++k) {
        const double a = re[k * step + lane], b = im[k * step + lane];
        row[k] = (a * a + b * b) + kPowerFloor;
      }
    }
  };
  transform_windows(w, signal, count, arena, store);
}

}  // namespace
}  // namespace runtime
}  // namespace affectcodec
