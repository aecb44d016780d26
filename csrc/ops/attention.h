// An Attention node and the tensors of its runs, whatever computes it.
#pragma once

#include <string>

#include "ort/custom_op.h"

namespace textopia::ops {

// Rows of heads * width elements, `stride` apart, images `rows * stride` apart.
struct AttentionOperand {
  const void* data = nullptr;
  int64_t stride = 0;
};

struct AttentionTensors {
  int64_t batch, queries, keys, channels, width;
  AttentionOperand q, k, v;
  const float* mask = nullptr;  // added to the logits; strides 0 where all images or queries share it
  int64_t mask_batch_stride = 0, mask_query_stride = 0;

  ort::Dims out_dims() const { return {batch, queries, channels}; }
};

class AttentionNode {
 public:
  explicit AttentionNode(const ort::NodeInfo& node);

  const std::string& name() const { return name_; }
  DType dtype() const { return dtype_; }
  int64_t heads() const { return heads_; }
  bool is_causal() const { return is_causal_; }
  float scale(int64_t width) const;

  // Throws invalid_request or model_format on shapes that do not go together.
  AttentionTensors tensors(const ort::OpRun& run) const;

 private:
  int64_t keys_of(const ort::Tensor& k, int64_t batch) const;
  void take_mask(const ort::Tensor& mask, AttentionTensors* tensors) const;

  std::string name_;
  DType dtype_;
  int64_t heads_;
  float scale_;
  bool is_causal_;
};

}  // namespace textopia::ops
