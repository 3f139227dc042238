// SPDX-License-Identifier: Apache-2.0
// The kernels of one instruction set as a table, for dispatch.cpp.
#include "../core/macros.h"
#include "entry.h"

namespace affectcodec {
namespace cpu {

extern const Kernels AC_JOIN(kernels_, AFFECTCODEC_ISA);
const Kernels AC_JOIN(kernels_, AFFECTCODEC_ISA) = {
    AC_TEXT(AFFECTCODEC_ISA),      AFFECTCODEC_ISA::fold_block,     AFFECTCODEC_ISA::encode_units,
    AFFECTCODEC_ISA::decode_units, AFFECTCODEC_ISA::backward_slabs, AFFECTCODEC_ISA::reduce_slabs,
    AFFECTCODEC_ISA::finish_block, AFFECTCODEC_ISA::codes_of,
};

}  // namespace cpu
}  // namespace affectcodec
