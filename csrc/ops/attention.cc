// Attention: Q [B, Sq, heads * D], K? and V? [B, Sk, heads * D], mask? [B or 1, 1, Sq or 1, Sk] float32,
// added to the logits -> [B, Sq, heads * D]. Without K and V, Q holds all three side by side; without V, K
// holds both.
#include "ops/attention.h"

#include <cmath>

#include "cpu/attention.h"
#include "ops/node.h"
#include "ops/ops.h"

namespace textopia::ops {

AttentionNode::AttentionNode(const ort::NodeInfo& node)
    : name_(node.name()),
      dtype_(node.activation_type()),
      heads_(required_size(node, "heads")),
      scale_(node.number("scale", 0.0f)),
      is_causal_(one_of(node, "causal", 0, 1) == 1) {
  check(scale_ >= 0.0f && std::isfinite(scale_), code::kModelFormat, name_, ": scale is ", scale_,
        ", allowed are finite numbers from 0 on");
}

float AttentionNode::scale(int64_t width) const {
  return scale_ > 0.0f ? scale_ : 1.0f / std::sqrt(static_cast<float>(width));
}

AttentionTensors AttentionNode::tensors(const ort::OpRun& run) const {
  const ort::Tensor q = run.input(0), k = run.input(1), v = run.input(2), mask = run.input(3);
  check(!v || k, code::kModelFormat, name_, ": V is given without K");
  check(q.dims.rank() == 3 && q.dtype == dtype_, code::kInvalidRequest, name_, ": Q has the shape ",
        to_string(q.dims), ", needed is [B, S, channels]");
  const int64_t parts = k ? 1 : 3, channels = q.dims[2] / parts;
  check(channels > 0 && channels * parts == q.dims[2] && channels % heads_ == 0, code::kInvalidRequest, name_,
        ": Q has ", q.dims[2], " channels, needed is a multiple of ", parts * heads_);
  AttentionTensors tensors;
  tensors.batch = q.dims[0];
  tensors.queries = q.dims[1];
  tensors.keys = k ? keys_of(k, q.dims[0]) : q.dims[1];
  tensors.channels = channels;
  tensors.width = channels / heads_;
  if (v) check_tensor(name_, "V", v, dtype_, {tensors.batch, tensors.keys, channels});
  if (k) check_tensor(name_, "K", k, dtype_, {tensors.batch, tensors.keys, v ? channels : 2 * channels});
  // The part of a tensor's rows that begins at `channel`.
  const auto side_by_side = [&](const ort::Tensor& tensor, int64_t channel) -> AttentionOperand {
    return {tensor.as<char>() + channel * static_cast<int64_t>(size_of(dtype_)), tensor.dims[2]};
  };
  const ort::Tensor& keys = k ? k : q;
  tensors.q = side_by_side(q, 0);
  tensors.k = side_by_side(keys, k ? 0 : channels);
  tensors.v = side_by_side(v ? v : keys, v ? 0 : k ? channels : 2 * channels);
  if (mask) take_mask(mask, &tensors);
  check(tensors.keys > 0 || tensors.batch * tensors.queries == 0, code::kInvalidRequest, name_, ": no keys");
  return tensors;
}

int64_t AttentionNode::keys_of(const ort::Tensor& k, int64_t batch) const {
  check(k.dims.rank() == 3 && k.dims[0] == batch, code::kInvalidRequest, name_, ": K has the shape ",
        to_string(k.dims), ", needed is [", batch, ", S, channels]");
  return k.dims[1];
}

void AttentionNode::take_mask(const ort::Tensor& mask, AttentionTensors* tensors) const {
  const ort::Dims& d = mask.dims;
  const bool is_shape = d.rank() == 4 && (d[0] == 1 || d[0] == tensors->batch) && d[1] == 1 &&
                        (d[2] == 1 || d[2] == tensors->queries) && d[3] == tensors->keys;
  check(is_shape && mask.dtype == DType::kFloat32, code::kInvalidRequest, name_, ": the mask is ",
        name_of(mask.dtype), " ", to_string(d), ", needed is float32 [1 or ", tensors->batch, ", 1, 1 or ",
        tensors->queries, ", ", tensors->keys, "]");
  tensors->mask = mask.as<float>();
  tensors->mask_query_stride = d[2] == 1 ? 0 : d[3];
  tensors->mask_batch_stride = d[0] == 1 ? 0 : d[2] * d[3];
}

namespace {

class Attention final : public ort::OpKernel {
 public:
  explicit Attention(const ort::NodeInfo& node) : node_(node), unit_(active_matrix_unit()) {}

  void run(ort::OpRun& run) const override {
    const AttentionTensors tensors = node_.tensors(run);
    cpu::AttentionArgs args;
    args.batch = tensors.batch;
    args.heads = node_.heads();
    args.width = tensors.width;
    args.queries = tensors.queries;
    args.keys = tensors.keys;
    args.q = tensors.q.data;
    args.q_stride = tensors.q.stride;
    args.k = tensors.k.data;
    args.k_stride = tensors.k.stride;
    args.v = tensors.v.data;
    args.v_stride = tensors.v.stride;
    args.mask = tensors.mask;
    args.mask_query_stride = tensors.mask_query_stride;
    args.mask_batch_stride = tensors.mask_batch_stride;
    args.scale = node_.scale(tensors.width);
    args.is_causal = node_.is_causal();
    args.is_float32 = node_.dtype() == DType::kFloat32;
    args.out = run.output(0, tensors.out_dims());
    if (args.batch * args.queries > 0) cpu::attention(args, unit_, threads_of(run));
  }

 private:
  AttentionNode node_;
  MatrixUnit unit_;
};

std::unique_ptr<ort::OpKernel> create(const ort::NodeInfo& node) { return std::make_unique<Attention>(node); }

using enum ort::InputType;
constexpr ort::InputType kInputs[] = {kActivation, kActivation, kActivation, kFloat32};

}  // namespace

const ort::OpDefinition kAttention = {"Attention", 1, kInputs, create};

}  // namespace textopia::ops
