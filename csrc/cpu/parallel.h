// Work cut into numbered tasks, done by whatever threads the caller has.
#pragma once

#include <cstddef>

namespace textopia::cpu {

class Parallel {
 public:
  using Run = void (*)(void* threads, size_t count, void (*task)(const void*, size_t), const void* data);

  Parallel(void* threads, Run run) : threads_(threads), run_(run) {}

  // task(0) .. task(count - 1), each once, in any order and on any thread; returns when all are done.
  template <typename Task>
  void operator()(size_t count, const Task& task) const {
    run_(threads_, count, [](const void* data, size_t i) { (*static_cast<const Task*>(data))(i); }, &task);
  }

 private:
  void* threads_;
  Run run_;
};

}  // namespace textopia::cpu
