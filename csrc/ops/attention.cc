// Attention: Q [B, Sq, heads * D], K? and V? [B, Sk, heads * D], mask? [B or 1, 1, Sq or 1, Sk] float32,
// added to the logits -> [B, Sq, heads * D]. Without K and V, Q holds all three side by side; without V, K
// holds both.
#include "cpu/attention.h"

#include <cmath>

#include "ops/node.h"
#include "ops/ops.h"

namespace textopia::ops {
namespace {

class Attention final : public ort::OpKernel {
 public:
  explicit Attention(const ort::NodeInfo& node)
      : name_(node.name()),
        type_(node),
        heads_(required_size(node, "heads")),
        scale_(node.number("scale", 0.0f)),
        is_causal_(one_of(node, "causal", 0, 1) == 1),
        unit_(active_matrix_unit()) {
    check(scale_ >= 0.0f && std::isfinite(scale_), code::kModelFormat, name_, ": scale is ", scale_,
          ", allowed are finite numbers from 0 on");
  }

  void run(ort::OpRun& run) const override {
    const ort::Tensor q = run.input(0), k = run.input(1), v = run.input(2), mask = run.input(3);
    check(!v || k, code::kModelFormat, name_, ": V is given without K");
    check(q.dims.rank() == 3 && q.dtype == type_.dtype(), code::kInvalidRequest, name_, ": Q has the shape ",
          to_string(q.dims), ", needed is [B, S, channels]");
    cpu::AttentionArgs args;
    const int64_t parts = k ? 1 : 3, channels = q.dims[2] / parts;
    check(channels > 0 && channels * parts == q.dims[2] && channels % heads_ == 0, code::kInvalidRequest,
          name_, ": Q has ", q.dims[2], " channels, needed is a multiple of ", parts * heads_);
    args.batch = q.dims[0];
    args.heads = heads_;
    args.width = channels / heads_;
    args.queries = q.dims[1];
    args.keys = k ? keys_of(k, q.dims[0]) : q.dims[1];
    args.q = q.data;
    args.q_stride = q.dims[2];
    if (v) check_tensor(name_, "V", v, type_.dtype(), {args.batch, args.keys, channels});
    if (k) check_tensor(name_, "K", k, type_.dtype(), {args.batch, args.keys, v ? channels : 2 * channels});
    const ort::Tensor& keys = k ? k : q;
    args.k = side_by_side(keys, k ? 0 : channels);
    args.k_stride = keys.dims[2];
    const ort::Tensor& values = v ? v : keys;
    args.v = side_by_side(values, v ? 0 : k ? channels : 2 * channels);
    args.v_stride = values.dims[2];
    if (mask) take_mask(mask, &args);
    args.scale = scale_ > 0.0f ? scale_ : 1.0f / std::sqrt(static_cast<float>(args.width));
    args.is_causal = is_causal_;
    args.is_float32 = type_.is_float32();
    args.out = run.output(0, {args.batch, args.queries, channels});
    check(args.keys > 0 || args.batch * args.queries == 0, code::kInvalidRequest, name_, ": no keys");
    if (args.batch * args.queries > 0) cpu::attention(args, unit_, threads_of(run));
  }

 private:
  int64_t keys_of(const ort::Tensor& k, int64_t batch) const {
    check(k.dims.rank() == 3 && k.dims[0] == batch, code::kInvalidRequest, name_, ": K has the shape ",
          to_string(k.dims), ", needed is [", batch, ", S, channels]");
    return k.dims[1];
  }

  // The part of a tensor's rows that begins at `channel`.
  const void* side_by_side(const ort::Tensor& tensor, int64_t channel) const {
    return tensor.as<char>() + channel * static_cast<int64_t>(size_of(type_.dtype()));
  }

  void take_mask(const ort::Tensor& mask, cpu::AttentionArgs* args) const {
    const ort::Dims& d = mask.dims;
    const bool is_shape = d.rank() == 4 && (d[0] == 1 || d[0] == args->batch) && d[1] == 1 &&
                          (d[2] == 1 || d[2] == args->queries) && d[3] == args->keys;
    check(is_shape && mask.dtype == DType::kFloat32, code::kInvalidRequest, name_, ": the mask is ",
          name_of(mask.dtype), " ", to_string(d), ", needed is float32 [1 or ", args->batch, ", 1, 1 or ",
          args->queries, ", ", args->keys, "]");
    args->mask = mask.as<float>();
    args->mask_query_stride = d[2] == 1 ? 0 : d[3];
    args->mask_batch_stride = d[0] == 1 ? 0 : d[2] * d[3];
  }

  std::string name_;
  ActivationType type_;
  int64_t heads_;
  float scale_;
  bool is_causal_;
  MatrixUnit unit_;
};

std::unique_ptr<ort::OpKernel> create(const ort::NodeInfo& node) { return std::make_unique<Attention>(node); }

using enum ort::InputType;
constexpr ort::InputType kInputs[] = {kActivation, kActivation, kActivation, kFloat32};

}  // namespace

const ort::OpDefinition kAttention = {"Attention", 1, kInputs, create};

}  // namespace textopia::ops
