// Conv: X [B, H, W, Cin], W, bias? [Cout], time_bias? [B or 1, Cout], residual? as the output
//   -> [B, H', W', Cout].
#include "cpu/conv.h"

#include "ops/node.h"
#include "ops/ops.h"

namespace textopia::ops {
namespace {

cpu::ConvShape shape_of(const ort::NodeInfo& node) {
  cpu::ConvShape shape;
  shape.channels = required_size(node, "in_channels");
  shape.columns = required_size(node, "out_channels");
  shape.kernel = static_cast<int>(one_of(node, "kernel", 3, 1));
  shape.stride = static_cast<int>(one_of(node, "stride", 1, 2));
  shape.upsample = one_of(node, "upsample", 0, 1) == 1;
  shape.asymmetric_pad = one_of(node, "asymmetric_pad", 0, 1) == 1;
  check(!shape.upsample || (shape.kernel == 3 && shape.stride == 1), code::kModelUnsupported, node.name(),
        ": upsample with kernel ", shape.kernel, " and stride ", shape.stride, ", allowed are 3 and 1");
  check(!shape.asymmetric_pad || (shape.kernel == 3 && shape.stride == 2), code::kModelUnsupported,
        node.name(), ": asymmetric_pad with kernel ", shape.kernel, " and stride ", shape.stride,
        ", allowed are 3 and 2");
  return shape;
}

class Conv final : public ort::OpKernel {
 public:
  explicit Conv(const ort::NodeInfo& node)
      : name_(node.name()),
        type_(node),
        shape_(shape_of(node)),
        activation_(activation_of(node, false)),
        weight_(node, type_, {shape_.columns, shape_.channels, shape_.taps(), false},
                shape_.upsample ? cpu::kPhases : 1, shape_.kernel * shape_.kernel),
        unit_(active_matrix_unit()) {}

  void run(ort::OpRun& run) const override {
    const ort::Tensor x = type_.input(name_, run, 4, shape_.channels);
    cpu::ConvArgs args;
    args.shape = shape_;
    args.shape.images = x.dims[0];
    args.shape.height = x.dims[1];
    args.shape.width = x.dims[2];
    const int64_t columns = shape_.columns;
    const ort::Dims dims = {x.dims[0], args.shape.out_height(), args.shape.out_width(), columns};
    check(x.dims.count() == 0 || dims.count() > 0, code::kInvalidRequest, name_, ": the image ",
          to_string(x.dims), " is smaller than the kernel");
    args.x = x.data;
    args.weight = weight_.view();
    args.bias = optional_floats(name_, run, 2, "the bias", columns);
    if (const ort::Tensor time_bias = run.input(3)) {
      args.has_one_time_bias = time_bias.dims.rank() == 2 && time_bias.dims[0] == 1;
      const int64_t images = args.has_one_time_bias ? 1 : x.dims[0];
      check_tensor(name_, "the time bias", time_bias, type_.dtype(), {images, columns});
      args.time_bias = time_bias.data;
    }
    args.residual = optional_input(name_, run, 4, "the residual", type_.dtype(), dims);
    args.out = run.output(0, dims);
    args.activation = activation_;
    args.is_float32 = type_.is_float32();
    if (dims.count() > 0) cpu::conv(args, unit_, threads_of(run));
  }

 private:
  std::string name_;
  ActivationType type_;
  cpu::ConvShape shape_;
  cpu::Activation activation_;
  Weight weight_;
  MatrixUnit unit_;
};

std::unique_ptr<ort::OpKernel> create(const ort::NodeInfo& node) { return std::make_unique<Conv>(node); }

using enum ort::InputType;
constexpr ort::InputType kInputs[] = {kActivation, kAny, kFloat32, kActivation, kActivation};

}  // namespace

const ort::OpDefinition kConv = {"Conv", 2, kInputs, create};

}  // namespace textopia::ops
