// Geglu on a GPU: X [..., 2N] -> [..., N], value * gelu(gate), value the first half of a row.
#include <algorithm>

#include "ops/gpu.h"
#include "ops/ops.h"

namespace textopia::ops {
namespace {

class GegluCuda final : public ort::OpKernel {
 public:
  GegluCuda(const ort::NodeInfo& node, const GpuQueue& queue)
      : node_(node, queue),
        even_(&node_.load(node_.prefix("geglu") + "even")),
        any_(&node_.load(node_.prefix("geglu") + "any")) {}

  void run(ort::OpRun& run) const override {
    const ort::Tensor x = run.input(0);
    check(x.dims.rank() >= 1 && x.dims.back() % 2 == 0, code::kInvalidRequest, node_.name(),
          ": the input has the shape ", to_string(x.dims), ", needed is [..., 2 * channels]");
    ort::Dims dims = x.dims;
    dims.back() /= 2;
    void* out = run.output(0, dims);
    if (dims.count() == 0) return;
    auto source = node_.address(x.data, "X");
    auto target = node_.address(out, "the output");
    const int32_t channels = node_.small(dims.back(), "the number of channels");
    const cuda::Kernel& kernel = channels % 16 == 0 ? *even_ : *any_;
    const int64_t block = kernel.elements(), rows = dims.product(0, dims.rank() - 1);
    check(block > 0, code::kConfiguration, "kernel ", kernel.name(), ": its archive says no BLOCK");
    const GpuRun queue(node_, run);
    const int64_t step = per_launch(rows, 1);
    for (int64_t done = 0; done < rows; done += step) {
      const cuda::Grid grid{static_cast<size_t>((channels + block - 1) / block),
                            static_cast<size_t>(std::min(step, rows - done))};
      queue.launch(kernel, grid, cuda::Parameters().add(source).add(target).add(channels));
      const auto bytes = static_cast<uint64_t>(step * channels) * node_.element_bytes();
      source += 2 * bytes;
      target += bytes;
    }
  }

 private:
  GpuNode node_;
  const cuda::Kernel *even_, *any_;
};

constexpr ort::InputType kInputs[] = {ort::InputType::kActivation};

}  // namespace

ort::OpDefinition geglu_cuda(const GpuQueue& queue) {
  return {"Geglu", 1, kInputs,
          [queue](const ort::NodeInfo& node) { return std::make_unique<GegluCuda>(node, queue); }};
}

}  // namespace textopia::ops
