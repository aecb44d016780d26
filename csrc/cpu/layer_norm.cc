#include <algorithm>

#include "cpu/norm.h"
#include "cpu/norm_kernels.h"

namespace textopia::cpu {

void layer_norm(const NormArgs& args, [[maybe_unused]] MatrixUnit unit, const Parallel& parallel) {
#ifdef TEXTOPIA_X86
  if (unit != MatrixUnit::kScalar && !args.is_float32) {
    // Enough elements that a task is worth waking a thread for.
    const int64_t rows = std::max<int64_t>(1, 65536 / std::max<int64_t>(args.channels, 1));
    return parallel(static_cast<size_t>((args.rows + rows - 1) / rows), [&](size_t i) {
      const int64_t first = static_cast<int64_t>(i) * rows, offset = first * args.channels;
      norm_kernels_avx512_bf16().layer_rows(
          static_cast<const uint16_t*>(args.x) + offset, std::min(rows, args.rows - first), args.channels,
          args.gamma, args.beta, args.epsilon, static_cast<uint16_t*>(args.out) + offset);
    });
  }
#endif
  layer_norm_scalar(args, parallel);
}

}  // namespace textopia::cpu
