// SPDX-License-Identifier: Apache-2.0
// Kernels for the host shim: sound ones whose results are known, and one for each kind of fault
// that the shim has to find. `faults NAME` runs one and prints its result.
#include <stdio.h>

#include <memory>
#include <string>

#include "../../csrc/simt/simt.h"

namespace {

constexpr int kCount = 96;  // three warps

__global__ void sound(const int* in, int* out, bool twice) {
  int* shared = reinterpret_cast<int*>(simt::dynamic_shared());
  __shared__ int total[3];
  const int i = static_cast<int>(threadIdx.x);
  shared[i] = in[blockIdx.x * kCount + i];
  __syncthreads();
  int sum = shared[kCount - 1 - i];
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (i % 32 == 0) total[i / 32] = sum;
  __syncthreads();
  int all = total[0] + total[1] + total[2];
  // A vote, a broadcast, and a barrier of half a warp while the other half does nothing.
  if (__any_sync(0xffffffffu, i == 40)) all += 1000;
  all += __shfl_sync(0xffffffffu, i, 5) - (i / 32 * 32 + 5);
  if (i % 32 < 16) __syncwarp(0xffffu);
  if (i == 40 || (twice && i == 0)) out[blockIdx.x] = all + static_cast<int>(blockIdx.y);
}

__global__ void missing_barrier(int* out) {
  int* shared = reinterpret_cast<int*>(simt::dynamic_shared());
  const int i = static_cast<int>(threadIdx.x);
  shared[i] = i;
  out[i] = shared[(i + 32) % kCount];
}

__global__ void missing_barrier_in_loop(int* out) {
  int* shared = reinterpret_cast<int*>(simt::dynamic_shared());
  const int i = static_cast<int>(threadIdx.x);
  int sum = 0;
  for (int turn = 0; turn < 2; ++turn) {
    shared[i] = turn * 100 + i;  // overwrites what a neighbour may still have to read
    __syncthreads();
    sum += shared[(i + 32) % kCount];
  }
  out[i] = sum;
}

__global__ void missing_warp_barrier(int* out) {
  int* shared = reinterpret_cast<int*>(simt::dynamic_shared());
  const int i = static_cast<int>(threadIdx.x);
  shared[i] = i;
  out[i] = shared[i ^ 1];
}

__global__ void warp_barrier_for_two_warps(int* out) {
  int* shared = reinterpret_cast<int*>(simt::dynamic_shared());
  const int i = static_cast<int>(threadIdx.x);
  shared[i] = i;
  __syncwarp();
  out[i] = shared[(i + 32) % kCount];
}

__global__ void divergent_barrier(int* out) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < 40) __syncthreads();
  out[i] = i;
}

__global__ void barrier_in_both_branches(int* out) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < 40) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[i] = i;
}

__global__ void divergent_shuffle(int* out) {
  const int i = static_cast<int>(threadIdx.x);
  if (i % 32 < 16) out[i] = __shfl_xor_sync(0xffffffffu, i, 1);
}

__global__ void shuffle_from_outside(int* out) {
  const int i = static_cast<int>(threadIdx.x);
  if (i % 32 < 16) out[i] = __shfl_xor_sync(0xffffu, i, 16);
}

__global__ void shared_past_the_end(int* out) {
  int* shared = reinterpret_cast<int*>(simt::dynamic_shared());
  const int i = static_cast<int>(threadIdx.x);
  shared[i + 1] = i;
  __syncthreads();
  out[i] = shared[i];
}

__global__ void global_past_the_end(int* out) {
  const int i = static_cast<int>(threadIdx.x);
  out[i + (i == 95 ? 1 : 0)] = i;
}

__global__ void misaligned(const int* in, int* out) {
  const int i = static_cast<int>(threadIdx.x);
  if (i == 0) {
    const uint4 v = *reinterpret_cast<const uint4*>(in + 1);
    out[0] = static_cast<int>(v.x);
  }
}

__global__ void unwritten_dynamic(int* out) {
  int* shared = reinterpret_cast<int*>(simt::dynamic_shared());
  const int i = static_cast<int>(threadIdx.x);
  if (i != 7) shared[i] = i;
  __syncthreads();
  out[i] = shared[(i + 1) % kCount];
}

__global__ void unwritten_static(int* out) {
  __shared__ int shared[kCount];
  const int i = static_cast<int>(threadIdx.x);
  // Only the first block writes: on a GPU the second one would find whatever was there.
  if (blockIdx.x == 0) shared[i] = i;
  __syncthreads();
  out[i] = shared[i];
}

__global__ void nothing(int*) {}

unsigned long long checksum(const int* values, int count) {
  unsigned long long sum = 0;
  for (int i = 0; i < count; ++i) sum = sum * 31 + static_cast<unsigned long long>(values[i]);
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "";
  // Exactly sized, so that a sanitizer sees the first int too many.
  std::unique_ptr<int[]> in(new int[2 * kCount]), out(new int[kCount]());
  for (int i = 0; i < 2 * kCount; ++i) in[i] = i * i % 17;
  constexpr size_t shared = kCount * sizeof(int);
  const dim3 one(1), threads(kCount);
  int* to = out.get();
  if (name == "sound" || name == "same_result_twice") {
    simt::launch("sound", sound, dim3(2, 1), threads, shared, in.get(), to, name != "sound");
#define CASE(kernel)          \
  }                           \
  else if (name == #kernel) { \
    simt::launch(#kernel, kernel, one, threads, shared, to);
    CASE(missing_barrier)
    CASE(missing_barrier_in_loop)
    CASE(missing_warp_barrier)
    CASE(warp_barrier_for_two_warps)
    CASE(divergent_barrier)
    CASE(barrier_in_both_branches)
    CASE(divergent_shuffle)
    CASE(shuffle_from_outside)
    CASE(shared_past_the_end)
    CASE(global_past_the_end)
    CASE(unwritten_dynamic)
  } else if (name == "misaligned") {
    simt::launch("misaligned", misaligned, one, threads, 0, in.get(), to);
  } else if (name == "unwritten_static") {
    simt::launch("unwritten_static", unwritten_static, dim3(2), threads, 0, to);
  } else if (name == "too_many_threads") {
    simt::launch("nothing", nothing, one, dim3(1025), 0, to);
  } else if (name == "empty_grid") {
    simt::launch("nothing", nothing, dim3(0), threads, 0, to);
  } else {
    fprintf(stderr, "unknown case %s\n", name.c_str());
    return 2;
  }
  printf("%llu\n", checksum(out.get(), kCount));
  return 0;
}
