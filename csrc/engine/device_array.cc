#include "engine/device_array.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "engine/launches.h"

namespace textopia::engine {
namespace {

constexpr size_t kKernelAlignment = 16;  // of what kernels are given

// The GPU for a scope, at the end of which everything has been waited for: the memory may then go.
class Work {
 public:
  explicit Work(const Gpu& gpu) : gpu_(gpu), turn_(gpu.turn()), current_(*gpu.device()) {}
  void finish() const { gpu_.stream().wait(); }

 private:
  const Gpu& gpu_;
  std::lock_guard<std::mutex> turn_;
  cuda::CurrentDevice current_;
};

// One launch of COMBINE converts, too: latents are float32, network outputs and inputs of the kernel's type.
void launch_combine(const Gpu& gpu, const char* dtype, size_t count, CombineLaunch sum) {
  check(count <= static_cast<size_t>(std::numeric_limits<int32_t>::max()), code::kInvalidRequest,
        "an array of ", count, " elements on a GPU; 2147483647 are allowed");
  // Where the kernel marks what is not finite, which nobody reads here.
  const cuda::DeviceBuffer bad_step(gpu.device(), sizeof(int32_t));
  sum.bad_step = bad_step.get();
  sum.size = static_cast<int32_t>(count);
  sum.image_count = sum.images_per_run = 1;
  const cuda::Kernel& kernel = gpu.kernels().get(text("combine.", dtype, ".any"));
  const auto elements = static_cast<size_t>(std::max(kernel.elements(), 1));
  kernel.launch(gpu.stream(), {(count + elements - 1) / elements}, sum.parameters());
  gpu.stream().wait();
}

const char* kernel_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return "fp32";
    case DType::kFloat16: return "fp16";
    case DType::kBFloat16: return "bf16";
    default: return nullptr;
  }
}

}  // namespace

DeviceArray::DeviceArray(std::shared_ptr<const Gpu> gpu, DType dtype, Shape shape)
    : gpu_(std::move(gpu)), dtype_(dtype), shape_(std::move(shape)) {
  const std::lock_guard turn(gpu_->turn());  // a graph that is being captured allows nobody to allocate
  auto buffer = std::make_shared<cuda::DeviceBuffer>(gpu_->device(), bytes());
  data_ = buffer->get();
  owner_ = std::move(buffer);
}

DeviceArray::DeviceArray(std::shared_ptr<const Gpu> gpu, cuda::api::Pointer data, DType dtype, Shape shape,
                         std::shared_ptr<const void> owner, bool is_read_only)
    : gpu_(std::move(gpu)),
      dtype_(dtype),
      shape_(std::move(shape)),
      data_(data),
      owner_(std::move(owner)),
      is_read_only_(is_read_only),
      is_foreign_(true) {}

DeviceArray DeviceArray::of_host(std::shared_ptr<const Gpu> gpu, const TensorView& tensor) {
  DeviceArray array(std::move(gpu), tensor.dtype, tensor.shape);
  const Work work(*array.gpu_);
  cuda::upload(array.gpu_->stream(), array.data_, tensor.data, array.bytes());
  work.finish();
  return array;
}

DeviceArray DeviceArray::converted(DType dtype, double scale) const {
  if (dtype == dtype_ && scale == 1.0) return *this;
  const bool is_possible = kernel_type(dtype) != nullptr && kernel_type(dtype_) != nullptr;
  check(is_possible, code::kInvalidRequest, "an array of ", name_of(dtype_), " on ", gpu_->device()->label(),
        "; ", name_of(dtype), " is allowed here");
  if (bytes() == 0) return DeviceArray(gpu_, dtype, shape_);
  if (data_ % kKernelAlignment != 0) return repeated(1).converted(dtype, scale);
  if (dtype == DType::kFloat32) return widened(scale);
  if (dtype_ == DType::kFloat32) return narrowed(dtype, scale);
  return widened(1.0).narrowed(dtype, scale);
}

DeviceArray DeviceArray::widened(double scale) const {
  DeviceArray result(gpu_, DType::kFloat32, shape_);
  const Work work(*gpu_);
  const size_t count = element_count(shape_);
  CombineLaunch sum;
  if (dtype_ == DType::kFloat32) {
    sum.latents[0] = data_;
    sum.latent_weights[0] = static_cast<float>(scale);
  } else {
    sum.outputs[0] = data_;
    sum.positive_weights[0] = static_cast<float>(scale);
  }
  sum.target = result.data_;
  sum.target_size = static_cast<int32_t>(count);
  launch_combine(*gpu_, kernel_type(dtype_), count, sum);
  return result;
}

DeviceArray DeviceArray::narrowed(DType dtype, double scale) const {
  DeviceArray result(gpu_, dtype, shape_);
  const Work work(*gpu_);
  CombineLaunch sum;
  sum.latents[0] = data_;
  sum.latent_weights[0] = static_cast<float>(scale);
  sum.network_input = result.data_;
  sum.input_halves = 1;
  launch_combine(*gpu_, kernel_type(dtype), element_count(shape_), sum);
  return result;
}

DeviceArray DeviceArray::repeated(size_t count) const {
  Shape shape = shape_;
  size_t rows = 1;
  if (!shape.empty()) {
    rows = static_cast<size_t>(shape[0]);
    check(!__builtin_mul_overflow(shape[0], static_cast<int64_t>(count), &shape[0]), code::kInvalidRequest,
          "an array of shape ", to_string(shape_), ", ", count, " times");
  }
  DeviceArray result(gpu_, dtype_, shape);
  if (result.bytes() == 0) return result;
  const Work work(*gpu_);
  // Once is one copy; more are one for each new row.
  const size_t pieces = count == 1 ? 1 : rows, bytes = this->bytes() / pieces;
  for (size_t i = 0; i < pieces * count; ++i)
    cuda::copy(gpu_->stream(), result.data_ + i * bytes, data_ + i / count * bytes, bytes);
  work.finish();
  return result;
}

void DeviceArray::download(void* target) const {
  const Work work(*gpu_);
  cuda::download(gpu_->stream(), target, data_, bytes());
  work.finish();
}

void DeviceArray::wait() const { Work(*gpu_).finish(); }

}  // namespace textopia::engine
