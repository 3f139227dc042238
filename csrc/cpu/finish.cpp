// SPDX-License-Identifier: Apache-2.0
// Gradients of the parameters from the sums over all frames.
#include <math.h>

#include "entry.h"
#include "product.h"
#include "recurrence.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {

void finish_block(const BackwardJob& job, int g, const float* logit, const float* e,
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

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
