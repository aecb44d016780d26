// What the outside may do to a run while it goes on: cancel it, bound its time, watch its progress.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include "ort/session.h"

namespace textopia::engine {

// Cancels every run that it was given to, from any thread. Sticky: a cancelled token stays cancelled.
class CancelToken {
 public:
  void cancel() {
    is_cancelled_.store(true, std::memory_order_release);
    std::lock_guard lock(mutex_);
    for (ort::RunControl* control : running_) control->terminate();
  }
  bool is_cancelled() const { return is_cancelled_.load(std::memory_order_acquire); }

  // From here to forget(), cancel() also stops the graph that runs under `control` at its next node.
  void watch(ort::RunControl* control) {
    std::lock_guard lock(mutex_);
    running_.push_back(control);
    if (is_cancelled()) control->terminate();
  }
  void forget(ort::RunControl* control) {
    std::lock_guard lock(mutex_);
    std::erase(running_, control);
  }

 private:
  std::atomic<bool> is_cancelled_{false};
  std::mutex mutex_;
  std::vector<ort::RunControl*> running_;
};

// watch() for a scope; `token` may be nullptr.
class CancelGuard {
 public:
  CancelGuard(CancelToken* token, ort::RunControl* control) : token_(token), control_(control) {
    if (token_) token_->watch(control_);
  }
  ~CancelGuard() {
    if (token_) token_->forget(control_);
  }
  CancelGuard(const CancelGuard&) = delete;
  CancelGuard& operator=(const CancelGuard&) = delete;

 private:
  CancelToken* token_;
  ort::RunControl* control_;
};

// Steps done so far; written by the loop, read by anybody.
struct Progress {
  std::atomic<int> steps_done{0};
  std::atomic<int> steps_total{0};
};

using Clock = std::chrono::steady_clock;

struct Limits {
  CancelToken* cancel = nullptr;
  std::optional<Clock::time_point> deadline;
  std::atomic<bool>* interrupt = nullptr;  // set by Ctrl-C; the loop clears it and calls on_interrupt
  std::function<void()> on_interrupt;      // may throw to end the run
};

}  // namespace textopia::engine
