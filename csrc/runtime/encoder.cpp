// SPDX-License-Identifier: Apache-2.0
// One pass of the causal encoder: spectra and pitch features, two stacks, latents.
#include "entry.h"
#include "layers.h"
#include "spectra.h"
#include "transform.h"

namespace affectcodec {
namespace runtime {
namespace {

// Sum of the first `size` of a row, vector by vector.
AC_INLINE double row_sum(const double* x, int size) {
  const int whole = size / kWide * kWide;
  Doubles sum = Doubles{};
  for (int c = 0; c < whole; c += kWide) sum = sum + load_of(x + c);
  double total = sum_of<double>(sum);
  for (int c = whole; c < size; ++c) total += x[c];
  return total;
}

// Log spectra, level apart, of the powers of the short windows of every row, which they replace:
// the acoustic features, and averaged over neighbouring bins the first of the emotion features.
__attribute__((noinline)) static void spectral_features(const EncoderNet& net, int rows,
                                                        double* power, ptrdiff_t ld,
                                                        double* acoustic, ptrdiff_t ld_acoustic,
                                                        double* emotion, ptrdiff_t ld_emotion) {
  const Windows& w = net.windows;
  const int bands = w.bins / net.pooled;
  for (int r = 0; r < rows; ++r) {
    for (int i = 0; i < w.per_frame; ++i) {
      double* log = power + (r * w.per_frame + i) * ld;
      for (int k = 0; k < w.bins; k += kWide) {
        store_to(log + k, fill_of(0.5) * log_of(load_of(log + k)));
      }
      const double level = row_sum(log, w.bins) / static_cast<double>(w.bins);
      const double scaled = 0.3 * (level + 4.0);
      double* shape = acoustic + r * ld_acoustic + i * (w.bins + 1);
      for (int k = 0; k < w.bins; ++k) shape[k] = 0.5 * (log[k] - level);
      shape[w.bins] = scaled;
      double* pooled = emotion + r * ld_emotion + i * (bands + 1);
      for (int band = 0; band < bands; ++band) {
        double sum = 0.0;
        for (int k = 0; k < net.pooled; ++k) sum += shape[band * net.pooled + k];
        pooled[band] = sum / static_cast<double>(net.pooled);
      }
      pooled[bands] = scaled;
    }
  }
}

// Autocorrelation, low log spectrum and level of the long window of each row.
template <typename D>
AC_INLINE void pitch_group(const EncoderNet& net, const float* const* signal, int used,
                           const TransformMemory& m, double* re, double* im, double* const* to) {
  const int step = Lanes<D>::count, bins = net.pitch.n + 1;
  spectra_of<D>(net.pitch, net.pitch_weight, signal, used, m, re, im);
  D sum = D{};
  for (int k = 0; k < bins; ++k) {
    const D a = get<D>(re + k * step), b = get<D>(im + k * step);
    const D power = (a * a + b * b) + kPowerFloor;
    sum = sum + power;
    put(re + k * step, power);
  }
  double mean[kMostLanes];
  put(mean, sum / static_cast<double>(bins));
  for (int lane = 0; lane < used; ++lane) {
    const double level = 0.5 * log_of(fill_of(mean[lane]))[0];
    double* low = to[lane] + net.lags - 1;
    for (int k = 0; k < net.low_bins; k += kWide) {
      double part[kWide];
      for (int i = 0; i < kWide; ++i) {
        const int at = k + i < net.low_bins ? k + i : net.low_bins - 1;
        part[i] = re[at * step + lane];
      }
      const Doubles log = fill_of(0.5) * log_of(load_of(part));
      const Doubles shape = fill_of(0.5) * (log - fill_of(level));
      for (int i = 0; i < kWide && k + i < net.low_bins; ++i) low[k + i] = shape[i];
    }
    low[net.low_bins] = 0.3 * (level + 2.0);
  }
  const int half = real_backward<D>(net.pitch, m, re, nullptr);
  for (int lane = 0; lane < used; ++lane) {
    // Even samples lie in the imaginary half: the parts have changed places.
    const double all = m.im[half][lane];
    for (int i = 1; i < net.lags; ++i) {
      const int lag = net.first_lag + i - 1;
      const double* part = lag % 2 ? m.re[half] : m.im[half];
      const double raw = part[(lag / 2) * step + lane] * net.taper[i];
      to[lane][i - 1] = 2.0 * (raw / all);
    }
  }
}

__attribute__((noinline)) static void pitch_features(const EncoderNet& net,
                                                     const float* const* signal, int rows,
                                                     double* emotion, ptrdiff_t ld_emotion,
                                                     Arena arena) {
  const TransformMemory m = transform_memory(net.pitch, &arena);
  double* re = arena.take<double>(static_cast<int64_t>(net.pitch.n + 1) * kWide);
  double* im = arena.take<double>(static_cast<int64_t>(net.pitch.n + 1) * kWide);
  const int offset = net.windows.per_frame * (net.windows.bins / net.pooled + 1);
  for (int first = 0; first < rows;) {
    const int left = rows - first, step = left == 1 ? 1 : static_cast<int>(kWide);
    const int used = left < step ? left : step;
    double* to[kMostLanes];
    for (int i = 0; i < used; ++i) to[i] = emotion + (first + i) * ld_emotion + offset;
    if (step == 1) {
      pitch_group<double>(net, signal + first, used, m, re, im, to);
    } else {
      pitch_group<Doubles>(net, signal + first, used, m, re, im, to);
    }
    first += used;
  }
}

}  // namespace

namespace AFFECTCODEC_ISA {

void encode(const EncoderNet& net, const Pass& pass, const float* pcm, float* latent, int64_t ld,
            float* scratch) {
  const Windows& w = net.windows;
  const int rows = pass.rows, hop = w.hop;
  Arena arena{scratch};
  float* lines = arena.take<float>(static_cast<int64_t>(kMaxRows) * (net.history + hop));
  const float* short_window[kMaxRows * 8];
  const float* long_window[kMaxRows];
  for (int i = 0; i < pass.segments; ++i) {
    const Segment& s = pass.segment[i];
    float* past = s.slot.floats;
    const int64_t fresh = static_cast<int64_t>(s.frames) * hop;
    __builtin_memcpy(lines, past, net.history * sizeof(float));
    __builtin_memcpy(lines + net.history, pcm + static_cast<int64_t>(s.row) * hop,
                     fresh * sizeof(float));
    __builtin_memcpy(past, lines + fresh, net.history * sizeof(float));
    for (int f = 0; f < s.frames; ++f) {
      const float* end = lines + net.history + (f + 1) * hop;
      for (int j = 0; j < w.per_frame; ++j) {
        short_window[(s.row + f) * w.per_frame + j] = end - 2 * hop + j * w.step;
      }
      long_window[s.row + f] = end - net.pitch_window;
    }
    lines += net.history + fresh;
  }
  const ptrdiff_t ld_bins = padded_size(w.bins);
  const ptrdiff_t ld_acoustic = padded_size(net.acoustic.embed.in);
  const ptrdiff_t ld_emotion = padded_size(net.emotion.embed.in);
  const int windows = rows * w.per_frame;
  double* power = arena.take<double>(windows * ld_bins);
  double* acoustic = arena.take<double>(rows * ld_acoustic);
  double* emotion = arena.take<double>(rows * ld_emotion);
  window_powers(w, short_window, windows, power, ld_bins, arena);
  spectral_features(net, rows, power, ld_bins, acoustic, ld_acoustic, emotion, ld_emotion);
  pitch_features(net, long_window, rows, emotion, ld_emotion, arena);

  const ptrdiff_t ld_a = padded_size(net.acoustic.channels);
  const ptrdiff_t ld_e = padded_size(net.emotion.channels);
  float* hidden_a = arena.take<float>(rows * ld_a);
  float* hidden_e = arena.take<float>(rows * ld_e);
  run_stack_wide(net.acoustic, pass, acoustic, ld_acoustic, hidden_a, arena);
  run_stack_wide(net.emotion, pass, emotion, ld_emotion, hidden_e, arena);
  float* part = arena.take<float>(rows * padded_size(net.width));
  for (int g = 0; g < net.blocks; ++g) {
    const EncoderNet::Head& head = net.head[g];
    const ptrdiff_t ld_part = padded_size(head.linear.out);
    linear(head.linear, head.emotion ? hidden_e : hidden_a, head.emotion ? ld_e : ld_a, rows, part,
           ld_part);
    normalise<float>(head.linear.out, nullptr, nullptr, part, ld_part, rows, latent + head.channel,
                     ld);
  }
  for (int i = 0; i < pass.segments; ++i) {
    pass.segment[i].slot.ints[kSlotFrames] += pass.segment[i].frames;
  }
}

}  // namespace AFFECTCODEC_ISA
}  // namespace runtime
}  // namespace affectcodec
