// Element conversions at the borders of half-precision graphs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/isa.h"
#include "cpu/convert_kernels.h"

namespace textopia::cpu {

// IEEE half precision, round to nearest even, overflow to infinity, subnormals kept. count elements, no
// overlap. NaN stays NaN and becomes quiet, its sign and upper payload kept, as the CPU's own conversion
// does.
void float_to_half(const float* source, uint16_t* target, size_t count);
void half_to_float(const uint16_t* source, float* target, size_t count);

// bfloat16, round to nearest even, NaN kept (quiet).
void float_to_bfloat16(const float* source, uint16_t* target, size_t count);
void bfloat16_to_float(const uint16_t* source, float* target, size_t count);

// The conversions of `isa`, the same bits for each; throws Error{configuration} when this CPU lacks it.
// AVX-512 uses the AVX2 ones: they run at the speed of memory.
const ConvertKernels& convert_kernels(Isa isa);

}  // namespace textopia::cpu
