#include <cmath>

#include "cpu/norm.h"
#include "cpu/scalar_math.h"

namespace textopia::cpu {
namespace {

// Normalises the elements first + r * stride + c for r < rows and c < width, in float64.
template <typename T>
void normalize(const NormArgs& args, int64_t first, int64_t rows, int64_t stride, int64_t width,
               int64_t channel) {
  const T* x = static_cast<const T*>(args.x) + first;
  T* out = static_cast<T*>(args.out) + first;
  auto sum_over = [&](const auto& term) {
    double sum = 0.0;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < width; ++c) sum += term(static_cast<double>(to_float(x[r * stride + c])));
    return sum / static_cast<double>(rows * width);
  };
  const double mean = sum_over([](double value) { return value; });
  const double variance = sum_over([&](double value) { return (value - mean) * (value - mean); });
  const double inverse = 1.0 / std::sqrt(variance + static_cast<double>(args.epsilon));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < width; ++c) {
      const double scaled = (static_cast<double>(to_float(x[r * stride + c])) - mean) * inverse;
      const auto y = static_cast<float>(scaled * args.gamma[channel + c] + args.beta[channel + c]);
      store(out + r * stride + c, args.has_silu ? activate(Activation::kSilu, y) : y);
    }
  }
}

void normalize_any(const NormArgs& args, int64_t first, int64_t rows, int64_t stride, int64_t width,
                   int64_t channel) {
  (args.is_float32 ? normalize<float> : normalize<BFloat16>)(args, first, rows, stride, width, channel);
}

}  // namespace

void layer_norm_scalar(const NormArgs& args, const Parallel& parallel) {
  parallel(static_cast<size_t>(args.rows), [&](size_t row) {
    normalize_any(args, static_cast<int64_t>(row) * args.channels, 1, args.channels, args.channels, 0);
  });
}

void group_norm_scalar(const NormArgs& args, const Parallel& parallel) {
  const int64_t width = args.channels / args.groups;
  parallel(static_cast<size_t>(args.images * args.groups), [&](size_t i) {
    const int64_t image = static_cast<int64_t>(i) / args.groups,
                  group = static_cast<int64_t>(i) % args.groups;
    normalize_any(args, image * args.rows * args.channels + group * width, args.rows, args.channels, width,
                  group * width);
  });
}

}  // namespace textopia::cpu
