// SPDX-License-Identifier: Apache-2.0
// One pass of the causal encoder and decoder, compiled once per instruction set with
// AFFECTCODEC_ISA naming it. Nothing of the standard library is used but types and libm's scalar
// functions, see csrc/cpu/kernels.cpp.
#include <math.h>

#include "layers.h"
#include "network.h"
#include "source.h"
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

static void encode(const EncoderNet& net, const Pass& pass, const float* pcm, float* latent,
                   int64_t ld, float* scratch) {
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

// F0 in Hz: the mean of log F0 around the peak of its distribution.
static double read_f0(const DecoderNet& net, const double* logits) {
  int peak = 0;
  for (int i = 1; i < net.f0_bins; ++i) {
    if (logits[i] > logits[peak]) peak = i;
  }
  int from = peak - net.neighbours, to = peak + net.neighbours;
  if (from < 0) from = 0;
  if (to > net.f0_bins - 1) to = net.f0_bins - 1;
  double total = 0.0, sum = 0.0;
  for (int i = from; i <= to; ++i) {
    const double weight = exp(logits[i] - logits[peak]);
    total += weight;
    sum += weight * net.centres[i];
  }
  return exp(sum / total);
}

// Exponentially forgetting mean of `hidden` into `out` [rows][ld_out].
__attribute__((noinline)) static void pool(const Pool& p, const Pass& pass, int channels,
                                           const float* hidden, ptrdiff_t ld, float* out,
                                           ptrdiff_t ld_out, Arena arena) {
  const ptrdiff_t ld_score = padded_size(1);
  float* score = arena.take<float>(pass.rows * ld_score);
  linear(p.score, hidden, ld, pass.rows, score, ld_score);
  for (int i = 0; i < pass.segments; ++i) {
    const Segment& s = pass.segment[i];
    float* total = s.slot.floats + p.total;
    for (int f = 0; f < s.frames; ++f) {
      const float* x = hidden + (s.row + f) * ld;
      float clamped = score[(s.row + f) * ld_score];
      clamped = clamped < -8.0f ? -8.0f : clamped > 8.0f ? 8.0f : clamped;
      const float weight = exp_of(fill(clamped))[0];
      const float norm = total[channels] * p.decay + weight;
      const float by = norm > 1e-6f ? norm : 1e-6f;
      float* to = out + (s.row + f) * ld_out;
      for (int c = 0; c < channels; ++c) {
        total[c] = total[c] * p.decay + weight * x[c];
        to[c] = total[c] / by;
      }
      total[channels] = norm;
    }
  }
}

// Filters of each window applied to the source; the result takes the place of the harmonics.
__attribute__((noinline)) static void filter(const Windows& w, int rows, const float* raw,
                                             ptrdiff_t ld_raw, const float* gain, float* h_re,
                                             float* h_im, const float* n_re, const float* n_im,
                                             ptrdiff_t ld) {
  const Floats low = fill(-12.0f), high = fill(4.0f), two = fill(2.0f), four = fill(4.0f);
  const auto bounded = [&](Floats x) {
    x = choose((Ints)(x < low), low, x);
    return exp_of(choose((Ints)(x > high), high, x));
  };
  for (int r = 0; r < rows; ++r) {
    const Floats all = fill(gain[r]);
    for (int i = 0; i < w.per_frame; ++i) {
      const float* from = raw + r * ld_raw + i * 4 * w.bins;
      const ptrdiff_t at = (r * w.per_frame + i) * ld;
      // Past the last bin this reads what lies behind it and writes where nothing is read.
      for (int k = 0; k < w.bins; k += kLanes) {
        const Floats fh = bounded(two * load_of(from + k));
        const Floats fn = bounded(two * load_of(from + w.bins + k) - fill(1.0f));
        const Floats re = load_of(h_re + at + k) * fh + load_of(n_re + at + k) * fn +
                          four * load_of(from + 2 * w.bins + k);
        const Floats im = load_of(h_im + at + k) * fh + load_of(n_im + at + k) * fn +
                          four * load_of(from + 3 * w.bins + k);
        store_to(h_re + at + k, all * re);
        store_to(h_im + at + k, all * im);
      }
    }
  }
}

template <typename D>
AC_INLINE void signals_of(const Transform& t, const double* weight, const float* re,
                          const float* im, ptrdiff_t ld, int used, const TransformMemory& m,
                          double* to_re, double* to_im, float* out, int window) {
  const int step = Lanes<D>::count;
  for (int k = 0; k <= t.n; ++k) {
    for (int lane = 0; lane < step; ++lane) {
      to_re[k * step + lane] = lane < used ? static_cast<double>(re[lane * ld + k]) : 0.0;
      to_im[k * step + lane] = lane < used ? static_cast<double>(im[lane * ld + k]) : 0.0;
    }
  }
  const int half = real_backward<D>(t, m, to_re, to_im);
  for (int lane = 0; lane < used; ++lane) {
    float* to = out + lane * window;
    for (int i = 0; i < t.n; ++i) {
      to[2 * i] = static_cast<float>(m.im[half][i * step + lane] * weight[2 * i]);
      to[2 * i + 1] = static_cast<float>(m.re[half][i * step + lane] * weight[2 * i + 1]);
    }
  }
}

// Windows of all rows back to audio, each added to the overlap of its slot, in order.
__attribute__((noinline)) static void overlap_add(const DecoderNet& net, const Pass& pass,
                                                  const float* re, const float* im, ptrdiff_t ld,
                                                  float* pcm, Arena arena) {
  const Windows& w = net.windows;
  const TransformMemory m = transform_memory(w.transform, &arena);
  double* to_re = arena.take<double>(static_cast<int64_t>(w.bins) * kWide);
  double* to_im = arena.take<double>(static_cast<int64_t>(w.bins) * kWide);
  float* wave = arena.take<float>(static_cast<int64_t>(kMostLanes) * w.window);
  float* sum = arena.take<float>(2 * w.hop);
  const int windows = pass.rows * w.per_frame, rest = w.window - w.step;
  int segment = 0;
  for (int first = 0; first < windows;) {
    const int left = windows - first, step = left == 1 ? 1 : static_cast<int>(kWide);
    const int used = left < step ? left : step;
    if (step == 1) {
      signals_of<double>(w.transform, net.synthesis, re + first * ld, im + first * ld, ld, used, m,
                         to_re, to_im, wave, w.window);
    } else {
      signals_of<Doubles>(w.transform, net.synthesis, re + first * ld, im + first * ld, ld, used, m,
                          to_re, to_im, wave, w.window);
    }
    for (int i = 0; i < used; ++i) {
      const int row = (first + i) / w.per_frame, part = (first + i) % w.per_frame;
      while (row >= pass.segment[segment].row + pass.segment[segment].frames) ++segment;
      float* tail = pass.segment[segment].slot.floats + net.tail;
      // One window after the other: what is complete goes out, the rest waits in the slot.
      for (int n = 0; n < rest; ++n) sum[n] = tail[n] + wave[i * w.window + n];
      for (int n = rest; n < w.window; ++n) sum[n] = wave[i * w.window + n];
      float* to = pcm + static_cast<int64_t>(row) * w.hop + part * w.step;
      __builtin_memcpy(to, sum, w.step * sizeof(float));
      __builtin_memcpy(tail, sum + w.step, rest * sizeof(float));
    }
    first += used;
  }
}

static void decode(const DecoderNet& net, const Pass& pass, const float* latent, int64_t ld,
                   float* pcm, float* scratch) {
  const Windows& w = net.windows;
  const int rows = pass.rows, hop = w.hop, channels = net.prosody.channels;
  Arena arena{scratch};
  // Prosody, in float64: see affectcodec/nn/prosody.py.
  const ptrdiff_t ld_emotion = padded_size(net.emotion_width), ld_wide = padded_size(channels);
  const ptrdiff_t ld_out = padded_size(net.prosody_out.out);
  double* emotion = arena.take<double>(rows * ld_emotion);
  double* wide = arena.take<double>(rows * ld_wide);
  double* out = arena.take<double>(rows * ld_out);
  for (int r = 0; r < rows; ++r) {
    const float* from = latent + r * ld + net.emotion_channel;
    for (int c = 0; c < net.emotion_width; ++c) emotion[r * ld_emotion + c] = from[c];
  }
  run_stack<double>(net.prosody, pass, emotion, ld_emotion, nullptr, 0, wide, arena);
  linear(net.prosody_out, wide, ld_wide, rows, out, ld_out);

  const ptrdiff_t ld_hidden = padded_size(channels), ld_views = padded_size(3 * channels);
  const ptrdiff_t ld_condition = padded_size(net.mix.out);
  float* hidden = arena.take<float>(rows * ld_hidden);
  float* views = arena.take<float>(rows * ld_views);
  float* condition = arena.take<float>(rows * ld_condition);
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < channels; ++c) {
      const float x = static_cast<float>(wide[r * ld_wide + c]);
      hidden[r * ld_hidden + c] = x;
      views[r * ld_views + c] = x;
    }
  }
  pool(net.segment, pass, channels, hidden, ld_hidden, views + channels, ld_views, arena);
  pool(net.utterance, pass, channels, hidden, ld_hidden, views + 2 * channels, ld_views, arena);
  linear(net.mix, views, ld_views, rows, condition, ld_condition);
  for (ptrdiff_t c = 0; c < rows * ld_condition; c += kLanes) {
    store_to(condition + c, tanh_of(load_of(condition + c)));
  }

  const ptrdiff_t ld_in = padded_size(net.backbone.embed.in);
  const ptrdiff_t ld_back = padded_size(net.backbone.channels);
  const ptrdiff_t ld_raw = padded_size(net.head.out);
  float* joined = arena.take<float>(rows * ld_in);
  float* back = arena.take<float>(rows * ld_back);
  float* raw = arena.take<float>(rows * ld_raw + 2 * kPad);
  for (int r = 0; r < rows; ++r) {
    float* to = joined + r * ld_in;
    __builtin_memcpy(to, latent + r * ld, net.width * sizeof(float));
    __builtin_memcpy(to + net.width, hidden + r * ld_hidden, channels * sizeof(float));
  }
  run_stack<float>(net.backbone, pass, joined, ld_in, condition, ld_condition, back, arena);
  linear(net.head, back, ld_back, rows, raw, ld_raw);

  const int windows = rows * w.per_frame;
  const ptrdiff_t ld_bins = padded_size(w.bins);
  float* harmonic = arena.take<float>(static_cast<int64_t>(rows) * 2 * hop);
  float* noise = arena.take<float>(static_cast<int64_t>(rows) * 2 * hop);
  int64_t* phase = arena.take<int64_t>(2 * hop + kMostLanes);
  float* gain = arena.take<float>(rows);
  const float* cut[2 * kMaxRows * 8];
  for (int i = 0; i < pass.segments; ++i) {
    const Segment& s = pass.segment[i];
    for (int f = 0; f < s.frames; ++f) {
      const int r = s.row + f;
      const double* o = out + r * ld_out;
      const double voicing = 1.0 / (1.0 + exp(-o[net.f0_bins]));
      float* h = harmonic + static_cast<int64_t>(r) * 2 * hop;
      float* n = noise + static_cast<int64_t>(r) * 2 * hop;
      source_frame(net, s.slot, read_f0(net, o), voicing, phase, h, n);
      gain[r] = exp_of(fill(static_cast<float>(o[net.f0_bins + 1] * 2.0 - 4.0)))[0];
      for (int j = 0; j < w.per_frame; ++j) {
        cut[r * w.per_frame + j] = h + j * w.step;
        cut[windows + r * w.per_frame + j] = n + j * w.step;
      }
    }
  }
  float* re = arena.take<float>(2 * windows * ld_bins);
  float* im = arena.take<float>(2 * windows * ld_bins);
  window_spectra(w, cut, 2 * windows, re, im, ld_bins, arena);
  filter(w, rows, raw, ld_raw, gain, re, im, re + windows * ld_bins, im + windows * ld_bins,
         ld_bins);
  overlap_add(net, pass, re, im, ld_bins, pcm, arena);
  for (int i = 0; i < pass.segments; ++i) {
    pass.segment[i].slot.ints[kSlotFrames] += pass.segment[i].frames;
  }
}

static void pack_float(const float* weight, int in, int out, float* to) {
  pack_panels(weight, in, out, to);
}

static void pack_half(const float* weight, int in, int out, void* to) {
  pack_pairs(weight, in, out, static_cast<HalfPair*>(to));
}

static void pack_double(const float* weight, int in, int out, double* to) {
  pack_panels(weight, in, out, to);
}

}  // namespace

#define AFFECTCODEC_JOIN(a, b) a##b
#define AFFECTCODEC_TABLE(isa) AFFECTCODEC_JOIN(kernels_, isa)
#define AFFECTCODEC_QUOTE(x) #x
#define AFFECTCODEC_NAME(isa) AFFECTCODEC_QUOTE(isa)

extern const Kernels AFFECTCODEC_TABLE(AFFECTCODEC_ISA);
const Kernels AFFECTCODEC_TABLE(AFFECTCODEC_ISA) = {
    AFFECTCODEC_NAME(AFFECTCODEC_ISA), pack_float, pack_half, pack_double, encode, decode};

}  // namespace runtime
}  // namespace affectcodec
