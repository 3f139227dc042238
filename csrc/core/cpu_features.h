// SPDX-License-Identifier: Apache-2.0
// What the CPU and the operating system can run, asked at run time.
#pragma once

#include <cstdint>

#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
#include <cpuid.h>
#define AFFECTCODEC_X86 1
#endif

namespace affectcodec {

struct CpuFeatures {
  bool sse4_2 = false;
  bool avx = false;
  bool avx2 = false;
  bool fma = false;
  bool f16c = false;
  bool bmi1 = false;
  bool bmi2 = false;
  bool lzcnt = false;
  bool movbe = false;
  bool avx512f = false;
  bool avx512bw = false;
  bool avx512cd = false;
  bool avx512dq = false;
  bool avx512vl = false;
  bool neon = false;

  // The sets that GCC and Clang call x86-64-v3 and x86-64-v4. A file compiled for such a set may
  // use any member of it, so dispatch has to ask for all of them and not for the best known one.
  bool x86_64_v3() const {
    return sse4_2 && avx && avx2 && fma && f16c && bmi1 && bmi2 && lzcnt && movbe;
  }
  bool x86_64_v4() const {
    return x86_64_v3() && avx512f && avx512bw && avx512cd && avx512dq && avx512vl;
  }
};

// Own cpuid calls and not __builtin_cpu_supports: the builtin's list of names differs between
// compiler versions.
inline CpuFeatures detect_cpu_features() {
  CpuFeatures f;
#if defined(AFFECTCODEC_X86)
  unsigned a = 0, b = 0, c = 0, d = 0;
  const auto bit = [](unsigned word, int index) { return (word >> index & 1u) != 0; };
  if (!__get_cpuid(1, &a, &b, &c, &d)) {
    return f;
  }
  f.sse4_2 = bit(c, 20);
  f.movbe = bit(c, 22);
  // A wide register is usable only if the system saves it across context switches: XCR0 bits 1-2
  // for ymm, 5-7 for the AVX-512 state.
  uint64_t saved = 0;
  if (bit(c, 27)) {
    unsigned low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    saved = static_cast<uint64_t>(high) << 32 | low;
  }
  const bool ymm = (saved & 0x6) == 0x6;
  const bool zmm = (saved & 0xe6) == 0xe6;
  f.avx = ymm && bit(c, 28);
  f.fma = ymm && bit(c, 12);
  f.f16c = ymm && bit(c, 29);
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
    f.bmi1 = bit(b, 3);
    f.avx2 = ymm && bit(b, 5);
    f.bmi2 = bit(b, 8);
    f.avx512f = zmm && bit(b, 16);
    f.avx512dq = zmm && bit(b, 17);
    f.avx512cd = zmm && bit(b, 28);
    f.avx512bw = zmm && bit(b, 30);
    f.avx512vl = zmm && bit(b, 31);
  }
  if (__get_cpuid(0x80000001u, &a, &b, &c, &d)) {
    f.lzcnt = bit(c, 5);
  }
#elif defined(__ARM_NEON) || defined(__aarch64__)
  f.neon = true;  // part of the baseline that this file was compiled for
#endif
  return f;
}

}  // namespace affectcodec
