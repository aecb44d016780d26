#include "ops/gpu.h"

#include <limits>
#include <set>

namespace textopia::ops {
namespace {

constexpr uintptr_t kAlignment = 16;

const char* short_name(DType dtype) {
  return dtype == DType::kFloat16 ? "fp16" : dtype == DType::kBFloat16 ? "bf16" : "fp32";
}

}  // namespace

GpuNode::GpuNode(const ort::NodeInfo& node, const GpuQueue& queue)
    : name_(node.name()), dtype_(node.activation_type()), queue_(queue) {}

std::string GpuNode::prefix(const char* kernel) const { return text(kernel, ".", short_name(dtype_), "."); }

const cuda::Kernel& GpuNode::load(const std::string& kernel) const {
  try {
    return queue_.kernels->get(kernel);
  } catch (const Error& error) {
    throw Error(error.code(), text(name_, ": ", error.what()), error.details());
  }
}

const cuda::Kernel* GpuNode::find_narrowest(const char* kernel, const std::string& suffix,
                                            int64_t width) const {
  const std::string stem = prefix(kernel) + "w";
  const auto& images = queue_.kernels->images();
  const cuda::KernelImage* best = nullptr;
  for (auto it = images.lower_bound(stem); it != images.end() && it->first.starts_with(stem); ++it) {
    const cuda::KernelImage& image = it->second;
    const int found = image.constant("WIDTH");
    if (found < width || it->first != text(stem, found, suffix)) continue;
    if (best == nullptr || found < best->constant("WIDTH")) best = &image;
  }
  return best == nullptr ? nullptr : &load(best->name);
}

const cuda::Kernel& GpuNode::narrowest(const char* kernel, const std::string& suffix, int64_t width,
                                       const char* what) const {
  if (const cuda::Kernel* found = find_narrowest(kernel, suffix, width)) return *found;
  std::set<int> widths;
  for (const auto& [name, image] : queue_.kernels->images())
    if (name.starts_with(prefix(kernel)) &&
        name == text(prefix(kernel), "w", image.constant("WIDTH"), suffix))
      widths.insert(image.constant("WIDTH"));
  std::string found;
  for (int one : widths) found += text(found.empty() ? "" : ", ", one);
  throw Error(code::kModelUnsupported,
              text(name_, ": no kernel ", prefix(kernel), "w*", suffix, " for ", width, " ", what,
                   "; on this GPU there are those for up to ", found.empty() ? "none" : found));
}

int64_t GpuNode::channels_of_gamma(const ort::NodeInfo& node) const {
  const ort::Tensor gamma = node.constant(1);
  check(gamma && gamma.dims.rank() == 1 && gamma.dims[0] > 0, code::kModelUnsupported, name_,
        ": on a GPU gamma has to be a constant of the graph, [channels]: the kernel is chosen by its size");
  return gamma.dims[0];
}

cuda::api::Pointer GpuNode::address(const void* data, const char* what) const {
  const auto address = reinterpret_cast<uintptr_t>(data);
  check(address % kAlignment == 0, code::kInvalidRequest, name_, ": ", what, " begins ", address % kAlignment,
        " bytes after a multiple of 16, needed is a multiple");
  return address;
}

int32_t GpuNode::small(int64_t size, const char* what) const {
  check(size >= 0 && size <= std::numeric_limits<int32_t>::max(), code::kInvalidRequest, name_, ": ", what,
        " is ", size, ", on a GPU up to 2147483647 is allowed");
  return static_cast<int32_t>(size);
}

GpuRun::GpuRun(const GpuNode& node, const ort::OpRun& run)
    : current_(node.queue().kernels->device()), stream_(static_cast<cuda::api::Stream*>(run.stream())) {
  if (stream_ == nullptr) stream_ = node.queue().stream->get();
}

void GpuRun::launch(const cuda::Kernel& kernel, const cuda::Grid& grid,
                    const cuda::Parameters& parameters) const {
  kernel.launch(stream_, grid, parameters);
}

int64_t per_launch(int64_t count, int64_t programs) {
  constexpr auto kMost = static_cast<int64_t>(cuda::Grid::kMostY);
  return count * programs <= kMost ? count : kMost / programs / 8 * 8;
}

}  // namespace textopia::ops
