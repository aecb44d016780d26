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

  // While a guard lives, cancel() also stops the graph that runs under `control` at its next node.
  class Guard {
   public:
    Guard(CancelToken* token, ort::RunControl* control) : token_(token), control_(control) {
      if (!token_) return;
      std::lock_guard lock(token_->mutex_);
      token_->running_.push_back(control_);
      if (token_->is_cancelled()) control_->terminate();
    }
    ~Guard() {
      if (!token_) return;
      std::lock_guard lock(token_->mutex_);
      std::erase(token_->running_, control_);
    }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    CancelToken* token_;
    ort::RunControl* control_;
  };

 private:
  std::atomic<bool> is_cancelled_{false};
  std::mutex mutex_;
  std::vector<ort::RunControl*> running_;
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
