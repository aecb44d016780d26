#include "cuda/module.h"

#include <algorithm>
#include <limits>

namespace textopia::cuda {
namespace {

constexpr int kPlainSharedBytes = 48 * 1024;  // more has to be asked for
constexpr unsigned kWarp = 32;

unsigned checked_size(size_t size, const std::string& name) {
  check(size > 0 && size <= std::numeric_limits<int32_t>::max(), code::kInvalidRequest, name, ": a grid of ",
        size, " programs, allowed are 1 to 2147483647");
  return static_cast<unsigned>(size);
}

}  // namespace

Kernel::Kernel(std::shared_ptr<const Device> device, const KernelImage& image)
    : name_(image.name),
      parameter_bytes_(image.parameter_bytes),
      threads_(static_cast<unsigned>(image.warps) * kWarp),
      shared_bytes_(static_cast<unsigned>(image.shared_bytes)),
      elements_(image.elements) {
  const CurrentDevice current(*device);
  const api::Table& api = device->api();
  api::Module* raw = nullptr;
  try {
    device->call(api.cuModuleLoadData, &raw, static_cast<const void*>(image.cubin.data()));
    module_ = ModuleOwner(device, raw);
    device->call(api.cuModuleGetFunction, &function_, raw, image.function.c_str());
  } catch (const Error& error) {
    if (error.code() == std::string_view(code::kDeviceLost)) throw;
    throw Error(code::kConfiguration,
                text("kernel ", name_, ": not usable on ", device->info().name, ", sm_",
                     device->info().architecture, ": ", error.what()),
                error.details());
  }
  if (image.shared_bytes > kPlainSharedBytes)
    device->call(api.cuFuncSetAttribute, function_, api::kMaxDynamicSharedBytes, image.shared_bytes);
}

void Kernel::launch(const Stream& stream, const Grid& grid, Parameters parameters) const {
  const size_t count = parameters.count_;
  check(count == parameter_bytes_.size() &&
            std::equal(parameter_bytes_.begin(), parameter_bytes_.end(), parameters.bytes_.begin()),
        code::kInternal, "kernel ", name_, ": launched with ", count, " parameters, it was compiled for ",
        parameter_bytes_.size(), " of other sizes");
  // Triton's kernels end with the addresses of two scratch areas; ours need none.
  api::Pointer no_scratch = 0;
  parameters.addresses_[count] = &no_scratch;
  parameters.addresses_[count + 1] = &no_scratch;
  const Device& device = stream.device();
  device.call(device.api().cuLaunchKernel, function_, checked_size(grid.x, name_),
              checked_size(grid.y, name_), checked_size(grid.z, name_), threads_, 1u, 1u, shared_bytes_,
              stream.get(), parameters.addresses_.data(), static_cast<void**>(nullptr));
}

Kernels::Kernels(std::shared_ptr<const Device> device, std::vector<KernelImage> images)
    : device_(std::move(device)) {
  for (KernelImage& image : images) {
    std::string name = image.name;
    images_.emplace(std::move(name), std::move(image));
  }
}

const Kernel& Kernels::get(const std::string& name) const {
  std::lock_guard lock(mutex_);
  if (const auto found = loaded_.find(name); found != loaded_.end()) return found->second;
  const auto image = images_.find(name);
  if (image == images_.end())
    throw Error(code::kConfiguration,
                text("kernel ", name, ": there is none for sm_", device_->info().architecture, "; ",
                     images_.size(), " others are there."),
                {{"component", device_->label()}});
  return loaded_.emplace(name, Kernel(device_, image->second)).first->second;
}

std::vector<std::string> Kernels::names() const {
  std::vector<std::string> names;
  for (const auto& [name, image] : images_) names.push_back(name);
  return names;
}

}  // namespace textopia::cuda
