#include "cpu/int8_scalar.h"
#include "cpu/scalar_math.h"

namespace textopia::cpu {
namespace {

template <typename T>
void linear_rows(const LinearArgs& args, int64_t row) {
  const PanelShape& shape = args.shape;
  const T* x = static_cast<const T*>(args.x) + row * shape.channels;
  const auto* narrow = static_cast<const BFloat16*>(args.x) + row * shape.channels;  // what int8 is made of
  const bool is_int8 = args.weight.is_int8;
  const float scale = is_int8 ? find_scale(narrow, shape.channels, args.weight.zero_point) : 0.0f;
  auto sum = [&](int64_t column) {
    if (!is_int8) return dot_channels(x, args.weight, shape, column, 0);
    const int32_t whole = dot_int8(narrow, scale, args.weight, shape, column, 0);
    return dequantise(whole, scale, args.weight, shape, column);
  };
  auto product = [&](int64_t column) {
    return sum(column) + (args.bias != nullptr ? args.bias[column] : 0.0f);
  };
  for (int64_t n = 0; n < shape.columns; ++n) {
    float y = shape.has_gates ? product(n) * gelu(product(shape.columns + n))
                              : activate(args.activation, product(n));
    const int64_t i = row * shape.columns + n;
    if (args.residual != nullptr) y += to_float(static_cast<const T*>(args.residual)[i]);
    store(static_cast<T*>(args.out) + i, y);
  }
}

}  // namespace

void linear_scalar(const LinearArgs& args, const Parallel& parallel) {
  parallel(static_cast<size_t>(args.rows), [&](size_t row) {
    if (args.is_float32)
      linear_rows<float>(args, static_cast<int64_t>(row));
    else
      linear_rows<BFloat16>(args, static_cast<int64_t>(row));
  });
}

}  // namespace textopia::cpu
