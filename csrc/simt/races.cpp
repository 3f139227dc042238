// SPDX-License-Identifier: Apache-2.0
#include "races.h"

#include <stdint.h>

#include <vector>

#include "simt.h"

namespace simt {
namespace races {
namespace {

constexpr uintptr_t kGrain = 2;  // bytes of one note; no kernel shares memory in single bytes

struct Access {
  int thread = -1;
  uint32_t block_time = 0, warp_time = 0;
};

struct Note {
  bool written = false;
  Access write;
  // The last reads. Several readers of one warp are one entry; of several warps, `warp` is -1.
  bool read = false, many = false;
  int warp = -1;
  Access last_read;
};

struct Region {
  uintptr_t begin = 0, end = 0;
  std::vector<Note> notes;

  void open(const unsigned char* data, size_t size) {
    begin = reinterpret_cast<uintptr_t>(data);
    end = begin + size;
    notes.assign((size + kGrain - 1) / kGrain, Note());
  }
};

Region regions[2];
bool watching = false;
int running_thread = -1;
uint32_t block_time = 0;
uint32_t warp_times[kMaxThreads / kWarp];

// Whether a barrier stands between an earlier access and the running thread.
bool ordered(const Access& a) {
  if (a.block_time != block_time) return true;
  const int warp = running_thread / kWarp;
  return a.thread / kWarp == warp && a.warp_time != warp_times[warp];
}

bool reads_ordered(const Note& n) {
  if (!n.read || n.last_read.block_time != block_time) return true;
  if (n.warp < 0) return false;
  const int warp = running_thread / kWarp;
  if (!n.many && n.last_read.thread == running_thread) return true;
  return n.warp == warp && n.last_read.warp_time != warp_times[warp];
}

Access now() { return Access{running_thread, block_time, warp_times[running_thread / kWarp]}; }

[[maybe_unused]] void touch(uintptr_t address, size_t size, bool write) {
  if (!watching || running_thread < 0) return;
  for (Region& region : regions) {
    if (address < region.begin || address >= region.end) continue;
    const char* kind = &region == &regions[0] ? "dynamic" : "static";
    const uintptr_t last = (address + size - 1 - region.begin) / kGrain;
    for (uintptr_t i = (address - region.begin) / kGrain; i <= last && i < region.notes.size();
         ++i) {
      Note& n = region.notes[i];
      const unsigned long byte = i * kGrain;
      if (n.written && n.write.thread != running_thread && !ordered(n.write)) {
        fail(
            "thread %d %s byte %lu of %s shared memory, which thread %d wrote with no barrier "
            "between",
            running_thread, write ? "writes" : "reads", byte, kind, n.write.thread);
      }
      if (write) {
        if (!reads_ordered(n)) {
          fail(
              "thread %d writes byte %lu of %s shared memory, which thread %d read with no "
              "barrier between",
              running_thread, byte, kind, n.last_read.thread);
        }
        n.written = true;
        n.write = now();
        n.read = false;
      } else {
        if (!n.written) {
          fail(
              "thread %d reads byte %lu of %s shared memory, which nothing has written before it "
              "and a barrier",
              running_thread, byte, kind);
        }
        const bool same_time = n.read && n.last_read.block_time == block_time;
        const int warp = running_thread / kWarp;
        n.many = same_time && (n.many || n.last_read.thread != running_thread);
        n.warp = same_time && n.warp != warp ? -1 : warp;
        n.read = true;
        n.last_read = now();
      }
    }
  }
}

}  // namespace

void begin_block(const unsigned char* dynamic, size_t dynamic_size, const unsigned char* fixed,
                 size_t fixed_size) {
#if defined(SIMT_RACES)
  regions[0].open(dynamic, dynamic_size);
  regions[1].open(fixed, fixed_size);
  watching = true;
  block_time = 1;
  for (uint32_t& time : warp_times) time = 1;
#else
  (void)dynamic, (void)dynamic_size, (void)fixed, (void)fixed_size;
#endif
}

void end_block() { watching = false; }
void thread(int id) { running_thread = id; }
void block_barrier() { ++block_time; }
void warp_barrier(int warp) { ++warp_times[warp]; }

}  // namespace races
}  // namespace simt

#if defined(SIMT_RACES)
// What the compiler calls at each access; see -fsanitize=thread.
extern "C" {
#define SIMT_ACCESS(size)                                            \
  void __tsan_read##size(void* p) {                                  \
    simt::races::touch(reinterpret_cast<uintptr_t>(p), size, false); \
  }                                                                  \
  void __tsan_write##size(void* p) {                                 \
    simt::races::touch(reinterpret_cast<uintptr_t>(p), size, true);  \
  }                                                                  \
  void __tsan_unaligned_read##size(void* p) {                        \
    simt::races::touch(reinterpret_cast<uintptr_t>(p), size, false); \
  }                                                                  \
  void __tsan_unaligned_write##size(void* p) {                       \
    simt::races::touch(reinterpret_cast<uintptr_t>(p), size, true);  \
  }                                                                  \
  void __tsan_volatile_read##size(void* p) { __tsan_read##size(p); } \
  void __tsan_volatile_write##size(void* p) { __tsan_write##size(p); }
SIMT_ACCESS(1)
SIMT_ACCESS(2)
SIMT_ACCESS(4)
SIMT_ACCESS(8)
SIMT_ACCESS(16)
void __tsan_read_range(void* p, size_t size) {
  simt::races::touch(reinterpret_cast<uintptr_t>(p), size, false);
}
void __tsan_write_range(void* p, size_t size) {
  simt::races::touch(reinterpret_cast<uintptr_t>(p), size, true);
}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit(void) {}
void __tsan_init(void) {}
}
#endif
