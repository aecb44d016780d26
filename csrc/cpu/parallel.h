// Work cut into numbered tasks, done by whatever threads the caller has.
#pragma once

#include <cstddef>

namespace textopia::cpu {

class PlanSource;

class Parallel {
 public:
  using Run = void (*)(void* threads, size_t count, void (*task)(const void*, size_t), const void* data);

  // `count` threads, the caller's among them. Without `plans` they are computed.
  Parallel(void* threads, Run run, int count, PlanSource* plans = nullptr)
      : threads_(threads), run_(run), count_(count), plans_(plans) {}

  int count() const { return count_; }
  PlanSource* plans() const { return plans_; }

  // task(0) .. task(count - 1), each once, in any order and on any thread; returns when all are done.
  template <typename Task>
  void operator()(size_t count, const Task& task) const {
    run_(threads_, count, [](const void* data, size_t i) { (*static_cast<const Task*>(data))(i); }, &task);
  }

 private:
  void* threads_;
  Run run_;
  int count_;
  PlanSource* plans_;
};

}  // namespace textopia::cpu
