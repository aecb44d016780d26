// The loops of the normalisations, for one instruction set. Plain declarations only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace textopia::cpu {

struct NormKernels {
  // out[r] = (x[r] - mean) / sqrt(variance + epsilon) * gamma + beta over the channels of each row.
  void (*layer_rows)(const uint16_t* x, int64_t rows, int64_t channels, const float* gamma, const float* beta,
                     float epsilon, uint16_t* out);

  // sums[c] and squares[c] over the rows of x[r][c] - origin[c].
  void (*channel_sums)(const uint16_t* x, int64_t rows, int64_t channels, const uint16_t* origin, float* sums,
                       float* squares);

  // out[r][c] = x[r][c] * scale[c] + shift[c], through SiLU if asked.
  void (*scale_rows)(const uint16_t* x, int64_t rows, int64_t channels, const float* scale,
                     const float* shift, bool has_silu, uint16_t* out);
};

const NormKernels& norm_kernels_avx512_bf16();

}  // namespace textopia::cpu
