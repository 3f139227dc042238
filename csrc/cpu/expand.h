// SPDX-License-Identifier: Apache-2.0
// From the code dims back to the channels.
#pragma once

#include "frames.h"
#include "recurrence.h"
#include "units.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {

// Sums of products of one block in either form, a group of rows after the other, written out after
// each group: out[i] gets groups 0..i. `lanes` is [rows][kUnit], `rows` the same turned round.
void expand(const BlockPlan& b, const float* by_row, const float* by_column, const View* out,
            int outputs, const int32_t* rates, const float* bias, const Active& active,
            const Unit& unit, const Unit& after, const float* lanes, const float* rows,
            float* chunk);

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
