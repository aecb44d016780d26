// Ctrl-C while the loop runs without the interpreter: a flag that the loop can read at no cost.
#pragma once

#include <atomic>

namespace textopia::engine {

// While one lives on the main thread, SIGINT also sets a flag; the handler that was there before (Python's)
// still runs, and is put back at the end unless a callback installed another one. On other threads, and where
// SIGINT is ignored or has its default action, it does nothing.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  // nullptr when this guard watches nothing.
  std::atomic<bool>* flag() const;

 private:
  bool is_watching_ = false;
};

}  // namespace textopia::engine
