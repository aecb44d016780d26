#include "cuda/module.h"

#include <algorithm>

namespace textopia::cuda {
namespace {

constexpr int kPlainSharedBytes = 48 * 1024;  // more has to be asked for
constexpr unsigned kWarp = 32;

unsigned checked_size(size_t size, size_t most, const std::string& name) {
  check(size > 0 && size <= most, code::kInvalidRequest, name, ": a grid of ", size,
        " programs, allowed are 1 to ", most);
  return static_cast<unsigned>(size);
}

// Kernels that cut a tensor into ranges call their length so, or count in groups of 32.
int elements_of(const KernelImage& image) {
  const auto value = [&](const char* name) {
    const auto found = image.constants.find(name);
    return found == image.constants.end() ? 0 : found->second;
  };
  return value("BLOCK") > 0 ? value("BLOCK") : 32 * value("GROUPS");
}

}  // namespace

int KernelImage::constant(const std::string& constant_name) const {
  const auto found = constants.find(constant_name);
  check(found != constants.end(), code::kConfiguration, "kernel ", name, ": its archive says no ",
        constant_name);
  return found->second;
}

Kernel::Kernel(std::shared_ptr<const Device> device, const KernelImage& image)
    : name_(image.name),
      device_(std::move(device)),
      image_(&image),
      threads_(static_cast<unsigned>(image.warps) * kWarp),
      shared_bytes_(static_cast<unsigned>(image.shared_bytes)),
      elements_(elements_of(image)) {
  const CurrentDevice current(*device_);
  const api::Table& api = device_->api();
  api::Module* raw = nullptr;
  try {
    device_->call(api.cuModuleLoadData, &raw, static_cast<const void*>(image.cubin.data()));
    module_ = ModuleOwner(device_, raw);
    device_->call(api.cuModuleGetFunction, &function_, raw, image.function.c_str());
  } catch (const Error& error) {
    if (error.code() == std::string_view(code::kDeviceLost)) throw;
    throw Error(code::kConfiguration,
                text("kernel ", name_, ": not usable on ", device_->info().name, ", sm_",
                     device_->info().architecture, ": ", error.what()),
                error.details());
  }
  if (image.shared_bytes > kPlainSharedBytes)
    device_->call(api.cuFuncSetAttribute, function_, api::kMaxDynamicSharedBytes, image.shared_bytes);
}

void Kernel::launch(api::Stream* stream, const Grid& grid, Parameters parameters) const {
  const size_t count = parameters.count_;
  const std::vector<uint8_t>& wanted = image_->parameter_bytes;
  check(count == wanted.size() && std::equal(wanted.begin(), wanted.end(), parameters.bytes_.begin()),
        code::kInternal, "kernel ", name_, ": launched with ", count, " parameters, it was compiled for ",
        wanted.size(), " of other sizes");
  // Triton's kernels end with the addresses of two scratch areas; ours need none.
  api::Pointer no_scratch = 0;
  parameters.addresses_[count] = &no_scratch;
  parameters.addresses_[count + 1] = &no_scratch;
  device_->call(device_->api().cuLaunchKernel, function_, checked_size(grid.x, Grid::kMostX, name_),
                checked_size(grid.y, Grid::kMostY, name_), checked_size(grid.z, Grid::kMostY, name_),
                threads_, 1u, 1u, shared_bytes_, stream, parameters.addresses_.data(),
                static_cast<void**>(nullptr));
}

Kernels::Kernels(std::shared_ptr<const Device> device, std::vector<KernelImage> images)
    : device_(std::move(device)) {
  for (KernelImage& image : images) {
    std::string name = image.name;
    images_.emplace(std::move(name), std::move(image));
  }
}

const Kernel* Kernels::find(const std::string& name) const {
  std::lock_guard lock(mutex_);
  if (const auto found = loaded_.find(name); found != loaded_.end()) return &found->second;
  const auto image = images_.find(name);
  if (image == images_.end()) return nullptr;
  return &loaded_.emplace(name, Kernel(device_, image->second)).first->second;
}

const Kernel& Kernels::get(const std::string& name) const {
  if (const Kernel* kernel = find(name)) return *kernel;
  throw Error(code::kConfiguration,
              text("kernel ", name, ": there is none for sm_", device_->info().architecture, "; ",
                   images_.size(), " others are there."),
              {{"component", device_->label()}});
}

}  // namespace textopia::cuda
