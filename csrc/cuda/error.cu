// SPDX-License-Identifier: Apache-2.0
#include "device.cuh"

namespace affectcodec {
namespace cuda {

const char* device_error(int code) {
#if defined(__CUDACC__)
  return cudaGetErrorString(static_cast<cudaError_t>(code));
#else
  (void)code;
  return "unknown error of the host shim";
#endif
}

}  // namespace cuda
}  // namespace affectcodec
