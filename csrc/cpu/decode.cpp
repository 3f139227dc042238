// SPDX-License-Identifier: Apache-2.0
// Decoding: tokens to latents.
#include "entry.h"
#include "expand.h"
#include "frames.h"
#include "recurrence.h"
#include "units.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {
namespace {

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

}  // namespace

void decode_units(const DecodeJob& job, int64_t begin, int64_t end, float* scratch) {
  const Plan& plan = *job.plan;
  const Scratch s = plan_scratch(plan);
  const int64_t total = job.out.total();
  const bool small = !plan.wide();
  uint64_t* code = reinterpret_cast<uint64_t*>(scratch + s.tokens);
  int32_t digit[kUnit] = {};
  float* v = scratch + s.lanes;
  float* rows = scratch + s.rows;
  Active active;
  Unit unit, after;
  for (int64_t u = begin; u < end; ++u) {
    find_runs(u * kUnit, total, job.out.frames, &unit);
    find_runs((u + 1) * kUnit, total, job.out.frames, &after);
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
             job.weights + b.bias, active, unit, after, v, rows, scratch + s.chunk);
    }
  }
  finish_streams();
}

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
