// The fused update for any CPU: the oracle of the others.
#include <bit>
#include <cstddef>
#include <cstdint>

#include "cpu/combine_kernels.h"

namespace textopia::cpu {
namespace {

// A slice that stays in the first-level cache, so that the loops below are simple enough for the compiler's
// own vectoriser, and an output that is also a source is written only after it was read.
constexpr size_t kSlice = 512;

}  // namespace

bool combine_scalar(const CombineArgs& args) {
  float sum[kSlice];
  // One more in the exponent of infinity or NaN reaches the sign bit, that of a finite number does not.
  uint32_t carries = 0;
  for (size_t begin = 0; begin < args.count; begin += kSlice) {
    const size_t count = args.count - begin < kSlice ? args.count - begin : kSlice;
    const float* first = args.sources[0] + begin;
    for (size_t i = 0; i < count; ++i) sum[i] = args.weights[0] * first[i];
    for (int k = 1; k < args.source_count; ++k) {
      const float* source = args.sources[k] + begin;
      const float weight = args.weights[k];
      for (size_t i = 0; i < count; ++i) sum[i] += weight * source[i];
    }
    for (size_t i = 0; i < count; ++i)
      carries |= (std::bit_cast<uint32_t>(sum[i]) & 0x7fffffffu) + 0x00800000u;
    for (int k = 0; k < args.output_count; ++k) {
      float* output = args.outputs[k] + begin;
      const float scale = args.scales[k];
      for (size_t i = 0; i < count; ++i) output[i] = scale * sum[i];
    }
  }
  return (carries & 0x80000000u) == 0;
}

}  // namespace textopia::cpu
