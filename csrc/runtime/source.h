// SPDX-License-Identifier: Apache-2.0
// Harmonic-plus-noise source of the decoder, as affectcodec/nn/source.py defines it: phase is a
// 32-bit fraction of a cycle, summed as an integer.
#pragma once

#include "math.h"
#include "network.h"

namespace affectcodec {
namespace runtime {
namespace {

constexpr int64_t kCycle = int64_t{1} << 32;

// round(hz * cycle / rate), ties to even: adding 1.5 * 2^52 leaves an integer in the mantissa.
AC_INLINE int64_t phase_step(double hz, double per_hz) {
  const double magic = 6755399441055744.0;
  return static_cast<int64_t>((hz * per_hz + magic) - magic);
}

// Two hops of harmonics and of noise for one frame; advances phase, position and prosody. `phase`
// has room for 2 hops and a vector.
__attribute__((noinline)) static void source_frame(const DecoderNet& net, const Slot& slot,
                                                   double f0, double voicing, int64_t* phase,
                                                   float* harmonic, float* noise) {
  const int hop = net.windows.hop;
  double f0_from = slot.doubles[kSlotF0], v_from = slot.doubles[kSlotVoicing];
  if (!(f0_from > 0)) {  // the first frame holds its own values
    f0_from = f0;
    v_from = voicing;
  }
  const double per_hz = static_cast<double>(kCycle) / net.sample_rate;
  int64_t now = slot.ints[kSlotPhase];
  for (int i = 0; i < hop; ++i) {
    const double ramp = static_cast<float>(i + 1) / static_cast<float>(hop);
    now += phase_step(f0_from + (f0 - f0_from) * ramp, per_hz);
    phase[i] = now & (kCycle - 1);
  }
  const int64_t held = phase_step(f0, per_hz);
  for (int i = 0; i < hop; ++i) {
    phase[hop + i] = (now + held * (i + 1)) & (kCycle - 1);
  }
  double top = f0_from > f0 ? f0_from : f0;
  if (!(top > 1.0)) top = 1.0;
  int64_t count = static_cast<int64_t>(net.top_hz / top);
  if (count < 1) count = 1;
  const int64_t n = 2 * count + 1;
  const Doubles scale = fill_of(__builtin_sqrt(2.0 / static_cast<double>(count)));
  const Doubles most = fill_of(static_cast<double>(n)), near = fill_of(1e-6), one = fill_of(1.0);
  for (int i = 0; i < 2 * hop; i += kWide) {
    Longs p;
    __builtin_memcpy(&p, phase + i, sizeof(p));
    const Doubles upper = sin_of_turns((p * n) & (Longs{} + (2 * kCycle - 1)));
    const Doubles lower = sin_of_turns(p);
    const Longs close = lower < near;  // it is never negative
    const Doubles ratio = close ? most : upper / (close ? one : lower);
    const Doubles pulse = (ratio - one) * fill_of(0.5) * scale;
    for (int lane = 0; lane < kWide; ++lane) {
      const int at = i + lane;
      if (at >= 2 * hop) break;
      double amplitude = voicing;
      if (at < hop) {
        const double ramp = static_cast<float>(at + 1) / static_cast<float>(hop);
        amplitude = v_from + (voicing - v_from) * ramp;
      }
      harmonic[at] = static_cast<float>(pulse[lane]) * static_cast<float>(amplitude);
    }
  }
  int64_t at = slot.ints[kSlotPosition];
  for (int i = 0; i < 2 * hop; ++i) {
    noise[i] = net.noise[at];
    at = at + 1 == net.noise_length ? 0 : at + 1;
  }
  slot.ints[kSlotPhase] = now & (kCycle - 1);
  slot.ints[kSlotPosition] = (slot.ints[kSlotPosition] + hop) % net.noise_length;
  slot.doubles[kSlotF0] = f0;
  slot.doubles[kSlotVoicing] = voicing;
}

}  // namespace
}  // namespace runtime
}  // namespace affectcodec
