// SPDX-License-Identifier: Apache-2.0
// Many streams of one direction: their slots, the passes that advance them, and the threads.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "../cpu/kernels.h"
#include "builder.h"

namespace affectcodec {
namespace runtime {

// Threads that wait for work; the caller is one of them.
class Workers {
 public:
  explicit Workers(int threads) {
    for (int i = 1; i < threads; ++i) {
      workers_.emplace_back([this, i] { work(i); });
    }
  }
  ~Workers() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // f(i) for every thread i below `count`; returns when all are done. f must not throw.
  template <typename F>
  void run(int count, const F& f) {
    if (count <= 1) {
      f(0);
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      // A plain pointer and function: std::function could allocate.
      context_ = &f;
      call_ = [](const void* context, int i) { (*static_cast<const F*>(context))(i); };
      count_ = count;
      left_ = count - 1;
      ++turn_;
    }
    wake_.notify_all();
    f(0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return left_ == 0; });
  }

 private:
  void work(int index) {
    uint64_t seen = 0;
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || turn_ != seen; });
      if (stop_) return;
      seen = turn_;
      if (index >= count_) continue;
      const auto call = call_;
      const void* context = context_;
      lock.unlock();
      call(context, index);
      lock.lock();
      if (--left_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  void (*call_)(const void*, int) = nullptr;
  const void* context_ = nullptr;
  uint64_t turn_ = 0;
  int count_ = 0, left_ = 0;
  bool stop_ = false;
};

// Frames of some slots: frames `first[i]` to `first[i + 1] - 1` belong to slot[i].
struct Batch {
  const int32_t* slot;
  const int32_t* frames;
  int count;
};

// Slots of one direction and the passes over them.
class Slots {
 public:
  Slots(const SlotLayout& layout, int slots, int threads, int64_t scratch_floats)
      : layout_(layout), slots_(slots), pool_(threads), bytes_(layout.bytes()) {
    memory_ = allocate(bytes_ * slots);
    for (int i = 0; i < pool_.size(); ++i) {
      scratch_.push_back(allocate(scratch_floats * static_cast<int64_t>(sizeof(float))));
    }
    segments_.resize(static_cast<size_t>(pool_.size()) * kMaxRows);
    first_.resize(static_cast<size_t>(slots) + 1);
  }

  const SlotLayout& layout() const { return layout_; }
  int slots() const { return slots_; }
  int64_t slot_bytes() const { return bytes_; }

  Slot slot(int index) {
    char* start = static_cast<char*>(memory_.get()) + bytes_ * index;
    Slot s;
    s.ints = reinterpret_cast<int64_t*>(start);
    s.doubles = reinterpret_cast<double*>(start + layout_.ints * 8);
    s.floats = reinterpret_cast<float*>(start + (layout_.ints + layout_.doubles) * 8);
    return s;
  }

  void reset(int index) {
    std::memset(static_cast<char*>(memory_.get()) + bytes_ * index, 0, static_cast<size_t>(bytes_));
  }

  // step(pass, first row, scratch, thread) for passes that cover the batch. Slots are shared out
  // among the threads, so that the frames of one stay in order.
  template <typename Step>
  void run(const Batch& batch, const Step& step) {
    first_[0] = 0;
    for (int i = 0; i < batch.count; ++i) {
      first_[static_cast<size_t>(i) + 1] = first_[static_cast<size_t>(i)] + batch.frames[i];
    }
    const int64_t rows = first_[static_cast<size_t>(batch.count)];
    const int threads = batch.count < pool_.size() ? batch.count : pool_.size();
    pool_.run(threads, [&](int thread) {
      // Bounds by rows: a slot belongs to the thread in whose share its first row lies.
      const int64_t from = rows * thread / threads, to = rows * (thread + 1) / threads;
      Segment* segment = segments_.data() + static_cast<size_t>(thread) * kMaxRows;
      float* scratch = static_cast<float*>(scratch_[static_cast<size_t>(thread)].get());
      Pass pass{segment, 0, 0};
      int64_t start = 0;
      const auto finish = [&] {
        if (pass.rows) step(pass, start, scratch, thread);
        pass.segments = pass.rows = 0;
      };
      for (int i = 0; i < batch.count; ++i) {
        const int64_t own = first_[static_cast<size_t>(i)];
        if (own < from || own >= to) continue;
        for (int done = 0; done < batch.frames[i];) {
          if (pass.rows == kMaxRows) finish();
          if (pass.rows == 0) start = own + done;
          const int left = batch.frames[i] - done, room = kMaxRows - pass.rows;
          const int size = left < room ? left : room;
          segment[pass.segments++] = Segment{slot(batch.slot[i]), pass.rows, size};
          pass.rows += size;
          done += size;
        }
      }
      finish();
    });
  }

 private:
  SlotLayout layout_;
  int slots_;
  Workers pool_;
  int64_t bytes_;
  Memory memory_;
  std::vector<Memory> scratch_;
  std::vector<Segment> segments_;
  std::vector<int64_t> first_;
};

}  // namespace runtime
}  // namespace affectcodec
