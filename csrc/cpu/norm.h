// Layer and group normalisation, channels last. Mean and variance in float32 around a value of the data, so
// that a large mean costs no digits.
#pragma once

#include <cstdint>

#include "base/isa.h"
#include "cpu/parallel.h"

namespace textopia::cpu {

struct NormArgs {
  const void* x = nullptr;  // [images][rows][channels]; layer norm: images = 1
  const float* gamma = nullptr;
  const float* beta = nullptr;  // [channels] both
  void* out = nullptr;          // as x; may be x
  int64_t images = 1, rows = 1, channels = 1;
  int64_t groups = 1;  // group norm: of channels side by side, normalised over all rows of an image
  float epsilon = 1e-5f;
  bool has_silu = false;    // group norm: SiLU of the result
  bool is_float32 = false;  // x and out; otherwise bfloat16
};

void layer_norm(const NormArgs& args, MatrixUnit unit, const Parallel& parallel);
void layer_norm_scalar(const NormArgs& args, const Parallel& parallel);

void group_norm(const NormArgs& args, MatrixUnit unit, const Parallel& parallel);
void group_norm_scalar(const NormArgs& args, const Parallel& parallel);

}  // namespace textopia::cpu
