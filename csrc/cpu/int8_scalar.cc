#include "cpu/int8_scalar.h"

#include <algorithm>
#include <cmath>

namespace textopia::cpu {
namespace {

#include "cpu/quantise.h"

}  // namespace

float find_scale(const BFloat16* x, int64_t count, int zero_point) {
  uint16_t high = 0, low = 0;
  for (int64_t i = 0; i < count; ++i) {
    const bool is_negative = (x[i].bits & 0x8000u) != 0;
    uint16_t& most = is_negative ? low : high;
    most = std::max(most, static_cast<uint16_t>(x[i].bits & 0x7fffu));
  }
  return scale_of(high, low, zero_point);
}

int32_t dot_int8(const BFloat16* x, float scale, const WeightView& weight, const PanelShape& shape,
                 int64_t column, int tap) {
  const auto* weights = reinterpret_cast<const int8_t*>(weight.panels);
  const float inverse = inverse_of(scale);
  if (inverse == 0.0f) return 0;  // numbers that cannot be rounded, or are all zero
  int32_t sum = 0;
  for (int64_t c = 0; c < shape.channels; ++c) {
    const float whole =
        std::nearbyint(std::fma(to_float(x[c]), inverse, static_cast<float>(weight.zero_point)));
    const int byte = static_cast<int>(std::clamp(whole, 0.0f, 255.0f));
    sum += (byte - weight.zero_point) * weights[panel_offset(shape, column, c, tap)];
  }
  return sum;
}

float dequantise(int32_t sum, float scale, const WeightView& weight, const PanelShape& shape,
                 int64_t column) {
  return static_cast<float>(sum) * column_scale(weight.panels, shape, column).scale * scale;
}

}  // namespace textopia::cpu
