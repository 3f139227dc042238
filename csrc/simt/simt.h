// SPDX-License-Identifier: Apache-2.0
// CUDA kernel bodies on the host, for tests: what nvcc would compile, g++ compiles against this
// header. Every thread of a block is a fiber, blocks run one after another, and a barrier waits as
// the hardware's does. What would hang or be undefined on a GPU ends the process with a message.
//
// Not here: real concurrency, the memory model between blocks, and instructions of one
// architecture; kernels reach those through a seam of their own (csrc/cuda/device.cuh).
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
// One block runs at a time, so one copy serves all of them. The section makes it possible to fill
// them all before a block starts; every symbol of the section has to be of this kind.
#define __shared__ static __attribute__((section("simt_shared")))

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

namespace simt {

constexpr int kWarp = 32;
constexpr int kMaxThreads = 1024;
constexpr int kMaxExchange = 64;  // bytes that a lane can hand to its warp at once

// Place in the source that a message names.
struct Site {
  const char* file;
  int line;
};

// The environment chooses the order in which threads run between barriers, SIMT_ORDER: forward,
// reverse or shuffled (by SIMT_SEED).
void run(const char* kernel, dim3 grid, dim3 block, size_t shared,
         const std::function<void()>& body);

void barrier(Site site);
// Hands `size` bytes to the warp and returns those of all its lanes, kMaxExchange apart, once every
// lane of `mask` has come here.
const unsigned char* exchange(const char* what, unsigned mask, const void* mine, size_t size,
                              Site site);
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

unsigned char* dynamic_shared();
int lane();  // of the running thread

struct Index {
  unsigned x, y, z;
};
Index thread_index();
Index block_index();
Index block_size();
Index grid_size();

// A built-in variable: each read asks for the running thread's.
template <Index (*Read)()>
struct Builtin {
  struct X {
    operator unsigned() const { return Read().x; }
  } x;
  struct Y {
    operator unsigned() const { return Read().y; }
  } y;
  struct Z {
    operator unsigned() const { return Read().z; }
  } z;
};

template <typename T>
T shuffle(const char* what, unsigned mask, T value, int source, Site site) {
  static_assert(sizeof(T) <= kMaxExchange, "too large for a shuffle");
  if (source < 0 || source >= kWarp || !(mask >> source & 1)) {
    fail("%s at %s:%d: lane %d reads lane %d, which is not in the mask %#x", what, site.file,
         site.line, lane(), source, mask);
  }
  const unsigned char* all = exchange(what, mask, &value, sizeof(T), site);
  T found;
  memcpy(&found, all + source * kMaxExchange, sizeof(T));
  return found;
}

inline unsigned ballot(unsigned mask, bool vote, Site site) {
  const unsigned char mine = vote;
  const unsigned char* all = exchange("__ballot_sync", mask, &mine, 1, site);
  unsigned bits = 0;
  for (int i = 0; i < kWarp; ++i) {
    if (mask >> i & 1 && all[i * kMaxExchange]) bits |= 1u << i;
  }
  return bits;
}

template <typename... Parameters, typename... Arguments>
int launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared,
           const Arguments&... arguments) {
  run(name, grid, block, shared, [&] { kernel(arguments...); });
  return 0;
}

}  // namespace simt

static const simt::Builtin<simt::thread_index> threadIdx{};
static const simt::Builtin<simt::block_index> blockIdx{};
static const simt::Builtin<simt::block_size> blockDim{};
static const simt::Builtin<simt::grid_size> gridDim{};

#define SIMT_SITE (simt::Site{__FILE__, __LINE__})
#define __syncthreads() simt::barrier(SIMT_SITE)
#define SIMT_MASK_(mask, ...) mask
#define __syncwarp(...)                                                                            \
  ((void)simt::exchange("__syncwarp", SIMT_MASK_(__VA_ARGS__ __VA_OPT__(, ) 0xffffffffu, ), "", 0, \
                        SIMT_SITE))
#define __shfl_sync(mask, value, from) \
  simt::shuffle("__shfl_sync", mask, value, (from) & 31, SIMT_SITE)
#define __shfl_xor_sync(mask, value, bits) \
  simt::shuffle("__shfl_xor_sync", mask, value, simt::lane() ^ (bits), SIMT_SITE)
#define __ballot_sync(mask, vote) simt::ballot(mask, vote, SIMT_SITE)
#define __any_sync(mask, vote) (simt::ballot(mask, vote, SIMT_SITE) != 0)

inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
template <typename T>
T __ldg(const T* p) {
  return *p;
}
