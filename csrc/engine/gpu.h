// What a denoiser on a GPU has: the device, the one stream of its graph and its kernels, and the kernels.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "cuda/module.h"

namespace textopia::engine {

class Gpu {
 public:
  // `is_emulated`: the driver is an emulator whose device memory is the host's, and the graphs run on the
  // CPU.
  Gpu(std::shared_ptr<const cuda::Device> device, std::vector<cuda::KernelImage> kernels, bool is_emulated)
      : device_(device), stream_(device), kernels_(device, std::move(kernels)), is_emulated_(is_emulated) {}

  const std::shared_ptr<const cuda::Device>& device() const { return device_; }
  const cuda::Stream& stream() const { return stream_; }
  const cuda::Kernels& kernels() const { return kernels_; }
  bool is_emulated() const { return is_emulated_; }

  // Held for a request: what shares a stream runs one after the other in any case.
  std::mutex& turn() const { return turn_; }

 private:
  std::shared_ptr<const cuda::Device> device_;
  cuda::Stream stream_;
  cuda::Kernels kernels_;
  bool is_emulated_;
  mutable std::mutex turn_;
};

}  // namespace textopia::engine
