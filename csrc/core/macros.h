// SPDX-License-Identifier: Apache-2.0
// Marks that let one header serve host compilers, nvcc and hipcc; names made of an instruction set.
#pragma once

#if defined(__CUDACC__) || defined(__HIPCC__)
#define AFFECTCODEC_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__) || defined(__clang__)
// `static`, not only `inline`: these headers are compiled once per instruction set, and the linker
// would be free to keep the AVX-512 copy of a shared inline function for every caller.
#define AFFECTCODEC_HD static inline __attribute__((always_inline, unused))
#else
#define AFFECTCODEC_HD static inline
#endif

// Of what a macro stands for, as in AC_JOIN(kernels_, AFFECTCODEC_ISA).
#define AC_JOIN_(a, b) a##b
#define AC_JOIN(a, b) AC_JOIN_(a, b)
#define AC_TEXT_(a) #a
#define AC_TEXT(a) AC_TEXT_(a)
