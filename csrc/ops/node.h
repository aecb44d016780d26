// What the operators ask of their nodes and inputs, with one wording for what is wrong.
#pragma once

#include <string>

#include "base/buffer.h"
#include "base/isa.h"
#include "cpu/linear.h"
#include "cpu/panels.h"
#include "cpu/parallel.h"
#include "ort/custom_op.h"

namespace textopia::ops {

// An integer attribute that must be there, at least 1.
int64_t required_size(const ort::NodeInfo& node, const char* attribute);

// An integer attribute that is one of two values.
int64_t one_of(const ort::NodeInfo& node, const char* attribute, int64_t fallback, int64_t other);

cpu::Activation activation_of(const ort::NodeInfo& node, bool has_gelu);

// A tensor of `dtype` and exactly `dims`; `what` names it in the message.
void check_tensor(const std::string& node, const char* what, const ort::Tensor& tensor, DType dtype,
                  const ort::Dims& dims);

// The same for an input that may be absent: null then.
const void* optional_input(const std::string& node, const ort::OpRun& run, size_t index, const char* what,
                           DType dtype, const ort::Dims& dims);
const float* optional_floats(const std::string& node, const ort::OpRun& run, size_t index, const char* what,
                             int64_t count);

// Type of the activations of a node, fixed when its kernel is made: float32 or bfloat16.
class ActivationType {
 public:
  explicit ActivationType(const ort::NodeInfo& node) : dtype_(node.activation_type()) {}

  DType dtype() const { return dtype_; }
  bool is_float32() const { return dtype_ == DType::kFloat32; }
  // Input 0, checked to be of `rank` dimensions (0: any, at least 1), with `channels` last.
  ort::Tensor input(const std::string& node, const ort::OpRun& run, size_t rank, int64_t channels) const;

 private:
  DType dtype_;
};

// The constant weight of a node: panels are used where they lie, anything else is brought into the form that
// the kernels take, once.
class Weight {
 public:
  // `phases` kernels of `shape`, one after the other; plain weights hold one kernel of `plain_taps`.
  Weight(const ort::NodeInfo& node, const ActivationType& type, const cpu::PanelShape& shape, int phases,
         int plain_taps);

  const cpu::WeightView& view() const { return view_; }

 private:
  void take_int8(const ort::NodeInfo& node, const ActivationType& type, cpu::PanelShape shape, int phases,
                 const ort::Tensor& weight);

  cpu::WeightView view_;
  Buffer<uint16_t> panels_;
  Buffer<float> plain_;
};

// The threads of the session, and its plans where it has some.
cpu::Parallel threads_of(const ort::OpRun& run);

}  // namespace textopia::ops
