// SPDX-License-Identifier: Apache-2.0
// The product that leads back to the channels: latents of digits, and gradients of latents.
#include "expand.h"

#include "product.h"

namespace affectcodec {
namespace cpu {
namespace AFFECTCODEC_ISA {

// Channels made at a time: so many that they are still in the nearest cache when they are written
// out, in whole tiles of the product.
constexpr int64_t kSlice = 16 * kTileVectors;
static_assert(kSlice <= kChunk, "a slice goes through the buffer of a chunk");

// Sums of products of one block in either form, a group of rows after the other, written out after
// each group: out[i] gets groups 0..i. `lanes` is [rows][kUnit], `rows` the same turned round.
void expand(const BlockPlan& b, const float* by_row, const float* by_column, const View* out,
            int outputs, const int32_t* rates, const float* bias, const Active& active,
            const Unit& unit, const Unit& after, const float* lanes, const float* rows,
            float* chunk) {
  const bool as_rows = by_rows(out[0]);
  const int count = unit.count;
  int32_t kept[kUnit];
  Lines places;
  for (int64_t c = 0; c < b.width; c += kSlice) {
    const int channels = static_cast<int>(smaller(kSlice, b.width - c));
    for (int i = 0; i < outputs; ++i) {
      const int64_t from = group_row(b, rates, i);
      const int depth = static_cast<int>(group_row(b, rates, i + 1) - from);
      const Start start = i == 0 ? Start::kZero : Start::kContinue;
      if (as_rows) {
        product(rows_at(rows + from, b.ld_rows), count, 1, by_row + from * b.ld_width + c,
                b.ld_width, vectors_for(channels), depth, chunk, kChunk, start);
      } else {
        // Where the next slice goes is asked for while this one is computed.
        const int64_t next = b.channel + c + channels;
        if (next < out[i].channels) {
          const int64_t left = smaller(kSlice, out[i].channels - next);
          places.find(out[i], unit, next, static_cast<int>(left), true);
        } else {
          places.find(out[i], after, 0, static_cast<int>(smaller(kSlice, next)), true);
        }
        product(rows_at(by_column + c * b.ld_rows + from, b.ld_rows), channels, 1,
                lanes + from * kUnit, kUnit, vectors_for(count), depth, chunk, kUnit, start,
                places.ask());
      }
      for (int n = 0; n < count; ++n) {
        kept[n] = active.stages[n] < rates[i] ? active.stages[n] : rates[i];
      }
      View target = out[i];
      const int64_t size = target.type == Type::kFloat32 ? 4 : 2;
      target.data = static_cast<char*>(target.data) + b.channel * target.stride_d * size;
      store_frames(target, unit, c, channels, chunk, bias, b.ld_width, kept);
    }
  }
}

}  // namespace AFFECTCODEC_ISA
}  // namespace cpu
}  // namespace affectcodec
