// SPDX-License-Identifier: Apache-2.0
// Gradients of the latent, and the sums over frames that the gradients of the parameters are made
// of.
#include <string.h>

#include "entry.h"
#include "expand.h"
#include "frames.h"
#include "product.h"
#include "recurrence.h"
#include "units.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {
namespace {

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
                          const Unit& after, float* partial, float* scratch, const Scratch& s) {
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
           unit, after, h, rows, chunk);
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

}  // namespace

// A slab is a fixed share of the units, so the sums do not depend on the number of threads.
void backward_slabs(const BackwardJob& job, int64_t begin, int64_t end, float* scratch) {
  const Plan& plan = *job.plan;
  const Scratch s = plan_scratch(plan);
  PartialPlan at[kMaxBlocks];
  const int64_t floats = plan_partials(plan, job.outputs, job.rates, at);
  const int64_t units = units_of(job.z.total());
  Unit unit, after;
  for (int64_t slab = begin; slab < end; ++slab) {
    float* partial = job.partial + slab * floats;
    memset(partial, 0, static_cast<size_t>(floats) * sizeof(float));
    const int64_t unit_begin = units * slab / job.slabs;
    const int64_t unit_end = units * (slab + 1) / job.slabs;
    for (int64_t u = unit_begin; u < unit_end; ++u) {
      find_runs(u * kUnit, job.z.total(), job.z.frames, &unit);
      find_runs((u + 1) * kUnit, job.z.total(), job.z.frames, &after);
      for (int g = 0; g < plan.blocks; ++g) {
        backward_unit(job, g, at[g], unit, after, partial, scratch, s);
      }
    }
  }
  finish_streams();
}

void reduce_slabs(float* partial, int64_t stride, int64_t slabs, int64_t begin, int64_t end) {
  for (int64_t slab = 1; slab < slabs; ++slab) {
    const float* from = partial + slab * stride;
    for (int64_t i = begin; i < end; ++i) partial[i] += from[i];
  }
}

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
