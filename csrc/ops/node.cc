#include "ops/node.h"

#include <algorithm>
#include <utility>

#include "cpu/convert.h"
#include "ops/ops.h"

namespace textopia::ops {
namespace {

constexpr auto kUInt16 = static_cast<DType>(4);  // bfloat16 bits where a writer of ONNX had no bfloat16

std::string type_name(DType dtype) { return dtype == kUInt16 ? "uint16" : name_of(dtype); }

// Sessions are given no other context than this one.
cpu::PlanSource* plans_of(const ort::OpRun& run) {
  const ort::OpContext* context = run.session().context.get();
  return context != nullptr ? static_cast<const PlanContext*>(context)->plans.get() : nullptr;
}

// Plain weights of any type as float32.
Buffer<float> widened(const ort::NodeInfo& node, const ort::Tensor& weight) {
  const auto count = static_cast<size_t>(weight.dims.count());
  Buffer<float> floats(count);
  const auto* bits = weight.as<uint16_t>();
  switch (weight.dtype) {
    case DType::kFloat32: std::copy_n(weight.as<float>(), count, floats.data()); break;
    case DType::kBFloat16: cpu::bfloat16_to_float(bits, floats.data(), count); break;
    case DType::kFloat16: cpu::half_to_float(bits, floats.data(), count); break;
    default:
      throw Error(code::kModelFormat, text(node.name(), ": plain weights of type ", type_name(weight.dtype),
                                           ", allowed are float32, bfloat16 and float16"));
  }
  return floats;
}

}  // namespace

int64_t required_size(const ort::NodeInfo& node, const char* attribute) {
  const int64_t size = node.integer(attribute, 0);
  check(size >= 1 && size <= INT32_MAX, code::kModelFormat, node.name(), ": attribute '", attribute,
        "' is missing or ", size, ", allowed are 1 and more");
  return size;
}

int64_t one_of(const ort::NodeInfo& node, const char* attribute, int64_t fallback, int64_t other) {
  const int64_t value = node.integer(attribute, fallback);
  check(value == fallback || value == other, code::kModelFormat, node.name(), ": attribute '", attribute,
        "' is ", value, ", allowed are ", fallback, " and ", other);
  return value;
}

cpu::Activation activation_of(const ort::NodeInfo& node, bool has_gelu) {
  const std::string name = node.word("activation", "");
  if (name.empty()) return cpu::Activation::kNone;
  if (name == "silu") return cpu::Activation::kSilu;
  if (has_gelu && name == "gelu") return cpu::Activation::kGelu;
  if (has_gelu && name == "quick_gelu") return cpu::Activation::kQuickGelu;
  throw Error(code::kModelFormat, text(node.name(), ": activation '", name, "', allowed are '', 'silu'",
                                       has_gelu ? ", 'gelu', 'quick_gelu'" : ""));
}

void check_tensor(const std::string& node, const char* what, const ort::Tensor& tensor, DType dtype,
                  const ort::Dims& dims) {
  check(tensor.dtype == dtype, code::kModelFormat, node, ": ", what, " is ", type_name(tensor.dtype),
        ", needed is ", type_name(dtype));
  check(tensor.dims == dims, code::kInvalidRequest, node, ": ", what, " has the shape ",
        to_string(tensor.dims), ", needed is ", to_string(dims));
}

const void* optional_input(const std::string& node, const ort::OpRun& run, size_t index, const char* what,
                           DType dtype, const ort::Dims& dims) {
  const ort::Tensor tensor = run.input(index);
  if (!tensor) return nullptr;
  check_tensor(node, what, tensor, dtype, dims);
  return tensor.data;
}

const float* optional_floats(const std::string& node, const ort::OpRun& run, size_t index, const char* what,
                             int64_t count) {
  return static_cast<const float*>(optional_input(node, run, index, what, DType::kFloat32, {count}));
}

ort::Tensor ActivationType::input(const std::string& node, const ort::OpRun& run, size_t rank,
                                  int64_t channels) const {
  const ort::Tensor x = run.input(0);
  const bool is_rank = rank == 0 ? x.dims.rank() >= 1 : x.dims.rank() == rank;
  check(is_rank && x.dims.back() == channels, code::kInvalidRequest, node, ": the input has the shape ",
        to_string(x.dims), ", needed are ", rank == 0 ? std::string("1 or more") : std::to_string(rank),
        " dimensions, the last of ", channels);
  return x;
}

Weight::Weight(const ort::NodeInfo& node, const ActivationType& type, const cpu::PanelShape& shape,
               int phases, int plain_taps) {
  const ort::Tensor weight = node.constant(1);
  check(static_cast<bool>(weight), code::kModelFormat, node.name(), ": the weight is not a constant");
  const std::string format = node.word("weight_format", "plain");
  const int64_t count = weight.dims.count();
  if (format == "bf16_panels") {
    const int64_t needed = phases * shape.elements();
    check((weight.dtype == DType::kBFloat16 || weight.dtype == kUInt16) && count == needed,
          code::kModelFormat, node.name(), ": the packed weight has ", count, " elements of type ",
          type_name(weight.dtype), ", needed are ", needed, " of bfloat16 or uint16");
    view_.panels = weight.as<uint16_t>();
    return;
  }
  if (format == "int8_panels") {
    take_int8(node, type, shape, phases, weight);
    return;
  }
  check(format == "plain", code::kModelFormat, node.name(), ": weight_format '", format,
        "', allowed are 'plain', 'bf16_panels' and 'int8_panels'");
  const int64_t rows = shape.has_gates ? 2 * shape.columns : shape.columns;
  const int64_t needed = rows * plain_taps * shape.channels;
  check(count == needed, code::kModelFormat, node.name(), ": the weight has the shape ",
        to_string(weight.dims), ", needed are ", rows, " x ", plain_taps, " x ", shape.channels, " elements");
  if (type.is_float32() && weight.dtype == DType::kFloat32) {
    view_.plain = weight.as<float>();
    return;
  }
  Buffer<float> floats = widened(node, weight);
  if (type.is_float32()) {
    plain_ = std::move(floats);
    view_.plain = plain_.data();
    return;
  }
  if (phases > 1) {
    Buffer<float> split(static_cast<size_t>(phases * shape.columns * shape.taps * shape.channels));
    cpu::split_into_phases(floats.data(), shape.columns, shape.channels, split.data());
    floats = std::move(split);
  }
  panels_ = Buffer<uint16_t>(static_cast<size_t>(phases * shape.elements()));
  for (int phase = 0; phase < phases; ++phase)
    cpu::pack_conv(floats.data() + phase * rows * shape.taps * shape.channels, shape,
                   panels_.data() + phase * shape.elements());
  view_.panels = panels_.data();
}

void Weight::take_int8(const ort::NodeInfo& node, const ActivationType& type, cpu::PanelShape shape,
                       int phases, const ort::Tensor& weight) {
  shape.is_int8 = true;
  const int64_t count = weight.dims.count(), needed = phases * shape.elements() * 2;
  check(weight.dtype == DType::kUInt8 && count == needed, code::kModelFormat, node.name(),
        ": the packed weight has ", count, " elements of type ", type_name(weight.dtype), ", needed are ",
        needed, " of uint8");
  check(!type.is_float32(), code::kModelFormat, node.name(),
        ": int8_panels multiply bfloat16 activations, these are float32");
  check(shape.channels * shape.taps <= cpu::kMostInt8Depth, code::kModelFormat, node.name(), ": sums of ",
        shape.channels * shape.taps, " products, in int8 at most ", cpu::kMostInt8Depth, " are exact");
  const int64_t zero_point = node.integer("zero_point", view_.zero_point);
  check(zero_point >= 1 && zero_point <= 254, code::kModelFormat, node.name(), ": zero_point is ", zero_point,
        ", allowed are 1 to 254");
  view_.panels = weight.as<uint16_t>();
  view_.is_int8 = true;
  view_.zero_point = static_cast<int>(zero_point);
}

cpu::Parallel threads_of(const ort::OpRun& run) {
  return {const_cast<ort::OpRun*>(&run),
          [](void* own, size_t count, void (*task)(const void*, size_t), const void* data) {
            static_cast<const ort::OpRun*>(own)->parallel(count, task, data);
          },
          run.session().threads, plans_of(run)};
}

}  // namespace textopia::ops
