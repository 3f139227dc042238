// SPDX-License-Identifier: Apache-2.0
// The triangular recurrence over the code dims, forward and back, for one vector of frames.
//
// Digits are decided here, so nothing is contracted: compiled with -ffp-contract=off, every
// instruction set makes the same digit of the same projection.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {

// Counting thresholds one after another beats searching them up to about this many.
constexpr int32_t kFewLevels = 17;

// Active stages of each frame of a unit in one block; 0 for the frames past its end.
struct Active {
  int32_t stages[kUnit];
  bool uniform;  // all frames of the unit alike
};

// What the recurrence of one block reads.
struct BlockWeights {
  const BlockPlan* plan;
  const int32_t* levels;
  const int64_t* base;
  const float *cross, *offset, *threshold, *value, *grid, *scale;
};

AC_INLINE BlockWeights block_weights(const Plan& plan, int g, const float* weights) {
  const BlockPlan& b = plan.block[g];
  return BlockWeights{&b,
                      plan.levels + b.dim,
                      plan.base + b.dim,
                      weights + b.cross,
                      weights + b.offset,
                      weights + b.threshold,
                      weights + b.value,
                      weights + b.grid,
                      weights + b.scale};
}

// The number of thresholds that `x` reaches. They ascend, so a search finds what a count would; a
// NaN reaches none.
AC_INLINE int32_t digit_of_one(float x, const float* thresholds, int32_t levels) {
  int32_t low = 0, high = levels - 1;
  if (levels <= kFewLevels) {
    for (int32_t l = 0; l < levels - 1; ++l) low += x >= thresholds[l] ? 1 : 0;
    return low;
  }
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (x >= thresholds[middle]) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Digit of `x` and the entry of `table` that belongs to it.
AC_INLINE Ints digit_of(Floats x, const float* thresholds, int32_t levels, const float* table,
                        Floats* entry) {
  Ints digit = Ints{};
  Floats found = fill(table[0]);
  if (levels <= kFewLevels) {
    for (int32_t l = 0; l < levels - 1; ++l) {
      const Ints reached = (Ints)(x >= fill(thresholds[l]));
      digit -= reached;
      found = choose(reached, fill(table[l + 1]), found);
    }
  } else {
    for (int i = 0; i < kLanes; ++i) {
      const int32_t low = digit_of_one(x[i], thresholds, levels);
      digit[i] = low;
      found[i] = table[low];
    }
  }
  // A NaN reaches no threshold; its value stays NaN so that it is seen downstream.
  *entry = choose((Ints)(x == x), found, x);
  return digit;
}

// Constant part of row `row`: depends on how many earlier stages are active.
AC_INLINE Floats offset_of(const BlockWeights& w, int row, int lane, const Active& active) {
  if (active.uniform) return fill(w.offset[active.stages[0] * w.plan->ld_rows + row]);
  Floats out;
  for (int i = 0; i < kLanes; ++i) {
    out[i] = w.offset[active.stages[lane + i] * w.plan->ld_rows + row];
  }
  return out;
}

struct TokenSums {
  int32_t* narrow;  // [stages][kUnit], or null
  int64_t* wide;
  int32_t* marked;  // [kUnit]: nonzero where a projection was NaN
};

// Rows row .. row + R - 1, all of stage `stage`; x and v are [rows][kUnit].
template <int R>
AC_INLINE void forward_rows(const BlockWeights& w, int stage, int dim, float* x, float* v, int lane,
                            const Active& active, const TokenSums& tokens) {
  const int prior = stage * w.plan->dims, row = prior + dim;
  const ptrdiff_t ld = w.plan->ld_rows;
  Floats sum[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    sum[r] = load(x + (row + r) * kUnit + lane) + offset_of(w, row + r, lane, active);
  }
  const float* cross = w.cross + row * ld;
  for (int j = 0; j < prior; ++j) {
    const Floats value = load(v + j * kUnit + lane);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sum[r] = sum[r] - fill(cross[r * ld + j]) * value;
  }
  const Ints on = (Ints)(load_ints(active.stages + lane) > fill_ints(stage));
  Ints code = Ints{}, marked = load_ints(tokens.marked + lane);
  const int32_t most = w.plan->most_levels;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    Floats value;
    const int64_t table = static_cast<int64_t>(row + r) * most;
    const Ints digit =
        digit_of(sum[r], w.threshold + table, w.levels[dim + r], w.value + table, &value);
    store(x + (row + r) * kUnit + lane, sum[r]);
    store(v + (row + r) * kUnit + lane, choose(on, value, Floats{}));
    marked |= (Ints)(sum[r] != sum[r]);
    if (tokens.narrow) {
      code += digit * fill_ints(static_cast<int32_t>(w.base[dim + r]));
    } else {
      int64_t* to = tokens.wide + stage * kUnit + lane;
      for (int i = 0; i < kLanes; ++i) to[i] += digit[i] * w.base[dim + r];
    }
  }
  store_ints(tokens.marked + lane, marked);
  if (tokens.narrow) {
    int32_t* to = tokens.narrow + stage * kUnit + lane;
    store_ints(to, load_ints(to) + code);
  }
}

// Projections `x` of one block [rows][kUnit] become the values that are compared with the
// thresholds, `v` the masked values of the digits, and the digits are added to the tokens.
__attribute__((noinline, unused)) static void forward_recurrence(const BlockWeights& w, int stages,
                                                                 float* x, float* v, int count,
                                                                 const Active& active,
                                                                 const TokenSums& tokens) {
  const int dims = w.plan->dims;
  for (int lane = 0; lane < count; lane += kLanes) {
    for (int k = 0; k < stages; ++k) {
      int i = 0;
      for (; i + 8 <= dims; i += 8) forward_rows<8>(w, k, i, x, v, lane, active, tokens);
      switch (dims - i) {
        case 7:
          forward_rows<7>(w, k, i, x, v, lane, active, tokens);
          break;
        case 6:
          forward_rows<6>(w, k, i, x, v, lane, active, tokens);
          break;
        case 5:
          forward_rows<5>(w, k, i, x, v, lane, active, tokens);
          break;
        case 4:
          forward_rows<4>(w, k, i, x, v, lane, active, tokens);
          break;
        case 3:
          forward_rows<3>(w, k, i, x, v, lane, active, tokens);
          break;
        case 2:
          forward_rows<2>(w, k, i, x, v, lane, active, tokens);
          break;
        case 1:
          forward_rows<1>(w, k, i, x, v, lane, active, tokens);
          break;
        default:
          break;
      }
    }
  }
}

// Derivative of the bound: 1 - tanh(y)^2, or 1 inside [-1, 1] for the clamp.
AC_INLINE Floats slope_of(Floats y, int32_t bound) {
  const Floats one = fill(1.0f);
  const Floats size = choose((Ints)(y < Floats{}), -y, y);
  if (bound == 1) return choose((Ints)(size <= one), one, Floats{});
  // 4 e / (1 + e)^2 with e = exp(-2 |y|): no cancellation where tanh nears 1.
  const Floats e = exp_negative(size * fill(-2.0f));
  const Floats slope = fill(4.0f) * e / ((one + e) * (one + e));
  return choose((Ints)(y == y), slope, y);
}

// Makes from the saved x of one block: masked values v, slope of the bound, and slope * y - q.
__attribute__((noinline, unused)) static void restore_values(const BlockWeights& w, int stages,
                                                             int32_t bound, const float* x,
                                                             float* v, float* slope, float* term,
                                                             int count, const Active& active) {
  const int dims = w.plan->dims;
  for (int k = 0; k < stages; ++k) {
    for (int i = 0; i < dims; ++i) {
      const int row = k * dims + i;
      const int64_t table = static_cast<int64_t>(row) * w.plan->most_levels;
      for (int lane = 0; lane < count; lane += kLanes) {
        const ptrdiff_t at = static_cast<ptrdiff_t>(row) * kUnit + lane;
        const Ints on = (Ints)(load_ints(active.stages + lane) > fill_ints(k));
        const Floats xs = load(x + at);
        Floats value, q;
        digit_of(xs, w.threshold + table, w.levels[i], w.value + table, &value);
        digit_of(xs, w.threshold + table, w.levels[i], w.grid + table, &q);
        const Floats y = xs * fill(w.scale[row]);
        const Floats rise = slope_of(y, bound);
        store(v + at, choose(on, value, Floats{}));
        store(slope + at, rise);
        store(term + at, rise * y - q);
      }
    }
  }
}

// `a` = dL/dv as it comes from the outputs becomes dL/dv through later stages as well, and `h`
// dL/dp. Frames of inactive stages, and those past the end of the unit, become 0.
__attribute__((noinline, unused)) static void backward_recurrence(const BlockWeights& w, int stages,
                                                                  const float* slope, float* a,
                                                                  float* h, int count,
                                                                  const Active& active) {
  const int dims = w.plan->dims, rows = w.plan->rows;
  const ptrdiff_t ld = w.plan->ld_rows;
  for (int lane = 0; lane < count; lane += kLanes) {
    for (int k = stages - 1; k >= 0; --k) {
      const Ints on = (Ints)(load_ints(active.stages + lane) > fill_ints(k));
      for (int i = 0; i < dims; i += 4) {
        const int here = k * dims + i, width = dims - i < 4 ? dims - i : 4;
        Floats sum[4] = {};
        for (int j = (k + 1) * dims; j < rows; ++j) {
          const Floats later = load(h + j * kUnit + lane);
          const float* cross = w.cross + j * ld + here;
          // Past `width` this reads the next columns, which are there but unused.
#pragma GCC unroll 4
          for (int r = 0; r < 4; ++r) sum[r] = multiply_add(fill(cross[r]), later, sum[r]);
        }
        for (int r = 0; r < width; ++r) {
          const ptrdiff_t at = static_cast<ptrdiff_t>(here + r) * kUnit + lane;
          const Floats back = choose(on, load(a + at) - sum[r], Floats{});
          store(a + at, back);
          store(h + at, choose(on, load(slope + at) * back, Floats{}));
        }
      }
    }
  }
}

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
