// SPDX-License-Identifier: Apache-2.0
// Launching on a GPU, or on the host shim.
#pragma once

#include "arguments.h"
#include "device.cuh"

namespace affectcodec {
namespace cuda {

#if defined(__CUDACC__)

// Kernels that need more shared memory than the 48 KiB that every launch may have must ask for it.
template <typename... Parameters>
int allow_shared(void (*kernel)(Parameters...), int64_t bytes) {
  if (bytes <= 48 * 1024) return 0;
  int device = 0, most = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  if (error != cudaSuccess) return static_cast<int>(error);
  if (bytes > most) return AFFECTCODEC_CUDA_COLUMNS;
  return static_cast<int>(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                                               static_cast<int>(bytes)));
}

template <typename... Parameters, typename... Arguments>
int launch(const char*, void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared,
           void* stream, const Arguments&... arguments) {
  const int refused = allow_shared(kernel, shared);
  if (refused != 0) return refused;
  kernel<<<grid, static_cast<unsigned>(threads), static_cast<size_t>(shared),
           static_cast<cudaStream_t>(stream)>>>(arguments...);
  return static_cast<int>(cudaGetLastError());
}

#else

template <typename... Parameters, typename... Arguments>
int launch(const char* name, void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared,
           void*, const Arguments&... arguments) {
  constexpr int64_t kMost = 227 * 1024;  // of sm_90 and sm_100
  if (shared > kMost) return AFFECTCODEC_CUDA_COLUMNS;
  return simt::launch(name, kernel, grid, dim3(static_cast<unsigned>(threads)),
                      static_cast<size_t>(shared), arguments...);
}

#endif

// A grid of `count` blocks; the launcher has checked that they can be numbered.
inline dim3 grid_of(int64_t count) { return dim3(static_cast<unsigned>(count)); }

}  // namespace cuda
}  // namespace affectcodec
