// What the plain versions of the kernels share.
#pragma once

#include <cmath>
#include <cstdint>

#include "cpu/bfloat16.h"
#include "cpu/linear.h"

namespace textopia::cpu {

inline float gelu(float x) { return 0.5f * x * (1.0f + std::erf(x * 0.70710678f)); }

inline float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::kSilu: return x / (1.0f + std::exp(-x));
    case Activation::kGelu: return gelu(x);
    case Activation::kQuickGelu: return x / (1.0f + std::exp(-1.702f * x));
    case Activation::kNone: break;
  }
  return x;
}

// The sum over channels of x times the weights of one column and tap.
template <typename T>
float dot_channels(const T* x, const WeightView& weight, const PanelShape& shape, int64_t column, int tap) {
  float sum = 0.0f;
  if (weight.plain != nullptr) {
    const float* w = weight.plain + (column * shape.taps + tap) * shape.channels;
    for (int64_t c = 0; c < shape.channels; ++c) sum += to_float(x[c]) * w[c];
    return sum;
  }
  for (int64_t c = 0; c < shape.channels; ++c) {
    const BFloat16 w{weight.panels[panel_offset(shape, column, c, tap)]};
    sum += to_float(x[c]) * to_float(w);
  }
  return sum;
}

}  // namespace textopia::cpu
