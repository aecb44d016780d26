// Attention on a GPU: kernels/attention.py.
#include <algorithm>
#include <map>

#include "ops/attention.h"
#include "ops/gpu.h"
#include "ops/ops.h"

namespace textopia::ops {
namespace {

constexpr float kLog2E = 1.44269504088896341f;
constexpr int64_t kRowMultiple = 16;  // elements; the kernels were promised that of every stride

class AttentionCuda final : public ort::OpKernel {
 public:
  AttentionCuda(const ort::NodeInfo& node, const GpuQueue& queue)
      : node_(node), gpu_(node, queue), has_mask_(node.has_input(3)) {
    // The width of a head, where ORT knows the channels of Q; else any that there is may turn up.
    const Shape q = node.input_shape(0);
    const int64_t channels = q.empty() || q.back() < 1 ? 0 : q.back() / (node.has_input(1) ? 1 : 3);
    const int64_t width = channels / node_.heads();
    for (const auto& [name, image] : queue.kernels->images()) {
      if (!name.starts_with(gpu_.prefix("attention"))) continue;
      const int found = image.constant("WIDTH");
      if ((width > 0 && found != width) || image.constant("CAUSAL") != node_.is_causal() ||
          image.constant("MASK") != has_mask_)
        continue;
      Widths& entry = widths_[found];
      (image.constant("SHORT") != 0 ? entry.few_keys : entry.any_keys) = &gpu_.load(name);
    }
    if (width > 0) {
      find(width);
      check_rows(channels);
    }
    check(!widths_.empty(), code::kModelUnsupported, node_.name(), ": no kernel ", described());
  }

  void run(ort::OpRun& run) const override {
    const AttentionTensors t = node_.tensors(run);
    check((t.mask != nullptr) == has_mask_, code::kInternal, node_.name(), ": the mask comes and goes");
    const cuda::Kernel& kernel = kernel_for(t.width, t.keys);
    check_rows(t.channels);
    void* out = run.output(0, t.out_dims());
    if (t.batch * t.queries == 0) return;
    Launch launch;
    launch.q = gpu_.address(t.q.data, "Q");
    launch.k = gpu_.address(t.k.data, "K");
    launch.v = gpu_.address(t.v.data, "V");
    launch.out = gpu_.address(out, "the output");
    launch.mask = t.mask != nullptr ? gpu_.address(t.mask, "the mask") : launch.q;  // any valid address
    launch.scale_log2 = node_.scale(t.width) * kLog2E;
    const auto sizes =
        std::to_array({node_.heads(), t.queries, t.keys, t.queries * t.q.stride, t.q.stride,
                       t.keys * t.k.stride, t.k.stride, t.keys * t.v.stride, t.v.stride,
                       t.queries * t.channels, t.channels, t.mask_batch_stride, t.mask_query_stride});
    std::transform(sizes.begin(), sizes.end(), launch.sizes.begin(),
                   [&](int64_t size) { return gpu_.small(size, "a size or the elements of an image"); });
    launch_images(GpuRun(gpu_, run), kernel, launch, t);
  }

 private:
  struct Widths {
    const cuda::Kernel* any_keys = nullptr;
    const cuda::Kernel* few_keys = nullptr;  // KEYS of them at most
  };

  struct Launch {
    cuda::api::Pointer q, k, v, out, mask;
    float scale_log2;
    // heads, q_count, k_count; then the distance of images and of rows in q, k, v, out, mask
    std::array<int32_t, 13> sizes;

    cuda::Parameters parameters() const {
      return cuda::Parameters().add(q).add(k).add(v).add(out).add(mask).add(scale_log2).add(sizes);
    }
  };

  // One grid row per image and head.
  void launch_images(const GpuRun& run, const cuda::Kernel& kernel, Launch launch,
                     const AttentionTensors& t) const {
    const int64_t rows = kernel.constant("ROWS"), step = per_launch(t.batch, node_.heads());
    check(step > 0, code::kInvalidRequest, node_.name(), ": ", node_.heads(),
          " heads, on a GPU up to 8191 are allowed");
    const auto advance = [&](cuda::api::Pointer& pointer, int32_t stride, size_t bytes) {
      pointer += static_cast<uint64_t>(step * stride) * bytes;
    };
    for (int64_t done = 0; done < t.batch; done += step) {
      const int64_t images = std::min(step, t.batch - done);
      run.launch(
          kernel,
          {static_cast<size_t>((t.queries + rows - 1) / rows), static_cast<size_t>(images * node_.heads())},
          launch.parameters());
      advance(launch.q, launch.sizes[3], gpu_.element_bytes());
      advance(launch.k, launch.sizes[5], gpu_.element_bytes());
      advance(launch.v, launch.sizes[7], gpu_.element_bytes());
      advance(launch.out, launch.sizes[9], gpu_.element_bytes());
      advance(launch.mask, launch.sizes[11], sizeof(float));
    }
  }

  std::string described() const {
    return text(gpu_.prefix("attention"), "*", node_.is_causal() ? " with causal" : "",
                has_mask_ ? " with a mask" : "");
  }

  const Widths& find(int64_t width) const {
    const auto found = widths_.find(width);
    check(found != widths_.end(), code::kModelUnsupported, node_.name(), ": no kernel ", described(),
          " for heads of ", width, " channels");
    return found->second;
  }

  const cuda::Kernel& kernel_for(int64_t width, int64_t keys) const {
    const Widths& kernels = find(width);
    const cuda::Kernel* few = kernels.few_keys;
    const int64_t most = few != nullptr ? few->constant("KEYS") : 0;
    if (keys <= most) return *few;
    check(kernels.any_keys != nullptr, code::kModelUnsupported, node_.name(), ": ", keys,
          " keys; for heads of ", width, " channels there are kernels for up to ", most);
    return *kernels.any_keys;
  }

  void check_rows(int64_t channels) const {
    check(channels % kRowMultiple == 0, code::kModelUnsupported, node_.name(), ": ", node_.heads(),
          " heads of ", channels / node_.heads(), " channels, on a GPU a multiple of ", kRowMultiple,
          " channels together is needed");
  }

  AttentionNode node_;
  GpuNode gpu_;
  bool has_mask_;
  std::map<int64_t, Widths> widths_;  // by channels of a head
};

using enum ort::InputType;
constexpr ort::InputType kInputs[] = {kActivation, kActivation, kActivation, kFloat32};

}  // namespace

ort::OpDefinition attention_cuda(const GpuQueue& queue) {
  return {"Attention", 1, kInputs,
          [queue](const ort::NodeInfo& node) { return std::make_unique<AttentionCuda>(node, queue); }};
}

}  // namespace textopia::ops
