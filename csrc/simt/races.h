// SPDX-License-Identifier: Apache-2.0
// Watches shared memory. Kernels compiled with -fsanitize=thread, but linked without its library,
// call the functions of races.cpp at every access; kernels compiled otherwise call none of them and
// these notes cost next to nothing.
//
// Found, whatever order the threads run in: a read of what nothing has written in this block, and
// two accesses of the same bytes by different threads, one of them a write, without a barrier
// between (__syncthreads, or one of the warp where both belong to it).
#pragma once

#include <stddef.h>

namespace simt {
namespace races {

void begin_block(const unsigned char* dynamic, size_t dynamic_size, const unsigned char* fixed,
                 size_t fixed_size);
void end_block();
void thread(int id);  // that runs from now on; -1 for none
void block_barrier();
void warp_barrier(int warp);  // of all lanes of a warp

}  // namespace races
}  // namespace simt
