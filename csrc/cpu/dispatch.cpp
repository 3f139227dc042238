// SPDX-License-Identifier: Apache-2.0
// Chooses the kernels of this process. Compiled for the baseline, like every file that names no
// set.
#include <stdlib.h>
#include <string.h>

#include "../core/cpu_features.h"
#include "kernels.h"

namespace affectcodec {
namespace cpu {

extern const Kernels kernels_scalar;
#if defined(AFFECTCODEC_HAS_AVX2)
extern const Kernels kernels_avx2;
#endif
#if defined(AFFECTCODEC_HAS_AVX512)
extern const Kernels kernels_avx512;
#endif

const Kernels* choose_kernels(const char* asked, const char** why) {
  const CpuFeatures cpu = detect_cpu_features();
  const bool any = !asked || !*asked;
  *why = "";
  // Best first. A file compiled for a level may use any instruction of it, so all are asked for.
  if (any || strcmp(asked, "avx512") == 0) {
#if defined(AFFECTCODEC_HAS_AVX512)
    if (cpu.x86_64_v4()) return &kernels_avx512;
    *why = "this machine does not run AVX-512 (F, BW, CD, DQ, VL)";
#else
    *why = "this build has no AVX-512 kernels";
#endif
    if (!any) return nullptr;
  }
  if (any || strcmp(asked, "avx2") == 0) {
#if defined(AFFECTCODEC_HAS_AVX2)
    if (cpu.x86_64_v3()) return &kernels_avx2;
    *why = "this machine does not run AVX2 with FMA";
#else
    *why = "this build has no AVX2 kernels";
#endif
    if (!any) return nullptr;
  }
  (void)cpu;
  if (any || strcmp(asked, "scalar") == 0) return &kernels_scalar;
  *why = "known instruction sets are scalar, avx2 and avx512";
  return nullptr;
}

const Kernels* kernels(const char** why) {
  struct Choice {
    const Kernels* table;
    const char* why;
  };
  // A local static: made once, by whichever thread comes first.
  static const Choice choice = [] {
    Choice made{nullptr, ""};
    made.table = choose_kernels(getenv("AFFECTCODEC_CPU_ISA"), &made.why);
    return made;
  }();
  *why = choice.why;
  return choice.table;
}

}  // namespace cpu
}  // namespace affectcodec
