// SPDX-License-Identifier: Apache-2.0
// The launchers of the CUDA kernels, in plain C terms: pointers to device memory, sizes, strides
// and a stream. They wait for nothing and allocate nothing, so they may be captured in a CUDA
// graph.
//
// Each returns 0, a cudaError_t, or one of the codes below; affectcodec_cuda_error says it in
// words.
#pragma once

#include <stdint.h>

#if defined(_WIN32)
#define AFFECTCODEC_CUDA_API
#else
#define AFFECTCODEC_CUDA_API __attribute__((visibility("default")))
#endif

extern "C" {

enum {
  AFFECTCODEC_CUDA_CONFIG = -1,   // the configuration is not sound
  AFFECTCODEC_CUDA_COLUMNS = -2,  // more projections in a block than fit shared memory
  AFFECTCODEC_CUDA_GRID = -3,     // more frames than one launch can number
  AFFECTCODEC_CUDA_VALUE = -4     // a size or type that no kernel takes
};

enum { AFFECTCODEC_FLOAT32 = 0, AFFECTCODEC_BFLOAT16 = 1, AFFECTCODEC_FLOAT16 = 2 };

// A latent [batch, frames, channels] in any memory order; strides in elements.
typedef struct {
  void* data;
  int64_t batch, frames;
  int64_t stride_b, stride_t, stride_d;
  int32_t type;
  int32_t reserved;
} affectcodec_latent;

// Tokens [batch, stages, frames], int32 or (wide) int64.
typedef struct {
  void* data;
  int64_t stride_b, stride_k, stride_t;
  int32_t stages;
  int32_t wide;
} affectcodec_tokens;

// Active stages, int64 [batch, blocks] or, with stride_t not 0, [batch, blocks, frames]; all stages
// where data is null.
typedef struct {
  const int64_t* data;
  int64_t stride_b, stride_g, stride_t;
} affectcodec_counts;

// Floats that folded weights take, or a negative code.
AFFECTCODEC_CUDA_API int64_t affectcodec_cuda_weights(const int64_t* config, int64_t size);

// `params` are W, c, O, e, scale logit and shift of each block, contiguous float32.
AFFECTCODEC_CUDA_API int affectcodec_cuda_fold(const int64_t* config, int64_t size,
                                               const float* const* params, float* weights,
                                               void* stream);

AFFECTCODEC_CUDA_API int affectcodec_cuda_encode(const int64_t* config, int64_t size,
                                                 const float* weights, const affectcodec_latent* z,
                                                 const affectcodec_tokens* tokens, void* stream);

// Latents at `outputs` ascending rates, the last of which is all stages; all lie in memory as `out`
// says, at the addresses `to`. `saved` has ceil(frames / 64) * stages * dims * 64 floats, for all
// frames of the batch.
AFFECTCODEC_CUDA_API int affectcodec_cuda_forward(const int64_t* config, int64_t size,
                                                  const float* weights, const affectcodec_latent* z,
                                                  const affectcodec_counts* counts,
                                                  const affectcodec_latent* out, void* const* to,
                                                  const int32_t* rates, int32_t outputs,
                                                  const affectcodec_tokens* tokens, float* saved,
                                                  void* stream);

// A token outside the codebook gives NaN in its frame: nobody waits for the device to refuse it.
AFFECTCODEC_CUDA_API int affectcodec_cuda_decode(const int64_t* config, int64_t size,
                                                 const float* weights,
                                                 const affectcodec_tokens* tokens,
                                                 const affectcodec_counts* counts,
                                                 const affectcodec_latent* out, void* stream);

// Floats of working memory that backward needs, or a negative code.
AFFECTCODEC_CUDA_API int64_t affectcodec_cuda_backward_work(const int64_t* config, int64_t size,
                                                            int64_t frames);

// `grads` are the gradients of the outputs, data null where there is none. `dz` may have null data.
// `found` are the gradients of the parameters, six a block, contiguous float32.
AFFECTCODEC_CUDA_API int affectcodec_cuda_backward(
    const int64_t* config, int64_t size, const float* weights, const float* const* params,
    const affectcodec_latent* z, const float* saved, const affectcodec_counts* counts,
    const affectcodec_latent* grads, const int32_t* rates, int32_t outputs,
    const affectcodec_latent* dz, float* const* found, float* work, void* stream);

// Codes of `bits` bits, int32 or (wide) int64, into ceil(count * bits / 8) bytes. What does not fit
// loses its high bits.
AFFECTCODEC_CUDA_API int affectcodec_cuda_pack_bits(const void* codes, int32_t wide, int64_t count,
                                                    int32_t bits, uint8_t* out, void* stream);
AFFECTCODEC_CUDA_API int affectcodec_cuda_unpack_bits(const uint8_t* data, int32_t bits,
                                                      int64_t count, int32_t wide, void* codes,
                                                      void* stream);

// Bytes of dynamic shared memory that a kernel asks for: encode, forward, decode, backward_rows,
// backward_weights or backward_cross, for latents of 4 or 2 bytes; 0 for the others, negative where
// the configuration is not sound.
AFFECTCODEC_CUDA_API int64_t affectcodec_cuda_shared(const int64_t* config, int64_t size,
                                                     const char* kernel, int32_t itemsize);

AFFECTCODEC_CUDA_API const char* affectcodec_cuda_error(int code);

}  // extern "C"
