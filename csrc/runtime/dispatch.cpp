// SPDX-License-Identifier: Apache-2.0
// Finds the runtime's kernels of an instruction set; csrc/cpu/dispatch.cpp chooses which.
#include <string.h>

#include "network.h"

namespace affectcodec {
namespace runtime {

extern const Kernels kernels_scalar;
#if defined(AFFECTCODEC_HAS_AVX2)
extern const Kernels kernels_avx2;
#endif
#if defined(AFFECTCODEC_HAS_AVX512)
extern const Kernels kernels_avx512;
#endif

const Kernels* kernels_named(const char* isa) {
#if defined(AFFECTCODEC_HAS_AVX512)
  if (strcmp(isa, "avx512") == 0) return &kernels_avx512;
#endif
#if defined(AFFECTCODEC_HAS_AVX2)
  if (strcmp(isa, "avx2") == 0) return &kernels_avx2;
#endif
  return strcmp(isa, "scalar") == 0 ? &kernels_scalar : nullptr;
}

}  // namespace runtime
}  // namespace affectcodec
