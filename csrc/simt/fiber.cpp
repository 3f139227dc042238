// SPDX-License-Identifier: Apache-2.0
// A switch of stacks in fifteen instructions on x86-64, about ten times faster than swapcontext,
// which asks the kernel for the signal mask each time and serves the other machines.
#include "fiber.h"

#include <stdint.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define SIMT_ASAN 1
#endif

#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_ASSEMBLY 1
#else
#include <ucontext.h>
#endif

namespace simt {
namespace {

void (*entry_of_start)() = nullptr;
Fiber* came_from = nullptr;

void arrive() {
#if defined(SIMT_ASAN)
  // The first arrival in the scheduler's own stack tells its bounds, which are needed to go back.
  const void* bottom = nullptr;
  size_t size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (came_from->stack == nullptr) {
    came_from->stack = static_cast<char*>(const_cast<void*>(bottom));
    came_from->stack_size = size;
  }
#endif
}

void first_entry() {
  arrive();
  entry_of_start();
  abort();
}

}  // namespace

#if defined(SIMT_ASSEMBLY)
extern "C" void simt_switch(void** save, void* to);
asm(R"(
.text
.globl simt_switch
.hidden simt_switch
.type simt_switch, @function
simt_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size simt_switch, .-simt_switch
)");

void start_fiber(Fiber& fiber, void (*entry)()) {
  entry_of_start = entry;
  const uintptr_t top = reinterpret_cast<uintptr_t>(fiber.stack) + fiber.stack_size;
  void** slot = reinterpret_cast<void**>(top & ~uintptr_t{15});
  *--slot = nullptr;  // where first_entry would return to, and its alignment
  *--slot = reinterpret_cast<void*>(&first_entry);
  for (int i = 0; i < 6; ++i) *--slot = nullptr;
  fiber.pointer = slot;
  fiber.shadow = nullptr;
}

static void jump(Fiber& from, Fiber& to) { simt_switch(&from.pointer, to.pointer); }
#else
void start_fiber(Fiber& fiber, void (*entry)()) {
  entry_of_start = entry;
  if (!fiber.context) fiber.context = malloc(sizeof(ucontext_t));
  ucontext_t* context = static_cast<ucontext_t*>(fiber.context);
  getcontext(context);
  context->uc_stack.ss_sp = fiber.stack;
  context->uc_stack.ss_size = fiber.stack_size;
  context->uc_link = nullptr;
  makecontext(context, first_entry, 0);
  fiber.shadow = nullptr;
}

static void jump(Fiber& from, Fiber& to) {
  if (!from.context) from.context = malloc(sizeof(ucontext_t));
  swapcontext(static_cast<ucontext_t*>(from.context), static_cast<ucontext_t*>(to.context));
}
#endif

void switch_fiber(Fiber& from, Fiber& to) {
  came_from = &from;
#if defined(SIMT_ASAN)
  __sanitizer_start_switch_fiber(&from.shadow, to.stack, to.stack_size);
#endif
  jump(from, to);
#if defined(SIMT_ASAN)
  __sanitizer_finish_switch_fiber(from.shadow, nullptr, nullptr);
#endif
}

void leave_fiber(Fiber& from, Fiber& to) {
  came_from = &from;
#if defined(SIMT_ASAN)
  __sanitizer_start_switch_fiber(nullptr, to.stack, to.stack_size);
#endif
  jump(from, to);
  abort();
}

}  // namespace simt
