// SPDX-License-Identifier: Apache-2.0
// What the kernels share about one unit of frames.
#pragma once

#include "frames.h"
#include "recurrence.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {

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

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
