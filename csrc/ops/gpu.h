// What the operators on a GPU share: their kernels, and the way to launch them.
#pragma once

#include <memory>
#include <string>

#include "cuda/module.h"
#include "ort/custom_op.h"

namespace textopia::ops {

// The GPU of a session.
struct GpuQueue {
  std::shared_ptr<const void> owner;  // of the two below
  const cuda::Kernels* kernels = nullptr;
  const cuda::Stream* stream = nullptr;  // for an emulated device, whose provider has no streams
};

// A node's part of a GPU: found when the node's kernel is made, so that what is missing is found there, too.
class GpuNode {
 public:
  GpuNode(const ort::NodeInfo& node, const GpuQueue& queue);

  const std::string& name() const { return name_; }
  DType dtype() const { return dtype_; }
  size_t element_bytes() const { return size_of(dtype_); }
  const GpuQueue& queue() const { return queue_; }

  // "group_norm.fp16." for "group_norm".
  std::string prefix(const char* kernel) const;
  // Loads it. Throws what Kernels::get throws, with the node's name.
  const cuda::Kernel& load(const std::string& kernel) const;
  // The one of "PREFIXw16SUFFIX", "PREFIXw32SUFFIX" ... with the smallest WIDTH that holds `width`; null
  // where there is none.
  const cuda::Kernel* find_narrowest(const char* kernel, const std::string& suffix, int64_t width) const;
  // The same; throws Error{model_unsupported} with the widths that there are.
  const cuda::Kernel& narrowest(const char* kernel, const std::string& suffix, int64_t width,
                                const char* what) const;

  // Channels of a node whose kernel is chosen by them: the length of its constant input 1.
  int64_t channels_of_gamma(const ort::NodeInfo& node) const;

  // The address of what a kernel was promised to find at a multiple of 16 bytes.
  cuda::api::Pointer address(const void* data, const char* what) const;
  // A size that kernels take as int32.
  int32_t small(int64_t size, const char* what) const;

 private:
  std::string name_;
  DType dtype_;
  GpuQueue queue_;
};

// The launches of one run of a node; the device is current while it lives.
class GpuRun {
 public:
  GpuRun(const GpuNode& node, const ort::OpRun& run);
  void launch(const cuda::Kernel& kernel, const cuda::Grid& grid, const cuda::Parameters& parameters) const;

 private:
  cuda::CurrentDevice current_;
  cuda::api::Stream* stream_;
};

// How many of `count` things, `programs` grid rows each, go into one launch: all, or a multiple of 8 of them,
// which leaves the addresses of 16-bit elements aligned.
int64_t per_launch(int64_t count, int64_t programs);

}  // namespace textopia::ops
