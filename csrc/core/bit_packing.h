// SPDX-License-Identifier: Apache-2.0
// Packing of integer codes into the fewest whole bytes, and back; host only.
//
// Layout: code i takes the bits i * bits to (i + 1) * bits - 1 of a little-endian stream, lowest
// bit first; the last byte is filled up with zeros. affectcodec/bitpacking.py states the same and
// holds the NumPy form that these functions are tested against.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace affectcodec {

constexpr int kMaxBits = 63;  // a code has to fit a signed 64-bit integer

// Bytes that `count` codes take; the caller makes sure that count * bits does not overflow.
inline size_t packed_size(size_t count, int bits) {
  return (count * static_cast<size_t>(bits) + 7) / 8;
}

namespace detail {

inline uint64_t to_little_endian(uint64_t word) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  return __builtin_bswap64(word);
#else
  return word;
#endif
}

inline void store_word(uint8_t* out, uint64_t word, size_t size = 8) {
  word = to_little_endian(word);
  std::memcpy(out, &word, size);
}

inline uint64_t load_word(const uint8_t* data) {
  uint64_t word;
  std::memcpy(&word, data, 8);
  return to_little_endian(word);
}

// Appends fields of up to 64 bits to a stream of bytes, a 64-bit word at a time.
class BitWriter {
 public:
  explicit BitWriter(uint8_t* out) : out_(out) {}

  void put(uint64_t field, int width) {
    word_ |= field << fill_;
    if (fill_ + width >= 64) {
      store_word(out_, word_);
      out_ += 8;
      // Two shifts, since one by 64 (fill_ == 0) is undefined.
      word_ = (field >> 1) >> (63 - fill_);
      fill_ -= 64;
    }
    fill_ += width;
  }

  void flush() { store_word(out_, word_, static_cast<size_t>(fill_ + 7) / 8); }

 private:
  uint8_t* out_;
  uint64_t word_ = 0;
  int fill_ = 0;
};

// Packs in groups of `Group` codes (Group * bits <= 64). A group is merged with independent shifts
// and only then enters the serial chain of the writer, which is what a code at a time waits for.
// Returns the OR of all codes, so that the range is checked in the same pass without a branch.
template <int Group, typename Int>
uint64_t pack_groups(const Int* codes, size_t count, int bits, uint8_t* out) {
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  BitWriter writer(out);
  uint64_t seen = 0;
  size_t i = 0;
  for (; i + Group <= count; i += Group) {
    uint64_t field = 0;
    for (int j = 0; j < Group; ++j) {
      // Through int64, so that a negative int32 shows in the high bits too.
      const uint64_t code = static_cast<uint64_t>(static_cast<int64_t>(codes[i + j]));
      seen |= code;
      field |= (code & mask) << (j * bits);
    }
    writer.put(field, Group * bits);
  }
  for (; i < count; ++i) {
    const uint64_t code = static_cast<uint64_t>(static_cast<int64_t>(codes[i]));
    seen |= code;
    writer.put(code & mask, bits);
  }
  writer.flush();
  return seen;
}

// Reads code i straight from its bit offset: the iterations do not depend on each other. `Straddle`
// is for bits > 57, where a code may reach into a ninth byte.
template <bool Straddle, typename Int>
void unpack_codes(const uint8_t* data, size_t begin, size_t end, size_t first_bit, int bits,
                  Int* codes) {
  const uint64_t mask = (uint64_t{1} << bits) - 1;
  size_t at = first_bit;
  for (size_t i = begin; i < end; ++i, at += static_cast<size_t>(bits)) {
    const uint8_t* from = data + at / 8;
    const int shift = static_cast<int>(at % 8);
    uint64_t code = load_word(from) >> shift;
    if (Straddle) {
      code |= (static_cast<uint64_t>(from[8]) << 1) << (63 - shift);
    }
    codes[i] = static_cast<Int>(code & mask);
  }
}

}  // namespace detail

// Packs `count` codes of `bits` bits into packed_size(count, bits) bytes at `out`. Returns false
// where a code does not fit; `out` is then written but meaningless.
template <typename Int>
bool pack_bits(const Int* codes, size_t count, int bits, uint8_t* out) {
  uint64_t seen;
  if (bits <= 8) {
    seen = detail::pack_groups<8>(codes, count, bits, out);
  } else if (bits <= 16) {
    seen = detail::pack_groups<4>(codes, count, bits, out);
  } else if (bits <= 32) {
    seen = detail::pack_groups<2>(codes, count, bits, out);
  } else {
    seen = detail::pack_groups<1>(codes, count, bits, out);
  }
  return seen >> bits == 0;
}

// Index of the first code that does not fit, `count` where all do.
template <typename Int>
size_t first_outside(const Int* codes, size_t count, int bits) {
  size_t i = 0;
  while (i < count && static_cast<uint64_t>(static_cast<int64_t>(codes[i])) >> bits == 0) {
    ++i;
  }
  return i;
}

// Reads `count` codes from exactly packed_size(count, bits) bytes at `data`; never reads past them.
template <typename Int>
void unpack_bits(const uint8_t* data, size_t count, int bits, Int* codes) {
  if (count == 0) {
    return;  // `data` may be null
  }
  const size_t width = static_cast<size_t>(bits);
  const size_t size = packed_size(count, bits);
  // A read at byte p touches p..p+8. Codes that start before `safe` bits keep inside the data, the
  // few after it are read from a copy with room behind.
  const size_t safe = size > 8 ? (size - 8) * 8 : 0;
  const size_t main = safe / width < count ? safe / width : count;
  uint8_t tail[32] = {};
  const size_t tail_at = main * width / 8;
  std::memcpy(tail, data + tail_at, size - tail_at);
  const size_t tail_bit = main * width % 8;
  if (bits > 57) {
    detail::unpack_codes<true>(data, 0, main, 0, bits, codes);
    detail::unpack_codes<true>(tail, main, count, tail_bit, bits, codes);
  } else {
    detail::unpack_codes<false>(data, 0, main, 0, bits, codes);
    detail::unpack_codes<false>(tail, main, count, tail_bit, bits, codes);
  }
}

}  // namespace affectcodec
