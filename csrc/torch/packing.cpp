// SPDX-License-Identifier: Apache-2.0
// Bit packing as operators.
#include <torch/csrc/stable/library.h>

#include "../core/bit_packing.h"
#include "tensors.h"

namespace affectcodec {
namespace ops {
namespace {

Tensor pack_bits(const Tensor& codes, int64_t bits) {
  const bool wide = check_codes(codes, bits);
  const auto count = static_cast<size_t>(codes.numel());
  const int width = static_cast<int>(bits);
  Tensor out =
      make({static_cast<int64_t>(affectcodec::packed_size(count, width))}, ScalarType::Byte);
  auto* to = static_cast<uint8_t*>(out.mutable_data_ptr());
  if (count == 0) return out;
  const auto pack = [&](const auto* from) {
    if (affectcodec::pack_bits(from, count, width, to)) return;
    const size_t bad = affectcodec::first_outside(from, count, width);
    check(false, "codes[", bad, "]: does not fit ", bits, " bits, expected 0..",
          (uint64_t{1} << bits) - 1);
  };
  if (wide) {
    pack(static_cast<const int64_t*>(codes.const_data_ptr()));
  } else {
    pack(static_cast<const int32_t*>(codes.const_data_ptr()));
  }
  return out;
}

Tensor unpack_bits(const Tensor& data, int64_t bits, int64_t count, ScalarType dtype) {
  const bool wide = check_packed(data, bits, count, dtype);
  const int width = static_cast<int>(bits);
  const auto size = static_cast<size_t>(data.numel());
  const auto* from = static_cast<const uint8_t*>(data.const_data_ptr());
  const size_t used = static_cast<size_t>(count) * static_cast<size_t>(bits) % 8;
  check(used == 0 || from[size - 1] >> used == 0,
        "data: the bits that fill up the last byte are not 0");
  Tensor out = make({count}, dtype);
  if (wide) {
    affectcodec::unpack_bits(from, static_cast<size_t>(count), width,
                             static_cast<int64_t*>(out.mutable_data_ptr()));
  } else {
    affectcodec::unpack_bits(from, static_cast<size_t>(count), width,
                             static_cast<int32_t*>(out.mutable_data_ptr()));
  }
  return out;
}

}  // namespace
}  // namespace ops
}  // namespace affectcodec

STABLE_TORCH_LIBRARY_IMPL(affectcodec, CPU, m) {
  m.impl("pack_bits_cpu", TORCH_BOX(&affectcodec::ops::pack_bits));
  m.impl("unpack_bits_cpu", TORCH_BOX(&affectcodec::ops::unpack_bits));
}
