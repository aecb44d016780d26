// Memory that a thread keeps between the calls of kernels, so that a run allocates nothing after the first.
#pragma once

#include <cstddef>

namespace textopia {

// A kernel that spreads its work over threads may use one slot for what all threads see (taken by the thread
// that calls) and the other for what one task needs.
enum class Scratch { kShared, kTask };

// At least `bytes` bytes, aligned to 64, not initialised, of this thread alone and valid until its next call
// with the same slot. Throws Error{out_of_memory}.
std::byte* thread_scratch(Scratch slot, size_t bytes);

// Cuts one piece of scratch into aligned arrays. Run the same cuts over a null carver first to learn bytes().
class Carver {
 public:
  explicit Carver(std::byte* memory = nullptr) : memory_(memory) {}

  template <typename T>
  T* take(size_t count) {
    std::byte* begin = memory_ != nullptr ? memory_ + used_ : nullptr;
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    return reinterpret_cast<T*>(begin);
  }

  size_t bytes() const { return used_; }

 private:
  std::byte* memory_;
  size_t used_ = 0;
};

}  // namespace textopia
