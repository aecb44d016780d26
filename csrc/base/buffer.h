// Owned memory aligned for the widest vector unit; not initialised.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <limits>
#include <memory>

#include "base/error.h"

namespace textopia {

template <typename T>
class Buffer {
 public:
  Buffer() = default;

  // Throws Error{out_of_memory} that names the size.
  explicit Buffer(size_t count) : count_(count) {
    if (count == 0) return;
    check(count <= std::numeric_limits<size_t>::max() / sizeof(T) - kAlignment, code::kOutOfMemory,
          "a buffer of ", count, " elements is larger than the address space");
    const size_t bytes = (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    memory_.reset(static_cast<T*>(std::aligned_alloc(kAlignment, bytes)));
    check(memory_ != nullptr, code::kOutOfMemory, "no memory for a buffer of ", bytes, " bytes");
  }

  T* data() { return memory_.get(); }
  const T* data() const { return memory_.get(); }
  size_t size() const { return count_; }

 private:
  static constexpr size_t kAlignment = 64;
  struct Free {
    void operator()(T* pointer) const { std::free(pointer); }
  };
  std::unique_ptr<T, Free> memory_;
  size_t count_ = 0;
};

}  // namespace textopia
