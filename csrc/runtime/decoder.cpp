// SPDX-License-Identifier: Apache-2.0
// One pass of the causal decoder: prosody, conditioning, backbone, source, filters, overlap.
#include <math.h>

#include "entry.h"
#include "layers.h"
#include "source.h"
#include "spectra.h"
#include "transform.h"

namespace affectcodec {
namespace runtime {
namespace {

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

}  // namespace

namespace AFFECTCODEC_ISA {

void decode(const DecoderNet& net, const Pass& pass, const float* latent, int64_t ld, float* pcm,
            float* scratch) {
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

}  // namespace AFFECTCODEC_ISA
}  // namespace runtime
}  // namespace affectcodec
