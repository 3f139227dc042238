// SPDX-License-Identifier: Apache-2.0
// Stacks to switch between, known to AddressSanitizer.
#pragma once

#include <stddef.h>

namespace simt {

struct Fiber {
  void* pointer = nullptr;  // stack pointer where it stands still
  void* context = nullptr;  // ucontext_t, where there is no switch in assembly
  char* stack = nullptr;    // lowest address; null for the fiber that was there first
  size_t stack_size = 0;
  void* shadow = nullptr;  // AddressSanitizer's own stack of it
};

// Makes `fiber` ready to run `entry` from its start; `entry` must end with leave_fiber.
void start_fiber(Fiber& fiber, void (*entry)());
void switch_fiber(Fiber& from, Fiber& to);
// Switches for good.
[[noreturn]] void leave_fiber(Fiber& from, Fiber& to);

}  // namespace simt
