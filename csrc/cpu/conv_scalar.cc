#include "cpu/conv.h"
#include "cpu/scalar_math.h"

namespace textopia::cpu {
namespace {

// The sum of one output over the kernel; y and x are of the output.
template <typename T>
float sum_at(const ConvArgs& args, int64_t image, int64_t y, int64_t x, int64_t column) {
  const ConvShape& s = args.shape;
  const bool is_phased = s.upsample && args.weight.panels != nullptr;
  const PanelShape panels = {s.columns, s.channels, is_phased ? 4 : s.kernel * s.kernel, false};
  WeightView weight = args.weight;
  if (is_phased) weight.panels += (y % 2 * 2 + x % 2) * panels.elements();
  const int side = is_phased ? 2 : s.kernel;
  const int64_t before = s.kernel == 1 || s.asymmetric_pad ? 0 : 1;
  float sum = 0.0f;
  for (int dy = 0; dy < side; ++dy) {
    for (int dx = 0; dx < side; ++dx) {
      int64_t from_y = is_phased ? y / 2 + dy - 1 + y % 2 : y * s.stride + dy - before;
      int64_t from_x = is_phased ? x / 2 + dx - 1 + x % 2 : x * s.stride + dx - before;
      if (from_y < 0 || from_x < 0) continue;
      if (s.upsample && !is_phased) from_y /= 2, from_x /= 2;
      if (from_y >= s.height || from_x >= s.width) continue;
      const T* pixel =
          static_cast<const T*>(args.x) + ((image * s.height + from_y) * s.width + from_x) * s.channels;
      sum += dot_channels(pixel, weight, panels, column, dy * side + dx);
    }
  }
  return sum;
}

template <typename T>
void conv_row(const ConvArgs& args, int64_t image, int64_t y) {
  const ConvShape& s = args.shape;
  for (int64_t x = 0; x < s.out_width(); ++x) {
    for (int64_t n = 0; n < s.columns; ++n) {
      const int64_t i = ((image * s.out_height() + y) * s.out_width() + x) * s.columns + n;
      float value = sum_at<T>(args, image, y, x, n);
      if (args.bias != nullptr) value += args.bias[n];
      if (args.time_bias != nullptr)
        value += to_float(
            static_cast<const T*>(args.time_bias)[(args.has_one_time_bias ? 0 : image) * s.columns + n]);
      value = activate(args.activation, value);
      if (args.residual != nullptr) value += to_float(static_cast<const T*>(args.residual)[i]);
      store(static_cast<T*>(args.out) + i, value);
    }
  }
}

}  // namespace

void conv_scalar(const ConvArgs& args, const Parallel& parallel) {
  const int64_t rows = args.shape.out_height();
  parallel(static_cast<size_t>(args.shape.images * rows), [&](size_t i) {
    const auto row = static_cast<int64_t>(i);
    if (args.is_float32)
      conv_row<float>(args, row / rows, row % rows);
    else
      conv_row<BFloat16>(args, row / rows, row % rows);
  });
}

}  // namespace textopia::cpu
