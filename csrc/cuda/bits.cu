// SPDX-License-Identifier: Apache-2.0
// Bit packing on the device, in the layout of csrc/core/bit_packing.h. Each thread makes 16 bytes
// of the result, whatever the width of a code, so no two threads write to one byte.
#include "launching.cuh"

namespace affectcodec {
namespace cuda {

constexpr int kBitThreads = 256;
constexpr int64_t kBitBlocks = 4096;  // enough for any GPU; each thread goes on from there

template <typename Int>
__global__ void __launch_bounds__(kBitThreads)
    pack_kernel(const Int* codes, int64_t count, int bits, uint8_t* out, int64_t size,
                bool aligned) {
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kBitThreads * 16;
  for (int64_t byte = (static_cast<int64_t>(blockIdx.x) * kBitThreads + threadIdx.x) * 16;
       byte < size; byte += step) {
    // Bits byte * 8 .. byte * 8 + 127 of the stream, from the codes that reach into them. Byte by
    // byte times 8 fits 64 bits for every size that memory can hold.
    const int64_t first_bit = byte * 8;
    uint64_t word[2] = {0, 0};
    for (int64_t i = first_bit / bits; i < count; ++i) {
      const int64_t at = i * bits - first_bit;
      if (at >= 128) break;
      const uint64_t code = static_cast<uint64_t>(static_cast<int64_t>(codes[i])) & mask;
      if (at < 0) {
        word[0] |= code >> -at;
      } else if (at < 64) {
        word[0] |= code << at;
        if (at + bits > 64) word[1] |= code >> (64 - at);
      } else {
        word[1] |= code << (at - 64);
      }
    }
    if (aligned && byte + 16 <= size) {
      store_wide(out + byte,
                 make_words(static_cast<uint32_t>(word[0]), static_cast<uint32_t>(word[0] >> 32),
                            static_cast<uint32_t>(word[1]), static_cast<uint32_t>(word[1] >> 32)));
    } else {
      for (int i = 0; i < 16 && byte + i < size; ++i) {
        out[byte + i] = static_cast<uint8_t>(word[i / 8] >> (i % 8 * 8));
      }
    }
  }
}

// Code of `bits` bits that starts at `bit`; never reads past `size` bytes.
AFFECTCODEC_DEVICE uint64_t read_code(const uint8_t* data, int64_t bit, int bits) {
  const int64_t first = bit / 8, last = (bit + bits - 1) / 8;
  const int shift = static_cast<int>(bit % 8);
  uint64_t low = 0;
  for (int64_t i = first; i <= last && i < first + 8; ++i) {
    low |= static_cast<uint64_t>(data[i]) << ((i - first) * 8);
  }
  low >>= shift;
  if (last == first + 8) low |= static_cast<uint64_t>(data[last]) << (64 - shift);
  return low & ((uint64_t{1} << bits) - 1);
}

template <typename Int>
__global__ void __launch_bounds__(kBitThreads)
    unpack_kernel(const uint8_t* data, int64_t count, int bits, Int* codes, bool aligned) {
  constexpr int kEach = 16 / sizeof(Int);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kBitThreads * kEach;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kBitThreads + threadIdx.x) * kEach;
       i < count; i += step) {
    uint64_t code[kEach];
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      code[j] = i + j < count ? read_code(data, (i + j) * bits, bits) : 0;
    }
    if (aligned && i + kEach <= count) {
      if (kEach == 4) {
        store_wide(codes + i,
                   make_words(static_cast<uint32_t>(code[0]), static_cast<uint32_t>(code[1]),
                              static_cast<uint32_t>(code[kEach / 2]),
                              static_cast<uint32_t>(code[kEach - 1])));
      } else {
        store_wide(
            codes + i,
            make_words(static_cast<uint32_t>(code[0]), static_cast<uint32_t>(code[0] >> 32),
                       static_cast<uint32_t>(code[1]), static_cast<uint32_t>(code[1] >> 32)));
      }
    } else {
      for (int j = 0; j < kEach && i + j < count; ++j) codes[i + j] = static_cast<Int>(code[j]);
    }
  }
}

inline bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

inline dim3 bit_grid(int64_t items) {
  const int64_t blocks = (items + kBitThreads - 1) / kBitThreads;
  return grid_of(blocks < kBitBlocks ? blocks : kBitBlocks);
}

}  // namespace cuda
}  // namespace affectcodec

using namespace affectcodec::cuda;

extern "C" int affectcodec_cuda_pack_bits(const void* codes, int32_t wide, int64_t count,
                                          int32_t bits, uint8_t* out, void* stream) {
  if (bits < 1 || bits > 63 || count < 0 || count > (int64_t{1} << 57)) {
    return AFFECTCODEC_CUDA_VALUE;
  }
  if (count == 0) return 0;
  const int64_t size = (count * bits + 7) / 8;
  const dim3 grid = bit_grid((size + 15) / 16);
  if (wide) {
    return launch("pack_bits", pack_kernel<int64_t>, grid, kBitThreads, 0, stream,
                  static_cast<const int64_t*>(codes), count, bits, out, size, is_aligned(out));
  }
  return launch("pack_bits", pack_kernel<int32_t>, grid, kBitThreads, 0, stream,
                static_cast<const int32_t*>(codes), count, bits, out, size, is_aligned(out));
}

extern "C" int affectcodec_cuda_unpack_bits(const uint8_t* data, int32_t bits, int64_t count,
                                            int32_t wide, void* codes, void* stream) {
  if (bits < 1 || bits > (wide ? 63 : 31) || count < 0 || count > (int64_t{1} << 57)) {
    return AFFECTCODEC_CUDA_VALUE;
  }
  if (count == 0) return 0;
  const int64_t each = wide ? 2 : 4;
  const dim3 grid = bit_grid((count + each - 1) / each);
  if (wide) {
    return launch("unpack_bits", unpack_kernel<int64_t>, grid, kBitThreads, 0, stream, data, count,
                  bits, static_cast<int64_t*>(codes), is_aligned(codes));
  }
  return launch("unpack_bits", unpack_kernel<int32_t>, grid, kBitThreads, 0, stream, data, count,
                bits, static_cast<int32_t*>(codes), is_aligned(codes));
}
