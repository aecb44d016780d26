// GroupNorm and LayerNorm on a GPU: kernels/group_norm.py, kernels/layer_norm.py.
#include <algorithm>

#include "ops/gpu.h"
#include "ops/node.h"
#include "ops/ops.h"

namespace textopia::ops {
namespace {

float epsilon_of(const ort::NodeInfo& node) {
  const float epsilon = node.number("epsilon", 1e-5f);
  check(epsilon >= 0.0f, code::kModelFormat, node.name(), ": epsilon is ", epsilon,
        ", allowed are 0 and more");
  return epsilon;
}

class LayerNormCuda final : public ort::OpKernel {
 public:
  LayerNormCuda(const ort::NodeInfo& node, const GpuQueue& queue)
      : node_(node, queue),
        type_(node),
        channels_(node_.channels_of_gamma(node)),
        epsilon_(epsilon_of(node)) {
    const cuda::Kernel* even =
        channels_ % 16 == 0 ? node_.find_narrowest("layer_norm", "_even", channels_) : nullptr;
    kernel_ = even ? even : &node_.narrowest("layer_norm", "_any", channels_, "channels");
  }

  void run(ort::OpRun& run) const override {
    const ort::Tensor x = type_.input(node_.name(), run, 0, channels_);
    const ort::Tensor gamma = run.input(1), beta = run.input(2);
    check_tensor(node_.name(), "gamma", gamma, DType::kFloat32, {channels_});
    check_tensor(node_.name(), "beta", beta, DType::kFloat32, {channels_});
    void* out = run.output(0, x.dims);
    const int64_t rows = x.dims.product(0, x.dims.rank() - 1);
    if (rows == 0) return;  // without memory
    const auto pointers =
        std::to_array({node_.address(x.data, "X"), node_.address(out, "the output"),
                       node_.address(gamma.data, "gamma"), node_.address(beta.data, "beta")});
    const auto channels = static_cast<int32_t>(channels_);
    GpuRun(node_, run)
        .launch(*kernel_, {static_cast<size_t>(rows)},
                cuda::Parameters().add(pointers).add(epsilon_).add(channels));
  }

 private:
  GpuNode node_;
  ActivationType type_;
  int64_t channels_;
  float epsilon_;
  const cuda::Kernel* kernel_;
};

class GroupNormCuda final : public ort::OpKernel {
 public:
  GroupNormCuda(const ort::NodeInfo& node, const GpuQueue& queue)
      : node_(node, queue),
        type_(node),
        groups_(required_size(node, "groups")),
        channels_(node_.channels_of_gamma(node)),
        epsilon_(epsilon_of(node)),
        scratch_(node.scratch()) {
    const std::string& name = node_.name();
    check(groups_ <= kMostGroups, code::kModelUnsupported, name, ": ", groups_, " groups, on a GPU up to ",
          kMostGroups, " are allowed");
    check(channels_ % groups_ == 0, code::kModelFormat, name, ": ", channels_, " channels in ", groups_,
          " groups, needed is a multiple");
    const bool has_silu = activation_of(node, false) == cpu::Activation::kSilu;
    const std::string bias = node.has_input(3) ? "_bias" : "";
    const int64_t width = channels_ / groups_;
    constexpr const char* kWhat = "channels a group";
    moments_ = &node_.narrowest("group_norm", "_moments" + bias, width, kWhat);
    apply_ = &node_.narrowest("group_norm", (has_silu ? "_silu" : "_apply") + bias, width, kWhat);
    chunks_ = moments_->constant("CHUNKS");
    tile_rows_ = moments_->constant("ROWS");
    check(chunks_ > 0 && tile_rows_ > 0 && apply_->constant("CHUNKS") == chunks_, code::kConfiguration, name,
          ": the kernels ", moments_->name(), " and ", apply_->name(), " do not go together");
  }

  void run(ort::OpRun& run) const override {
    const std::string& name = node_.name();
    const ort::Tensor x = run.input(0), gamma = run.input(1), beta = run.input(2), bias = run.input(3);
    const size_t rank = x.dims.rank();
    check((rank == 3 || rank == 4) && x.dims.back() == channels_, code::kInvalidRequest, name,
          ": the input has the shape ", to_string(x.dims), ", needed is [B, H, W, ", channels_,
          "] or [B, S, ", channels_, "]");
    check_tensor(name, "gamma", gamma, DType::kFloat32, {channels_});
    check_tensor(name, "beta", beta, DType::kFloat32, {channels_});
    const int64_t images = x.dims[0], rows = x.dims.product(1, rank - 1);
    if (bias)
      check_tensor(name, "the channel bias", bias, type_.dtype(),
                   {bias.dims.rank() == 2 && bias.dims[0] == 1 ? 1 : images, channels_});
    void* out = run.output(0, x.dims);
    if (x.dims.count() == 0) return;
    Launches launches;
    launches.x = node_.address(x.data, "X");
    launches.out = node_.address(out, "the output");
    launches.gamma = node_.address(gamma.data, "gamma");
    launches.beta = node_.address(beta.data, "beta");
    launches.bias = bias ? node_.address(bias.data, "the channel bias") : launches.x;  // any valid address
    launches.bias_batch = bias && bias.dims[0] > 1 ? static_cast<int32_t>(channels_) : 0;
    node_.small(rows * channels_, "the number of elements of an image");
    launches.rows = static_cast<int32_t>(rows);
    // Whole tiles, and at most CHUNKS chunks.
    const int64_t tiles = (rows + tile_rows_ - 1) / tile_rows_;
    launches.chunk_rows = node_.small((tiles + chunks_ - 1) / chunks_ * tile_rows_, "a chunk of rows");
    scratch_->with(static_cast<size_t>(images * groups_ * chunks_) * 2 * sizeof(float), [&](void* memory) {
      launches.moments = node_.address(memory, "scratch memory");
      launch(GpuRun(node_, run), launches, images);
    });
  }

 private:
  static constexpr int64_t kMostGroups = cuda::Grid::kMostY / 8;

  struct Launches {
    cuda::api::Pointer x, out, gamma, beta, moments, bias;
    int32_t rows, chunk_rows, bias_batch;
  };

  void launch(const GpuRun& run, Launches launches, int64_t images) const {
    const auto channels = static_cast<int32_t>(channels_), groups = static_cast<int32_t>(groups_);
    const int64_t chunks = (launches.rows + launches.chunk_rows - 1) / launches.chunk_rows;
    const int64_t step = per_launch(images, groups_);
    for (int64_t done = 0; done < images; done += step) {
      const int64_t count = std::min(step, images - done);
      const cuda::Grid grid{static_cast<size_t>(chunks), static_cast<size_t>(count * groups_)};
      for (const cuda::Kernel* kernel : {moments_, apply_})
        run.launch(*kernel, grid,
                   cuda::Parameters()
                       .add(launches.x)
                       .add(launches.out)
                       .add(launches.gamma)
                       .add(launches.beta)
                       .add(launches.moments)
                       .add(launches.bias)
                       .add(epsilon_)
                       .add(launches.rows)
                       .add(channels)
                       .add(groups)
                       .add(launches.chunk_rows)
                       .add(launches.bias_batch));
      const auto bytes = static_cast<cuda::api::Pointer>(step) * node_.element_bytes();
      launches.x += bytes * static_cast<uint64_t>(launches.rows * channels_);
      launches.out += bytes * static_cast<uint64_t>(launches.rows * channels_);
      launches.moments += static_cast<uint64_t>(step * groups_ * chunks_) * 2 * sizeof(float);
      launches.bias += bytes * static_cast<uint64_t>(launches.bias_batch);
    }
  }

  GpuNode node_;
  ActivationType type_;
  int64_t groups_, channels_;
  float epsilon_;
  std::unique_ptr<ort::Scratch> scratch_;
  const cuda::Kernel *moments_, *apply_;
  int64_t chunks_, tile_rows_;
};

using enum ort::InputType;
constexpr ort::InputType kInputs[] = {kActivation, kFloat32, kFloat32, kActivation};

}  // namespace

ort::OpDefinition layer_norm_cuda(const GpuQueue& queue) {
  return {"LayerNorm", 3, std::span(kInputs).first(3),
          [queue](const ort::NodeInfo& node) { return std::make_unique<LayerNormCuda>(node, queue); }};
}

ort::OpDefinition group_norm_cuda(const GpuQueue& queue) {
  return {"GroupNorm", 3, kInputs,
          [queue](const ort::NodeInfo& node) { return std::make_unique<GroupNormCuda>(node, queue); }};
}

}  // namespace textopia::ops
