// SPDX-License-Identifier: Apache-2.0
// The causal networks as the runtime holds them: packed weights, where a slot keeps its history,
// and the working memory of a pass. Plain data, shared by the host and every instruction set.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace affectcodec {
namespace runtime {

constexpr int kMaxRows = 32;    // frames of one pass, of any slots
constexpr int kMaxBlocks = 64;  // ConvNeXt blocks of one stack
constexpr int kMaxPasses = 24;  // factors of a transform
// Terms of one partial sum; part of the reduction order. Digits of the encoder hang on rounding,
// which is less in short sums; the decoder is faster with long ones.
constexpr int kEncoderDepth = 64, kDecoderDepth = 256;
constexpr int kPad = 16;       // elements: the widest register
constexpr int kMostLanes = 8;  // float64 lanes of the widest register

inline int64_t padded_size(int64_t count) { return (count + kPad - 1) / kPad * kPad; }

// y = W x + b. `weight` is packed by the kernels: panels of columns, each [in][columns].
template <typename T>
struct Linear {
  int32_t in = 0, out = 0;
  int32_t depth = 0;  // terms of one partial sum
  bool half = false;  // weights in bfloat16, those of two neighbouring inputs in one word
  const void* weight = nullptr;
  const T* bias = nullptr;  // padded with zeros
};

template <typename T>
struct Norm {
  int32_t size = 0;
  const T* gain = nullptr;
  const T* offset = nullptr;
};

// History of a block: the last kernel - 1 inputs of a slot, [kernel - 1][padded channels], row
// frame % (kernel - 1) is the oldest.
template <typename T>
struct Block {
  const T* taps = nullptr;  // [kernel][padded channels], oldest first
  const T* tap_bias = nullptr;
  const T* scale = nullptr;
  Norm<T> norm;
  Linear<T> expand, project, film;  // film.out is 0 where there is no condition
  int64_t ring = 0;                 // elements from the start of the slot's T
};

template <typename T>
struct Stack {
  int32_t channels = 0, kernel = 0, hidden = 0, count = 0;
  Linear<T> embed;
  Norm<T> norm, final;
  Block<T> block[kMaxBlocks];
};

// Complex transform of length n by factors 2, 3, 4 and 5, and the turns that make a real one of
// 2 n out of it.
struct Transform {
  int32_t n = 0, passes = 0;
  int32_t radix[kMaxPasses];
  const double* twiddle = nullptr;  // for each pass, p and j: cosine, sine
  const double* turn = nullptr;     // [n + 1]: cosine, sine of 2 pi k / (2 n)
};

// What one slot remembers, in one piece of memory: integers, then float64, then float32.
struct SlotLayout {
  int64_t ints = 0, doubles = 0, floats = 0;

  int64_t bytes() const { return (ints + doubles) * 8 + padded_size(floats) * 4; }
};

// What a slot's integers and first float64 are; phase, position, F0 and voicing are the decoder's.
enum { kSlotFrames = 0, kSlotPhase = 1, kSlotPosition = 2, kSlotF0 = 0, kSlotVoicing = 1 };

struct Slot {
  int64_t* ints;
  double* doubles;
  float* floats;
};

struct Windows {
  int32_t hop = 0, window = 0, step = 0, per_frame = 0, bins = 0;
  const double* weight = nullptr;  // [window]
  Transform transform;
};

struct EncoderNet {
  Windows windows;
  int32_t history = 0;  // samples before the frame that its windows reach back to
  int32_t pitch_window = 0, low_bins = 0, pooled = 0;
  int32_t first_lag = 0, lags = 0;
  const double* pitch_weight = nullptr;  // [pitch_window]
  const double* taper = nullptr;         // [lags]: what undoes the decay that the window causes
  Transform pitch;
  Stack<float> acoustic, emotion;
  int32_t blocks = 0, width = 0;  // of the quantizer
  struct Head {
    bool emotion;
    int32_t channel;
    Linear<float> linear;
  } head[2];
  SlotLayout layout;  // ints: frames; floats: history, then rings
};

struct Pool {
  Linear<float> score;
  float decay = 0;
  int64_t total = 0;  // floats from the start of the slot's
};

struct DecoderNet {
  Windows windows;                    // analysis of the source
  const double* synthesis = nullptr;  // [window]
  int32_t sample_rate = 0, width = 0, emotion_channel = 0, emotion_width = 0;
  Stack<double> prosody;
  Linear<double> prosody_out;
  int32_t f0_bins = 0, neighbours = 0;
  const double* centres = nullptr;
  double top_hz = 0;
  Pool segment, utterance;
  Linear<float> mix;
  Stack<float> backbone;
  Linear<float> head;
  const float* noise = nullptr;
  int64_t noise_length = 0;
  int64_t tail = 0;   // floats from the start of the slot's: window - step + ... of overlap
  SlotLayout layout;  // ints: frames, phase, position; doubles: F0, voicing, then rings
};

// A run of frames of one slot inside a pass.
struct Segment {
  Slot slot;
  int32_t row, frames;
};

struct Pass {
  const Segment* segment;
  int32_t segments, rows;
};

struct Kernels {
  const char* name;
  void (*pack_float)(const float* weight, int in, int out, float* to);
  void (*pack_half)(const float* weight, int in, int out, void* to);  // pairs of inputs
  void (*pack_double)(const float* weight, int in, int out, double* to);
  // Latents [rows][ld] of pcm [rows][hop].
  void (*encode)(const EncoderNet&, const Pass&, const float* pcm, float* latent, int64_t ld,
                 float* scratch);
  // Audio [rows][hop] of latents [rows][ld].
  void (*decode)(const DecoderNet&, const Pass&, const float* latent, int64_t ld, float* pcm,
                 float* scratch);
};

// Working memory of a pass, in floats. The kernels take their arrays from it in turn; these say how
// much that can be at most.
template <typename T>
inline int64_t stack_scratch(const Stack<T>& s) {
  const int64_t width = padded_size(s.channels), hidden = padded_size(s.hidden);
  return kMaxRows * (2 * width + hidden + padded_size(2 * s.channels)) *
             static_cast<int64_t>(sizeof(T) / 4) +
         8 * kPad;
}

inline int64_t transform_scratch(const Transform& t) {
  return 2 * (4 * (t.n + 1)) * kMostLanes * 2 + 8 * kPad;
}

inline int64_t encoder_scratch(const EncoderNet& n) {
  const int64_t bins = padded_size(n.windows.bins), windows = kMaxRows * n.windows.per_frame;
  const int64_t pitch_bins = n.pitch_window / 2 + 1;
  int64_t floats = kMaxRows * (n.history + n.windows.hop) + windows * bins * 2;
  floats += 2 * kMaxRows * (padded_size(n.acoustic.embed.in) + padded_size(n.emotion.embed.in));
  floats += 3 * kMaxRows * (padded_size(n.acoustic.channels) + padded_size(n.emotion.channels));
  floats += kMaxRows * padded_size(n.width) + 4 * pitch_bins * kMostLanes * 2;
  floats += transform_scratch(n.windows.transform) + transform_scratch(n.pitch);
  floats += stack_scratch(n.acoustic) + stack_scratch(n.emotion);
  return padded_size(floats + 64 * kPad);
}

inline int64_t decoder_scratch(const DecoderNet& n) {
  const int64_t bins = padded_size(n.windows.bins), windows = kMaxRows * n.windows.per_frame;
  const int64_t hop = n.windows.hop, hidden = n.prosody.channels;
  int64_t floats = windows * bins * 6 + kMaxRows * 4 * hop;
  floats += 2 * kMaxRows *
            (padded_size(n.emotion_width) + padded_size(hidden) + padded_size(n.prosody_out.out));
  floats += kMaxRows * (padded_size(hidden) + padded_size(3 * hidden) + kPad +
                        padded_size(n.mix.out) + padded_size(n.backbone.embed.in));
  floats += kMaxRows * (padded_size(n.backbone.channels) + padded_size(n.head.out) + 4 * kPad);
  floats += 8 * hop * 2 + 2 * kMostLanes * n.windows.window * 2;
  floats += transform_scratch(n.windows.transform);
  floats += stack_scratch(n.prosody) + stack_scratch(n.backbone);
  return padded_size(floats + 64 * kPad);
}

const Kernels* kernels_named(const char* isa);

}  // namespace runtime
}  // namespace affectcodec
