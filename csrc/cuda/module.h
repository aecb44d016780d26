// Kernels compiled ahead of time (kernels/build.py): loaded from cubins, launched with Triton's parameter
// convention.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

#include "cuda/device.h"

namespace textopia::cuda {

// One entry of an archive of kernels/build.py.
struct KernelImage {
  std::string name;                      // "combine.fp16.even_noise"
  std::string function;                  // entry point in the cubin
  std::string cubin;                     // the file, or the text of PTX
  std::vector<uint8_t> parameter_bytes;  // size of each parameter, in order, without the scratch pointers
  int warps = 4;                         // 32 threads each
  int shared_bytes = 0;                  // dynamic shared memory
  std::map<std::string, int> constants;  // compile-time parameters: tile sizes, flags

  // Throws Error{configuration} when there is no such constant.
  int constant(const std::string& constant_name) const;
};

// The addresses of a launch's parameters, in order. They are read during the launch and not kept.
class Parameters {
 public:
  template <typename T>
  Parameters& add(const T& value) {
    static_assert(std::is_arithmetic_v<T>);
    return add_bytes(&value, sizeof(T));
  }
  Parameters& add_bytes(const void* value, size_t bytes) {
    check(count_ < kMax, code::kInternal, "a launch of more than ", kMax, " parameters");
    addresses_[count_] = const_cast<void*>(value);
    bytes_[count_++] = static_cast<uint8_t>(bytes);
    return *this;
  }
  template <typename T, size_t kCount>
  Parameters& add(const std::array<T, kCount>& values) {
    for (const T& value : values) add(value);
    return *this;
  }

 private:
  friend class Kernel;
  static constexpr size_t kMax = 96;
  static constexpr size_t kScratchPointers = 2;
  std::array<void*, kMax + kScratchPointers> addresses_;
  std::array<uint8_t, kMax> bytes_;
  size_t count_ = 0;
};

// Programs of a launch.
struct Grid {
  static constexpr size_t kMostX = 0x7FFFFFFF, kMostY = 65535;  // z as y

  size_t x = 1, y = 1, z = 1;
};

class Kernel {
 public:
  // Throws Error{configuration} when the code is not for this device or lacks the function. `image` is kept.
  Kernel(std::shared_ptr<const Device> device, const KernelImage& image);

  // Asynchronous. Throws Error{internal} unless `parameters` are those that the kernel was compiled for. The
  // device must be current; `stream` is one of it.
  void launch(api::Stream* stream, const Grid& grid, Parameters parameters) const;
  void launch(const Stream& stream, const Grid& grid, const Parameters& parameters) const {
    launch(stream.get(), grid, parameters);
  }

  const std::string& name() const { return name_; }
  int constant(const std::string& name) const { return image_->constant(name); }
  // Elements that one program covers, where programs cut a tensor into ranges; 0 elsewhere.
  int elements() const { return elements_; }

 private:
  std::string name_;
  std::shared_ptr<const Device> device_;
  const KernelImage* image_;  // its Kernels' own
  ModuleOwner module_;
  api::Function* function_ = nullptr;
  unsigned threads_;
  unsigned shared_bytes_;
  int elements_;
};

// The kernels of one device by name, loaded at the first use of each.
class Kernels {
 public:
  Kernels(std::shared_ptr<const Device> device, std::vector<KernelImage> images);

  // Throws Error{configuration} when there is none of that name.
  const Kernel& get(const std::string& name) const;
  // Null when there is none of that name.
  const Kernel* find(const std::string& name) const;

  // What there is, loaded or not.
  const std::map<std::string, KernelImage>& images() const { return images_; }
  const Device& device() const { return *device_; }

 private:
  std::shared_ptr<const Device> device_;
  std::map<std::string, KernelImage> images_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, Kernel> loaded_;
};

}  // namespace textopia::cuda
