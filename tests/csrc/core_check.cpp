// SPDX-License-Identifier: Apache-2.0
// Drives csrc/core from text, so that test_core.py can hold it against plain Python, and runs the
// bit packing on exactly sized heap memory, where a sanitizer sees every byte too many.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "../../csrc/core/bit_packing.h"
#include "../../csrc/core/fsq.h"

namespace {

// Lines "levels tau_0 .. tau_{L-2} y" on stdin; prints the digit and its value for each.
int run_digits() {
  int levels = 0;
  while (std::scanf("%d", &levels) == 1) {
    std::vector<float> thresholds(static_cast<size_t>(levels - 1));
    for (float& t : thresholds) {
      if (std::scanf("%f", &t) != 1) return 1;
    }
    float y = 0;
    if (std::scanf("%f", &y) != 1) return 1;
    const int32_t digit = affectcodec::fsq_digit(y, thresholds.data(), levels);
    std::printf("%d %a\n", digit,
                static_cast<double>(affectcodec::fsq_value<float>(digit, levels)));
  }
  return 0;
}

// Lines "dims level_0 .. token"; prints the digits, what is left over, and the token made again.
int run_tokens() {
  int dims = 0;
  while (std::scanf("%d", &dims) == 1) {
    std::vector<int32_t> levels(static_cast<size_t>(dims)), digits(static_cast<size_t>(dims));
    for (int32_t& l : levels) {
      if (std::scanf("%" SCNd32, &l) != 1) return 1;
    }
    int64_t token = 0;
    if (std::scanf("%" SCNd64, &token) != 1) return 1;
    const int64_t rest = affectcodec::digits_from_token(token, levels.data(), dims, digits.data());
    for (int32_t d : digits) std::printf("%" PRId32 " ", d);
    std::printf("%" PRId64 " %" PRId64 "\n", rest,
                affectcodec::token_from_digits(digits.data(), levels.data(), dims));
  }
  return 0;
}

template <typename Int>
bool round_trip(size_t count, int bits) {
  // new[] of the exact size and not a vector, whose spare capacity would hide an overrun.
  std::unique_ptr<Int[]> codes(new Int[count]), back(new Int[count]);
  uint64_t state = count * 64 + static_cast<uint64_t>(bits);
  for (size_t i = 0; i < count; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    codes[i] = static_cast<Int>((state >> 1) & ((uint64_t{1} << bits) - 1));
  }
  const size_t size = affectcodec::packed_size(count, bits);
  std::unique_ptr<uint8_t[]> packed(new uint8_t[size]);
  if (!affectcodec::pack_bits(codes.get(), count, bits, packed.get())) return false;
  affectcodec::unpack_bits(packed.get(), count, bits, back.get());
  for (size_t i = 0; i < count; ++i) {
    if (codes[i] != back[i]) return false;
  }
  if (count == 0) return true;
  codes[count / 2] = -1;
  return !affectcodec::pack_bits(codes.get(), count, bits, packed.get()) &&
         affectcodec::first_outside(codes.get(), count, bits) == count / 2;
}

int run_packing() {
  for (int bits = 1; bits <= affectcodec::kMaxBits; ++bits) {
    for (size_t count = 0; count < 200; ++count) {
      if (!round_trip<int64_t>(count, bits) || (bits < 32 && !round_trip<int32_t>(count, bits))) {
        std::printf("failed at %zu codes of %d bits\n", count, bits);
        return 1;
      }
    }
  }
  std::printf("ok\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "digits") return run_digits();
  if (what == "tokens") return run_tokens();
  if (what == "packing") return run_packing();
  std::fprintf(stderr, "usage: core_check digits|tokens|packing\n");
  return 2;
}
