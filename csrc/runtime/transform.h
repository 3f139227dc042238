// SPDX-License-Identifier: Apache-2.0
// Real Fourier transforms in float64, several at a time, one a lane.
//
// A lane sees the same operations in the same order whatever lies beside it and however many lanes
// there are, so a transform does not depend on the batch. No operation is fused: the scalar form of
// one transform and the vector form of many then agree bitwise.
#pragma once

#include "math.h"
#include "network.h"

namespace affectcodec {
namespace runtime {
namespace {

template <typename D>
struct Lanes;
template <>
struct Lanes<double> {
  enum { count = 1 };
};
template <>
struct Lanes<Doubles> {
  enum { count = kWide };
};

template <typename D>
AC_INLINE D get(const double* p) {
  D v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
template <typename D>
AC_INLINE void put(double* p, D v) {
  __builtin_memcpy(p, &v, sizeof(v));
}

// Sums of R inputs with the R-th roots of unity.
template <typename D>
AC_INLINE void butterfly2(D* re, D* im) {
  const D a = re[0] - re[1], b = im[0] - im[1];
  re[0] = re[0] + re[1];
  im[0] = im[0] + im[1];
  re[1] = a;
  im[1] = b;
}

template <typename D>
AC_INLINE void butterfly3(D* re, D* im) {
  const double sine = 0.86602540378443865;
  const D sr = re[1] + re[2], si = im[1] + im[2];
  const D dr = (re[1] - re[2]) * sine, di = (im[1] - im[2]) * sine;
  const D mr = re[0] - sr * 0.5, mi = im[0] - si * 0.5;
  re[0] = re[0] + sr;
  im[0] = im[0] + si;
  re[1] = mr + di;
  im[1] = mi - dr;
  re[2] = mr - di;
  im[2] = mi + dr;
}

template <typename D>
AC_INLINE void butterfly4(D* re, D* im) {
  const D ar = re[0] + re[2], ai = im[0] + im[2], br = re[0] - re[2], bi = im[0] - im[2];
  const D cr = re[1] + re[3], ci = im[1] + im[3], dr = re[1] - re[3], di = im[1] - im[3];
  re[0] = ar + cr;
  im[0] = ai + ci;
  re[1] = br + di;
  im[1] = bi - dr;
  re[2] = ar - cr;
  im[2] = ai - ci;
  re[3] = br - di;
  im[3] = bi + dr;
}

template <typename D>
AC_INLINE void butterfly5(D* re, D* im) {
  const double c1 = 0.30901699437494742, c2 = -0.80901699437494742;
  const double s1 = 0.95105651629515357, s2 = 0.58778525229247313;
  const D ar = re[1] + re[4], ai = im[1] + im[4], br = re[1] - re[4], bi = im[1] - im[4];
  const D cr = re[2] + re[3], ci = im[2] + im[3], dr = re[2] - re[3], di = im[2] - im[3];
  const D er = re[0] + ar * c1 + cr * c2, ei = im[0] + ai * c1 + ci * c2;
  const D fr = re[0] + ar * c2 + cr * c1, fi = im[0] + ai * c2 + ci * c1;
  const D gr = br * s1 + dr * s2, gi = bi * s1 + di * s2;
  const D hr = br * s2 - dr * s1, hi = bi * s2 - di * s1;
  re[0] = re[0] + ar + cr;
  im[0] = im[0] + ai + ci;
  re[1] = er + gi;
  im[1] = ei - gr;
  re[2] = fr + hi;
  im[2] = fi - hr;
  re[3] = fr - hi;
  im[3] = fi + hr;
  re[4] = er - gi;
  im[4] = ei + gr;
}

// One pass (Stockham, decimation in frequency): `m` groups of R inputs, `stride` neighbours each.
template <int R, typename D>
AC_INLINE void one_pass(int m, int stride, const double* twiddle, const double* from_re,
                        const double* from_im, double* to_re, double* to_im) {
  const int step = Lanes<D>::count;
  for (int p = 0; p < m; ++p, twiddle += 2 * (R - 1)) {
    for (int q = 0; q < stride; ++q) {
      D re[R], im[R];
#pragma GCC unroll 5
      for (int k = 0; k < R; ++k) {
        const ptrdiff_t at = static_cast<ptrdiff_t>(q + stride * (p + m * k)) * step;
        re[k] = get<D>(from_re + at);
        im[k] = get<D>(from_im + at);
      }
      if (R == 2) butterfly2(re, im);
      if (R == 3) butterfly3(re, im);
      if (R == 4) butterfly4(re, im);
      if (R == 5) butterfly5(re, im);
      const ptrdiff_t first = static_cast<ptrdiff_t>(q + stride * R * p) * step;
      put(to_re + first, re[0]);
      put(to_im + first, im[0]);
#pragma GCC unroll 5
      for (int j = 1; j < R; ++j) {
        const double c = twiddle[2 * (j - 1)], s = twiddle[2 * (j - 1) + 1];
        const ptrdiff_t at = first + static_cast<ptrdiff_t>(stride) * j * step;
        put(to_re + at, re[j] * c - im[j] * s);
        put(to_im + at, re[j] * s + im[j] * c);
      }
    }
  }
}

// Working memory of a transform: [4][n + 1][lanes]. Returns the half that holds the result.
template <typename D>
__attribute__((noinline)) static int complex_transform(const Transform& t, double* const* re,
                                                       double* const* im) {
  int now = 0, length = t.n, stride = 1;
  const double* twiddle = t.twiddle;
  for (int i = 0; i < t.passes; ++i) {
    const int radix = t.radix[i], m = length / radix, next = 1 - now;
    switch (radix) {
      case 2:
        one_pass<2, D>(m, stride, twiddle, re[now], im[now], re[next], im[next]);
        break;
      case 3:
        one_pass<3, D>(m, stride, twiddle, re[now], im[now], re[next], im[next]);
        break;
      case 4:
        one_pass<4, D>(m, stride, twiddle, re[now], im[now], re[next], im[next]);
        break;
      default:
        one_pass<5, D>(m, stride, twiddle, re[now], im[now], re[next], im[next]);
        break;
    }
    twiddle += static_cast<ptrdiff_t>(m) * (radix - 1) * 2;
    stride *= radix;
    length = m;
    now = next;
  }
  return now;
}

struct TransformMemory {
  double* re[2];
  double* im[2];
};

// Spectra [n + 1][lanes] of real signals of 2 n samples, sample by sample from `sample(i, lane)`.
template <typename D, typename Sample>
AC_INLINE void real_forward(const Transform& t, const TransformMemory& m, int used,
                            const Sample& sample, double* to_re, double* to_im) {
  const int step = Lanes<D>::count, n = t.n;
  for (int i = 0; i < n; ++i) {
    for (int lane = 0; lane < step; ++lane) {
      m.re[0][i * step + lane] = lane < used ? sample(2 * i, lane) : 0.0;
      m.im[0][i * step + lane] = lane < used ? sample(2 * i + 1, lane) : 0.0;
    }
  }
  const int at = complex_transform<D>(t, m.re, m.im);
  const double *re = m.re[at], *im = m.im[at];
  for (int k = 0; k <= n; ++k) {
    const ptrdiff_t a = static_cast<ptrdiff_t>(k == n ? 0 : k) * step;
    const ptrdiff_t b = static_cast<ptrdiff_t>(k == 0 ? 0 : n - k) * step;
    const double c = t.turn[2 * k], s = t.turn[2 * k + 1];
    const D zr = get<D>(re + a), zi = get<D>(im + a), yr = get<D>(re + b), yi = get<D>(im + b);
    const D ar = zr + yr, ai = zi - yi, br = zr - yr, bi = zi + yi;
    put(to_re + static_cast<ptrdiff_t>(k) * step, (ar + bi * c - br * s) * 0.5);
    put(to_im + static_cast<ptrdiff_t>(k) * step, (ai - br * c - bi * s) * 0.5);
  }
}

// Real signals from spectra [n + 1][lanes], times n: sample 2 i lies in re, 2 i + 1 in im of the
// half that is returned, [n][lanes].
template <typename D>
AC_INLINE int real_backward(const Transform& t, const TransformMemory& m, const double* from_re,
                            const double* from_im) {
  const int step = Lanes<D>::count, n = t.n;
  for (int k = 0; k < n; ++k) {
    const ptrdiff_t a = static_cast<ptrdiff_t>(k) * step, b = static_cast<ptrdiff_t>(n - k) * step;
    const double c = t.turn[2 * k], s = t.turn[2 * k + 1];
    const D xr = get<D>(from_re + a), yr = get<D>(from_re + b);
    D xi = D{}, yi = D{};
    if (from_im && k > 0) {  // a real signal has none at its ends
      xi = get<D>(from_im + a);
      yi = get<D>(from_im + b);
    }
    const D ar = xr + yr, ai = xi - yi, br = xr - yr, bi = xi + yi;
    const D zr = (ar - (bi * c + br * s)) * 0.5, zi = (ai + (br * c - bi * s)) * 0.5;
    // Real and imaginary parts change places: the forward transform then turns backward.
    put(m.re[0] + a, zi);
    put(m.im[0] + a, zr);
  }
  return complex_transform<D>(t, m.re, m.im);
}

}  // namespace
}  // namespace runtime
}  // namespace affectcodec
