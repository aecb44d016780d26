// The arithmetic of int8 layers in plain code: activations become bytes with one scale, products are summed
// as integers, and two scales make numbers of the sums.
#pragma once

#include <cstdint>

#include "cpu/bfloat16.h"
#include "cpu/linear.h"
#include "cpu/panels.h"

namespace textopia::cpu {

// The scale of `count` activations that go into one sum.
float find_scale(const BFloat16* x, int64_t count, int zero_point);

// The sum over channels of bytes without their zero point times the weights of one column and tap.
int32_t dot_int8(const BFloat16* x, float scale, const WeightView& weight, const PanelShape& shape,
                 int64_t column, int tap);

// What a sum over all taps and channels stands for.
float dequantise(int32_t sum, float scale, const WeightView& weight, const PanelShape& shape, int64_t column);

}  // namespace textopia::cpu
