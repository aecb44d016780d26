#include "base/workspace.h"

#include <array>

#include "base/buffer.h"

namespace textopia {

std::byte* thread_scratch(Scratch slot, size_t bytes) {
  thread_local std::array<Buffer<std::byte>, 2> slots;
  Buffer<std::byte>& own = slots[static_cast<size_t>(slot)];
  if (own.size() < bytes) {
    own = {};  // not both at once
    own = Buffer<std::byte>(bytes + bytes / 4);
  }
  return own.data();
}

}  // namespace textopia
