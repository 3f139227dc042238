// SPDX-License-Identifier: Apache-2.0
// The kernels, compiled once per instruction set with AFFECTCODEC_ISA naming it. Nothing of the
// standard library is used but types: an inline function of it, compiled here, could replace the
// baseline copy of it elsewhere.
#include "kernels.h"

#include <math.h>

#include "../core/fsq.h"
#include "frames.h"
#include "product.h"
#include "recurrence.h"
#include "simd.h"

namespace affectcodec {
namespace cpu {
namespace {

AC_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

AC_INLINE void fill_active(const Plan& plan, const Counts& counts, int g, const Unit& unit,
                           Active* active) {
  const int count = unit.count;
  active->uniform = true;
  if (!counts.data) {
    for (int i = 0; i < kUnit; ++i) active->stages[i] = i < count ? plan.stages : 0;
    // Frames past the end may take any constants: their results are not read.
    return;
  }
  for_each_run(unit, [&](const Run& run) {
    const int64_t* from = counts.data + run.b * counts.stride_b + g * counts.stride_g;
    for (int i = 0; i < run.length; ++i) {
      const int64_t asked = from[(run.t + i) * counts.stride_t];
      const int64_t kept = asked < 0 ? 0 : smaller(asked, plan.stages);
      active->stages[run.lane + i] = static_cast<int32_t>(kept);
    }
  });
  for (int i = 0; i < count; ++i) {
    active->uniform = active->uniform && active->stages[i] == active->stages[0];
  }
  for (int i = count; i < kUnit; ++i) active->stages[i] = 0;
}

// Fewer frames than this share no weights in registers and are worked on one by one.
constexpr int kFewRows = 4;

// Projections of one block, [rows][kUnit]: the sum of one chain of multiply-adds a chunk of
// channels, chunk by chunk, in every layout.
__attribute__((noinline)) static void project(const BlockPlan& b, const float* weights,
                                              const View& z, const Unit& unit, float* scratch,
                                              const Scratch& s, float* x) {
  float* chunk = scratch + s.chunk;
  const int count = unit.count;
  if (!by_rows(z)) {
    for (int64_t c = 0; c < b.width; c += kChunk) {
      const int channels = static_cast<int>(smaller(kChunk, b.width - c));
      load_frames(z, false, unit, b.channel + c, channels, chunk);
      product(rows_at(weights + b.in + c, b.ld_width), b.rows, 1, chunk, kUnit, vectors_for(count),
              channels, x, kUnit, c == 0 ? Start::kZero : Start::kAdd);
    }
    return;
  }
  float* sums = scratch + s.rows;
  const float* list[kUnit];
  const bool direct = z.type == Type::kFloat32;
  int64_t done = 0;
  if (direct && count < kFewRows) {
    const float* data = static_cast<const float*>(z.data) + b.channel;
    const int64_t chunks = b.width / kChunk;
    for_each_run(unit, [&](const Run& run) {
      for (int i = 0; i < run.length && chunks > 0; ++i) {
        product_row(data + run.b * z.stride_b + (run.t + i) * z.stride_t, weights + b.in_t,
                    b.ld_rows, vectors_for(b.rows), kChunk, chunks,
                    sums + (run.lane + i) * b.ld_rows);
      }
    });
    done = chunks * kChunk;
  }
  for (int64_t c = done; c < b.width; c += kChunk) {
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
  if (count < kFewRows) {
    for (int i = 0; i < count; ++i) {
      for (int row = 0; row < b.rows; ++row) x[row * kUnit + i] = sums[i * b.ld_rows + row];
    }
    return;
  }
  transpose(sums, b.ld_rows, count, b.rows, x, kUnit);
}

// Sums of products of one block in either form, a group of rows after the other, written out after
// each group: out[i] gets groups 0..i. `lanes` is [rows][kUnit], `rows` the same turned round.
__attribute__((noinline)) static void expand(const BlockPlan& b, const float* by_row,
                                             const float* by_column, const View* out, int outputs,
                                             const int32_t* rates, const float* bias,
                                             const Active& active, const Unit& unit,
                                             const float* lanes, const float* rows, float* chunk) {
  const bool as_rows = by_rows(out[0]);
  const int count = unit.count;
  int32_t kept[kUnit];
  for (int64_t c = 0; c < b.width; c += kChunk) {
    const int channels = static_cast<int>(smaller(kChunk, b.width - c));
    for (int i = 0; i < outputs; ++i) {
      const int64_t from = group_row(b, rates, i);
      const int depth = static_cast<int>(group_row(b, rates, i + 1) - from);
      const Start start = i == 0 ? Start::kZero : Start::kContinue;
      if (as_rows) {
        product(rows_at(rows + from, b.ld_rows), count, 1, by_row + from * b.ld_width + c,
                b.ld_width, vectors_for(channels), depth, chunk, kChunk, start);
      } else {
        product(rows_at(by_column + c * b.ld_rows + from, b.ld_rows), channels, 1,
                lanes + from * kUnit, kUnit, vectors_for(count), depth, chunk, kUnit, start);
      }
      for (int n = 0; n < count; ++n) {
        kept[n] = active.stages[n] < rates[i] ? active.stages[n] : rates[i];
      }
      View target = out[i];
      const int64_t size = target.type == Type::kFloat32 ? 4 : 2;
      target.data = static_cast<char*>(target.data) + b.channel * target.stride_d * size;
      store_frames(target, unit, c, channels, chunk, bias, b.ld_width, kept);
    }
  }
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
__attribute__((noinline)) static void confirm_marks(const Plan& plan, const View& z,
                                                    const Unit& unit, int32_t* marked) {
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

static void encode_units(const EncodeJob& job, int64_t begin, int64_t end, float* scratch) {
  const Plan& plan = *job.plan;
  const Scratch s = plan_scratch(plan);
  const int64_t total = job.z.total();
  int32_t marked[kUnit];
  const TokenSums tokens = token_sums(plan, scratch, s, marked);
  float* v = scratch + s.lanes2;
  Active active;
  Unit unit;
  for (int64_t u = begin; u < end; ++u) {
    find_runs(u * kUnit, total, job.z.frames, &unit);
    const int count = unit.count;
    float* saved = job.saved ? job.saved + u * kUnit * total_rows(plan) : nullptr;
    clear_tokens(plan, tokens);
    for (int g = 0; g < plan.blocks; ++g) {
      const BlockPlan& b = plan.block[g];
      const BlockWeights w = block_weights(plan, g, job.weights);
      float* x = scratch + s.lanes;
      fill_active(plan, job.counts, g, unit, &active);
      project(b, job.weights, job.z, unit, scratch, s, x);
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
               job.weights + b.bias, active, unit, v, rows, scratch + s.chunk);
      }
    }
    int32_t any = 0;
    for (int i = 0; i < count; ++i) any |= marked[i];
    if (any) confirm_marks(plan, job.z, unit, marked);
    write_tokens(plan, tokens, job.tokens, unit);
  }
  finish_streams();
}

// Reads the tokens of one stage into [kUnit]; a token outside the codebook is reported and read as
// 0.
AC_INLINE void read_tokens(const DecodeJob& job, int stage, const Unit& unit, uint64_t* to) {
  const TokenView& v = job.tokens;
  for_each_run(unit, [&](const Run& run) {
    const int64_t at = run.b * v.stride_b + stage * v.stride_k + run.t * v.stride_t;
    for (int i = 0; i < run.length; ++i) {
      const int64_t token = v.wide ? static_cast<const int64_t*>(v.data)[at + i * v.stride_t]
                                   : static_cast<const int32_t*>(v.data)[at + i * v.stride_t];
      const bool known = token >= 0 && static_cast<uint64_t>(token) < job.plan->codebook;
      if (!known) {
        __atomic_store_n(&job.refused[1], token, __ATOMIC_RELAXED);
        __atomic_store_n(&job.refused[0], 1, __ATOMIC_RELEASE);
      }
      to[run.lane + i] = known ? static_cast<uint64_t>(token) : 0;
    }
  });
}

// The lowest digit of each code, which loses it.
AC_INLINE void take_digit(uint64_t* code, int count, uint32_t level, bool small, int32_t* digit) {
  if ((level & (level - 1)) == 0) {
    const int shift = __builtin_ctz(level);
    for (int i = 0; i < count; ++i) {
      digit[i] = static_cast<int32_t>(code[i] & (level - 1));
      code[i] >>= shift;
    }
  } else if (small) {
    for (int i = 0; i < count; ++i) {
      const uint32_t all = static_cast<uint32_t>(code[i]), rest = all / level;
      digit[i] = static_cast<int32_t>(all - rest * level);
      code[i] = rest;
    }
  } else {
    for (int i = 0; i < count; ++i) {
      const uint64_t rest = code[i] / level;
      digit[i] = static_cast<int32_t>(code[i] - rest * level);
      code[i] = rest;
    }
  }
}

static void decode_units(const DecodeJob& job, int64_t begin, int64_t end, float* scratch) {
  const Plan& plan = *job.plan;
  const Scratch s = plan_scratch(plan);
  const int64_t total = job.out.total();
  const bool small = !plan.wide();
  uint64_t* code = reinterpret_cast<uint64_t*>(scratch + s.tokens);
  int32_t digit[kUnit] = {};
  float* v = scratch + s.lanes;
  float* rows = scratch + s.rows;
  Active active;
  Unit unit;
  for (int64_t u = begin; u < end; ++u) {
    find_runs(u * kUnit, total, job.out.frames, &unit);
    const int count = unit.count;
    for (int k = 0; k < job.stages; ++k) read_tokens(job, k, unit, code + k * kUnit);
    for (int g = 0; g < plan.blocks; ++g) {
      const BlockPlan& b = plan.block[g];
      fill_active(plan, job.counts, g, unit, &active);
      for (int i = 0; i < count; ++i) {
        if (active.stages[i] > job.stages) active.stages[i] = job.stages;
      }
      for (int k = 0; k < job.stages; ++k) {
        for (int i = 0; i < b.dims; ++i) {
          const int32_t level = plan.levels[b.dim + i];
          const int row = k * b.dims + i;
          const float* table = job.weights + b.value + static_cast<int64_t>(row) * b.most_levels;
          float* to = v + static_cast<ptrdiff_t>(row) * kUnit;
          take_digit(code + k * kUnit, count, static_cast<uint32_t>(level), small, digit);
          if (level <= kFewLevels) {
            for (int lane = 0; lane < count; lane += kLanes) {
              const Ints n = load_ints(digit + lane);
              Floats value = fill(table[0]);
              for (int32_t l = 1; l < level; ++l) {
                value = choose((Ints)(n == fill_ints(l)), fill(table[l]), value);
              }
              const Ints on = (Ints)(load_ints(active.stages + lane) > fill_ints(k));
              store(to + lane, choose(on, value, Floats{}));
            }
          } else {
            for (int n = 0; n < count; ++n) {
              to[n] = k < active.stages[n] ? table[digit[n]] : 0.0f;
            }
          }
        }
      }
      BlockPlan kept = b;
      kept.rows = job.stages * b.dims;
      if (by_rows(job.out)) transpose(v, kUnit, kept.rows, count, rows, b.ld_rows);
      expand(kept, job.weights + b.out, job.weights + b.out_t, &job.out, 1, &job.stages,
             job.weights + b.bias, active, unit, v, rows, scratch + s.chunk);
    }
  }
  finish_streams();
}

// sums[active[frame]][channel] += g[frame][channel]
AC_INLINE void add_frames(const float* g, bool rows, int count, int channels, int32_t rate,
                          const Active& active, float* sums, int64_t ld) {
  for (int n = 0; n < count; ++n) {
    const int32_t kept = active.stages[n] < rate ? active.stages[n] : rate;
    float* to = sums + kept * ld;
    if (rows) {
      const float* from = g + n * kChunk;
      for (int c = 0; c < channels; ++c) to[c] += from[c];
    } else {
      for (int c = 0; c < channels; ++c) to[c] += g[c * kUnit + n];
    }
  }
}

AC_INLINE void add_uniform_lanes(const float* g, int count, int channels, int32_t rate,
                                 const Active& active, float* sums, int64_t ld) {
  const int32_t kept = active.stages[0] < rate ? active.stages[0] : rate;
  for (int c = 0; c < channels; ++c) {
    Floats sum = Floats{};  // frames past the end are zero
    for (int lane = 0; lane < kUnit; lane += kLanes) sum = sum + load(g + c * kUnit + lane);
    sums[kept * ld + c] += sum_lanes(sum);
  }
  (void)count;
}

static void backward_unit(const BackwardJob& job, int g, const PartialPlan& at, const Unit& unit,
                          float* partial, float* scratch, const Scratch& s) {
  const Plan& plan = *job.plan;
  const BlockPlan& b = plan.block[g];
  const BlockWeights w = block_weights(plan, g, job.weights);
  const int count = unit.count;
  float *chunk = scratch + s.chunk, *chunk2 = scratch + s.chunk2;
  float *v = scratch + s.lanes, *slope = scratch + s.lanes2, *a = scratch + s.lanes3;
  float *h = scratch + s.lanes4, *term = scratch + s.lanes5;
  float *rows = scratch + s.rows, *sections = scratch + s.rows2;
  Active active;
  fill_active(plan, job.counts, g, unit, &active);
  const float* x =
      job.saved +
      (unit.first / kUnit * total_rows(plan) + static_cast<int64_t>(b.dim) * plan.stages) * kUnit;
  restore_values(w, plan.stages, plan.bound, x, v, slope, term, count, active);
  transpose(v, kUnit, b.rows, count, rows, b.ld_rows);

  int last = job.outputs - 1;
  while (last >= 0 && !job.grad[last].data) --last;
  for (int64_t i = 0; i < b.rows * kUnit; ++i) a[i] = 0.0f;
  if (last >= 0) {
    const bool as_rows = by_rows(job.grad[last]);
    for (int64_t c = 0; c < b.width; c += kChunk) {
      const int channels = static_cast<int>(smaller(kChunk, b.width - c));
      float* bias = partial + at.bias + c;
      for (int i = last; i >= 0; --i) {
        if (job.grad[i].data) {
          float* to = i == last ? chunk : chunk2;
          load_frames(job.grad[i], as_rows, unit, b.channel + c, channels, to);
          if (!as_rows && active.uniform) {
            add_uniform_lanes(to, count, channels, job.rates[i], active, bias, b.ld_width);
          } else {
            add_frames(to, as_rows, count, channels, job.rates[i], active, bias, b.ld_width);
          }
          if (i != last) {
            const int64_t size = as_rows ? static_cast<int64_t>(count) * kChunk
                                         : static_cast<int64_t>(channels) * kUnit;
            for (int64_t j = 0; j < size; ++j) chunk[j] += chunk2[j];
          }
        }
        const int64_t from = group_row(b, job.rates, i);
        const int depth = static_cast<int>(group_row(b, job.rates, i + 1) - from);
        int64_t section = 0;
        for (int j = 0; j < i; ++j) {
          section += padded(group_row(b, job.rates, j + 1) - group_row(b, job.rates, j));
        }
        const Start start = c == 0 ? Start::kZero : Start::kAdd;
        const int64_t ld = padded(depth);
        if (as_rows) {
          product(rows_at(chunk, kChunk), count, 1, job.weights + b.out_t + c * b.ld_rows + from,
                  b.ld_rows, vectors_for(depth), channels, sections + section * kUnit, ld, start);
        } else {
          product(rows_at(job.weights + b.out + from * b.ld_width + c, b.ld_width), depth, 1, chunk,
                  kUnit, vectors_for(count), channels, a + from * kUnit, kUnit, start);
        }
        product(as_rows ? rows_at(chunk, 1) : rows_at(chunk, kUnit), channels, as_rows ? kChunk : 1,
                rows + from, b.ld_rows, vectors_for(depth), count,
                partial + at.out_t + c * at.group_ld + section, at.group_ld, Start::kAdd);
      }
    }
    if (as_rows) {
      int64_t section = 0;
      for (int i = 0; i <= last; ++i) {
        const int64_t from = group_row(b, job.rates, i);
        const int depth = static_cast<int>(group_row(b, job.rates, i + 1) - from);
        transpose(sections + section * kUnit, padded(depth), count, depth, a + from * kUnit, kUnit);
        section += padded(depth);
      }
      // The last group wrote whole vectors; what lies past it belongs to stages without gradient.
      const int64_t end = group_row(b, job.rates, last + 1);
      for (int64_t i = end * kUnit; i < b.rows * kUnit; ++i) a[i] = 0.0f;
    }
  }

  backward_recurrence(w, plan.stages, slope, a, h, count, active);
  transpose(h, kUnit, b.rows, count, rows, b.ld_rows);

  if (job.dz.data) {
    expand(b, job.weights + b.in, job.weights + b.in_t, &job.dz, 1, &plan.stages, nullptr, active,
           unit, h, rows, chunk);
  }
  const bool as_rows = by_rows(job.z);
  for (int64_t c = 0; c < b.width; c += kChunk) {
    const int channels = static_cast<int>(smaller(kChunk, b.width - c));
    load_frames(job.z, as_rows, unit, b.channel + c, channels, chunk);
    product(as_rows ? rows_at(chunk, 1) : rows_at(chunk, kUnit), channels, as_rows ? kChunk : 1,
            rows, b.ld_rows, vectors_for(b.rows), count, partial + at.in_t + c * b.ld_rows,
            b.ld_rows, Start::kAdd);
  }
  product(rows_at(v, kUnit), b.rows, 1, rows, b.ld_rows, vectors_for(b.rows), count,
          partial + at.hv, b.ld_rows, Start::kAdd);
  for (int n = 0; n < count; ++n) {
    float* to = partial + at.h + active.stages[n] * b.ld_rows;
    const float* from = rows + n * b.ld_rows;
    for (int64_t i = 0; i < b.rows; ++i) to[i] += from[i];
  }
  for (int64_t row = 0; row < b.rows; ++row) {
    Floats back = Floats{}, scale = Floats{};
    for (int lane = 0; lane < count; lane += kLanes) {
      const Floats d = load(a + row * kUnit + lane);
      back = back + d;
      // 0 where a stage is off, whatever its term: 0 * NaN would not be.
      const Ints on =
          (Ints)(load_ints(active.stages + lane) > fill_ints(static_cast<int32_t>(row / b.dims)));
      scale = scale + choose(on, d * load(term + row * kUnit + lane), Floats{});
    }
    partial[at.back + row] += sum_lanes(back);
    partial[at.scale + row] += sum_lanes(scale);
  }
}

// A slab is a fixed share of the units, so the sums do not depend on the number of threads.
static void backward_slabs(const BackwardJob& job, int64_t begin, int64_t end, float* scratch) {
  const Plan& plan = *job.plan;
  const Scratch s = plan_scratch(plan);
  PartialPlan at[kMaxBlocks];
  const int64_t floats = plan_partials(plan, job.outputs, job.rates, at);
  const int64_t units = units_of(job.z.total());
  Unit unit;
  for (int64_t slab = begin; slab < end; ++slab) {
    float* partial = job.partial + slab * floats;
    memset(partial, 0, static_cast<size_t>(floats) * sizeof(float));
    const int64_t unit_begin = units * slab / job.slabs;
    const int64_t unit_end = units * (slab + 1) / job.slabs;
    for (int64_t u = unit_begin; u < unit_end; ++u) {
      find_runs(u * kUnit, job.z.total(), job.z.frames, &unit);
      for (int g = 0; g < plan.blocks; ++g) {
        backward_unit(job, g, at[g], unit, partial, scratch, s);
      }
    }
  }
  finish_streams();
}

static void reduce_slabs(float* partial, int64_t stride, int64_t slabs, int64_t begin,
                         int64_t end) {
  for (int64_t slab = 1; slab < slabs; ++slab) {
    const float* from = partial + slab * stride;
    for (int64_t i = begin; i < end; ++i) partial[i] += from[i];
  }
}

static void finish_block(const BackwardJob& job, int g, const float* logit, const float* e,
                         const BlockGradients& to, float* work) {
  const Plan& plan = *job.plan;
  const BlockPlan& b = plan.block[g];
  PartialPlan plans[kMaxBlocks];
  plan_partials(plan, job.outputs, job.rates, plans);
  const PartialPlan& at = plans[g];
  const float* sums = job.partial;
  const float* weights = job.weights;
  const int stages = plan.stages, dims = b.dims, rows = b.rows;
  const int64_t width = b.width, ld = b.ld_rows;
  const int vectors = vectors_for(width);

  // h summed over the frames in which stage j was active, from the counts of each frame.
  float active_h[kMaxStages];  // of one row
  const float* h = sums + at.h;

  for (int k = 0; k < stages; ++k) {
    product(rows_at(sums + at.hv + k * dims, 1), dims, ld, weights + b.out, b.ld_width, vectors,
            k * dims, work + k * dims * b.ld_width, b.ld_width, Start::kZero);
  }
  for (int row = 0; row < rows; ++row) {
    const int stage = row / dims;
    float* dw = to.in + row * width;
    const float* through = work + row * b.ld_width;
    for (int64_t c = 0; c < width; ++c) {
      dw[c] = sums[at.in_t + c * ld + row] - through[c];
    }
    float all = 0.0f;
    for (int m = stages; m > 0; --m) {
      all += h[m * ld + row];
      active_h[m - 1] = all;  // frames in which stage m - 1 is active
    }
    all += h[row];
    for (int j = 0; j < stage; ++j) {
      const float* bias = e + j * width;
      for (int64_t c = 0; c < width; ++c) dw[c] -= active_h[j] * bias[c];
    }
    const float s = weights[b.scale + row], back = sums[at.back + row];
    to.c[row] = all;
    to.shift[row] = back - all;
    to.logit[row] = sums[at.scale + row] / (s * s) / (1.0f + expf(-logit[row]));
  }

  for (int k = 0; k < stages; ++k) {
    const int later = (k + 1) * dims;
    product(rows_at(sums + at.hv + k * dims * ld + later, ld), dims, 1,
            weights + b.in + later * b.ld_width, b.ld_width, vectors, rows - later,
            work + k * dims * b.ld_width, b.ld_width, Start::kZero);
  }
  int64_t section = 0;
  for (int i = 0; i < job.outputs; ++i) {
    const int64_t begin = group_row(b, job.rates, i), end = group_row(b, job.rates, i + 1);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t stage = row / dims, dim = row % dims;
      const float* through = work + row * b.ld_width;
      for (int64_t c = 0; c < width; ++c) {
        to.out[(stage * width + c) * dims + dim] =
            sums[at.out_t + c * at.group_ld + section + row - begin] - through[c];
      }
    }
    section += padded(end - begin);
  }

  for (int64_t c = 0; c < width; ++c) {
    float all = 0.0f;
    for (int m = stages; m > 0; --m) {
      all += sums[at.bias + m * b.ld_width + c];
      to.e[(m - 1) * width + c] = all;
    }
  }
  for (int row = dims; row < rows; ++row) {
    const int stage = row / dims;
    const float* in = weights + b.in + row * b.ld_width;
    float all = 0.0f;
    for (int m = stages; m > 0; --m) {
      all += h[m * ld + row];
      if (m - 1 >= stage) continue;
      float* de = to.e + (m - 1) * width;
      for (int64_t c = 0; c < width; ++c) de[c] -= all * in[c];
    }
  }
}

static void fold_block(const Plan& plan, int g, const BlockParameters& p, float* weights) {
  const BlockPlan& b = plan.block[g];
  const int stages = plan.stages, dims = b.dims, rows = b.rows;
  const int64_t width = b.width, ld = b.ld_rows;
  float *in = weights + b.in, *in_t = weights + b.in_t;
  float *out = weights + b.out, *out_t = weights + b.out_t;
  for (int row = 0; row < rows; ++row) {
    const int64_t stage = row / dims, dim = row % dims;
    for (int64_t c = 0; c < width; ++c) {
      const float w = p.in[row * width + c], o = p.out[(stage * width + c) * dims + dim];
      in[row * b.ld_width + c] = w;
      in_t[c * ld + row] = w;
      out[row * b.ld_width + c] = o;
      out_t[c * ld + row] = o;
    }
    for (int64_t c = width; c < b.ld_width; ++c) {
      in[row * b.ld_width + c] = 0.0f;
      out[row * b.ld_width + c] = 0.0f;
    }
  }
  for (int64_t c = 0; c < width; ++c) {
    for (int64_t row = rows; row < ld; ++row) in_t[c * ld + row] = out_t[c * ld + row] = 0.0f;
  }

  // Sums in double, one chain each over the channels in order.
  double sum[kMaxStages * kMaxDims];
  for (int row = 0; row < rows; ++row) {
    const int prior = row / dims * dims;
    for (int j = 0; j < prior; ++j) sum[j] = 0.0;
    for (int64_t c = 0; c < width; ++c) {
      const double w = in[row * b.ld_width + c];
      const float* o = out_t + c * ld;
      for (int j = 0; j < prior; ++j) sum[j] += w * static_cast<double>(o[j]);
    }
    float* cross = weights + b.cross + row * ld;
    for (int j = 0; j < prior; ++j) cross[j] = static_cast<float>(sum[j]);
    for (int64_t j = prior; j < ld; ++j) cross[j] = 0.0f;

    double constant = static_cast<double>(p.c[row]) - static_cast<double>(p.shift[row]);
    for (int m = 0; m <= stages; ++m) {
      if (m > 0 && m - 1 < row / dims) {
        double through = 0.0;
        for (int64_t c = 0; c < width; ++c) {
          through += static_cast<double>(in[row * b.ld_width + c]) *
                     static_cast<double>(p.e[(m - 1) * width + c]);
        }
        constant -= through;
      }
      weights[b.offset + m * ld + row] = static_cast<float>(constant);
    }
  }
  for (int m = 0; m <= stages; ++m) {
    for (int64_t row = rows; row < ld; ++row) weights[b.offset + m * ld + row] = 0.0f;
  }

  for (int row = 0; row < rows; ++row) {
    const double logit = p.logit[row];
    const double s = (logit > 20.0 ? logit : log1p(exp(logit))) + 0.1;
    const int32_t level = plan.levels[b.dim + row % dims];
    const int64_t table = static_cast<int64_t>(row) * b.most_levels;
    weights[b.scale + row] = static_cast<float>(s);
    for (int32_t l = 0; l < b.most_levels; ++l) {
      const double edge = (2.0 * l + 1.0 - (level - 1)) / (level - 1);
      const double tau = plan.bound == 0 ? atanh(l < level - 1 ? edge : 0.0) : edge;
      weights[b.threshold + table + l] = l < level - 1 ? static_cast<float>(tau / s) : INFINITY;
      const int32_t digit = l < level ? l : level - 1;
      weights[b.grid + table + l] = fsq_value<float>(digit, level);
      weights[b.value + table + l] = static_cast<float>(fsq_value<double>(digit, level) / s +
                                                        static_cast<double>(p.shift[row]));
    }
  }
  for (int64_t row = rows; row < ld; ++row) weights[b.scale + row] = 1.0f;

  float* bias = weights + b.bias;
  for (int64_t c = 0; c < b.ld_width; ++c) {
    double all = 0.0;
    bias[c] = 0.0f;
    for (int m = 1; m <= stages; ++m) {
      if (c < width) all += static_cast<double>(p.e[(m - 1) * width + c]);
      bias[m * b.ld_width + c] = static_cast<float>(all);
    }
  }
}

static void codes_of(const Plan& plan, const float* weights, const float* projections,
                     int64_t frames, int64_t* out, float* scratch) {
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

}  // namespace

#define AC_JOIN_(a, b) a##b
#define AC_JOIN(a, b) AC_JOIN_(a, b)
#define AC_TEXT_(a) #a
#define AC_TEXT(a) AC_TEXT_(a)

extern const Kernels AC_JOIN(kernels_, AFFECTCODEC_ISA);
const Kernels AC_JOIN(kernels_, AFFECTCODEC_ISA) = {
    AC_TEXT(AFFECTCODEC_ISA), fold_block,   encode_units, decode_units,
    backward_slabs,           reduce_slabs, finish_block, codes_of,
};

}  // namespace cpu
}  // namespace affectcodec
