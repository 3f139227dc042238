// SPDX-License-Identifier: Apache-2.0
// Folded weights: the parameters in the order that the kernels read them, and constants made of
// them.
#include <math.h>

#include "../core/fsq.h"
#include "entry.h"
#include "recurrence.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {

void fold_block(const Plan& plan, int g, const BlockParameters& p, float* weights) {
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
    for (int j = 0; j < rows; ++j) weights[b.cross_t + j * ld + row] = cross[j];

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
  for (int64_t row = rows; row < ld; ++row) {
    for (int m = 0; m <= stages; ++m) weights[b.offset + m * ld + row] = 0.0f;
    for (int j = 0; j < rows; ++j) weights[b.cross_t + j * ld + row] = 0.0f;
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

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
