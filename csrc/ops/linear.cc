// Linear: X [..., K], W, bias? [N], residual? [..., N] -> [..., N].
// LinearGeglu: X [..., K], W, bias? [2N] -> [..., N], value * gelu(gate).
#include "cpu/linear.h"

#include "ops/node.h"
#include "ops/ops.h"

namespace textopia::ops {
namespace {

template <bool kGates>
class Linear final : public ort::OpKernel {
 public:
  explicit Linear(const ort::NodeInfo& node)
      : name_(node.name()),
        type_(node),
        shape_{required_size(node, "out_features"), required_size(node, "in_features"), 1, kGates},
        activation_(kGates ? cpu::Activation::kNone : activation_of(node, true)),
        weight_(node, type_, shape_, 1, 1),
        unit_(active_matrix_unit()) {
    shape_.is_int8 = weight_.view().is_int8;
  }

  void run(ort::OpRun& run) const override {
    const ort::Tensor x = type_.input(name_, run, 0, shape_.channels);
    ort::Dims dims = x.dims;
    dims.back() = shape_.columns;
    cpu::LinearArgs args;
    args.x = x.data;
    args.weight = weight_.view();
    args.shape = shape_;
    args.bias = optional_floats(name_, run, 2, "the bias", (kGates ? 2 : 1) * shape_.columns);
    if (!kGates) args.residual = optional_input(name_, run, 3, "the residual", type_.dtype(), dims);
    args.out = run.output(0, dims);
    args.rows = x.dims.product(0, x.dims.rank() - 1);
    args.activation = activation_;
    args.is_float32 = type_.is_float32();
    cpu::linear(args, unit_, threads_of(run));
  }

 private:
  std::string name_;
  ActivationType type_;
  cpu::PanelShape shape_;
  cpu::Activation activation_;
  Weight weight_;
  MatrixUnit unit_;
};

template <bool kGates>
std::unique_ptr<ort::OpKernel> create(const ort::NodeInfo& node) {
  return std::make_unique<Linear<kGates>>(node);
}

using enum ort::InputType;
constexpr ort::InputType kInputs[] = {kActivation, kAny, kFloat32, kActivation};

}  // namespace

const ort::OpDefinition kLinear = {"Linear", 2, kInputs, create<false>};
const ort::OpDefinition kLinearGeglu = {"LinearGeglu", 2, std::span(kInputs).first(3), create<true>};

}  // namespace textopia::ops
