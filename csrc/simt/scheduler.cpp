// SPDX-License-Identifier: Apache-2.0
// Runs the fibers of a block between barriers, and says what is wrong where no fiber can go on.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "fiber.h"
#include "races.h"
#include "simt.h"

// Start and end of all static shared memory, made by the linker; null where a program has none.
extern "C" {
extern unsigned char __start_simt_shared[] __attribute__((weak));
extern unsigned char __stop_simt_shared[] __attribute__((weak));
}

namespace simt {
namespace {

enum class Order { kForward, kReverse, kShuffled };

struct Options {
  Order order = Order::kForward;
  uint32_t seed = 1;
};

constexpr unsigned char kFill = 0xff;  // of shared memory that nothing has written: NaN
constexpr size_t kStack = 256 * 1024;

enum class Wait { kNothing, kBlock, kWarp, kDone };

struct Thread {
  Fiber fiber;
  Wait wait = Wait::kNothing;
  Site site{};
  const char* what = "";
  unsigned mask = 0;
  size_t size = 0;
  Index index{};
  unsigned char given[kMaxExchange];
};

struct Block {
  const char* kernel;
  const std::function<void()>* body;
  Index index{}, size{}, grid{};
  std::vector<Thread> threads;
  std::vector<unsigned char> received;  // [warps][kWarp][kMaxExchange]
  std::unique_ptr<unsigned char[]> dynamic;
  size_t dynamic_size = 0;
  int current = 0;
  Fiber scheduler;
};

Block* running = nullptr;

Thread& current() {
  if (running == nullptr) {
    fprintf(stderr, "simt: a device function was called outside of a kernel\n");
    abort();
  }
  return running->threads[static_cast<size_t>(running->current)];
}

void park(Wait why, Site site, const char* what) {
  Thread& t = current();
  t.wait = why;
  t.site = site;
  t.what = what;
  switch_fiber(t.fiber, running->scheduler);
}

void enter() {
  (*running->body)();
  Thread& t = current();
  t.wait = Wait::kDone;
  leave_fiber(t.fiber, running->scheduler);
}

std::string state_of(int id) {
  const Thread& t = running->threads[static_cast<size_t>(id)];
  char text[300];
  if (t.wait == Wait::kDone) {
    snprintf(text, sizeof(text), "thread %d has left the kernel", id);
  } else {
    snprintf(text, sizeof(text), "thread %d waits at %s in %s:%d", id, t.what, t.site.file,
             t.site.line);
  }
  return text;
}

bool same_place(const Thread& a, const Thread& b) {
  return a.wait == b.wait && a.site.line == b.site.line && strcmp(a.site.file, b.site.file) == 0;
}

// Lets the lanes of a warp go that have all reached one exchange; returns how many.
int release_warp(Block& block, int first, int end) {
  int released = 0;
  for (int i = first; i < end; ++i) {
    Thread& t = block.threads[static_cast<size_t>(i)];
    if (t.wait != Wait::kWarp) continue;
    const unsigned mask = t.mask;
    bool complete = true;
    for (int l = 0; l < kWarp && complete; ++l) {
      if (!(mask >> l & 1)) continue;
      if (first + l >= end) {
        // Lanes that the block does not have count as exited, as on the hardware.
        continue;
      }
      const Thread& other = block.threads[static_cast<size_t>(first + l)];
      complete = same_place(t, other) && other.mask == mask;
    }
    if (!complete) continue;
    unsigned char* to = block.received.data() + first * kMaxExchange;
    int lanes = 0;
    for (int l = 0; l < kWarp && first + l < end; ++l) {
      if (!(mask >> l & 1)) continue;
      Thread& other = block.threads[static_cast<size_t>(first + l)];
      memcpy(to + l * kMaxExchange, other.given, other.size);
      other.wait = Wait::kNothing;
      ++lanes;
    }
    if (lanes == end - first) races::warp_barrier(first / kWarp);
    released += lanes;
  }
  return released;
}

void explain_deadlock(const Block& block) {
  const int count = static_cast<int>(block.threads.size());
  int barrier = -1, other = -1;
  for (int i = 0; i < count && barrier < 0; ++i) {
    if (block.threads[static_cast<size_t>(i)].wait == Wait::kBlock) barrier = i;
  }
  const int one = barrier >= 0 ? barrier : [&] {
    for (int i = 0; i < count; ++i) {
      if (block.threads[static_cast<size_t>(i)].wait == Wait::kWarp) return i;
    }
    return 0;
  }();
  const bool warp = barrier < 0;
  const int first = warp ? one / kWarp * kWarp : 0;
  const int end = warp ? std::min(count, first + kWarp) : count;
  for (int i = first; i < end && other < 0; ++i) {
    if (!same_place(block.threads[static_cast<size_t>(one)],
                    block.threads[static_cast<size_t>(i)])) {
      other = i;
    }
  }
  fail("divergent barrier: %s, %s", state_of(one).c_str(),
       other < 0 ? "its mask names lanes that never come" : state_of(other).c_str());
}

Options options_from_environment() {
  Options options;
  const char* order = getenv("SIMT_ORDER");
  const std::string name = order ? order : "forward";
  if (name == "reverse") {
    options.order = Order::kReverse;
  } else if (name == "shuffled") {
    options.order = Order::kShuffled;
  } else if (name != "forward") {
    fail("SIMT_ORDER=%s: wanted forward, reverse or shuffled", name.c_str());
  }
  if (const char* seed = getenv("SIMT_SEED")) {
    options.seed = static_cast<uint32_t>(strtoul(seed, nullptr, 10));
  }
  return options;
}

void run_block(Block& block, const Options& options) {
  const int count = static_cast<int>(block.threads.size());
  std::vector<int> order(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) {
    order[static_cast<size_t>(i)] = options.order == Order::kReverse ? count - 1 - i : i;
  }
  std::mt19937 random(options.seed + block.index.x * 31u + block.index.y * 7u + block.index.z);
  for (Thread& t : block.threads) {
    t.wait = Wait::kNothing;
    start_fiber(t.fiber, enter);
  }
  for (;;) {
    if (options.order == Order::kShuffled) std::shuffle(order.begin(), order.end(), random);
    for (const int i : order) {
      Thread& t = block.threads[static_cast<size_t>(i)];
      if (t.wait != Wait::kNothing) continue;
      block.current = i;
      races::thread(i);
      switch_fiber(block.scheduler, t.fiber);
      races::thread(-1);
    }
    int released = 0;
    for (int first = 0; first < count; first += kWarp) {
      released += release_warp(block, first, std::min(count, first + kWarp));
    }
    if (released) continue;
    int done = 0, waiting = 0;
    const Thread& one = block.threads[0];
    for (const Thread& t : block.threads) {
      done += t.wait == Wait::kDone;
      waiting += t.wait == Wait::kBlock && same_place(t, one);
    }
    if (done == count) return;
    if (waiting != count) explain_deadlock(block);
    for (Thread& t : block.threads) t.wait = Wait::kNothing;
    races::block_barrier();
  }
}

}  // namespace

void fail(const char* format, ...) {
  races::thread(-1);
  fprintf(stderr, "simt: ");
  if (running) {
    fprintf(stderr, "%s, block (%u, %u, %u): ", running->kernel, running->index.x, running->index.y,
            running->index.z);
  }
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fprintf(stderr, "\n");
  fflush(stderr);
  abort();
}

void run(const char* kernel, dim3 grid, dim3 block_size, size_t shared,
         const std::function<void()>& body) {
  static const Options options = options_from_environment();
  const uint64_t threads = uint64_t{block_size.x} * uint64_t{block_size.y} * uint64_t{block_size.z};
  if (running) fail("a kernel was launched from inside of %s", running->kernel);
  if (threads == 0 || threads > kMaxThreads) {
    fail("%s: %llu threads a block, wanted 1..%d", kernel, static_cast<unsigned long long>(threads),
         kMaxThreads);
  }
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 0xffffu ||
      grid.z > 0xffffu) {
    fail("%s: a grid of %u x %u x %u cannot be launched", kernel, grid.x, grid.y, grid.z);
  }
  Block block;
  block.kernel = kernel;
  block.body = &body;
  block.size = {block_size.x, block_size.y, block_size.z};
  block.grid = {grid.x, grid.y, grid.z};
  block.threads.resize(threads);
  block.received.resize((threads + kWarp - 1) / kWarp * kWarp * kMaxExchange);
  const size_t guard = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t bytes = threads * (kStack + guard);
  void* stacks = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED)
    fail("%s: no memory for %llu stacks", kernel, static_cast<unsigned long long>(threads));
  for (uint64_t i = 0; i < threads; ++i) {
    char* low = static_cast<char*>(stacks) + i * (kStack + guard);
    mprotect(low, guard, PROT_NONE);  // a stack that overflows stops here
    Thread& t = block.threads[i];
    t.fiber.stack = low + guard;
    t.fiber.stack_size = kStack;
    t.index = {static_cast<unsigned>(i % block_size.x),
               static_cast<unsigned>(i / block_size.x % block_size.y),
               static_cast<unsigned>(i / block_size.x / block_size.y)};
  }
  running = &block;
  const size_t fixed =
      __start_simt_shared ? static_cast<size_t>(__stop_simt_shared - __start_simt_shared) : 0;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  for (uint64_t i = 0; i < blocks; ++i) {
    block.index = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                   static_cast<unsigned>(i / grid.x / grid.y)};
    // Of the exact size and fresh for each block: the sanitizer sees an access past the end, and
    // what an earlier block left behind cannot help.
    block.dynamic.reset(new (std::align_val_t{16}) unsigned char[shared ? shared : 1]);
    block.dynamic_size = shared;
    memset(block.dynamic.get(), kFill, shared);
    if (fixed) memset(__start_simt_shared, kFill, fixed);
    races::begin_block(block.dynamic.get(), shared, fixed ? __start_simt_shared : nullptr, fixed);
    run_block(block, options);
    races::end_block();
    operator delete[](block.dynamic.release(), std::align_val_t{16});
  }
  running = nullptr;
  munmap(stacks, bytes);
}

void barrier(Site site) { park(Wait::kBlock, site, "__syncthreads"); }

const unsigned char* exchange(const char* what, unsigned mask, const void* mine, size_t size,
                              Site site) {
  Thread& t = current();
  if (!(mask >> lane() & 1)) {
    fail("%s at %s:%d: lane %d is not in its own mask %#x", what, site.file, site.line, lane(),
         mask);
  }
  memcpy(t.given, mine, size);
  t.size = size;
  t.mask = mask;
  park(Wait::kWarp, site, what);
  return running->received.data() + running->current / kWarp * kWarp * kMaxExchange;
}

unsigned char* dynamic_shared() {
  current();
  return running->dynamic.get();
}

int lane() {
  current();
  return running->current % kWarp;
}

Index thread_index() { return current().index; }
Index block_index() { return running->index; }
Index block_size() { return running->size; }
Index grid_size() { return running->grid; }

}  // namespace simt
