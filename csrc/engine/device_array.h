// Tensors on a GPU that cross the border: the caller's, read where they lie, and samples that stay there.
#pragma once

#include <memory>

#include "base/tensor.h"
#include "engine/gpu.h"

namespace textopia::engine {

// Dense and row-major. What has been copied or computed is complete; only memory of the caller's may still be
// written when it comes in, by work that the GPU's stream waits for.
class DeviceArray {
 public:
  // New memory, not initialised. Throws out_of_memory.
  DeviceArray(std::shared_ptr<const Gpu> gpu, DType dtype, Shape shape);
  // The caller's memory, for as long as `owner` lives.
  DeviceArray(std::shared_ptr<const Gpu> gpu, cuda::api::Pointer data, DType dtype, Shape shape,
              std::shared_ptr<const void> owner, bool is_read_only);
  static DeviceArray of_host(std::shared_ptr<const Gpu> gpu, const TensorView& tensor);

  const std::shared_ptr<const Gpu>& gpu() const { return gpu_; }
  cuda::api::Pointer data() const { return data_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  size_t bytes() const { return byte_count(shape_, size_of(dtype_)); }
  bool is_read_only() const { return is_read_only_; }
  bool is_foreign() const { return is_foreign_; }  // memory of the caller's
  const std::shared_ptr<const void>& owner() const { return owner_; }

  // Of another floating-point type, times `scale`; the array itself where neither changes anything. Throws
  // invalid_request on other types.
  DeviceArray converted(DType dtype, double scale) const;
  // Every row of the first axis `count` times, one after the other.
  DeviceArray repeated(size_t count) const;
  void download(void* target) const;
  // Waits until nothing writes it any more.
  void wait() const;

 private:
  DeviceArray widened(double scale) const;  // to float32
  DeviceArray narrowed(DType dtype, double scale) const;

  std::shared_ptr<const Gpu> gpu_;
  DType dtype_;
  Shape shape_;
  cuda::api::Pointer data_ = 0;
  std::shared_ptr<const void> owner_;
  bool is_read_only_ = false, is_foreign_ = false;
};

}  // namespace textopia::engine
