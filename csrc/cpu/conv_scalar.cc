#include "cpu/conv.h"
#include "cpu/int8_scalar.h"
#include "cpu/scalar_math.h"

namespace textopia::cpu {
namespace {

// The weights of the outputs at row y and column x.
struct Kernel {
  Kernel(const ConvArgs& args, int64_t y, int64_t x) : weight(args.weight) {
    const ConvShape& s = args.shape;
    is_phased = s.upsample && weight.panels != nullptr;
    panels = {s.columns, s.channels, is_phased ? 4 : s.kernel * s.kernel, false, weight.is_int8};
    if (is_phased) weight.panels += (y % 2 * 2 + x % 2) * panels.elements();
  }
  bool is_phased;
  PanelShape panels;
  WeightView weight;
};

// The sum of one output over the kernel: dot(pixel, tap) of all pixels that there are; y and x are of the
// output.
template <typename T, typename Sum, typename Dot>
Sum sum_at(const ConvArgs& args, bool is_phased, int64_t image, int64_t y, int64_t x, const Dot& dot) {
  const ConvShape& s = args.shape;
  const int side = is_phased ? 2 : s.kernel;
  const int64_t before = s.kernel == 1 || s.asymmetric_pad ? 0 : 1;
  Sum sum = 0;
  for (int dy = 0; dy < side; ++dy) {
    for (int dx = 0; dx < side; ++dx) {
      int64_t from_y = is_phased ? y / 2 + dy - 1 + y % 2 : y * s.stride + dy - before;
      int64_t from_x = is_phased ? x / 2 + dx - 1 + x % 2 : x * s.stride + dx - before;
      if (from_y < 0 || from_x < 0) continue;
      if (s.upsample && !is_phased) from_y /= 2, from_x /= 2;
      if (from_y >= s.height || from_x >= s.width) continue;
      const T* pixel =
          static_cast<const T*>(args.x) + ((image * s.height + from_y) * s.width + from_x) * s.channels;
      sum += dot(pixel, dy * side + dx);
    }
  }
  return sum;
}

// The scale of bytes: of an image, or of the one pixel that a 1x1 kernel reads.
float scale_at(const ConvArgs& args, int64_t image, int64_t y, int64_t x) {
  const ConvShape& s = args.shape;
  const auto* pixels = static_cast<const BFloat16*>(args.x) + image * s.height * s.width * s.channels;
  if (s.kernel > 1) return find_scale(pixels, s.height * s.width * s.channels, args.weight.zero_point);
  return find_scale(pixels + (y * s.width + x) * s.stride * s.channels, s.channels, args.weight.zero_point);
}

template <typename T>
void conv_row(const ConvArgs& args, int64_t image, int64_t y) {
  const ConvShape& s = args.shape;
  const bool is_int8 = args.weight.is_int8;
  float scale = is_int8 && s.kernel > 1 ? scale_at(args, image, 0, 0) : 0.0f;
  for (int64_t x = 0; x < s.out_width(); ++x) {
    const Kernel kernel(args, y, x);
    if (is_int8 && s.kernel == 1) scale = scale_at(args, image, y, x);
    for (int64_t n = 0; n < s.columns; ++n) {
      const int64_t i = ((image * s.out_height() + y) * s.out_width() + x) * s.columns + n;
      float value;
      if (is_int8) {
        const int32_t sum = sum_at<BFloat16, int32_t>(
            args, kernel.is_phased, image, y, x, [&](const BFloat16* pixel, int tap) {
              return dot_int8(pixel, scale, kernel.weight, kernel.panels, n, tap);
            });
        value = dequantise(sum, scale, kernel.weight, kernel.panels, n);
      } else {
        value = sum_at<T, float>(args, kernel.is_phased, image, y, x, [&](const T* pixel, int tap) {
          return dot_channels(pixel, kernel.weight, kernel.panels, n, tap);
        });
      }
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
