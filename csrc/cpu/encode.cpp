// SPDX-License-Identifier: Apache-2.0
// Encoding, and the forward pass of training: projections, the recurrence, tokens, latents.
#include "entry.h"
#include "expand.h"
#include "frames.h"
#include "half.h"
#include "product.h"
#include "recurrence.h"
#include "units.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {
namespace {

// Projections of one block, [rows][kUnit]: the sum of one chain of multiply-adds a chunk of
// channels, chunk by chunk, in every layout.
static void project(const BlockPlan& b, const float* weights, const View& z, const Unit& unit,
                    const Unit& after, Lines& lines, float* scratch, const Scratch& s, float* x) {
  float* chunk = scratch + s.chunk;
  const int count = unit.count;
  if (!by_rows(z)) {
    for (int64_t c = 0; c < b.width; c += kChunk) {
      const int channels = static_cast<int>(smaller(kChunk, b.width - c));
      load_frames(z, false, unit, b.channel + c, channels, chunk, !lines.empty());
      // The next chunk is asked for while this one is worked on: that of the next channels, and at
      // the end of a unit the first one of the frames that follow.
      const int64_t next = b.channel + c + channels;
      if (next < z.channels) {
        lines.find(z, unit, next, static_cast<int>(smaller(kChunk, z.channels - next)), false);
      } else {
        lines.find(z, after, 0, static_cast<int>(smaller(kChunk, z.channels)), false);
      }
      product(rows_at(weights + b.in + c, b.ld_width), b.rows, 1, chunk, kUnit, vectors_for(count),
              channels, x, kUnit, c == 0 ? Start::kZero : Start::kAdd, lines.ask());
    }
    return;
  }
  float* sums = scratch + s.rows;
  const float* list[kUnit];
  const bool direct = z.type == Type::kFloat32;
  for (int64_t c = 0; c < b.width; c += kChunk) {
    const int channels = static_cast<int>(smaller(kChunk, b.width - c));
    const float* w = weights + b.in_t + c * b.ld_rows;
    const Start start = c == 0 ? Start::kZero : Start::kAdd;
    if (!direct) {
      load_frames(z, true, unit, b.channel + c, channels, chunk);
      product(rows_at(chunk, kChunk), count, 1, w, b.ld_rows, vectors_for(b.rows), channels, sums,
              b.ld_rows, start);
      continue;
    }
    const float* data = static_cast<const float*>(z.data) + b.channel + c;
    for_each_run(unit, [&](const Run& run) {
      for (int i = 0; i < run.length; ++i) {
        list[run.lane + i] = data + run.b * z.stride_b + (run.t + i) * z.stride_t;
      }
    });
    // A unit is walked chunk by chunk, which hides the order from the machine's own prefetcher. The
    // next piece of each row is asked for while this one is worked on: the next chunk, and at the
    // end of a frame the start of the one that takes its place in the next unit.
    const int64_t left = z.channels - b.channel - c - channels;
    const ptrdiff_t next = left > 0 ? channels : kUnit * z.stride_t - b.channel - c;
    const int64_t ahead = left > 0 ? smaller(left, kChunk) : smaller(z.channels, kChunk);
    for (int i = 0; i < count; i += kTileRows) {
      const int rows = static_cast<int>(smaller(kTileRows, count - i));
      // Addresses past the tensor are harmless here: a prefetch cannot fault.
      for (int r = 0; r < rows && count > kTileRows; ++r) {
        const char* from = reinterpret_cast<const char*>(list[i + r] + next);
        for (int64_t byte = 0; byte < ahead * 4; byte += 64) prefetch(from + byte);
      }
      product(Rows{nullptr, 0, list + i}, rows, 1, w, b.ld_rows, vectors_for(b.rows), channels,
              sums + i * b.ld_rows, b.ld_rows, start);
    }
  }
  transpose(sums, b.ld_rows, count, b.rows, x, kUnit);
}

AC_INLINE void clear_tokens(const Plan& plan, const TokenSums& sums) {
  if (sums.narrow) {
    for (int i = 0; i < plan.stages * kUnit; ++i) sums.narrow[i] = 0;
  } else {
    for (int i = 0; i < plan.stages * kUnit; ++i) sums.wide[i] = 0;
  }
  for (int i = 0; i < kUnit; ++i) sums.marked[i] = 0;
}

template <typename T>
static bool holds_nan(const View& z, int64_t b, int64_t t, int64_t width) {
  const T* from = static_cast<const T*>(z.data) + b * z.stride_b + t * z.stride_t;
  for (int64_t c = 0; c < width; ++c) {
    const float x = widen(from[c * z.stride_d]);
    if (x != x) return true;
  }
  return false;
}

// A projection is NaN where the frame holds a NaN, but also where infinities cancel. Only the first
// makes a frame unusable; the rare frame that is marked is looked at again to tell them apart.
static void confirm_marks(const Plan& plan, const View& z, const Unit& unit, int32_t* marked) {
  for_each_run(unit, [&](const Run& run) {
    for (int i = 0; i < run.length; ++i) {
      int32_t& mark = marked[run.lane + i];
      if (!mark) continue;
      const auto holds = z.type == Type::kFloat32    ? holds_nan<float>
                         : z.type == Type::kBFloat16 ? holds_nan<BFloat16>
                                                     : holds_nan<Float16>;
      mark = holds(z, run.b, run.t + i, plan.width) ? 1 : 0;
    }
  });
}

AC_INLINE void write_tokens(const Plan& plan, const TokenSums& sums, const TokenView& v,
                            const Unit& unit) {
  for (int k = 0; k < plan.stages; ++k) {
    for_each_run(unit, [&](const Run& run) {
      const int64_t at = run.b * v.stride_b + k * v.stride_k + run.t * v.stride_t;
      const int32_t* marked = sums.marked + run.lane;
      if (v.wide) {
        int64_t* to = static_cast<int64_t*>(v.data) + at;
        for (int i = 0; i < run.length; ++i) {
          const int lane = k * kUnit + run.lane + i;
          const int64_t token = sums.narrow ? sums.narrow[lane] : sums.wide[lane];
          to[i * v.stride_t] = marked[i] ? -1 : token;
        }
      } else {
        int32_t* to = static_cast<int32_t*>(v.data) + at;
        const int32_t* from = sums.narrow + k * kUnit + run.lane;
        for (int i = 0; i < run.length; ++i) to[i * v.stride_t] = marked[i] ? -1 : from[i];
      }
    });
  }
}

AC_INLINE TokenSums token_sums(const Plan& plan, float* scratch, const Scratch& s,
                               int32_t* marked) {
  void* memory = scratch + s.tokens;
  return TokenSums{plan.wide() ? nullptr : static_cast<int32_t*>(memory),
                   plan.wide() ? static_cast<int64_t*>(memory) : nullptr, marked};
}

}  // namespace

void encode_units(const EncodeJob& job, int64_t begin, int64_t end, float* scratch) {
  if (begin < end && encode_few(job, scratch)) return;
  const Plan& plan = *job.plan;
  const Scratch s = plan_scratch(plan);
  const int64_t total = job.z.total();
  int32_t marked[kUnit];
  const TokenSums tokens = token_sums(plan, scratch, s, marked);
  float* v = scratch + s.lanes2;
  Active active;
  Unit unit, after;
  Lines lines;
  for (int64_t u = begin; u < end; ++u) {
    find_runs(u * kUnit, total, job.z.frames, &unit);
    find_runs((u + 1) * kUnit, total, job.z.frames, &after);
    const int count = unit.count;
    float* saved = job.saved ? job.saved + u * kUnit * total_rows(plan) : nullptr;
    clear_tokens(plan, tokens);
    for (int g = 0; g < plan.blocks; ++g) {
      const BlockPlan& b = plan.block[g];
      const BlockWeights w = block_weights(plan, g, job.weights);
      float* x = scratch + s.lanes;
      fill_active(plan, job.counts, g, unit, &active);
      project(b, job.weights, job.z, unit, after, lines, scratch, s, x);
      forward_recurrence(w, plan.stages, x, v, count, active, tokens);
      if (saved) {
        float* to = saved + static_cast<int64_t>(b.dim) * plan.stages * kUnit;
        for (int64_t row = 0; row < b.rows; ++row) {
          for (int i = 0; i < count; ++i) to[row * kUnit + i] = x[row * kUnit + i];
          for (int i = count; i < kUnit; ++i) to[row * kUnit + i] = 0.0f;
        }
      }
      if (job.outputs) {
        float* rows = scratch + s.rows;
        if (by_rows(job.out[0])) transpose(v, kUnit, b.rows, count, rows, b.ld_rows);
        expand(b, job.weights + b.out, job.weights + b.out_t, job.out, job.outputs, job.rates,
               job.weights + b.bias, active, unit, after, v, rows, scratch + s.chunk);
      }
    }
    int32_t any = 0;
    for (int i = 0; i < count; ++i) any |= marked[i];
    if (any) confirm_marks(plan, job.z, unit, marked);
    write_tokens(plan, tokens, job.tokens, unit);
  }
  finish_streams();
}

void codes_of(const Plan& plan, const float* weights, const float* projections, int64_t frames,
              int64_t* out, float* scratch) {
  const Scratch s = plan_scratch(plan);
  const int64_t rows = total_rows(plan);
  int32_t marked[kUnit];
  const TokenSums tokens = token_sums(plan, scratch, s, marked);
  const TokenView view{out, true, 0, 1, plan.stages};
  float *x = scratch + s.lanes, *v = scratch + s.lanes2;
  Active active;
  Unit unit;
  for (int64_t first = 0; first < frames; first += kUnit) {
    find_runs(first, frames, frames, &unit);
    const int count = unit.count;
    clear_tokens(plan, tokens);
    for (int g = 0; g < plan.blocks; ++g) {
      const BlockPlan& b = plan.block[g];
      fill_active(plan, Counts{}, g, unit, &active);
      for (int64_t row = 0; row < b.rows; ++row) {
        for (int n = 0; n < count; ++n) {
          x[row * kUnit + n] =
              projections[(first + n) * rows + static_cast<int64_t>(b.dim) * plan.stages + row];
        }
        for (int n = count; n < kUnit; ++n) x[row * kUnit + n] = 0.0f;
      }
      forward_recurrence(block_weights(plan, g, weights), plan.stages, x, v, count, active, tokens);
    }
    write_tokens(plan, tokens, view, unit);
  }
}

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
