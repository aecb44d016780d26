// LayerNorm: X [..., C], gamma [C], beta [C].
// GroupNorm: X [B, H, W, C] or [B, S, C], gamma [C], beta [C]; SiLU may follow.
#include "cpu/norm.h"

#include "ops/node.h"
#include "ops/ops.h"

namespace textopia::ops {
namespace {

template <bool kGroups>
class Norm final : public ort::OpKernel {
 public:
  explicit Norm(const ort::NodeInfo& node)
      : name_(node.name()),
        type_(node),
        groups_(kGroups ? required_size(node, "groups") : 1),
        epsilon_(node.number("epsilon", 1e-5f)),
        has_silu_(kGroups && activation_of(node, false) == cpu::Activation::kSilu),
        unit_(active_matrix_unit()) {
    check(epsilon_ >= 0.0f, code::kModelFormat, name_, ": epsilon is ", epsilon_, ", allowed are 0 and more");
  }

  void run(ort::OpRun& run) const override {
    const ort::Tensor x = run.input(0), gamma = run.input(1), beta = run.input(2);
    const size_t rank = x.dims.rank();
    check(kGroups ? rank == 3 || rank == 4 : rank >= 1, code::kInvalidRequest, name_,
          ": the input has the shape ", to_string(x.dims),
          kGroups ? ", needed is [B, H, W, C] or [B, S, C]" : ", needed is [..., C]");
    const int64_t channels = x.dims.back();
    check(x.dtype == type_.dtype(), code::kModelFormat, name_, ": the type of the input changed");
    check_tensor(name_, "gamma", gamma, DType::kFloat32, {channels});
    check_tensor(name_, "beta", beta, DType::kFloat32, {channels});
    check(channels % groups_ == 0, code::kInvalidRequest, name_, ": ", channels, " channels in ", groups_,
          " groups, needed is a multiple");
    cpu::NormArgs args;
    args.x = x.data;
    args.gamma = gamma.as<float>();
    args.beta = beta.as<float>();
    args.out = run.output(0, x.dims);
    args.images = kGroups ? x.dims[0] : 1;
    args.rows = x.dims.product(kGroups ? 1 : 0, rank - 1);
    args.channels = channels;
    args.groups = groups_;
    args.epsilon = epsilon_;
    args.has_silu = has_silu_;
    args.is_float32 = type_.is_float32();
    if (x.dims.count() > 0) (kGroups ? cpu::group_norm : cpu::layer_norm)(args, unit_, threads_of(run));
  }

 private:
  std::string name_;
  ActivationType type_;
  int64_t groups_;
  float epsilon_;
  bool has_silu_;
  MatrixUnit unit_;
};

template <bool kGroups>
std::unique_ptr<ort::OpKernel> create(const ort::NodeInfo& node) {
  return std::make_unique<Norm<kGroups>>(node);
}

using enum ort::InputType;
constexpr ort::InputType kInputs[] = {kActivation, kFloat32, kFloat32};

}  // namespace

const ort::OpDefinition kLayerNorm = {"LayerNorm", 3, kInputs, create<false>};
const ort::OpDefinition kGroupNorm = {"GroupNorm", 3, kInputs, create<true>};

}  // namespace textopia::ops
