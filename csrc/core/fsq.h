// SPDX-License-Identifier: Apache-2.0
// Scalar mathematics of finite scalar quantization: the one place where digits, values and tokens
// are written in C++. Free of torch and of the standard library, for host and device alike.
//
// Build with -ffp-contract=off (nvcc: -fmad=false). A fused multiply-add rounds once where the
// others round twice, and a token would then depend on the compiler.
#pragma once

#include <stdint.h>

#include "macros.h"

namespace affectcodec {

// Digit of the affine-transformed coordinate `y`: how many of the `levels - 1` ascending
// `thresholds` it reaches.
//
// The digit is *defined* by this count and not by rounding tanh(y). A tanh differs between libms,
// vector libraries and GPUs in its last bit, comparisons do not, so every backend that has the same
// y makes the same digit. The thresholds come from the caller, computed once in float64
// (atanh((2l + 1) / (L - 1) - 1), without the atanh for the hard clamp) and rounded to T: computing
// them here would bring that last bit back in.
//
// All comparisons are made, without an early exit: branch-free code vectorizes and does not diverge
// on a GPU. A NaN reaches no threshold, so the digit stays in range (0) whatever comes in; callers
// that must report NaN look at y itself.
template <typename T>
AFFECTCODEC_HD int32_t fsq_digit(T y, const T* thresholds, int32_t levels) {
  int32_t digit = 0;
  for (int32_t l = 0; l < levels - 1; ++l) {
    digit += y >= thresholds[l] ? 1 : 0;
  }
  return digit;
}

// Value of a digit on the symmetric grid, 2n / (L - 1) - 1, from -1 to 1; both ends are reached.
//
// Written as one division of two integers: both are exact in T, so the result is correctly rounded,
// exactly antisymmetric and equal on every machine. 2n / (L - 1) - 1 as it stands rounds twice.
template <typename T>
AFFECTCODEC_HD T fsq_value(int32_t digit, int32_t levels) {
  return static_cast<T>(2 * digit - (levels - 1)) / static_cast<T>(levels - 1);
}

// Composite token of `dims` digits: mixed radix, the first digit lowest, so that the codes of the
// first block are the token's low bits where its levels are powers of two.
//
// Integers end to end: a float holds indices exactly only up to 2^24, which six dims of 16 levels
// reach. The caller makes sure that the product of the levels fits int64.
AFFECTCODEC_HD int64_t token_from_digits(const int32_t* digits, const int32_t* levels,
                                         int32_t dims) {
  int64_t token = 0;
  for (int32_t i = dims - 1; i >= 0; --i) {
    token = token * levels[i] + digits[i];
  }
  return token;
}

// Inverse of token_from_digits. Returns what is left above the highest digit: 0 for a token of this
// codebook, anything else for one that is not (a negative token included), so that a decoder can
// refuse untrusted tokens without a second pass. The digits are in range in either case.
AFFECTCODEC_HD int64_t digits_from_token(int64_t token, const int32_t* levels, int32_t dims,
                                         int32_t* digits) {
  // Unsigned division keeps the digits of a negative token in 0..L-1; % on signed would not.
  uint64_t rest = static_cast<uint64_t>(token);
  for (int32_t i = 0; i < dims; ++i) {
    const uint64_t radix = static_cast<uint64_t>(levels[i]);
    const uint64_t quotient = rest / radix;
    digits[i] = static_cast<int32_t>(rest - quotient * radix);
    rest = quotient;
  }
  return token < 0 ? -1 : static_cast<int64_t>(rest);
}

}  // namespace affectcodec
