// Element conversions at the borders of half-precision graphs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace textopia::cpu {

// IEEE half precision, round to nearest even, overflow to infinity, subnormals kept. count elements, no overlap.
void float_to_half(const float* source, uint16_t* target, size_t count);
void half_to_float(const uint16_t* source, float* target, size_t count);

// bfloat16, round to nearest even, NaN kept.
void float_to_bfloat16(const float* source, uint16_t* target, size_t count);
void bfloat16_to_float(const uint16_t* source, float* target, size_t count);

}  // namespace textopia::cpu
