// SPDX-License-Identifier: Apache-2.0
// BD-RFSQ stage by stage in double, as the specification reads, forward and backward. Digits are
// those of the tokens it is given; how far each of them is from being the right one is measured.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "../../csrc/core/plan.h"

namespace check {

using affectcodec::Plan;
using Doubles = std::vector<double>;

struct Rng {
  uint64_t state;
  uint64_t next() {
    state += 0x9e3779b97f4a7c15u;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  double normal() {
    return std::sqrt(-2 * std::log(1 - uniform())) * std::cos(6.283185307179586 * uniform());
  }
};

// Parameters of one block in the order W, c, O, e, scale logit, shift; also their gradients.
struct Parameters {
  std::vector<float> part[6];
};
struct Gradients {
  Doubles part[6];
};

struct Reference {
  const Plan& plan;
  const std::vector<Parameters>& blocks;
  double worst = 0;  // how far a digit's value lies on the wrong side of a threshold, relative

  double at(int g, int part, int64_t i) const {
    return static_cast<double>(blocks[static_cast<size_t>(g)].part[part][static_cast<size_t>(i)]);
  }
  double scale(int g, int64_t row) const { return std::log1p(std::exp(at(g, 4, row))) + 0.1; }

  int digit_of(int64_t token, int dim) const {
    return static_cast<int>(token / plan.base[dim] % plan.levels[dim]);
  }

  void measure(double y, int digit, int levels) {
    const auto tau = [&](int l) {
      const double edge = (2.0 * l + 1 - (levels - 1)) / (levels - 1);
      return plan.bound == 0 ? std::atanh(edge) : edge;
    };
    if (digit > 0) worst = std::fmax(worst, (tau(digit - 1) - y) / (1 + std::fabs(y)));
    if (digit < levels - 1) worst = std::fmax(worst, (y - tau(digit)) / (1 + std::fabs(y)));
  }

  // One frame of one block: `z` and the gradients of the latents at `rates` go in, latents, the
  // gradient of z and the sums of the parameters' gradients come out. `grads` and what it makes
  // are left out where it is empty.
  void frame(int g, const double* z, const int64_t* tokens, int active,
             const std::vector<int32_t>& rates, std::vector<Doubles>* latents,
             const std::vector<Doubles>& grads, double* dz, Gradients* sums) {
    const auto& b = plan.block[g];
    const int64_t width = b.width;
    const int d = b.dims, stages = plan.stages;
    std::vector<Doubles> residual(1, Doubles(z, z + width));
    Doubles p(static_cast<size_t>(stages * d)), v(p), q(p), u(static_cast<size_t>(width));
    latents->clear();
    size_t rate = 0;
    for (int k = 0; k < stages; ++k) {
      const Doubles r = residual.back();
      for (int i = 0; i < d; ++i) {
        const int64_t row = k * d + i;
        const auto n = static_cast<size_t>(row);
        p[n] = at(g, 1, row);
        for (int64_t c = 0; c < width; ++c) {
          p[n] += at(g, 0, row * width + c) * r[static_cast<size_t>(c)];
        }
        const int levels = plan.levels[b.dim + i];
        const int digit = digit_of(tokens[k], b.dim + i);
        measure(scale(g, row) * (p[n] - at(g, 5, row)), digit, levels);
        q[n] = (2.0 * digit - (levels - 1)) / (levels - 1);
        v[n] = q[n] / scale(g, row) + at(g, 5, row);
      }
      Doubles next = r;
      if (k < active) {
        for (int64_t c = 0; c < width; ++c) {
          double o = at(g, 3, k * width + c);
          for (int i = 0; i < d; ++i) {
            o += at(g, 2, (k * width + c) * d + i) * v[static_cast<size_t>(k * d + i)];
          }
          u[static_cast<size_t>(c)] += o;
          next[static_cast<size_t>(c)] -= o;
        }
      }
      residual.push_back(next);
      if (rate < rates.size() && rates[rate] == k + 1) {
        latents->push_back(u);
        ++rate;
      }
    }
    if (grads.empty()) return;
    Doubles back(static_cast<size_t>(width));  // gradient of the residual after stage k
    for (int k = stages - 1; k >= 0; --k) {
      Doubles go(static_cast<size_t>(width)), dr(back);
      if (k < active) {
        for (size_t c = 0; c < go.size(); ++c) {
          for (size_t i = 0; i < rates.size(); ++i) {
            if (rates[i] > k && !grads[i].empty()) go[c] += grads[i][c];
          }
          go[c] -= back[c];
          sums->part[3][static_cast<size_t>(k * width) + c] += go[c];
        }
      }
      for (int i = 0; i < d && k < active; ++i) {
        const int64_t row = k * d + i;
        const auto n = static_cast<size_t>(row);
        const double s = scale(g, row), y = s * (p[n] - at(g, 5, row)), t = std::tanh(y);
        double dv = 0;
        for (int64_t c = 0; c < width; ++c) {
          const auto at_o = (k * width + c) * d + i;
          dv += at(g, 2, at_o) * go[static_cast<size_t>(c)];
          sums->part[2][static_cast<size_t>(at_o)] += go[static_cast<size_t>(c)] * v[n];
        }
        const double slope = plan.bound == 0 ? 1 - t * t : std::fabs(y) <= 1 ? 1 : 0;
        const double dy = dv / s * slope, dp = dy * s;
        const double ds = dy * (p[n] - at(g, 5, row)) - dv * q[n] / (s * s);
        sums->part[5][n] += dv - dp;
        sums->part[4][n] += ds / (1 + std::exp(-at(g, 4, row)));
        sums->part[1][n] += dp;
        for (int64_t c = 0; c < width; ++c) {
          const auto m = static_cast<size_t>(row * width + c);
          sums->part[0][m] += dp * residual[static_cast<size_t>(k)][static_cast<size_t>(c)];
          dr[static_cast<size_t>(c)] += dp * at(g, 0, row * width + c);
        }
      }
      back = dr;
    }
    for (int64_t c = 0; c < width; ++c) dz[c] = back[static_cast<size_t>(c)];
  }
};

}  // namespace check
