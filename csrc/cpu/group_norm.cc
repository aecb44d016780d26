#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "base/workspace.h"
#include "cpu/norm.h"
#include "cpu/norm_kernels.h"

namespace textopia::cpu {

#ifdef TEXTOPIA_X86
namespace {

// Rows per task: a piece that stays in a core's cache, and few enough for sums in float32.
int64_t piece_rows(int64_t channels) { return std::clamp<int64_t>(65536 / channels, 1, 512); }

// Sums over pieces become a scale and a shift per channel of one image. Sums are of differences from the
// image's first row; in float64 from here on.
void finish_statistics(const NormArgs& args, int64_t pieces, const float* sums, const uint16_t* origin,
                       float* scale, float* shift) {
  const int64_t width = args.channels / args.groups;
  const auto count = static_cast<double>(args.rows);
  auto widened = [&](int64_t c) {
    return static_cast<double>(std::bit_cast<float>(uint32_t{origin[c]} << 16));
  };
  for (int64_t group = 0; group < args.groups; ++group) {
    const int64_t first = group * width;
    double mean = 0.0, spread = 0.0;
    for (int64_t c = first; c < first + width; ++c) {
      double sum = 0.0, square = 0.0;
      for (int64_t p = 0; p < pieces; ++p) {
        sum += static_cast<double>(sums[2 * p * args.channels + c]);
        square += static_cast<double>(sums[(2 * p + 1) * args.channels + c]);
      }
      // Two sets of rows with a mean each: their spreads add, and what the means differ (Chan et al. 1979).
      const double own = widened(c) + sum / count, others = static_cast<double>(c - first);
      const double apart = own - mean;
      spread += square - sum * sum / count + apart * apart * count * others / (others + 1.0);
      mean += apart / (others + 1.0);
    }
    const double variance = std::max(spread / (count * static_cast<double>(width)), 0.0);
    const double inverse = 1.0 / std::sqrt(variance + static_cast<double>(args.epsilon));
    for (int64_t c = first; c < first + width; ++c) {
      scale[c] = static_cast<float>(args.gamma[c] * inverse);
      shift[c] = static_cast<float>(args.beta[c] - mean * inverse * args.gamma[c]);
    }
  }
}

void group_norm_avx512(const NormArgs& args, const Parallel& parallel) {
  const NormKernels& kernels = norm_kernels_avx512_bf16();
  const auto* x = static_cast<const uint16_t*>(args.x);
  auto* out = static_cast<uint16_t*>(args.out);
  const int64_t rows = piece_rows(args.channels), pieces = (args.rows + rows - 1) / rows;
  const int64_t image_elements = args.rows * args.channels;
  auto cut = [&](Carver& carver) {
    return std::pair(carver.take<float>(args.images * pieces * 2 * args.channels),
                     carver.take<float>(args.images * 2 * args.channels));
  };
  Carver measure;
  cut(measure);
  Carver carver(thread_scratch(Scratch::kShared, measure.bytes()));
  const auto [sums, scales] = cut(carver);

  auto each_piece = [&, pieces = pieces](const auto& body) {
    parallel(static_cast<size_t>(args.images * pieces), [&](size_t i) {
      const int64_t image = static_cast<int64_t>(i) / pieces, piece = static_cast<int64_t>(i) % pieces;
      body(image, piece, image * image_elements + piece * rows * args.channels,
           std::min(rows, args.rows - piece * rows));
    });
  };
  each_piece([&, sums = sums](int64_t image, int64_t piece, int64_t offset, int64_t count) {
    float* to = sums + (image * pieces + piece) * 2 * args.channels;
    kernels.channel_sums(x + offset, count, args.channels, x + image * image_elements, to,
                         to + args.channels);
  });
  for (int64_t image = 0; image < args.images; ++image) {
    float* scale = scales + image * 2 * args.channels;
    finish_statistics(args, pieces, sums + image * pieces * 2 * args.channels, x + image * image_elements,
                      scale, scale + args.channels);
  }
  each_piece([&, scales = scales](int64_t image, int64_t, int64_t offset, int64_t count) {
    const float* scale = scales + image * 2 * args.channels;
    kernels.scale_rows(x + offset, count, args.channels, scale, scale + args.channels, args.has_silu,
                       out + offset);
  });
}

}  // namespace
#endif

void group_norm(const NormArgs& args, [[maybe_unused]] MatrixUnit unit, const Parallel& parallel) {
  if (args.images * args.rows * args.channels == 0) return;
#ifdef TEXTOPIA_X86
  if (unit != MatrixUnit::kScalar && !args.is_float32) return group_norm_avx512(args, parallel);
#endif
  group_norm_scalar(args, parallel);
}

}  // namespace textopia::cpu
